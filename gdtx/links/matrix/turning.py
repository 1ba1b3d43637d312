"""What changes with a basis: buffers that were measured in it, and second moments that see it."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ...core.trees.paths import leaf_paths, matches
from ...core.trees.sharding import leading_sharding, sharded_zeros
from ...core.trees.tree import PyTree
from .blocks import Stacks, order
from .statistics import Factors, multiply_axes, multiply_axis, second_moment


def carried_over(
    state: PyTree, old: Factors, new: Factors, places: Factors, rotated: Sequence[str]
) -> PyTree:
    """A state whose buffers were measured in the old basis, in the new one.

    Every buffer of blocks has each of its axes sorted as the basis was, and so has every buffer of
    one axis; those of which a pattern matches the path are turned back and forth.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(state)
    paths = leaf_paths(state)
    moved = []
    for (keys, x), path in zip(leaves, paths, strict=True):
        name, axis = _stack_and_axis(keys)
        if name not in places or x.ndim == 0:
            moved.append(x)
        elif any(matches(pattern, path) for pattern in rotated):
            plain = multiply_axes({name: old[name]}, {name: x})
            turned = multiply_axes({name: new[name]}, plain, transposed=True)
            moved.append(turned[name].astype(x.dtype))
        else:
            moved.append(_sorted(x, places[name] if axis is None else (places[name][axis],)))
    return structure.unflatten(moved)


def whitened_moments(
    blocks: Stacks, basis: Factors, eigenvalues: Factors
) -> tuple[Factors, Factors]:
    r"""Of each axis the second moments of what the other axes have been divided out of.

    $G (Q D Q^\top)^{-1} G^\top$ over the number of columns, and its diagonal in the basis.
    """
    turned = multiply_axes(basis, blocks, transposed=True)
    moments, squares = {}, {}
    for name, x in blocks.items():
        k = order(x)
        roots = [_inverse_root(values) for values in eigenvalues[name]]
        found, diagonal = [], []
        for axis in range(k):
            whitened, measured = x, turned[name]
            for other in range(k):
                if other != axis:
                    factor = basis[name][other] * roots[other][..., None, :]
                    whitened = multiply_axis(factor, whitened, other, transposed=True)
                    measured = measured * along(roots[other], x, other)
            columns = math.prod(x.shape[1 + k :]) // x.shape[1 + k + axis]
            found.append(second_moment(whitened, axis) / columns)
            others = tuple(1 + k + i for i in range(k) if i != axis)
            diagonal.append(jnp.mean(measured * measured, axis=others))
        moments[name], squares[name] = tuple(found), tuple(diagonal)
    return moments, squares


def products(eigenvalues: Factors, blocks: Stacks) -> Stacks:
    """For each number of a block the product of the eigenvalues of its places."""
    return {
        name: functools.reduce(
            jnp.multiply, [along(d, x, axis) for axis, d in enumerate(eigenvalues[name])]
        )
        for name, x in blocks.items()
    }


def diagonals(blocks: Stacks) -> Factors:
    """Zeros for the diagonals of the matrices of all axes, where the blocks are."""

    def zeros(x: jax.Array, axis: int) -> Any:
        k = order(x)
        shape = (*x.shape[: 1 + k], x.shape[1 + k + axis])
        return sharded_zeros(shape, x.dtype, leading_sharding(x, 1 + k, len(shape)), x)

    return {name: tuple(zeros(x, axis) for axis in range(order(x))) for name, x in blocks.items()}


def _inverse_root(values: jax.Array) -> jax.Array:
    # What decays to nothing in a direction without gradients must not blow rounding errors up.
    floor = jnp.finfo(values.dtype).eps * jnp.max(values, axis=-1, keepdims=True)
    bounded = jnp.maximum(values, floor)
    return jnp.where(bounded == 0, 0, 1 / jnp.sqrt(jnp.where(bounded == 0, 1, bounded)))


def along(values: jax.Array, x: jax.Array, axis: int) -> jax.Array:
    """One number for each place on an axis of blocks, in a shape that broadcasts to them."""
    k = order(x)
    return values.reshape(*values.shape[:-1], *(-1 if i == axis else 1 for i in range(k)))


def _stack_and_axis(keys: Any) -> tuple[Any, int | None]:
    """The name of the stack to which a buffer belongs, and the axis if it is of one only."""
    if not keys:
        return None, None
    if isinstance(keys[-1], jax.tree_util.SequenceKey) and len(keys) > 1:
        return getattr(keys[-2], "key", None), keys[-1].idx
    return getattr(keys[-1], "key", None), None


def _sorted(x: jax.Array, places: tuple[jax.Array, ...]) -> jax.Array:
    """A stack with each of its last axes in a new order."""

    def take(x: jax.Array, *places: jax.Array) -> jax.Array:
        return x.at[jnp.ix_(*places)].get(mode="promise_in_bounds")

    of_stack = take
    for _ in range(x.ndim - len(places)):
        of_stack = jax.vmap(of_stack)
    return of_stack(x, *places)
