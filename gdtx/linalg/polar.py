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
    than columns.
    """
    x = jax.vmap(_unit)(stack)
    x = x if dtype is None else cast(x, _complex_like(dtype, x.dtype))
    if steps:
        # A loop, so that no step is compiled twice.
        width = max(map(len, steps))
        rows = [[*row, *[0.0] * (width - len(row))] for row in steps]
        rows = jnp.asarray(rows, jnp.finfo(stack.dtype).dtype)
        x, _ = jax.lax.scan(lambda x, row: (_odd(row, x), None), x, rows)
    return cast(x, stack.dtype)


def _unit(x: jax.Array) -> jax.Array:
    power, norm = scaled_norm([x])
    return x * power / jnp.where(norm == 0, 1, norm)


def _odd(coefficients: jax.Array, x: jax.Array) -> jax.Array:
    """In the dtype of the matrix are the factors of products, in that of the coefficients sums."""
    first, *others = coefficients
    result = first * x
    if others:
        gram = product(x, adjoint(x))
        factor = others[-1] * gram
        for coefficient in reversed(others[:-1]):
            square = product(cast(gram, x.dtype), cast(factor, x.dtype))
            factor = coefficient * gram + square
        result = result + product(cast(factor, x.dtype), x)
    return cast(result, x.dtype)


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
