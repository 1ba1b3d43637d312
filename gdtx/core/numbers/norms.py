"""Norms that are finite for all finite numbers, and results within the range of their dtype."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .layers import is_of_layer
from .numerics import cast, compute_dtype, sqrt, square
from .program import map_alike
from .shards import largest, shared_axes, total, whole_size


def is_finite(tree: Any) -> jax.Array:
    """Whether every number of a tree is finite."""
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
    good = [_everywhere(jnp.all(is_good(x)), x) for x in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(good)) if good else jnp.asarray(True)


def _everywhere(is_good: jax.Array, x: jax.Array) -> jax.Array:
    if not shared_axes(x):
        return is_good
    return total((~is_good).astype(jnp.int32), x) == 0


def scaled_norm(leaves: list[Any]) -> tuple[jax.Array, jax.Array]:
    """A power of two that brings the largest magnitude near 1, and the norm times that power.

    Squares near 1 do not overflow, and those that underflow are too small to count. A power of two
    rounds nothing, and multiplying by it is safe where dividing by the largest is not: the
    reciprocal of a number near the end of the range is subnormal, which compilers flush to 0.
    """
    power, total = _sum_of_scaled(leaves)
    return power, sqrt(total)


def scaled_global_norm(leaves: list[Any]) -> tuple[jax.Array, jax.Array]:
    """The same for the one norm of a whole tree, with a power of 1 where the squares fit.

    Then no sum waits for a largest magnitude, which is one round of messages more where the tree is
    on several devices. It takes a conditional: not for many norms side by side, nor for those of
    layers, which would compute both of its branches.
    """
    if is_of_layer():
        return scaled_norm(leaves)
    total = _sum_of_squares(_wide(leaves))
    # Squares that underflow are then too small to count. A NaN is no less one with another power.
    least = 2.0 ** (4 - _maxexp(_wide(leaves)) // 2)
    fits = (total >= least) & (total <= jnp.finfo(total.dtype).max)
    power, total = jax.lax.cond(
        fits,
        # Of the type of the other, inside of `shard_map` too.
        lambda leaves, total: (jnp.where(total > 0, 1, total), total),
        lambda leaves, total: _sum_of_scaled(leaves),
        leaves,
        total,
    )
    return power, sqrt(total)


def _sum_of_scaled(leaves: list[Any]) -> tuple[jax.Array, jax.Array]:
    leaves = _wide(leaves)
    power = power_toward_one(leaves)
    scaled = map_alike(lambda x: x * power.astype(jnp.finfo(x.dtype).dtype), leaves)
    return power, _sum_of_squares(scaled)


def _sum_of_squares(leaves: list[jax.Array]) -> jax.Array:
    sums = map_alike(lambda x: jnp.sum(square(x)), leaves)
    return _sum_of(leaves, sums, _real_dtype(leaves))


def _sum_of(leaves: list[Any], sums: list[jax.Array], dtype: Any) -> jax.Array:
    """The sum of what is of each array, over all parts of those that are cut: in one message for
    all that are cut over the same mesh axes."""
    alike: dict[tuple[str, ...], tuple[Any, jax.Array]] = {}
    for x, each in zip(leaves, sums, strict=True):
        axes = shared_axes(x)
        _, so_far = alike.get(axes, (x, jnp.zeros((), dtype)))
        alike[axes] = x, so_far + each.astype(dtype)
    whole = [total(so_far, x) for x, so_far in alike.values()]
    return functools.reduce(jnp.add, whole, jnp.zeros((), dtype))


def _wide(leaves: list[Any]) -> list[jax.Array]:
    return [cast(x, compute_dtype(x.dtype)) for x in leaves if x.size]


def _real_dtype(leaves: list[Any]) -> Any:
    return jnp.finfo(compute_dtype(*(x.dtype for x in leaves))).dtype


def _maxexp(leaves: list[Any]) -> int:
    """That of the dtype with the least range."""
    return min((jnp.finfo(x.dtype).maxexp for x in leaves), default=128)


def power_toward_one(leaves: list[Any]) -> jax.Array:
    """A power of two that brings the largest magnitude of all near 1; 1 if all are 0."""
    leaves = _wide(leaves)
    most = jnp.zeros((), _real_dtype(leaves))
    found = map_alike(lambda x: jnp.max(jnp.abs(jax.lax.stop_gradient(x))), leaves)
    for x, each in zip(leaves, found, strict=True):
        most = jnp.maximum(most, largest(each, x).astype(most.dtype))
    # In the range of every leaf, so that the power is a normal number there too.
    return _toward_one(most, _maxexp(leaves))


def scaled_norms(x: jax.Array, axes: Any = None) -> tuple[jax.Array, jax.Array]:
    """The same for one array over some of its axes, all by default; those are kept, of length 1."""
    x = cast(x, compute_dtype(x.dtype))
    most = jnp.max(jnp.abs(jax.lax.stop_gradient(x)), axes, keepdims=True, initial=0)
    power = _toward_one(most if axes is not None else largest(most, x), jnp.finfo(x.dtype).maxexp)
    squares = jnp.sum(square(x * power), axes, keepdims=True)
    return power, sqrt(squares if axes is not None else total(squares, x))


def unscaled(power: jax.Array, scaled: jax.Array) -> jax.Array:
    """A norm from its product with that power; beyond the dtype's range, the largest number."""
    norm = scaled / power
    return jnp.where(jnp.isfinite(scaled), jnp.minimum(norm, jnp.finfo(norm.dtype).max), norm)


