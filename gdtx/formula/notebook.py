"""What a notebook shows of a transformation: its formula, and the values of its letters."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from jax.core import Tracer

from ..core.calls.call import Call
from ..core.numbers.values import is_array
from ..core.schedule import clip_schedule, merge_schedules, shift_schedule
from ..core.transformation import GradientTransformation, write_formulas_with
from ..core.trees.short import short
from .expression import Symbol, expression
from .latex import show, written
from .notation import escaped
from .reader import Formula, formula
from .rewriting import contains

_WIDTH = 50
"""Letters in a row."""
_FEW = 4
"""As many numbers of an array as are shown one by one."""
_UNNAMED = merge_schedules, shift_schedule, clip_schedule
"""What the operators of schedules make: no name that a user gave."""


def displayed(tx: GradientTransformation) -> str:
    r"""The formula of a transformation in LaTeX, and below it what its letters stand for.

    >>> import gdtx
    >>> print(displayed(gdtx.sgd(0.1, momentum=0.9)))
    \begin{gathered}
    \begin{aligned}
    v_0 &= 0 \\
    v_t &= \mu v_{t-1} + g_t \\
    \theta_t &= \theta_{t-1} - \eta v_t
    \end{aligned} \\[1ex]
    \eta = 0.1, \quad \mu = 0.9
    \end{gathered}
    """
    read = formula(tx)
    rows = [*_rows(list(_values(read)))]
    if not rows:
        return written(read)
    below = " \\\\\n".join(rows)
    return f"\\begin{{gathered}}\n{written(read)} \\\\[1ex]\n{below}\n\\end{{gathered}}"


def _values(read: Formula) -> Iterator[str]:
    """An equation for each letter of a hyperparameter that is in the formula, in their order."""
    parts = [read.update, *itertools.chain(*((d.value, d.initial) for d in read.definitions))]
    for symbol, value in read.given.items():
        if any(part is not None and contains(part, _is(symbol)) for part in parts):
            shown = _value(value)
            if shown is not None:
                yield f"{show(symbol)} = {shown}"


def _is(symbol: Symbol) -> Any:
    # At any step, if it changes with them.
    return lambda part: (
        isinstance(part, Symbol)
        and (part if symbol.time is None else part.at(symbol.time)) == symbol
    )


def _value(value: Any) -> str | None:
    """A number or a few, the type of a large array, the name of a schedule; None if it has none."""
    if is_array(value):
        if isinstance(value, Tracer) or np.size(value) > _FEW:
            return _word(short(value))
        numbers = ", ".join(show(expression(number)) for number in np.ravel(value))
        return numbers if value.ndim == 0 else rf"\left[ {numbers} \right]"
    if isinstance(value, Call):
        if value.factory in _UNNAMED:
            return None
        return _word(value.signature.name)
    if callable(value):
        name = getattr(value, "__name__", "<lambda>")
        return None if name == "<lambda>" else _word(name)
    return show(expression(value))


def _word(text: str) -> str:
    return rf"\mathtt{{{escaped(text)}}}"


def _width(equation: str) -> int:
    return len(re.sub(r"\\[a-zA-Z]+|[{}_^ ]", "", equation)) + 3


def _rows(equations: list[str]) -> Iterator[str]:
    """The equations, as many in a row as the width of a page has room for."""
    row: list[str] = []
    for each in equations:
        if row and sum(map(_width, [*row, each])) > _WIDTH:
            yield r", \quad ".join(row) + ","
            row = []
        row.append(each)
    if row:
        yield r", \quad ".join(row)


write_formulas_with(displayed)
