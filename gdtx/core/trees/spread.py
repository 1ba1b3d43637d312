"""Numbers that stand for several of an array, put in the place of each."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .tree import PyTree, explicit_sharding, full_like, is_scalar, leaves_as


def spreads(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Whether an array of this shape has a number for each, or for every few side by side, along
    each axis of a whole one; a single number always has."""
    fits = all(n == m or (n and m % n == 0) for n, m in zip(shape, whole, strict=False))
    return not shape or (len(shape) == len(whole) and fits)


def spread(x: jax.Array, u: Any) -> jax.Array:
    """`x` in the shape of `u` and cut as that, each number repeated side by side.

    >>> spread(jnp.array([[1.0], [2.0]]), jnp.zeros((4, 3)))[:, 0]
    Array([1., 1., 2., 2.], dtype=float32)
    """
    if x.shape == u.shape:
        return x
    where = explicit_sharding(u)
    for axis, (n, m) in enumerate(zip(x.shape, u.shape, strict=False)):
        if 1 < n < m:
            x = jnp.repeat(x, m // n, axis, total_repeat_length=m)
    return jnp.broadcast_to(x, u.shape, out_sharding=where)


def spread_tree(value: PyTree, updates: PyTree, what: str) -> PyTree:
    """A single number, or a tree like the updates, with what spreads in the updates' shapes. What
    does not is as it was: of one update for each example, who needs one says so."""
    if is_scalar(value):
        return jax.tree.map(lambda u: full_like(u, value), updates)
    leaves, structure = jax.tree.flatten(updates)
    values = leaves_as(structure, value, what, "updates")
    pairs = zip(values, leaves, strict=True)
    return structure.unflatten(spread(x, u) if spreads(x.shape, u.shape) else x for x, u in pairs)
