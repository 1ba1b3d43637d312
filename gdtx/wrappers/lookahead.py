"""Some steps forward, one step back."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core.calls.kinds import AtLeastOne, Fraction
from ..core.calls.types import TransformationLike
from ..core.factory import transformation
from ..core.numbers.numerics import increment
from ..core.rules import beside, each_leaf
from ..core.transformation import GradientTransformation
from ..core.trees.layout import holding
from ..core.trees.short import in_short
from ..core.trees.tree import PyTree, leaves_as, scalar_like, wide_copy
from ..formula import MEMORY, PARAMETERS, Expression, Reader, apply, formula_of, t


@in_short
class LookaheadState(NamedTuple):
    """State of lookahead: updates since the slow weights moved, and those weights."""

    steps_since_sync: jax.Array
    slow: PyTree
    inner: PyTree

    def eval_params(self, params: PyTree) -> PyTree:
        return self.slow


@transformation
def lookahead(
    inner: TransformationLike, sync_period: AtLeastOne = 6, slow_step_size: Fraction = 0.5
) -> GradientTransformation:
    r"""Let slow weights follow the end of every few updates, and go on from there.

    Every $k$-th update leads to $\phi \leftarrow \phi + \alpha\,(\theta + u - \phi)$ in place of
    $\theta + u$, with $\phi$ the slow weights, at first the parameters. They are those of
    :func:`eval_params`. `inner` keeps its state. The outermost of all that changes the updates.

    Args:
        inner: any transformation.
        sync_period: $k$, the number of updates from one step of the slow weights to the next.
        slow_step_size: $\alpha$, share of the way that the slow weights go.

    Returns:
        A transformation whose state holds a count, the slow weights (one buffer per array, at least
        float32) and the state of `inner`.

    Raises:
        ValueError: if `sync_period` is below 1 or `slow_step_size` not in [0, 1]; from `update`, if
            it is called without the parameters.

    References:
        Zhang et al. 2019, Lookahead Optimizer: k steps forward, 1 step back, arXiv:1907.08610.

    >>> import gdtx, jax.numpy as jnp
    >>> tx, params = gdtx.lookahead(gdtx.sgd(1.0), sync_period=2), jnp.array([4.0])
    >>> state = tx.init(params)
    >>> for _ in range(2):
    ...     updates, state = tx.update(jnp.array([1.0]), state, params)
    ...     params = gdtx.apply_updates(params, updates)
    ...     print(params)
    [3.]
    [3.]
    """

    def init(params: PyTree) -> LookaheadState:
        since = scalar_like(params, 0, jnp.int32)
        return LookaheadState(since, wide_copy(params), inner.init(params))

    def update(
        updates: PyTree, state: LookaheadState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, LookaheadState]:
        updates, inner_state = inner.update(updates, state.inner, params, **extra_args)
        since = increment(state.steps_since_sync)
        syncs = since >= sync_period
        leaves, structure = jax.tree.flatten(updates)
        fast = beside(updates, params)
        old = leaves_as(structure, state.slow, "state", "updates")

        def moved(slow: jax.Array, u: jax.Array, p: jax.Array) -> jax.Array:
            return jnp.where(syncs, slow + slow_step_size * (p + u - slow), slow)

        def step(u: jax.Array, p: jax.Array, slow: jax.Array) -> jax.Array:
            return jnp.where(syncs, slow - p, u)

        slow = each_leaf(moved, structure, old, leaves, fast)
        updates = structure.unflatten(each_leaf(step, structure, leaves, fast, slow))
        kept = [new.astype(before.dtype) for new, before in zip(slow, old, strict=True)]
        since = jnp.where(syncs, 0, since)
        return updates, LookaheadState(since, structure.unflatten(kept), inner_state)

    return GradientTransformation(init, update, holding(LookaheadState, inner=inner))


@formula_of(lookahead, sync_period="k", slow_step_size=r"\alpha")
def _(
    u: Expression, reader: Reader, inner: GradientTransformation, sync_period: Any,
    slow_step_size: Any,
) -> Expression:  # fmt: skip
    out = reader.step(reader.read(inner, u))
    syncs = apply("divides", sync_period, t)
    moved = MEMORY + slow_step_size * (PARAMETERS + out - MEMORY)
    slow = reader.remember((r"\phi",), apply("cases", moved, syncs, MEMORY), PARAMETERS.at(0))
    return apply("cases", slow - PARAMETERS, syncs, out)
