"""Kinds of hyperparameters: one annotation drives the check, its message and the documentation."""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Annotated, Any, Union, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from ..numbers.numerics import is_computable
from ..numbers.values import Symbolic, at_hand, fits, is_array, is_integral, within_int32
from ..outermost import is_outermost
from .functions import accepts_arguments, brief, is_function, is_of_a_library, with_arguments
from .types import NumberOrSchedule, NumPyValue


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
        takes: of a function, how many arguments it is called with.
        text: a string.
        int32: programs hold it as an int32; a message about a larger one says so.
    """

    expected: str
    accepts: Callable[[Any], bool]
    scalar: bool = False
    integer: bool = False
    convert: Callable[[Any], Any] = lambda value: value
    each: Kind | None = None
    takes: int | None = None
    text: bool = False
    int32: bool = False


def _number(expected: str, accepts: Callable[[float], bool]) -> Kind:
    return Kind(expected, accepts, scalar=True)


def _is_float_dtype(value: Any) -> bool:
    try:
        return is_computable(jnp.dtype(value))
    except (TypeError, ValueError):
        return False


SCALAR = _number("a finite number", lambda x: -math.inf < x < math.inf)
_flag = Kind("True or False", lambda value: isinstance(value, bool))
_text = Kind("a string", lambda value: isinstance(value, str), text=True)


def _integer_from(expected: str, least: int, most: int = 2**31 - 1) -> Kind:
    """A kind of integers. Steps and sizes meet int32 in programs, where a larger one overflows."""

    def accepts(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most

    return Kind(expected, accepts, integer=True, int32=most < 2**31)


def one_of(*names: str) -> Kind:
    """The kind of a string that is one of these: `Annotated[str, one_of("min", "max")]`."""

    def accepts(value: Any) -> bool:
        return isinstance(value, str) and value in names

    return Kind(" or ".join(map(repr, names)), accepts, text=True)


_integer = _integer_from("an integer", -(2**31))

Scalar = Annotated[NumberOrSchedule, SCALAR]
NON_NEGATIVE = _number("a non-negative finite number", lambda x: 0 <= x < math.inf)
NonNegative = Annotated[NumberOrSchedule, NON_NEGATIVE]
Bound = Annotated[NumberOrSchedule, _number("non-negative", lambda x: x >= 0)]
Positive = Annotated[NumberOrSchedule, _number("positive", lambda x: x > 0)]
Decay = Annotated[NumberOrSchedule, _number("in [0, 1)", lambda x: 0 <= x < 1)]
Fraction = Annotated[NumberOrSchedule, _number("in [0, 1]", lambda x: 0 <= x <= 1)]
InnerDecay = Annotated[NumberOrSchedule, _number("in (0, 1)", lambda x: 0 < x < 1)]
AtLeastOne = Annotated[NumberOrSchedule, _number("at least 1", lambda x: x >= 1)]
LengthThreshold = Annotated[NumberOrSchedule, _number("at least 4", lambda x: x >= 4)]
Count = Annotated[int, _integer_from("a non-negative integer", 0)]
_key = _integer_from("an integer in [0, 2**32)", 0, 2**32 - 1)
Seed = Annotated[
    int | jax.Array | NumPyValue,
    Kind(
        "an integer in [0, 2**32) or an integer array",
        lambda x: _is_seeds(x) if is_array(x) else _key.accepts(x),
        integer=True,
    ),
]
PositiveCount = Annotated[int, _integer_from("a positive integer", 1)]
StepCount = Annotated[
    NumberOrSchedule, _number("a positive number of steps", lambda x: 0 < x < math.inf)
]
FloatDType = Annotated[
    DTypeLike,
    Kind("a floating-point or complex dtype", _is_float_dtype, convert=lambda x: jnp.dtype(x).name),
]
PATH_OF_NUMBER = Kind("the path of a hyperparameter", lambda x: isinstance(x, str))
PathOfNumber = Annotated[str, PATH_OF_NUMBER]
Patterns = Annotated[
    Sequence[str],
    Kind(
        "a list of patterns of paths, as ['**/nu/**']",
        lambda x: type(x) in (list, tuple) and all(isinstance(item, str) for item in x),
        convert=tuple,
    ),
]


def function(arguments: str, takes: int) -> Kind:
    return Kind(f"a function of {arguments}", is_function, takes=takes)


Function = Annotated[Callable[..., Any], Kind("a function", is_function)]
ArrayFunction = Annotated[Callable[[jax.Array], Any], function("one array", 1)]
TwoArraysFunction = Annotated[Callable[[jax.Array, jax.Array], Any], function("two arrays", 2)]
TreeFunction = Annotated[Callable[[Any], Any], function("the updates", 1)]
ParamsFunction = Annotated[Callable[[Any], Any], function("the parameters", 1)]
STEP_FUNCTION = function("the step", 1)
StepFunction = Annotated[Callable[[Any], Any], STEP_FUNCTION]

_schedule = Kind("a number, an array or a schedule: a function of the step", is_function, takes=1)

_by_type: dict[Any, Kind] = {bool: _flag, int: _integer, float: SCALAR, str: _text}


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
        return SCALAR, optional
    return None, optional


def number_like(label: str, old: Any, value: Any, kind: Kind | None) -> Any:
    """The value; a number that replaces an array becomes an array of its dtype and devices."""
    if isinstance(value, np.generic):
        value = value.item()
    if kind is None or isinstance(value, bool) or not isinstance(value, Real):
        return value
    checked(label, value, kind, False, False)
    dtype = old.dtype
    if is_integral(old) and not fits(value, dtype):
        dtype = jnp.result_type(float) if kind.scalar else np.dtype(np.uint32)
    number = rounded(value, dtype, kind)
    if isinstance(old, np.ndarray):
        return number
    return jax.lax.full_like(old, number, dtype=None if dtype == old.dtype else dtype, shape=())


def rounded(value: Any, dtype: Any, kind: Kind) -> np.ndarray:
    """The nearest number of this dtype that is of this kind: [0, 1) has 1 - 1e-9 but not 1."""
    with np.errstate(over="ignore"):
        near = np.asarray(value, dtype)
    if kind.accepts(near.item()) or not kind.accepts(value):
        return near
    return np.nextafter(near, np.asarray(np.inf if near.item() < value else -np.inf, dtype))


def below_one(value: jax.Array, kind: Kind | None) -> jax.Array:
    """What a schedule returns, or the number below 1 where that is 1 and its kind excludes 1:
    float32 rounds 1 - 1e-9 to 1."""
    if kind is None or kind.accepts(1.0) or not kind.accepts(0.5):
        return value
    if not jnp.issubdtype(value.dtype, jnp.floating):
        return value
    return jnp.minimum(value, 1 - float(jnp.finfo(value.dtype).epsneg))


def checked(label: str, value: Any, kind: Kind | None, optional: bool, schedules: bool) -> Any:
    """`value` in the form it is kept in, or an error that begins with `label`."""
    if isinstance(value, np.generic):
        # A NumPy scalar is a number, not an array: a constant, like Python's own.
        value = value.item()
    if kind is None or (optional and value is None):
        return value
    if kind.scalar:
        if isinstance(value, Symbolic):
            return value
        value = within_int32(value)
        alternatives = ", an array or a schedule" if schedules else " or an array"
        if is_array(value):
            if not (jnp.issubdtype(value.dtype, jnp.floating) or is_integral(value)):
                raise TypeError(f"{label} must be real, got an array of dtype {value.dtype}")
            if is_outermost():
                _check_numbers(label, value, kind)
            return value
        if schedules and is_function(value) and not is_of_a_library(value):
            kind = _schedule
        elif isinstance(value, bool) or not isinstance(value, Real):
            number = "" if kind.expected.startswith("a ") else "a number "
            expected = f"{number}{kind.expected}{alternatives}"
            came = brief(value)
            if came.startswith("the dtype"):  # where Optax takes the dtype of its moments
                came += " (that of a moment has an argument of its own, such as mu_dtype or dtype)"
            raise TypeError(f"{label} must be {expected}, got {came}")
    if not kind.accepts(value):
        is_number = isinstance(value, Real) and (kind.scalar or kind.integer)
        is_text = isinstance(value, str) and kind.text
        error = ValueError if is_number or is_text else TypeError
        size = " within int32" if kind.int32 and value is not within_int32(value) else ""
        raise error(f"{label} must be {kind.expected}{size}, got {brief(value)}")
    if kind.takes is not None and not accepts_arguments(value, kind.takes):
        raise TypeError(f"{label} must be {kind.expected}, got {with_arguments(value)}")
    if kind.each is not None and isinstance(value, Mapping):
        return {
            key: checked(f"{label}[{key!r}]", item, kind.each, False, schedules)
            for key, item in value.items()
        }
    return kind.convert(value)


def _check_numbers(label: str, value: Any, kind: Kind) -> None:
    """Raise if an array has a number that is not of the kind; a tracer's are not known."""
    for index, number in np.ndenumerate(at_hand(value)):
        if not kind.accepts(number.item()):
            place = f" at {list(index)}" if index else ""
            raise ValueError(f"{label} must be {kind.expected}, got {number}{place} in an array")


def _is_seeds(value: Any) -> bool:
    return is_integral(value) and bool(np.all(at_hand(value) >= 0))
