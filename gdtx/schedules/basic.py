"""Schedules that go from one value to another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import jax
import jax.numpy as jnp

from ..core.kinds import SCALAR, Count, Kind, NonNegative, Positive, Scalar, StepCount, checked
from ..core.schedule import Rule, schedule

V = TypeVar("V")

Factors = Annotated[
    Any, Kind("a dict from steps to factors", lambda value: isinstance(value, Mapping))
]


def choice(label: str, options: Mapping[str, V], name: str) -> V:
    """The option of this name, or an error that begins with `label` and lists them all."""
    if name not in options:
        names = " or ".join(map(repr, options))
        raise ValueError(f"{label} must be {names}, got {name!r}")
    return options[name]


# Counts are subtracted and divided with remainder before they become floats, which are exact to
# 2^24 only. Times 1.0, and not divided, because that makes a float as wide as what it is used
# with, not float32.


def _shares(step: jax.Array, steps: Any, begin: Any = 0) -> tuple[jax.Array, jax.Array]:
    """How much of `steps` is done, from 0 to 1, and how much is left."""
    done = jnp.clip(step - begin, 0, steps)
    return 1.0 * done / steps, 1.0 * (steps - done) / steps


def _passed(step: jax.Array, steps: Any, staircase: bool) -> jax.Array:
    """How often `steps` have passed, in full if it is a staircase."""
    return 1.0 * (step // steps) if staircase else 1.0 * step / steps


def exact_power(base: Any, exponent: jax.Array) -> jax.Array:
    """$r^x$; a number near 1 is not rounded before its power is taken, as `**` would do."""
    if isinstance(base, int | float):
        return jnp.exp(math.log(base) * exponent)
    return base**exponent


@schedule
def constant_schedule(value: Scalar) -> Rule:
    r"""$s(t) = c$ at every step.

    Args:
        value: $c$.

    >>> import gdtx
    >>> float(gdtx.constant_schedule(0.5)(100))
    0.5
    """
    return lambda step: 1.0 * value


@schedule
def linear_schedule(
    init_value: Scalar, end_value: Scalar, transition_steps: StepCount, transition_begin: Count = 0
) -> Rule:
    r"""$s(t) = a (1 - f) + b f$, $f = \min(\max((t - t_0)/T, 0), 1)$: a straight line.

    Args:
        init_value: $a$, the value until step $t_0$.
        end_value: $b$, the value from step $t_0 + T$ on.
        transition_steps: $T$.
        transition_begin: $t_0$.

    >>> import gdtx
    >>> line = gdtx.linear_schedule(1.0, 0.0, transition_steps=10)
    >>> float(line(0)), float(line(5)), float(line(10)), float(line(99))
    (1.0, 0.5, 0.0, 0.0)
    """

    def at(step: jax.Array) -> jax.Array:
        # Not init + (end - init) * done, which rounds a small value to the precision of a large.
        done, left = _shares(step, transition_steps, transition_begin)
        return init_value * left + end_value * done

    return at


@schedule
def polynomial_schedule(
    init_value: Scalar,
    end_value: Scalar,
    power: Positive,
    transition_steps: StepCount,
    transition_begin: Count = 0,
) -> Rule:
    r"""$s(t) = a (1 - f)^p + b (1 - (1 - f)^p)$, $f = \min(\max((t - t_0)/T, 0), 1)$.

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
        share = _shares(step, transition_steps, transition_begin)[1] ** power
        return init_value * share + end_value * (1 - share)

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
        init_value: $a$, the value until step $t_0$.
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
        done = _passed(jnp.maximum(step - transition_begin, 0), transition_steps, staircase)
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


@schedule
def inverse_time_decay(
    init_value: Scalar, transition_steps: StepCount, decay_rate: Positive, staircase: bool = False
) -> Rule:
    r"""$s(t) = a / (1 + r\,t / T)$: the $O(1/t)$ that the theory of stochastic descent asks for.

    Args:
        init_value: $a$, the value at step 0.
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
        return init_value / (1 + decay_rate * _passed(step, transition_steps, staircase))

    return at


@schedule
def inverse_power_schedule(init_value: Scalar, power: NonNegative) -> Rule:
    r"""$s(t) = a\,(1 + t)^{-p}$.

    With $p = 1/2$ the rates of online learning. One minus it, with $a = 1$, is a decay for averages
    that become longer: with $p = 1$ the plain mean of all so far.

    Args:
        init_value: $a$, the value at step 0.
        power: $p$.

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
        cosine = jnp.sin(0.5 * jnp.pi * _shares(step, decay_steps)[1]) ** 2
        return init_value * ((1 - alpha) * cosine**exponent + alpha)

    return at


def steps_and_factors(name: str, boundaries_and_scales: Mapping[int, Any] | None) -> dict[int, Any]:
    """Factors by the steps from which they apply, in order; they must not be negative."""
    label = f"{name}: a step of boundaries_and_scales"
    factors = {
        checked(label, boundary, SCALAR, False, schedules=False): factor
        for boundary, factor in (boundaries_and_scales or {}).items()
    }
    factors = dict(sorted(factors.items()))
    for boundary, factor in factors.items():
        if isinstance(factor, int | float) and not factor >= 0:
            raise ValueError(
                f"{name}: boundaries_and_scales[{boundary}] must be non-negative, got {factor!r}"
            )
    return factors


@schedule
def piecewise_constant_schedule(
    init_value: Scalar, boundaries_and_scales: Factors | None = None
) -> Rule:
    r"""A constant, multiplied by a factor from each of some steps on.

    $s(t) = a \prod_{i:\, t_i \le t} c_i$.

    Args:
        init_value: $a$, the value before the first boundary.
        boundaries_and_scales: from $t_i$ to $c_i$, none by default. The value at a boundary is
            scaled already; after the last it stays.

    Raises:
        ValueError: if a factor is negative.

    >>> import gdtx
    >>> steps = gdtx.piecewise_constant_schedule(1.0, {10: 0.5, 20: 0.5})
    >>> float(steps(9)), float(steps(10)), float(steps(20))
    (1.0, 0.5, 0.25)
    """
    factors = steps_and_factors("piecewise_constant_schedule", boundaries_and_scales)

    def at(step: jax.Array) -> Any:
        value = 1.0 * init_value
        for boundary, factor in factors.items():
            value = value * jnp.where(step < boundary, 1.0, factor)
        return value

    return at
