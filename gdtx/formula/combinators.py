"""The formulas of makers and combinators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.calls.functions import is_function, named_by
from ..core.combine import chain, feedback, join, previous
from ..core.graft import graft
from ..core.joined import join_trees
from ..core.let import let, value_of
from ..core.memory import accumulate, counted, recur
from ..core.random import randomized
from ..core.rules import elementwise, identity, set_to_zero, treewise, with_params
from ..core.select import masked, partition
from ..core.transformation import GradientTransformation
from ..core.tree_memory import recur_tree
from .expression import Apply, Expression, Symbol, apply, expression, is_apply, total
from .notation import escaped, remembered, word
from .reader import MEMORY, PARAMETERS, Reader, formula_of
from .results import is_nameless, opaque, result, symbolic
from .rewriting import Definition, contains, rewrite, shifted, t
from .tracing import traced


@formula_of(identity)
def _(u: Expression) -> Expression:
    return u


@formula_of(set_to_zero)
def _(u: Expression) -> Expression:
    return expression(0)


@formula_of(elementwise)
def _(u: Expression, reader: Reader, f: Any) -> Expression:
    return reader.merged(reader.origin or f, f, u)


@formula_of(with_params)
def _(u: Expression, reader: Reader, f: Any) -> Expression:
    return reader.merged(reader.origin or f, f, u, PARAMETERS)


@formula_of(treewise)
def _(u: Expression, reader: Reader, f: Any) -> Expression:
    seen = [PARAMETERS for _ in named_by(f, "params")]
    return reader.merged(reader.origin or f, f, u, *seen)


@formula_of(recur_tree)
def _(u: Expression, reader: Reader, rule: Any) -> Expression:
    return opaque(reader.origin or rule, u)


@formula_of(randomized)
def _(u: Expression, reader: Reader, f: Any) -> Expression:
    return opaque(reader.origin or f, u)


@formula_of(counted)
def _(u: Expression, reader: Reader, f: Any) -> Expression:
    name = reader.origin or f
    value = symbolic(lambda u: f(t)(u), u)
    if value is None and is_nameless(name):
        return reader.merged(name, lambda step, u: f(step)(u), t, u)
    return opaque(name, u) if value is None else value


@formula_of(accumulate, plain="initial")
def _(u: Expression, reader: Reader, f: Any, initial: Any, nesterov: bool) -> Expression:
    u = reader.atom(u) if nesterov else u
    value = symbolic(f, u, MEMORY)
    if value is None:
        return opaque(reader.origin or f, u)
    names = remembered(reader.origin, reader.branches, is_apply(u, "power"))
    running = reader.remember(names, _past_first(value), initial)
    return f(u, running) if nesterov else running


def _past_first(value: Expression) -> Expression:
    if not (isinstance(value, Apply) and value.head == "sum"):
        return value
    terms = sorted(value.args, key=lambda term: not contains(term, lambda part: part == MEMORY))
    return Apply("sum", tuple(terms))


# What comes in and the reader are positional only, because a branch or a buffer may have any name.
@formula_of(recur)
def _(u: Expression, reader: Reader, /, rule: Any, dtype: Any, **initial: Any) -> Expression:
    last = {name: Symbol(rf"\bullet {name}", time=t - 1) for name in initial}
    seen = {"params": PARAMETERS, "step": t}
    given = {name: seen[name] for name in named_by(rule, *seen)} | last
    u = reader.atom(u)
    try:
        out, new = rule(u, **given)
        out, values = expression(out), {last[name]: expression(new[name]) for name in initial}
    except Exception:  # as of any function that is no arithmetic, see `symbolic`
        found = is_nameless(reader.origin or rule) and traced(
            lambda u, *rest: rule(u, **dict(zip(given, rest, strict=True))), u, *given.values()
        )
        if not isinstance(found, tuple):
            return opaque(reader.origin or rule, u)
        out, values = found[0], {last[name]: found[1][name] for name in initial}
    starts = {
        last[name]: result(value, value, PARAMETERS) if is_function(value) else expression(value)
        for name, value in initial.items()
    }
    # What a rule keeps as it was at first needs no symbol.
    kept: dict[Expression, Expression] = {
        symbol: shifted(starts.pop(symbol), 1)
        for symbol in last.values() if values[symbol] == symbol
    }  # fmt: skip
    out = rewrite(out, kept.get)
    values = {symbol: rewrite(values[symbol], kept.get) for symbol in starts}
    # What is remembered has a symbol, in what comes out and in what is remembered after it.
    known: dict[Expression, Expression] = {}
    for symbol, value in values.items():
        values[symbol] = rewrite(value, known.get)
        if isinstance(value, Apply):
            known[value] = symbol.at(t)
    names = {symbol: (name[0],) for name, symbol in last.items() if symbol in starts}
    _, named = reader.remember_all(names, values, starts)
    return named(rewrite(out, known.get))


@formula_of(chain)
def _(u: Expression, reader: Reader, links: tuple[GradientTransformation, ...]) -> Expression:
    for link in links:
        u = reader.read(link, u)
    return u


@formula_of(join)
@formula_of(join_trees)
def _(
    u: Expression, reader: Reader, /, merge: Any, **branches: GradientTransformation
) -> Expression:
    u = reader.atom(u)
    outputs = []
    for name, branch in branches.items():
        with reader.branch(name):
            outputs.append(reader.read(branch, u))
    return reader.merged(merge, merge, *outputs)


@formula_of(feedback)
def _(
    u: Expression, reader: Reader, merge: Any, statistic: GradientTransformation, readout: Any,
    name: str | None, then: GradientTransformation | None,
) -> Expression:  # fmt: skip
    out = reader.claim(tuple(Symbol(letter, time=t) for letter in "xyz"), (u, statistic))
    before = len(reader.definitions)
    with reader.branch(name or "past"):
        emitted = reader.read(statistic, out)
    # What is kept of an output is computed after it.
    after = reader.definitions[before:]
    del reader.definitions[before:]
    past = shifted(emitted, t - 1)
    if readout is not None:
        past = reader.read(readout, past)
    merged = reader.merged(merge, merge, u, past)
    reader.definitions += [Definition(out, merged), *after]
    if name is None or then is None:
        return out
    with reader.naming({name: emitted}):
        return reader.read(then, out)


@formula_of(previous)
def _(u: Expression, reader: Reader, statistic: GradientTransformation) -> Expression:
    return shifted(reader.read(statistic, u), t - 1)


@formula_of(let)
def _(
    u: Expression, reader: Reader, /, body: GradientTransformation, **values: GradientTransformation
) -> Expression:
    u = reader.atom(u)
    with reader.naming({}):
        for name, value in values.items():
            with reader.branch(name):
                out = reader.read(value, u)
            is_letter = len(name) == 1 and not isinstance(out, Symbol)
            reader.values[name] = (
                reader.define((Symbol(name, time=t),), out) if is_letter else reader.atom(out)
            )
        return reader.read(body, u)


@formula_of(value_of)
def _(u: Expression, reader: Reader, name: str) -> Expression:
    return reader.values.get(name, word(name))


@formula_of(graft)
def _(
    u: Expression, reader: Reader, direction: GradientTransformation,
    magnitude: GradientTransformation, start: int,
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


@formula_of(masked)
def _(u: Expression, reader: Reader, inner: GradientTransformation, mask: Any) -> Expression:
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


@formula_of(partition)
def _(
    u: Expression, reader: Reader, transforms: Mapping[str, GradientTransformation]
) -> Expression:
    u = reader.atom(u)
    outputs = {label: reader.read(tx, u) for label, tx in transforms.items()}
    if len(set(outputs.values())) == 1:
        return next(iter(outputs.values()))
    rows = ((out, Symbol(rf"\text{{if {escaped(str(label))}}}")) for label, out in outputs.items())
    return apply("cases", *(part for row in rows for part in row))
