"""What L-BFGS keeps: the last pairs of differences of parameters and gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...core.errors import foreign_state
from ...core.numbers.numerics import cast, compute_dtype, increment
from ...core.trees.boxes import refilled
from ...core.trees.short import in_short
from ...core.trees.tree import PyTree, leaves_as, scalar_like, statistic_like
from ...linalg.two_loop import Pairs, pair_of


@in_short
class LbfgsState(NamedTuple):
    """State of L-BFGS: the last parameters and gradients, and the last differences of both, each
    kept times a power of two; how many pairs are kept since they were last forgotten, and how many
    were left out."""

    step: jax.Array
    pairs: jax.Array
    skipped: jax.Array
    scale: jax.Array
    params: PyTree
    updates: PyTree
    diff_params_memory: PyTree
    diff_updates_memory: PyTree
    weights_memory: jax.Array
    units_memory: jax.Array

    def describe(self) -> dict[str, jax.Array]:
        return {
            "pairs": jnp.minimum(self.pairs, self.weights_memory.shape[0]),
            "pairs_skipped": self.skipped,
        }


def first_state(params: PyTree, memory_size: int) -> LbfgsState:
    """Without any pair."""
    leaves = [jnp.zeros_like(p, dtype=compute_dtype(p.dtype)) for p in jax.tree.leaves(params)]
    real = _real_dtype(leaves)

    def memory() -> PyTree:
        return refilled(params, [jnp.stack([x] * memory_size) for x in leaves])

    def last() -> PyTree:
        # Buffers of their own: all may be donated.
        return jax.tree.unflatten(jax.tree.structure(params), map(jnp.zeros_like, leaves))

    def numbers() -> jax.Array:
        return jnp.broadcast_to(statistic_like(params, 0, real), (memory_size,))

    return LbfgsState(
        step=scalar_like(params, 0, jnp.int32),
        pairs=statistic_like(params, 0, jnp.int32),
        skipped=statistic_like(params, 0, jnp.int32),
        scale=statistic_like(params, 0, real),
        params=last(),
        updates=last(),
        diff_params_memory=memory(),
        diff_updates_memory=memory(),
        weights_memory=numbers(),
        units_memory=numbers(),
    )


def _real_dtype(leaves: list[jax.Array]) -> Any:
    return jnp.finfo(compute_dtype(*(x.dtype for x in leaves))).dtype


def with_pair(
    state: LbfgsState, structure: Any, here: list[Any], gradient: list[Any], memory_size: int
) -> LbfgsState:
    """The state with the pair that has become known, if that is to be kept."""
    before = leaves_as(structure, state.params, "state", "updates")
    last = leaves_as(structure, state.updates, "state", "updates")
    step, change = (
        [a - cast(b, a.dtype) for a, b in zip(now, then, strict=True)]
        for now, then in ((here, before), (gradient, last))
    )
    pair = pair_of(step, change)
    is_first = state.step == 0
    # Not whether it has moved: after a NaN it is not known.
    stood_still = ~is_first & ~pair.has_moved
    taken = ~is_first & pair.is_curved & pair.has_moved
    index = state.pairs % memory_size

    def put(memory: PyTree, new: list[jax.Array]) -> PyTree:
        leaves, outside = jax.tree.flatten(memory)
        for m, x in zip(leaves, new, strict=True):
            if m.shape != (memory_size, *x.shape):
                foreign_state(f"{memory_size} differences of shape {x.shape}", m)
        return outside.unflatten(_put(m, x, index, taken) for m, x in zip(leaves, new, strict=True))

    pairs = jnp.where(stood_still, 0, state.pairs + taken.astype(jnp.int32))
    # Beyond the largest int32 the index would be another.
    limit = jnp.iinfo(jnp.int32).max // memory_size * memory_size
    pairs = jnp.where(pairs == limit, memory_size, pairs)
    weights = _put(state.weights_memory, pair.weight, index, taken)
    return LbfgsState(
        step=increment(state.step),
        pairs=pairs,
        skipped=jnp.where(is_first | taken, state.skipped, increment(state.skipped)),
        scale=jnp.where(taken, pair.scale, state.scale).astype(state.scale.dtype),
        params=structure.unflatten(_copied(here, before)),
        updates=structure.unflatten(_copied(gradient, last)),
        diff_params_memory=put(state.diff_params_memory, pair.step),
        diff_updates_memory=put(state.diff_updates_memory, pair.change),
        weights_memory=jnp.where(stood_still, 0, weights),
        units_memory=_put(state.units_memory, pair.unit, index, taken),
    )


def _put(memory: jax.Array, new: jax.Array, index: jax.Array, taken: jax.Array) -> jax.Array:
    old = jax.lax.dynamic_index_in_dim(memory, index, keepdims=False)
    new = jnp.where(taken, new.astype(memory.dtype), old)
    return jax.lax.dynamic_update_index_in_dim(memory, new, index, 0)


def _copied(new: list[jax.Array], old: list[jax.Array]) -> list[jax.Array]:
    """In buffers of their own: the parameters may be donated."""
    return [jnp.array(x, a.dtype, copy=True) for x, a in zip(new, old, strict=True)]


def kept(state: LbfgsState, structure: Any, here: list[jax.Array], memory_size: int) -> Pairs:
    """The pairs of a state, in the dtypes that are computed in."""
    steps, changes = (
        [cast(m, compute_dtype(m.dtype, x.dtype)) for m, x in zip(jax.tree.leaves(tree), here,
                                                                 strict=True)]
        for tree in (state.diff_params_memory, state.diff_updates_memory)
    )  # fmt: skip
    return Pairs(steps, changes, state.weights_memory, state.units_memory)
