"""Blocks of arrays that are cut over a mesh, moved to the devices that work on them, and back.

A device has a strip of each array, all numbers at some places of one axis. It cuts the strip into
pieces, the parts of blocks, and sends each to the device of its block, all in one all-to-all for
each shape of blocks. Which piece goes where is known when the program is made, and is in tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ...core.numbers.numerics import cast, compute_dtype
from ...core.trees.dealing import Dealer, alike, dealer
from ...core.trees.sharding import MaybeSharding, sharding_of, with_spec
from ...core.trees.tree import PyTree
from ...linalg.batches import runtime_places
from .blocks import Part, Stacks, times
from .strips import Layout, count, cut_leaves, strip_axis, tables


def receivers(tree: PyTree) -> Dealer | None:
    """To which devices the blocks of a tree are dealt; None if they stay, or there are none."""
    return dealer(tree) if any(x.size for x in jax.tree.leaves(tree)) else None


def dealt_name(part: Part) -> str:
    """Of the stack of these blocks and of all that are cut like them."""
    a = strip_axis(part.dims)
    name = f"{times(part.sizes)} by axis {a}" if len(part.dims) > 1 else times(part.sizes)
    return f"layers of {name}" if part.layers else name


def dealt_shape(members: list[Part], to: Dealer) -> tuple[int, ...]:
    """Of the stack of these blocks: the grid of every array is in its first axis."""
    n = sum(math.prod(part.counts) for part in members)
    return (to.padded(n), *_block(members))


def _block(members: list[Part]) -> tuple[int, ...]:
    """The last axes of their stack: those of a grid of one, and those of a block of one layer."""
    sizes = members[0].sizes[1 if members[0].layers else 0 :]
    return (*[1] * len(sizes), *sizes)


def dealt_sharding(like: list[jax.Array], ndim: int, to: Dealer) -> MaybeSharding:
    """Of new arrays of so many axes, beside these, that are dealt along the first."""
    # As programs return it: of one axis the name alone.
    names = to.names if to.names[1:] else next(iter(to.names))
    known = [where for where in map(sharding_of, like) if isinstance(where, NamedSharding)]
    if known:
        return with_spec(known[0], [names], ndim)
    # What is traced without a sharding the compiler places, and a type's mesh has no devices.
    if not isinstance(to.mesh, Mesh) or any(isinstance(x, Tracer) for x in like):
        return None
    return with_spec(NamedSharding(to.mesh, PartitionSpec()), [names], ndim)


def move_in(tree: PyTree, layout: Layout, to: Dealer) -> Stacks:
    """The blocks of arrays in stacks that are dealt, in at least float32, zeros after the last."""
    leaves, cut = jax.tree.leaves(tree), cut_leaves(layout, to.devices)
    equal = _equal(tree, layout)

    def local(strips: list[jax.Array]) -> Stacks:
        here = {}
        for members, stack in zip(equal.values(), strips, strict=True):
            here |= {i: stack[place] for place, i in enumerate(members)}
        return {name: _stack(here, members, cut, to) for name, members in layout.items()}

    arrays, specs = [], []
    for (_, dims, _), members in equal.items():
        arrays.append(_free(jnp.stack([leaves[i].reshape(dims) for i in members]), to))
        specs.append(_spec(dims, members[0] in cut, to))
    return _mapped(to, local, specs, PartitionSpec(to.names))(arrays)


def move_out(stacks: Stacks, layout: Layout, like: PyTree, to: Dealer) -> PyTree:
    """The tree with these blocks, each array in its own precision, which is at least float32."""
    leaves, structure = jax.tree.flatten(like)
    cut, equal = cut_leaves(layout, to.devices), _equal(like, layout)

    def local(stacks: Stacks) -> list[jax.Array]:
        strips: dict[int, jax.Array] = {}
        for name, members in layout.items():
            for part, region in _unstack(stacks[name], members, cut, to):
                i, a = part.leaf, strip_axis(part.dims)
                shape = list(part.dims)
                where = list(part.region)
                if i in cut:
                    shape[a] //= to.devices
                    where[a] = slice(None)
                region = region.astype(compute_dtype(leaves[i].dtype))
                if i not in strips:
                    strips[i] = jnp.zeros(shape, region.dtype)
                if region.shape == tuple(shape) and part.is_whole:
                    strips[i] = region
                else:
                    # The rest along the axis of the strips is elsewhere: there it has zeros.
                    strips[i] = strips[i].at[tuple(where)].add(region)
        return [jnp.stack([strips[i] for i in members]) for members in equal.values()]

    specs = [_spec(dims, members[0] in cut, to) for (_, dims, _), members in equal.items()]
    found = _mapped(to, local, PartitionSpec(to.names), specs)(stacks)
    new = [cast(x, compute_dtype(x.dtype)) for x in leaves]
    for members, stack in zip(equal.values(), found, strict=True):
        free = _free(stack, to)
        for place, i in enumerate(members):
            new[i] = free[place].reshape(leaves[i].shape)
    return structure.unflatten(new)


def _equal(tree: PyTree, layout: Layout) -> dict[tuple[Any, ...], list[int]]:
    """Arrays that go to strips and back together: of one shape, and most often cut alike."""
    names, found = alike(tree), {}
    leaves = jax.tree.leaves(tree)
    dims = {part.leaf: part.dims for members in layout.values() for part in members}
    for i in sorted(dims):
        key = names and names[i], dims[i], leaves[i].dtype
        found.setdefault(key, []).append(i)
    return found


def _free(stack: jax.Array, to: Dealer) -> jax.Array:
    """Whole along its first axis, and along the others as the compiler finds best."""
    spec = PartitionSpec(None, *[PartitionSpec.UNCONSTRAINED] * (stack.ndim - 1))
    return jax.lax.with_sharding_constraint(stack, NamedSharding(to.mesh, spec))


def _stack(
    strips: dict[int, jax.Array], members: list[Part], cut: frozenset[int], to: Dealer
) -> jax.Array:
    t, me = tables(tuple(members), cut, to.devices), jax.lax.axis_index(to.names)
    dtypes = {strips[part.leaf].dtype for part in members}
    dtype = compute_dtype(*dtypes)
    moved = next(iter(dtypes)) if len(dtypes) == 1 else dtype
    pieces: dict[bool, list[jax.Array]] = {True: [], False: []}
    for part in members:
        is_cut = part.leaf in cut
        pieces[is_cut].append(_split(strips[part.leaf].astype(moved), part, is_cut, t.piece))
    found = pieces[False]
    if pieces[True]:
        sent = _take(jnp.concatenate(pieces[True]), t.sent, me)
        there = jax.lax.all_to_all(sent, to.names, 0, 0)
        found = [there.reshape(-1, *t.piece), *found]
    blocks = _take(jnp.concatenate(found), t.arrived, me)
    a = strip_axis(members[0].dims)
    blocks = jnp.moveaxis(blocks, 1, 1 + a).reshape(len(blocks), *_block(members))
    return cast(blocks, dtype)


def _unstack(
    blocks: jax.Array, members: list[Part], cut: frozenset[int], to: Dealer
) -> list[tuple[Part, jax.Array]]:
    t, me = tables(tuple(members), cut, to.devices), jax.lax.axis_index(to.names)
    sizes, a = members[0].sizes, strip_axis(members[0].dims)
    split = [len(blocks), *sizes[:a], sizes[a] // t.piece[a], *t.piece[a:]]
    pieces = jnp.moveaxis(blocks.reshape(split), 1 + a, 1).reshape(-1, *t.piece)
    pools = {}
    if any(part.leaf in cut for part in members):
        there = jax.lax.all_to_all(_take(pieces, t.returned, me), to.names, 0, 0)
        pools[True] = _take(there.reshape(-1, *t.piece), t.received, me)
    if any(part.leaf not in cut for part in members):
        pools[False] = jax.lax.psum(_take(pieces, t.shared, me), to.names)
    starts, ends = [], {True: 0, False: 0}
    for part in members:
        starts.append(ends[part.leaf in cut])
        ends[part.leaf in cut] += count(part, part.leaf in cut, t.piece, to.devices)
    found = []
    for part, start in zip(members, runtime_places(starts, me), strict=True):
        is_cut = part.leaf in cut
        n = count(part, is_cut, t.piece, to.devices)
        own = jax.lax.dynamic_slice_in_dim(pools[is_cut], start, n)
        found.append((part, _join(own, part, t.piece)))
    return found


def _split(strip: jax.Array, part: Part, is_cut: bool, piece: tuple[int, ...]) -> jax.Array:
    """The pieces of a strip: in order of the axis of strips, then of the blocks on the others."""
    a, k = strip_axis(part.dims), len(part.dims)
    where = [slice(None) if is_cut and i == a else s for i, s in enumerate(part.region)]
    strip = strip[tuple(where)]
    pairs = [n for d, size in zip(strip.shape, piece, strict=True) for n in (d // size, size)]
    first = [2 * a, *(2 * i for i in range(k) if i != a)]
    x = jnp.transpose(strip.reshape(pairs), [*first, *range(1, 2 * k, 2)])
    return x.reshape(-1, *piece)


def _join(pieces: jax.Array, part: Part, piece: tuple[int, ...]) -> jax.Array:
    """What was split so."""
    a, k = strip_axis(part.dims), len(part.dims)
    counts = [part.counts[i] for i in range(k) if i != a]
    x = pieces.reshape(-1, *counts, *piece)
    order = [0 if i == a else 1 + i - (i > a) for i in range(k)]
    x = jnp.transpose(x, [axis for i in range(k) for axis in (order[i], k + i)])
    return x.reshape([n * size for n, size in zip(x.shape[::2], x.shape[1::2], strict=True)])


def _take(pieces: jax.Array, table: np.ndarray, me: jax.Array) -> jax.Array:
    return pieces.at[jnp.asarray(table)[me]].get(mode="fill", fill_value=0)


def _spec(dims: tuple[int, ...], is_cut: bool, to: Dealer) -> PartitionSpec:
    a = strip_axis(dims)
    strips = (to.names if is_cut and i == a else None for i in range(len(dims)))
    return PartitionSpec(None, *strips)


def _mapped(to: Dealer, f: Callable[..., Any], in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    kinds = zip(to.mesh.axis_names, to.mesh.axis_types, strict=True)
    names = frozenset(name for name, kind in kinds if kind != AxisType.Manual)
    # Its one argument is a tree.
    return jax.shard_map(
        f, mesh=to.mesh, in_specs=(in_specs,), out_specs=out_specs, axis_names=names
    )
