"""Kinds of hyperparameters: one annotation drives the check, its message and the documentation."""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Annotated, Any, Union, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Kind:
    """What an argument may be.

    Args:
        expected: completes the sentence "b1 must be ...".
        accepts: whether a Python value is of this kind.
        scalar: a real number; then an array or a schedule is accepted in its place.
        integer: an integer that is a constant.
        convert: the form in which an accepted value is kept.
        each: of a dict, the kind of its values.
    """

    expected: str
    accepts: Callable[[Any], bool]
    scalar: bool = False
    integer: bool = False
    convert: Callable[[Any], Any] = lambda value: value
    each: Kind | None = None


def _number(expected: str, accepts: Callable[[float], bool]) -> Kind:
    return Kind(expected, accepts, scalar=True)


def _is_float_dtype(value: Any) -> bool:
    try:
        return jnp.issubdtype(jnp.dtype(value), jnp.inexact)
    except TypeError:
        return False


_scalar = _number("a finite number", math.isfinite)
_flag = Kind("True or False", lambda value: isinstance(value, bool))
_integer = Kind(
    "an integer",
    lambda value: isinstance(value, int) and not isinstance(value, bool),
    integer=True,
)

# `Any`, because a scalar is a number, an array or a schedule to the caller, and a number or an
# array, never a schedule, to the body of the factory: no one type says both.
Scalar = Annotated[Any, _scalar]
NonNegative = Annotated[Any, _number("a non-negative finite number", lambda x: 0 <= x < math.inf)]
Positive = Annotated[Any, _number("positive", lambda x: x > 0)]
Decay = Annotated[Any, _number("in [0, 1)", lambda x: 0 <= x < 1)]
Fraction = Annotated[Any, _number("in [0, 1]", lambda x: 0 <= x <= 1)]
InnerDecay = Annotated[Any, _number("in (0, 1)", lambda x: 0 < x < 1)]
Growth = Annotated[Any, _number("at least 1", lambda x: x >= 1)]
LengthThreshold = Annotated[Any, _number("at least 4", lambda x: x >= 4)]
Count = Annotated[
    Any,
    Kind("a non-negative integer", lambda x: _integer.accepts(x) and x >= 0, integer=True),
]
Seed = Annotated[
    Any,
    Kind(
        "an integer in [0, 2**32) or an integer array",
        lambda x: _is_integral(x) if is_array(x) else _integer.accepts(x) and 0 <= x < 2**32,
        integer=True,
    ),
]
Period = Annotated[
    Any,
    Kind("a positive integer", lambda x: _integer.accepts(x) and x >= 1, integer=True),
]
StepCount = Annotated[Any, _number("a positive number of steps", lambda x: 0 < x < math.inf)]
FloatDType = Annotated[
    Any,
    Kind("a floating-point or complex dtype", _is_float_dtype, convert=lambda x: jnp.dtype(x).name),
]
Function = Annotated[Any, Kind("a function", callable)]

_by_type: dict[Any, Kind] = {bool: _flag, int: _integer, float: _scalar}


def register_kind(annotation: type, kind: Kind) -> None:
    """Let a plain annotation stand for a kind, as `float` stands for `Scalar`."""
    _by_type[annotation] = kind


def kind_of(parameter: inspect.Parameter) -> tuple[Kind | None, bool]:
    """The kind a parameter's annotation asks for, and whether None is accepted too."""
    annotation = parameter.annotation
    options = (annotation,)
    if get_origin(annotation) in (Union, types.UnionType):
        options = get_args(annotation)
    optional = type(None) in options or parameter.default is None
    for option in options:
        for metadata in getattr(option, "__metadata__", ()):
            if isinstance(metadata, Kind):
                return metadata, optional
        if option in _by_type and option is not type(None):
            return _by_type[option], optional
    if annotation is parameter.empty and isinstance(parameter.default, float):
        return _scalar, optional
    return None, optional


def brief(value: Any) -> str:
    """A value in a message; functions by name, and what to do about one that was not called."""
    if not (callable(value) and hasattr(value, "__name__")):
        return repr(value)
    name = f"the function {value.__name__}"
    return f"{name}: call it" if hasattr(value, "__gdtx_signature__") else name


def is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray)


def checked(label: str, value: Any, kind: Kind | None, optional: bool, schedules: bool) -> Any:
    """`value` in the form it is kept in, or an error that begins with `label`."""
    if isinstance(value, np.generic):
        # A NumPy scalar is a number, not an array: a constant, like Python's own.
        value = value.item()
    if kind is None or (optional and value is None):
        return value
    if kind.scalar:
        alternatives = ", an array or a schedule" if schedules else " or an array"
        if is_array(value):
            if not (jnp.issubdtype(value.dtype, jnp.floating) or _is_integral(value)):
                raise TypeError(f"{label} must be real, got an array of dtype {value.dtype}")
            return value
        if callable(value) and schedules:
            return value
        if isinstance(value, bool) or not isinstance(value, Real):
            number = "" if kind.expected.startswith("a ") else "a number "
            expected = f"{number}{kind.expected}{alternatives}"
            raise TypeError(f"{label} must be {expected}, got {brief(value)}")
    if not kind.accepts(value):
        is_number = isinstance(value, Real) and (kind.scalar or kind.integer)
        error = ValueError if is_number else TypeError
        raise error(f"{label} must be {kind.expected}, got {brief(value)}")
    if kind.each is not None and isinstance(value, Mapping):
        return {
            key: checked(f"{label}[{key!r}]", item, kind.each, False, schedules)
            for key, item in value.items()
        }
    return kind.convert(value)


def _is_integral(value: Any) -> bool:
    return jnp.issubdtype(value.dtype, jnp.integer)


def is_zero(value: Any) -> bool:
    """Whether a hyperparameter is the constant 0; an array may change and is not."""
    return isinstance(value, int | float) and value == 0
