r"""The formulas of links that divide by curvature: those of the matrix of one layer.

$\bar x$ is the layer's input, followed by 1 if it has a bias, and $\delta$ the derivative of an
example's loss in its output; $E$ is the mean over the examples of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.transformation import GradientTransformation
from ..curvature.blocks import averages
from ..curvature.ekfac import scale_by_ekfac
from ..curvature.fisher import clip_by_fisher_norm, scale_by_natural_gradient
from ..curvature.transformation import scale_by_kfac
from ..methods.kfac import levenberg_marquardt
from .expression import Expression, Known, Number, Symbol, apply, expression, product, quotient
from .reader import PARAMETERS, Reader
from .rewriting import Definition, contains, t

_I = Symbol("I")
_SIDES = ("A", "S")


def _transposed(value: Expression) -> Expression:
    return apply("power", value, Symbol(r"\top"))


def _inverse(value: Expression) -> Expression:
    return apply("power", value, -1)


def _mean(value: Expression) -> Expression:
    return apply("E", value)


def _input(reader: Reader) -> Symbol:
    return reader.claim((Symbol("x", accent="bar", time=t),), "the input of a layer")


def _slope(reader: Reader) -> Symbol:
    return reader.define((Symbol(r"\delta", time=t),), Symbol(r"\nabla_y \ell"))


def _moments(reader: Reader) -> tuple[Expression, Expression]:
    """The factors of one batch."""
    x, slope = _input(reader), _slope(reader)
    return _mean(product(x, _transposed(x))), _mean(product(slope, _transposed(slope)))


def _is_due(inverse_every: Any) -> Expression | None:
    """Whether bases are new, if they are not so at every step."""
    every = expression(inverse_every)
    if every == expression(1):
        return None
    if contains(every, lambda part: part == t):
        return apply("at most", every, Symbol(r"\text{the age of the bases}"))
    return apply("divides", every, t - 1)


def _in_use(
    reader: Reader, symbol: Symbol, new: Expression, due: Expression | None, between: Any = None
) -> Symbol:
    """A symbol for a value that is new when it is due; between, what is made of the last one."""
    if due is None:
        return reader.define((symbol,), new)
    symbol = reader.claim((symbol,), (new, due))
    last = symbol.at(t - 1)
    value = apply("cases", new, due, last if between is None else between(last))
    # No start: the first time that it is due is the first step.
    if Definition(symbol, value) not in reader.definitions:
        reader.definitions.append(Definition(symbol, value))
    return symbol


def _factors(reader: Reader, decay: Any) -> list[Expression]:
    found = []
    for letter, moment in zip(_SIDES, _moments(reader), strict=True):
        with reader.branch(letter):
            found.append(reader.read(averages(decay), moment))
    return found


def _bases(reader: Reader, decay: Any, due: Expression | None) -> tuple[list[Any], list[Any]]:
    """The eigenvectors in use of both factors, and the factors that they were taken from."""
    factors = _factors(reader, decay)
    vectors = [
        _in_use(reader, Symbol("Q", side, time=t), apply("eigenvectors", factor), due)
        for side, factor in zip(_SIDES, factors, strict=True)
    ]
    return vectors, factors


def _product_values(factors: list[Any]) -> Expression:
    one, other = (apply("eigenvalues", factor) for factor in factors)
    return product(one, _transposed(other))


def _divided(bases: list[Any], u: Expression, values: Expression) -> Expression:
    left, right = bases
    return product(left, quotient(product(_transposed(left), u, right), values),
                   _transposed(right))  # fmt: skip


def _kfac(
    reader: Reader, u: Expression, damping: Any, decay: Any, inverse_every: Any, split: str,
    layout: Any, fallback: Any,
) -> Expression:  # fmt: skip
    due = _is_due(inverse_every)
    if split == "eigen":
        bases, factors = _bases(reader, decay, due)
        values = _in_use(reader, Symbol("D", time=t), _product_values(factors), due)
        return _divided(bases, u, values + damping)
    used = [
        factor if due is None else
        _in_use(reader, Symbol(side, accent="tilde", time=t), factor, due)
        for side, factor in zip(_SIDES, _factors(reader, decay), strict=True)
    ]  # fmt: skip
    traces, sizes = ([apply(head, x) for x in used] for head in ("tr", r"\dim"))
    ratio = quotient(product(traces[0], sizes[1]), product(sizes[0], traces[1]))
    pi = reader.define((Symbol(r"\pi", time=t),), apply("root", ratio))
    root = apply("root", damping)
    left, right = used[0] + pi * root * _I, used[1] + quotient(root, pi) * _I
    return product(_inverse(left), u, _inverse(right))


def _ekfac(
    reader: Reader, u: Expression, damping: Any, decay: Any, inverse_every: Any, layout: Any,
    fallback: Any,
) -> Expression:  # fmt: skip
    due = _is_due(inverse_every)
    bases, factors = _bases(reader, decay, due)
    left, right = bases
    each = product(_transposed(left), _input(reader), _transposed(_slope(reader)), right)

    def averaged(last: Expression) -> Expression:
        return decay * last + (1 - decay) * _mean(each**2)

    squares = _in_use(reader, Symbol("v", time=t), _product_values(factors), due, averaged)
    return _divided(bases, u, squares + damping)


def _fisher_square(reader: Reader, u: Expression) -> Expression:
    fisher = reader.define((Symbol("F", time=t),), apply("kron", *_moments(reader)))
    return apply("inner", u, product(fisher, u))


def _clip_by_fisher_norm(reader: Reader, u: Expression, norm_constraint: Any) -> Expression:
    u = reader.atom(u)
    ratio = quotient(norm_constraint, _fisher_square(reader, u))
    return u * apply("\\min", 1, apply("root", ratio))


def _natural_gradient(reader: Reader, u: Expression, damping: Any) -> Expression:
    fisher = reader.claim((Symbol("F", time=t),), "the exact Fisher matrix")
    return product(_inverse(fisher + damping * _I), u)


def _levenberg_marquardt(
    reader: Reader, u: Expression, inner: GradientTransformation, damping: Any, path: str,
    every: Any, factor: Any, min_damping: Any, max_damping: Any,
) -> Expression:  # fmt: skip
    u = reader.atom(u)
    adapted = reader.claim((Symbol(r"\lambda"),), "adapted").at(t)
    last = adapted.at(t - 1)
    step = reader.atom(reader.read(inner.replace(**{path: Known(damping, last)}), u))

    def loss(params: Expression) -> Expression:
        return apply("call", Symbol("f"), params)

    change = loss(PARAMETERS + step) - loss(PARAMETERS)
    square = _fisher_square(reader, step) + last * apply("norm", step) ** 2
    model = apply("inner", u, step) + quotient(square, 2)
    ratio = reader.define((Symbol(r"\rho", time=t),), quotient(change, model))
    power = apply("power", factor, every)
    good = apply("greater", ratio, quotient(3, 4)), apply("less", ratio, quotient(1, 4))
    scale = reader.define(
        (Symbol("q", time=t),),
        apply("cases", power, good[0], apply("power", factor, -expression(every)), good[1], 1),
    )
    moved = apply("\\min", apply("\\max", scale * last, min_damping), max_damping)
    moved = apply("cases", moved, apply("divides", every, t), last)
    # Where no number is shown, the first damping is the one at time 0.
    start = expression(damping)
    start = start if isinstance(start, Number) else None
    reader.definitions.append(Definition(adapted, moved, start))
    return step


CURVATURE_RULES: dict[Callable[..., GradientTransformation], Callable[..., Expression]] = {
    scale_by_kfac: _kfac,
    scale_by_ekfac: _ekfac,
    clip_by_fisher_norm: _clip_by_fisher_norm,
    scale_by_natural_gradient: _natural_gradient,
    levenberg_marquardt: _levenberg_marquardt,
}
