"""Decay: exponential, inverse in time, by a power, along a cosine."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..core.calls.kinds import Count, NonNegative, Positive, Scalar, StepCount
from ..core.schedule import Rule, schedule
from ..formula import (
    Expression,
    Moment,
    apply,
    at_hand,
    between,
    expression,
    half_cosine,
    schedule_formula,
)
from .basic import exact_power, passed, shares


@schedule
def exponential_decay(
    init_value: Scalar,
    transition_steps: StepCount,
    decay_rate: Positive,
    transition_begin: Count = 0,
    staircase: bool = False,
    end_value: Scalar | None = None,
) -> Rule:
    r"""$s(t) = a\,r^{(t - t_0)/T}$ from $t_0$ on, $a$ before.

    Args:
        init_value: $a$, the value until step $t_0$.
        transition_steps: $T$, the steps in which the value changes by the factor $r$.
        decay_rate: $r$, factor of the value in $T$ steps.
        transition_begin: $t_0$, the step at which the value starts to change.
        staircase: whether to change every $T$ steps only, $\lfloor (t - t_0)/T \rfloor$.
        end_value: where to stop: the smallest value if $r < 1$, the largest if $r > 1$.

    >>> import gdtx
    >>> halving = gdtx.exponential_decay(1.0, transition_steps=10, decay_rate=0.5)
    >>> float(halving(0)), float(halving(20))
    (1.0, 0.25)
    """

    def at(step: jax.Array) -> jax.Array:
        done = passed(jnp.maximum(step - transition_begin, 0), transition_steps, staircase)
        value = init_value * exact_power(decay_rate, done)
        if end_value is None:
            return value
        bounded = jnp.where(
            jnp.asarray(decay_rate) < 1,
            jnp.maximum(value, end_value),
            jnp.minimum(value, end_value),
        )
        return bounded

    return at


@schedule_formula(exponential_decay)
def _(
    now: Moment, init_value: Any, transition_steps: Any, decay_rate: Any, transition_begin: Any,
    staircase: bool, end_value: Any,
) -> Expression:  # fmt: skip
    done = now.passed(transition_steps, transition_begin, staircase)
    value = init_value * apply("power", decay_rate, done)
    if end_value is None:
        return value
    rate = at_hand(decay_rate)
    if rate is None:
        raise TypeError("a rate that is not known leaves open on which side the bound is")
    return apply("\\max" if rate < 1 else "\\min", value, end_value)


@schedule
def inverse_time_decay(
    init_value: Scalar, transition_steps: StepCount, decay_rate: Positive, staircase: bool = False
) -> Rule:
    r"""$s(t) = a / (1 + r\,t / T)$: the $O(1/t)$ that the theory of stochastic descent asks for.

    Args:
        init_value: $a$, the value at step 0.
        transition_steps: $T$, the number of steps that count as one unit of time.
        decay_rate: $r$, by how much the denominator grows in $T$ steps.
        staircase: whether to change every $T$ steps only, $\lfloor t/T \rfloor$.

    References:
        Robbins & Monro 1951, A Stochastic Approximation Method.

    >>> import gdtx
    >>> float(gdtx.inverse_time_decay(1.0, transition_steps=1, decay_rate=1.0)(3))
    0.25
    """

    def at(step: jax.Array) -> jax.Array:
        return init_value / (1 + decay_rate * passed(step, transition_steps, staircase))

    return at


@schedule_formula(inverse_time_decay)
def _(
    now: Moment, init_value: Any, transition_steps: Any, decay_rate: Any, staircase: bool
) -> Expression:
    return init_value / (1 + decay_rate * now.passed(transition_steps, 0, staircase))


@schedule
def inverse_power_schedule(init_value: Scalar, power: NonNegative) -> Rule:
    r"""$s(t) = a\,(1 + t)^{-p}$.

    With $p = 1/2$ the rates of online learning. One minus it, with $a = 1$, is a decay for averages
    that become longer: with $p = 1$ the plain mean of all so far.

    Args:
        init_value: $a$, the value at step 0.
        power: $p$, how fast the value falls; 0 leaves it constant.

    >>> import gdtx
    >>> lr = gdtx.inverse_power_schedule(1.0, power=0.5)
    >>> float(lr(0)), float(lr(3))
    (1.0, 0.5)
    """
    return lambda step: init_value * (1.0 * step + 1) ** -power


@schedule
def cosine_decay_schedule(
    init_value: Scalar, decay_steps: StepCount, alpha: Scalar = 0.0, exponent: Positive = 1.0
) -> Rule:
    r"""$s(t) = a\,((1 - \alpha)\,c^p + \alpha)$, $c = (1 + \cos(\pi \min(t/T, 1)))/2$.

    Args:
        init_value: $a$, the value at step 0.
        decay_steps: $T$; from then on the value is $\alpha a$.
        alpha: $\alpha$, the final value as a fraction of the first.
        exponent: $p$, power of the cosine; a larger one falls earlier.

    References:
        Loshchilov & Hutter 2017, SGDR: Stochastic Gradient Descent with Warm Restarts,
        arXiv:1608.03983.

    >>> import gdtx
    >>> round(float(gdtx.cosine_decay_schedule(1.0, decay_steps=10)(5)), 6)
    0.5
    """

    def at(step: jax.Array) -> jax.Array:
        # (1 + cos(pi f)) / 2 without its cancellation toward the end.
        cosine = jnp.sin(0.5 * jnp.pi * shares(step, decay_steps)[1]) ** 2
        return init_value * ((1 - alpha) * cosine**exponent + alpha)

    return at


@schedule_formula(cosine_decay_schedule)
def _(now: Moment, init_value: Any, decay_steps: Any, alpha: Any, exponent: Any) -> Expression:
    cosine = half_cosine(now.share(decay_steps))
    init_value = expression(init_value)
    return between(cosine if exponent == 1 else cosine**exponent, alpha * init_value, init_value)
