"""Traced programs: calls written out, equations run one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core

# Calls that say nothing but "compile this": they are written out where they stand.
_CALLS = ("jit", "pjit", "closed_call", "core_call")
# Where a program that is called keeps its equations.
_PROGRAMS = ("jaxpr", "call_jaxpr", "fun_jaxpr")

Program = Any
"""A jaxpr with its constants, for which versions of JAX have classes of different names."""


def trace(f: Callable[..., Any], *args: Any) -> tuple[Program, Any]:
    """The program of a function, calls written out, and the structure of what it returns."""
    closed, shape = jax.make_jaxpr(f, return_shape=True)(*args)
    return _written_out(closed), jax.tree.structure(shape)


def inner_program(eqn: Any) -> Program:
    """The program that an equation calls, calls in it written out."""
    program = next(eqn.params[name] for name in _PROGRAMS if name in eqn.params)
    if not hasattr(program, "consts"):  # of some equations, before jax 0.11
        program = core.ClosedJaxpr(program, ())  # pyright: ignore[reportPrivateImportUsage]
    return _written_out(program)


def operands_of_scan(eqn: Any, program: Program) -> tuple[int, int]:
    """How many constants come first among the operands of a scan, and how many carried after them.

    From the shapes alone, because versions of JAX write the numbers in parameters of other names:
    what is sliced or stacked has an axis more outside than in the body.
    """
    pairs = (eqn.invars, program.in_avals), (eqn.outvars, program.out_avals)
    whole_in, whole_out = (
        sum(len(var.aval.shape) == len(aval.shape) for var, aval in zip(*pair, strict=True))
        for pair in pairs
    )
    return whole_in - whole_out, whole_out


def _written_out(closed: Program) -> Program:
    avals = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in closed.in_avals]
    return jax.make_jaxpr(lambda *args: run(closed, args, _write_out))(*avals)


def _write_out(i: int, eqn: Any, args: list[Any]) -> Sequence[Any] | None:
    if eqn.primitive.name not in _CALLS:
        return None
    program = next(eqn.params[name] for name in _PROGRAMS if name in eqn.params)
    return run(program, args, _write_out)


def run(
    closed: Program,
    args: Sequence[Any],
    instead: Callable[[int, Any, list[Any]], Sequence[Any] | None],
) -> list[Any]:
    """What a program returns.

    Args:
        closed: the program.
        args: its operands.
        instead: function of the number of an equation, the equation and its operands, that returns
            its results, or None to have them computed as usual.
    """
    jaxpr = closed.jaxpr
    known: dict[Any, Any] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    known |= zip(jaxpr.invars, args, strict=True)

    def value(var: Any) -> Any:
        return var.val if is_literal(var) else known[var]

    for i, eqn in enumerate(jaxpr.eqns):
        operands = [value(var) for var in eqn.invars]
        results = instead(i, eqn, operands)
        if results is None:
            results = as_usual(eqn, operands)
        known |= zip(eqn.outvars, results, strict=True)
    return [value(var) for var in jaxpr.outvars]


def as_usual(eqn: Any, operands: Sequence[Any]) -> Sequence[Any]:
    """The results of an equation."""
    found = eqn.primitive.get_bind_params(eqn.params)
    # Until jax 0.8 functions among the parameters came apart from them.
    functions, params = found if isinstance(found, tuple) else ((), found)
    results = eqn.primitive.bind(*functions, *operands, **params)
    return results if eqn.primitive.multiple_results else [results]


def is_literal(var: Any) -> bool:
    """Whether an operand is a number written into the program, and no variable."""
    return isinstance(var, core.Literal)
