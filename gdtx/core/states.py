"""The one walk: a transformation, what it is made of, and whose state lies where."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, cast

import numpy as np

from .calls.kinds import Kind
from .errors import at_work
from .outermost import nested
from .scheduled import ScheduledState
from .transformation import GradientTransformation
from .trees.layout import Part, holding, mapped
from .trees.tree import PyTree


def parts(tx: GradientTransformation, state: PyTree) -> list[Part]:
    """What the state of a transformation consists of, one level down, in order."""
    found: list[Part] = []
    with_parts(tx, state, lambda part: found.append(part))
    return found


def with_parts(tx: GradientTransformation, state: PyTree, f: Callable[[Part], PyTree]) -> PyTree:
    """The state, with what `f` makes of each part in the place of its state.

    A pair says in its layout where the states of others lie. Anything else has the state of its
    expression, below the count of its schedules if it has some.
    """
    if tx.factory is GradientTransformation:
        return mapped(_layout(tx), state, f)
    if not tx.signature.scheduled(tx.arguments):
        return f(Part(tx.expression, {}, state))
    return mapped(holding(ScheduledState, inner=_at_some_step(tx)), state, f)


def within(
    tx: GradientTransformation, state: PyTree, wanted: Collection[GradientTransformation]
) -> Iterator[Part]:
    """The parts that are these transformations, the very objects, at any depth."""
    for part in parts(tx, state):
        if any(part.tx is each for each in wanted):
            yield part
        else:
            yield from within(part.used, part.state, wanted)


def check_fits(tx: GradientTransformation, state: PyTree) -> None:
    """Raise unless the state has the containers that `tx` and all its parts give their own.

    Raises:
        ValueError: naming the transformation inside of `tx` to which a state does not belong.
    """
    with nested(), at_work(tx.signature.name, tx.signature.voice):
        for part in parts(tx, state):
            check_fits(part.used, part.state)


def _layout(tx: GradientTransformation) -> PyTree:
    # Of a pair that was taken out of a transformation it is that one's.
    whole = getattr(tx.arguments["update"], "__self__", None)
    whole = whole if isinstance(whole, GradientTransformation) else None
    return tx.arguments.get("layout", whole)


def _at_some_step(tx: GradientTransformation) -> GradientTransformation | None:
    """The expression with some number for each schedule: the state has the same containers for
    all. None of a factory that asks more of a number than its kind."""
    arguments: dict[str, Any] = dict(tx.arguments)
    for name in tx.signature.scheduled(tx.arguments):
        accepts = cast(Kind, tx.signature.kind(name)).accepts
        number = next((x for x in (0.5, 1.0, 2.0, 4.0) if accepts(x)), 0.5)
        arguments[name] = np.asarray(number, np.float32)
    try:
        return tx._formula(arguments)
    except (TypeError, ValueError):
        return None
