"""The formulas of links that see a matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..matrix.orthogonal import orthogonalize, scale_by_shape
from .expression import Expression, Symbol, apply
from .formula import Reader, result


def _orthogonalize(
    reader: Reader, u: Expression, coefficients: Any, steps: Any, **how: Any
) -> Expression:
    if isinstance(coefficients, str) and coefficients == "exact":
        return apply("polar", u)
    return apply(f"NewtonSchulz{steps}", u)


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
    orthogonalize: _orthogonalize,
    scale_by_shape: _scale_by_shape,
}
