"""Taps: layers whose backward pass also returns what their block of curvature is made of."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from ...core.errors import at_work, describe, fail
from ...core.numerics import compute_dtype
from ...core.sharding import kept_in_place
from .layers import Layer

Statistics = dict[str, jax.Array]


class Rule(Protocol):
    """What a tap gathers: a hashable function of a layer's input and its output's cotangent."""

    def statistics(self, x: jax.Array, g: jax.Array) -> Statistics: ...


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def observe(rule: Rule, y: jax.Array, x: jax.Array, tap: Mapping[str, jax.Array]) -> jax.Array:
    """`y` itself; the cotangent of `tap` is what `rule` makes of `x` and the cotangent of `y`.

    So the layer is computed and differentiated as it would be without.
    """
    return y


def _forward(rule: Rule, y: jax.Array, x: jax.Array, tap: Any) -> tuple[jax.Array, Any]:
    return y, (x, {name: jnp.zeros((0,), leaf.dtype) for name, leaf in tap.items()})


def _backward(rule: Rule, kept: Any, g: jax.Array) -> tuple[Any, None, Statistics]:
    x, like = kept

    def gathered(x: jax.Array, g: jax.Array) -> Statistics:
        found = rule.statistics(x, g)
        return {name: found[name].astype(leaf.dtype) for name, leaf in like.items()}

    # Where a placement is part of the type, statistics have that of their taps: on every device.
    whole = {name: jnp.zeros((), leaf.dtype) for name, leaf in like.items()}
    return g, None, kept_in_place(whole, gathered, x, g)


observe.defvjp(_forward, _backward)


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
class Window:
    """The patches of a convolution.

    Args:
        shape, strides, padding, lhs_dilation, rhs_dilation: of the convolution.
        to_front: the axes of the input, such that examples, channels and space follow in this
            order.
        order: how channels and window are ordered in the kernel: a permutation of them.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    lhs_dilation: tuple[int, ...]
    rhs_dilation: tuple[int, ...]
    to_front: tuple[int, ...]
    order: tuple[int, ...]

    def patches(self, x: jax.Array) -> jax.Array:
        """Examples, space, and last the numbers that one position of the output is made of."""
        x = x.transpose(self.to_front)
        patches = jax.lax.conv_general_dilated_patches(
            x, self.shape, self.strides, self.padding, self.lhs_dilation, self.rhs_dilation
        )
        channels = x.shape[1]
        space = patches.shape[2:]
        patches = patches.reshape(x.shape[0], channels, *self.shape, *space)
        window = tuple(1 + axis for axis in self.order)
        positions = tuple(range(2 + len(self.shape), patches.ndim))
        patches = patches.transpose(0, *positions, *window)
        return patches.reshape(x.shape[0], *space, -1)


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

    $D = \sum_n (\sum_s x_{ns}\,g_{ns})^2$ with $s$ over all axes that the parameter has not, and
    $x = 1$ for what is added.

    Args:
        scale: whether the parameter multiplies.
        axes: the axes of the output that are the parameter's, in its order.
        examples: the axis of the output that goes over examples, if it has one.
    """

    scale: bool
    axes: tuple[int, ...]
    examples: int | None

    def statistics(self, x: jax.Array, g: jax.Array) -> Statistics:
        wide = compute_dtype(g.dtype)
        each = g.astype(wide) * x.astype(wide) if self.scale else g.astype(wide)
        kept = self.axes if self.examples is None else (self.examples, *self.axes)
        rest = tuple(axis for axis in range(each.ndim) if axis not in kept)
        each = each.transpose(*rest, *kept)
        if self.examples is None:
            # Of one example, or of what nobody can tell apart.
            return {"D": jnp.square(each.sum(tuple(range(len(rest)))))}
        return {"D": jnp.square(each.sum(tuple(range(len(rest))))).sum(0)}


def _expanded(array: jax.Array) -> jax.Array:
    *stack, examples, uses, features = array.shape
    return array.reshape(*stack, examples * uses, features)


def _gram(rows: jax.Array) -> jax.Array:
    return jnp.swapaxes(rows, -1, -2) @ rows


def tap_dense(
    x: jax.Array, w: jax.Array, b: jax.Array | None, tap: Mapping[str, jax.Array],
    sharing: str = "expand",
) -> jax.Array:  # fmt: skip
    r"""$y = x W + b$, a layer whose backward pass also returns Kronecker factors.

    The "gradient" of `tap` is $A = \sum \bar x \bar x^T$, $S = \sum g g^T$ and the number of rows
    $n$, with $\bar x = (x, 1)$ (without a bias, $x$) and $g$ the cotangent of $y$. Values and
    gradients are those of the plain layer. Like all cotangents, these add up over uses,
    micro-batches and devices.

    Args:
        x: inputs, of shape `(examples, ..., d_in)`.
        w: weight, of shape `(d_in, d_out)`.
        b: bias, of shape `(d_out,)`, or None.
        tap: zeros from :func:`dense_tap`.
        sharing: of axes between examples and features: "expand" counts each position as an
            example, "reduce" takes the mean of $x$ and the sum of $g$ over them.

    Raises:
        TypeError: if the tap is no dict.
        ValueError: if the tap is that of another layer.

    References:
        Martens & Grosse 2015, Optimizing Neural Networks with Kronecker-factored Approximate
        Curvature, arXiv:1503.05671; Eschenhagen et al. 2023, Kronecker-Factored Approximate
        Curvature for Modern Neural Network Architectures, arXiv:2311.00636 (the two sharings).

    >>> import jax, jax.numpy as jnp
    >>> from gdtx import kfac
    >>> x, w, b = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.ones((2, 1)), jnp.zeros(1)
    >>> loss = lambda w, tap: kfac.tap_dense(x, w, b, tap).sum()
    >>> jax.grad(loss, argnums=1)(w, kfac.dense_tap(w, b))["A"]
    Array([[10., 14.,  4.],
           [14., 20.,  6.],
           [ 4.,  6.,  2.]], dtype=float32)
    """
    expected = dense_tap(w, b)
    with at_work("tap_dense"):
        if sharing not in ("expand", "reduce"):
            fail(ValueError, f"sharing must be 'expand' or 'reduce', got {sharing!r}")
        if not isinstance(tap, Mapping):
            fail(TypeError, f"tap must be a dict, as dense_tap gives it, got {describe(tap)}")
        for name, like in expected.items():
            shape = getattr(tap.get(name), "shape", None)
            if shape != like.shape:
                fail(
                    ValueError,
                    f"the tap is that of another layer: tap[{name!r}] has shape {shape}, this "
                    f"layer's has {like.shape}",
                )
    axes = Axes((), (0,) if x.ndim > 1 else (), tuple(range(1, x.ndim - 1)), (x.ndim - 1,))
    y = x @ w
    y = y if b is None else y + b.reshape((1,) * (y.ndim - 1) + b.shape)
    return observe(DenseRule(axes, axes, b is not None, sharing), y, x, tap)


def dense_tap(w: jax.Array, b: jax.Array | None = None) -> Statistics:
    """The zeros that :func:`tap_dense` takes for a layer with this weight and bias.

    >>> import jax, jax.numpy as jnp
    >>> from gdtx import kfac
    >>> jax.tree.map(jnp.shape, kfac.dense_tap(jnp.ones((2, 3)), jnp.ones(3)))
    {'A': (3, 3), 'S': (3, 3), 'n': ()}
    """
    layer = Layer("dense", "w", None if b is None else "b", inputs=(0,), outputs=(1,))
    return layer.statistics({"w": w, "b": b})
