"""Inverse square roots of matrices, applied to vectors."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..core.numbers.norms import scaled_norms, shortened
from .decompositions import eigh
from .products import adjoint, matvec, of_eigenvalues, resolution


def inverse_root_times(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    """$A^{-1/2} x$ of positive semi-definite matrices and vectors, each of shape (..., n[, n])."""
    if not matrix.size:
        return vector
    half = jnp.finfo(matrix.dtype).maxexp // 2
    largest = jnp.max(jnp.abs(jax.lax.stop_gradient(matrix)), (-2, -1))
    # Of numbers near the end of the range the eigenvalues, as their sums, may be beyond it.
    is_huge = largest > 2.0**half
    small = jnp.where(is_huge, 2.0**-half, 1).astype(largest.dtype)
    root = jnp.where(is_huge, 2.0 ** -(half // 2), 1).astype(largest.dtype)
    return root[..., None] * _inverse_root_times(small[..., None, None] * matrix, vector)


def within_range(x: jax.Array, axes: Any = -1) -> jax.Array:
    """The vectors along these axes, no longer than what has inner products in the dtype's range."""
    longest = 2.0 ** (jnp.finfo(x.dtype).maxexp // 2) * (1 - 2.0**-12)
    return shortened(x, *scaled_norms(x, axes), longest)


@jax.custom_jvp
def _inverse_root_times(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    vectors, inverse = _spectrum(matrix)
    return matvec(vectors, inverse * matvec(adjoint(vectors), vector))


@_inverse_root_times.defjvp
def _inverse_root_times_jvp(primals: Any, tangents: Any) -> Any:
    # That of eigh divides by differences of eigenvalues, of which many are 0. For this function
    # of them the quotients of differences are, with the roots r: -1 / (r_i r_j (r_i + r_j)).
    (matrix, vector), (matrix_dot, vector_dot) = primals, tangents
    vectors, inverse = _spectrum(matrix)
    one, other = inverse[..., :, None], inverse[..., None, :]
    both = one + other
    quotients = -(one * other) * (one * other / jnp.where(both > 0, both, 1))
    turned = jnp.einsum(
        "...ki,...kl,...lj->...ij", vectors.conj(), matrix_dot, vectors, precision="highest"
    )
    coordinates, moved = (matvec(adjoint(vectors), x) for x in (vector, vector_dot))
    change = inverse * moved + matvec(quotients * turned, coordinates)
    return matvec(vectors, inverse * coordinates), matvec(vectors, change)


def _spectrum(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The eigenvectors, and the inverse roots of the eigenvalues."""
    values, vectors = eigh(matrix)
    values = jnp.maximum(values, 2 * resolution(values) * jnp.max(values, -1, keepdims=True))
    return vectors, of_eigenvalues(lambda values: 1 / jnp.sqrt(values), values)
