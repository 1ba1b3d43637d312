"""A step at which a function falls: made smaller until it does.

References:
    Armijo 1966, Minimization of functions having Lipschitz continuous first partial derivatives.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .conditions import SearchEnd


class Backtracking(NamedTuple):
    """What a search knows: how many steps it has tried, the last, the value there, by how much that
    misses, and how the search has ended."""

    tried: jax.Array
    step: jax.Array
    value: jax.Array
    error: jax.Array
    end: jax.Array


class Armijo(NamedTuple):
    """What a step must do, and what becomes of one that does not."""

    slope_rtol: Any
    atol: Any
    rtol: Any
    decrease_factor: Any
    max_steps: int


def begun(first_step: jax.Array, value: jax.Array, slope: jax.Array) -> Backtracking:
    """A search that has seen the start only."""
    downhill = jnp.where(slope < 0, SearchEnd.NOT_BEGUN, SearchEnd.NO_DESCENT)
    end = jnp.where(slope == 0, SearchEnd.NO_SLOPE, downhill)
    is_finite = jnp.isfinite(value) & jnp.isfinite(slope)
    end = jnp.where(is_finite, end, SearchEnd.NOT_FINITE).astype(jnp.int32)
    # Where the slope is 0, the condition holds as it is.
    error = jnp.where(end == SearchEnd.NO_SLOPE, 0, jnp.inf).astype(slope.dtype)
    return Backtracking((0 * end).astype(jnp.int32), first_step, value, error, end)


def goes_on(search: Backtracking) -> jax.Array:
    return search.end == SearchEnd.NOT_BEGUN


def proposed(search: Backtracking, given: Armijo) -> jax.Array:
    shorter = jnp.where(search.tried > 0, given.decrease_factor, 1.0) * search.step
    return shorter.astype(search.step.dtype)


def judged(
    search: Backtracking,
    step: jax.Array,
    value: jax.Array,
    gain: jax.Array,
    start: jax.Array,
    given: Armijo,
) -> Backtracking:
    """What is known after one more step, where the function is `value`; `gain` is what a straight
    line of the first slope would have gained."""
    error = value - start - given.rtol * jnp.abs(start) - given.slope_rtol * gain
    error = jnp.where(jnp.isfinite(value), jnp.maximum(error, 0), jnp.inf)
    tried = search.tried + 1
    gives_up = jnp.where(tried > given.max_steps, SearchEnd.NO_DECREASE, search.end)
    end = jnp.where(error <= given.atol, SearchEnd.FOUND, gives_up).astype(jnp.int32)
    return Backtracking(tried, step, value, error.astype(search.error.dtype), end)
