"""Schedules that rise and fall: cycles, restarts, and one cycle for a whole training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from ..core.calls.kinds import Kind, Positive, Scalar, StepCount, one_of
from ..core.errors import calling
from ..core.schedule import Rule, schedule
from ..formula import Expression, Moment, apply, between, expression, schedule_formula
from .basic import exact_power
from .joined import join_schedules
from .warmup import warmup_cosine_decay_schedule

Cycles = Annotated[
    Sequence[Mapping[str, Any]],
    Kind(
        "a sequence of dicts, the arguments of each cycle",
        lambda value: isinstance(value, Sequence) and all(isinstance(x, Mapping) for x in value),
    ),
]

# Each makes its own, so that only the one asked for is computed.
_AMPLITUDES = {
    "triangular": lambda cycle, step, gamma: 1.0,
    "triangular2": lambda cycle, step, gamma: exact_power(0.5, 1.0 * cycle),
    "exp_range": lambda cycle, step, gamma: exact_power(gamma, 1.0 * step),
}


@schedule
def cyclic_schedule(
    base_value: Scalar,
    peak_value: Scalar,
    step_size: StepCount,
    mode: Annotated[str, one_of(*_AMPLITUDES)] = "triangular",
    gamma: Positive = 1.0,
) -> Rule:
    r"""Up and down on straight lines, again and again.

    $s(t) = a + (b - a)\,\max(0, 1 - x)\,A(t)$ with

    $$x = |t/h - 2c + 1|, \quad c = \lfloor 1 + t/(2h) \rfloor, \quad
    A(t) = 1, \; 2^{1 - c} \text{ or } \gamma^t.$$

    Args:
        base_value: $a$, the value at step 0 and every $2h$ steps.
        peak_value: $b$, the value at step $h$.
        step_size: $h$, half a cycle.
        mode: which $A$: "triangular", every peak as high; "triangular2", each half as high above
            the base as the last; "exp_range", an exponential decay in between too.
        gamma: $\gamma$ of "exp_range". The base stays, as in most implementations; the paper lets
            it decay too, which is `cyclic_schedule(a, b, h) * exponential_decay(1.0, 1, gamma)`.

    Raises:
        ValueError: for another mode.

    References:
        Smith 2017, Cyclical Learning Rates for Training Neural Networks, arXiv:1506.01186.

    >>> import gdtx
    >>> lr = gdtx.cyclic_schedule(0.0, 1.0, step_size=10, mode="triangular2")
    >>> [float(lr(t)) for t in (0, 5, 10, 20, 30, 40, 50)]
    [0.0, 0.5, 1.0, 0.0, 0.5, 0.0, 0.25]
    """
    amplitude = _AMPLITUDES[mode]

    def at(step: jax.Array) -> jax.Array:
        halves, rest = jnp.divmod(step, step_size)
        height = 1.0 * jnp.where(halves % 2 == 0, rest, step_size - rest) / step_size
        height = height * amplitude(halves // 2, step, gamma)
        return base_value * (1 - height) + peak_value * height

    return at


@schedule_formula(cyclic_schedule)
def _(
    now: Moment, base_value: Any, peak_value: Any, step_size: Any, mode: str, gamma: Any
) -> Expression:
    within = apply("mod", now.step, 2 * expression(step_size))
    height = 1 - abs(within / step_size - 1)
    if mode == "triangular2":
        height = height / expression(2) ** apply("floor", now.step / (2 * expression(step_size)))
    elif mode == "exp_range":
        height = height * expression(gamma) ** now.step
    return between(height, base_value, peak_value)


@schedule
def sgdr_schedule(cosine_kwargs: Cycles) -> Rule:
    r"""Cosine decays one after the other: descent with warm restarts.

    $s(t) = s_i(t - t_i)$ for $t_i \le t < t_{i+1}$, with $t_i$ the sum of the lengths before.

    :func:`warmup_cosine_decay_schedule`, joined.

    Args:
        cosine_kwargs: for each cycle the arguments of :func:`warmup_cosine_decay_schedule`, a
            dict; its `decay_steps` is the length of the cycle. The value at a restart is already
            the next cycle's; past the last, its `end_value`.

    Raises:
        ValueError: if there is no cycle.

    References:
        Loshchilov & Hutter 2017, SGDR: Stochastic Gradient Descent with Warm Restarts,
        arXiv:1608.03983.

    >>> import gdtx
    >>> cycle = {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 0}
    >>> lr = gdtx.sgdr_schedule([{**cycle, "decay_steps": 10}, {**cycle, "decay_steps": 20}])
    >>> [round(float(lr(t)), 6) for t in (0, 5, 10, 20, 30, 99)]
    [1.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    """
    if not cosine_kwargs:
        raise ValueError("sgdr_schedule: cosine_kwargs must hold a dict per cycle, got none")
    cycles = []
    for i, kwargs in enumerate(cosine_kwargs):
        with calling(f"cosine_kwargs[{i}]"):
            cycles.append(warmup_cosine_decay_schedule(**kwargs))
    *restarts, _ = accumulate(kwargs["decay_steps"] for kwargs in cosine_kwargs)
    return join_schedules(cycles, restarts)
