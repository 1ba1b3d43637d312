"""The polar factor of matrices, exactly and by polynomials in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..core.numbers.norms import scaled_norm
from ..core.numbers.numerics import cast, compute_dtype
from .decompositions import svd
from .products import adjoint, product


def newton_schulz(stack: jax.Array, steps: Sequence[Any], dtype: Any = None) -> jax.Array:
    r"""A stack of matrices through odd polynomials, $X \leftarrow a X + b (XX^*) X + \dots$

    They act on the singular values, divided by the Frobenius norm first. No matrix has more rows
    than columns. Where one has more than three columns to two rows, two polynomials at a time are
    made one in the smaller $XX^*$ before it is multiplied, which takes fewer operations. Not more:
    $XX^*$ has the squares of the singular values, of which it loses the small ones, and what is
    there in place of them grows with each step that does not begin from a new one.
    """
    x = jax.vmap(_unit)(stack)
    x = x if dtype is None else cast(x, _complex_like(dtype, x.dtype))
    if not steps:
        return cast(x, stack.dtype)
    width = max(map(len, steps))
    rows = [[*row, *[0.0] * (width - len(row))] for row in steps]
    rows = jnp.asarray(rows, jnp.finfo(stack.dtype).dtype)
    height, length = x.shape[-2:]
    together = 2 if width > 1 and 2 * length > 3 * height else 1
    whole = len(rows) // together * together
    if whole:
        # A loop, so that no step is compiled twice.
        groups = rows[:whole].reshape(-1, together, width)
        x, _ = jax.lax.scan(lambda x, group: (_odds(group, x), None), x, groups)
    if whole < len(rows):
        x = _odds(rows[whole:], x)
    return cast(x, stack.dtype)


def _unit(x: jax.Array) -> jax.Array:
    power, norm = scaled_norm([x])
    return x * power / jnp.where(norm == 0, 1, norm)


def _odds(rows: jax.Array, x: jax.Array) -> jax.Array:
    """One polynomial, or two of which the second is one of what the first makes of the matrix."""
    if len(rows) == 1:
        return _odd(rows[0], x)
    gram = product(x, adjoint(x))
    first = _factor(rows[0], gram, x.dtype)
    # All of them are polynomials in one matrix, and commute.
    second = _factor(rows[1], _product(first, _product(gram, first, x.dtype), x.dtype), x.dtype)
    return cast(_product(_product(second, first, x.dtype), x, x.dtype), x.dtype)


def _factor(coefficients: jax.Array, gram: jax.Array, dtype: Any) -> jax.Array:
    """What the matrix is multiplied by."""
    first, *others = coefficients
    identity = jnp.broadcast_to(jnp.eye(gram.shape[-1], dtype=gram.dtype), gram.shape)
    return first * identity + _even(others, gram, dtype)


def _odd(coefficients: jax.Array, x: jax.Array) -> jax.Array:
    """In the dtype of the matrix are the factors of products, in that of the coefficients sums."""
    first, *others = coefficients
    result = first * x
    if others:
        factor = _even(others, product(x, adjoint(x)), x.dtype)
        result = result + _product(factor, x, x.dtype)
    return cast(result, x.dtype)


def _even(coefficients: Sequence[jax.Array], gram: jax.Array, dtype: Any) -> jax.Array:
    r"""$b G + c G^2 + \dots$"""
    *lower, last = coefficients
    factor = last * gram
    for coefficient in reversed(lower):
        factor = coefficient * gram + _product(gram, factor, dtype)
    return factor


def _product(one: jax.Array, other: jax.Array, dtype: Any) -> jax.Array:
    return product(cast(one, dtype), cast(other, dtype))


@jax.custom_jvp
def polar_factor(stack: jax.Array) -> jax.Array:
    r"""$UV^*$ of each $U \Sigma V^*$; singular values that are zero but for rounding stay zero."""
    u, _, v, rank = _decomposed(stack)
    return product(u * rank, v)


@polar_factor.defjvp
def _polar_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (dx,) = primals, tangents
    u, s, v, rank = _decomposed(x)
    factor = product(u * rank, v)
    inner = product(product(adjoint(u), dx), adjoint(v))
    sums = s[..., :, None] + s[..., None, :]
    kept = rank & jnp.swapaxes(rank, -1, -2)
    turn = jnp.where(kept, (inner - adjoint(inner)) / jnp.where(kept, sums, 1), 0)
    # What turns out of the row space, of which the rows are fewer than the columns.
    outside = product(adjoint(u), dx) - product(inner, v)
    scale = jnp.where(rank, 1 / jnp.where(rank, s[..., None, :], 1), 0)
    return factor, product(u, product(turn, v)) + product(u * scale, outside)


def _decomposed(x: jax.Array) -> tuple[jax.Array, ...]:
    u, s, v = svd(x)
    smallest = max(x.shape[-2:]) * jnp.finfo(x.dtype).eps * s[..., :1]
    return u, s, v, (s > smallest)[..., None, :]


def _complex_like(dtype: Any, like: Any) -> Any:
    """There is no narrow complex dtype to ask for."""
    return compute_dtype(dtype, like) if jnp.issubdtype(like, jnp.complexfloating) else dtype
