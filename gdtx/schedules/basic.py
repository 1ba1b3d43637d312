"""Schedules that go from one value to another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import jax
import jax.numpy as jnp

from ..core.calls.kinds import SCALAR, Count, Kind, Positive, Scalar, StepCount, checked
from ..core.schedule import Rule, schedule
from ..formula import Expression, Moment, between, expression, pieces, schedule_formula

V = TypeVar("V")

Factors = Annotated[
    Mapping[Any, Any],
    Kind("a dict from steps to factors", lambda value: isinstance(value, Mapping)),
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


def shares(step: jax.Array, steps: Any, begin: Any = 0) -> tuple[jax.Array, jax.Array]:
    """The share of `steps` that is done, from 0 to 1, and the share that is left."""
    done = jnp.clip(step - begin, 0, steps)
    return 1.0 * done / steps, 1.0 * (steps - done) / steps


def passed(step: jax.Array, steps: Any, staircase: bool) -> jax.Array:
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
        value: $c$, the same at every step.

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
        transition_steps: $T$, the number of steps from one value to the other.
        transition_begin: $t_0$, the step at which the value starts to change.

    >>> import gdtx
    >>> line = gdtx.linear_schedule(1.0, 0.0, transition_steps=10)
    >>> float(line(0)), float(line(5)), float(line(10)), float(line(99))
    (1.0, 0.5, 0.0, 0.0)
    """

    def at(step: jax.Array) -> jax.Array:
        # Not init + (end - init) * done, which rounds a small value to the precision of a large.
        done, left = shares(step, transition_steps, transition_begin)
        return init_value * left + end_value * done

    return at


@schedule_formula(linear_schedule)
def _(
    now: Moment, init_value: Any, end_value: Any, transition_steps: Any, transition_begin: Any
) -> Expression:
    return between(now.share(transition_steps, transition_begin), init_value, end_value)


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
        power: $p$, 1 for a straight line; a larger one changes faster at first.
        transition_steps: $T$, the number of steps from one value to the other.
        transition_begin: $t_0$, the step at which the value starts to change.

    >>> import gdtx
    >>> float(gdtx.polynomial_schedule(1.0, 0.0, 2.0, transition_steps=10)(5))
    0.25
    """

    def at(step: jax.Array) -> jax.Array:
        share = shares(step, transition_steps, transition_begin)[1] ** power
        return init_value * share + end_value * (1 - share)

    return at


@schedule_formula(polynomial_schedule)
def _(
    now: Moment, init_value: Any, end_value: Any, power: Any, transition_steps: Any,
    transition_begin: Any,
) -> Expression:  # fmt: skip
    left = 1 - now.share(transition_steps, transition_begin)
    return between(left**power, end_value, init_value)


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


@schedule_formula(piecewise_constant_schedule)
def _(now: Moment, init_value: Any, boundaries_and_scales: Any) -> Expression:
    value, rows = expression(init_value), []
    for boundary, factor in sorted((boundaries_and_scales or {}).items()):
        rows.append((value, now.before(boundary)))
        value = value * factor
    return pieces(rows, value) if rows else value
