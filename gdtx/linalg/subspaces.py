"""Spaces of a few dimensions in which matrices nearly lie, as orthonormal columns."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from .decompositions import qr, svd
from .products import safe


def leading(x: jax.Array, rank: int) -> jax.Array:
    """The left singular vectors of the largest singular values of matrices (..., m, n).

    A vector and its negative are one as good as the other. Here the entry of largest magnitude is
    positive, so that devices and libraries agree. Of a matrix that is not finite they are NaN.
    """
    vectors = svd(x)[0][..., :, :rank]
    place = jnp.argmax(jnp.abs(vectors), -2, keepdims=True)
    largest = jnp.take_along_axis(vectors, place, -2, mode="promise_in_bounds")
    # LAPACK may make vectors of infinities.
    is_finite = jnp.all(jnp.isfinite(x), (-2, -1), keepdims=True)
    return jnp.where(is_finite, vectors * jnp.conj(jnp.sign(largest)), jnp.nan)


def orthonormal(x: jax.Array) -> jax.Array:
    """Orthonormal columns that span those of matrices (..., m, r), no more columns than rows."""
    size = jnp.max(jnp.abs(jax.lax.stop_gradient(x)), (-2, -1), keepdims=True, initial=0)
    return qr(x / safe(size))[0]
