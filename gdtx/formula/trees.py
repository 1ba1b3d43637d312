"""What notebooks show of what is made of parts, and of schedules: trees and formulas, in HTML."""

from __future__ import annotations

import html
from typing import Any

from ..core.calls.text import one_line, taken_apart
from ..core.calls.views import show_with
from ..core.schedule import Schedule
from ..core.transformation import GradientTransformation
from .latex import show
from .notebook import displayed
from .rewriting import t
from .schedules import Moment


@show_with
def tree(tx: Any) -> str | None:
    """The formula of a transformation made of others, and its parts with formulas that fold.

    >>> import gdtx
    >>> tree(gdtx.adam(0.1)) is None  # its parts have no names in the call: `expand` has them
    True
    >>> tree(gdtx.expand(gdtx.adam(0.1))).count("<details")
    3
    """
    if not isinstance(tx, GradientTransformation) or not any(map(_has_some, _inside(tx))):
        return None
    return _math(displayed(tx)) + _part("", tx)


@show_with
def rate(schedule: Any) -> str | None:
    """The formula of a schedule."""
    return _math(rate_formula(schedule)) if isinstance(schedule, Schedule) else None


def rate_formula(schedule: Schedule) -> str:
    r"""The formula of a schedule in LaTeX, $t$ being the number of updates done.

    >>> import gdtx
    >>> print(rate_formula(gdtx.inverse_time_decay(0.1, 1, 1.0)))
    s(t) = \frac{0.1}{1 + t}
    """
    return f"s(t) = {show(Moment(t).value(schedule))}"


def _part(name: str, value: Any) -> str:
    """One part of a call, after the name of its argument, with what is inside it."""
    opening, parts, closing = taken_apart(value)
    if not any(_has_some(part) for _, part in parts):
        head = _code(name + one_line(value))
        if not isinstance(value, GradientTransformation):
            return f"<div>{head}</div>"
        return f"<details><summary>{head}</summary>{_math(displayed(value))}</details>"
    plain = [label + one_line(part) for label, part in parts if not _has_some(part)]
    head = _code(f"{name}{opening}{', '.join([*plain, '…'])}{closing}")
    below = "".join(_part(label, part) for label, part in parts if _has_some(part))
    return (
        f"<details open><summary>{head}</summary>"
        f'<div style="padding-left: 1.5em">{below}</div></details>'
    )


def _has_some(value: Any) -> bool:
    """Whether a transformation is in a value, or the value is one."""
    return isinstance(value, GradientTransformation) or any(map(_has_some, _inside(value)))


def _inside(value: Any) -> list[Any]:
    return [part for _, part in taken_apart(value)[1]]


def _math(latex: str) -> str:
    return f'<div class="math">$${html.escape(latex, quote=False)}$$</div>'


def _code(text: str) -> str:
    return f"<code>{html.escape(text)}</code>"
