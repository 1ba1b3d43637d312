"""Values of arguments: symbols, arrays at hand, and integers as programs hold them."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


class Symbolic:
    """A number by its formula: passed on unchecked where a scalar is asked for, as tracers are."""


def is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray)


def at_hand(value: Any) -> np.ndarray:
    """The numbers of an array; none if they are not in this process."""
    if isinstance(value, jax.Array):
        is_here = not isinstance(value, Tracer) and not value.is_deleted()
        if not (is_here and (value.is_fully_addressable or value.is_fully_replicated)):
            return np.empty(0)
    # Explicitly, because implicit transfers may be forbidden.
    return np.asarray(jax.device_get(value))


def is_integral(value: Any) -> bool:
    return jnp.issubdtype(value.dtype, jnp.integer)


def fits(value: Any, dtype: Any) -> bool:
    limits = jnp.iinfo(dtype)
    return isinstance(value, int) and limits.min <= value <= limits.max


def within_int32(value: Any) -> Any:
    """The value; a Python integer beyond int32, which programs could not hold, as a float."""
    if not isinstance(value, int) or -(2**31) <= value < 2**31:
        return value
    if abs(value) < 2**1023:
        return float(value)
    return math.inf if value > 0 else -math.inf


def is_zero(value: Any) -> bool:
    """Whether a hyperparameter is the constant 0. An array is not, because it may change."""
    return isinstance(value, int | float | Symbolic) and value == 0


def is_same_array(one: Any, other: Any) -> bool:
    """Whether two arguments are one, or arrays at hand with the same numbers."""
    if one is other:
        return True
    if isinstance(one, Tracer) or isinstance(other, Tracer):
        return False
    if not (is_array(one) and is_array(other)):
        return bool(one == other)
    return one.dtype == other.dtype and np.array_equal(one, other)
