"""bfloat16 numbers with eight more bits of fraction beside them.

The bits of both together are those of a float32 without its last eight. The bfloat16 is the nearest
to them, a half up, and what is beside it counts what is missing, from -128 to 127, in 256ths of its
last place; across powers of two too, because numbers follow each other in the order of their bits.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from .numerics import cast


def lengthened(x: jax.Array, extra: jax.Array) -> jax.Array:
    """The float32 of a bfloat16 and the bits beside it."""
    raw = jax.lax.bitcast_convert_type(x, jnp.uint16).astype(jnp.uint32)
    # Below zero is nothing, where someone else has put it beside these bits.
    extra = jnp.where(raw & 0x7FFF == 0, jnp.maximum(extra, 0), extra).astype(jnp.int32)
    raw = (raw << 16) + (extra.astype(jnp.uint32) << 8)
    long = jax.lax.bitcast_convert_type(raw, jnp.float32)
    return jnp.where(jnp.isfinite(x), long, cast(x, jnp.float32))


def shortened_by_chance(x: jax.Array, bits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The bfloat16, and the int8 beside it, of a float32 rounded up or down given random bits."""
    raw = jax.lax.bitcast_convert_type(x, jnp.uint32)
    long = ((raw & 0x7FFFFFFF) + (bits >> 24)) >> 8
    near = (long + 0x80) >> 8
    extra = long.astype(jnp.int32) - (near << 8).astype(jnp.int32)
    short = ((raw >> 16) & 0x8000) | near
    short = jax.lax.bitcast_convert_type(short.astype(jnp.uint16), jnp.bfloat16)
    # Beyond the largest number there is nothing to count.
    is_within = near < 0x7F80
    short = jnp.where(is_within, short, cast(x, jnp.bfloat16))
    return short, jnp.where(is_within, extra, 0).astype(jnp.int8)
