"""Numbers in fewer than 32 bits, and how to round to them without losing what matters."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .layers import number_of_layer
from .norms import power_below
from .numerics import cast
from .shards import number_of_part


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def rounded(x: jax.Array, dtype: Any) -> jax.Array:
    """`x` rounded to the nearest number of a narrow dtype, in the dtype that it has.

    Compilers may leave out a cast there and back, as excess precision; this they must not. The
    derivative is 1.
    """
    kind = jnp.finfo(dtype)
    if kind.nexp == jnp.finfo(x.dtype).nexp:
        return jax.lax.reduce_precision(x, exponent_bits=kind.nexp, mantissa_bits=kind.nmant)
    unit = _unit(x, dtype)
    return _in_range(x, jnp.round(x / unit) * unit, dtype)


@rounded.defjvp
def _rounded_jvp(dtype: Any, primals: Any, tangents: Any) -> Any:
    return rounded(*primals, dtype), tangents[0]


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def rounded_by_chance(x: jax.Array, chance: jax.Array, dtype: Any) -> jax.Array:
    """One of the neighbours of `x` in a narrow dtype, in float32, given a number from [0, 1).

    The farther one with probability its share of the distance; where the nearest is all there is,
    that distance is 0, infinite, or NaN, and the comparison false. The derivative is that of the
    expectation, 1.
    """
    nearest = rounded(x, dtype)
    farther = _farther(x, nearest, dtype)
    return jnp.where(chance * jnp.abs(farther - nearest) < jnp.abs(x - nearest), farther, nearest)


@rounded_by_chance.defjvp
def _by_chance_jvp(dtype: Any, primals: Any, tangents: Any) -> Any:
    return rounded_by_chance(*primals, dtype), tangents[0]


def change(old: jax.Array, new: jax.Array) -> jax.Array:
    """The difference to add to `old` to get `new`: numbers of a narrow dtype, kept in a wider one.

    The sum rounds to `new` even where the difference does not fit: narrow numbers are so much
    coarser. An infinity stays.
    """
    return jnp.where(jnp.isinf(old) & (new == old), 0, new - old)


def of_shard(salt: jax.Array, x: jax.Array) -> jax.Array:
    """The salt, another one for each part of an array that is on several devices."""
    number = number_of_part(x)
    return salt if number is None else salt + mixed(number.astype(jnp.uint32) + 1)


def drawn(a: jax.Array, salt: jax.Array, place: Any) -> jax.Array:
    """A number from [0, 1) for each place of a narrow array, of its bits, the place and `salt`.

    For rounding, which needs no more than that numbers which lie near each other, in the array or
    in time, do not go the same way. It costs a tenth of a random number of `jax.random`, and no
    key.
    """
    layer = number_of_layer()
    if layer is not None:
        salt = salt + mixed(layer)
    salt = of_shard(salt, a)
    at = _places(a.shape, place)
    if a.ndim > 1 and a.shape[-1] == a.shape[-2]:
        # Symmetric matrices, as statistics are, stay symmetric.
        at[-2:] = jnp.minimum(at[-2], at[-1]), jnp.maximum(at[-2], at[-1])
    return (mixed(_numbered(bits(a) + salt, a.shape, at)) >> 8).astype(jnp.float32) * 2**-24


def drawn_bits(shape: tuple[int, ...], salt: jax.Array, place: Any) -> jax.Array:
    """32 random bits for each place of an array, of the place and `salt`."""
    return mixed(_numbered(salt, shape, _places(shape, place)))


def salted(*numbers: Any) -> jax.Array:
    """32 bits of several integers, among which is what differs from step to step."""
    salt = jnp.uint32(0)
    for number in numbers:
        salt = mixed(salt + jnp.asarray(number).astype(jnp.uint32) * jnp.uint32(_GOLDEN))
    return salt


def _places(shape: tuple[int, ...], place: Any) -> list[jax.Array]:
    return [
        jax.lax.broadcasted_iota(jnp.uint32, shape, axis, out_sharding=place)
        for axis in range(len(shape))
    ]


def _numbered(x: jax.Array, shape: tuple[int, ...], at: list[jax.Array]) -> jax.Array:
    """`x` and a multiple of the number of each place."""
    stride = 1
    for index, size in zip(reversed(at), reversed(shape), strict=True):
        x = x + index * jnp.uint32(stride * _GOLDEN % 2**32)
        stride *= size
    return x


def bits(x: jax.Array) -> jax.Array:
    """The bits of each number, as an integer of 32."""
    return jax.lax.bitcast_convert_type(x, _bits(x.dtype)).astype(jnp.uint32)


def mixed(x: jax.Array) -> jax.Array:
    """A bijection of 32 bits in which every bit depends on all of them (that of MurmurHash3)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


_GOLDEN = 0x9E3779B1  # 2^32 over the golden ratio: multiples of it are spread evenly


def _bits(dtype: Any) -> Any:
    return jnp.dtype(f"uint{jnp.finfo(dtype).bits}")


def _unit(x: jax.Array, dtype: Any) -> jax.Array:
    """The distance between the numbers of a narrow dtype where `x` is.

    A power of two, and a normal number of the dtype of `x`, whose exponents reach farther.
    """
    kind = jnp.finfo(dtype)
    return jnp.maximum(power_below(x), float(kind.tiny)) * 2.0**-kind.nmant


def _in_range(x: jax.Array, near: jax.Array, dtype: Any) -> jax.Array:
    """A number near `x`, or beyond the largest what this dtype has there: infinity or NaN."""
    with np.errstate(all="ignore"):
        beyond = float(np.array(np.inf, dtype))
    return jnp.where(jnp.abs(near) <= float(jnp.finfo(dtype).max), near, x * beyond)


def _farther(x: jax.Array, nearest: jax.Array, dtype: Any) -> jax.Array:
    """The neighbour of `x` on its other side, if `x` is between two."""
    if jnp.finfo(dtype).nexp < jnp.finfo(jnp.float32).nexp:
        unit = _unit(x, dtype)
        down, up = jnp.floor(x / unit) * unit, jnp.ceil(x / unit) * unit
        return _in_range(x, jnp.where(nearest > x, down, up), dtype)
    code = jax.lax.bitcast_convert_type(cast(nearest, dtype), _bits(dtype))
    # Numbers of one sign are in the order of their bits.
    code = jnp.where(jnp.abs(x) > jnp.abs(nearest), code + 1, code - 1)
    return cast(jax.lax.bitcast_convert_type(code, dtype), jnp.float32)
