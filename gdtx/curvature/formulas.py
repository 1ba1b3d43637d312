r"""What the formulas of K-FAC are made of: those of the matrix of one layer.

$\bar x$ is the layer's input, followed by 1 if it has a bias, and $\delta$ the derivative of an
example's loss in its output; $E$ is the mean over the examples of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..formula import (
    Definition,
    Expression,
    Reader,
    Symbol,
    apply,
    contains,
    expression,
    t,
)
from ..links.fraction import first_moment

SIDES = ("A", "S")


def input_of(reader: Reader) -> Symbol:
    return reader.claim((Symbol("x", accent="bar", time=t),), "the input of a layer")


def slope_of(reader: Reader) -> Symbol:
    return reader.define((Symbol(r"\delta", time=t),), Symbol(r"\nabla_y \ell"))


def moments(reader: Reader) -> tuple[Expression, Expression]:
    """The factors of one batch."""
    x, slope = input_of(reader), slope_of(reader)
    return apply("E", x * x.T), apply("E", slope * slope.T)


def is_due(inverse_every: Any) -> Expression | None:
    """Whether bases are new, if they are not so at every step."""
    every = expression(inverse_every)
    if every == expression(1):
        return None
    if contains(every, lambda part: part == t):
        return apply("at most", every, Symbol(r"\text{the age of the bases}"))
    return apply("divides", every, t - 1)


def in_use(
    reader: Reader,
    symbol: Symbol,
    new: Expression,
    due: Expression | None,
    between: Callable[[Expression], Expression] = lambda last: last,
) -> Symbol:
    """A symbol for a value that is new when it is due; between, what is made of the last one."""
    if due is None:
        return reader.define((symbol,), new)
    symbol = reader.claim((symbol,), (new, due))
    value = apply("cases", new, due, between(symbol.at(t - 1)))
    # No start: the first time that it is due is the first step.
    if Definition(symbol, value) not in reader.definitions:
        reader.definitions.append(Definition(symbol, value))
    return symbol


def factors_of(reader: Reader, decay: Any) -> list[Expression]:
    found = []
    for letter, moment in zip(SIDES, moments(reader), strict=True):
        with reader.branch(letter):
            found.append(reader.read(first_moment(decay), moment))
    return found


def bases_of(
    reader: Reader, decay: Any, due: Expression | None
) -> tuple[list[Symbol], list[Expression]]:
    """The eigenvectors in use of both factors, and the factors that they were taken from."""
    factors = factors_of(reader, decay)
    vectors = [
        in_use(reader, Symbol("Q", side, time=t), apply("eigenvectors", factor), due)
        for side, factor in zip(SIDES, factors, strict=True)
    ]
    return vectors, factors


def products_of_values(factors: list[Expression]) -> Expression:
    one, other = (apply("eigenvalues", factor) for factor in factors)
    return one * other.T


def divided(bases: list[Symbol], u: Expression, values: Expression) -> Expression:
    left, right = bases
    return left * (left.T * u * right / values) * right.T


def fisher_form(reader: Reader, u: Expression) -> Expression:
    fisher = reader.define((Symbol("F", time=t),), apply("kron", *moments(reader)))
    return apply("inner", u, fisher * u)
