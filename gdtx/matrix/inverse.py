"""Inverse square roots of matrices, applied to vectors."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .._decompositions import eigh


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
    quotients = -(one * other) * (one * other / jnp.where(both > 0, both, 1))
    turned = jnp.einsum(
        "...ki,...kl,...lj->...ij", vectors.conj(), matrix_dot, vectors, precision="highest"
    )
    coordinates = _map(_adjoint(vectors), vector)
    change = inverse * _map(_adjoint(vectors), vector_dot) + _map(quotients * turned, coordinates)
    return _map(vectors, inverse * coordinates), _map(vectors, change)


def _spectrum(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The eigenvectors, and the inverse roots of the eigenvalues."""
    if not matrix.shape[-1]:
        return matrix, jnp.sum(matrix, -1).real  # there are no eigenvalues to have a largest
    values, vectors = eigh(matrix)
    known = matrix.shape[-1] * jnp.finfo(values.dtype).eps * jnp.max(values, -1, keepdims=True)
    values = jnp.maximum(values, known)
    return vectors, jnp.where(values > 0, 1 / jnp.sqrt(jnp.where(values > 0, values, 1)), 0)


def _map(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    # Some devices round the factors of products by default.
    return jnp.einsum("...ij,...j->...i", matrix, vector, precision="highest")


def _adjoint(matrix: jax.Array) -> jax.Array:
    return jnp.swapaxes(matrix, -1, -2).conj()
