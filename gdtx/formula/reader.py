"""Reading a transformation: what it does to a gradient at time t, as expressions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ..core.transformation import GradientTransformation
from .expression import Apply, Expression, Symbol, expression, leading
from .hyperparameters import Hyperparameters
from .rewriting import Definition, contains, rewrite, shifted, t

GRADIENT = Symbol("g", time=t)
PARAMETERS = Symbol(r"\theta", time=t - 1)
MEMORY = Symbol(r"\bullet", time=t - 1)
"""What a rule remembers, until it has a name."""

Rule = Callable[..., Expression]


class Formula(NamedTuple):
    """Definitions in the order of computation, what comes out, and whether its sign was turned."""

    definitions: list[Definition]
    update: Expression
    downhill: bool


def formula(tx: GradientTransformation, rules: Mapping[Any, Rule], values: bool = False) -> Formula:
    """What a transformation makes of gradients."""
    reader = Reader(rules, values)
    update = reader.read(tx, GRADIENT)
    return Formula(reader.definitions, update, reader.downhill or leading(update) < 0)


class Reader:
    """Walks an expression of transformations down to the links that `rules` knows.

    A rule is a function of the reader, of what comes in, and of the link's arguments, with
    hyperparameters as numbers that know their symbols; it returns what goes out.
    """

    def __init__(self, rules: Mapping[Any, Rule], values: bool):
        self.rules = rules
        self.definitions: list[Definition] = []
        self.downhill = False
        self.branches: list[str] = []
        self.values: dict[str, Expression] = {}
        """What :func:`let` has named around what is being read."""
        self.origin: Any = None
        """The factory that returned the link being read."""
        self.hyperparameters = Hyperparameters(self, values)
        self._meanings: dict[Symbol, Any] = {
            symbol: symbol for symbol in (t, GRADIENT, PARAMETERS.at(t), Symbol("u", time=t))
        }

    def read(self, tx: GradientTransformation, u: Expression, origin: Any = None) -> Expression:
        """What `tx` makes of `u`."""
        if tx.factory is GradientTransformation:
            return opaque(tx.arguments["update"], u)
        arguments = {name: self.hyperparameters.of(tx, name) for name in tx.arguments}
        rule = self.rules.get(tx.factory)
        if rule is not None:
            args, kwargs = tx.signature.unbind(arguments)
            outer, self.origin = self.origin, origin
            u = rule(self, u, *args, **kwargs)
            self.origin = outer
            return u
        try:
            inner = tx.body(arguments)
        except (TypeError, ValueError):  # of a factory that asks more of a number than its kind
            return opaque(tx.factory, u)
        if getattr(inner, "factory", GradientTransformation) is GradientTransformation:
            return opaque(tx.factory, u)
        return self.read(inner, u, tx.factory)

    @contextlib.contextmanager
    def branch(self, name: str) -> Iterator[None]:
        """Symbols introduced inside are those that suit a branch of this name."""
        self.branches.append(name)
        yield
        self.branches.pop()

    def define(self, candidates: tuple[Symbol, ...], value: Expression) -> Symbol:
        """A symbol for a value; the one it has, if it has one."""
        for known in self.definitions:
            if known.symbol in candidates and known[1:] == (value, None):
                return known.symbol
        symbol = self.claim(candidates, value)
        self.definitions.append(Definition(symbol, value))
        return symbol

    def remember(self, letters: tuple[str, ...], value: Expression, initial: Any) -> Symbol:
        """A symbol for a value that depends on its last, `MEMORY`."""
        names, _ = self.remember_all({MEMORY: letters}, {MEMORY: value}, {MEMORY: initial})
        return names[MEMORY]

    def remember_all(
        self,
        letters: Mapping[Symbol, tuple[str, ...]],
        values: Mapping[Symbol, Expression],
        initials: Mapping[Symbol, Any],
    ) -> tuple[dict[Symbol, Symbol], Callable[[Expression], Expression]]:
        """The same for several, and what puts their symbols in place of them."""
        # Of a schedule it is the first value that things start from.
        starts = {last: shifted(_start(initials[last]), 1) for last in values}
        meaning = (tuple(values.items()), tuple(starts.items()))
        names = {}
        for last in values:
            symbols = [Symbol(letter, time=t) for letter in (*letters[last], *"abdhpqwxyz")]
            names[last] = self.claim(tuple(symbols), (last, meaning))

        def named(value: Expression) -> Expression:
            for last, symbol in names.items():
                value = rewrite(value, {last: symbol.at(t - 1), last.at(t): symbol}.get)
            return value

        for last, value in values.items():
            definition = Definition(names[last], named(value), starts[last])
            if definition not in self.definitions:
                self.definitions.append(definition)
        return names, named

    def claim(self, candidates: tuple[Symbol, ...], meaning: Any) -> Symbol:
        """The first of the symbols that is free, or has this meaning already."""
        accents = ("", "bar", "breve", "check", "dot", "ddot", "acute", "grave")
        for accent in accents:
            for symbol in candidates:
                if accent:
                    symbol = symbol.accented(accent)
                if symbol not in self._meanings or self._meanings[symbol] == meaning:
                    self._meanings[symbol] = meaning
                    return symbol
        raise ValueError(f"latex: no symbol is left that looks like {candidates[0].letter}")

    def atom(self, u: Expression) -> Expression:
        """`u` if it is a symbol, else a symbol for it: for what is read more than once."""
        if isinstance(u, Symbol):
            return u
        seen = {definition.symbol for definition in self.definitions}
        others = tuple(Symbol(letter, time=t) for letter in "dhxyz")
        is_gradient = not contains(u, lambda part: part in seen)
        return self.define((GRADIENT.accented("tilde"), *others) if is_gradient else others, u)


def opaque(f: Any, *inputs: Expression) -> Expression:
    """The name of a function, for what it makes of its inputs."""
    name = getattr(f, "__name__", "f")
    return Apply("f" if name == "<lambda>" else name, inputs)


def symbolic(f: Callable[..., Any], *inputs: Expression) -> Expression | None:
    """What a function makes of symbols, if it does nothing but arithmetic."""
    try:
        return expression(f(*inputs))
    except Exception:  # every function has its own way to refuse what is no array
        return None


def result(name: Any, f: Any, *inputs: Expression) -> Expression:
    """What a function makes of its inputs: its arithmetic, or else a name."""
    value = symbolic(f, *inputs)
    return opaque(name, *inputs) if value is None else value


def _start(initial: Any) -> Expression:
    if isinstance(initial, float | int) and initial == 0:
        return expression(0)
    return expression(initial)
