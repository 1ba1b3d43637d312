"""The formulas of links whose code is not their formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.kinds import is_zero
from ..core.transformation import GradientTransformation
from ..links.arithmetic import absolute, clip, scale, sign, sqrt, square
from ..links.clipping import clip_by_block_rms, clip_by_global_norm, clip_by_norm
from ..links.correction import bias_correction, rectify, scheduled_bias_correction
from ..links.differences import difference, wait
from ..links.fraction import root
from ..links.moments import additive_ema, running_max, variance
from ..links.noise import add_noise
from ..links.normalizing import normalize_by_global_norm, scale_by_param_block_rms
from ..links.repair import infinite_at_zero, keep_nonnegative
from ..links.rounding import stochastic_rounding
from ..methods.rprop import scale_by_rprop
from .expression import Expression, Symbol, apply, expression
from .reader import MEMORY, PARAMETERS, Reader
from .rewriting import Definition, shifted, t


def _running_max(reader: Reader, u: Expression, decay: Any, dtype: Any) -> Expression:
    # The letters of AMSGrad and of AdaMax.
    names = ("a", "n") if expression(decay) == expression(1) else ("n", "a")
    return reader.remember(names, apply("\\max", decay * MEMORY, u), 0)


def _additive_ema(
    reader: Reader, u: Expression, decay: Any, dtype: Any, initial: Any
) -> Expression:
    direction = apply("sign", MEMORY - u)
    return reader.remember(("v",), MEMORY - (1 - decay) * direction * u, initial)


def _difference(reader: Reader, u: Expression, dtype: Any) -> Expression:
    u = reader.atom(u)
    return _wait(reader, u - shifted(u, t - 1), 1)


def _wait(reader: Reader, u: Expression, steps: int) -> Expression:
    return apply("cases", u, apply("greater", t, steps), 0)


def _variance(reader: Reader, u: Expression, decay: Any, dtype: Any, initial: Any) -> Expression:
    # As papers define it: what the link does is the same, without the cancellation.
    u = reader.atom(u)
    mean = reader.remember(("m",), decay * MEMORY + (1 - decay) * u, 0)
    power = reader.remember(("v",), decay * MEMORY + (1 - decay) * u**2, initial)
    return power - mean**2


def _bias_correction(reader: Reader, u: Expression, decay: Any, ahead: int) -> Expression:
    return _corrected(reader, u, 1 - decay ** (t + ahead))


def _scheduled_bias_correction(
    reader: Reader, u: Expression, schedule: Any, ahead: int
) -> Expression:
    decay = reader.hyperparameters.scheduled((Symbol(r"\mu"),), schedule)
    each = shifted(decay, Symbol("i"))
    return _corrected(reader, u, 1 - apply("prod", each, t + ahead))


def _corrected(reader: Reader, u: Expression, remaining: Expression) -> Expression:
    if isinstance(u, Symbol) and not u.accent:
        return reader.define((u.accented("hat"),), u / remaining)
    return u / remaining


def _rectify(reader: Reader, u: Expression, b2: Any, threshold: Any) -> Expression:
    decay = expression(b2)
    rho, final = Symbol(r"\rho", time=t), Symbol(r"\rho", r"\infty")
    final = reader.define((final,), 2 / (1 - decay) - 1)
    rho = reader.define((rho,), final - 2 * t * decay**t / (1 - decay**t))
    ratio = (rho - 4) * (rho - 2) * final / ((final - 4) * (final - 2) * rho)
    rectifier = reader.define((Symbol("r", time=t),), apply("root", ratio))
    return apply("cases", u / rectifier, apply("greater", rho, threshold), 1)


def _clip(reader: Reader, u: Expression, max_delta: Any) -> Expression:
    return apply("\\min", apply("\\max", u, -max_delta), max_delta)


def _clip_by_global_norm(reader: Reader, u: Expression, max_norm: Any) -> Expression:
    u = reader.atom(u)
    return u * apply("\\min", 1, max_norm / apply("norm", u))


def _clip_by_block_rms(reader: Reader, u: Expression, threshold: Any) -> Expression:
    u = reader.atom(u)
    return u / apply("\\max", 1, apply("RMS", u) / threshold)


def _scale_by_param_block_rms(reader: Reader, u: Expression, min_scale: Any) -> Expression:
    return apply("\\max", apply("RMS", PARAMETERS), min_scale) * u


def _root(reader: Reader, u: Expression, eps: Any, eps_root: Any) -> Expression:
    inside = u if is_zero(eps_root) else u + eps_root
    # That 0 / 0 is 0 is a convention, and no part of a formula.
    return apply("root", inside) if is_zero(eps) else apply("root", inside) + eps


def _scale(reader: Reader, u: Expression, factor: Any) -> Expression:
    reader.downhill |= factor < 0
    return factor * u


def _add_noise(reader: Reader, u: Expression, eta: Any, gamma: Any, seed: Any) -> Expression:
    # Each has its own noise, unless the seeds are the same.
    noise = reader.claim((Symbol(r"\xi", time=t),), repr(seed))
    definition = Definition(noise, apply(r"\mathcal{N}", 0, 1))
    if definition not in reader.definitions:
        reader.definitions.append(definition)
    return u + apply("root", eta if is_zero(gamma) else eta / t**gamma) * noise


def _rprop(
    reader: Reader, u: Expression, learning_rate: Any, eta_minus: Any, eta_plus: Any,
    min_step_size: Any, max_step_size: Any,
) -> Expression:  # fmt: skip
    u = reader.atom(u)
    turned = apply("less", u * MEMORY, 0)
    direction = reader.remember(("s",), apply("cases", 0, turned, apply("sign", u)), 0)
    agreement = u * direction.at(t - 1)
    turned, stayed = apply("less", agreement, 0), apply("greater", agreement, 0)
    factor = reader.define(
        (Symbol("q", time=t),), apply("cases", eta_plus, stayed, eta_minus, turned, 1)
    )
    longer = apply("\\max", factor * MEMORY, min_step_size)
    step = reader.remember((r"\Delta",), apply("\\min", longer, max_step_size), learning_rate)
    return direction * step


LINK_RULES: dict[Callable[..., GradientTransformation], Callable[..., Expression]] = {
    square: lambda reader, u: u**2,
    sqrt: lambda reader, u: apply("root", u),
    root: _root,
    absolute: lambda reader, u: abs(u),
    sign: lambda reader, u: apply("sign", u),
    scale: _scale,
    clip: _clip,
    clip_by_global_norm: _clip_by_global_norm,
    clip_by_norm: _clip_by_global_norm,
    clip_by_block_rms: _clip_by_block_rms,
    normalize_by_global_norm: lambda reader, u: (u := reader.atom(u)) / apply("norm", u),
    scale_by_param_block_rms: _scale_by_param_block_rms,
    # That 0 / 0 is 0 is a convention, and no part of a formula.
    infinite_at_zero: lambda reader, u: u,
    keep_nonnegative: lambda reader, u: apply("\\max", u, -PARAMETERS),
    add_noise: _add_noise,
    stochastic_rounding: lambda reader, u, seed: apply("SR", PARAMETERS + u) - PARAMETERS,
    running_max: _running_max,
    additive_ema: _additive_ema,
    difference: _difference,
    wait: _wait,
    variance: _variance,
    bias_correction: _bias_correction,
    scheduled_bias_correction: _scheduled_bias_correction,
    rectify: _rectify,
    scale_by_rprop: _rprop,
}
