"""The parameters averaged over the steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core.calls.kinds import Count, Decay
from ..core.calls.types import TransformationLike
from ..core.factory import transformation
from ..core.memory import RecurState
from ..core.numbers.numerics import cast, one_minus_power
from ..core.rules import beside, each_leaf
from ..core.scheduled import ScheduledState
from ..core.transformation import GradientTransformation
from ..core.trees.layout import holding
from ..core.trees.short import in_short
from ..core.trees.tree import PyTree
from ..formula import MEMORY, PARAMETERS, Expression, Reader, Symbol, apply, formula_of, t
from ..links.moments import ema
from .evaluation import alongside


@in_short
class AverageState(NamedTuple):
    """State of an average of the parameters: that of :func:`ema`, and that of `inner`."""

    average: ScheduledState
    inner: PyTree

    def eval_params(self, params: PyTree) -> PyTree:
        kept: RecurState = self.average.inner
        leaves, structure = jax.tree.flatten(kept.buffers["value"])
        started = self.average.step > 0
        current = alongside(kept.buffers["value"], params)
        return structure.unflatten(
            [jnp.where(started, a, cast(p, a.dtype)) for a, p in zip(leaves, current, strict=True)]
        )


@transformation(exact=("average",))
def average(
    inner: TransformationLike,
    decay: Decay | None = None,
    start: Count = 0,
    bias_correction: bool = True,
) -> GradientTransformation:
    r"""Average the parameters that the updates lead to, for :func:`eval_params`.

    $\bar\theta_t = \beta_t \bar\theta_{t-1} + (1 - \beta_t)\,\theta_t$, which is the mean of
    $\theta_{s+1}, \dots, \theta_t$ (Polyak and Ruppert) with

    $$\beta_t = 1 - \frac1n, \quad n = \max(t - s, 1),$$

    and with a decay their exponential average without the bias of its start,
    $\beta_t = 1 - (1 - \beta) / (1 - \beta^n)$. Without `bias_correction` the decay is $\beta_t$ as
    it stands, but for the first parameters, with which the average begins. That is for the decays
    of a schedule, such as those of the power average, $\beta_t = (1 - 1/t)^{\gamma + 1}$:
    `average(tx, lambda t: (1 - 1 / (t + 1)) ** 7.94, bias_correction=False)`.

    :func:`ema` of the new parameters: the updates are left as they are.

    The outermost of all that changes the updates: what is averaged is $\theta + u$, and a link
    after it would make the parameters something else. Around it may be what only waits or leaves
    out, as :func:`accumulate_gradients` and :func:`skip_nonfinite`; those steps are then not
    counted.

    Args:
        inner: any transformation.
        decay: $\beta$; None weighs all alike.
        start: $s$, how many updates to leave out. Until one more is done, the average is the
            current parameters.
        bias_correction: whether the average is as if it had begun with zeros, and the bias of that
            had been taken out as if the decay had always been the one of now.

    Returns:
        A transformation whose state holds a count, the average (one buffer per array, at least
        float32) and the state of `inner`.

    Raises:
        ValueError: if `decay` is not in [0, 1); from `update`, if it is called without the
            parameters.

    References:
        Polyak & Juditsky 1992, Acceleration of stochastic approximation by averaging;
        Ruppert 1988, Efficient estimations from a slowly convergent Robbins-Monro process;
        Karras et al. 2024, Analyzing and Improving the Training Dynamics of Diffusion Models,
        arXiv:2312.02696 (power averages).

    >>> import gdtx, jax.numpy as jnp
    >>> tx, params = gdtx.average(gdtx.sgd(1.0), start=1), jnp.array([4.0])
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jnp.array([1.0]), state, params)
    ...     params = gdtx.apply_updates(params, updates)
    >>> gdtx.eval_params(tx, state, params)  # the mean of 2 and 1
    Array([1.5], dtype=float32)
    """
    statistic = ema(decays(decay, start, bias_correction))

    def init(params: PyTree) -> AverageState:
        return AverageState(statistic.init(params), inner.init(params))

    def update(
        updates: PyTree, state: AverageState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, AverageState]:
        updates, inner_state = inner.update(updates, state.inner, params, **extra_args)
        leaves, structure = jax.tree.flatten(updates)
        new = each_leaf(lambda u, p: p + u, structure, leaves, beside(updates, params))
        _, statistic_state = statistic.update(structure.unflatten(new), state.average)
        return updates, AverageState(statistic_state, inner_state)

    return GradientTransformation(
        init, update, holding(AverageState, average=statistic, inner=inner)
    )


@formula_of(average, decay=r"\beta")
def _(
    u: Expression, reader: Reader, inner: GradientTransformation, decay: Any, start: int,
    bias_correction: bool,
) -> Expression:  # fmt: skip
    out = reader.step(reader.read(inner, u))
    count = apply("\\max", t - start, 1) if start else t
    if decay is None:
        weight = 1 / count
    elif bias_correction:
        weight = (1 - decay) / (1 - decay**count)
    else:
        weight = apply("cases", 1 - decay, apply("greater", t, start + 1), 1)
        weight = reader.define((Symbol(r"\alpha", time=t),), weight)
    mean = (1 - weight) * MEMORY + weight * (PARAMETERS + out)
    reader.remember((r"\bar{\theta}",), mean, PARAMETERS.at(0))
    return out


def decays(
    decay: Any, start: int, bias_correction: bool = True
) -> Callable[[jax.Array], jax.Array]:
    """The decay at each step with which :func:`ema` is the average itself, and no bias is left."""

    def at(step: jax.Array) -> jax.Array:
        before = jnp.maximum(step - start, 0).astype(jnp.result_type(float))
        if decay is None:
            return before / (before + 1)
        if not bias_correction:
            return jnp.where(before > 0, decay, 0)
        # From 1 - β without cancellation, so that the weight of the new value is precise.
        return jnp.where(before > 0, 1 - (1 - decay) / one_minus_power(decay, before + 1), 0)

    return at
