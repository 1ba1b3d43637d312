"""Shardings: what is known of them, new arrays that have one, results that keep theirs.

On an explicit mesh the sharding of an array is part of its type, on an automatic one the compiler
chooses where nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ..calls.call import merge, split
from ..numbers.values import is_array
from .tree import statistic_like, varying_like

MaybeSharding = Any
"""A sharding, or None where nothing is known or said about it."""


def sharding_of(x: Any) -> MaybeSharding:
    """Where an array is, as far as can be known: committed, or on an explicit mesh."""
    if isinstance(x, Tracer):
        sharding = jax.typeof(x).sharding
        return sharding if _explicit(sharding) else None
    return x.sharding if isinstance(x, jax.Array) and x.committed else None


def common_sharding(shardings: Sequence[MaybeSharding], ndim: int) -> MaybeSharding:
    """The sharding that these have in common: axes on which they differ are not sharded."""
    first = shardings[0]
    if not isinstance(first, NamedSharding):
        return first
    specs = [spec_of(each, ndim) for each in shardings]
    agreed = [
        entries[0] if all(entry == entries[0] for entry in entries) else None
        for entries in zip(*specs, strict=True)
    ]
    return with_spec(first, agreed, ndim)


def spec_of(where: MaybeSharding, ndim: int) -> list[Any]:
    """The mesh axes of each axis of an array."""
    spec = list(where.spec) if isinstance(where, NamedSharding) else []
    return [*spec, *[None] * (ndim - len(spec))]


def with_spec(like: NamedSharding, spec: Sequence[Any], ndim: int) -> NamedSharding:
    """Another spec on the same mesh, in its memory, in the words of what a program returns, so that
    it compares equal: an explicit mesh speaks of every axis, an automatic one up to the last that
    is cut."""
    entries = list(spec)
    while entries and entries[-1] is None:
        entries.pop()
    if _explicit(like):
        entries += [None] * (ndim - len(entries))
    return NamedSharding(like.mesh, PartitionSpec(*entries), memory_kind=like.memory_kind)


def shard_count(where: NamedSharding, entry: Any) -> int:
    """In how many parts an axis with this entry in its spec is cut."""
    names = entry if isinstance(entry, tuple) else (entry,)
    return math.prod(where.mesh.shape[name] for name in names)


def leading_sharding(x: Any, ndim: int, total: int) -> MaybeSharding:
    """Where to keep an array of `total` axes whose first `ndim` are those of `x`."""
    where = sharding_of(x)
    if not isinstance(where, NamedSharding):
        return where
    return with_spec(where, spec_of(where, x.ndim)[:ndim], total)


def sharded_zeros(shape: tuple[int, ...], dtype: Any, where: MaybeSharding, like: Any) -> jax.Array:
    """Zeros, made where they belong, for what will be of numbers like these."""
    return varying_like(like, jnp.zeros(shape, dtype, device=where))


def reshard(x: jax.Array, where: MaybeSharding) -> jax.Array:
    """`x`, there."""
    if where is None:
        return x
    if isinstance(where, NamedSharding) and _explicit(where) and isinstance(x, Tracer):
        return jax.sharding.reshard(x, where)
    return jax.device_put(x, where)


def replicate(x: jax.Array) -> jax.Array:
    """The array, all of it on every device of its mesh."""
    mesh = jax.typeof(x).sharding.mesh
    # Without tracing there is no choice that a compiler could make instead.
    if not isinstance(x, Tracer) or AxisType.Auto not in mesh.axis_types:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec()))


def spread_sharding(x: jax.Array, ndim: int) -> NamedSharding | None:
    """How to deal out an array along its first axes: each, but for the first, over a mesh axis.

    None if there is no mesh for the compiler to choose on, or nothing that can be dealt out.
    """
    mesh = jax.typeof(x).sharding.mesh
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    free = [name for name, kind in kinds if kind == AxisType.Auto and mesh.shape[name] > 1]
    spec: list[Any] = [None] * ndim
    for i, size in enumerate(x.shape[1:ndim], 1):
        spec[i] = next((name for name in free if size % mesh.shape[name] == 0), None)
        free = [name for name in free if name != spec[i]]
    if not isinstance(x, Tracer) or not any(spec):
        return None
    return NamedSharding(mesh, PartitionSpec(*spec))


def map_shards(where: NamedSharding, f: Callable[..., Any], *args: jax.Array) -> Any:
    """`f` on each device of its own part of arrays that are dealt out so, as its results are."""
    mesh = where.mesh
    names = {name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
             if kind == AxisType.Auto}  # fmt: skip
    return jax.shard_map(f, mesh=mesh, in_specs=where.spec, out_specs=where.spec, axis_names=names)(
        *args
    )


def layered_zeros(like: jax.Array, n: int, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Zeros of this shape for each layer along so many axes of an array, where the layer is; of
    one array, all of them on each of its devices."""
    if not n:
        return jnp.broadcast_to(statistic_like(like, 0, dtype), shape)
    whole = (*like.shape[:n], *shape)
    return sharded_zeros(whole, dtype, leading_sharding(like, n, len(whole)), like)


