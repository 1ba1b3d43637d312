"""Taps put into a model that was written without them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from ...core.errors import at_work, fail
from ...core.tree import PyTree
from .layers import Layer, in_order, leaves_by_path
from .origins import Origin
from .programs import as_usual, inner_program, operands_of_scan, run, trace
from .sites import Plan, Planner
from .taps import Statistics, observe

Taps = dict[str, Statistics]


@dataclass(frozen=True)
class Captured:
    """A model in whose traced program taps are put, see :func:`capture`."""

    model: Callable[[PyTree, PyTree], jax.Array]
    fallback: tuple[str, ...]
    sharing: str

    def layout(self, params: PyTree, inputs: PyTree) -> tuple[Layer, ...]:
        """The layers that the model's program has."""
        return self._planned(params, inputs)[2]

    def apply(self, params: PyTree, inputs: PyTree, taps: Taps) -> jax.Array:
        """What the model returns."""
        closed, plan, _, structure = self._planned(params, inputs)
        leaves = jax.tree.leaves((params, inputs))
        return structure.unflatten(_tapped(closed, leaves, plan, taps))

    def _planned(self, params: PyTree, inputs: PyTree) -> Any:
        closed, structure = trace(self.model, params, inputs)
        origins = {
            var: Origin(path, tuple(range(leaf.ndim)))
            for var, (path, leaf) in zip(
                closed.jaxpr.invars, leaves_by_path(params).items(), strict=False
            )
        }
        data = closed.jaxpr.invars[len(origins) :]
        with at_work("capture"):
            unknown = set(self.fallback) - {origin.path for origin in origins.values()}
            if unknown:
                names = ", ".join(origin.path for origin in origins.values())
                fail(
                    ValueError,
                    f"fallback names {min(unknown)!r}, which is no parameter; those are {names}",
                )
            examples = next((leaf.shape[0] for leaf in jax.tree.leaves(inputs) if leaf.shape), 1)
            planner = Planner(examples, self.sharing, self.fallback)
            plan = planner.plan(closed.jaxpr, origins, set(data))
            self._check_all_found(planner, origins.values())
        return closed, plan, in_order(planner.layers.values()), structure

    def _check_all_found(self, planner: Planner, origins: Any) -> None:
        found = {path for layer in planner.layers.values() for path in layer.paths}
        for origin in origins:
            if origin.path not in found | planner.fallback:
                fail(
                    ValueError,
                    f"{origin.path} is not used by the model, or only where it changes nothing: "
                    "name it in fallback, and it is left out of the curvature",
                )


def capture(
    model: Callable[[PyTree, PyTree], jax.Array],
    fallback: Sequence[str] = (),
    sharing: str = "expand",
) -> Captured:
    r"""Put taps into a model that was written without them.

    Its program is traced, through `jit`, `checkpoint`, `scan`, `vmap` and custom derivatives, and
    searched for what parameters are used in: dense layers, convolutions, scales and shifts. It is
    strict: another use of a parameter is an error, unless the parameter is named in `fallback`.

    Args:
        model: function of parameters and inputs, whose first axis goes over examples.
        fallback: paths of parameters that are to have no curvature, keys joined by `/`.
        sharing: of layers that one example uses several times, as in :func:`tap_dense`.

    Returns:
        A model that :func:`value_grad_and_curvature` takes; its `layout(params, inputs)` are the
        layers found.

    Raises:
        ValueError: when it is traced, for a use that is none of a known layer; the message names
            the parameter and the operation.

    References:
        Martens & Grosse 2015, see :func:`tap_dense`; Grosse & Martens 2016, A Kronecker-factored
        Approximate Fisher Matrix for Convolution Layers, arXiv:1602.01407.

    >>> import jax, jax.numpy as jnp
    >>> from gdtx import kfac
    >>> model = lambda params, x: jnp.tanh(x @ params["w"] + params["b"][None])
    >>> params = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}
    >>> [layer.paths for layer in kfac.capture(model).layout(params, jnp.ones((4, 2)))]
    [('w', 'b')]
    """
    if sharing not in ("expand", "reduce"):
        raise ValueError(f"capture: sharing must be 'expand' or 'reduce', got {sharing!r}")
    return Captured(model, tuple(fallback), sharing)


def _tapped(closed: Any, args: Sequence[Any], plan: Plan, taps: Taps) -> list[Any]:
    """What the program returns, with the taps of the plan."""

    def instead(i: int, eqn: Any, operands: list[Any]) -> Sequence[Any] | None:
        if i in plan.sites:
            site = plan.sites[i]
            (y,) = as_usual(eqn, operands)
            return [observe(site.rule, y, operands[site.data], taps[site.block])]
        inner = plan.inner.get(i)
        if inner is None or not inner.blocks():
            return None
        return _CALLS.get(eqn.primitive.name, _own_derivative)(eqn, operands, inner, taps)

    return run(closed, args, instead)


def _checkpoint(eqn: Any, operands: list[Any], plan: Plan, taps: Taps) -> Sequence[Any]:
    program = inner_program(eqn)
    body = jax.checkpoint(
        lambda args, taps: _tapped(program, args, plan, taps),
        prevent_cse=eqn.params["prevent_cse"],
        policy=eqn.params["policy"],
    )
    return body(operands, taps)


def _scan(eqn: Any, operands: list[Any], plan: Plan, taps: Taps) -> Sequence[Any]:
    program, params = inner_program(eqn), eqn.params
    consts, carried = operands_of_scan(eqn, program)
    begin = consts + carried
    stacked = {block: taps[block] for block in plan.stacked}

    def body(carry: list[Any], slices: Any) -> Any:
        xs, here = slices
        args = [*operands[:consts], *carry, *xs]
        results = _tapped(program, args, plan, {**taps, **here})
        return results[: len(carry)], results[len(carry) :]

    carry, ys = jax.lax.scan(
        body, operands[consts:begin], (operands[begin:], stacked),
        length=params["length"], reverse=params["reverse"], unroll=params["unroll"],
    )  # fmt: skip
    return [*carry, *ys]


def _own_derivative(eqn: Any, operands: list[Any], plan: Plan, taps: Taps) -> Sequence[Any]:
    """A call with derivatives of its own keeps them; the taps see those of what it computes."""
    program = inner_program(eqn)

    @jax.custom_vjp
    def call(args: list[Any], taps: Taps) -> list[Any]:
        return list(as_usual(eqn, args))

    def forward(args: list[Any], taps: Taps) -> Any:
        results, pull = jax.vjp(lambda args: list(as_usual(eqn, args)), args)
        _, pull_taps = jax.vjp(lambda taps: _tapped(program, args, plan, taps), taps)
        return results, (pull, pull_taps)

    def backward(pulls: Any, g: Any) -> Any:
        pull, pull_taps = pulls
        return pull(g)[0], pull_taps(g)[0]

    call.defvjp(forward, backward)
    return call(operands, taps)


_CALLS = {"scan": _scan, "remat2": _checkpoint, "remat": _checkpoint, "checkpoint": _checkpoint}
