"""Losses, and the curvature that they have in the outputs of a model."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from ..core.errors import at_work, fail, summarize


@runtime_checkable
class Loss(Protocol):
    r"""A loss whose curvature in the outputs is known.

    Outputs have shape `(examples, ..., d)`; every position but along the last axis is an example.
    The curvature $H$ of one example, a $d \times d$ matrix, is the Fisher information of the
    distribution that the outputs stand for: $E[\nabla \ell\, \nabla \ell^T]$ over targets drawn
    from it.
    """

    def __call__(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        """The mean of the losses of all examples."""
        ...

    def sampled(self, outputs: jax.Array, key: jax.Array) -> jax.Array:
        """For each example, the gradient of its loss at a target drawn from the model."""
        ...

    def root(self, outputs: jax.Array, index: jax.Array) -> jax.Array:
        r"""For each example, column `index` of a $d \times d$ matrix $R$ with $R R^T = H$."""
        ...


class SquaredError:
    """Half the squared distance, $|y - t|^2 / 2$: targets are normal around $y$, $H = I$."""

    def __call__(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        _check_targets("squared_error", targets, outputs.shape)
        return 0.5 * jnp.square(outputs - targets).sum(-1).mean()

    def sampled(self, outputs: jax.Array, key: jax.Array) -> jax.Array:
        return jax.random.normal(key, outputs.shape, outputs.dtype)

    def root(self, outputs: jax.Array, index: jax.Array) -> jax.Array:
        return jnp.broadcast_to(_unit(outputs, index), outputs.shape)


class SoftmaxCrossEntropy:
    r"""$-\sum_c t_c \log p_c$, $p = \mathrm{softmax}(y)$: $H = \mathrm{diag}(p) - p p^T$.

    Targets are classes, integers of shape `(examples, ...)`, or distributions over them, of the
    shape of the outputs.
    """

    def __call__(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        logs = jax.nn.log_softmax(outputs)
        if jnp.issubdtype(targets.dtype, jnp.integer):
            _check_targets("softmax_cross_entropy", targets, outputs.shape[:-1])
            return -jnp.take_along_axis(logs, targets[..., None], axis=-1).mean()
        _check_targets("softmax_cross_entropy", targets, outputs.shape)
        return -(targets * logs).sum(-1).mean()

    def sampled(self, outputs: jax.Array, key: jax.Array) -> jax.Array:
        classes = jax.random.categorical(key, outputs)
        return jax.nn.softmax(outputs) - jax.nn.one_hot(
            classes, outputs.shape[-1], dtype=outputs.dtype
        )

    def root(self, outputs: jax.Array, index: jax.Array) -> jax.Array:
        p = jax.nn.softmax(outputs)
        return jnp.sqrt(jnp.take(p, index, axis=-1))[..., None] * (_unit(outputs, index) - p)


class SigmoidCrossEntropy:
    r"""$-\sum_c t_c \log p_c + (1 - t_c) \log(1 - p_c)$, $p = \sigma(y)$.

    $H = \mathrm{diag}(p (1 - p))$.

    Targets are probabilities, 0 or 1 most often, of the shape of the outputs.
    """

    def __call__(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        _check_targets("sigmoid_cross_entropy", targets, outputs.shape)
        terms = targets * jax.nn.log_sigmoid(outputs) + (1 - targets) * jax.nn.log_sigmoid(-outputs)
        return -terms.sum(-1).mean()

    def sampled(self, outputs: jax.Array, key: jax.Array) -> jax.Array:
        p = jax.nn.sigmoid(outputs)
        return p - jax.random.bernoulli(key, p).astype(outputs.dtype)

    def root(self, outputs: jax.Array, index: jax.Array) -> jax.Array:
        p = jax.nn.sigmoid(outputs)
        return jnp.sqrt(p * (1 - p)) * _unit(outputs, index)


squared_error = SquaredError()
softmax_cross_entropy = SoftmaxCrossEntropy()
sigmoid_cross_entropy = SigmoidCrossEntropy()


def _check_targets(name: str, targets: Any, expected: tuple[int, ...]) -> None:
    # Broadcast against outputs (n, 1), targets (n,) would be n times n differences.
    if jnp.shape(targets) != expected:
        with at_work(name):
            fail(ValueError, f"targets must have shape {expected}, got {summarize(targets)}")


def _unit(outputs: jax.Array, index: Any) -> jax.Array:
    row = jax.nn.one_hot(index, outputs.shape[-1], dtype=outputs.dtype)
    return row.reshape((1,) * (outputs.ndim - 1) + row.shape)
