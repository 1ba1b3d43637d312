"""A step that satisfies Wolfe's conditions: an interval that must contain one, made smaller.

References:
    Nocedal & Wright 2006, Numerical Optimization, algorithms 3.5 and 3.6; Hager & Zhang 2006,
    Algorithm 851: CG_DESCENT, for the approximate decrease.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .conditions import (
    Point,
    SearchEnd,
    Tolerances,
    curvature_error,
    decrease_error,
    is_finite,
)


class Zoom(NamedTuple):
    """What a search knows.

    Args:
        tried: how many points it has seen.
        low: of the interval, the end at which the function is less; while there is no interval,
            the last point.
        high: its other end.
        reference: one point more, for a cubic through three values.
        has_interval: whether there is one yet.
        best: the point to take if no better one is found; a step of 0 if there is none.
        decrease_error: that of the last point, and so `curvature_error`.
        end: how the search has ended; not begun while it goes on.
    """

    tried: jax.Array
    low: Point
    high: Point
    reference: Point
    has_interval: jax.Array
    best: Point
    decrease_error: jax.Array
    curvature_error: jax.Array
    end: jax.Array


class Limits(NamedTuple):
    """Where a search begins, how it widens, and when it gives up."""

    first_step: jax.Array
    increase_factor: Any
    max_step: Any
    max_steps: int
    precision: Any


def begun(start: Point) -> Zoom:
    """A search that has seen the start only."""
    zero = jnp.zeros_like(start.step)
    slope = start.slope
    end = jnp.where(
        is_finite(start),
        jnp.where(
            slope < 0,
            SearchEnd.NOT_BEGUN,
            jnp.where(slope > 0, SearchEnd.NO_DESCENT, SearchEnd.NO_SLOPE),
        ),
        SearchEnd.NOT_FINITE,
    ).astype(jnp.int32)
    # Where the slope is 0, the conditions hold as it is.
    unknown = jnp.where(end == SearchEnd.NO_SLOPE, zero, jnp.inf).astype(zero.dtype)
    tried = (0 * end).astype(jnp.int32)
    return Zoom(tried, start, start, start, end < 0, start, unknown, unknown, end)


def goes_on(zoom: Zoom) -> jax.Array:
    return zoom.end == SearchEnd.NOT_BEGUN


def proposed(zoom: Zoom, limits: Limits) -> jax.Array:
    """The step to try next."""
    wider = jnp.where(zoom.tried == 0, limits.first_step, limits.increase_factor * zoom.low.step)
    if limits.max_step is not None:
        wider = jnp.minimum(wider, limits.max_step)
    return jnp.where(zoom.has_interval, _between(zoom), wider).astype(zoom.low.step.dtype)


def narrowed(
    zoom: Zoom, point: Point, start: Point, limits: Limits, given: Tolerances
) -> tuple[Zoom, jax.Array]:
    """What is known after one more point, and whether that is the best so far."""
    falls, flattens = decrease_error(point, start, given), curvature_error(point, start, given)
    is_good = jnp.maximum(falls, flattens) <= given.tol
    falls_enough = falls <= given.tol
    is_inside = zoom.has_interval
    low, high = zoom.low, zoom.high

    # The new point is an end of an interval if a minimum lies before it, and if it has none yet,
    # also where the function rises there.
    not_lower = point.value >= low.value
    is_high = (falls > 0) | (not_lower & (is_inside | (zoom.tried > 0)))
    turns = jnp.where(is_inside, point.slope * (high.step - low.step) >= 0, point.slope >= 0)
    new_high = _where(is_high, point, _where(turns, low, high))
    # Before there is one, the last point is kept as its lower end.
    new_low = _where(is_high, low, point)
    reference = _where(is_inside & (is_high | turns), high, low)
    reference = _where(is_inside, reference, new_low)
    found = is_inside | is_high | turns | is_good

    better = falls_enough & (~is_inside | (point.value < zoom.best.value))
    best = _where(better, point, zoom.best)
    tried = zoom.tried + 1
    at_largest = jnp.asarray(False)
    if limits.max_step is not None:
        at_largest = ~found & (point.step >= limits.max_step)
    has_step = best.step > 0
    is_small = is_inside & (jnp.abs(high.step - low.step) <= limits.precision) & has_step
    gives_up = (tried >= limits.max_steps) | is_small
    end = jnp.where(
        is_good,
        SearchEnd.FOUND,
        jnp.where(
            at_largest & has_step,
            SearchEnd.LARGEST_STEP,
            jnp.where(
                gives_up,
                jnp.where(has_step, SearchEnd.DECREASE_ONLY, SearchEnd.NO_DECREASE),
                zoom.end,
            ),
        ),
    ).astype(jnp.int32)
    # A good point is taken, whatever has been seen before.
    taken = better | is_good
    best = _where(taken, point, best)
    return Zoom(tried, new_low, new_high, reference, found, best, falls, flattens, end), taken


def _where(condition: jax.Array, one: Point, other: Point) -> Point:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)


def _between(zoom: Zoom) -> jax.Array:
    """A point inside the interval: the least of a cubic, or of a parabola, if it is not too near
    an end, else the middle, and a tenth of the way where the function is not finite."""
    low, high = zoom.low, zoom.high
    left, right = jnp.minimum(low.step, high.step), jnp.maximum(low.step, high.step)
    width = right - left

    def is_inside(x: jax.Array, share: float) -> jax.Array:
        return (x > left + share * width) & (x < right - share * width)

    cubic = cubic_minimum(low, high, zoom.reference)
    parabola = parabola_minimum(low, high)
    middle = jnp.where(is_inside(parabola, 0.1), parabola, (low.step + high.step) / 2)
    middle = jnp.where(is_inside(cubic, 0.2), cubic, middle)
    return jnp.where(jnp.isfinite(high.value), middle, low.step + (high.step - low.step) / 10)


def cubic_minimum(a: Point, b: Point, c: Point) -> jax.Array:
    """Where a cubic with the slope at `a` and the values at all three is least; `a` if nowhere."""
    to_b, to_c = b.step - a.step, c.step - a.step
    # What a straight line does not explain, over the square of the way.
    bend_b, bend_c = (
        _quotient(x.value - a.value - a.slope * way, way * way) for x, way in ((b, to_b), (c, to_c))
    )
    third = _quotient(bend_b - bend_c, to_b - to_c)
    second = bend_b - third * to_b
    under = second * second - 3 * third * a.slope
    way = _quotient(jnp.sqrt(jnp.maximum(under, 0)) - second, 3 * third)
    exists = (to_b != 0) & (to_c != 0) & (to_b != to_c) & (under >= 0)
    return a.step + jnp.where(exists, way, 0)


def parabola_minimum(a: Point, b: Point) -> jax.Array:
    """Where a parabola with the slope at `a` and both values has its vertex; `a` if nowhere."""
    way = b.step - a.step
    bend = _quotient(b.value - a.value - a.slope * way, way * way)
    return a.step - _quotient(a.slope, 2 * bend)


def _quotient(x: jax.Array, y: jax.Array) -> jax.Array:
    """$x / y$, and 0 where $y$ is: what is computed and not used must not be NaN for those who
    look for such."""
    return jnp.where(y != 0, x / jnp.where(y != 0, y, 1), 0)
