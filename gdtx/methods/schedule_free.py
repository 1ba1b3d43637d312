"""SGD and AdamW without a schedule."""

from __future__ import annotations

from typing import Any

from ..core.calls.kinds import Count, Decay, InnerDecay, NonNegative
from ..core.combine import chain, divide, join
from ..core.factory import transformation
from ..core.numbers.values import is_zero
from ..core.rules import identity
from ..core.transformation import GradientTransformation
from ..links.arithmetic import scale_by_learning_rate
from ..links.decay import add_decayed_weights
from ..links.fraction import root, second_moment
from ..schedules.warmup import warmup_constant_schedule
from ..wrappers.schedule_free import schedule_free


@transformation
def schedule_free_sgd(
    learning_rate: NonNegative = 1.0,
    warmup_steps: Count | None = None,
    b1: InnerDecay = 0.9,
    weight_decay: NonNegative = 0.0,
    weight_lr_power: NonNegative = 2.0,
) -> GradientTransformation:
    r"""Stochastic gradient descent without a schedule.

    $z_t = z_{t-1} - \eta_t\,(g_t + \lambda y_{t-1})$, with $y$ the parameters and the rest as in
    :func:`schedule_free`. Evaluate at :func:`eval_params`.

    Args:
        learning_rate: $\eta$, the size of a step: a number, an array or a schedule.
        warmup_steps: $W$, over which the rate rises: $\eta_t = \eta \min(t / W, 1)$.
        b1, weight_lr_power: as in :func:`schedule_free`.
        weight_decay: $\lambda$, share of the weights that is taken off, times the learning rate.

    Returns:
        A transformation whose state holds one buffer per array.

    References:
        Defazio et al. 2024, see :func:`schedule_free`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.schedule_free_sgd(0.5, warmup_steps=2)
    >>> tx.update(jnp.ones(1), tx.init(jnp.zeros(1)), jnp.zeros(1))[0]
    Array([-0.25], dtype=float32)
    """
    rate = _warmed_up(learning_rate, warmup_steps)
    descent = chain(add_decayed_weights(weight_decay), scale_by_learning_rate(rate))
    return schedule_free(descent, rate, b1, weight_lr_power)


@transformation
def schedule_free_adamw(
    learning_rate: NonNegative = 0.0025,
    warmup_steps: Count | None = None,
    b1: InnerDecay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    weight_lr_power: NonNegative = 2.0,
) -> GradientTransformation:
    r"""AdamW without a schedule, and without a first moment.

    $z_t = z_{t-1} - \eta_t\,(g_t / (\sqrt{\hat v_t} + \epsilon) + \lambda y_{t-1})$, with $y$ the
    parameters and the rest as in :func:`schedule_free`. Evaluate at :func:`eval_params`.

    Args:
        learning_rate: $\eta$, the size of a step: a number, an array or a schedule.
        warmup_steps: $W$, over which the rate rises: $\eta_t = \eta \min(t / W, 1)$.
        b1, weight_lr_power: as in :func:`schedule_free`.
        b2: $\beta_2$, decay of the second moment.
        eps: $\epsilon$, added outside the root.
        weight_decay: $\lambda$, share of the weights that is taken off, times the learning rate.

    Returns:
        A transformation whose state holds two buffers per array.

    References:
        Defazio et al. 2024, see :func:`schedule_free`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.schedule_free_adamw(0.5)
    >>> tx.update(jnp.full(1, 7.0), tx.init(jnp.zeros(1)), jnp.zeros(1))[0].round(5)
    Array([-0.5], dtype=float32)
    """
    rate = _warmed_up(learning_rate, warmup_steps)
    direction = join(divide, g=identity(), nu=chain(second_moment(b2), root(eps)))
    descent = chain(direction, add_decayed_weights(weight_decay), scale_by_learning_rate(rate))
    return schedule_free(descent, rate, b1, weight_lr_power)


def _warmed_up(learning_rate: Any, warmup_steps: int | None) -> Any:
    if warmup_steps is None or is_zero(warmup_steps):
        return learning_rate
    # The first of the steps is a step too: with a rate of 0 it would only be lost.
    return warmup_constant_schedule(0.0, learning_rate, warmup_steps).shift(-1)
