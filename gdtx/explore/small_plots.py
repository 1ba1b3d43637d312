"""Schedules drawn small, below their formulas in notebooks."""

from __future__ import annotations

import base64
import contextlib
import html
import io
from typing import Any

import numpy as np

from ..core.calls.views import show_with
from ..core.schedule import Schedule
from .plots import milestones, schedule_values

_POINTS = 200
_STEPS = 100
"""How many steps are drawn of a schedule in which nothing begins or ends."""


@show_with
def picture(schedule: Any) -> str | None:
    """A plot of a schedule up to a while after its last change, if matplotlib is installed.

    >>> import gdtx
    >>> shown = picture(gdtx.cosine_decay_schedule(0.1, 1000))
    >>> shown[:37], shown.partition(" alt")[2]
    ('<div><img src="data:image/png;base64,', '="cosine_decay_schedule over 1200 steps"></div>')
    """
    if not isinstance(schedule, Schedule):
        return None
    # What users wrote may refuse an array of steps, and the picture is only beside the formula.
    with contextlib.suppress(Exception):
        last = round(1.2 * max(milestones(schedule), default=_STEPS / 1.2))
        alt = f"{schedule.signature.name} over {last} steps"
        source = base64.b64encode(_drawn(schedule, last)).decode()
        return f'<div><img src="data:image/png;base64,{source}" alt="{html.escape(alt)}"></div>'
    return None


def _drawn(schedule: Schedule, last: int) -> bytes:
    from matplotlib import style
    from matplotlib.figure import Figure

    steps = np.unique(np.linspace(0, last, _POINTS).astype(int))
    with style.context("gdtx.explore.gdtx"):
        figure = Figure(figsize=(3.2, 1.4), dpi=100)
        axes = figure.subplots()
        axes.plot(steps, schedule_values(schedule, steps))
        axes.set(xlabel="step", ylabel="value")
        into = io.BytesIO()
        figure.savefig(into, format="png", dpi=100)
    return into.getvalue()
