"""When a step along a line is good enough, and how a search for one has ended."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Point(NamedTuple):
    """A step along the line, the function there, its slope, and what a straight line of the first
    slope would have gained on the way."""

    step: jax.Array
    value: jax.Array
    slope: jax.Array
    gain: jax.Array


class SearchEnd(IntEnum):
    """How a line search has ended, as its state says it in `end`.

    From `NO_DECREASE` on there is no step: the parameters stay where they are.
    """

    NOT_BEGUN = 0
    FOUND = 1
    """All conditions hold."""
    DECREASE_ONLY = 2
    """The function falls enough, but the slope is still steep: no better step was found."""
    LARGEST_STEP = 3
    """The same at the largest step allowed."""
    NO_DECREASE = 4
    """No step was found that makes the function fall enough."""
    NO_DESCENT = 5
    """The direction leads uphill."""
    NO_SLOPE = 6
    """The slope is 0: the gradient is, or the direction."""
    NOT_FINITE = 7
    """The value or the slope at the start is not finite."""

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")


class Tolerances(NamedTuple):
    """What a step must do: the shares of the slope, and by what the value counts as unchanged."""

    slope_rtol: Any
    curv_rtol: Any
    approx_dec_rtol: Any
    tol: Any


def decrease_error(point: Point, start: Point, given: Tolerances) -> jax.Array:
    r"""By how much $f(\eta) \le f(0) + c_1 \eta f'(0)$ is missed, 0 if it holds.

    Near a minimum the difference of two values is rounding error. There the slopes decide:
    $f'(\eta) \le (2 c_1 - 1) f'(0)$ is the same of a parabola, and is asked only to within what
    counts as the same value.
    """
    error = point.value - start.value - given.slope_rtol * point.gain
    if given.approx_dec_rtol is not None:
        slopes = point.slope - (2 * given.slope_rtol - 1) * start.slope
        values = point.value - start.value - given.approx_dec_rtol * jnp.abs(start.value)
        error = jnp.minimum(error, jnp.maximum(slopes, values))
    return _beyond(error, point)


def curvature_error(point: Point, start: Point, given: Tolerances) -> jax.Array:
    r"""By how much $|f'(\eta)| \le c_2 |f'(0)|$ is missed, 0 if it holds."""
    return _beyond(jnp.abs(point.slope) - given.curv_rtol * jnp.abs(start.slope), point)


def is_finite(point: Point) -> jax.Array:
    return jnp.isfinite(point.value) & jnp.isfinite(point.slope)


def _beyond(error: jax.Array, point: Point) -> jax.Array:
    return jnp.where(is_finite(point), jnp.maximum(error, 0), jnp.inf).astype(error.dtype)
