"""Step sizes from the loss and its slope."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..core.calls.kinds import NonNegative, Positive, Scalar
from ..core.calls.types import TransformationLike
from ..core.factory import transformation
from ..core.numbers.norms import inner_product
from ..core.rules import each_leaf, identity
from ..core.transformation import GradientTransformation
from ..core.trees.tree import PyTree, leaves_as, real_scalar
from ..formula import PARAMETERS, Expression, Reader, Symbol, apply, formula_of, t

_identity = identity()


@transformation
def polyak_step(
    inner: TransformationLike = _identity,
    max_learning_rate: Positive = 1.0,
    f_min: Scalar = 0.0,
    eps: NonNegative = 0.0,
) -> GradientTransformation:
    r"""Step to where the loss would be least, if it were as straight as its slope.

    $$u_t = -\gamma_t d_t, \quad
    \gamma_t = \min\left(\frac{f(\theta_{t-1}) - f^*}{\langle g_t, d_t \rangle + \epsilon},
    \gamma_{\max}\right),$$

    with $d$ the direction in which `inner` turns the gradient $g$: by default $g$ itself, and then
    the denominator is $\|g\|^2$ (Polyak's step, capped). Every `update` needs `value=`, the loss
    $f(\theta_{t-1})$. Where it is below $f^*$, or $\langle g, d \rangle$ is 0, there is no step.
    Where $\langle g, d \rangle$ is negative, $d$ points downhill, as that of :func:`sgd` does, and
    is followed as it points: $-d$ is meant.

    Args:
        inner: a transformation that gives the direction, such as :func:`scale_by_adam`.
        max_learning_rate: $\gamma_{\max}$, the largest step size.
        f_min: $f^*$, a value that the loss does not fall below.
        eps: $\epsilon$, added to the denominator.

    Returns:
        A transformation whose state is that of `inner`.

    Raises:
        TypeError: from `update`, if it is called without `value`.

    References:
        Polyak 1987, Introduction to optimization; Loizou et al. 2021, Stochastic Polyak Step-size
        for SGD, arXiv:2002.10542.

    >>> import gdtx, jax.numpy as jnp
    >>> tx, params = gdtx.polyak_step(), jnp.array([3.0])
    >>> tx.update(2 * params, tx.init(params), params, value=jnp.sum(params**2))[0]
    Array([-1.5], dtype=float32)
    """

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, *, value: Any, **extra_args: Any
    ) -> tuple[PyTree, PyTree]:
        direction, state = inner.update(updates, state, params, value=value, **extra_args)
        leaves, structure = jax.tree.flatten(direction)
        slope = inner_product(leaves_as(structure, updates, "updates", "direction"), leaves)
        gap = jnp.maximum(real_scalar("value", value) - f_min, 0)
        size = jnp.abs(slope) + eps
        length = jnp.where(slope != 0, gap / jnp.where(size > 0, size, 1), 0)
        rate = jnp.sign(slope) * jnp.minimum(length, max_learning_rate)
        return structure.unflatten(each_leaf(lambda d: -rate * d, structure, leaves)), state

    return GradientTransformation(inner.init, update, inner)


@formula_of(polyak_step, max_learning_rate=r"\gamma_{max}", f_min="f^*", eps=r"\epsilon")
def _(
    u: Expression, reader: Reader, inner: GradientTransformation, max_learning_rate: Any,
    f_min: Any, eps: Any,
) -> Expression:  # fmt: skip
    u = reader.atom(u)
    direction = reader.step(reader.read(inner, u))
    slope = apply("norm", u) ** 2 if direction == u else apply("inner", u, direction)
    gap = apply("call", Symbol("f"), PARAMETERS) - f_min
    rate = apply("\\min", gap / (slope + eps), max_learning_rate)
    return -reader.define((Symbol(r"\gamma", time=t),), rate) * direction
