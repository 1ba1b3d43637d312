"""Transformations of blocks of arrays, those of one shape in one stack."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from ...core.calls.kinds import Count, PositiveCount
from ...core.calls.options import Options
from ...core.calls.types import TransformationLike
from ...core.errors import LeafError
from ...core.factory import transformation
from ...core.numbers.handover import counts_in
from ...core.numbers.numerics import compute_dtype
from ...core.rules import walk
from ...core.transformation import GradientTransformation
from ...core.trees.copies import unlike_params
from ...core.trees.dealing import Dealer
from ...core.trees.sharding import (
    MaybeSharding,
    common_sharding,
    shard_count,
    shard_like,
    sharded_zeros,
    sharding_of,
    spec_of,
    with_spec,
)
from ...core.trees.stacking import layers_along
from ...core.trees.tree import PyTree, check_params
from ...formula import Expression, Reader, formula_of
from .blocks import Part, arrays_of, groups, stack, unstack
from .moved import dealt_name, dealt_shape, dealt_sharding, move_in, move_out, receivers
from .vectors import warn_of_size


class Blocks(Options):
    """How arrays are cut into blocks.

    Args:
        size: longest side of a block; sides of at most this length are not cut.
        merge_size: neighbouring axes with a product of at most this are merged before, as those of
            the kernel of a convolution; 0 merges none.
        stacked: whether equal blocks of different arrays are stacked. If not, every array has its
            own (a stack of one): the same numbers, and a program that grows with the arrays.

    >>> import gdtx
    >>> gdtx.shampoo(0.1, blocks=gdtx.Blocks(512)).arguments["blocks"]
    Blocks(size=512, merge_size=0, stacked=True)
    """

    size: PositiveCount = 1024
    merge_size: Count = 0
    stacked: bool = True


@transformation(quiet=True, whole=True)
def blockwise(
    inner: TransformationLike,
    blocks: Blocks = Blocks(),
) -> GradientTransformation:
    r"""Transform arrays block by block, blocks of one shape from all arrays in one stack.

    Each axis longer than `blocks.size` is cut into blocks of that size and a shorter rest. Before,
    neighbouring axes are merged while their product is at most `blocks.merge_size`. Blocks of equal
    shape, at equally many places of their arrays, are stacked, and `inner` sees the tree of stacks
    in place of the tree of arrays. A stack of $n$ arrays of order $k$ has $1 + 2k$ axes: the $n$
    arrays, the $k$ axes of the grid of blocks, and the $k$ axes of a block. So a program has as
    many operations for 48 equal layers as for one, but for moving numbers in and out.

    The layout of the state is that of the stacks. It costs no copy of the state in any step, as
    stacking a state kept by array would, and follows the parameters' sharding: an axis of the grid
    is sharded as the parameters' axis if no block is split between devices, and else not at all, as
    if `inner` ran on every device. Steps on blocks that are not split, or of parameters that are on
    every device, need no communication. Arrays of one shape that are sharded in different ways are
    best not stacked, or given to different transformations.

    Inside of :func:`dealt` all blocks of one size are in one stack, $n$ of them in its first axis
    and a grid of one, whose first axis is cut over the devices that :func:`dealt` names; zeros fill
    it up to a multiple of their number. The numbers that move are those of the updates, in and out,
    whatever the state: each device has its part of the state, and does its part of the work. Blocks
    move that were whole on a device, too. So where `blocks` fits the parts of arrays that are cut
    over all devices, nothing is gained, and else much. The places of blocks in a stack are the same
    on all meshes, and its length is not: a state saved on another number of devices has other zeros
    at the ends of its stacks.

    Args:
        inner: transformation of the stacks.
        blocks: how arrays are cut, see :class:`Blocks`.

    Returns:
        A transformation whose state is that of `inner` on the stacks. Empty arrays pass as they
        are. A 0-d array is a block of shape (1,).

    Raises:
        TypeError: from `update`, for complex updates.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.blockwise(gdtx.trace(0.9), gdtx.Blocks(2))
    >>> state = tx.init({"a": jnp.zeros((4, 3)), "b": jnp.zeros((2, 2))})
    >>> {name: stack.shape for name, stack in gdtx.find(state, "value").items()}
    {'2x1 of 2x1': (1, 2, 1, 2, 1), '2x1 of 2x2': (1, 2, 1, 2, 2), '2x2': (1, 1, 1, 2, 2)}
    """

    def grouped(tree: PyTree, to: Dealer | None) -> dict[str, list[Part]]:
        name_of = None if to is None else dealt_name
        return groups(tree, blocks.size, blocks.merge_size, blocks.stacked, name_of)

    def init(params: PyTree) -> PyTree:
        _checked(params)
        leaves, to = jax.tree.leaves(params), receivers(params)
        layout = grouped(params, to)
        stacks = {name: _placeholder(leaves, members, to) for name, members in layout.items()}
        with layers_along({}):  # stacks are told apart by their own names
            state = inner.init(stacks)
        warn_of_size(params, layout, stacks, state)
        return state

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, PyTree]:
        _checked(updates)
        check_params(updates, params)
        layout = grouped(updates, receivers(updates))

        def step(
            inner: GradientTransformation,
            updates: PyTree,
            state: PyTree,
            params: PyTree,
            extra_args: dict[str, Any],
        ) -> tuple[PyTree, PyTree]:
            to = receivers(updates)
            if to is None:
                stacks = stack(updates, layout)
                others = None if params is None else stack(params, layout)
                with layers_along({}):
                    stacks, state = inner.update(stacks, state, others, **extra_args)
                return unstack(stacks, layout, updates, next(iter(counts_in(state)), None)), state
            stacks = move_in(updates, layout, to)
            others = None if params is None else move_in(params, layout, to)
            with layers_along({}):
                stacks, state = inner.update(stacks, state, others, **extra_args)
            return move_out(stacks, layout, updates, to), state

        return shard_like((updates, state), step, inner, updates, state, params, extra_args)

    return GradientTransformation(unlike_params(init), update, inner)


@formula_of(blockwise)
def _(u: Expression, reader: Reader, inner: GradientTransformation) -> Expression:
    return reader.read(inner, u)


def _checked(tree: PyTree) -> None:
    def check(x: jax.Array) -> None:
        if jnp.iscomplexobj(x):
            raise LeafError(TypeError, "is complex, blockwise takes real arrays only")

    leaves, structure = jax.tree.flatten(tree)
    walk(check, structure, leaves)


def _placeholder(leaves: list[jax.Array], members: list[Part], to: Dealer | None) -> jax.Array:
    """Zeros where the stack of these parts should be, for an `init` that looks at no number."""
    first, like = members[0], [leaves[part.leaf] for part in members]
    dtype = compute_dtype(*(x.dtype for x in like))
    ndim = 1 + 2 * len(first.sizes)
    if to is not None:
        shape = dealt_shape(members, to)
        return sharded_zeros(shape, dtype, dealt_sharding(like, len(shape), to), like)
    wheres = [_stack_sharding(leaves[part.leaf], part, ndim) for part in members]
    shape = (arrays_of(members), *first.counts, *first.sizes)
    return sharded_zeros(shape, dtype, common_sharding(wheres, ndim), like)


def _stack_sharding(x: jax.Array, part: Part, ndim: int) -> MaybeSharding:
    where = sharding_of(x)
    if not isinstance(where, NamedSharding):
        return where
    grid: list[Any] = [None] * len(part.dims)
    n = len(part.layers)
    if part.dims == x.shape[n:]:
        for i, entry in enumerate(spec_of(where, x.ndim)[n:]):
            is_whole = part.counts[i] * part.sizes[i] == part.dims[i]
            if entry is not None and is_whole and part.counts[i] % shard_count(where, entry) == 0:
                grid[i] = entry
    return with_spec(where, [None, *grid], ndim)
