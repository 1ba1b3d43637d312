"""What formulas of matrices are made of: products that do not commute, and transposes.

They are those of a matrix, whatever the order of the arrays; of others the docstrings speak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..core.numbers.values import is_zero
from ..core.transformation import GradientTransformation
from .expression import Apply, Expression, Symbol, apply, expression, total
from .reader import Reader
from .rewriting import Definition, rewrite, shifted, t

IDENTITY = Symbol("I")
_INDEX = Symbol("i")


def inverse_root(second: Expression, eps: Any) -> Expression:
    half = Apply("quotient", (expression(1), expression(2)))
    return (second if is_zero(eps) else second + eps * IDENTITY) ** -half


def statistics_of_sides(
    reader: Reader, u: Expression, statistic: GradientTransformation, whitened: bool = False
) -> list[Expression]:
    """What a statistic makes of the second moments of the rows and of the columns, each with what
    the other was before divided out if they are whitened."""
    others = [Symbol(rf"\bullet {side}", time=t) for side in "RL"]
    rows, columns = u * u.T, u.T * u
    if whitened:
        n_out, n_in = (Symbol("n", rf"\mathrm{{{side}}}") for side in ("out", "in"))
        rows, columns = u * others[0] ** -1 * u.T / n_out, u.T * others[1] ** -1 * u / n_in
    before = len(reader.definitions)
    found = []
    for side, moment in (("left", rows), ("right", columns)):
        with reader.branch(side):
            found.append(reader.read(statistic, moment))
    past: dict[Expression, Expression] = {
        other: shifted(second, t - 1) for other, second in zip(others, reversed(found), strict=True)
    }
    for i, each in enumerate(reader.definitions[before:], before):
        reader.definitions[i] = each._replace(value=rewrite(each.value, past.get))
    return found


def iterated(reader: Reader, u: Symbol, steps: Sequence[Sequence[Any]]) -> Expression:
    r"""A matrix of norm 1 through odd polynomials, $X \leftarrow (a I + b A + c A^2) X$ with
    $A = X X^{\top}$, one a step."""
    x, gram = (reader.claim((Symbol(letter, time=t),), (u, steps)) for letter in "XA")
    first, last, new, gram = (
        replace(symbol, below=below)
        for symbol, below in ((x, "0"), (x, "i-1"), (x, "i"), (gram, "i"))
    )
    reader.definitions.append(Definition(first, u / apply("norm", u)))
    if not steps:
        return first
    powers = [IDENTITY, gram, *(gram**k for k in range(2, max(map(len, steps))))]
    factors = [
        _at_step(reader, letter, [row[k] if k < len(row) else 0 for row in steps])
        for k, letter in zip(range(len(powers)), "abcdefgh", strict=False)
    ]
    if len(powers) > 1:
        reader.definitions.append(Definition(gram, last * last.T))
    whole = total(*(f * power for f, power in zip(factors, powers, strict=True)))
    reader.definitions.append(Definition(new, whole * last))
    return replace(x, below=str(len(steps)))


def _at_step(reader: Reader, letter: str, values: list[Any]) -> Expression:
    """A coefficient, by step if the steps have different ones."""
    if all(value == values[0] for value in values):
        return expression(values[0])
    rows = [(value, apply("equal", _INDEX, i)) for i, value in enumerate(values, 1)]
    return reader.define((Symbol(letter, "i"),), apply("cases", *(x for row in rows for x in row)))
