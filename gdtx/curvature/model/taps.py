"""Taps: layers whose backward pass also returns what their block of curvature is made of."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ...core.errors import at_work, fail, summarize
from ...core.trees.sharding import shard_like
from .layers import Layer
from .statistics import Axes, DenseRule, Rule, Statistics, shapes, zeros


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

    # Where a sharding is part of the type, statistics have that of their taps: on every device.
    whole = {name: jnp.zeros((), leaf.dtype) for name, leaf in like.items()}
    return g, None, shard_like(whole, gathered, x, g)


observe.defvjp(_forward, _backward)


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
    layer, leaves = _dense(w, b)
    with at_work("tap_dense"):
        if sharing not in ("expand", "reduce"):
            fail(ValueError, f"sharing must be 'expand' or 'reduce', got {sharing!r}")
        if not isinstance(tap, Mapping):
            fail(TypeError, f"tap must be a dict, as dense_tap gives it, got {summarize(tap)}")
        for name, expected in shapes(layer, leaves).items():
            shape = getattr(tap.get(name), "shape", None)
            if shape != expected:
                fail(
                    ValueError,
                    f"the tap is that of another layer: tap[{name!r}] has shape {shape}, this "
                    f"layer's has {expected}",
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
    return zeros(*_dense(w, b))


def _dense(w: jax.Array, b: jax.Array | None) -> tuple[Layer, dict[str, Any]]:
    layer = Layer("dense", "w", None if b is None else "b", inputs=(0,), outputs=(1,))
    return layer, {"w": w, "b": b}
