"""States in eight bits a number between the updates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core.calls.functions import is_function
from ..core.calls.kinds import Count, Patterns, PositiveCount, Seed
from ..core.calls.types import TransformationLike
from ..core.errors import fail
from ..core.factory import transformation
from ..core.memory import CountedRecurState, RecurState, recur
from ..core.numbers.narrow import salted
from ..core.numbers.numerics import cast, increment
from ..core.numbers.values import is_zero
from ..core.states import with_parts
from ..core.transformation import GradientTransformation
from ..core.trees.boxes import is_box
from ..core.trees.copies import unlike_params
from ..core.trees.eight_bits import (
    EightBits,
    first_stored,
    is_stored,
    map_stored,
    restored,
    stored_like,
)
from ..core.trees.layout import Part, holding
from ..core.trees.paths import leaf_paths, listed, matches
from ..core.trees.short import in_short
from ..core.trees.tree import PyTree, scalar_like
from ..formula import Expression, Reader, formula_of


@in_short
class StoredState(NamedTuple):
    """State of a transformation whose state is kept in eight bits: updates done, and that state,
    with :class:`EightBits` in place of arrays."""

    step: jax.Array
    inner: PyTree


@transformation(exact=True)
def stored(
    inner: TransformationLike,
    keep: Patterns = (),
    block: PositiveCount = 256,
    least: Count = 4096,
    seed: Seed = 0,
) -> GradientTransformation:
    r"""Keep averages and sums of `inner` in eight bits a number between the updates.

    What `inner` computes, it computes in float32: its state is decoded before an update and coded
    after it. Adam's takes 2.02 bytes a parameter in place of 8.

    A code is one of eight levels an octave, below a power of two that a block of numbers shares,
    over 31.75 octaves where a block has no negative numbers, and 15.75 for each sign where it has.
    Numbers are rounded up or down by chance, right on average, so that an average moves on where
    its steps are smaller than a level; what was decoded is coded as it was. 0 stays 0, and a
    positive number in a block without negative ones is never 0; in others, those below all levels
    go to the nearer of 0 and the lowest. A block with a NaN or an infinity is NaN as a whole:
    `skip_nonfinite(stored(tx))`, not the other way round.

    In eight bits are the float32 buffers that links keep of updates by :func:`recur` and
    :func:`accumulate`. All else stays as it is: counts; what is kept of parameters (averages, slow
    and master weights, first values that are made of them); largest values, last updates and step
    sizes (:func:`running_max`, :func:`latest`, :func:`scale_by_rprop`); statistics, bases and roots
    of matrix methods; buffers of :func:`recur_tree`; states of other libraries; and buffers in
    other dtypes, be it float64, complex ones, or the bfloat16 that a `dtype` asks for. A link of
    one's own whose state must be exact says so: `@transformation(exact=True)`.

    Args:
        inner: any transformation.
        keep: patterns, as in :func:`masked`, of what else stays as it is. A path is that of the
            buffer, as :func:`state_table` shows it, with slashes for dots, and that of the array in
            it: `["**/nu/**", "**/embedding"]`.
        block: how many numbers share a power of two at most. Blocks lie along the last axis, or
            along as many of the last as it takes to have 128 numbers, and are of one length. A
            device has whole blocks of its own part of an array if that is a multiple of `block`.
        least: arrays with fewer numbers stay as they are.
        seed: of the chance, which depends on it, on the number of updates done and on the place.

    Returns:
        A transformation whose state is a count and that of `inner`, with :class:`EightBits` in
        place of arrays: one byte a number and two a block, sharded as the array. No derivative goes
        through it.

    Raises:
        ValueError: from `init`, if a pattern of `keep` matches nothing that could be stored.

    References:
        Dettmers et al. 2022, 8-bit Optimizers via Block-wise Quantization, arXiv:2110.02861, for
        blocks; Gupta et al. 2015, Deep Learning with Limited Numerical Precision,
        arXiv:1502.02551, for rounding by chance. The code is neither's.

    >>> import gdtx, jax.numpy as jnp
    >>> params = jnp.zeros((64, 1024))
    >>> round(gdtx.state_table(gdtx.stored(gdtx.adam(1e-3)), params).bytes_per_parameter, 3)
    2.016
    """

    def init(params: PyTree) -> StoredState:
        step = scalar_like(params, 0, jnp.int32)
        number, seen = iter(range(2**32)), []

        def kept(names: tuple[str, ...], tree: PyTree, first: Any) -> PyTree:
            nodes, structure = jax.tree.flatten(tree, is_leaf=lambda x: is_box(x) or is_stored(x))
            paths = ["/".join(filter(None, (*names, path))) for path in leaf_paths(tree)]
            seen.extend(paths)
            return structure.unflatten(
                coded(*both, is_zero(first)) for both in zip(nodes, paths, strict=True)
            )

        def coded(node: Any, path: str, of_zeros: bool) -> Any:
            x = jax.tree.leaves(node)[0]
            is_kept = any(matches(pattern, path) for pattern in keep)
            if is_kept or x.dtype != jnp.float32 or x.size < max(least, 1):
                return node
            new = first_stored(x, salted(seed, next(number), step), block, of_zeros)
            return new._replace(codes=jax.tree.map(lambda _: new.codes, node))

        state = _with_averages(inner, inner.init(params), kept)
        for pattern in keep:
            if seen and not any(matches(pattern, path) for path in seen):
                fail(ValueError, f"keep: {pattern!r} matches no path; the paths are {listed(seen)}")
        return StoredState(step, state)

    def update(
        updates: PyTree, state: StoredState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, StoredState]:
        step = increment(state.step)
        decoded = map_stored(restored, state.inner)
        updates, new = inner.update(updates, decoded, params, **extra_args)
        number = iter(range(2**32))

        def coded(old: Any, x: PyTree) -> PyTree:
            if not is_stored(old):
                return x
            salt = salted(seed, next(number), step)

            def one(codes: jax.Array, x: jax.Array) -> Any:
                return stored_like(EightBits(codes, old.exponents), cast(x, jnp.float32), salt)

            nodes = jax.tree.map(one, old.codes, x)
            first = jax.tree.leaves(nodes, is_leaf=is_stored)[0]
            return EightBits(jax.tree.map(lambda _: first.codes, old.codes), first.exponents)

        return updates, StoredState(step, jax.tree.map(coded, state.inner, new, is_leaf=is_stored))

    return GradientTransformation(unlike_params(init), update, holding(StoredState, inner=inner))


@formula_of(stored)
def _(u: Expression, reader: Reader, inner: GradientTransformation) -> Expression:
    return reader.read(inner, u)  # it changes how numbers are kept, and not the formula


def _with_averages(
    tx: GradientTransformation,
    state: PyTree,
    f: Callable[[tuple[str, ...], PyTree, Any], PyTree],
    names: tuple[str, ...] = (),
    exact: bool | tuple[str, ...] = False,
) -> PyTree:
    """The state, with what `f` makes of each buffer that may be kept in fewer bits: of its path,
    the buffer and its first value.

    `exact` is what the transformation says whose expression `tx` is.
    """
    is_pair = tx.factory is GradientTransformation
    exact = exact if is_pair else tx.signature.exact
    if exact is True:
        return state
    if tx.factory is recur:
        if isinstance(state, CountedRecurState):
            return state._replace(inner=_with_averages(tx, state.inner, f, names))
        return RecurState({
            name: buffer if is_function(first) else f((*names, name), buffer, first)
            for name, buffer in state.buffers.items()
            for first in [tx.arguments[name]]
        })  # fmt: skip

    def below(part: Part) -> PyTree:
        if exact and part.keys[:1] and part.keys[0] in exact:
            return part.state
        path = (*names, *(str(key) for key in part.keys if not str(key).startswith("inner")))
        return _with_averages(part.used, part.state, f, path, exact)

    return with_parts(tx, state, below)
