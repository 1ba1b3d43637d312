"""The formulas of makers and combinators, and with those of links, of all that is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..core.combine import chain, feedback, join, previous
from ..core.let import let, value_of
from ..core.memory import accumulate, counted, recur
from ..core.random import randomized
from ..core.rules import elementwise, identity, set_to_zero, treewise, with_params
from ..core.select import masked, partition
from ..core.transformation import GradientTransformation
from ..links.rank_one import rank_one
from .curvature_rules import CURVATURE_RULES
from .expression import Apply, Expression, Symbol, apply, expression, is_apply, total
from .layerwise_rules import LAYERWISE_RULES
from .link_rules import LINK_RULES
from .matrix_rules import MATRIX_RULES
from .reader import MEMORY, PARAMETERS, Reader, opaque, result, symbolic
from .rewriting import Definition, contains, rewrite, shifted, t
from .symbols import escaped, letters, word
from .wrapper_rules import WRAPPER_RULES


def _chain(reader: Reader, u: Expression, *links: GradientTransformation) -> Expression:
    for link in links:
        u = reader.read(link, u)
    return u


# Positional only, because a branch or a buffer may have any name.
def _join(
    reader: Reader, u: Expression, /, merge: Any, **branches: GradientTransformation
) -> Expression:
    u = reader.atom(u)
    outputs = []
    for name, branch in branches.items():
        with reader.branch(name):
            outputs.append(reader.read(branch, u))
    return result(merge, merge, *outputs)


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
    merged = result(merge, merge, u, past)
    reader.definitions += [Definition(out, merged), *after]
    return out


def _previous(reader: Reader, u: Expression, statistic: GradientTransformation) -> Expression:
    return shifted(reader.read(statistic, u), t - 1)


def _let(
    reader: Reader, u: Expression, /, body: GradientTransformation, **values: GradientTransformation
) -> Expression:
    u = reader.atom(u)
    outer = dict(reader.values)
    for name, value in values.items():
        with reader.branch(name):
            out = reader.read(value, u)
        is_letter = len(name) == 1 and not isinstance(out, Symbol)
        reader.values[name] = (
            reader.define((Symbol(name, time=t),), out) if is_letter else reader.atom(out)
        )
    out = reader.read(body, u)
    reader.values = outer
    return out


def _rank_one(
    reader: Reader, u: Expression, statistic: GradientTransformation, min_dim_size_to_factor: int
) -> Expression:
    u = reader.atom(u)
    kept = []
    for branch, mean in (("row", "rowmean"), ("col", "colmean")):
        with reader.branch(branch):
            kept.append(reader.atom(reader.read(statistic, apply(mean, u))))
    row, col = kept
    # A column of means, whose own mean is one number.
    return row * col / apply("colmean", row)


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


def _partition(
    reader: Reader, u: Expression, transforms: Mapping[str, GradientTransformation], labels: Any
) -> Expression:
    u = reader.atom(u)
    outputs = {label: reader.read(tx, u) for label, tx in transforms.items()}
    if len(set(outputs.values())) == 1:
        return next(iter(outputs.values()))
    rows = ((out, Symbol(rf"\text{{if {escaped(str(label))}}}")) for label, out in outputs.items())
    return apply("cases", *(part for row in rows for part in row))


def _elementwise(reader: Reader, u: Expression, f: Any) -> Expression:
    return result(reader.origin or f, f, u)


def _with_params(reader: Reader, u: Expression, f: Any) -> Expression:
    return result(reader.origin or f, f, u, PARAMETERS)


def _counted(reader: Reader, u: Expression, f: Any) -> Expression:
    return result(reader.origin or f, lambda u: f(t)(u), u)


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


def _recur(reader: Reader, u: Expression, /, rule: Any, dtype: Any, **initial: Any) -> Expression:
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


RULES: dict[Callable[..., GradientTransformation], Callable[..., Expression]] = {
    chain: _chain,
    join: _join,
    feedback: _feedback,
    previous: _previous,
    let: _let,
    value_of: lambda reader, u, name: reader.values.get(name, word(name)),
    rank_one: _rank_one,
    masked: _masked,
    partition: _partition,
    elementwise: _elementwise,
    with_params: _with_params,
    treewise: lambda reader, u, f: opaque(reader.origin or f, u),
    counted: _counted,
    randomized: lambda reader, u, f, *_, **__: opaque(reader.origin or f, u),
    accumulate: _accumulate,
    recur: _recur,
    identity: lambda reader, u: u,
    set_to_zero: lambda reader, u: expression(0),
    **LINK_RULES,
    **LAYERWISE_RULES,
    **MATRIX_RULES,
    **CURVATURE_RULES,
    **WRAPPER_RULES,
}
