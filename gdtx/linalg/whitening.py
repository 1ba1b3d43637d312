r"""Steps of stochastic gradient descent on a factor $Q$ of a whitening matrix $Q^\top Q$."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .products import adjoint, product

LARGEST_TURN = 1 / 8
"""Of a rotation that is expanded to the second order, whose error is the fourth power of it."""


def fitted_factor(
    factor: jax.Array, moments: jax.Array, target: float, smoothness: jax.Array, rate: Any
) -> jax.Array:
    r"""A step toward moments of the whitened gradient that are `target` times the identity.

    $Q \leftarrow Q - \frac{\mu}{\ell} (S - c I)\,Q$, turned toward a symmetric matrix; of a
    diagonal matrix, kept as its diagonal, number by number.

    Args:
        factor: of shape (..., n, n) or, as a diagonal, (..., n).
        moments: $S$, in the same form.
        target: $c$.
        smoothness: $\ell$, of shape (...).
        rate: $\mu$.
    """
    share = rate / smoothness
    if factor.ndim == smoothness.ndim + 1:
        return factor * (1 - share[..., None] * (moments - target))
    step = product(moments, factor) - target * factor
    return nearer_to_symmetric(factor - share[..., None, None] * step)


def size_of_moments(moments: jax.Array, is_diagonal: bool) -> jax.Array:
    """About the largest eigenvalue of positive semidefinite matrices, not more."""
    if is_diagonal:
        return jnp.max(moments, axis=-1)
    return norm_bound(moments)


def norm_bound(matrix: jax.Array) -> jax.Array:
    """A lower bound for the spectral norm of symmetric or skew-symmetric matrices, and near it.

    The length of the longest row, taken as a vector, after two products with the matrix.
    """
    tiny = jnp.finfo(matrix.dtype).tiny
    largest = jnp.max(jnp.abs(matrix), axis=(-2, -1)) + tiny
    scaled = matrix / largest[..., None, None]
    longest = jnp.argmax(jnp.sum(scaled * scaled, axis=-1), axis=-1)
    row = jnp.take_along_axis(scaled, longest[..., None, None], axis=-2)
    image = product(row, scaled)
    image = image / (_length(image)[..., None] + tiny)
    return largest * _length(product(image, scaled))[..., 0]


def nearer_to_symmetric(matrix: jax.Array) -> jax.Array:
    r"""A rotation of the matrix by at most :data:`LARGEST_TURN` that brings it nearer to symmetric.

    $(I + aR + \frac{1}{2} (aR)^2)\,Q$ with $R$ a positive multiple of $Q^\top - Q$: one step of the
    orthogonal Procrustes problem $\min_U \|UQ - I\|$, with the best $a$ where that is not longer.
    """
    skew = adjoint(matrix) - matrix
    skew = skew / (norm_bound(skew) + jnp.finfo(matrix.dtype).tiny)[..., None, None]
    first = product(skew, matrix)
    second = product(skew, first)
    slope, curvature = (jnp.trace(x, axis1=-2, axis2=-1) for x in (first, second))
    is_concave = curvature < 0
    best = -slope / jnp.where(is_concave, curvature, -1)
    a = jnp.where(is_concave, jnp.minimum(best, LARGEST_TURN), LARGEST_TURN)[..., None, None]
    return matrix + a * (first + 0.5 * a * second)


def _length(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(x * x, axis=-1))
