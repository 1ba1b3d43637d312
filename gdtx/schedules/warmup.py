"""Schedules that begin with a line up to their peak."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from ..core.calls.kinds import Count, Positive, Scalar, StepCount, one_of
from ..core.numbers.numerics import sqrt
from ..core.numbers.values import is_array
from ..core.schedule import Rule, schedule, shift_schedule
from ..formula import Expression, Moment, apply, at_hand, between, schedule_formula
from .basic import constant_schedule, linear_schedule
from .decay import cosine_decay_schedule, exponential_decay
from .joined import interpolations, join_schedules


def _warmed_up(
    init_value: Any, peak_value: Any, warmup_steps: Any, then: Callable[[jax.Array], Any]
) -> Rule:
    if not is_array(warmup_steps) and warmup_steps == 0:
        return then
    return join_schedules(
        [linear_schedule(init_value, peak_value, warmup_steps), then], [warmup_steps]
    )


@schedule
def warmup_constant_schedule(init_value: Scalar, peak_value: Scalar, warmup_steps: Count) -> Rule:
    r"""A line up to the peak, which is then held.

    $s(t) = a + (b - a) \min(t / W, 1)$: :func:`linear_schedule`.

    Args:
        init_value: $a$, the value at step 0, if there is a warmup at all.
        peak_value: $b$, the value from step $W$ on.
        warmup_steps: $W$, length of the line.

    References:
        Goyal et al. 2017, Accurate, Large Minibatch SGD, arXiv:1706.02677.

    >>> import gdtx
    >>> warmup = gdtx.warmup_constant_schedule(0.0, 1.0, warmup_steps=10)
    >>> float(warmup(0)), float(warmup(5)), float(warmup(10)), float(warmup(99))
    (0.0, 0.5, 1.0, 1.0)
    """
    return _warmed_up(init_value, peak_value, warmup_steps, constant_schedule(peak_value))


@schedule
def warmup_cosine_decay_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: Count,
    decay_steps: StepCount,
    end_value: Scalar = 0.0,
    exponent: Positive = 1.0,
) -> Rule:
    r"""A line up to the peak, then a cosine down.

    $s(t) = a + (b - a)\,t/W$ before step $W$, and from then on $b\,c^p + e\,(1 - c^p)$ with
    $c = (1 + \cos(\pi \min((t - W)/(T - W), 1)))/2$: :func:`linear_schedule` and
    :func:`cosine_decay_schedule`.

    Args:
        init_value: $a$, the value at step 0, if there is a warmup at all.
        peak_value: $b$, the value at step $W$.
        warmup_steps: $W$, length of the line.
        decay_steps: $T$, length of the whole, warmup included.
        end_value: $e$, the value from step $T$ on.
        exponent: $p$, power of the cosine; a larger one falls earlier.

    Raises:
        ValueError: if `decay_steps` is not larger than `warmup_steps`.

    References:
        Goyal et al. 2017, see :func:`warmup_constant_schedule`; Loshchilov & Hutter 2017, see
        :func:`cosine_decay_schedule`.

    >>> import gdtx
    >>> lr = gdtx.warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps=10, decay_steps=110)
    >>> float(lr(0)), float(lr(5)), float(lr(10)), float(lr(110)), float(lr(999))
    (0.0, 0.5, 1.0, 0.0, 0.0)
    """
    if not is_array(decay_steps) and decay_steps <= warmup_steps:
        raise ValueError(
            "warmup_cosine_decay_schedule: decay_steps must be larger than warmup_steps, got "
            f"{decay_steps} and {warmup_steps}"
        )
    share = cosine_decay_schedule(1.0, decay_steps - warmup_steps, exponent=exponent)
    falling = share * peak_value + (1 - share) * end_value
    return _warmed_up(init_value, peak_value, warmup_steps, falling)


@schedule
def warmup_exponential_decay_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: Count,
    transition_steps: StepCount,
    decay_rate: Positive,
    transition_begin: Count = 0,
    staircase: bool = False,
    end_value: Scalar | None = None,
) -> Rule:
    r"""A line up to the peak, then an exponential decay.

    $s(t) = a + (b - a)\,t/W$ before step $W$, and $b\,r^{(t - W - t_0)/T}$ from step $W + t_0$ on:
    :func:`linear_schedule` and :func:`exponential_decay`.

    Args:
        init_value: $a$, the value at step 0, if there is a warmup at all.
        peak_value: $b$, the value from step $W$ to $W + t_0$.
        warmup_steps: $W$, length of the line.
        transition_steps: $T$, the steps in which the value changes by the factor $r$.
        decay_rate: $r$, factor of the value in $T$ steps.
        transition_begin: $t_0$, counted from the end of the warmup.
        staircase: whether to change every $T$ steps only.
        end_value: where to stop: the smallest value if $r < 1$, the largest if $r > 1$.

    References:
        Goyal et al. 2017, see :func:`warmup_constant_schedule`.

    >>> import gdtx
    >>> lr = gdtx.warmup_exponential_decay_schedule(0.0, 1.0, 10, 5, 0.5, end_value=0.125)
    >>> float(lr(0)), float(lr(5)), float(lr(10)), float(lr(15)), float(lr(99))
    (0.0, 0.5, 1.0, 0.5, 0.125)
    """
    decay = exponential_decay(
        peak_value, transition_steps, decay_rate, transition_begin, staircase, end_value
    )
    return _warmed_up(init_value, peak_value, warmup_steps, decay)


@schedule
def _root(start: Scalar, end: Scalar, steps: StepCount) -> Rule:
    line = linear_schedule(0.0, 1.0, steps)

    def at(step: jax.Array) -> jax.Array:
        share = sqrt(line(step))
        return start * (1 - share) + end * share

    return at


@schedule_formula(_root)
def _(now: Moment, start: Any, end: Any, steps: Any) -> Expression:
    share = now.share(steps)
    return between(share if at_hand(share) == 0 else apply("root", share), start, end)


_FORMS = {**interpolations, "sqrt": _root}


@schedule
def warmup_stable_decay_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: Count,
    stable_steps: Count,
    decay_steps: StepCount,
    end_value: Scalar = 0.0,
    decay_type: Annotated[str, one_of(*_FORMS)] = "linear",
) -> Rule:
    r"""A line up to the peak, the peak for long, then a short way down (WSD).

    $s(t) = a + (b - a)\,t/W$ before step $W$, $b$ for $S$ steps, and then with
    $f = \min((t - W - S)/D, 1)$

    $$s(t) = b\,(1 - d) + e\,d, \quad d = f, \; (1 - \cos \pi f)/2 \text{ or } \sqrt{f}.$$

    Where to stop need not be known from the start: training may branch off at any step of the
    plateau. All three lengths count from the end of the one before, `decay_steps` too.

    Args:
        init_value: $a$, the value at step 0, if there is a warmup at all.
        peak_value: $b$, the value from step $W$ to $W + S$.
        warmup_steps: $W$, length of the line up.
        stable_steps: $S$, length of the plateau.
        decay_steps: $D$, length of the way down.
        end_value: $e$, the value from step $W + S + D$ on.
        decay_type: "linear", "cosine" or "sqrt".

    Raises:
        ValueError: for another decay.

    References:
        Hu et al. 2024, MiniCPM: Unveiling the Potential of Small Language Models with Scalable
        Training Strategies, arXiv:2404.06395; Hägele et al. 2024, Scaling Laws and Compute-Optimal
        Training Beyond Fixed Training Durations, arXiv:2405.18392 (the forms of the decay).

    >>> import gdtx
    >>> lr = gdtx.warmup_stable_decay_schedule(0.0, 1.0, 10, 80, 10)
    >>> float(lr(0)), float(lr(5)), float(lr(10)), float(lr(90)), float(lr(95)), float(lr(100))
    (0.0, 0.5, 1.0, 1.0, 0.5, 0.0)
    """
    falling = shift_schedule(_FORMS[decay_type](peak_value, end_value, decay_steps), stable_steps)
    return _warmed_up(init_value, peak_value, warmup_steps, falling)


@schedule
def inverse_sqrt_schedule(init_value: Scalar, peak_value: Scalar, warmup_steps: StepCount) -> Rule:
    r"""A line up to the peak, then a decay with the root of the step.

    $s(t) = a + (b - a)\,t/W$ before step $W$, and $b\,\sqrt{W/t}$ from then on.

    The schedule of Vaswani et al., $d^{-1/2} \min(t^{-1/2}, t\,W^{-3/2})$, whose $t$ is 1 on the
    first update, is `inverse_sqrt_schedule(0.0, (d * W) ** -0.5, W).shift(-1)`.

    Args:
        init_value: $a$, the value at step 0.
        peak_value: $b$, the value at step $W$; half of it is left at $4W$.
        warmup_steps: $W$, length of the line.

    References:
        Vaswani et al. 2017, Attention Is All You Need, arXiv:1706.03762, section 5.3.

    >>> import gdtx
    >>> lr = gdtx.inverse_sqrt_schedule(0.0, 1.0, warmup_steps=10)
    >>> float(lr(0)), float(lr(5)), float(lr(10)), float(lr(40)), float(lr(1000))
    (0.0, 0.5, 1.0, 0.5, 0.10000000149011612)
    """
    return _warmed_up(init_value, peak_value, warmup_steps, _inverse_root(peak_value, warmup_steps))


@schedule
def _inverse_root(peak_value: Scalar, steps: StepCount) -> Rule:
    return lambda step: peak_value * jnp.sqrt(steps / (1.0 * step + steps))


@schedule_formula(_inverse_root)
def _(now: Moment, peak_value: Any, steps: Any) -> Expression:
    return peak_value * apply("root", steps / (now.step + steps))
