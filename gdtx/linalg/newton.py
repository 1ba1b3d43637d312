"""Inverse roots by Newton's iteration, which is all products of matrices."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .products import product, resolution, safe

_STEPS = 100


def newton(matrix: Any, p: int, eps: Any, relative_eps: Any) -> tuple[jax.Array, jax.Array]:
    """The inverse p-th root of the damped matrix, and the largest entry of X^p A - I.

    Coupled: M = X^p A goes to I, and X with it to the root.
    """
    size = safe(jnp.maximum(jnp.max(jnp.abs(matrix), axis=(-2, -1), keepdims=True), eps))
    value, error = _scaled(matrix / size, p, eps / size, relative_eps)
    return value * size ** (-1 / p), error


def _scaled(matrix: Any, p: int, eps: Any, relative_eps: Any) -> tuple[jax.Array, jax.Array]:
    """Of numbers near 1, whose squares neither overflow nor vanish."""
    eye = jnp.broadcast_to(jnp.eye(matrix.shape[-1], dtype=matrix.dtype), matrix.shape)
    # No eigenvalue is larger than this norm, so that those of M start between 0 and (p + 1) / 2.
    bound = jnp.sqrt(jnp.sum(matrix * matrix, axis=(-2, -1), keepdims=True))
    largest = _largest_eigenvalue(matrix)
    # Of a singular matrix rounding makes an indefinite one, for which there is no iteration.
    damping = jnp.maximum(eps + relative_eps * largest, resolution(matrix) * largest)
    start = (1 + p) / (2 * safe(bound + damping))

    def error_of(m: jax.Array) -> jax.Array:
        return jnp.max(jnp.abs(m - eye), axis=(-2, -1), keepdims=True)

    def unfinished(carry: Any) -> jax.Array:
        i, _, _, error, improves = carry
        tolerance = 4 * resolution(matrix)
        return (i < _STEPS) & jnp.any(improves & (error > tolerance))

    def step(carry: Any) -> Any:
        i, x, m, error, _ = carry
        factor = ((p + 1) * eye - m) / p
        new_x, new_m = product(x, factor), product(_power(factor, p), m)
        new_error = error_of(new_m)
        # Far from I small eigenvalues grow unseen; near it more steps would pile up rounding.
        improves = (new_error < error) | (error > 0.1)
        new = i + 1, new_x, new_m, new_error
        kept = (jnp.where(improves, a, b) for a, b in zip(new[1:], carry[1:4], strict=True))
        return (new[0], *kept, improves)

    m = (matrix + damping * eye) * start
    error = error_of(m)
    carry = (jnp.zeros((), jnp.int32), eye * start ** (1 / p), m, error, jnp.isfinite(error))
    _, x, _, error, _ = jax.lax.while_loop(unfinished, step, carry)
    is_zero = bound + damping == 0
    return jnp.where(is_zero, 0, x), jnp.where(is_zero, 0, error)[..., 0, 0]


def _largest_eigenvalue(matrix: jax.Array) -> jax.Array:
    """By power iteration from the largest column: within some percent, from below."""
    columns = jnp.sum(matrix * matrix, axis=-2, keepdims=True)
    start = jnp.argmax(columns, axis=-1, keepdims=True)
    vector = jnp.take_along_axis(matrix, start, axis=-1)

    def norm(v: jax.Array) -> jax.Array:
        return jnp.sqrt(jnp.sum(v * v, axis=(-2, -1), keepdims=True))

    def step(_: Any, v: jax.Array) -> jax.Array:
        return product(matrix, v / safe(norm(v)))

    # Of a unit vector the image is as long as the eigenvalue is large.
    return norm(jax.lax.fori_loop(0, 30, step, vector))


def _power(matrix: jax.Array, p: int) -> jax.Array:
    result = None
    while p:
        if p % 2:
            result = matrix if result is None else product(result, matrix)
        p //= 2
        matrix = product(matrix, matrix) if p else matrix
    assert result is not None
    return result
