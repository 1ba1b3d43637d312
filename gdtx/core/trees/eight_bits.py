"""Arrays of a state that are kept in eight bits a number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from ..numbers.eight_bits import blocks_of, decode, encode
from ..numbers.narrow import drawn_bits, of_shard
from .dispatch import one_program
from .sharding import (
    MaybeSharding,
    reshard,
    shard_count,
    shard_like,
    shard_like_if_explicit,
    sharded_zeros,
    sharding_of,
    spec_of,
    with_spec,
)
from .short import in_short
from .tree import PyTree


@in_short
class EightBits(NamedTuple):
    """An array in eight bits a number: codes in its shape, and the exponents of its blocks.

    The axes of the exponents are the first of the array's and one that counts blocks along the
    others, which are of one length. :func:`gdtx.find` gives the numbers.
    """

    codes: Any
    exponents: Any


def is_stored(node: Any) -> bool:
    """Whether this is an array in eight bits."""
    return isinstance(node, EightBits)


def first_stored(x: jax.Array, salt: jax.Array, block: int, is_zero: bool) -> EightBits:
    """A new array in eight bits, sharded as it is; of zeros without looking at them."""
    lead, count = blocks_of(x.shape, block)
    like = EightBits(
        jax.ShapeDtypeStruct(x.shape, jnp.uint8),
        jax.ShapeDtypeStruct((*x.shape[:lead], count), jnp.int16),
    )
    places = EightBits(where := sharding_of(x), exponents_sharding(where, like))
    zeros = EightBits(*(
        sharded_zeros(each.shape, each.dtype, place, x)
        for each, place in zip(like, places, strict=True)
    ))  # fmt: skip
    if is_zero:
        return zeros
    # Behind a barrier, because compilers would spend seconds on what is constant.
    coded = shard_like(zeros, _coded, jax.lax.optimization_barrier(x), salt, lead, count)
    return EightBits(*map(reshard, coded, places))


def stored_like(old: EightBits, x: jax.Array, salt: jax.Array) -> EightBits:
    """An array in eight bits, in place of an old one."""
    lead, count = old.exponents.ndim - 1, old.exponents.shape[-1]
    return shard_like(old, _coded, x, salt, lead, count)


def restored(node: EightBits) -> jax.Array:
    """The numbers, in float32."""
    return shard_like_if_explicit(node.codes, decode, *node)


def read(tree: PyTree) -> PyTree:
    """A tree that was taken out of a state, with numbers in place of all that is in eight bits."""
    if not any(map(is_stored, jax.tree.leaves(tree, is_stored))):
        return tree
    arrays = jax.tree.leaves(tree)
    if all(isinstance(x, jax.Array) for x in arrays):
        return _read(tree)
    is_structs = all(isinstance(x, jax.ShapeDtypeStruct) for x in arrays)
    return jax.eval_shape(_restored, tree) if is_structs else tree


def _restored(tree: PyTree) -> PyTree:
    return map_stored(restored, tree)


_read = one_program(_restored)


def map_stored(f: Callable[[EightBits], Any], tree: PyTree) -> PyTree:
    """The tree, with what `f` makes of each array in eight bits in its place.

    The codes are in the box in which the array was, if it was in one.
    """

    def mapped(node: Any) -> Any:
        if not is_stored(node):
            return node
        exponents = jax.tree.leaves(node.exponents)[0]
        return jax.tree.map(lambda codes: f(EightBits(codes, exponents)), node.codes)

    return jax.tree.map(mapped, tree, is_leaf=is_stored)


def _coded(x: jax.Array, salt: jax.Array, lead: int, count: int) -> EightBits:
    bits = drawn_bits(x.shape, of_shard(salt, x), None)
    return EightBits(*encode(x, bits, lead, count))


def exponents_sharding(where: MaybeSharding, like: EightBits) -> MaybeSharding:
    """Where the exponents are if the codes are here: cut as the blocks are, if none is split."""
    if not isinstance(where, NamedSharding):
        return where
    lead, count, shape = like.exponents.ndim - 1, like.exponents.shape[-1], like.codes.shape
    spec = spec_of(where, len(shape))
    along, *within = spec[lead:] or [None]
    shards = 1 if along is None else shard_count(where, along)
    if any(within) or math.prod(shape[lead:]) % count or count % shards:
        return with_spec(where, spec[:lead], lead + 1)
    # In the words of the array's, in which programs return them.
    return NamedSharding(where.mesh, PartitionSpec(*[*spec[:lead], along][: len(where.spec)]))
