"""Expressions: numbers, symbols and what is made of them, as data."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import numpy as np

from ..core.numbers.values import Symbolic, is_array


class Expression(Symbolic):
    """What arithmetic on numbers and symbols gives. Rules of links run on it as on arrays."""

    # NumPy's numbers then leave the arithmetic to the methods below.
    __array_ufunc__ = None

    def __add__(self, other: Any) -> Expression:
        return total(self, other)

    def __radd__(self, other: Any) -> Expression:
        return total(other, self)

    def __sub__(self, other: Any) -> Expression:
        return total(self, product(-1, other))

    def __rsub__(self, other: Any) -> Expression:
        return total(other, product(-1, self))

    def __mul__(self, other: Any) -> Expression:
        return product(self, other)

    def __rmul__(self, other: Any) -> Expression:
        return product(other, self)

    def __truediv__(self, other: Any) -> Expression:
        return quotient(self, other)

    def __rtruediv__(self, other: Any) -> Expression:
        return quotient(other, self)

    def __pow__(self, other: Any) -> Expression:
        return apply("power", self, other)

    def __rpow__(self, other: Any) -> Expression:
        return apply("power", other, self)

    def __neg__(self) -> Expression:
        return product(-1, self)

    def __pos__(self) -> Expression:
        return self

    def __abs__(self) -> Expression:
        return apply("abs", self)

    @property
    def T(self) -> Expression:  # noqa: N802 (as arrays have it)
        """The transpose of a matrix."""
        return apply("power", self, Symbol(r"\top"))

    def __bool__(self) -> bool:
        raise TypeError("a symbol has no value to decide by")


@dataclass(frozen=True)
class Number(Expression):
    """An exact decimal number."""

    value: Decimal


@dataclass(frozen=True)
class Symbol(Expression):
    r"""A letter with its decorations: accent, name below, name above, and time below."""

    letter: str
    below: str = ""
    above: str = ""
    accent: str = ""
    time: Expression | None = None

    def at(self, time: Any) -> Symbol:
        return replace(self, time=expression(time))

    def accented(self, accent: str) -> Symbol:
        return replace(self, accent=accent)


@dataclass(frozen=True)
class Apply(Expression):
    """An operation on expressions.

    Of `cases`: value, condition, value, condition, ..., and last, unless the conditions are all
    that can be, the value otherwise.
    """

    head: str
    args: tuple[Expression, ...]


@functools.total_ordering
@dataclass(frozen=True, eq=False)
class Hyperparameter(Expression):
    """What a formula has for a hyperparameter, and the number that it is, if it is a constant.

    Factories decide by constants, so it compares as its number; one that may change is equal to
    none, as the tracer that it is elsewhere.
    """

    formula: Expression
    value: float | None = None
    """What it is now, if that is known."""
    is_constant: bool = False

    def __eq__(self, other: object) -> bool:
        return self.is_constant and self.value == other

    def __hash__(self) -> int:
        return hash((self.formula, self.value))

    def __lt__(self, other: Any) -> bool:
        if self.value is None or not self.is_constant:
            raise TypeError("a hyperparameter that may change has no value to decide by")
        return self.value < other


def expression(value: Any) -> Expression:
    """A number, or what already is an expression, as one.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(value, Hyperparameter):
        return value.formula
    if isinstance(value, Expression):
        return value
    if is_array(value) and np.shape(value) == ():
        # In as few digits as tell it apart in its own dtype: 0.001 and not 0.00100000005.
        return Number(Decimal(str(np.asarray(value)[()])))
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        return Number(Decimal(str(value)))
    raise TypeError(f"{value!r} is not a number")


def is_apply(value: Any, head: str) -> bool:
    return isinstance(value, Apply) and value.head == head


def apply(head: str, *args: Any) -> Expression:
    return Apply(head, tuple(map(expression, args)))


def _gathered(
    head: str, args: tuple[Any, ...], fold: Callable[[Decimal, Decimal], Decimal], unit: int
) -> tuple[Decimal, int, list[Expression]]:
    """The arguments with those of the same head in their place; their numbers folded into one."""
    number, place, others = Decimal(unit), 0, []
    for arg in map(expression, args):
        for part in arg.args if isinstance(arg, Apply) and arg.head == head else (arg,):
            if isinstance(part, Number):
                place = place if number != unit else len(others)
                number = fold(number, part.value)
            else:
                others.append(part)
    return number, place, others


def total(*terms: Any) -> Expression:
    number, place, others = _gathered("sum", terms, lambda a, b: a + b, 0)
    others = _without_opposites(others)
    if number:
        others.insert(place, Number(number))
    if len(others) < 2:
        return others[0] if others else Number(Decimal(0))
    return Apply("sum", tuple(others))


def _without_opposites(terms: list[Expression]) -> list[Expression]:
    rest: list[Expression] = []
    for term in terms:
        opposite = product(-1, term)
        if opposite in rest:
            rest.remove(opposite)
        else:
            rest.append(term)
    return rest


def product(*factors: Any) -> Expression:
    number, _, others = _gathered("product", factors, lambda a, b: a * b, 1)
    if number == 0 or not others:
        return Number(number)
    others = _root_over_root(others)
    if number != 1:
        others.insert(0, Number(number))
    return others[0] if len(others) == 1 else Apply("product", tuple(others))


def _root_over_root(factors: list[Expression]) -> list[Expression]:
    r"""$\frac{g}{\sqrt v} \sqrt d$ as $\frac{\sqrt d}{\sqrt v}\,g$: a scale, and what it scales."""
    for i, over in enumerate(factors):
        for j, root in enumerate(factors):
            if not (isinstance(over, Apply) and over.head == "quotient" and is_apply(root, "root")):
                continue
            numerator, denominator = over.args
            if is_apply(denominator, "root") and not is_apply(numerator, "root"):
                rest = [x for k, x in enumerate(factors) if k not in (i, j)]
                return [*rest, quotient(root, denominator), numerator]
    return factors


def quotient(numerator: Any, denominator: Any) -> Expression:
    above, below = expression(numerator), expression(denominator)
    if isinstance(above, Number) and isinstance(below, Number) and below.value:
        ratio = above.value / below.value
        if ratio * below.value == above.value and len(ratio.as_tuple().digits) < 9:
            return Number(ratio)
    if below == Number(Decimal(1)):
        return above
    if isinstance(below, Apply) and below.head == "cases":
        # A denominator that changes its form is a fraction that does.
        odd = (i % 2 for i in range(len(below.args)))
        branches = zip(below.args, odd, strict=True)
        return apply("cases", *(x if is_condition else quotient(above, x)
                                for x, is_condition in branches))  # fmt: skip
    if isinstance(below, Apply) and below.head == "quotient":
        return quotient(product(below.args[1], above), below.args[0])
    if isinstance(above, Apply) and above.head == "quotient":
        return quotient(above.args[0], product(above.args[1], below))
    if leading(above) < 0:
        return product(-1, quotient(product(-1, above), below))
    return Apply("quotient", (above, below))


def leading(value: Expression) -> Decimal:
    """The number in front of an expression."""
    first = value.args[0] if isinstance(value, Apply) and value.head == "product" else value
    return first.value if isinstance(first, Number) else Decimal(1)
