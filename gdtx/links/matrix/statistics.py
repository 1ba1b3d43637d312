"""Kronecker-factored statistics: for each axis of a block a matrix of its own."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ...core.trees.sharding import leading_sharding, reshard, sharded_zeros
from .blocks import Stacks, order

Factors = dict[str, tuple[jax.Array, ...]]
"""For each stack of blocks, and each axis of its blocks, a stack of square matrices."""


def without_nonfinite(blocks: Stacks) -> Stacks:
    """The blocks, with zeros for those of which the sum of squares is not finite."""

    def checked(x: jax.Array) -> jax.Array:
        k = order(x)
        batch, within = tuple(range(1 + k)), tuple(range(1 + k, x.ndim))
        # A product, which is in a library; a sum would be one more kernel to compile.
        total = jax.lax.dot_general(x, x, ((within, within), (batch, batch)))
        return jnp.where(jnp.isfinite(total).reshape(*total.shape, *[1] * k), x, 0)

    return {name: checked(x) for name, x in blocks.items()}


def second_moments(blocks: Stacks) -> Factors:
    r"""$\sum g g^\top$ over the fibres along each axis: of a matrix, $G G^\top$ and $G^\top G$."""
    return {
        name: tuple(second_moment(x, axis) for axis in range(order(x)))
        for name, x in blocks.items()
    }


def multiply_axis(
    matrices: jax.Array, x: jax.Array, axis: int, transposed: bool = False
) -> jax.Array:
    r"""Each fibre along an axis of the blocks times the matrix: $M f$, or $M^\top f$."""
    k = order(x)
    batch = tuple(range(1 + k))
    inner, place = matrices.ndim - (2 if transposed else 1), 1 + k + axis
    # In the precision that JAX's configuration gives matrix products, as the model's are.
    if axis == k - 1:
        return jax.lax.dot_general(x, matrices, (((place,), (inner,)), (batch, batch)))
    result = jax.lax.dot_general(matrices, x, (((inner,), (place,)), (batch, batch)))
    return jnp.moveaxis(result, 1 + k, place)


def multiply_axes(factors: Factors, blocks: Stacks, transposed: bool = False) -> Stacks:
    """Every axis times its matrix."""
    results = {}
    for name, x in blocks.items():
        for axis, matrices in enumerate(factors[name]):
            x = multiply_axis(matrices, x, axis, transposed)
        results[name] = x
    return results


def square_matrices(blocks: Stacks, identity: bool) -> Factors:
    """A matrix for each axis of each block, zero or the identity, where the block is."""
    return {
        name: tuple(square_matrix(x, axis, identity) for axis in range(order(x)))
        for name, x in blocks.items()
    }


def is_due(step: jax.Array, start: int, every: int) -> jax.Array:
    """Whether this step, the first being 1, is `start` or some periods later."""
    return (step >= start) & ((step - start) % every == 0)


def second_moment(x: jax.Array, axis: int) -> jax.Array:
    k = order(x)
    batch = tuple(range(1 + k))
    others = tuple(1 + k + i for i in range(k) if i != axis)
    return jax.lax.dot_general(x, x, ((others, others), (batch, batch)))


def square_matrix(x: jax.Array, axis: int, identity: bool) -> Any:
    k = order(x)
    d = x.shape[1 + k + axis]
    shape = (*x.shape[: 1 + k], d, d)
    where = leading_sharding(x, 1 + k, len(shape))
    zero = sharded_zeros(shape, x.dtype, where, x)
    if not identity:
        return zero
    return reshard(zero + jnp.eye(d, dtype=x.dtype).reshape(*[1] * (1 + k), d, d), where)
