"""Arrays cut into blocks, and equal blocks of many arrays put together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from .._errors import LeafError
from .._kinds import Count, Period
from .._numerics import cast, compute_dtype
from .._rules import walk
from .._transformation import GradientTransformation, transformation
from .._tree import PyTree
from .placement import Placement, common, full, kept_in_place, placement, shards, spec_of

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


@transformation
def blockwise(
    inner: GradientTransformation,
    block_size: Period = 1024,
    merge_size: Count = 0,
    stacked: bool = True,
) -> GradientTransformation:
    r"""Transform arrays block by block, equal blocks of all arrays together.

    Each axis longer than `block_size` is cut into blocks of that size and a shorter rest, before
    which neighbouring axes are merged while their product is at most `merge_size`. Blocks of equal
    shape, at equally many places of their arrays, are stacked, and `inner` sees the tree of stacks
    in place of the tree of arrays. A stack of $n$ arrays of order $k$ has $1 + 2k$ axes: the $n$
    arrays, the $k$ axes of the grid of blocks, and the $k$ axes of a block. So a program has as
    many operations for 48 equal layers as for one, but for moving numbers in and out.

    The layout of the state is that of the stacks. It costs no copy of the state in any step, as
    stacking a state kept by array would, and follows the parameters' sharding: an axis of the grid
    is placed as the parameters' axis if whole blocks are on one device, and not sharded otherwise,
    as if `inner` ran on every device. Steps on blocks that are whole on a device, or of parameters
    that are on every device, need no communication. Arrays of one shape that are sharded in
    different ways are best not stacked, or given to different transformations.

    Args:
        inner: transformation of the stacks.
        block_size: longest side of a block; sides of at most this length are not cut.
        merge_size: neighbouring axes with a product of at most this are merged; 0 merges none.
        stacked: whether equal blocks of different arrays are stacked. If not, every array has its
            own (a stack of one): the same numbers, and a program that grows with the arrays.

    Returns:
        A transformation whose state is that of `inner` on the stacks. Empty arrays pass as they
        are. A 0-d array is a block of shape (1,).

    Raises:
        TypeError: from `update`, for complex updates.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.blockwise(gdtx.trace(0.9), block_size=2)
    >>> state = tx.init({"a": jnp.zeros((4, 3)), "b": jnp.zeros((2, 2))})
    >>> {name: stack.shape for name, stack in gdtx.find(state, "value").items()}
    {'2x1': (1, 2, 1, 2, 1), '2x2': (1, 1, 1, 2, 2), '2x2 of 2x2': (1, 2, 1, 2, 2)}
    """

    def grouped(tree: PyTree) -> dict[str, list[Part]]:
        return groups(tree, block_size, merge_size, stacked)

    def init(params: PyTree) -> PyTree:
        _checked(params)
        leaves = jax.tree.leaves(params)
        return inner.init(
            {name: _placeholder(leaves, members) for name, members in grouped(params).items()}
        )

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, PyTree]:
        _checked(updates)
        layout = grouped(updates)

        def step(updates: PyTree, state: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
            stacks = stack(updates, layout)
            others = None if params is None else stack(params, layout)
            stacks, state = inner.update(stacks, state, others, **extra_args)
            return unstack(stacks, layout, updates), state

        return kept_in_place(step, (updates, state), updates, state, params)

    return GradientTransformation(init, update)


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


def unstack(stacks: Blocks, layout: dict[str, list[Part]], like: PyTree) -> PyTree:
    """The tree with these blocks, each array in its own precision, which is at least float32."""
    leaves, structure = jax.tree.flatten(like)
    leaves = [cast(leaf, compute_dtype(leaf.dtype)) for leaf in leaves]
    for name, members in layout.items():
        for i, part in enumerate(members):
            leaf = leaves[part.leaf]
            region = _joined(stacks[name][i], part).astype(leaf.dtype)
            if not part.is_whole:
                region = leaf.reshape(part.dims).at[part.region].set(region)
            leaves[part.leaf] = region.reshape(leaf.shape)
    return structure.unflatten(leaves)


def order(x: jax.Array) -> int:
    """Of a stack: how many axes its blocks have."""
    return (x.ndim - 1) // 2


def bounded(
    f: Callable[..., Any], batch_size: int, first: jax.Array, *others: jax.Array
) -> Any:
    """`f` of stacks of matrices, those of so many at a time as make about `batch_size` matrices.

    What it needs beside its results is then that of as many matrices, or of one array's blocks if
    these are more.
    """
    at_once = max(1, batch_size // math.prod(first.shape[1:-2]))
    if len(first) <= at_once:
        return f(first, *others)

    def one(arrays: tuple[jax.Array, ...]) -> Any:
        return jax.tree.map(lambda x: x[0], f(*(x[None] for x in arrays)))

    return jax.lax.map(one, (first, *others), batch_size=at_once)


def _checked(tree: PyTree) -> None:
    def check(x: jax.Array) -> None:
        if jnp.iscomplexobj(x):
            raise LeafError(TypeError, "is complex, blocks are of real numbers")

    leaves, structure = jax.tree.flatten(tree)
    walk(check, structure, leaves)


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


def _placeholder(leaves: list[jax.Array], members: list[Part]) -> jax.Array:
    """Zeros where the stack of these parts should be, for an `init` that looks at no number."""
    first = members[0]
    dtype = compute_dtype(*(leaves[part.leaf].dtype for part in members))
    ndim = 1 + 2 * len(first.sizes)
    wheres = [_place(leaves[part.leaf], part, ndim) for part in members]
    shape = (len(members), *first.counts, *first.sizes)
    return full(shape, 0, dtype, common(wheres, ndim))


def _place(x: jax.Array, part: Part, ndim: int) -> Placement:
    where = placement(x)
    if not isinstance(where, NamedSharding):
        return where
    grid: list[Any] = [None] * len(part.dims)
    if part.dims == x.shape:
        for i, entry in enumerate(spec_of(where, x.ndim)):
            is_whole = part.counts[i] * part.sizes[i] == part.dims[i]
            if entry is not None and is_whole and part.counts[i] % shards(where, entry) == 0:
                grid[i] = entry
    rest = [None] * (ndim - 1 - len(grid))
    return NamedSharding(where.mesh, PartitionSpec(None, *grid, *rest))
