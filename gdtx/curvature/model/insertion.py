"""A traced program run with the taps of its plan, and otherwise as it would be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from .programs import as_usual, operands_of_scan, run
from .sites import Plan
from .tapped import Taps
from .taps import observe


def run_tapped(plan: Plan, args: Sequence[Any], taps: Taps) -> list[Any]:
    """What the program of a plan returns, with its taps."""

    def instead(i: int, eqn: Any, operands: list[Any]) -> Sequence[Any] | None:
        if i in plan.sites:
            site = plan.sites[i]
            (y,) = as_usual(eqn, operands)
            return [observe(site.rule, y, operands[site.data], taps[site.block])]
        inner = plan.inner.get(i)
        if inner is None or not inner.blocks():
            return None
        return _CALLS.get(eqn.primitive.name, _own_derivative)(eqn, operands, inner, taps)

    return run(plan.program, args, instead)


def _checkpoint(eqn: Any, operands: list[Any], plan: Plan, taps: Taps) -> Sequence[Any]:
    body = jax.checkpoint(
        lambda args, taps: run_tapped(plan, args, taps),
        prevent_cse=eqn.params["prevent_cse"],
        policy=eqn.params["policy"],
    )
    return body(operands, taps)


def _scan(eqn: Any, operands: list[Any], plan: Plan, taps: Taps) -> Sequence[Any]:
    params = eqn.params
    consts, carried = operands_of_scan(eqn, plan.program)
    begin = consts + carried
    stacked = {block: taps[block] for block in plan.stacked}

    def body(carry: list[Any], slices: Any) -> Any:
        xs, here = slices
        args = [*operands[:consts], *carry, *xs]
        results = run_tapped(plan, args, {**taps, **here})
        return results[: len(carry)], results[len(carry) :]

    carry, ys = jax.lax.scan(
        body, operands[consts:begin], (operands[begin:], stacked),
        length=params["length"], reverse=params["reverse"], unroll=params["unroll"],
    )  # fmt: skip
    return [*carry, *ys]


def _own_derivative(eqn: Any, operands: list[Any], plan: Plan, taps: Taps) -> Sequence[Any]:
    """A call with derivatives of its own keeps them; the taps see those of what it computes."""

    @jax.custom_vjp
    def call(args: list[Any], taps: Taps) -> list[Any]:
        return list(as_usual(eqn, args))

    def forward(args: list[Any], taps: Taps) -> Any:
        results, pull = jax.vjp(lambda args: list(as_usual(eqn, args)), args)
        _, pull_taps = jax.vjp(lambda taps: run_tapped(plan, args, taps), taps)
        return results, (pull, pull_taps)

    def backward(pulls: Any, g: Any) -> Any:
        pull, pull_taps = pulls
        return pull(g)[0], pull_taps(g)[0]

    call.defvjp(forward, backward)
    return call(operands, taps)


_CALLS = {"scan": _scan, "remat2": _checkpoint, "remat": _checkpoint, "checkpoint": _checkpoint}
