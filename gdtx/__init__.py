"""Composable gradient transformations for JAX."""

import typing as _typing

from . import explore as explore
from . import interop as interop
from . import kfac as kfac
from . import kinds as kinds
from . import sharding as sharding
from . import states as states

# The public names, by group: each is a file that lists them.
from .public.algebra import *
from .public.links import *
from .public.matrices import *
from .public.methods import *
from .public.schedules import *
from .public.wrappers import *
from .public.parameters import *
from .public.devices import *
from .public.curvature import *
from .public.hyperparameters import *
from .public.reading import *
from .public.experiments import *
from .public.configuration import *
from .public.kinds import *
from .public import GROUPS as _GROUPS
from .public import contents as _contents

__version__ = "0.2.0"
__doc__ = f"{__doc__}\n{_contents.contents(_GROUPS)}\n"
__all__ = [name for group in _GROUPS for name in _contents.names(group)]  # pyright: ignore[reportUnsupportedDunderAll]
__all__ += ["explore", "interop", "kfac", "kinds", "sharding", "states"]


def __dir__() -> list[str]:
    return [*__all__, "__doc__", "__version__"]


for _module in (states, kinds, explore, interop, kfac, sharding):
    _contents.publish(_module, _module.__name__)
for _module in _GROUPS:
    _contents.publish(_module, "gdtx")

if not _typing.TYPE_CHECKING:  # A type checker would take every name for one of these.
    from .interop.optax_names import __getattr__ as __getattr__
