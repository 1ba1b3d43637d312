"""Kronecker factors of a matrix that whitens blocks: one for each axis, whole or its diagonal."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from ...core.trees.sharding import leading_sharding, reshard, sharded_zeros
from ...linalg.products import safe
from .blocks import Stacks, order
from .statistics import multiply_axis, second_moment, square_matrix
from .turning import along


def factored_axes(x: jax.Array) -> list[int]:
    """The axes of blocks that have a factor."""
    k = order(x)
    return [axis for axis in range(k) if x.shape[1 + k + axis] > 1] or [0]


def first_factor(x: jax.Array, axis: int, max_skew: Any) -> Any:
    """The identity, as a matrix or as a diagonal."""
    k = order(x)
    n, block = x.shape[1 + k + axis], math.prod(x.shape[1 + k :])
    if n > 1 and (max_skew is None or n * n <= max_skew * block):
        return square_matrix(x, axis, identity=True)
    shape = (*x.shape[: 1 + k], n)
    where = leading_sharding(x, 1 + k, len(shape))
    return reshard(sharded_zeros(shape, x.dtype, where, x) + jnp.ones((), x.dtype), where)


def first_scale(blocks: Stacks, given: Any, damping: Any) -> jax.Array:
    """What the factors together are at first: if not given, what whitens the first gradients."""
    if given is not None or not blocks:
        return jnp.asarray(1.0 if given is None else given)
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in blocks.values()]))
    size = safe(jnp.maximum(largest, damping))
    fourth = [_mean_of_block((x / size) ** 4) for x in blocks.values()]
    total = jnp.max(jnp.stack(fourth)) + (damping / size) ** 4
    return (size * safe(total) ** 0.25) ** -0.5


def _mean_of_block(x: jax.Array) -> jax.Array:
    k = order(x)
    return jnp.max(jnp.mean(x, axis=tuple(range(1 + k, x.ndim))))


def whitened(factors: tuple[jax.Array, ...], x: jax.Array) -> jax.Array:
    r"""The blocks with each axis times $Q^\top Q$."""
    k = order(x)
    for axis, q in zip(factored_axes(x), factors, strict=True):
        if q.ndim == 2 + k:
            x = x * along(q * q, x, axis)
        else:
            x = multiply_axis(q, multiply_axis(q, x, axis), axis, transposed=True)
    return x


def moments_of(x: jax.Array, axis: int, q: jax.Array) -> tuple[jax.Array, int, bool]:
    """Second moments along an axis, as matrices or as diagonals, and of how many columns."""
    k = order(x)
    columns = math.prod(x.shape[1 + k :]) // x.shape[1 + k + axis]
    if q.ndim == 2 + k:
        others = tuple(1 + k + i for i in range(k) if i != axis)
        return jnp.sum(x * x, axis=others), columns, True
    return second_moment(x, axis), columns, False


def balanced(factors: list[jax.Array], k: int) -> list[jax.Array]:
    """The factors with equal largest numbers, and the same product."""
    largest = [safe(jnp.max(jnp.abs(q), axis=tuple(range(1 + k, q.ndim)))) for q in factors]
    mean = jnp.exp(sum(jnp.log(size) for size in largest) / len(largest))
    scales = [(mean / size) for size in largest]
    pairs = zip(factors, scales, strict=True)
    return [q * s.reshape(*s.shape, *[1] * (q.ndim - s.ndim)) for q, s in pairs]


def total_of_block(q: jax.Array, lead: int) -> jax.Array:
    """The sum over all but the leading axes."""
    return jnp.sum(q, axis=tuple(range(lead, q.ndim)))


def where_good(is_good: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """The new ones of the blocks that are good."""
    is_good = is_good.reshape(*is_good.shape, *[1] * (new.ndim - is_good.ndim))
    return jnp.where(is_good, new, old).astype(old.dtype)
