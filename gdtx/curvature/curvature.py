"""Gradient and curvature of a model, from one forward and two backward passes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from ..core.errors import at_work, describe, fail
from ..core.numerics import compute_dtype
from ..core.sharding import placed_as
from ..core.tree import PyTree, varying_like
from .losses import Loss
from .model.layers import Layer, in_order, infer_layout, leaves_by_path
from .model.taps import Statistics

OUTPUTS = ("sampled", "exact", "empirical")


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["blocks", "examples"], meta_fields=["layout"]
)
@dataclass(frozen=True)
class Curvature:
    """What the blocks of curvature are made of, as sums over examples.

    Curvatures of the same model add up, leaf by leaf: over micro-batches, and over devices.

    Args:
        blocks: for each block, by the path of its parameter, its statistics.
        examples: the number of examples.
        layout: the blocks' layers, in their order.
    """

    blocks: dict[str, Statistics]
    examples: jax.Array
    layout: tuple[Layer, ...]


def checked(curvature: Any, layers: tuple[Layer, ...], leaves: Mapping[str, Any]) -> Curvature:
    """The curvature, if it is one, and has of these layers what their leaves let one expect."""
    if not isinstance(curvature, Curvature):
        fail(TypeError, f"curvature must be a Curvature or None, got {describe(curvature)}")
    for layer in layers:
        missing = [path for path in layer.paths if path not in leaves]
        if missing:
            fail(
                ValueError,
                f"the curvature is that of another model: there is no {missing[0]!r}, of which it "
                f"has the block {layer.weight!r}",
            )
        block = curvature.blocks.get(layer.weight, {})
        for name, like in layer.statistics(leaves).items():
            shape = getattr(block.get(name), "shape", None)
            if shape != like.shape:
                what = f"curvature[{layer.weight!r}]"
                if shape is None:
                    fail(ValueError, f"{what} has no {name!r}, expected one of shape {like.shape}")
                fail(
                    ValueError,
                    f"{what}[{name!r}] has shape {shape}, the layer's has {like.shape}",
                )
    return curvature


@runtime_checkable
class Tapped(Protocol):
    """A model with taps: what :func:`tapped` and :func:`capture` return."""

    def layout(self, params: PyTree, inputs: PyTree) -> tuple[Layer, ...]: ...

    def apply(self, params: PyTree, inputs: PyTree, taps: PyTree) -> jax.Array: ...


@dataclass(frozen=True)
class WithTaps:
    """A model that takes taps, see :func:`tapped`."""

    model: Callable[[PyTree, PyTree, PyTree], jax.Array]
    layers: tuple[Layer, ...] | None

    def layout(self, params: PyTree, inputs: PyTree) -> tuple[Layer, ...]:
        return infer_layout(params) if self.layers is None else self.layers

    def apply(self, params: PyTree, inputs: PyTree, taps: PyTree) -> jax.Array:
        return self.model(params, inputs, taps)


def tapped(
    model: Callable[[PyTree, PyTree, PyTree], jax.Array],
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


def value_grad_and_curvature(
    model: Any, loss: Loss, output: str = "sampled", gradient: bool = False
) -> Callable[..., tuple[jax.Array, PyTree, Curvature]]:
    r"""A function that returns loss, gradient and curvature at once.

    The curvature of a block is that of the Fisher information, or generalised Gauss-Newton, matrix
    $F = \frac1N \sum_n J_n^T H_n J_n$ with $J_n$ the derivative of the outputs of an example and
    $H_n$ the curvature of its loss in them.

    Args:
        model: function of parameters and inputs that returns outputs of shape `(examples, ..., d)`;
            taps are put in by :func:`capture`, unless it has its own by :func:`tapped`.
        loss: :func:`squared_error`, :func:`softmax_cross_entropy`, :func:`sigmoid_cross_entropy`,
            or another object that has the methods of :class:`Loss`.
        output: how $H_n$ enters: "sampled", by one gradient at a target drawn from the model, which
            costs one more backward pass; "exact", by $d$ backward passes; "empirical", by the
            gradient of the loss itself, which costs nothing more but is another matrix.
        gradient: whether dense blocks also hold "G", the gradient at the sampled targets, which
            :func:`scale_by_ekfac` needs.

    Returns:
        A function of parameters, `(inputs, targets)` and, if sampled, a key that returns the mean
        loss, its gradient and a :class:`Curvature`. Jit it: outside of a trace, every call traces
        the model and searches it for layers again, and runs the pullbacks in full.

    Raises:
        ValueError: for another `output`, or if `gradient` is asked for of an exact one.
        TypeError: for a loss without those methods; from the function, if a key is needed and
            missing, or the batch is no pair.

    References:
        Martens & Grosse 2015, Optimizing Neural Networks with Kronecker-factored Approximate
        Curvature, arXiv:1503.05671.

    >>> import jax, jax.numpy as jnp
    >>> from gdtx import kfac
    >>> model = lambda params, x: x @ params["w"]
    >>> f = kfac.value_grad_and_curvature(model, kfac.squared_error, output="exact")
    >>> _, _, curvature = f({"w": jnp.ones((2, 1))}, (jnp.eye(2), jnp.zeros((2, 1))))
    >>> curvature.blocks["w"]["A"]
    Array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    name = "value_grad_and_curvature"
    if output not in OUTPUTS:
        options = ", ".join(map(repr, OUTPUTS))
        raise ValueError(f"{name}: output must be one of {options}, got {output!r}")
    if gradient and output == "exact":
        # Gradients of single examples do not cancel in their sum unless their signs are random.
        raise ValueError(f"{name}: gradient=True needs sampled outputs, got output='exact'")
    if not isinstance(loss, Loss):
        raise TypeError(
            f"{name}: loss must have the methods of kfac.Loss, as kfac.squared_error has, got "
            f"{describe(loss)}"
        )
    if not isinstance(model, Tapped):
        from .model.capture import capture

        model = capture(model)

    def evaluate(
        params: PyTree, batch: tuple[PyTree, PyTree], key: jax.Array | None = None
    ) -> tuple[jax.Array, PyTree, Curvature]:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise TypeError(f"{name}: batch must be (inputs, targets), got {describe(batch)}")
        inputs, targets = batch
        if output == "sampled" and key is None:
            raise TypeError(f"{name}: output='sampled' needs a key: f(params, batch, key)")
        layout = model.layout(params, inputs)
        leaves = leaves_by_path(params)
        taps = {layer.weight: layer.statistics(leaves) for layer in layout}
        if gradient:
            for layer in layout:
                if layer.kind == "dense":
                    stack, rows, columns = layer.sizes(leaves)
                    tap, zeros = taps[layer.weight], jnp.zeros((*stack, rows, columns), jnp.float32)
                    tap["G"] = varying_like(tap["A"], zeros)
        outputs, pull = jax.vjp(lambda p, taps: model.apply(p, inputs, taps), params, taps)
        with at_work(name):
            _check_outputs(outputs)
        examples = math.prod(outputs.shape[:-1])
        value, cotangent = jax.value_and_grad(loss)(outputs, targets)
        if output == "empirical":
            # Of single examples, and not of their mean.
            grads, blocks = pull(examples * cotangent)
            grads = jax.tree.map(lambda g: g / examples, grads)
        else:
            grads, _ = pull(cotangent)
            if key is not None and output == "sampled":
                blocks = pull(_of_outputs(loss.sampled, outputs, key))[1]
            else:
                blocks = _exact(lambda c: pull(c)[1], loss, outputs)
        # In float32 at least: bfloat16 counts to 256.
        number = jnp.asarray(1.0 * examples, compute_dtype(value.dtype))
        return value, grads, Curvature(blocks, number, layout)

    return evaluate


def _of_outputs(
    rule: Callable[..., jax.Array], outputs: jax.Array, argument: jax.Array
) -> jax.Array:
    """A cotangent of the outputs: where a placement is part of the type, it has theirs."""
    return varying_like(outputs, placed_as(outputs, rule, outputs, argument))


def _exact(
    pull: Callable[[jax.Array], dict[str, Statistics]], loss: Loss, outputs: jax.Array
) -> dict[str, Statistics]:
    columns = jnp.arange(outputs.shape[-1])
    each = jax.vmap(lambda index: pull(_of_outputs(loss.root, outputs, index)))(columns)
    # What comes from the inputs is the same for every column; what comes from the outputs adds up.
    return {
        block: {
            name: stack.sum(0) if name in ("S", "D") else stack[0]
            for name, stack in statistics.items()
        }
        for block, statistics in each.items()
    }


def _check_outputs(outputs: Any) -> None:
    if not hasattr(outputs, "shape") or outputs.ndim < 2:
        fail(
            ValueError,
            f"the model must return one array of shape (examples, ..., d), got {describe(outputs)}",
        )
