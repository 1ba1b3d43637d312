"""Taps put into a model that was written without them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from ...core.errors import at_work, fail
from ...core.trees.tree import PyTree
from .insertion import run_tapped
from .layers import Layer, in_order, leaves_by_path
from .origins import Known, Origin
from .programs import Program, trace
from .sites import Plan, Planner
from .tapped import Prepared, Taps


@dataclass(frozen=True)
class Captured:
    """A model in whose traced program taps are put, see :func:`capture`."""

    model: Callable[[PyTree, PyTree], jax.Array]
    fallback: tuple[str, ...]
    sharing: str

    def layout(self, params: PyTree, inputs: PyTree) -> tuple[Layer, ...]:
        """The layers that the model's program has."""
        return self.prepare(params, inputs).layers

    def prepare(self, params: PyTree, inputs: PyTree) -> Prepared:
        """The model for parameters and inputs like these: it is traced and searched once."""
        program, structure = trace(self.model, params, inputs)
        leaves = leaves_by_path(params)
        with at_work("capture"):
            plan, layers = self._search(program, leaves, _examples(inputs))

        def apply(params: PyTree, taps: Taps) -> jax.Array:
            return structure.unflatten(run_tapped(plan, jax.tree.leaves((params, inputs)), taps))

        return Prepared(layers, leaves, apply)

    def _search(
        self, program: Program, leaves: Mapping[str, Any], examples: int
    ) -> tuple[Plan, tuple[Layer, ...]]:
        """Where the taps go, and the layers."""
        unknown = set(self.fallback) - set(leaves)
        if unknown:
            names = ", ".join(leaves)
            fail(
                ValueError,
                f"fallback names {min(unknown)!r}, which is no parameter; those are {names}",
            )
        planner = Planner(examples, self.sharing, self.fallback)
        variables = program.jaxpr.invars
        origins = {
            var: Origin(path, tuple(range(leaf.ndim)))
            for var, (path, leaf) in zip(variables, leaves.items(), strict=False)
        }
        plan = planner.plan(program, Known(origins, variables[len(leaves) :]))
        found = {path for layer in planner.layers.values() for path in layer.paths}
        for path in leaves:
            if path not in found | planner.fallback:
                fail(
                    ValueError,
                    f"{path} is not used by the model, or only where it changes nothing: "
                    "name it in fallback, and it is left out of the curvature",
                )
        return plan, in_order(planner.layers.values())


def _examples(inputs: PyTree) -> int:
    return next((leaf.shape[0] for leaf in jax.tree.leaves(inputs) if leaf.shape), 1)


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
