"""Schedules that go from one value to another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from .._kinds import Count, Positive, Scalar, StepCount
from .._schedule import schedule

Rule = Callable[[jax.Array], Any]


def _left(step: jax.Array, steps: Any, begin: Any = 0) -> jax.Array:
    """How much of `steps` is left at `step`, from 1 to 0."""
    # Counts are subtracted before they become floats, which are exact to 2^24 only. Times 1.0, and
    # not divided, because that makes a float as wide as what it is used with, not float32.
    return 1.0 * jnp.clip(steps - (step - begin), 0, steps) / steps


@schedule
def constant_schedule(value: Scalar) -> Rule:
    r"""$s(t) = c$.

    Args:
        value: $c$.

    >>> import gdtx
    >>> float(gdtx.constant_schedule(0.5)(100))
    0.5
    """
    return lambda step: value


@schedule
def linear_schedule(
    init_value: Scalar, end_value: Scalar, transition_steps: StepCount, transition_begin: Count = 0
) -> Rule:
    r"""A straight line from one value to another.

    :func:`polynomial_schedule` of power 1: `init_value` until `transition_begin`, `end_value`
    from `transition_begin + transition_steps` on.

    Args:
        init_value, end_value, transition_steps, transition_begin: as in
            :func:`polynomial_schedule`.

    >>> import gdtx
    >>> line = gdtx.linear_schedule(1.0, 0.0, transition_steps=10)
    >>> float(line(0)), float(line(5)), float(line(10)), float(line(99))
    (1.0, 0.5, 0.0, 0.0)
    """
    return polynomial_schedule(init_value, end_value, 1.0, transition_steps, transition_begin)


@schedule
def polynomial_schedule(
    init_value: Scalar,
    end_value: Scalar,
    power: Positive,
    transition_steps: StepCount,
    transition_begin: Count = 0,
) -> Rule:
    r"""$s(t) = b + (a - b)(1 - f)^p$, $f = \min(\max((t - t_0)/T, 0), 1)$.

    Args:
        init_value: $a$, the value until step $t_0$.
        end_value: $b$, the value from step $t_0 + T$ on.
        power: $p$.
        transition_steps: $T$.
        transition_begin: $t_0$.

    >>> import gdtx
    >>> float(gdtx.polynomial_schedule(1.0, 0.0, 2.0, transition_steps=10)(5))
    0.25
    """

    def at(step: jax.Array) -> jax.Array:
        left = _left(step, transition_steps, transition_begin)
        return (init_value - end_value) * left**power + end_value

    return at


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
        init_value: $a$.
        transition_steps: $T$, the steps in which the value changes by the factor $r$.
        decay_rate: $r$.
        transition_begin: $t_0$.
        staircase: whether to change every $T$ steps only, $\lfloor (t - t_0)/T \rfloor$.
        end_value: where to stop: the smallest value if $r < 1$, the largest if $r > 1$.

    >>> import gdtx
    >>> halving = gdtx.exponential_decay(1.0, transition_steps=10, decay_rate=0.5)
    >>> float(halving(0)), float(halving(20))
    (1.0, 0.25)
    """

    def at(step: jax.Array) -> jax.Array:
        done = 1.0 * jnp.maximum(step - transition_begin, 0) / transition_steps
        value = init_value * decay_rate ** (jnp.floor(done) if staircase else done)
        if end_value is None:
            return value
        bounded = jnp.where(
            jnp.asarray(decay_rate) < 1,
            jnp.maximum(value, end_value),
            jnp.minimum(value, end_value),
        )
        return bounded

    return at


@schedule
def inverse_time_decay(
    init_value: Scalar, transition_steps: StepCount, decay_rate: Positive, staircase: bool = False
) -> Rule:
    r"""$s(t) = a / (1 + r\,t / T)$: the $O(1/t)$ that the theory of stochastic descent asks for.

    Args:
        init_value: $a$.
        transition_steps: $T$.
        decay_rate: $r$.
        staircase: whether to change every $T$ steps only, $\lfloor t/T \rfloor$.

    References:
        Robbins & Monro 1951, A Stochastic Approximation Method.

    >>> import gdtx
    >>> float(gdtx.inverse_time_decay(1.0, transition_steps=1, decay_rate=1.0)(3))
    0.25
    """

    def at(step: jax.Array) -> jax.Array:
        done = 1.0 * step / transition_steps
        return init_value / (1 + decay_rate * (jnp.floor(done) if staircase else done))

    return at


@schedule
def cosine_decay_schedule(
    init_value: Scalar, decay_steps: StepCount, alpha: Scalar = 0.0, exponent: Positive = 1.0
) -> Rule:
    r"""$s(t) = a\,((1 - \alpha)\,c^p + \alpha)$, $c = (1 + \cos(\pi \min(t/T, 1)))/2$.

    Args:
        init_value: $a$, the value at step 0.
        decay_steps: $T$; from then on the value is $\alpha a$.
        alpha: $\alpha$, the final value as a fraction of the first.
        exponent: $p$.

    References:
        Loshchilov & Hutter 2017, SGDR: Stochastic Gradient Descent with Warm Restarts,
        arXiv:1608.03983.

    >>> import gdtx
    >>> round(float(gdtx.cosine_decay_schedule(1.0, decay_steps=10)(5)), 6)
    0.5
    """

    def at(step: jax.Array) -> jax.Array:
        # (1 + cos(pi f)) / 2 without its cancellation toward the end.
        cosine = jnp.sin(0.5 * jnp.pi * _left(step, decay_steps)) ** 2
        return init_value * ((1 - alpha) * cosine**exponent + alpha)

    return at


@schedule
def piecewise_constant_schedule(
    init_value: Scalar, boundaries_and_scales: Mapping[int, float] | None = None
) -> Rule:
    r"""A constant, multiplied by a factor from each of some steps on.

    $s(t) = a \prod_{i:\, t_i \le t} c_i$.

    Args:
        init_value: $a$.
        boundaries_and_scales: from $t_i$ to $c_i$, none by default.

    Raises:
        ValueError: if a factor is negative.

    >>> import gdtx
    >>> steps = gdtx.piecewise_constant_schedule(1.0, {10: 0.5, 20: 0.5})
    >>> float(steps(9)), float(steps(10)), float(steps(20))
    (1.0, 0.5, 0.25)
    """
    factors = dict(boundaries_and_scales or {})
    for boundary, factor in factors.items():
        if isinstance(factor, int | float) and factor < 0:
            raise ValueError(
                f"piecewise_constant_schedule: boundaries_and_scales[{boundary}] must be "
                f"non-negative, got {factor!r}"
            )

    def at(step: jax.Array) -> Any:
        value = init_value
        for boundary, factor in factors.items():
            value = value * jnp.where(step < boundary, 1.0, factor)
        return value

    return at
