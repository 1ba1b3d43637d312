"""What a function does, read from its program: for rules that are more than arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import jax
import numpy as np

from .expression import (
    Apply,
    Expression,
    Number,
    Symbol,
    apply,
    expression,
    product,
    quotient,
    total,
)
from .rewriting import t

_CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call")
_UNSEEN = ("broadcast_in_dim", "copy", "real", "reshape", "squeeze", "stop_gradient")


def traced(f: Callable[..., Any], *inputs: Expression) -> Any:
    """What a function of arrays makes of symbols, in a tree as it returns it.

    It is traced for two lengths of an array: what is not the same for both, and what has no
    notation here, is None.
    """
    try:
        one, other = (_traced(f, inputs, length) for length in (7, 11))
    except Exception:  # every function has its own way to refuse what it is given
        return None
    return one if one == other else None


def _traced(f: Callable[..., Any], inputs: tuple[Expression, ...], length: int) -> Any:
    arrays = [
        jax.ShapeDtypeStruct((), "int32")
        if each == t
        else jax.ShapeDtypeStruct((length,), "float32")
        for each in inputs
    ]
    program, shape = jax.make_jaxpr(f, return_shape=True)(*arrays)
    results = _Program(length).run(program.jaxpr, program.consts, inputs)
    return jax.tree.structure(shape).unflatten(results)


class _Program:
    def __init__(self, length: int):
        self.length = Number(Decimal(length))

    def run(self, program: Any, constants: Any, inputs: Any) -> list[Expression]:
        known = dict(zip(program.constvars, map(expression, constants), strict=True))
        known |= dict(zip(program.invars, inputs, strict=True))

        def value(variable: Any) -> Expression:
            return _number(variable.val) if hasattr(variable, "val") else known[variable]

        for step in program.eqns:
            found = self.step(step, [value(each) for each in step.invars])
            known |= dict(zip(step.outvars, found, strict=True))
        return [value(each) for each in program.outvars]

    def step(self, step: Any, args: list[Expression]) -> list[Expression]:
        name = step.primitive.name
        if name in _CALLS:
            if step.params.get("name") == "remainder":
                return [apply("mod", *args)]
            inner = step.params.get("jaxpr") or step.params["call_jaxpr"]
            return self.run(inner.jaxpr, inner.consts, args)
        if name in _UNSEEN:
            return [args[0]]
        if name == "convert_element_type":
            is_condition = step.invars[0].aval.dtype == bool
            return [apply("cases", 1, args[0], 0) if is_condition else args[0]]
        if name == "integer_pow":
            return [apply("power", args[0], step.params["y"])]
        if name == "div" and args[1] == self.length:
            match args[0]:
                case Apply(head, (each,)) if head == _SUM:
                    return [apply(r"\operatorname{mean}", each)]
                case Apply("power", (Apply("norm", (each,)), _)):
                    return [apply(r"\operatorname{mean}", apply("power", each, 2))]
        return [_notation[name](*args)]


def _number(value: Any) -> Expression:
    number = np.asarray(value)
    return Symbol(r"\pi") if np.isclose(number, np.pi, rtol=1e-7, atol=0) else expression(number)


_SUM = r"\operatorname{sum}"


def _times(one: Expression, other: Expression) -> Expression:
    return apply("power", one, 2) if one == other else product(one, other)


def _sum(each: Expression) -> Expression:
    match each:
        case Apply("power", (base, power)) if power == expression(2):
            return apply("power", apply("norm", base), 2)
        case Apply("product", (one, other)) if not isinstance(one, Number):
            return apply("inner", one, other)
    return apply(_SUM, each)


def _root(inside: Expression) -> Expression:
    match inside:
        case Apply("power", (Apply("norm") as norm, power)) if power == expression(2):
            return norm
    return apply("root", inside)


_notation: dict[str, Callable[..., Expression]] = {
    "add": total,
    "add_any": total,
    "sub": lambda one, other: total(one, product(-1, other)),
    "mul": _times,
    "div": quotient,
    "neg": lambda u: product(-1, u),
    "square": lambda u: apply("power", u, 2),
    "pow": lambda u, power: apply("power", u, power),
    "sqrt": _root,
    "rsqrt": lambda u: quotient(1, _root(u)),
    "cbrt": lambda u: apply("power", u, quotient(1, 3)),
    "abs": lambda u: apply("abs", u),
    "sign": lambda u: apply("sign", u),
    "exp": lambda u: apply(r"\exp", u),
    "expm1": lambda u: total(apply(r"\exp", u), -1),
    "log": lambda u: apply(r"\log", u),
    "log1p": lambda u: apply(r"\log", total(1, u)),
    "sin": lambda u: apply(r"\sin", u),
    "cos": lambda u: apply(r"\cos", u),
    "tanh": lambda u: apply(r"\tanh", u),
    "logistic": lambda u: quotient(1, total(1, apply(r"\exp", product(-1, u)))),
    "atan2": lambda above, below: apply("arctan2", above, below),
    "max": lambda one, other: apply(r"\max", one, other),
    "min": lambda one, other: apply(r"\min", one, other),
    "clamp": lambda low, u, high: apply(r"\min", apply(r"\max", u, low), high),
    "and": lambda one, other: apply("and", one, other),
    "eq": lambda one, other: apply("equal", one, other),
    "gt": lambda one, other: apply("greater", one, other),
    "lt": lambda one, other: apply("less", one, other),
    "le": lambda one, other: apply("at most", one, other),
    "ge": lambda one, other: apply("at most", other, one),
    "select_n": lambda which, no, yes: apply("cases", yes, which, no),
    "reduce_sum": _sum,
    "reduce_max": lambda u: apply(r"\max", u),
    "reduce_min": lambda u: apply(r"\min", u),
}
