"""What formulas of matrices are made of: products that do not commute, and transposes.

They are those of a matrix, whatever the order of the arrays; of others the docstrings speak.
"""

from __future__ import annotations

from typing import Any

from ..core.numbers.values import is_zero
from ..core.transformation import GradientTransformation
from .expression import Apply, Expression, Symbol, expression
from .reader import Reader

IDENTITY = Symbol("I")


def inverse_root(second: Expression, eps: Any) -> Expression:
    half = Apply("quotient", (expression(1), expression(2)))
    return (second if is_zero(eps) else second + eps * IDENTITY) ** -half


def statistics_of_sides(
    reader: Reader, u: Expression, statistic: GradientTransformation
) -> list[Expression]:
    """What a statistic makes of the second moments of the rows and of the columns."""
    found = []
    for side, moment in (("left", u * u.T), ("right", u.T * u)):
        with reader.branch(side):
            found.append(reader.read(statistic, moment))
    return found
