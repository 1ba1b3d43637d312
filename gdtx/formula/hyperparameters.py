"""Hyperparameters as numbers that know their symbols."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from jax.core import Tracer

from ..core.numbers.values import is_array
from ..core.transformation import GradientTransformation
from .expression import (
    Apply,
    Expression,
    Hyperparameter,
    Number,
    Symbol,
    expression,
    leading,
    product,
)
from .notation import hyperparameter, is_plain
from .rewriting import rewrite, shifted, t
from .schedules import Moment


class Symbols(Protocol):
    """Where symbols are given out: one that means the same is given again."""

    branches: list[str]

    def claim(self, candidates: tuple[Symbol, ...], meaning: Any) -> Symbol: ...

    def define(self, candidates: tuple[Symbol, ...], value: Expression) -> Symbol: ...


class Hyperparameters:
    """The arguments of the calls that a reader meets."""

    def __init__(self, symbols: Symbols, values: bool):
        self.symbols = symbols
        self.values = values
        self.given: dict[Symbol, Any] = {}
        """What has been given for each symbol that stands for a hyperparameter."""
        self._schedules: dict[Symbol, Expression] = {}

    def of(self, tx: GradientTransformation, name: str) -> Any:
        """An argument: if a scalar hyperparameter, as a number that knows its symbol."""
        value = tx.arguments[name]
        kind = tx.signature.kind(name)
        if kind is None or not kind.scalar or value is None or isinstance(value, Expression):
            return value
        symbols = hyperparameter(tx.factory, name, self.symbols.branches)
        if is_array(value):
            is_traced = isinstance(value, Tracer)
            if self.values and not is_traced and value.shape == ():
                return Hyperparameter(expression(value), float(value))
            meaning = id(value) if is_traced else (str(value.dtype), str(value.tolist()))
            return Hyperparameter(self._given(symbols, meaning, value), _now(value))
        if callable(value):
            shown = self.scheduled(symbols, value, is_plain(name))
            if isinstance(shown, Symbol):
                self.given.setdefault(shown, value)
            return Hyperparameter(shown, _now(value))
        is_shown = self.values or is_plain(name, float(value))
        shown = expression(value) if is_shown else self._given(symbols, value, value)
        return Hyperparameter(shown, float(value), is_constant=True)

    def _given(self, symbols: tuple[Symbol, ...], meaning: Any, value: Any) -> Symbol:
        symbol = self.symbols.claim(symbols, meaning)
        self.given.setdefault(symbol, value)
        return symbol

    def scheduled(
        self, symbols: tuple[Symbol, ...], schedule: Callable[..., Any], inline: bool = False
    ) -> Expression:
        """A symbol at time t for a schedule; inline, an expression of others if it is one."""
        symbols = tuple(symbol.at(t) for symbol in symbols)
        value = Moment(t - 1, first=1).value(schedule)
        known = rewrite(value, self._known)
        if known in symbols or (inline and known != value and not _depends(known)):
            return known
        symbol = self.symbols.define(symbols, known)
        if _depends(value):
            self._schedules[symbol] = value
        return symbol

    def _known(self, part: Expression) -> Expression | None:
        """The symbol of a schedule that this part is a value of, now or a step away."""
        for symbol, value in self._schedules.items():
            for steps in (0, 1, -1):
                pattern = shifted(value, t + steps)
                rest = product() if part == pattern else _without(part, pattern)
                if rest is not None:
                    return product(rest, symbol.at(t + steps))
        return None


def _without(value: Expression, factors: Expression) -> Expression | None:
    """A product without some of its factors, if it has them side by side."""
    if not (isinstance(value, Apply) and isinstance(factors, Apply)):
        return None
    if not value.head == factors.head == "product":
        return None
    number = leading(value) / leading(factors)
    have, want = ([x for x in side.args if not isinstance(x, Number)] for side in (value, factors))
    for i in range(len(have) - len(want) + 1):
        if have[i : i + len(want)] == want:
            return product(Number(number), *have[:i], *have[i + len(want) :])
    return None


def _depends(value: Expression) -> bool:
    """Whether the step itself is in a value, beside being the time of a symbol."""
    return value == t or (isinstance(value, Apply) and any(map(_depends, value.args)))


def at_hand(value: Any) -> float | None:
    """The number that a hyperparameter is now, None of one that is not known."""
    if isinstance(value, Hyperparameter):
        return value.value
    value = expression(value)
    return float(value.value) if isinstance(value, Number) else None


def _now(value: Any) -> float | None:
    """The number, or the first one, of an array or a schedule."""
    try:
        return float(np.asarray(value(0) if callable(value) else value).flat[0])
    except Exception:  # a tracer, or a schedule that needs more than a step
        return None
