"""What is gathered at a layer, from its inputs and the cotangents of its outputs.

Sums over examples, by name: "A" of products of inputs and "S" of products of cotangents, "n" how
many rows "A" is a sum of, "G" of products of both, the gradient; "D" of squares, of what scales or
shifts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from ...core.numbers.numerics import compute_dtype
from ...core.trees.tree import varying_like
from .layers import Layer
from .patches import Window

Statistics = dict[str, jax.Array]


def shapes(layer: Layer, leaves: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Of what is gathered for the curvature of a layer, whose parameters are among these."""
    if layer.kind != "dense":
        return {"D": leaves[layer.weight].shape}
    stack, rows, columns = layer.sizes(leaves)
    return {"A": (*stack, rows, rows), "S": (*stack, columns, columns), "n": stack}


def zeros(layer: Layer, leaves: Mapping[str, Any], gradient: bool = False) -> Statistics:
    """The statistics of no examples, those of dense layers with "G" if the gradient is wanted."""
    dtype = compute_dtype(leaves[layer.weight].dtype)
    found = {name: jnp.zeros(shape, dtype) for name, shape in shapes(layer, leaves).items()}
    if gradient and layer.kind == "dense":
        stack, rows, columns = layer.sizes(leaves)
        found["G"] = jnp.zeros((*stack, rows, columns), jnp.float32)
    own = [leaves[path] for path in layer.paths]
    return {name: varying_like(own, x) for name, x in found.items()}


class Rule(Protocol):
    """What a tap gathers: a hashable function of a layer's input and its output's cotangent."""

    def statistics(self, x: jax.Array, g: jax.Array) -> Statistics: ...


@dataclass(frozen=True)
class Axes:
    """Which axes of an array go over a stack of layers, examples, shared uses, and features."""

    stack: tuple[int, ...]
    examples: tuple[int, ...]
    shared: tuple[int, ...]
    features: tuple[int, ...]

    def view(self, array: jax.Array) -> jax.Array:
        """The array with one axis for each but the stack, in this order."""
        groups = (self.examples, self.shared, self.features)
        sizes = [math.prod(array.shape[axis] for axis in group) for group in groups]
        stack = [array.shape[axis] for axis in self.stack]
        order = (*self.stack, *self.examples, *self.shared, *self.features)
        return array.transpose(order).reshape(*stack, *sizes)


@dataclass(frozen=True)
class DenseRule:
    r"""Kronecker factors of $y = x W + b$: $A = \sum \bar x \bar x^T$, $S = \sum g g^T$.

    $\bar x$ is $(x, 1)$ if there is a bias. A layer that one example uses several times (positions
    of a sequence, of an image) is several examples to "expand"; "reduce" takes the mean of their
    inputs and the sum of their cotangents first.
    """

    x: Axes
    g: Axes
    bias: bool
    sharing: str = "expand"
    window: Window | None = None

    def statistics(self, x: jax.Array, g: jax.Array) -> Statistics:
        wide = compute_dtype(x.dtype, g.dtype)
        if self.window is not None:
            x = self.window.patches(x)
        x, g = self.x.view(x).astype(wide), self.g.view(g).astype(wide)
        if self.sharing == "reduce":
            x, g = x.mean(-2), g.sum(-2)
        else:
            x, g = map(_expanded, (x, g))
        if self.bias:
            x = jnp.concatenate([x, jnp.ones((*x.shape[:-1], 1), wide)], axis=-1)
        count = jnp.full_like(x, x.shape[-2], shape=x.shape[:-2])
        return {"A": _gram(x), "S": _gram(g), "n": count, "G": jnp.swapaxes(x, -1, -2) @ g}


@dataclass(frozen=True)
class DiagonalRule:
    r"""Squares of the gradients, example by example, of numbers that multiply or are added.

    $D = \sum_n (\sum_s x_{ns}\,g_{ns})^2$ with $s$ over all axes that the parameter does not have,
    and $x = 1$ for what is added.

    Args:
        scale: whether the parameter multiplies.
        axes: the axes of the output that are the parameter's, in its order.
        examples: the axis of the output that goes over examples.
    """

    scale: bool
    axes: tuple[int, ...]
    examples: int

    def statistics(self, x: jax.Array, g: jax.Array) -> Statistics:
        wide = compute_dtype(g.dtype)
        each = g.astype(wide) * x.astype(wide) if self.scale else g.astype(wide)
        kept = (self.examples, *self.axes)
        rest = tuple(axis for axis in range(each.ndim) if axis not in kept)
        each = each.transpose(*rest, *kept)
        return {"D": jnp.square(each.sum(tuple(range(len(rest))))).sum(0)}


def _expanded(array: jax.Array) -> jax.Array:
    *stack, examples, uses, features = array.shape
    return array.reshape(*stack, examples * uses, features)


def _gram(rows: jax.Array) -> jax.Array:
    return jnp.swapaxes(rows, -1, -2) @ rows
