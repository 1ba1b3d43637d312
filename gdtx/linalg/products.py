"""Products of many small matrices."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def product(one: jax.Array, other: jax.Array) -> jax.Array:
    """The matrix product in full precision, which accelerators leave out unless asked."""
    return jnp.matmul(one, other, precision=jax.lax.Precision.HIGHEST)


def transposed(matrix: jax.Array) -> jax.Array:
    return jnp.swapaxes(matrix, -1, -2)


def safe(x: jax.Array) -> jax.Array:
    """A size to divide by: 1 in place of 0."""
    return jnp.where(x > 0, x, 1)


def resolution(x: jax.Array) -> float:
    """The share of its largest eigenvalue to which a matrix with this last axis is known."""
    return x.shape[-1] * float(jnp.finfo(x.dtype).eps) / 2
