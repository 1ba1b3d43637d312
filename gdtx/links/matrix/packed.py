"""Symmetric matrices in half the memory."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ...core.calls.types import TransformationLike
from ...core.errors import LeafError
from ...core.factory import transformation
from ...core.rules import walk
from ...core.transformation import GradientTransformation
from ...core.trees.tree import PyTree
from ...formula import Expression, Reader, formula_of


@transformation
def packed(statistic: TransformationLike) -> GradientTransformation:
    r"""A statistic of symmetric matrices that keeps one triangle of each.

    What `statistic` sees of a matrix with $n$ rows are $\lceil n/2 \rceil$ rows of $n + 1$ numbers:
    its lower triangle, the last row and the first on one line, the last but one and the second on
    the next. Of sums and averages that is exact: every number has a rule of its own. For the
    statistics of :func:`precondition` and :func:`in_eigenbasis`, where it saves a quarter of what
    the matrices take, for some copying on every step.

    Args:
        statistic: transformation of every number by itself, such as :func:`ema`.

    Returns:
        A transformation of stacks of matrices whose state is that of `statistic` on triangles.

    Raises:
        ValueError: for arrays of other shapes than (..., n, n).

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.packed(gdtx.running_sum())
    >>> a = jnp.array([[1.0, 2.0], [2.0, 3.0]])
    >>> u, state = tx.update(a, tx.init(a))
    >>> state.buffers["value"]
    Array([[2., 3., 1.]], dtype=float32)
    >>> tx.update(a, state)[0]
    Array([[2., 4.],
           [4., 6.]], dtype=float32)
    """

    def init(params: PyTree) -> PyTree:
        return statistic.init(_each(_pack, params))

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, PyTree]:
        out, state = statistic.update(_each(_pack, updates), state, **extra_args)
        return _each(_unpack, updates, out), state

    return GradientTransformation(init, update, statistic)


@formula_of(packed)
def _(u: Expression, reader: Reader, statistic: GradientTransformation) -> Expression:
    return reader.read(statistic, u)


def _each(f: Any, tree: PyTree, *others: PyTree) -> PyTree:
    leaves, structure = jax.tree.flatten(tree)
    return structure.unflatten(walk(f, structure, leaves, *map(jax.tree.leaves, others)))


def _pack(x: jax.Array) -> jax.Array:
    n = x.shape[-1] if x.ndim else 0
    if x.shape[-2:] != (n, n):
        raise LeafError(ValueError, f"has shape {x.shape}, expected matrices of shape (..., n, n)")
    half = (n + 1) // 2
    unpadded = [(0, 0, 0)] * (x.ndim - 1)
    zero = jnp.zeros((), x.dtype)
    last_rows = jax.lax.pad(x[..., n - half :, :][..., ::-1, :], zero, [*unpadded, (0, 1, 0)])
    first_rows = jax.lax.pad(x[..., :half, ::-1], zero, [*unpadded, (1, 0, 0)])
    return jnp.where(_is_of_last(x.ndim, n), last_rows, first_rows)


def _unpack(like: jax.Array, x: jax.Array) -> jax.Array:
    n = like.shape[-1]
    last_rows, first_rows = x[..., ::-1, :n], x[..., : n // 2, :0:-1]
    lower = jnp.concatenate([first_rows, last_rows], axis=-2)
    row, column = (jax.lax.broadcasted_iota(jnp.int32, like.shape, like.ndim - k) for k in (2, 1))
    return jnp.where(column <= row, lower, jnp.swapaxes(lower, -1, -2).conj())


def _is_of_last(ndim: int, n: int) -> jax.Array:
    """Which numbers of a line are from the row at the end."""
    line, place = (jnp.arange(size) for size in ((n + 1) // 2, n + 1))
    return (place[None, :] < n - line[:, None]).reshape(*[1] * (ndim - 2), len(line), n + 1)
