"""Averaging and interpolation in place of a schedule and of momentum."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core.calls.kinds import InnerDecay, NonNegative
from ..core.calls.types import TransformationLike
from ..core.factory import transformation
from ..core.rules import beside, each_leaf
from ..core.transformation import GradientTransformation
from ..core.trees.layout import holding
from ..core.trees.short import in_short
from ..core.trees.tree import PyTree, leaves_as, scalar_like, wide_copy
from ..formula import MEMORY, PARAMETERS, Expression, Reader, Symbol, formula_of, t
from .evaluation import alongside


@in_short
class ScheduleFreeState(NamedTuple):
    """State of schedule-free training: the sequence that `inner` moves, and how it is averaged."""

    weight_sum: jax.Array
    b1: jax.Array
    z: PyTree
    inner: PyTree

    def eval_params(self, params: PyTree) -> PyTree:
        leaves, structure = jax.tree.flatten(self.z)
        current = alongside(self.z, params)
        x = each_leaf(lambda z, y: z + (y - z) / self.b1, structure, leaves, current)
        return structure.unflatten(x)


@transformation
def schedule_free(
    inner: TransformationLike,
    learning_rate: NonNegative,
    b1: InnerDecay = 0.9,
    weight_lr_power: NonNegative = 2.0,
) -> GradientTransformation:
    r"""Train between a fast sequence and its average, so that no schedule has to bring them down.

    $$z_t = z_{t-1} + u_t, \quad x_t = (1 - c_t)\,x_{t-1} + c_t z_t, \quad
    y_t = (1 - \beta_1)\,z_t + \beta_1 x_t, \quad c_t = \eta_t^p / \sum_{i \le t} \eta_i^p,$$

    with $u_t$ what `inner` makes of the gradient at $y_{t-1}$. The parameters are $y$, those of
    :func:`eval_params` are $x$, and all three start as one. $x$ takes no memory: it is
    $z + (y - z) / \beta_1$. What is added to the parameters is

    $$y_t - y_{t-1} = c_t\,(z_{t-1} - y_{t-1}) + (1 - \beta_1 (1 - c_t))\,u_t.$$

    A rate that falls gives late steps less weight, as in the paper; Optax and the authors' program
    weigh them as those of the largest rate so far.

    Args:
        inner: a transformation without momentum, whose place $\beta_1$ takes, such as
            :func:`sgd`; weight decay in it is that of $y$.
        learning_rate: $\eta$ of `inner`, for the weights only.
        b1: $\beta_1$, how far from the sequence to its average the gradient is taken.
        weight_lr_power: $p$: an iterate weighs $\eta^p$ in the average.

    Returns:
        A transformation whose state holds two scalars, $z$ (one buffer per array, at least float32)
        and the state of `inner`.

    Raises:
        ValueError: if `b1` is not in (0, 1); from `update`, if it is called without the parameters.

    References:
        Defazio et al. 2024, The Road Less Scheduled, arXiv:2405.15682.

    >>> import gdtx, jax.numpy as jnp
    >>> tx, params = gdtx.schedule_free(gdtx.sgd(1.0), 1.0, b1=0.5), jnp.array([4.0])
    >>> state = tx.init(params)
    >>> for _ in range(2):
    ...     updates, state = tx.update(jnp.array([1.0]), state, params)
    ...     params = gdtx.apply_updates(params, updates)
    >>> state.z, gdtx.eval_params(tx, state, params), params
    (Array([2.], dtype=float32), Array([2.5], dtype=float32), Array([2.25], dtype=float32))
    """

    def init(params: PyTree) -> ScheduleFreeState:
        weight_sum, kept = (scalar_like(params, x, jnp.result_type(float)) for x in (0, b1))
        return ScheduleFreeState(weight_sum, kept, wide_copy(params), inner.init(params))

    def update(
        updates: PyTree, state: ScheduleFreeState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, ScheduleFreeState]:
        updates, inner_state = inner.update(updates, state.inner, params, **extra_args)
        weight = learning_rate**weight_lr_power
        weight_sum = (state.weight_sum + weight).astype(state.weight_sum.dtype)
        # Before the first rate above 0 there is no step to weigh.
        c = jnp.where(weight_sum == 0, 0, weight / jnp.where(weight_sum == 0, 1, weight_sum))
        toward_z, along_u = 1 - (1 - c) * (b1 / state.b1), 1 - b1 * (1 - c)

        leaves, structure = jax.tree.flatten(updates)
        y = beside(updates, params)
        z = leaves_as(structure, state.z, "state", "updates")
        step = each_leaf(lambda u, y, z: toward_z * (z - y) + along_u * u, structure, leaves, y, z)
        moved = each_leaf(lambda z, u: z + u, structure, z, leaves)
        kept = [new.astype(before.dtype) for new, before in zip(moved, z, strict=True)]
        return structure.unflatten(step), ScheduleFreeState(
            weight_sum=weight_sum,
            b1=jnp.full_like(state.b1, b1),
            z=structure.unflatten(kept),
            inner=inner_state,
        )

    return GradientTransformation(init, update, holding(ScheduleFreeState, inner=inner))


@formula_of(schedule_free, learning_rate=r"\eta", b1=r"\beta_1", plain="weight_lr_power")
def _(
    u: Expression, reader: Reader, inner: GradientTransformation, learning_rate: Any, b1: Any,
    weight_lr_power: Any,
) -> Expression:  # fmt: skip
    out = reader.step(reader.read(inner, u))
    weight = learning_rate**weight_lr_power
    total = reader.remember(("W",), MEMORY + weight, 0)
    c = reader.define((Symbol("c", time=t),), weight / total)
    z = reader.remember(("z",), MEMORY + out, PARAMETERS.at(0))
    reader.remember(("x",), (1 - c) * MEMORY + c * z, PARAMETERS.at(0))
    return c * (z.at(t - 1) - PARAMETERS) + (1 - b1 * (1 - c)) * out
