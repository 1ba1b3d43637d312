"""Schedules, drawn."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..core.calls.call import Call
from ..core.calls.text import show
from ..core.numbers.values import is_array
from ..core.schedule import Schedule
from ..schedules.basic import constant_schedule

Rule = Callable[[Any], Any]


def schedule_values(schedule: Any, steps: Any) -> Any:
    """What a schedule is at each step.

    Args:
        schedule: function of the step; or several, as a list or a dict by label.
        steps: how many, from 0 on; or which, as an array of integers.

    Returns:
        An array of the values; of several schedules, a dict of them by label. A list is labelled
        by the schedules' names, with the arguments in which those of one name differ.

    >>> import gdtx
    >>> gdtx.schedule_values(gdtx.linear_schedule(0.0, 1.0, 4), 6)
    array([0.  , 0.25, 0.5 , 0.75, 1.  , 1.  ], dtype=float32)
    """
    if not callable(schedule):
        return {name: schedule_values(rule, steps) for name, rule in _labelled(schedule).items()}
    at = jnp.arange(steps) if isinstance(steps, int) else jnp.asarray(steps)
    return np.asarray(jax.vmap(lambda step: jnp.asarray(schedule(step)))(at))


def plot_schedule(schedule: Any, steps: int, ax: Any = None) -> Any:
    """Draw schedules over the steps, with marks where warmups, parts and the whole end.

    One schedule's name is at the axis; several have a legend.

    Marks are read from the arguments of the schedules, and of schedules among those. Needs
    matplotlib, which the extra `viz` installs.

    Args:
        schedule: function of the step; or several, as a list or a dict by label.
        steps: how many, from 0 on.
        ax: axes of matplotlib to draw on, new ones by default.

    Returns:
        The axes; nothing is shown or saved.

    Raises:
        ImportError: if matplotlib is not installed.

    >>> import gdtx
    >>> ax = gdtx.plot_schedule(gdtx.warmup_cosine_decay_schedule(0.0, 1.0, 10, 100), 120)
    >>> ax.get_xlabel()
    'step'
    """
    ax = new_axes("plot_schedule") if ax is None else ax
    rules = {_name(schedule): schedule} if callable(schedule) else _labelled(schedule)
    for label, rule in rules.items():
        values = schedule_values(rule, steps)
        (line,) = ax.plot(values, label=label)
        for step, what in milestones(rule).items():
            if step >= steps:
                continue
            ax.axvline(step, color=line.get_color(), linestyle=":", linewidth=1, zorder=0)
            if len(rules) == 1:
                # Of several schedules, the labels would lie on each other. On the side of the axes
                # where the curve is not.
                top = 2 * values[step] < values.min() + values.max()
                ax.annotate(
                    f"{what} {step}", (step, int(top)), xycoords=("data", "axes fraction"),
                    xytext=(-3, -4 if top else 4), textcoords="offset points", rotation=90,
                    size="small", ha="right", va="top" if top else "bottom",
                    color=line.get_color(),
                )  # fmt: skip
    ax.set_xlabel("step")
    ax.set_ylabel("value" if len(rules) > 1 else next(iter(rules)))
    ax.margins(x=0.02)
    if len(rules) > 1:
        ax.legend()
    return ax


def new_axes(who: str, rows: int = 1, columns: int = 1, size: Any = None) -> Any:
    """Axes on a new figure, an array of them if several, or an error that says what to install."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            f"{who} needs matplotlib: pip install matplotlib (the extra `viz`)"
        ) from error
    return pyplot.subplots(rows, columns, figsize=size, layout="constrained")[1]


def milestones(schedule: Any) -> dict[int, str]:
    """The steps at which a schedule changes its course, with what ends or begins there.

    >>> import gdtx
    >>> milestones(gdtx.warmup_cosine_decay_schedule(0.0, 1.0, 10, 110))
    {10: 'warmup', 110: 'end'}
    """
    found: dict[int, str] = {}
    for step, what in _milestones(schedule):
        # The outer schedule knows better what its parts are for.
        found.setdefault(step, what)
    return {step: found[step] for step in sorted(found) if step > 0}


def _milestones(schedule: Any) -> Iterator[tuple[int, str]]:
    if not isinstance(schedule, Schedule):
        return
    given = schedule.arguments
    known = {name: int(value) for name, value in given.items() if _is_count(value)}
    if "warmup_steps" in known:
        yield known["warmup_steps"], "warmup"
    # What it is made of tells the same of all: `decay_steps` are the whole here, a part there.
    expression = schedule.body(given)
    if isinstance(expression, Schedule):
        yield from _milestones(expression)
    elif "schedules" in given:
        yield from _joined(given["schedules"], given["boundaries"])
    elif any(isinstance(value, Schedule) for value in given.values()):
        shift = known.get("steps", 0)
        yield shift, "begin"
        for part in given.values():
            yield from ((shift + step, what) for step, what in _milestones(part))
    else:
        yield from _own(given, known)


def _joined(parts: Sequence[Any], boundaries: Sequence[Any]) -> Iterator[tuple[int, str]]:
    if not all(map(_is_count, boundaries)):
        return
    begins = [0, *map(int, boundaries)]
    for part, begin, until in zip(parts, begins, [*begins[1:], math.inf], strict=True):
        holds = isinstance(part, Schedule) and part.factory is constant_schedule
        yield begin, "end" if holds and until == math.inf else "boundary"
        marks = ((begin + step, what) for step, what in _milestones(part))
        yield from ((step, what) for step, what in marks if begin < step < until)


def _own(given: Mapping[str, Any], known: Mapping[str, int]) -> Iterator[tuple[int, str]]:
    begin = known.get("transition_begin", 0)
    yield begin, "begin"
    if "decay_steps" in known:
        yield known["decay_steps"], "end"
    if "transition_steps" in known and "decay_rate" not in given:
        # With a rate of decay they are a unit of time, after which nothing ends.
        yield begin + known["transition_steps"], "end"
    if "step_size" in known:
        yield known["step_size"], "peak"
        yield 2 * known["step_size"], "cycle"
    yield from ((int(step), "boundary") for step in given.get("boundaries_and_scales") or ())


def _is_count(value: Any) -> bool:
    if is_array(value):
        return value.shape == () and not isinstance(value, Tracer)
    return isinstance(value, int | float) and not isinstance(value, bool)


def _labelled(schedules: Mapping[str, Rule] | Sequence[Rule]) -> dict[str, Rule]:
    if isinstance(schedules, Mapping):
        return {str(label): rule for label, rule in schedules.items()}
    names = Counter(map(_name, schedules))
    labelled: dict[str, Rule] = {}
    for rule in schedules:
        label = _name(rule)
        if names[label] > 1:
            label = _distinct(rule, [other for other in schedules if _name(other) == label])
        while label in labelled:
            label += "'"
        labelled[label] = rule
    return labelled


def _name(rule: Rule | Call) -> str:
    if isinstance(rule, Call):
        return rule.signature.name
    return getattr(rule, "__name__", None) or repr(rule)


def _distinct(rule: Rule, alike: Sequence[Rule]) -> str:
    """The name with those arguments in which schedules of the same name differ."""
    calls = [other for other in alike if isinstance(other, Call)]
    if not isinstance(rule, Call) or len(calls) < len(alike):
        return _name(rule)
    shown = [
        f"{name}={show(value)}"
        for name, value in rule.arguments.items()
        if any(show(other.arguments.get(name)) != show(value) for other in calls)
    ]
    return f"{rule.signature.name}({', '.join(shown)})"
