"""Transformations as the formulas that papers print."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal

from ..core.calls.signature import Signature
from ..core.transformation import GradientTransformation
from .expression import Apply, Expression, Number, Symbol, is_apply, leading, product
from .notation import word
from .reader import Formula, formula
from .rewriting import Definition, t


def latex(tx: GradientTransformation, values: bool = False) -> str:
    r"""The update rule of a transformation, as its paper prints it, made from its expression.

    $g_t$ is the gradient, or whatever comes in, and $\theta_t$ the parameters after update $t$.
    Chains substitute, a join by :func:`divide` is a fraction, and links that remember introduce a
    symbol with its recurrence. A link that hides its rule is shown by its name.

    Args:
        tx: any transformation.
        values: whether to write the numbers in place of the symbols of hyperparameters.

    Returns:
        A LaTeX `aligned` block: every symbol in the order of computation, and last $\theta_t$, or
        $u_t$, what comes out, of a transformation that goes not downhill.

    Raises:
        TypeError: if `tx` is not a transformation.

    >>> import gdtx
    >>> print(gdtx.latex(gdtx.sgd(0.1, momentum=0.9)))
    \begin{aligned}
    v_0 &= 0 \\
    v_t &= \mu v_{t-1} + g_t \\
    \theta_t &= \theta_{t-1} - \eta v_t
    \end{aligned}
    >>> print(gdtx.latex(gdtx.rmsprop(0.1), values=True))
    \begin{aligned}
    v_0 &= 0 \\
    v_t &= 0.9 v_{t-1} + 0.1 g_t^2 \\
    \theta_t &= \theta_{t-1} - 0.1 \frac{g_t}{\sqrt{v_t + 10^{-8}}}
    \end{aligned}
    """
    tx = Signature(latex, schedules=False).bind((tx, values), {})["tx"]
    return written(formula(tx, values))


def written(formula: Formula) -> str:
    """A formula as LaTeX."""
    definitions, update, downhill, _ = formula
    lines = [
        *_starts(definitions),
        *(f"{show(d.symbol)} {_relation(d.value)} {show(d.value)}" for d in definitions),
    ]
    if downhill:
        theta = Symbol(r"\theta")
        lines.append(f"{show(theta.at(t))} &= {show(theta.at(t - 1) + update)}")
    else:
        lines.append(f"u_t &= {show(update)}")
    return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"


def _relation(value: Expression) -> str:
    return r"&\sim" if is_apply(value, r"\mathcal{N}") else "&="


def _starts(definitions: list[Definition]) -> list[str]:
    """What is remembered before the first update, the zeros in one line."""
    starts = [(show(d.symbol.at(0)), d.initial) for d in definitions if d.initial is not None]
    zeros = [symbol for symbol, value in starts if value == Number(Decimal(0))]
    others = [f"{symbol} &= {show(v)}" for symbol, v in starts if v != Number(Decimal(0))]
    if zeros:
        return [f"{zeros[0]} &= {' = '.join([*zeros[1:], '0'])}", *others]
    return others


def show(value: Expression) -> str:
    if isinstance(value, Number):
        return number(value.value)
    if isinstance(value, Symbol):
        return _symbol(value)
    assert isinstance(value, Apply)
    if value.head in _shapes:
        return _shapes[value.head](*value.args)
    head = value.head if value.head.startswith("\\") else _operator(value.head)
    return f"{head}{_bracketed(', '.join(map(show, value.args)))}"


def _operator(name: str) -> str:
    # In an operator's name LaTeX sets underscores as apart.
    return show(word(name)) if "_" in name else rf"\operatorname{{{name}}}"


def _bracketed(text: str) -> str:
    return rf"\left( {text} \right)"


def _braced(text: str) -> str:
    return text if len(text) == 1 else f"{{{text}}}"


def number(value: Decimal) -> str:
    if not value.is_finite():
        return r"\infty" if value > 0 else r"-\infty"
    value = value.normalize()
    if value == 0 or -4 <= value.adjusted() < 6:
        return f"{value:f}"
    digits = value.scaleb(-value.adjusted()).normalize()
    power = f"10^{{{value.adjusted()}}}"
    return power if digits == 1 else f"-{power}" if digits == -1 else rf"{digits:f} \cdot {power}"


def _symbol(symbol: Symbol) -> str:
    letter = rf"\{symbol.accent}{{{symbol.letter}}}" if symbol.accent else symbol.letter
    time = "" if symbol.time is None else show(symbol.time).replace(" ", "")
    below = ",".join(filter(None, (symbol.below, time)))
    below = f"_{_braced(below)}" if below else ""
    return letter + below + (f"^{{{symbol.above}}}" if symbol.above else "")


def _sum(*terms: Expression) -> str:
    text = show(terms[0])
    for term in terms[1:]:
        if leading(term) < 0:
            text += f" - {_factor(product(-1, term))}"
        else:
            text += f" + {show(term)}"
    return text


def _product(*factors: Expression) -> str:
    if factors[0] == Number(Decimal(-1)):
        return f"-{_product(*factors[1:])}"
    # In front a sign needs no brackets: what is around puts them about the whole.
    text = show(factors[0]) if isinstance(factors[0], Number) else _factor(factors[0])
    for factor in map(_factor, factors[1:]):
        text += rf" \cdot {factor}" if factor[0].isdigit() else f" {factor}"
    return text


def _factor(value: Expression) -> str:
    text = show(value)
    is_sum = isinstance(value, Apply) and value.head == "sum"
    return _bracketed(text) if is_sum or text.startswith("-") else text


def _power(base: Expression, exponent: Expression) -> str:
    text = show(base)
    simple = isinstance(base, Symbol) and not base.above and not base.letter.startswith(r"\mathrm")
    plain = isinstance(base, Number) and base.value >= 0 and "^" not in text
    if not (simple or plain or (isinstance(base, Apply) and base.head in ("abs", "norm"))):
        text = _bracketed(text)
    # In one line, as papers have it.
    above = re.sub(r"\\frac\{(\d+)\}\{(\d+)\}", r"\1/\2", show(exponent))
    return f"{text}^{_braced(above)}"


def _cases(*args: Expression) -> str:
    # Fractions in display style, which a row of cases is not in by itself.
    rows = [f"{_display(value)} & {show(condition)}"
            for value, condition in zip(args[::2], args[1::2], strict=False)]  # fmt: skip
    if len(args) % 2:
        rows.append(rf"{_display(args[-1])} & \text{{otherwise}}")
    return r"\begin{cases} " + r" \\ ".join(rows) + r" \end{cases}"


def _display(value: Expression) -> str:
    depth, text = 0, ""
    for part in re.split(r"([{}])", show(value)):
        depth += (part == "{") - (part == "}")
        text += part if depth else part.replace(r"\frac", r"\dfrac")
    return text


def _prod(factor: Expression, last: Expression) -> str:
    return rf"\prod_{{i=1}}^{{{show(last)}}} {_factor(factor)}"


def _mean(each: Expression, count: Expression) -> str:
    many = show(count)
    return rf"\frac{{1}}{{{many}}} \sum_{{i=1}}^{_braced(many)} {_factor(each)}"


_shapes: dict[str, Callable[..., str]] = {
    "sum": _sum,
    "product": _product,
    "quotient": lambda above, below: rf"\frac{{{show(above)}}}{{{show(below)}}}",
    "power": _power,
    "root": lambda inside: rf"\sqrt{{{show(inside)}}}",
    "abs": lambda inside: rf"\left| {show(inside)} \right|",
    "norm": lambda inside: rf"\left\| {show(inside)} \right\|",
    "sum of magnitudes": lambda inside: rf"\left\| {show(inside)} \right\|_1",
    "prod": _prod,
    "cases": _cases,
    "floor": lambda inside: rf"\left\lfloor {show(inside)} \right\rfloor",
    "mod": lambda one, other: rf"{_factor(one)} \bmod {_factor(other)}",
    "equal": lambda one, other: f"{show(one)} = {show(other)}",
    "greater": lambda one, other: f"{show(one)} > {show(other)}",
    "less": lambda one, other: f"{show(one)} < {show(other)}",
    "at most": lambda one, other: rf"{show(one)} \leq {show(other)}",
    "divides": lambda one, other: rf"{show(one)} \mid {show(other)}",
    "finite": lambda value: rf"{show(value)} \text{{ is finite}}",
    "undefined": lambda value: rf"{show(value)} \text{{ is not a number}}",
    "and": lambda one, other: rf"{show(one)} \text{{ and }} {show(other)}",
    "not": lambda condition: rf"\text{{not }} {show(condition)}",
    "kron": lambda a, b: rf"{_factor(a)} \otimes {_factor(b)}",
    "inner": lambda a, b: rf"\left\langle {show(a)}, {show(b)} \right\rangle",
    "mean": _mean,
    "call": lambda f, *args: f"{show(f)}{_bracketed(', '.join(map(show, args)))}",
}