def shortened(u: jax.Array, power: jax.Array, scaled: jax.Array, max_norm: Any) -> jax.Array:
    """`u`, scaled so that its norm, given as by `scaled_norm`, is at most `max_norm`."""
    wide = compute_dtype(u.dtype)
    real = jnp.finfo(wide).dtype
    # Both sides times the power: the norm itself may be beyond the range of the dtype. Not whether
    # it is too long: a NaN is neither, and must not pass.
    within = scaled <= max_norm * power
    ratio = max_norm / jnp.where(within, 1, scaled)
    u = u.astype(wide)
    return jnp.where(within, u, u * power.astype(real) * ratio.astype(real))


def mean_within_range(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """The mean over axes, which stay with length 1; finite for finite numbers, whose sum may not
    be. Of none, 0."""
    number = max(math.prod(x.shape[axis] for axis in axes), 1)
    power = 2.0 ** math.ceil(math.log2(number))  # multiplying by it rounds nothing
    return jnp.sum(x / power, axes, keepdims=True) * (power / number)


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
    sums = []
    for a, b in zip(one, other, strict=True):
        wide = compute_dtype(a.dtype, b.dtype)
        sums.append(jnp.sum((jnp.conj(cast(a, wide)) * cast(b, wide)).real))
    return _sum_of(one, sums, compute_dtype(*(x.dtype for x in sums)))


def finite_inner_product(one: list[jax.Array], other: list[jax.Array]) -> jax.Array:
    """The same, of finite numbers always finite, and 0 only where no product is large enough."""
    wide = [[cast(x, compute_dtype(x.dtype)) for x in leaves] for leaves in (one, other)]
    powers = [power_toward_one(leaves) for leaves in wide]
    scaled = [
        [x * power.astype(jnp.finfo(x.dtype).dtype) for x in leaves]
        for leaves, power in zip(wide, powers, strict=True)
    ]
    product = inner_product(*scaled)
    exact = product / powers[0] / powers[1]
    return jnp.where(jnp.isfinite(product), saturated(exact), exact)


def root_mean_square(x: jax.Array) -> jax.Array:
    """The root mean square of all numbers of an array, real; 0 if there is none."""
    power, scaled = scaled_norms(x)
    return unscaled(power, scaled / max(whole_size(x), 1) ** 0.5).reshape(())


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
