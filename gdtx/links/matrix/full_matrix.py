"""The root of the whole matrix of second moments, or of its blocks."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...core.calls.kinds import NonNegative, PositiveCount
from ...core.errors import fail, foreign_state
from ...core.factory import transformation
from ...core.numbers.numerics import cast, compute_dtype, real_like
from ...core.rules import checked_result, remembered
from ...core.transformation import GradientTransformation
from ...core.trees.boxes import refilled
from ...core.trees.copies import unlike_params
from ...core.trees.dealing import Dealer, dealer
from ...core.trees.sharding import (
    layered_zeros,
    replicate,
    shard_like_if_explicit,
    sharded_zeros,
)
from ...core.trees.short import in_short
from ...core.trees.stacking import layer_structs, stacked_axes
from ...core.trees.tree import PyTree, check_params
from ...formula import MEMORY, Expression, Reader, formula_of, inverse_root
from ...linalg.inverse import inverse_root_times, within_range
from .moved import dealt_sharding

LARGEST = 2**28
"""Bytes of one matrix that nobody is taken to have wanted, having set no block size."""


@in_short
class FullMatrixState(NamedTuple):
    """State of full-matrix AdaGrad: for each parameter its matrices, one for each block."""

    matrices: PyTree


@transformation(whole=True)
def scale_by_full_matrix(
    eps: NonNegative = 1e-7, block_size: PositiveCount | None = None
) -> GradientTransformation:
    r"""Multiply by the inverse root of the sum of outer products so far.

    $G_t = G_{t-1} + g_t g_t^\top$, $u_t = (G_t + \epsilon I)^{-1/2} g_t$, with all numbers of an
    array, or of a block of them, as one vector.

    Eigenvalues below $n\,\varepsilon\,\lambda_{\max}$, with $n$ numbers in the vector and the
    spacing $\varepsilon$ of floating-point numbers at 1, are not known from the matrix and count
    as that; the root of a matrix of zeros counts as one of zeros. Vectors so long that their outer
    product would overflow (in float32, of norms above $2^{64}$) count as that long, and a
    sum that would is halved. A NaN in a gradient stays in the sum, and so in all later updates:
    :func:`skip_nonfinite` keeps it out.

    Updates that are cut over a mesh are brought together on every device. Inside of :func:`dealt`
    each then has its part of the blocks of an array, and takes the roots of these, if there are
    several; of a single matrix all devices do the same work. Zeros are added for blocks that are
    missing to a multiple of the devices.

    Args:
        eps: $\epsilon$, inside the root.
        block_size: how many numbers a block has at most; arrays are read in order and cut into as
            few blocks as can be, equal but for the last. None for no blocks.

    Returns:
        A transformation whose state holds a matrix for each array or block. Complex updates:
        $g_t g_t^*$.

    Raises:
        ValueError: if a hyperparameter is out of its range; from `init`, if without a block size
            the matrix of an array would take more than 256 MiB.

    References:
        Duchi, Hazan & Singer 2011, Adaptive Subgradient Methods for Online Learning and
        Stochastic Optimization, JMLR 12, where $\epsilon$ is added to the root, as
        $\delta I + G_t^{1/2}$.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_full_matrix()
    >>> tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))[0].round(3)
    Array([0.6, 0.8], dtype=float32)
    """

    def init(params: PyTree) -> FullMatrixState:
        if block_size is None:
            _check_sizes(params)

        def zero(p: jax.Array, n: int) -> jax.Array:
            count, width = _cut(math.prod(p.shape[n:]), block_size)
            dtype, to = compute_dtype(p.dtype), None if n else _dealer(p, block_size)
            if to is None:
                return layered_zeros(p, n, (count, width, width), dtype)
            shape = to.padded(count), width, width
            return sharded_zeros(shape, dtype, dealt_sharding([p], 3, to), p)

        both = jax.tree.leaves(params), stacked_axes(params)
        return FullMatrixState(refilled(params, map(zero, *both)))

    def update(
        updates: PyTree, state: FullMatrixState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, FullMatrixState]:
        check_params(updates, params)

        def step(u: jax.Array, matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
            (count, width), is_dealt = _cut(u.size, block_size), _dealer(u, block_size)
            count = is_dealt.padded(count) if is_dealt else count
            if matrix.shape != (count, width, width):
                foreign_state(f"{count} matrices of {width} rows", matrix)
            dtype = compute_dtype(u.dtype, matrix.dtype)

            def rule(u: jax.Array, matrix: jax.Array, eps: Any) -> tuple[jax.Array, jax.Array]:
                flat = cast(replicate(u), dtype).reshape(-1)
                g = jnp.pad(flat, (0, count * width - u.size)).reshape(count, width)
                g = within_range(g)
                # Of the mesh as it is in here, where the compiler chooses.
                to = _dealer(u, block_size)
                place, times = replicate, inverse_root_times
                if to is not None:
                    g, place, times = to.place(g), to.place, partial(to.work, inverse_root_times)
                products = g[:, :, None] * g[:, None, :].conj()
                new = place(_total(cast(matrix, dtype), products))
                damped = new + eps * jnp.eye(width, dtype=dtype)[None]
                out = times(damped, g)
                out = (out if to is None else replicate(out)).reshape(-1)[: u.size].reshape(u.shape)
                return checked_result(real_like(out, u), u, dtype), cast(new, matrix.dtype)

            return shard_like_if_explicit((u, matrix), rule, u, matrix, eps)

        updates, matrices = remembered(step, updates, state.matrices)
        return updates, FullMatrixState(matrices)

    return GradientTransformation(unlike_params(init), update, FullMatrixState)


@formula_of(scale_by_full_matrix, eps=r"\epsilon")
def _(u: Expression, reader: Reader, eps: Any) -> Expression:
    u = reader.atom(u)
    second = reader.remember(("G",), MEMORY + u * u.T, 0)
    return inverse_root(second, eps) * u


def _total(one: jax.Array, other: jax.Array) -> jax.Array:
    """The sum of two stacks of matrices; half of it where it is beyond the range."""
    half = one / 2 + other / 2
    largest = jnp.max(jnp.abs(half), (-2, -1), keepdims=True, initial=0)
    return jnp.where(largest > jnp.finfo(half.dtype).max / 2, half, one + other)


def _cut(size: int, block_size: int | None) -> tuple[int, int]:
    """How many blocks of how many numbers."""
    count = -(-size // block_size) if block_size else 1
    return count, -(-size // count) if count else 0


def _dealer(x: jax.Array, block_size: int | None) -> Dealer | None:
    """To which devices the matrices of an array are dealt; None if they are on all."""
    return dealer(x) if _cut(x.size, block_size)[0] > 1 else None


def _check_sizes(params: PyTree) -> None:
    for path, p in jax.tree_util.tree_flatten_with_path(layer_structs(params))[0]:
        size = p.size**2 * jnp.dtype(compute_dtype(p.dtype)).itemsize
        if size > LARGEST:
            where = jax.tree_util.keystr(path)
            unit = min(int(math.log(size, 1024)), 5)
            fail(
                ValueError,
                f"params{where} has {p.size} numbers, and their matrix would take "
                f"{size / 1024**unit:.1f} {['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'][unit]}: "
                "give a block_size, or a window of gradients to full_matrix_adagrad",
            )
