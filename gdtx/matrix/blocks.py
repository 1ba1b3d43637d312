"""Arrays cut into blocks, and equal blocks of many arrays put together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._numerics import cast, compute_dtype
from .._tree import PyTree

Blocks = dict[str, jax.Array]


class Part(NamedTuple):
    """Equal blocks that lie side by side in an array, after its small dimensions are merged.

    On every axis there are `counts` blocks of `sizes` each, the first of them at `starts`.
    """

    leaf: int
    dims: tuple[int, ...]
    starts: tuple[int, ...]
    counts: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def region(self) -> tuple[slice, ...]:
        extents = zip(self.starts, self.counts, self.sizes, strict=True)
        return tuple(slice(start, start + count * size) for start, count, size in extents)

    @property
    def is_whole(self) -> bool:
        return self.dims == tuple(c * s for c, s in zip(self.counts, self.sizes, strict=True))


def groups(
    tree: PyTree, block_size: int, merge_size: int = 0, stacked: bool = True
) -> dict[str, list[Part]]:
    """The parts of all arrays of a tree, those that can be stacked under one name."""
    found: dict[str, list[Part]] = {}
    for i, (path, leaf) in enumerate(jax.tree_util.tree_flatten_with_path(tree)[0]):
        if leaf.size == 0:
            continue
        own = "" if stacked else jax.tree_util.keystr(path, simple=True, separator="/") + " "
        for part in parts(i, leaf.shape, block_size, merge_size):
            found.setdefault(own + _name(part), []).append(part)
    return dict(sorted(found.items()))


def parts(leaf: int, shape: tuple[int, ...], block_size: int, merge_size: int) -> list[Part]:
    """An array as whole blocks, and the rests at the ends of its axes."""
    dims = merged(shape, merge_size)
    axes = []
    for dim in dims:
        size = min(dim, block_size)
        count, rest = divmod(dim, size)
        axes.append([(0, count, size)] + [(count * size, 1, rest)] * bool(rest))
    return [Part(leaf, dims, *zip(*choice, strict=True)) for choice in itertools.product(*axes)]


def merged(shape: tuple[int, ...], merge_size: int) -> tuple[int, ...]:
    """The shape with neighbouring axes merged, from the first on, while their product is small."""
    dims: list[int] = []
    for dim in shape:
        if dims and dims[-1] * dim <= merge_size:
            dims[-1] *= dim
        else:
            dims.append(dim)
    return tuple(dims) or (1,)


def stack(tree: PyTree, layout: dict[str, list[Part]]) -> Blocks:
    """The blocks of a tree, in at least float32."""
    leaves = jax.tree.leaves(tree)
    return {name: _stacked(leaves, members) for name, members in layout.items()}


def unstack(
    stacks: Blocks, layout: dict[str, list[Part]], like: PyTree, count: jax.Array | None = None
) -> PyTree:
    """The tree with these blocks, each array in its own precision, which is at least float32.

    `count` is any number of which the compiler knows no more than that it is an integer.
    """
    most = max(map(len, layout.values()), default=0)
    places = list(range(most)) if count is None or most < _MANY else _unknown_places(most, count)
    leaves, structure = jax.tree.flatten(like)
    leaves = [cast(leaf, compute_dtype(leaf.dtype)) for leaf in leaves]
    for name, members in layout.items():
        for i, part in enumerate(members):
            leaf = leaves[part.leaf]
            # At a place that is known, every array would be read by a kernel of its own, to be
            # compiled; where the place is data, one kernel reads them all.
            block = jax.lax.dynamic_index_in_dim(stacks[name], places[i], keepdims=False)
            region = _joined(block, part).astype(leaf.dtype)
            if not part.is_whole:
                region = leaf.reshape(part.dims).at[part.region].set(region)
            leaves[part.leaf] = region.reshape(leaf.shape)
    return structure.unflatten(leaves)


_MANY = 8


def _unknown_places(n: int, count: jax.Array) -> list[jax.Array]:
    """The numbers from 0 on, kept from a compiler that would fold them: on CPUs, where every kernel
    takes a while. It folds all but what a branch returns; both branches are the same."""

    def numbers(*_: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(jnp.asarray(i, jnp.int32) for i in range(n))

    def hidden(count: jax.Array) -> tuple[jax.Array, ...]:
        return jax.lax.cond(count >= 0, numbers, numbers)

    return list(jax.lax.platform_dependent(count, cpu=hidden, default=numbers))


def order(x: jax.Array) -> int:
    """Of a stack: how many axes its blocks have."""
    return (x.ndim - 1) // 2


def together(
    f: Callable[..., Any], batch_size: int, *columns: list[jax.Array]
) -> list[tuple[jax.Array, ...]]:
    """`f` of stacks of matrices, which returns a tuple of arrays with one entry for each matrix.

    Matrices of equal size are put together, from whatever stacks, but for those of arrays that are
    cut into several blocks, which may be on several devices. About `batch_size` matrices are worked
    on at a time; what `f` needs beside its results is then that of as many, or of all blocks of one
    array if these are more.
    """
    places: dict[Any, list[int]] = {}
    for i, stack in enumerate(columns[0]):
        grid, size = stack.shape[1:-2], stack.shape[-2:]
        is_cut = math.prod(grid) > 1
        places.setdefault((i if is_cut else None, size), []).append(i)
    results: list[Any] = [None] * len(columns[0])
    for members in places.values():
        stacks = [[column[i] for i in members] for column in columns]
        if len(members) > 1:
            stacks = [[x.reshape(-1, *_last(x)) for x in each] for each in stacks]
            stacks = [[jnp.concatenate(each)] for each in stacks]
        whole = _bounded(f, batch_size, *(each[0] for each in stacks))
        start = 0
        for i in members:
            lead = columns[0][i].shape[:-2]
            end = start + lead[0]
            results[i] = tuple(
                x[start:end].reshape(*lead, *x.shape[1:]) if len(members) > 1 else x for x in whole
            )
            start = end
    return results


def _last(x: jax.Array) -> tuple[int, ...]:
    return x.shape[-2:]


def _bounded(f: Callable[..., Any], batch_size: int, first: jax.Array, *others: jax.Array) -> Any:
    at_once = max(1, batch_size // math.prod(first.shape[1:-2]))
    n = len(first)
    if n <= at_once:
        return f(first, *others)
    # In equal batches if that makes them not much smaller: a rest is a program of its own.
    equal = max(size for size in range(1, at_once + 1) if n % size == 0)
    at_once = equal if 2 * equal >= at_once else at_once

    def one(arrays: tuple[jax.Array, ...]) -> Any:
        return jax.tree.map(lambda x: x[0], f(*(x[None] for x in arrays)))

    return jax.lax.map(one, (first, *others), batch_size=at_once)


def _name(part: Part) -> str:
    sizes, counts = ("x".join(map(str, numbers)) for numbers in (part.sizes, part.counts))
    return sizes if set(part.counts) == {1} else f"{counts} of {sizes}"


def _stacked(leaves: list[jax.Array], members: list[Part]) -> jax.Array:
    dtype = compute_dtype(*(leaves[part.leaf].dtype for part in members))
    return jnp.stack([cast(_cut(leaves[part.leaf], part), dtype) for part in members])


def _cut(x: jax.Array, part: Part) -> jax.Array:
    region = x.reshape(part.dims)
    if not part.is_whole:
        region = region[part.region]
    k = len(part.sizes)
    if set(part.counts) == {1}:
        return region.reshape(*part.counts, *part.sizes)
    pairs = itertools.chain(*zip(part.counts, part.sizes, strict=True))
    return jnp.transpose(region.reshape(*pairs), [*range(0, 2 * k, 2), *range(1, 2 * k, 2)])


def _joined(blocks: jax.Array, part: Part) -> jax.Array:
    k = len(part.sizes)
    extent = [c * s for c, s in zip(part.counts, part.sizes, strict=True)]
    if set(part.counts) == {1}:
        return blocks.reshape(extent)
    return jnp.transpose(blocks, [axis + half for axis in range(k) for half in (0, k)]).reshape(
        extent
    )
