"""Eigenvectors of symmetric matrices, found from those of matrices that are near."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..core.numbers.numerics import cast
from .decompositions import eigh, qr
from .products import adjoint, product, safe


def turned_basis(
    is_first: jax.Array, method: str, dtype: Any, matrix: jax.Array, basis: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Eigenvectors, that of the largest eigenvalue first; the old ones if these are not finite.

    Args:
        is_first: whether the old basis knows nothing of the matrix: then it is decomposed.
        method: `"qr"`, a step of orthogonal iteration from the old basis, or `"eigh"`.
        dtype: in which to compute; None is the matrix's.
        matrix: of shape (..., n, n).
        basis: the old eigenvectors, as columns.

    Returns:
        The new basis, which vector of the old one is in the place of each, and if it is finite.
    """
    wide = matrix.dtype if dtype is None else dtype
    matrix, old = cast(matrix, wide), cast(basis, wide)
    image = product(matrix, old)
    negative = -rayleigh(old, image)
    by_size = jnp.argsort(negative, axis=-1)

    def decomposed(matrix: jax.Array, image: jax.Array) -> jax.Array:
        # Of the negative the order is from the largest eigenvalue down; the transpose, which
        # is the same matrix, is as LAPACK reads it.
        return eigh(-adjoint(matrix))[1]

    def iterated(matrix: jax.Array, image: jax.Array) -> jax.Array:
        largest = -_take(negative, by_size[..., :1])[..., 0]
        return orthogonal_iteration(_take(image, by_size[..., None, :]), largest)

    if method == "eigh":
        new = decomposed(matrix, image)
    else:
        new = jax.lax.cond(is_first, decomposed, iterated, matrix, image)
    # No entry is above 1: their sum is finite if all of them are.
    is_good = jnp.isfinite(jnp.sum(new, axis=(-2, -1)))
    unmoved = jnp.broadcast_to(jnp.arange(matrix.shape[-1]), by_size.shape)
    return (
        jnp.where(is_good[..., None, None], new.astype(basis.dtype), basis),
        jnp.where(is_good[..., None], by_size, unmoved),
        is_good,
    )


def orthogonal_iteration(image: jax.Array, size: jax.Array) -> jax.Array:
    r"""One step from a basis toward the eigenvectors of a symmetric matrix: $Q$ of $QR = AV$.

    Columns of the largest eigenvalues converge first, and are those that should come first. A
    step does much where the basis is nearly right: errors shrink by the ratios of the eigenvalues.

    Args:
        image: $AV$.
        size: about the largest eigenvalue, of shape (...); divided by it, no number is extreme.
    """
    return qr(image / safe(size)[..., None, None])[0]


def rayleigh(basis: jax.Array, image: jax.Array) -> jax.Array:
    """The diagonal of $V^\\top A V$: the eigenvalues, if the basis is one of eigenvectors."""
    return jnp.sum(basis * image, axis=-2)


def _take(x: jax.Array, places: jax.Array) -> jax.Array:
    return jnp.take_along_axis(x, places, axis=-1, mode="promise_in_bounds")
