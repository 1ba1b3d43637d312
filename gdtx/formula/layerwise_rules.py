"""The formulas of links that see an array as a whole: its length, its axes, its matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..core.graft import graft
from ..core.kinds import is_zero
from ..core.rules import with_params
from ..core.select import masked
from ..core.transformation import GradientTransformation
from ..links.matrix.cover import running_cover
from ..links.matrix.full_matrix import scale_by_full_matrix
from ..links.matrix.window import scale_by_window
from ..links.trust import scale_by_lars, scale_by_trust_ratio
from .expression import Apply, Expression, Symbol, apply, expression, total
from .reader import MEMORY, PARAMETERS, Reader
from .rewriting import shifted, t


def _trust_ratio(
    reader: Reader, u: Expression, trust_coefficient: Any, eps: Any, mask: Any
) -> Expression:
    return _trusted(reader, u, _chosen(reader, "w", mask), trust_coefficient, eps)


def _lars(
    reader: Reader, u: Expression, weight_decay: Any, mask: Any, trust_coefficient: Any, eps: Any,
    trust_mask: Any,
) -> Expression:  # fmt: skip
    weights = _chosen(reader, "w", trust_mask)
    if is_zero(weight_decay):
        return _trusted(reader, u, weights, trust_coefficient, eps)
    decayed = _chosen(reader, "d", mask)
    return _trusted(reader, u, weights, trust_coefficient, eps, weight_decay, decayed)


def _chosen(reader: Reader, letter: str, mask: Any) -> Expression:
    """The parameters, 0 where the mask leaves them out."""
    if mask is None:
        return PARAMETERS
    weights = reader.read(masked(with_params(lambda u, p: p), mask), expression(0))
    return reader.define((Symbol(letter, time=t),), weights)


def _trusted(
    reader: Reader, u: Expression, weights: Any, coefficient: Any, eps: Any, weight_decay: Any = 0,
    decayed: Any = 0,
) -> Expression:  # fmt: skip
    u = reader.atom(u)
    size, length = apply("norm", u), apply("norm", weights)
    terms = [size, weight_decay * apply("norm", decayed), *([] if is_zero(eps) else [eps])]
    ratio = coefficient * length / total(*terms)
    ratio = apply("cases", ratio, apply("greater", length * size, 0), 1)
    ratio = reader.define((Symbol("r", time=t),), ratio)
    return ratio * total(u, weight_decay * decayed)


def _running_cover(reader: Reader, u: Expression, decay: Any) -> Expression:
    cover = apply("cover", MEMORY)
    sums = isinstance(decay, float | int) and decay == 1
    return reader.remember(("s",), cover + u if sums else decay * cover + (1 - decay) * u, 0)


def _graft(
    reader: Reader, u: Expression, direction: Any, magnitude: Any, per: str, block_size: Any,
    start: int,
) -> Expression:  # fmt: skip
    u = reader.atom(u)
    with reader.branch("magnitude"):
        downhill, m = reader.downhill, reader.read(magnitude, u)
        reader.downhill = downhill  # a length has no sign
    with reader.branch("direction"):
        d = reader.atom(reader.read(direction, u))
    size = apply("norm", d)
    grafted = apply("norm", m) * (d / size), apply("greater", size, 0), 0
    return apply("cases", *([m, apply("less", t, start)] if start > 1 else []), *grafted)


def _full_matrix(reader: Reader, u: Expression, eps: Any, block_size: Any) -> Expression:
    u = reader.atom(u)
    return _inverse_root(reader.remember(("G",), MEMORY + _outer(u), 0), eps) * u


def _window(reader: Reader, u: Expression, window: Any, eps: Any) -> Expression:
    u = reader.atom(u)
    longer = MEMORY + _outer(u)
    last = longer - shifted(_outer(u), t - window)
    second = apply("cases", last, apply("greater", t, window), longer)
    return _inverse_root(reader.remember(("G",), second, 0), eps) * u


def _outer(u: Expression) -> Expression:
    assert isinstance(u, Symbol)
    return u * replace(u, above=r"\top")


def _inverse_root(second: Expression, eps: Any) -> Expression:
    half = Apply("quotient", (expression(1), expression(2)))
    damped = second if is_zero(eps) else second + eps * Symbol("I")
    return apply("power", damped, -half)


LAYERWISE_RULES: dict[Callable[..., GradientTransformation], Callable[..., Expression]] = {
    scale_by_trust_ratio: _trust_ratio,
    scale_by_lars: _lars,
    running_cover: _running_cover,
    graft: _graft,
    scale_by_full_matrix: _full_matrix,
    scale_by_window: _window,
}