def shard_like_if_explicit(likes: Any, f: Callable[..., Any], *args: Any) -> Any:
    """`f(*args)`, on explicit meshes each array of the result sharded as the one in `likes`, a tree
    of the same structure.

    Every operation would have to say there where its result is; so inside of `f` the compiler
    chooses. Arrays that `f` closes over cannot be used inside then: all have to be among `args`.
    """
    axes = _explicit_among(likes, args)
    if not axes:
        return f(*args)
    arrays, layout = split(args, is_array)

    def of_arrays(*arrays: jax.Array) -> Any:
        return f(*merge(arrays, layout))

    specs = jax.tree.map(lambda x: jax.typeof(x).sharding.spec, likes)
    return jax.sharding.auto_axes(of_arrays, axes=axes, out_sharding=specs)(*arrays)


def shard_like(likes: Any, f: Callable[..., Any], *args: Any) -> Any:
    """The same on all meshes.

    Else the compiler would choose, and a state that moves at its first update compiles a second.
    """
    result = shard_like_if_explicit(likes, f, *args)
    if _explicit_among(likes, args):
        return result
    return jax.tree.map(sharded_like, result, likes)


def sharded_like(new: Any, like: Any) -> Any:
    """`new`, which the compiler is to shard as it does `like`.

    It does so with what it selects from, and this is a choice between the two that only we know.
    One device has nothing to shard, and does not pay for reading `like`.
    """
    if new.ndim == 0 or new.shape != like.shape or not isinstance(new, Tracer):
        return new
    if jax.device_count() == 1:
        return new
    real = jnp.real if jnp.iscomplexobj(like) and not jnp.iscomplexobj(new) else lambda x: x
    always = jax.lax.optimization_barrier(jnp.array(True))
    return jnp.where(always, new, real(like).astype(new.dtype))


def known_shardings(tree: Any) -> tuple[MaybeSharding, ...] | None:
    """The shardings on automatic meshes that concrete arrays have, for :func:`constrain`.

    None if there is nothing to keep: then no program depends on them.
    """
    if jax.device_count() == 1:
        return None
    found = tuple(map(_automatic, jax.tree.leaves(tree)))
    return found if any(found) else None


def constrain(tree: Any, likes: Any, shardings: tuple[MaybeSharding, ...] | None) -> Any:
    """The tree, its arrays with these shardings of the arrays in `likes`, a tree like it."""
    leaves, structure = jax.tree.flatten(tree)
    if shardings is None or structure != jax.tree.structure(likes):
        return tree
    return structure.unflatten(
        x if where is None or x.shape != like.shape else jax.lax.with_sharding_constraint(x, where)
        for x, like, where in zip(leaves, jax.tree.leaves(likes), shardings, strict=True)
    )


def _automatic(x: Any) -> MaybeSharding:
    where = sharding_of(x)
    return where if isinstance(where, NamedSharding) and not _explicit(where) else None


def _explicit_among(*trees: Any) -> tuple[str, ...]:
    arrays = filter(is_array, jax.tree.leaves(trees))
    return tuple({name for x in arrays for name in _explicit(jax.typeof(x).sharding)})


def _explicit(sharding: Any) -> list[str]:
    mesh = getattr(sharding, "mesh", None)
    if mesh is None:
        return []
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return [name for name, kind in kinds if kind == AxisType.Explicit]
