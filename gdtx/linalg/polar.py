"""The polar factor of matrices, exactly and by polynomials in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from ..core.kinds import Kind, is_array
from ..core.norms import scaled_norm
from ..core.numerics import cast, compute_dtype
from .decompositions import svd

_SAFETY = 1.01

# Minimax on [l, u], u = 2 - l, from l = 0.001 on, each for the interval that the one before it
# leaves; l is no less than 0.024 u to the minimax, so that small singular values are not all.
_POLAR_EXPRESS = (
    (8.287212018145622, -23.595886519098816, 17.30038731253092),
    (4.1070591115422, -2.9478499167379097, 0.5448431082926601),
    (3.9486908534822946, -2.9089021159629453, 0.5518191394370126),
    (3.318419657370602, -2.4884880243148753, 0.5100489401237204),
    (2.3006520199548177, -1.6689039845747502, 0.4188073119525673),
    (1.891301407787399, -1.2679958271945888, 0.3768040894852492),
    (1.8750014808507995, -1.2500016453946639, 0.37500016454478835),
)

COEFFICIENTS: dict[str, tuple[tuple[float, ...], ...]] = {
    "keller": ((3.4445, -4.7750, 2.0315),),
    # Rounding may leave a singular value above u, where the polynomials grow.
    "polar_express": (
        *((a / _SAFETY, b / _SAFETY**3, c / _SAFETY**5) for a, b, c in _POLAR_EXPRESS),
        (15 / 8, -5 / 4, 3 / 8),
    ),
    "convergent": ((15 / 8, -5 / 4, 3 / 8),),
    "cubic": ((3 / 2, -1 / 2),),
}


def _are_coefficients(value: Any) -> bool:
    if isinstance(value, str):
        return value in COEFFICIENTS or value == "exact"
    return isinstance(value, Sequence) and bool(value) and all(map(_is_row, _rows(value)))


def _is_row(value: Any) -> bool:
    is_sequence = isinstance(value, Sequence) and not isinstance(value, str)
    return is_sequence and bool(value) and all(map(_is_number, value))


def _rows(coefficients: Sequence[Any]) -> list[Any]:
    return [coefficients] if all(map(_is_number, coefficients)) else list(coefficients)


Coefficients = Annotated[
    Any,
    Kind(
        f"{', '.join(map(repr, COEFFICIENTS))}, 'exact' or the numbers (a, b, c) of "
        "a X + b (XX*) X + c (XX*)^2 X, or a sequence of such, one a step",
        _are_coefficients,
        text=True,
    ),
]


def polynomials(coefficients: Any, steps: int) -> list[Any]:
    """The coefficients of each step: the last that are given serve all later steps."""
    if isinstance(coefficients, str):
        given = list(COEFFICIENTS[coefficients][:steps])
    else:
        given = _rows(coefficients)
        if len(given) > steps:
            raise ValueError(
                f"orthogonalize: coefficients are given for {len(given)} steps, steps is {steps}"
            )
    return given + given[-1:] * (steps - len(given))


def _is_number(value: Any) -> bool:
    return is_array(value) or (isinstance(value, int | float) and not isinstance(value, bool))


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
        gram = _product(x, _adjoint(x))
        factor = others[-1] * gram
        for coefficient in reversed(others[:-1]):
            product = _product(cast(gram, x.dtype), cast(factor, x.dtype))
            factor = coefficient * gram + product
        result = result + _product(cast(factor, x.dtype), x)
    return cast(result, x.dtype)


@jax.custom_jvp
def polar(stack: jax.Array) -> jax.Array:
    r"""$UV^*$ of each $U \Sigma V^*$; singular values that are zero but for rounding stay zero."""
    u, _, v, rank = _decomposed(stack)
    return _product(u * rank, v)


@polar.defjvp
def _polar_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (dx,) = primals, tangents
    u, s, v, rank = _decomposed(x)
    factor = _product(u * rank, v)
    inner = _product(_product(_adjoint(u), dx), _adjoint(v))
    sums = s[..., :, None] + s[..., None, :]
    kept = rank & jnp.swapaxes(rank, -1, -2)
    turn = jnp.where(kept, (inner - _adjoint(inner)) / jnp.where(kept, sums, 1), 0)
    # What turns out of the row space, of which the rows are fewer than the columns.
    outside = _product(_adjoint(u), dx) - _product(inner, v)
    scale = jnp.where(rank, 1 / jnp.where(rank, s[..., None, :], 1), 0)
    return factor, _product(u, _product(turn, v)) + _product(u * scale, outside)


def _decomposed(x: jax.Array) -> tuple[jax.Array, ...]:
    u, s, v = svd(x)
    smallest = max(x.shape[-2:]) * jnp.finfo(x.dtype).eps * s[..., :1]
    return u, s, v, (s > smallest)[..., None, :]


def _product(one: jax.Array, other: jax.Array) -> jax.Array:
    # Accelerators would take the factors in less than float32; who wants that asks for a dtype.
    return jnp.matmul(
        one,
        other,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=compute_dtype(one.dtype, other.dtype),
    )


def _adjoint(x: jax.Array) -> jax.Array:
    return jnp.conj(jnp.swapaxes(x, -1, -2))


def _complex_like(dtype: Any, like: Any) -> Any:
    """There is no narrow complex dtype to ask for."""
    return compute_dtype(dtype, like) if jnp.issubdtype(like, jnp.complexfloating) else dtype
