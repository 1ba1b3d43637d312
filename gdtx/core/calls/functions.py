"""Functions as arguments: what counts as one, what it takes, and how messages name it."""

from __future__ import annotations

import inspect
import sys
import types
from typing import Any

import jax.numpy as jnp
import numpy as np


def is_function(value: Any) -> bool:
    """Whether this is a function to call, and not what is callable by accident: a class, a module,
    or a factory of transformations or schedules that was not called."""
    is_other = isinstance(value, type | types.GenericAlias | types.ModuleType)
    return callable(value) and not (is_other or hasattr(value, "__gdtx_signature__"))


def is_of_a_library(value: Any) -> bool:
    """Whether this is a function as Python, NumPy or JAX have it, such as `jnp.sqrt` or `abs`.

    In the place of a number it is most likely what belongs to another argument.
    """
    if isinstance(value, types.BuiltinFunctionType | np.ufunc):
        return True
    module = getattr(value, "__module__", None) or ""
    libraries = ("builtins", "jax", "numpy")
    # What a library's function returns names its module too, but is not to be found in it.
    has_name = getattr(sys.modules.get(module), getattr(value, "__name__", ""), None) is value
    return has_name and module.partition(".")[0] in libraries


def accepts_arguments(f: Any, number: int, *names: str) -> bool:
    """Whether a function takes this number of arguments and these names; True if it is not known.

    Names that it cannot do without are not looked at: there may be a reason to know them.
    """
    if type(f) is types.FunctionType and not f.__dict__ and not names:
        # The common case: `inspect` takes as long as the rest of a call.
        most, defaults = f.__code__.co_argcount, len(f.__defaults__ or ())
        has_rest = f.__code__.co_flags & inspect.CO_VARARGS
        return most - defaults <= number and (number <= most or bool(has_rest))
    parameters = _parameters(f)
    if parameters is None:
        return True
    needed = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    try:
        inspect.Signature(parameters).bind(*[None] * number, **dict.fromkeys({*names, *needed}))
    except TypeError:
        return False
    return True


def named_by(f: Any, *names: str) -> list[str]:
    """Those of these names that a function has among the arguments after its first."""
    return [name for name in names_after_first(f) if name in names]


def names_after_first(f: Any) -> list[str]:
    """By which names a function takes arguments after its first."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in (_parameters(f) or [])[1:] if p.kind in by_name]


def _parameters(f: Any) -> list[inspect.Parameter] | None:
    try:
        return list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):  # of a function that is not written in Python
        return None


def with_arguments(f: Any) -> str:
    """A function in a message, with the names of its arguments."""
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    names = (stars.get(p.kind, "") + p.name for p in _parameters(f) or ())
    return f"{brief(f)}({', '.join(names)})"


def brief(value: Any) -> str:
    """A value in a message; functions by name, with a hint where one is no schedule."""
    if dtype := _dtype_name(value):
        return f"the dtype {dtype}"
    if isinstance(value, type | types.ModuleType):
        return f"the {'class' if isinstance(value, type) else 'module'} {value.__name__}"
    if not (callable(value) and hasattr(value, "__name__")):
        return repr(value)
    name = f"the function {value.__name__}"
    if hasattr(value, "__gdtx_signature__"):
        return f"{name}: call it"
    if is_of_a_library(value):
        return f"{name} of {value.__module__ or 'builtins'}"
    return name


def _dtype_name(value: Any) -> str | None:
    is_scalar_type = isinstance(value, type) and (
        issubclass(value, np.generic) or isinstance(getattr(value, "dtype", None), np.dtype)
    )
    return jnp.dtype(value).name if is_scalar_type or isinstance(value, np.dtype) else None
