"""AdaGrad as its regret bound has it: with the root of the whole matrix of second moments."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._combine import chain
from .._errors import check_state, fail, foreign_state
from .._kinds import Count, NonNegative
from .._numerics import cast, compute_dtype
from .._placement import placed_like, whole
from .._rules import checked_result, walk
from .._transformation import GradientTransformation, transformation
from .._tree import PyTree, leaves_as, scalar_like
from ..links.arithmetic import scale_by_learning_rate

LARGEST = 2**28
"""Bytes of one matrix that nobody is taken to have wanted, having set no block size."""


class FullMatrixState(NamedTuple):
    """State of full-matrix AdaGrad: for each parameter its matrices, one for each block."""

    matrices: PyTree


class WindowState(NamedTuple):
    """State of full-matrix AdaGrad on a window: for each parameter the last gradients and their
    inner products, and which of them is the oldest."""

    gradients: PyTree
    products: PyTree
    oldest: jax.Array


@transformation
def scale_by_full_matrix(
    eps: NonNegative = 1e-7, block_size: Count | None = None
) -> GradientTransformation:
    r"""Multiply by the inverse root of the sum of outer products so far.

    $G_t = G_{t-1} + g_t g_t^\top$, $u_t = (G_t + \epsilon I)^{-1/2} g_t$, with all numbers of an
    array, or of a block of them, as one vector.

    Eigenvalues below $n\,\varepsilon\,\lambda_{\max}$, with $n$ numbers in the vector and the
    spacing $\varepsilon$ of floating-point numbers at 1, are not known from the matrix and count
    as that; the root of a matrix of zeros counts as one of zeros.

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
    if block_size == 0:
        raise ValueError("scale_by_full_matrix: block_size must be at least 1, got 0")

    def init(params: PyTree) -> FullMatrixState:
        if block_size is None:
            _check_sizes(params)

        def zero(p: jax.Array) -> jax.Array:
            count, width = _cut(p.size, block_size)
            return _zeros_whole(p, (count, width, width))

        return FullMatrixState(jax.tree.map(zero, params))

    def update(
        updates: PyTree, state: FullMatrixState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, FullMatrixState]:
        check_state(state, FullMatrixState)
        leaves, structure = jax.tree.flatten(updates)
        matrices = leaves_as(structure, state.matrices, "state", "updates")

        def step(u: jax.Array, matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
            count, width = _cut(u.size, block_size)
            if matrix.shape != (count, width, width):
                foreign_state(f"{count} matrices of {width} rows", matrix)
            dtype = compute_dtype(u.dtype, matrix.dtype)

            def rule(u: jax.Array, matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
                flat = cast(whole(u), dtype).reshape(-1)
                g = jnp.pad(flat, (0, count * width - u.size)).reshape(count, width)
                new = whole(cast(matrix, dtype) + g[:, :, None] * g[:, None, :].conj())
                damped = new + eps * jnp.eye(width, dtype=dtype)[None]
                out = inverse_root_times(damped, g).reshape(-1)[: u.size].reshape(u.shape)
                return _result(out, u, dtype), cast(new, matrix.dtype)

            return placed_like(rule, (u, matrix))(u, matrix)

        results = walk(step, structure, leaves, matrices)
        out, new = zip(*results, strict=True) if results else ((), ())
        return structure.unflatten(out), FullMatrixState(structure.unflatten(new))

    return GradientTransformation(init, update)


@transformation
def scale_by_window(window: Count, eps: NonNegative = 1e-7) -> GradientTransformation:
    r"""Multiply by the inverse root of the sum of the last outer products.

    With the last $k$ gradients, all numbers of an array as one vector each, in the columns of
    $M_t$,

    $$u_t = (M_t M_t^\top + \epsilon I)^{-1/2} g_t = M_t (M_t^\top M_t + \epsilon I)^{-1/2} e_t,$$

    where $e_t$ chooses the column of $g_t$: no more than a matrix of $k$ rows has its root taken.
    While $t \le k$ it is :func:`scale_by_full_matrix`.

    Args:
        window: $k$, how many gradients are kept.
        eps: $\epsilon$, inside the root.

    Returns:
        A transformation whose state holds for each array its last gradients and their inner
        products, and one count.

    Raises:
        ValueError: if a hyperparameter is out of its range.

    References:
        Agarwal et al. 2018, Efficient Full-Matrix Adaptive Regularization, arXiv:1806.02958 (GGT,
        which lets gradients fade inside of the window and adds $\epsilon$ to the root).

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_window(10)
    >>> tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))[0].round(3)
    Array([0.6, 0.8], dtype=float32)
    """
    if window == 0:
        raise ValueError("scale_by_window: window must be at least 1, got 0")

    def init(params: PyTree) -> WindowState:
        def zeros(p: jax.Array) -> jax.Array:
            zero = jnp.zeros_like(p, dtype=compute_dtype(p.dtype))
            return jnp.stack([zero] * window)

        products = jax.tree.map(lambda p: _zeros_whole(p, (window, window)), params)
        return WindowState(jax.tree.map(zeros, params), products, scalar_like(params, 0, jnp.int32))

    def update(
        updates: PyTree, state: WindowState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, WindowState]:
        check_state(state, WindowState)
        leaves, structure = jax.tree.flatten(updates)
        kept = (leaves_as(structure, tree, "state", "updates") for tree in state[:2])
        is_new = jnp.arange(window) == state.oldest

        def step(u: jax.Array, gradients: jax.Array, products: jax.Array) -> tuple[jax.Array, ...]:
            if gradients.shape != (window, *u.shape):
                foreign_state(f"{window} gradients of shape {u.shape}", gradients)
            dtype = compute_dtype(u.dtype, gradients.dtype)
            here = is_new.reshape(-1, *[1] * u.ndim)
            new = jnp.where(here, cast(u, dtype)[None], cast(gradients, dtype))
            # Sums of products, not a matrix product: its axes may be sharded.
            within = tuple(range(1, new.ndim))
            column = jnp.sum(new.conj() * cast(u, dtype)[None], within)
            gram = jnp.where(is_new[None, :], column[:, None], cast(products, dtype))
            gram = whole(jnp.where(is_new[:, None], column.conj()[None, :], gram))
            damped = gram + eps * jnp.eye(window, dtype=dtype)
            weights = inverse_root_times(damped, is_new.astype(dtype))
            out = jnp.sum(new * weights.reshape(here.shape), 0)
            return (
                _result(out, u, dtype),
                cast(new, gradients.dtype),
                cast(gram, products.dtype),
            )

        results = walk(step, structure, leaves, *kept)
        out, *new = zip(*results, strict=True) if results else ((), (), ())
        return structure.unflatten(out), WindowState(
            *map(structure.unflatten, new), (state.oldest + 1) % window
        )

    return GradientTransformation(init, update)


@transformation
def full_matrix_adagrad(
    learning_rate: NonNegative,
    eps: NonNegative = 1e-7,
    block_size: Count | None = None,
    window: Count | None = None,
) -> GradientTransformation:
    r"""AdaGrad with the full matrix, for few parameters; in blocks or on a window, for more.

    $\theta_t = \theta_{t-1} - \eta\,(\sum_{i \le t} g_i g_i^\top + \epsilon I)^{-1/2} g_t$.

    :func:`scale_by_full_matrix`, or with a window :func:`scale_by_window`, and
    :func:`scale_by_learning_rate`. Of gradients of one number, and of those that never have two
    numbers other than 0 at once, it is `adagrad(learning_rate, 0.0, eps)`.

    Args:
        learning_rate: $\eta$, as in :func:`scale_by_learning_rate`.
        eps, block_size: as in :func:`scale_by_full_matrix`.
        window: sum over the last so many steps only, as in :func:`scale_by_window`; None for all.

    Returns:
        A transformation whose state is that of the link.

    Raises:
        ValueError: if a hyperparameter is out of its range, or both a block size and a window are
            given; from `init`, if an array is too large for its matrix.

    References:
        Duchi, Hazan & Singer 2011, see :func:`scale_by_full_matrix`; Agarwal et al. 2018, see
        :func:`scale_by_window`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.full_matrix_adagrad(5.0)
    >>> tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))[0].round()
    Array([-3., -4.], dtype=float32)
    """
    if window is None:
        link = scale_by_full_matrix(eps, block_size)
    elif block_size is None:
        link = scale_by_window(window, eps)
    else:
        raise ValueError(
            "full_matrix_adagrad: a window needs no blocks, "
            f"got block_size={block_size} and window={window}"
        )
    return chain(link, scale_by_learning_rate(learning_rate))


@jax.custom_jvp
def inverse_root_times(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    """$A^{-1/2} x$ of positive semi-definite matrices and vectors, each of shape (..., n[, n])."""
    vectors, inverse = _spectrum(matrix)
    return _map(vectors, inverse * _map(_adjoint(vectors), vector))


@inverse_root_times.defjvp
def _inverse_root_times_jvp(primals: Any, tangents: Any) -> Any:
    # That of eigh divides by differences of eigenvalues, of which many are 0. For this function
    # of them the quotients of differences are, with the roots r: -1 / (r_i r_j (r_i + r_j)).
    (matrix, vector), (matrix_dot, vector_dot) = primals, tangents
    vectors, inverse = _spectrum(matrix)
    one, other = inverse[..., :, None], inverse[..., None, :]
    both = one + other
    quotients = -((one * other) ** 2) / jnp.where(both > 0, both, 1)
    turned = quotients * (_adjoint(vectors) @ matrix_dot @ vectors)
    coordinates = _map(_adjoint(vectors), vector)
    change = inverse * _map(_adjoint(vectors), vector_dot) + _map(turned, coordinates)
    return _map(vectors, inverse * coordinates), _map(vectors, change)


def _spectrum(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The eigenvectors, and the inverse roots of the eigenvalues."""
    if not matrix.shape[-1]:
        return matrix, jnp.sum(matrix, -1).real  # there are no eigenvalues to have a largest
    values, vectors = jnp.linalg.eigh(matrix)
    known = matrix.shape[-1] * jnp.finfo(values.dtype).eps * jnp.max(values, -1, keepdims=True)
    values = jnp.maximum(values, known)
    return vectors, jnp.where(values > 0, 1 / jnp.sqrt(jnp.where(values > 0, values, 1)), 0)


def _map(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    return jnp.einsum("...ij,...j->...i", matrix, vector)


def _adjoint(matrix: jax.Array) -> jax.Array:
    return jnp.swapaxes(matrix, -1, -2).conj()


def _result(out: jax.Array, u: jax.Array, dtype: Any) -> jax.Array:
    # The matrices of complex parameters are complex, what reaches a link of theirs may be real.
    return checked_result(out if jnp.iscomplexobj(u) else out.real, u, dtype)


def _cut(size: int, block_size: int | None) -> tuple[int, int]:
    """How many blocks of how many numbers."""
    count = -(-size // block_size) if block_size else 1
    return count, -(-size // count) if count else 0


def _zeros_whole(p: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jnp.broadcast_to(scalar_like(p, 0, compute_dtype(p.dtype)), shape)


def _check_sizes(params: PyTree) -> None:
    for path, p in jax.tree_util.tree_flatten_with_path(params)[0]:
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
