"""Gradient and curvature of a model, from one forward and two backward passes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..core.errors import at_work, fail, summarize
from ..core.numbers.numerics import compute_dtype
from ..core.trees.sharding import shard_like_if_explicit
from ..core.trees.tree import PyTree, varying_like
from .curvature import Curvature
from .losses import Loss
from .model.capture import capture
from .model.statistics import Statistics, zeros
from .model.tapped import Tapped

OUTPUTS = ("sampled", "exact", "empirical")
_NAME = "value_grad_and_curvature"


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
            costs one more backward pass; "exact", by $d$ backward passes, the steadier one where
            $d$ is small; "empirical", by the gradient of the loss itself, which costs nothing more
            but is another matrix.
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
    with at_work(_NAME):
        _check_choices(loss, output, gradient)
    model = model if isinstance(model, Tapped) else capture(model)

    def evaluate(
        params: PyTree, batch: tuple[PyTree, PyTree], key: jax.Array | None = None
    ) -> tuple[jax.Array, PyTree, Curvature]:
        with at_work(_NAME):
            _check_batch(batch, key, output)
        inputs, targets = batch
        layers, leaves, apply = model.prepare(params, inputs)
        taps = {layer.weight: zeros(layer, leaves, gradient) for layer in layers}
        outputs, pull = jax.vjp(apply, params, taps)
        with at_work(_NAME):
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
        return value, grads, Curvature(blocks, number, layers)

    return evaluate


def _check_choices(loss: Any, output: str, gradient: bool) -> None:
    if output not in OUTPUTS:
        options = ", ".join(map(repr, OUTPUTS))
        fail(ValueError, f"output must be one of {options}, got {output!r}")
    if gradient and output == "exact":
        # Gradients of single examples do not cancel in their sum unless their signs are random.
        fail(ValueError, "gradient=True needs sampled outputs, got output='exact'")
    if not isinstance(loss, Loss):
        expected = "loss must have the methods of kfac.Loss, as kfac.squared_error has"
        fail(TypeError, f"{expected}, got {summarize(loss)}")


def _check_batch(batch: Any, key: Any, output: str) -> None:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        fail(TypeError, f"batch must be (inputs, targets), got {summarize(batch)}")
    if output == "sampled" and key is None:
        fail(TypeError, "output='sampled' needs a key: f(params, batch, key)")


def _check_outputs(outputs: Any) -> None:
    if not hasattr(outputs, "shape") or outputs.ndim < 2:
        fail(
            ValueError,
            f"the model must return an array of shape (examples, ..., d), got {summarize(outputs)}",
        )


def _of_outputs(
    rule: Callable[..., jax.Array], outputs: jax.Array, argument: jax.Array
) -> jax.Array:
    """A cotangent of the outputs: where a sharding is part of the type, it has theirs."""
    return varying_like(outputs, shard_like_if_explicit(outputs, rule, outputs, argument))


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
