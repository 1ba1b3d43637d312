"""The formulas of makers and combinators, and of the links whose code is not their formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._combine import chain, feedback, join
from .._memory import accumulate, counted, recur
from .._rules import elementwise, identity, set_to_zero, treewise, with_params
from .._select import masked
from .._transformation import GradientTransformation
from ..links.arithmetic import absolute, clip, scale, sign, sqrt, square
from ..links.clipping import clip_by_global_norm
from ..links.correction import bias_correction, rectify, scheduled_bias_correction
from ..links.moments import running_max, variance
from ..matrix.blockwise import blockwise
from ..matrix.eigenbasis import in_eigenbasis
from ..matrix.precondition import precondition
from ..methods.rprop import scale_by_rprop
from ..wrappers.tunable import tunable
from .expression import Apply, Expression, Symbol, apply, expression, is_apply, total
from .formula import MEMORY, PARAMETERS, Reader, opaque, symbolic
from .matrices import in_eigenbasis_rule, precondition_rule
from .rewriting import Definition, contains, rewrite, shifted, t
from .symbols import letters


def _chain(reader: Reader, u: Expression, *links: GradientTransformation) -> Expression:
    for link in links:
        u = reader.read(link, u)
    return u


def _join(
    reader: Reader, u: Expression, merge: Any, **branches: GradientTransformation
) -> Expression:
    u = reader.atom(u)
    outputs = []
    for name, branch in branches.items():
        with reader.branch(name):
            outputs.append(reader.read(branch, u))
    return _result(merge, merge, *outputs)


def _feedback(
    reader: Reader, u: Expression, merge: Any, statistic: GradientTransformation, readout: Any
) -> Expression:
    out = reader.claim(tuple(Symbol(letter, time=t) for letter in "xyz"), (u, statistic))
    before = len(reader.definitions)
    with reader.branch("past"):
        emitted = reader.read(statistic, out)
    # What is kept of an output is computed after it.
    after = reader.definitions[before:]
    del reader.definitions[before:]
    past = shifted(emitted, t - 1)
    if readout is not None:
        past = reader.read(readout, past)
    merged = _result(merge, merge, u, past)
    reader.definitions += [Definition(out, merged), *after]
    return out


def _masked(reader: Reader, u: Expression, inner: GradientTransformation, mask: Any) -> Expression:
    chosen = Symbol(r"\text{where the mask is true}")
    whole = u.args if isinstance(u, Apply) and u.head == "sum" else (u,)
    out = reader.read(inner, u)
    if out == u:
        return u
    if isinstance(out, Apply) and out.head == "sum" and out.args[: len(whole)] == whole:
        selected = reader.claim((Symbol("M"),), repr(mask))
        definition = Definition(selected, apply("cases", 1, chosen, 0))
        if definition not in reader.definitions:
            reader.definitions.append(definition)
        return u + selected * total(*out.args[len(whole) :])
    return apply("cases", out, chosen, u)


def _result(name: Any, f: Any, *inputs: Expression) -> Expression:
    """What a function makes of its inputs: its arithmetic, or else a name."""
    value = symbolic(f, *inputs)
    return opaque(name, *inputs) if value is None else value


def _elementwise(reader: Reader, u: Expression, f: Any) -> Expression:
    return _result(reader.origin or f, f, u)


def _with_params(reader: Reader, u: Expression, f: Any) -> Expression:
    return _result(reader.origin or f, f, u, PARAMETERS)


def _counted(reader: Reader, u: Expression, f: Any) -> Expression:
    return _result(reader.origin or f, lambda u: f(t)(u), u)


def _accumulate(
    reader: Reader, u: Expression, f: Any, initial: Any, dtype: Any, nesterov: bool
) -> Expression:
    u = reader.atom(u) if nesterov else u
    value = symbolic(f, u, MEMORY)
    if value is None:
        return opaque(reader.origin or f, u)
    names = letters(reader.origin, reader.branches, is_apply(u, "power"))
    running = reader.remember(names, _past_first(value), initial)
    return f(u, running) if nesterov else running


def _past_first(value: Expression) -> Expression:
    if not (isinstance(value, Apply) and value.head == "sum"):
        return value
    terms = sorted(value.args, key=lambda term: not contains(term, lambda part: part == MEMORY))
    return Apply("sum", tuple(terms))


def _recur(reader: Reader, u: Expression, rule: Any, dtype: Any, **initial: Any) -> Expression:
    last = {name: Symbol(rf"\bullet {name}", time=t - 1) for name in initial}
    u = reader.atom(u)
    try:
        out, new = rule(u, **last)
        out, values = expression(out), {last[name]: expression(new[name]) for name in initial}
    except Exception:  # as of any function that is no arithmetic, see `symbolic`
        return opaque(reader.origin or rule, u)
    names = {last[name]: (name[0],) for name in initial}
    starts = {last[name]: value for name, value in initial.items()}
    _, named = reader.remember_all(names, values, starts)
    known: dict[Expression, Symbol] = {
        value: symbol.at(t) for symbol, value in values.items() if isinstance(value, Apply)
    }  # fmt: skip
    return named(rewrite(out, lambda part: known.get(part)))


def _running_max(reader: Reader, u: Expression, decay: Any, dtype: Any) -> Expression:
    # The letters of AMSGrad and of AdaMax.
    names = ("a", "n") if expression(decay) == expression(1) else ("n", "a")
    return reader.remember(names, apply("\\max", decay * MEMORY, u), 0)


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


def _scale(reader: Reader, u: Expression, factor: Any) -> Expression:
    reader.downhill |= factor < 0
    return factor * u


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


RULES: dict[Callable[..., GradientTransformation], Callable[..., Expression]] = {
    chain: _chain,
    join: _join,
    feedback: _feedback,
    tunable: lambda reader, u, inner, *names: reader.read(inner, u),
    masked: _masked,
    elementwise: _elementwise,
    with_params: _with_params,
    treewise: lambda reader, u, f: opaque(reader.origin or f, u),
    counted: _counted,
    accumulate: _accumulate,
    recur: _recur,
    identity: lambda reader, u: u,
    set_to_zero: lambda reader, u: expression(0),
    square: lambda reader, u: u**2,
    sqrt: lambda reader, u: apply("root", u),
    absolute: lambda reader, u: abs(u),
    sign: lambda reader, u: apply("sign", u),
    scale: _scale,
    clip: _clip,
    clip_by_global_norm: _clip_by_global_norm,
    running_max: _running_max,
    variance: _variance,
    bias_correction: _bias_correction,
    scheduled_bias_correction: _scheduled_bias_correction,
    rectify: _rectify,
    scale_by_rprop: _rprop,
    blockwise: lambda reader, u, inner, **layout: reader.read(inner, u),
    precondition: precondition_rule,
    in_eigenbasis: in_eigenbasis_rule,
}
