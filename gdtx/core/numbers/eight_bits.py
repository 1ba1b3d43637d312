"""Float32 numbers in eight bits: eight levels an octave, below a power of two that a block shares.

The levels are the numbers with three bits of fraction. They lie where they lie whatever the block's
power of two, which decides only how far down they reach: so a number that stays keeps its code's
value when the largest one moves. A block without negative numbers has 255 levels, over 31.75
octaves, another 127 for each sign, over 15.75.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

_FRACTION = 20  # bits of a float32's fraction that a level has not
_LEVELS = 255
_SIGNED_LEVELS = 127
_SMALLEST = 8  # the level of the smallest normal number; devices take those below it for 0
_LARGEST = (0xFF << 3) - 1
_INFINITE = 0x7F800000
_NAN = 0x7FC00000
_BROKEN = 0x100  # the exponent of a block that is not finite


def blocks_of(shape: tuple[int, ...], block: int, least: int = 128) -> tuple[int, int]:
    """How an array is cut: the number of leading axes that stay, and how many blocks there are
    along the rest.

    The rest are the last axes, as many as it takes to have `least` numbers, or all. Blocks are of
    one length, at most `block`.
    """
    lead = len(shape) - 1
    while lead > 0 and math.prod(shape[lead:]) < least:
        lead -= 1
    lead = max(lead, 0)
    return lead, -(-math.prod(shape[lead:]) // block)


def encode(x: jax.Array, bits: jax.Array, lead: int, count: int) -> tuple[jax.Array, jax.Array]:
    """The codes of numbers, and the exponents of their blocks.

    Args:
        x: numbers in float32.
        bits: as many random integers of 32 bits.
        lead, count: how many axes stay, and the number of blocks along the rest.

    Returns:
        Codes, uint8 in the shape of `x`, and exponents, int16, whose last axis counts blocks.
        Negative is the exponent of a block that has negative numbers, 0 that of one that has none
        but zeros.
    """
    raw = _cut(jax.lax.bitcast_convert_type(x, jnp.uint32), lead, count)
    size = raw & 0x7FFFFFFF
    top, signed = _reduced(size, raw > jnp.uint32(0x80000000))
    # Of the smallest power of two that none exceeds.
    exponent = ((top + 0x7FFFFF) >> 23).astype(jnp.int32)
    base = _base(exponent, signed)
    # Half of the lowest level, where there is a sign: by chance, small numbers would jump.
    half = jnp.maximum(((base + 1) << _FRACTION) - (1 << 23), 1 << 22).astype(jnp.uint32)
    least = jnp.where(signed, half, 1)
    # What is cut off is the share of the distance to the level above, and of as many random
    # numbers it carries into that level.
    level = (size + _cut(bits >> (32 - _FRACTION), lead, count)) >> _FRACTION
    code = jnp.maximum(jnp.minimum(level, _LARGEST).astype(jnp.int32) - base, 1)
    code = code | ((raw >> 24).astype(jnp.int32) & jnp.where(signed, 0x80, 0))
    code = jnp.where(size < least, 0, code).astype(jnp.uint8)
    marked = jnp.where(signed, -exponent, exponent)
    marked = jnp.where(top < _INFINITE, marked, _BROKEN).astype(jnp.int16)
    return _whole(code, x.shape, lead), marked[..., 0]


def decode(code: jax.Array, exponent: jax.Array) -> jax.Array:
    """The numbers, float32, of what :func:`encode` returned."""
    lead = exponent.ndim - 1
    marked = exponent.astype(jnp.int32)[..., None]
    signed = marked < 0
    cut = _cut(code, lead, exponent.shape[-1]).astype(jnp.int32)
    level = jnp.where(signed, cut & 0x7F, cut)
    size = (level + _base(jnp.abs(marked), signed)) << _FRACTION
    sign = jnp.where(signed, cut >> 7, 0) << 31
    raw = jnp.where(level == 0, 0, size | sign) | jnp.where(marked == _BROKEN, _NAN, 0)
    return _whole(jax.lax.bitcast_convert_type(raw, jnp.float32), code.shape, lead)


def _reduced(size: jax.Array, negative: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of each block the largest, and whether any is negative: in one pass, which compilers join to
    what makes the numbers, where of two they would write those down before."""

    def both(one: Any, other: Any) -> Any:
        return jax.lax.max(one[0], other[0]), jax.lax.bitwise_or(one[1], other[1])

    axis = size.ndim - 1
    first = jnp.uint32(0), jnp.array(False)
    top, signed = jax.lax.reduce((size, negative), first, both, (axis,))
    return top[..., None], signed[..., None]


def _base(exponent: jax.Array, signed: jax.Array) -> jax.Array:
    """The level below the lowest, so that the highest is the block's power of two."""
    reach = jnp.where(signed, _SIGNED_LEVELS, _LEVELS)
    return jnp.maximum((exponent << 3) - reach, _SMALLEST - 1)


def _cut(x: jax.Array, lead: int, count: int) -> jax.Array:
    """The array with its last axes cut into so many blocks, with zeros after the last number."""
    kept, length = x.shape[:lead], math.prod(x.shape[lead:])
    width = -(-length // count)
    flat = x.reshape(*kept, length)
    if width * count != length:
        flat = jnp.pad(flat, [(0, 0)] * lead + [(0, width * count - length)])
    return flat.reshape(*kept, count, width)


def _whole(x: jax.Array, shape: tuple[int, ...], lead: int) -> jax.Array:
    """What :func:`_cut` has cut."""
    kept, length = shape[:lead], math.prod(shape[lead:])
    return x.reshape(*kept, -1)[..., :length].reshape(shape)
