"""The formulas of links that turn matrices: products that do not commute, and transposes.

They are those of a matrix, whatever the order of the arrays; of others the docstrings speak.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.kinds import is_zero
from ..core.transformation import GradientTransformation
from ..links.matrix.blockwise import blockwise
from ..links.matrix.eigenbasis import Bases, in_eigenbasis
from ..links.matrix.orthogonal import orthogonalize, scale_by_shape
from ..links.matrix.packed import packed
from ..links.matrix.polynomials import Polar
from ..links.matrix.precondition import precondition
from .expression import Expression, Symbol, apply, expression, product
from .reader import Reader, result
from .rewriting import shifted, t

_SIDES = {"left": "L", "right": "R"}
_I = Symbol("I")


def _transposed(value: Expression) -> Expression:
    return apply("power", value, Symbol(r"\top"))


def _statistics(reader: Reader, u: Expression, statistic: GradientTransformation) -> list[Any]:
    moments = {"left": product(u, _transposed(u)), "right": product(_transposed(u), u)}
    found = []
    for side, moment in moments.items():
        with reader.branch(side):
            found.append(reader.read(statistic, moment))
    return found


def _precondition(
    reader: Reader, u: Expression, direction: GradientTransformation,
    statistic: GradientTransformation, eps: Any, relative_eps: Any, exponent: Any, roots: Any
) -> Expression:  # fmt: skip
    u = reader.atom(u)
    mean = reader.read(direction, u)

    def damped(statistic: Expression) -> Expression:
        if is_zero(relative_eps):
            return statistic + eps * _I
        return statistic + (eps + relative_eps * apply(r"\lambda_{\max}", statistic)) * _I

    power = Symbol("-1/4") if exponent is None else expression(exponent)
    left, right = (
        apply("power", damped(each), power) for each in _statistics(reader, u, statistic)
    )
    return product(left, mean, right)


def _in_eigenbasis(
    reader: Reader, u: Expression, direction: GradientTransformation,
    magnitude: GradientTransformation, statistic: GradientTransformation, bases: Bases
) -> Expression:  # fmt: skip
    u = reader.atom(u)
    mean = reader.read(direction, u)
    sides = []
    for side, value in zip(_SIDES.values(), _statistics(reader, u, statistic), strict=True):
        value = shifted(value, t - 1) if bases.stale else value
        basis = Symbol("Q", side, time=t)
        sides.append(reader.define((basis,), apply("eigenvectors", value)))
    left, right = sides
    turned = reader.define((Symbol("g", time=t).accented("tilde"),),
                           product(_transposed(left), u, right))  # fmt: skip
    with reader.branch("nu"):
        size = reader.read(magnitude, turned)
    turned_mean = reader.define((Symbol("m", time=t).accented("tilde"),),
                                product(_transposed(left), mean, right))  # fmt: skip
    return product(left, turned_mean / size, _transposed(right))


def _orthogonalize(reader: Reader, u: Expression, polar: Polar, axes: Any) -> Expression:
    return apply("polar" if polar.is_exact else f"NewtonSchulz{polar.steps}", u)


def _scale_by_shape(reader: Reader, u: Expression, factor: Any, axes: Any) -> Expression:
    if factor is None:
        return u
    n_in, n_out = (Symbol("n", rf"\mathrm{{{side}}}") for side in ("in", "out"))
    if factor == "keller":
        value = apply("root", apply("\\max", 1, n_out / n_in))
    elif factor == "moonshot":
        value = 0.2 * apply("root", apply("\\max", n_in, n_out))
    else:
        value = result(factor, factor, n_in, n_out)
    return reader.define((Symbol("s"), Symbol("c")), value) * u


MATRIX_RULES: dict[Callable[..., Any], Callable[..., Expression]] = {
    blockwise: lambda reader, u, inner, blocks: reader.read(inner, u),
    packed: lambda reader, u, statistic: reader.read(statistic, u),
    precondition: _precondition,
    in_eigenbasis: _in_eigenbasis,
    orthogonalize: _orthogonalize,
    scale_by_shape: _scale_by_shape,
}
