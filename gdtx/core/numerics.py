"""Arithmetic that stays exact, finite and differentiable where the textbook expression does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def increment(count: jax.Array) -> jax.Array:
    """The next count; the largest one stays, because a wrapped count would be negative."""
    return count + (count < jnp.iinfo(count.dtype).max).astype(count.dtype)


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


def is_finite(tree: Any) -> jax.Array:
    """Whether no number of a tree is infinite or not a number."""
    return _all(jnp.isfinite, tree)


def is_squarable(tree: Any) -> jax.Array:
    """Whether all numbers are finite, and so are the squares of eight times each.

    Eight times, because what is squared may be a difference of such or a little more.
    """

    def is_in_range(x: jax.Array) -> jax.Array:
        x = cast(x, compute_dtype(x.dtype))
        return jnp.abs(x) <= 2.0 ** (jnp.finfo(x.dtype).maxexp // 2 - 3)

    return _all(is_in_range, tree)


def _all(is_good: Callable[[jax.Array], jax.Array], tree: Any) -> jax.Array:
    good = [jnp.all(is_good(x)) for x in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(good)) if good else jnp.asarray(True)


def scaled_norm(leaves: list[Any]) -> tuple[jax.Array, jax.Array]:
    """A power of two that brings the largest magnitude near 1, and the norm times that power.

    Squares near 1 do not overflow, and those that underflow are too small to count. A power of two
    rounds nothing, and multiplying by it is safe where dividing by the largest is not: the
    reciprocal of a number near the end of the range is subnormal, which compilers flush to 0.
    """
    leaves = [cast(x, compute_dtype(x.dtype)) for x in leaves if x.size]
    dtype = jnp.finfo(compute_dtype(*(x.dtype for x in leaves))).dtype
    largest = jnp.zeros((), dtype)
    for x in leaves:
        largest = jnp.maximum(largest, jnp.max(jnp.abs(jax.lax.stop_gradient(x))).astype(dtype))
    # In the range of every leaf, so that the power is a normal number there too.
    power = _toward_one(largest, min((jnp.finfo(x.dtype).maxexp for x in leaves), default=128))
    total = jnp.zeros((), dtype)
    for x in leaves:
        total = total + jnp.sum(square(x * power.astype(jnp.finfo(x.dtype).dtype))).astype(dtype)
    return power, sqrt(total)


def scaled_norms(x: jax.Array, axes: Any = None) -> tuple[jax.Array, jax.Array]:
    """The same for one array over some of its axes, all by default; those are kept, of length 1."""
    x = cast(x, compute_dtype(x.dtype))
    largest = jnp.max(jnp.abs(jax.lax.stop_gradient(x)), axes, keepdims=True, initial=0)
    power = _toward_one(largest, jnp.finfo(x.dtype).maxexp)
    return power, sqrt(jnp.sum(square(x * power), axes, keepdims=True))


def unscaled(power: jax.Array, scaled: jax.Array) -> jax.Array:
    """A norm from what it is times that power; one beyond the dtype's range is its largest."""
    norm = scaled / power
    return jnp.where(jnp.isfinite(scaled), jnp.minimum(norm, jnp.finfo(norm.dtype).max), norm)


def shortened(u: jax.Array, power: jax.Array, scaled: jax.Array, max_norm: Any) -> jax.Array:
    """`u` times what makes a norm, given as by `scaled_norm`, no longer than `max_norm`."""
    wide = compute_dtype(u.dtype)
    real = jnp.finfo(wide).dtype
    # Both sides times the power: the norm itself may be beyond the range of the dtype. Not whether
    # it is too long: a NaN is neither, and must not pass.
    within = scaled <= max_norm * power
    ratio = max_norm / jnp.where(within, 1, scaled)
    u = u.astype(wide)
    return jnp.where(within, u, u * power.astype(real) * ratio.astype(real))


def saturated(x: jax.Array) -> jax.Array:
    """The largest finite numbers in place of infinite ones; NaN stays."""
    if jnp.iscomplexobj(x):
        return jax.lax.complex(saturated(x.real), saturated(x.imag))
    return jnp.clip(x, jnp.finfo(x.dtype).min, jnp.finfo(x.dtype).max)


def quotient(x: jax.Array, y: jax.Array) -> jax.Array:
    """$x / y$ for $y > 0$ up to the end of the range.

    Compilers multiply by the reciprocal, and that of the largest numbers they flush to 0.
    """
    half = jnp.finfo(y.dtype).maxexp // 2
    small = jnp.where(y > 2.0**half, 2.0**-half, 1).astype(y.dtype)
    return x * small / (y * small)


def inner_product(one: list[jax.Array], other: list[jax.Array]) -> jax.Array:
    """The real inner product of all numbers together, in at least float32."""
    total = jnp.zeros((), jnp.float32)
    for a, b in zip(one, other, strict=True):
        wide = compute_dtype(a.dtype, b.dtype)
        total = total + jnp.sum((jnp.conj(cast(a, wide)) * cast(b, wide)).real)
    return total


def root_mean_square(x: jax.Array) -> jax.Array:
    """Of all numbers of an array, real, and 0 of none."""
    power, scaled = scaled_norms(x)
    return unscaled(power, scaled / max(x.size, 1) ** 0.5).reshape(())


def _toward_one(largest: jax.Array, maxexp: int) -> jax.Array:
    """The power of two that brings a magnitude near 1, as far as it is a normal number; 1 for 0."""
    power = 1 / jnp.clip(power_below(largest), 2.0 ** (2 - maxexp), 2.0 ** (maxexp - 2))
    # Of constant zeros, compilers compute (0 p)(0 p) as 0 p^2, and p^2 is infinite.
    return jnp.where(largest > 0, power, 1)


def power_below(x: jax.Array) -> jax.Array:
    """The power of two at a magnitude or below: the number with sign and fraction cut off.

    Three operations, where frexp and ldexp are a hundred.
    """
    finfo = jnp.finfo(x.dtype)
    bits = jnp.dtype(f"uint{finfo.bits}")
    exponent = jnp.array(((1 << finfo.nexp) - 1) << finfo.nmant, bits)
    return jax.lax.bitcast_convert_type(jax.lax.bitcast_convert_type(x, bits) & exponent, x.dtype)
