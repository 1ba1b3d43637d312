"""Expressions looked into, changed in parts, and moved in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .expression import Apply, Expression, Symbol, apply, expression, product, quotient, total


def rewrite(value: Expression, change: Callable[[Expression], Expression | None]) -> Expression:
    """The expression with some of its parts, the largest that `change` knows, changed."""
    changed = change(value)
    if changed is not None:
        return changed
    if isinstance(value, Symbol) and value.time is not None:
        return value.at(rewrite(value.time, change))
    if not isinstance(value, Apply):
        return value
    args = [rewrite(arg, change) for arg in value.args]
    folded = {"sum": total, "product": product, "quotient": quotient}.get(value.head)
    return folded(*args) if folded else apply(value.head, *args)


def contains(value: Expression, test: Callable[[Expression], bool]) -> bool:
    parts = value.args if isinstance(value, Apply) else ()
    if isinstance(value, Symbol) and value.time is not None:
        parts = (value.time,)
    return test(value) or any(contains(part, test) for part in parts)


def occurrences(value: Expression, part: Expression) -> int:
    """How often a part is there."""
    if value == part:
        return 1
    return sum(occurrences(arg, part) for arg in (value.args if isinstance(value, Apply) else ()))


t = Symbol("t")


def shifted(value: Expression, time: Any) -> Expression:
    """The expression at another time than t."""
    return rewrite(value, lambda part: expression(time) if part == t else None)


class Definition(NamedTuple):
    """What a symbol stands for at time t, and, if it remembers, what it was at time 0."""

    symbol: Symbol
    value: Expression
    initial: Expression | None = None
