"""Reading: formulas of transformations and numbers in their states."""

from ..core.expand import expand as expand
from ..core.expand import tree as tree
from ..formula.latex import latex as latex
from ..inspect.describe import describe as describe
from ..inspect.find import count_steps as count_steps
from ..inspect.find import find as find
from ..inspect.reuse import value_and_grad_from_state as value_and_grad_from_state
from ..inspect.state_table import StateTable as StateTable
from ..inspect.state_table import state_table as state_table
