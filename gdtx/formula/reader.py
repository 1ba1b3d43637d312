"""Reading a transformation: what it does to a gradient at time t, as expressions."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..core.outermost import nested
from ..core.transformation import GradientTransformation
from .expression import Expression, Hyperparameter, Symbol, apply, expression, leading
from .hyperparameters import Hyperparameters
from .notation import letters
from .results import is_nameless, opaque, result, symbolic
from .rewriting import Definition, contains, occurrences, rewrite, shifted, t
from .tracing import traced

GRADIENT = Symbol("g", time=t)
PARAMETERS = Symbol(r"\theta", time=t - 1)
MEMORY = Symbol(r"\bullet", time=t - 1)
"""What a rule remembers, until it has a name."""

_rules: dict[Any, Callable[..., Expression]] = {}


def formula_of(
    factory: Any, plain: str = "", **names: str
) -> Callable[[Callable[..., Expression]], Callable[..., Expression]]:
    r"""State the formula of a transformation, or of a merge, where its code is not its formula.

        @formula_of(clip, max_delta=r"\delta")
        def _(u, max_delta):
            return apply("\\min", apply("\\max", u, -max_delta), max_delta)

    The decorated function is one of what comes in, then of the reader, if it asks for one by that
    name, and of those arguments of the transformation that it names; of a merge, one of all that
    comes in, then of the reader. It returns what goes out.
    What a maker's rule says in plain arithmetic needs no formula beside it.

    Args:
        factory: the transformation or the merge.
        plain, **names: its letters, as in :func:`letters`.
    """
    letters(factory, plain=plain, **names)

    def state(rule: Callable[..., Expression]) -> Callable[..., Expression]:
        _rules[factory] = rule
        return rule

    return state


def _apply_rule(
    rule: Callable[..., Expression], reader: Reader, u: Expression, arguments: Mapping[str, Any]
) -> Expression:
    parameters = inspect.signature(rule).parameters
    first = (u, reader) if "reader" in list(parameters)[:2] else (u,)
    if all(each.kind is not each.VAR_KEYWORD for each in parameters.values()):
        names = list(parameters)[len(first) :]
        arguments = {name: arguments[name] for name in names}
    return rule(*first, **arguments)


class Formula(NamedTuple):
    """Definitions in the order of computation, what comes out, whether its sign was turned, and
    what was given for the symbols of hyperparameters."""

    definitions: list[Definition]
    update: Expression
    downhill: bool
    given: dict[Symbol, Any]


def formula(tx: GradientTransformation, values: bool = False) -> Formula:
    """What a transformation makes of gradients."""
    reader = Reader(values)
    with nested():  # arguments have been looked at where they were given
        update = reader.read(tx, GRADIENT)
    downhill = reader.downhill or leading(update) < 0
    return Formula(reader.definitions, update, downhill, reader.hyperparameters.given)


class Sometimes(NamedTuple):
    """When something is done, and how many times that is."""

    conditions: tuple[Expression, ...]
    times: Expression


class Reader:
    """Walks an expression of transformations down to the links that state their formulas."""

    def __init__(self, values: bool):
        self.definitions: list[Definition] = []
        self.downhill = False
        self.branches: list[str] = []
        self.values: dict[str, Expression] = {}
        """What :func:`let` has named around what is being read."""
        self.origin: Any = None
        """The factory that returned the link being read."""
        self.hyperparameters = Hyperparameters(self, values)
        self._sometimes: list[Sometimes] = []
        self._meanings: dict[Symbol, Any] = {
            symbol: symbol for symbol in (t, GRADIENT, PARAMETERS.at(t), Symbol("u", time=t))
        }

    def read(self, tx: GradientTransformation, u: Expression, origin: Any = None) -> Expression:
        """What `tx` makes of `u`."""
        if tx.factory is GradientTransformation:
            return opaque(tx.arguments["update"], u)
        arguments = {name: self.hyperparameters.of(tx, name) for name in tx.arguments}
        rule = _rules.get(tx.factory)
        if rule is not None:
            outer, self.origin = self.origin, origin
            u = _apply_rule(rule, self, u, arguments)
            self.origin = outer
            return u
        inner = _opened(tx, arguments)
        if getattr(inner, "factory", GradientTransformation) is GradientTransformation:
            return opaque(tx.factory, u)
        return self.read(inner, u, tx.factory)

    def merged(self, name: Any, f: Any, *inputs: Expression) -> Expression:
        """What a function of arrays makes of them: as it is stated, or else its `result`, or if it
        is more than arithmetic and has no name, what its program does."""
        rule = _rules.get(f)
        if rule is not None:
            return rule(*inputs, self)
        if not is_nameless(name) or symbolic(f, *inputs) is not None:
            return result(name, f, *inputs)
        places = [each if each == t else Symbol(f"place {i}") for i, each in enumerate(inputs)]
        value = traced(f, *places)
        if not isinstance(value, Expression):
            return opaque(name, *inputs)
        # What is read more than once has a symbol.
        given: dict[Expression, Expression] = {
            place: self.atom(each) if occurrences(value, place) > 1 else each
            for place, each in zip(places, inputs, strict=True)
        }
        return rewrite(value, lambda part: given.get(part))

    @contextlib.contextmanager
    def branch(self, name: str) -> Iterator[None]:
        """Symbols introduced inside are those that suit a branch of this name."""
        self.branches.append(name)
        yield
        self.branches.pop()

    @contextlib.contextmanager
    def sometimes(
        self, conditions: Sequence[Expression], count: Expression | None = None
    ) -> Iterator[None]:
        """What is read inside is done under conditions, and what it remembers stays else. Where it
        says t, it means `count`, the number of times that it is done, if that is given."""
        outer = self._sometimes
        conditions = tuple(map(self.counted, conditions))
        self._sometimes = [*outer, Sometimes(conditions, t if count is None else count)]
        yield
        self._sometimes = outer

    def counted(self, value: Expression) -> Expression:
        """The value with what t counts where it is read; symbols at a time stay at theirs."""
        for _, count in reversed(self._sometimes):

            def change(part: Expression, count: Expression = count) -> Expression | None:
                return count if part == t else part if isinstance(part, Symbol) else None

            value = rewrite(value, change)
        return value

    @contextlib.contextmanager
    def naming(self, values: Mapping[str, Expression]) -> Iterator[None]:
        """Inside, quantities have these names beside those that they have around it."""
        outer, self.values = self.values, {**self.values, **values}
        yield
        self.values = outer

    def define(self, candidates: tuple[Symbol, ...], value: Expression) -> Symbol:
        """A symbol for a value; the one it has, if it has one."""
        value = self.counted(value)
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
        values = {last: self._kept(value, last) for last, value in values.items()}
        # Of a schedule it is the first value that things start from.
        starts = {last: shifted(expression(initials[last]), 1) for last in values}
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

    def _kept(self, value: Expression, last: Symbol) -> Expression:
        value = self.counted(value)
        for conditions, _ in reversed(self._sometimes):
            for condition in reversed(conditions):
                value = apply("cases", value, condition, last)
        return value

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

    def atom(self, u: Expression) -> Symbol:
        """`u` if it is a symbol, else a symbol for it: for what is read more than once."""
        if isinstance(u, Symbol):
            return u
        seen = {definition.symbol for definition in self.definitions}
        others = tuple(Symbol(letter, time=t) for letter in "dhxyz")
        is_gradient = not contains(u, lambda part: part in seen)
        return self.define((GRADIENT.accented("tilde"), *others) if is_gradient else others, u)

    def step(self, out: Expression) -> Symbol:
        """A symbol for what an inner transformation emits, if that is used more than once."""
        if isinstance(out, Symbol):
            return out
        return self.define(tuple(Symbol(letter, time=t) for letter in "dhqy"), out)


def _opened(tx: GradientTransformation, arguments: Mapping[str, Any]) -> Any:
    """What the factory returns for formulas, or where it does more with them than arithmetic, for
    the numbers; None where those are not known, or not what it asks for."""
    numbers = {
        name: value.value if isinstance(value, Hyperparameter) and value.is_constant else value
        for name, value in arguments.items()
    }
    for known in (arguments, numbers):
        with contextlib.suppress(TypeError, ValueError):
            return tx.body(known)
    return None
