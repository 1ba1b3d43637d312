"""Other libraries: transformations handed over, and runs that go on."""

from .convert import from_optax as from_optax
from .convert import to_optax as to_optax
from .load import load_optax_state as load_optax_state
