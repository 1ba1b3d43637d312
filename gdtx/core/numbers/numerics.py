"""Arithmetic that stays exact, finite and differentiable where the textbook expression does not."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp


def increment(count: jax.Array) -> jax.Array:
    """The next count; the largest one stays, because a wrapped count would be negative."""
    return count + (count < jnp.iinfo(count.dtype).max).astype(count.dtype)


def seen_by_rules(count: jax.Array) -> jax.Array:
    """A count as functions of the step get it: in 64 bits where JAX has them, because a quotient
    of two int32 is a float32."""
    return cast(count, jnp.result_type(int))


def compute_dtype(*dtypes: Any) -> Any:
    """The widest of the floating-point and complex dtypes, at least float32.

    That of NumPy's numbers in 64 bits, where JAX has none, is the one that they get there. Not
    JAX's own promotion, which has none of float8, and if it is strict none at all.
    """
    kinds = [jnp.dtype(dtype) for dtype in dtypes]
    is_complex = any(kind.kind == "c" for kind in kinds)
    is_double = any((kind.kind, kind.itemsize) in (("f", 8), ("c", 16)) for kind in kinds)
    if is_double and jnp.result_type(float) == jnp.float64:
        return jnp.dtype(jnp.complex128 if is_complex else jnp.float64)
    return jnp.dtype(jnp.complex64 if is_complex else jnp.float32)


def real_like(x: jax.Array, u: jax.Array) -> jax.Array:
    """`x`, its real part if `u` is real: updates of complex parameters may be real, as squares are,
    where what is kept beside them is complex."""
    return x if jnp.iscomplexobj(u) else x.real


def promoting() -> Any:
    """A context in which a rule may multiply an array by a count or by a number of another dtype.

    JAX's promotion can be made strict, and then refuses that. Ours is the same for everyone: rules
    compute in at least float32, and :func:`narrow` lets no hyperparameter widen what they make.
    """
    return jax.numpy_dtype_promotion("standard")


def is_narrow(dtype: Any) -> bool:
    """Whether this is bfloat16, float16, or a float8: real numbers in fewer bits than float32."""
    return jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32


def stored_dtype(dtype: Any) -> Any:
    """The dtype that numbers have in JAX's arrays: 64 bits may be 32 there."""
    return jnp.dtype(dtype) if is_narrow(dtype) else compute_dtype(dtype)


def is_computable(dtype: Any) -> bool:
    """Whether rules compute with it: floating-point or complex, in bytes, with sign and fraction.

    Of four or six bits no processor has arithmetic, and float8_e8m0fnu has powers of two alone.
    """
    if not jnp.issubdtype(dtype, jnp.inexact):
        return False
    return jnp.finfo(dtype).bits >= 8 and jnp.finfo(dtype).nmant > 0


def cast(x: jax.Array, dtype: Any) -> jax.Array:
    return x if x.dtype == dtype else x.astype(dtype)


def total(a: jax.Array, b: jax.Array) -> jax.Array:
    """The sum, in the wider of the two dtypes and in at least float32."""
    wide = compute_dtype(a.dtype, b.dtype)
    return cast(a, wide) + cast(b, wide)


def narrow(result: jax.Array, dtype: Any) -> jax.Array:
    """`result` in no more than the precision of `dtype`.

    Keeps a float64 hyperparameter from making float32 updates float64.
    """
    if not jnp.issubdtype(result.dtype, jnp.inexact):
        return result.astype(dtype)
    if jnp.finfo(result.dtype).bits <= jnp.finfo(dtype).bits:
        return result
    real = jnp.finfo(dtype).dtype
    is_complex = jnp.issubdtype(result.dtype, jnp.complexfloating)
    return result.astype(compute_dtype(real, jnp.complex64) if is_complex else real)


def square(x: jax.Array) -> jax.Array:
    """The squared magnitude, real for complex numbers too."""
    if jnp.iscomplexobj(x):
        return x.real * x.real + x.imag * x.imag
    return x * x


@jax.custom_jvp
def sqrt(x: jax.Array) -> jax.Array:
    """The square root, with derivative 0 at 0 where the true one is infinite."""
    return jnp.sqrt(x)


@sqrt.defjvp
def _sqrt_jvp(primals: Any, tangents: Any) -> Any:
    root = sqrt(primals[0])
    at_zero = root == 0
    return root, jnp.where(at_zero, 0, tangents[0] / (2 * jnp.where(at_zero, 1, root)))


def _rate(decay: Any) -> Any:
    """$-\\log\\beta$ from $1 - \\beta$, which numbers give in double precision."""
    if isinstance(decay, float | int):
        return -math.log1p(-(1 - decay)) if decay else math.inf
    return -jnp.log1p(-(1 - decay))


def one_minus_power(decay: Any, t: jax.Array) -> jax.Array:
    """$1 - \\beta^t$ without the cancellation that $\\beta$ near 1 brings."""
    return -jnp.expm1(-_rate(decay) * t)


def average_length(decay: Any, t: jax.Array) -> jax.Array:
    r"""$\rho_t = \rho_\infty - 2t\beta^t / (1 - \beta^t)$, with $\rho_\infty = 2/(1-\beta) - 1$.

    As written, two numbers near 2000 (at β = 0.999) differ by 5: in float32 the four digits lost
    decide whether an early step is rectified. With $\lambda = -\log\beta$ it equals
    $1 - h(\lambda) + t\, h(\lambda t)$, $h(x) = 2/x - 2/(e^x - 1)$, where nothing cancels.
    """
    rate = _rate(decay)
    return 1 - _h(jnp.asarray(rate)) + t * _h(rate * t)


def final_average_length(decay: Any) -> Any:
    """$\\rho_\\infty$: the number of steps a long exponential average is worth."""
    return 2 / (1 - decay) - 1


# 2 B_n / n! with the Bernoulli numbers B_2, B_4, ...: the next term is below 1e-16 at x = 0.5.
_SERIES = (
    -1 / 6, 1 / 360, -1 / 15120, 1 / 604800, -1 / 23950080, 691 / 653837184000, -1 / 37362124800
)  # fmt: skip


def _h(x: jax.Array) -> jax.Array:
    small = x < 0.5
    y = jnp.where(small, x, 0)
    series = 0.0
    for coefficient in reversed(_SERIES):
        series = series * y * y + coefficient
    z = jnp.where(small, 1, x)
    return jnp.where(small, 1 + y * series, 2 / z - 2 / jnp.expm1(z))
