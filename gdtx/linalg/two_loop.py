"""A quasi-Newton matrix of the last pairs of differences, times a vector, without the matrix.

Vectors are lists of arrays, and memories such lists with one more axis in front. Every vector of a
pair is kept times the power of two that brings its largest number near 1, so that no product of
two overflows or vanishes; powers of two round nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..core.numbers.norms import inner_product, power_toward_one
from ..core.numbers.numerics import cast

Vector = list[jax.Array]


class Pairs(NamedTuple):
    r"""The last pairs $(s, y)$: steps, changes of the gradient, and of each pair $1 / s^\top y$ of
    the vectors as they are kept (0 where there is none) and the unit of $s$ over that of $y$."""

    steps: Vector
    changes: Vector
    weights: jax.Array
    units: jax.Array


class Pair(NamedTuple):
    """One of them, what its inverse curvature is, and whether that is positive beyond rounding."""

    step: Vector
    change: Vector
    weight: jax.Array
    unit: jax.Array
    scale: jax.Array
    is_curved: jax.Array
    has_moved: jax.Array


def pair_of(step: Vector, change: Vector) -> Pair:
    """A pair as it is kept."""
    powers = power_toward_one(step), power_toward_one(change)
    step, change = (scaled(x, p) for x, p in zip((step, change), powers, strict=True))
    along, moved = inner_product(step, change), inner_product(step, step)
    turned = inner_product(change, change)
    unit = powers[1] / powers[0]
    scale = unit * along / jnp.where(turned > 0, turned, 1)
    # Below, the sign is that of rounding errors.
    least = jnp.finfo(along.dtype).eps * jnp.sqrt(moved * turned)
    is_curved = (along > least) & jnp.isfinite(unit) & jnp.isfinite(scale) & (scale > 0)
    weight = 1 / jnp.where(is_curved, along, 1)
    return Pair(step, change, weight, unit, scale, is_curved, moved > 0)


def restricted(pairs: Pairs, free: Vector, newest: jax.Array) -> tuple[Pairs, jax.Array, jax.Array]:
    """The pairs in the subspace of some of the numbers, the inverse curvature of the newest whose
    curvature is positive there, and whether there is one."""
    steps, changes = (
        [jnp.where(f[None], x, 0) for f, x in zip(free, side, strict=True)]
        for side in (pairs.steps, pairs.changes)
    )
    along, moved, turned = (
        jax.vmap(inner_product)(one, other)
        for one, other in ((steps, changes), (steps, steps), (changes, changes))
    )
    least = jnp.finfo(along.dtype).eps * jnp.sqrt(moved * turned)
    is_curved = (pairs.weights > 0) & (along > least)
    weights = jnp.where(is_curved, 1 / jnp.where(is_curved, along, 1), 0)
    age = (newest - jnp.arange(len(weights))) % len(weights)
    best = jnp.argmin(jnp.where(is_curved, age, len(weights)))
    scale = (pairs.units * along / jnp.where(turned > 0, turned, 1))[best]
    has_any = jnp.any(is_curved) & (scale > 0)
    return Pairs(steps, changes, jnp.where(has_any, weights, 0), pairs.units), scale, has_any


def two_loop(
    pairs: Pairs, vector: Vector, newest: jax.Array, first: jax.Array, unit: jax.Array
) -> Vector:
    r"""$H v$ with $H$ the inverse of a matrix that the pairs have been built into.

    Args:
        pairs: those that are kept, the newest at the index `newest` and the others before it, the
            first of all behind the last.
        vector: $v$, in units that bring it near 1.
        newest: that index.
        first: what the two loops begin from is this times the identity, in units of the result.
        unit: of $v$, by which the result is divided.
    """
    number = len(pairs.weights)

    def at(memory: Vector, index: jax.Array) -> Vector:
        return [jax.lax.dynamic_index_in_dim(x, index, keepdims=False) for x in memory]

    def back(vector: Vector, age: jax.Array) -> tuple[Vector, jax.Array]:
        i = (newest - age) % number
        share = pairs.weights[i] * inner_product(at(pairs.steps, i), vector)
        return plus(vector, -share, at(pairs.changes, i)), share

    def forth(vector: Vector, each: tuple[jax.Array, jax.Array]) -> tuple[Vector, None]:
        age, share = each
        i = (newest - age) % number
        other = pairs.weights[i] * inner_product(at(pairs.changes, i), vector)
        return plus(vector, pairs.units[i] / unit * share - other, at(pairs.steps, i)), None

    ages = jnp.arange(number)
    vector, shares = jax.lax.scan(back, vector, ages)
    vector = scaled(vector, first)
    return jax.lax.scan(forth, vector, (ages, shares), reverse=True)[0]


def scaled(vector: Vector, factor: jax.Array) -> Vector:
    """Each array times a real number, in its own dtype."""
    return [x * factor.astype(jnp.finfo(x.dtype).dtype) for x in vector]


def plus(vector: Vector, factor: jax.Array, other: Vector) -> Vector:
    return [
        x + factor.astype(jnp.finfo(x.dtype).dtype) * cast(y, x.dtype)
        for x, y in zip(vector, other, strict=True)
    ]
