"""Arrays cut into blocks, and equal blocks of many arrays put together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ...core.numbers.numerics import cast, compute_dtype
from ...core.trees.stacking import stacked_axes
from ...core.trees.tree import PyTree
from ...linalg.batches import runtime_places

Stacks = dict[str, jax.Array]


class Part(NamedTuple):
    """Equal blocks that lie side by side in an array, after its small dimensions are merged.

    On every axis there are `counts` blocks of `sizes` each, the first of them at `starts`. Of an
    array of layers they are those of each, along its first axes, which are as long as `layers`.
    """

    leaf: int
    layers: tuple[int, ...]
    dims: tuple[int, ...]
    starts: tuple[int, ...]
    counts: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def arrays(self) -> int:
        """How many arrays have these blocks: the layers, or one."""
        return math.prod(self.layers)

    @property
    def region(self) -> tuple[slice, ...]:
        extents = zip(self.starts, self.counts, self.sizes, strict=True)
        return tuple(slice(start, start + count * size) for start, count, size in extents)

    @property
    def with_layers(self) -> Part:
        """The same, with the layers along a first axis whose blocks are as long as one."""
        n = self.arrays
        inner = self.dims, self.starts, self.counts, self.sizes
        dims, starts, counts, sizes = (
            (first, *rest) for first, rest in zip((n, 0, n, 1), inner, strict=True)
        )
        return Part(self.leaf, self.layers, dims, starts, counts, sizes)

    @property
    def is_whole(self) -> bool:
        return self.dims == tuple(c * s for c, s in zip(self.counts, self.sizes, strict=True))


def groups(
    tree: PyTree,
    block_size: int,
    merge_size: int = 0,
    stacked: bool = True,
    name_of: Callable[[Part], str] | None = None,
) -> dict[str, list[Part]]:
    """The parts of all arrays of a tree, those that can be stacked under one name.

    That is what `name_of` makes of them, then with layers, or the shape of the blocks and how many
    there are.
    """
    found: dict[str, list[Part]] = {}
    axes = stacked_axes(tree)
    for i, (path, leaf) in enumerate(jax.tree_util.tree_flatten_with_path(tree)[0]):
        if leaf.size == 0:
            continue
        n = axes[i]
        own = "" if stacked else jax.tree_util.keystr(path, simple=True, separator="/") + " "
        for part in parts(i, leaf.shape[:n], leaf.shape[n:], block_size, merge_size):
            if name_of is not None and part.layers:
                part = part.with_layers
            name = _name(part) if name_of is None else name_of(part)
            found.setdefault(own + name, []).append(part)
    return dict(sorted(found.items()))


def parts(
    leaf: int,
    layers: tuple[int, ...],
    shape: tuple[int, ...],
    block_size: int,
    merge_size: int,
) -> list[Part]:
    """An array as whole blocks, and the rests at the ends of its axes."""
    dims = merged(shape, merge_size)
    axes = []
    for dim in dims:
        size = min(dim, block_size)
        count, rest = divmod(dim, size)
        axes.append([(0, count, size)] + [(count * size, 1, rest)] * bool(rest))
    return [
        Part(leaf, layers, dims, *zip(*choice, strict=True)) for choice in itertools.product(*axes)
    ]


def merged(shape: tuple[int, ...], merge_size: int) -> tuple[int, ...]:
    """The shape with neighbouring axes merged, from the first on, while their product is small."""
    dims: list[int] = []
    for dim in shape:
        if dims and dims[-1] * dim <= merge_size:
            dims[-1] *= dim
        else:
            dims.append(dim)
    return tuple(dims) or (1,)


def stack(tree: PyTree, layout: dict[str, list[Part]]) -> Stacks:
    """The blocks of a tree, in at least float32."""
    leaves = jax.tree.leaves(tree)
    return {name: _stacked(leaves, members) for name, members in layout.items()}


def unstack(
    stacks: Stacks, layout: dict[str, list[Part]], like: PyTree, count: jax.Array | None = None
) -> PyTree:
    """The tree with these blocks, each array in its own precision, which is at least float32.

    `count` is any integer that the compiler does not know.
    """
    longest = max(map(arrays_of, layout.values()), default=0)
    places = runtime_places(list(range(longest)), count)
    leaves, structure = jax.tree.flatten(like)
    leaves = [cast(leaf, compute_dtype(leaf.dtype)) for leaf in leaves]
    for name, members in layout.items():
        starts = itertools.accumulate((part.arrays for part in members), initial=0)
        for start, part in zip(starts, members, strict=False):
            leaf, first = leaves[part.leaf], places[start]
            blocks = jax.lax.dynamic_slice_in_dim(stacks[name], first, part.arrays)
            region = _joined(blocks, part).astype(leaf.dtype)
            if not part.is_whole:
                whole = leaf.reshape(part.arrays, *part.dims)
                region = whole.at[:, *part.region].set(region)
            leaves[part.leaf] = region.reshape(leaf.shape)
    return structure.unflatten(leaves)


def arrays_of(members: list[Part]) -> int:
    """How many arrays there are in the stack of these parts."""
    return sum(part.arrays for part in members)


def order(x: jax.Array) -> int:
    """Of a stack: how many axes its blocks have."""
    return (x.ndim - 1) // 2


def times(numbers: tuple[int, ...]) -> str:
    return "x".join(map(str, numbers))


def _name(part: Part) -> str:
    sizes = times(part.sizes)
    return sizes if set(part.counts) == {1} else f"{times(part.counts)} of {sizes}"


def _stacked(leaves: list[jax.Array], members: list[Part]) -> jax.Array:
    dtype = compute_dtype(*(leaves[part.leaf].dtype for part in members))
    return jnp.concatenate([cast(_cut(leaves[part.leaf], part), dtype) for part in members])


def _cut(x: jax.Array, part: Part) -> jax.Array:
    """The blocks of each array, one after the other."""
    region = x.reshape(part.arrays, *part.dims)
    if not part.is_whole:
        region = region[:, *part.region]
    k = len(part.sizes)
    if set(part.counts) == {1}:
        return region.reshape(part.arrays, *part.counts, *part.sizes)
    pairs = itertools.chain(*zip(part.counts, part.sizes, strict=True))
    order = [0, *range(1, 2 * k, 2), *range(2, 2 * k + 1, 2)]
    return jnp.transpose(region.reshape(part.arrays, *pairs), order)


def _joined(blocks: jax.Array, part: Part) -> jax.Array:
    k = len(part.sizes)
    extent = [c * s for c, s in zip(part.counts, part.sizes, strict=True)]
    if set(part.counts) != {1}:
        pairs = [1 + axis + half for axis in range(k) for half in (0, k)]
        blocks = jnp.transpose(blocks, [0, *pairs])
    return blocks.reshape(part.arrays, *extent)
