"""The formulas of wrappers: what they add to the inner one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jax.core import Tracer

from ..core.kinds import is_array
from ..core.transformation import GradientTransformation
from ..wrappers.accumulate_gradients import accumulate_gradients
from ..wrappers.average import average
from ..wrappers.lookahead import lookahead
from ..wrappers.master_weights import master_weights
from ..wrappers.polyak import polyak_step
from ..wrappers.remember import remember
from ..wrappers.schedule_free import schedule_free
from ..wrappers.sharpness_aware import sharpness_aware
from ..wrappers.skip import skip_large, skip_nonfinite, skip_when
from ..wrappers.tunable import tunable
from .expression import Expression, Symbol, apply, expression, product
from .reader import MEMORY, PARAMETERS, Reader, opaque
from .rewriting import t


def _inner(reader: Reader, u: Expression, inner: GradientTransformation, *_: str) -> Expression:
    return reader.read(inner, u)


def _step(reader: Reader, out: Expression) -> Expression:
    """A symbol for what comes out of the inner transformation and is used more than once."""
    if isinstance(out, Symbol):
        return out
    return reader.define(tuple(Symbol(letter, time=t) for letter in "dhqy"), out)


def _accumulate_gradients(
    reader: Reader, u: Expression, inner: GradientTransformation, every: Any
) -> Expression:
    if isinstance(every, int) and every == 1:
        return reader.read(inner, u)
    gradient = reader.atom(u)
    assert isinstance(gradient, Symbol)
    is_number = isinstance(every, int) or (is_array(every) and not isinstance(every, Tracer))
    if reader.hyperparameters.values and is_number:
        count = expression(every)
    else:
        time = t if callable(every) else None
        count = reader.claim((Symbol("k", time=time), Symbol("K", time=time)), str(every))
    each = Symbol(gradient.letter, ",".join(filter(None, (gradient.below, "i"))),
                  gradient.above, gradient.accent, gradient.time)  # fmt: skip
    mean = reader.define((gradient.accented("bar"),), apply("mean", each, count))
    return reader.read(inner, mean)


def _skip_when(
    reader: Reader, u: Expression, inner: GradientTransformation, is_bad: Any, max_consecutive: Any
) -> Expression:
    u = reader.atom(u)
    return apply("cases", reader.read(inner, u), apply("not", opaque(is_bad, u)), 0)


def _skip_nonfinite(
    reader: Reader, u: Expression, inner: GradientTransformation, max_consecutive: Any
) -> Expression:
    u = reader.atom(u)
    return apply("cases", reader.read(inner, u), apply("finite", u**2), 0)


def _skip_large(
    reader: Reader, u: Expression, inner: GradientTransformation, max_norm: Any,
    max_consecutive: Any,
) -> Expression:  # fmt: skip
    u = reader.atom(u)
    return apply("cases", reader.read(inner, u), apply("at most", apply("norm", u), max_norm), 0)


def _lookahead(
    reader: Reader, u: Expression, inner: GradientTransformation, sync_period: Any,
    slow_step_size: Any,
) -> Expression:  # fmt: skip
    out = _step(reader, reader.read(inner, u))
    syncs = apply("divides", sync_period, t)
    moved = MEMORY + slow_step_size * (PARAMETERS + out - MEMORY)
    slow = reader.remember((r"\phi",), apply("cases", moved, syncs, MEMORY), PARAMETERS.at(0))
    return apply("cases", slow - PARAMETERS, syncs, out)


def _average(
    reader: Reader, u: Expression, inner: GradientTransformation, decay: Any, start: int
) -> Expression:
    out = _step(reader, reader.read(inner, u))
    count = apply("\\max", t - start, 1) if start else t
    weight = 1 / count if decay is None else (1 - decay) / (1 - decay**count)
    mean = (1 - weight) * MEMORY + weight * (PARAMETERS + out)
    reader.remember((r"\bar{\theta}",), mean, PARAMETERS.at(0))
    return out


def _schedule_free(
    reader: Reader, u: Expression, inner: GradientTransformation, learning_rate: Any, b1: Any,
    weight_lr_power: Any,
) -> Expression:  # fmt: skip
    out = _step(reader, reader.read(inner, u))
    weight = expression(learning_rate) ** weight_lr_power
    total = reader.remember(("W",), MEMORY + weight, 0)
    c = reader.define((Symbol("c", time=t),), weight / total)
    z = reader.remember(("z",), MEMORY + out, PARAMETERS.at(0))
    reader.remember(("x",), (1 - c) * MEMORY + c * z, PARAMETERS.at(0))
    return c * (z.at(t - 1) - PARAMETERS) + (1 - b1 * (1 - c)) * out


def _sharpness_aware(
    reader: Reader, u: Expression, inner: GradientTransformation, rho: Any
) -> Expression:
    u = reader.atom(u)
    assert isinstance(u, Symbol)
    worst = apply(r"\nabla f", PARAMETERS + rho * u / apply("norm", u))
    return reader.read(inner, reader.define((u.accented("tilde"),), worst))


def _polyak_step(
    reader: Reader, u: Expression, inner: GradientTransformation, max_learning_rate: Any,
    f_min: Any, eps: Any,
) -> Expression:  # fmt: skip
    u = reader.atom(u)
    direction = _step(reader, reader.read(inner, u))
    slope = apply("norm", u) ** 2 if direction == u else apply("inner", u, direction)
    gap = apply("call", Symbol("f"), PARAMETERS) - f_min
    rate = apply("\\min", gap / (slope + eps), max_learning_rate)
    return product(-1, reader.define((Symbol(r"\gamma", time=t),), rate), direction)


WRAPPER_RULES: dict[Callable[..., GradientTransformation], Callable[..., Expression]] = {
    tunable: _inner,
    remember: _inner,
    # What it adds is how numbers are kept.
    master_weights: _inner,
    accumulate_gradients: _accumulate_gradients,
    skip_when: _skip_when,
    skip_nonfinite: _skip_nonfinite,
    skip_large: _skip_large,
    lookahead: _lookahead,
    average: _average,
    schedule_free: _schedule_free,
    sharpness_aware: _sharpness_aware,
    polyak_step: _polyak_step,
}
