"""Models with taps: what they are asked for, and those that are written with taps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

from ...core.trees.tree import PyTree
from .infer import infer_layers
from .layers import Layer, in_order, leaves_by_path
from .statistics import Statistics

Taps = dict[str, Statistics]
"""Of each block, by the path of its weight, the zeros whose cotangents are its statistics."""


class Prepared(NamedTuple):
    """A model made ready for parameters and inputs: what one evaluation needs of it.

    The layers, the parameters by their paths, and the outputs as a function of parameters and taps.
    """

    layers: tuple[Layer, ...]
    leaves: dict[str, Any]
    apply: Callable[[PyTree, Taps], jax.Array]


@runtime_checkable
class Tapped(Protocol):
    """A model with taps: what :func:`tapped` and :func:`capture` return."""

    def layout(self, params: PyTree, inputs: PyTree) -> tuple[Layer, ...]: ...

    def prepare(self, params: PyTree, inputs: PyTree) -> Prepared: ...


@dataclass(frozen=True)
class WithTaps:
    """A model that takes taps, see :func:`tapped`."""

    model: Callable[[PyTree, PyTree, Taps], jax.Array]
    layers: tuple[Layer, ...] | None

    def layout(self, params: PyTree, inputs: PyTree) -> tuple[Layer, ...]:
        return self.prepare(params, inputs).layers

    def prepare(self, params: PyTree, inputs: PyTree) -> Prepared:
        leaves = leaves_by_path(params)
        layers = infer_layers(leaves) if self.layers is None else self.layers
        return Prepared(layers, leaves, lambda params, taps: self.model(params, inputs, taps))


def tapped(
    model: Callable[[PyTree, PyTree, Taps], jax.Array],
    layers: tuple[Layer, ...] | None = None,
) -> WithTaps:
    """A model written with taps, as :func:`value_grad_and_curvature` takes it.

    Args:
        model: function of parameters, inputs and taps that returns the outputs. Taps are a dict
            from the paths of weights, joined by `/`, to what :func:`tap_dense` takes.
        layers: the layers with a tap; by default, what names and shapes of the parameters let one
            expect, see :func:`infer_layout`.

    >>> import jax, jax.numpy as jnp
    >>> from gdtx import kfac
    >>> def model(params, x, taps):
    ...     return kfac.tap_dense(x, params["w"], params["b"], taps["w"])
    >>> params = {"w": jnp.ones((2, 1)), "b": jnp.zeros(1)}
    >>> f = kfac.value_grad_and_curvature(
    ...     kfac.tapped(model), kfac.squared_error, output="exact")
    >>> value, grads, curvature = f(params, (jnp.ones((4, 2)), jnp.zeros((4, 1))))
    >>> curvature.blocks["w"]["S"] / curvature.examples
    Array([[1.]], dtype=float32)
    """
    return WithTaps(model, None if layers is None else in_order(layers))
