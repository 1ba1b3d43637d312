"""Schedules made of others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core.calls.kinds import NON_NEGATIVE, STEP_FUNCTION, Scalar, checked, one_of
from ..core.numbers.values import at_hand
from ..core.schedule import Rule, Schedule, schedule
from ..formula import Expression, Moment, pieces, schedule_formula
from .basic import Factors, constant_schedule, linear_schedule, steps_and_factors
from .decay import cosine_decay_schedule


@schedule
def join_schedules(schedules: Sequence[Callable[[Any], Any]], boundaries: Sequence[int]) -> Rule:
    r"""One schedule after the other, each counting from its own beginning.

    $s(t) = s_i(t - t_i)$ for $t_i \le t < t_{i+1}$, with $t_0 = 0$.

    Args:
        schedules: $s_0, s_1, \dots$, functions of the step.
        boundaries: $t_1, t_2, \dots$, numbers that increase, one fewer than schedules.

    Raises:
        ValueError: if there is not one boundary fewer than schedules, they do not increase, or one
            is negative.
        TypeError: if a schedule is not a function, or a boundary is not a number.

    >>> import gdtx
    >>> both = gdtx.join_schedules([gdtx.linear_schedule(0.0, 1.0, 10), lambda t: 1.0 - t], [10])
    >>> float(both(5)), float(both(10)), float(both(11))
    (0.5, 1.0, 0.0)
    """
    for i, piece in enumerate(schedules):
        checked(f"join_schedules: schedules[{i}]", piece, STEP_FUNCTION, False, schedules=False)
    if len(boundaries) != len(schedules) - 1:
        raise ValueError(
            f"join_schedules: {len(schedules)} schedules need {len(schedules) - 1} boundaries, "
            f"got {len(boundaries)}"
        )
    boundaries = [
        checked(f"join_schedules: boundaries[{i}]", boundary, NON_NEGATIVE, False, schedules=False)
        for i, boundary in enumerate(boundaries)
    ]
    known = [x for boundary in boundaries for x in np.ravel(at_hand(boundary)).tolist()]
    if known != sorted(set(known)) or min(known, default=0) < 0:
        raise ValueError(f"join_schedules: boundaries must increase from 0 on, got {known}")

    def at(step: jax.Array) -> jax.Array:
        def within(i: int) -> jax.Array:
            begin = boundaries[i - 1] if i else 0
            inside = step >= begin
            if i < len(boundaries):
                inside &= step < boundaries[i]
            # Elsewhere it may be infinite, and a derivative through it not a number.
            return jnp.asarray(schedules[i](jnp.where(inside, step - begin, 0)))

        value = within(0)
        for i, boundary in enumerate(boundaries, start=1):
            value = jnp.where(step < boundary, value, within(i))
        return value

    return at


@schedule_formula(join_schedules)
def _(now: Moment, schedules: Any, boundaries: Any) -> Expression:
    begins = (0, *boundaries)
    values = [
        now.after(begin, until).value(each)
        for each, begin, until in zip(schedules, begins, [*boundaries, None], strict=True)
    ]
    rows = [(value, now.before(until)) for value, until in zip(values, boundaries, strict=False)]
    return pieces(rows, values[-1]) if rows else values[0]


def _cosine(start: Any, end: Any, steps: Any) -> Schedule:
    share = cosine_decay_schedule(1.0, steps)
    return share * start + (1 - share) * end


# From one value to another in a number of steps.
interpolations: dict[str, Callable[[Any, Any, Any], Rule]] = {
    "linear": linear_schedule,
    "cosine": _cosine,
}
Interpolation = Annotated[str, one_of(*interpolations)]


def interpolated(interpolate_type: str, values: Sequence[Any], boundaries: Sequence[int]) -> Rule:
    """From the first value at step 0 to each other at its boundary; equal boundaries jump."""
    between = interpolations[interpolate_type]
    pieces, ends = [], []
    for (start, end), (begin, until) in zip(
        pairwise(values), pairwise((0, *boundaries)), strict=True
    ):
        if begin != until:
            pieces.append(between(start, end, until - begin))
            ends.append(until)
    return join_schedules([*pieces, constant_schedule(values[-1])], ends)


@schedule
def piecewise_interpolate_schedule(
    interpolate_type: Interpolation,
    init_value: Scalar,
    boundaries_and_scales: Factors | None = None,
) -> Rule:
    r"""Lines or cosines through a value that is multiplied by a factor from step to step.

    $s(t_i) = a \prod_{j \le i} c_j$, and for $t_i \le t < t_{i+1}$

    $$s(t) = s(t_i)\,w + s(t_{i+1})\,(1 - w), \quad w = 1 - f \text{ or } (1 + \cos \pi f)/2, \quad
    f = (t - t_i) / (t_{i+1} - t_i).$$

    Args:
        interpolate_type: the form between two values, "linear" or "cosine".
        init_value: $a$, the value at step $t_0 = 0$.
        boundaries_and_scales: from $t_i$ to $c_i$, none by default. The value at a boundary is
            scaled already; after the last it stays.

    Raises:
        ValueError: for another interpolation, a negative boundary or a negative factor.

    >>> import gdtx
    >>> down = gdtx.piecewise_interpolate_schedule("linear", 1.0, {4: 0.5, 8: 0.0})
    >>> [float(down(t)) for t in (0, 2, 4, 6, 8, 99)]
    [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    name = "piecewise_interpolate_schedule"
    values = [init_value]
    factors = steps_and_factors(name, boundaries_and_scales)
    for boundary, factor in factors.items():
        if boundary < 0:
            raise ValueError(
                f"{name}: boundaries_and_scales must not begin before step 0, got {boundary}"
            )
        values.append(values[-1] * factor)
    return interpolated(interpolate_type, values, list(factors))
