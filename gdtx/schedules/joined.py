"""Schedules made of others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .._kinds import Count, Positive, Scalar, StepCount, is_array, is_zero
from .._schedule import schedule
from .basic import Rule, cosine_decay_schedule, linear_schedule


@schedule
def join_schedules(schedules: Sequence[Callable[[Any], Any]], boundaries: Sequence[int]) -> Rule:
    r"""One schedule after the other, each counting from its own beginning.

    $s(t) = s_i(t - t_i)$ for $t_i \le t < t_{i+1}$, with $t_0 = 0$.

    Args:
        schedules: $s_0, s_1, \dots$, functions of the step.
        boundaries: $t_1, t_2, \dots$, increasing, one fewer than schedules.

    Raises:
        ValueError: if there is not one boundary fewer than schedules, or they do not increase.

    >>> import gdtx
    >>> both = gdtx.join_schedules([gdtx.linear_schedule(0.0, 1.0, 10), lambda t: 1.0 - t], [10])
    >>> float(both(5)), float(both(10)), float(both(11))
    (0.5, 1.0, 0.0)
    """
    if len(boundaries) != len(schedules) - 1:
        raise ValueError(
            f"join_schedules: {len(schedules)} schedules need {len(schedules) - 1} boundaries, "
            f"got {len(boundaries)}"
        )
    known = [boundary for boundary in boundaries if isinstance(boundary, int)]
    if known != sorted(set(known)):
        raise ValueError(f"join_schedules: boundaries must increase, got {known}")

    def at(step: jax.Array) -> jax.Array:
        value = jnp.asarray(schedules[0](step))
        for following, boundary in zip(schedules[1:], boundaries, strict=True):
            value = jnp.where(step < boundary, value, following(step - boundary))
        return value

    return at


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

    :func:`linear_schedule` over `warmup_steps`, then :func:`cosine_decay_schedule` over the rest.

    Args:
        init_value: value at step 0.
        peak_value: value at step `warmup_steps`.
        warmup_steps: length of the line.
        decay_steps: length of the whole, warmup included; `end_value` from then on.
        end_value: value at the end.
        exponent: as in :func:`cosine_decay_schedule`.

    Raises:
        ValueError: if `decay_steps` is not larger than `warmup_steps`.

    References:
        Goyal et al. 2017, Accurate, Large Minibatch SGD, arXiv:1706.02677 (warmup); Loshchilov &
        Hutter 2017, see :func:`cosine_decay_schedule`.

    >>> import gdtx
    >>> lr = gdtx.warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps=10, decay_steps=110)
    >>> float(lr(5)), float(lr(10)), float(lr(110))
    (0.5, 1.0, 0.0)
    """
    if not is_array(decay_steps) and decay_steps <= warmup_steps:
        raise ValueError(
            "warmup_cosine_decay_schedule: decay_steps must be larger than warmup_steps, got "
            f"{decay_steps} and {warmup_steps}"
        )
    # The peak may be 0 (a frozen group): its fraction is then 0 too, not undefined.
    alpha = 0.0 if is_zero(peak_value) else end_value / peak_value
    falling = cosine_decay_schedule(peak_value, decay_steps - warmup_steps, alpha, exponent)
    if warmup_steps == 0:
        return falling
    return join_schedules(
        [linear_schedule(init_value, peak_value, warmup_steps), falling], [warmup_steps]
    )
