"""Products of stacks of matrices, and numbers that are safe to divide by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..core.numbers.numerics import compute_dtype


def product(one: jax.Array, other: jax.Array) -> jax.Array:
    """The matrix product in full precision, which accelerators leave out unless asked; of narrow
    factors, their sums are in float32."""
    return jnp.matmul(
        one,
        other,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=compute_dtype(one.dtype, other.dtype),
    )


def matvec(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    """The same, of matrices (..., n, n) and vectors (..., n)."""
    return jnp.einsum("...ij,...j->...i", matrix, vector, precision=jax.lax.Precision.HIGHEST)


def adjoint(matrix: jax.Array) -> jax.Array:
    """The conjugate transpose."""
    return jnp.conj(jnp.swapaxes(matrix, -1, -2))


def of_eigenvalues(f: Callable[[jax.Array], jax.Array], values: jax.Array, floor: Any = 0) -> Any:
    """`f` of the eigenvalues above the floor, which may divide by them, and 0 of the others."""
    is_nothing = values <= floor
    return jnp.where(is_nothing, 0, f(jnp.where(is_nothing, 1, values)))


def safe(x: jax.Array) -> jax.Array:
    """A size to divide by: 1 in place of 0."""
    return jnp.where(x > 0, x, 1)


def resolution(x: jax.Array) -> float:
    """The share of its largest eigenvalue to which a matrix with this last axis is known."""
    return x.shape[-1] * float(jnp.finfo(x.dtype).eps) / 2
