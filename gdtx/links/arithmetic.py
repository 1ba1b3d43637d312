"""Arithmetic on each number of the updates."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from ..core.calls.kinds import Bound, NonNegative, Scalar, StepFunction
from ..core.errors import LeafError
from ..core.factory import transformation
from ..core.numbers import numerics as _numerics
from ..core.numbers.values import is_zero
from ..core.rules import elementwise, identity
from ..core.transformation import GradientTransformation
from ..formula import Expression, Reader, apply, at_hand, formula_of, leading, letters


@transformation
def square() -> GradientTransformation:
    r"""$u \leftarrow |u|^2$, real for complex updates too.

    Infinite above $2^{64} \approx 1.8 \cdot 10^{19}$ in float32. An average of squares then stays
    infinite, and what is divided by its root is 0 from then on, or NaN if it is infinite itself:
    gradients such as these are clipped before, or left out by :func:`skip_nonfinite`.

    >>> import gdtx, jax.numpy as jnp
    >>> gdtx.square().update(jnp.array([-3.0, 2.0]), ())[0]
    Array([9., 4.], dtype=float32)
    """
    return elementwise(_numerics.square)


@formula_of(square)
def _(u: Expression) -> Expression:
    return u**2


@transformation
def sqrt() -> GradientTransformation:
    r"""$u \leftarrow \sqrt{u}$, with derivative 0 at 0, where the true one is infinite.

    >>> import gdtx, jax, jax.numpy as jnp
    >>> root = lambda u: gdtx.sqrt().update(u, ())[0]
    >>> jax.value_and_grad(root)(0.0)
    (Array(0., dtype=float32, weak_type=True), Array(0., dtype=float32, weak_type=True))
    """
    return elementwise(_numerics.sqrt)


@formula_of(sqrt)
def _(u: Expression) -> Expression:
    return apply("root", u)


@transformation
def absolute() -> GradientTransformation:
    r"""$u \leftarrow |u|$.

    >>> import gdtx, jax.numpy as jnp
    >>> gdtx.absolute().update(jnp.array([-3.0, 2.0]), ())[0]
    Array([3., 2.], dtype=float32)
    """
    return elementwise(jnp.abs)


@formula_of(absolute)
def _(u: Expression) -> Expression:
    return abs(u)


@transformation
def sign() -> GradientTransformation:
    r"""$u \leftarrow \operatorname{sign}(u)$, which is $u / |u|$ for complex updates; 0 stays 0.

    >>> import gdtx, jax.numpy as jnp
    >>> gdtx.sign().update(jnp.array([-3.0, 0.0]), ())[0]
    Array([-1.,  0.], dtype=float32)
    """
    return elementwise(jnp.sign)


@formula_of(sign)
def _(u: Expression) -> Expression:
    return apply("sign", u)


@transformation
def add(constant: Scalar) -> GradientTransformation:
    r"""$u \leftarrow u + c$.

    Args:
        constant: what to add, $c$.

    >>> import gdtx, jax.numpy as jnp
    >>> gdtx.add(0.5).update(jnp.array([1.0]), ())[0]
    Array([1.5], dtype=float32)
    """
    return identity() if is_zero(constant) else elementwise(lambda u: u + constant)


letters(add, constant="c", plain="constant")


@transformation
def scale(factor: Scalar) -> GradientTransformation:
    r"""$u \leftarrow c\,u$.

    Args:
        factor: what to multiply by, $c$.

    >>> import gdtx, jax.numpy as jnp
    >>> gdtx.scale(-0.5).update(jnp.array([1.0]), ())[0]
    Array([-0.5], dtype=float32)
    """
    return elementwise(lambda u: factor * u)


@formula_of(scale, factor="c", plain="factor")
def _(u: Expression, reader: Reader, factor: Any) -> Expression:
    reader.downhill |= leading(factor) < 0 or (at_hand(factor) or 0) < 0
    return factor * u


@transformation
def scale_by_learning_rate(
    learning_rate: NonNegative, flip_sign: bool = True
) -> GradientTransformation:
    r"""$u \leftarrow -\eta\,u$: from a gradient to a step downhill.

    Args:
        learning_rate: $\eta$, a number, an array or a schedule.
        flip_sign: whether to change the sign; False leaves the direction as it is.

    Raises:
        ValueError: if the learning rate is negative; :func:`scale` takes any factor.

    >>> import gdtx, jax.numpy as jnp
    >>> gdtx.scale_by_learning_rate(0.1).update(jnp.array([1.0]), ())[0]
    Array([-0.1], dtype=float32)
    """
    return scale(-learning_rate if flip_sign else learning_rate)


@transformation
def scale_by_schedule(schedule: StepFunction) -> GradientTransformation:
    r"""$u_t \leftarrow s(t)\,u_t$ with $t = 0$ on the first update.

    Args:
        schedule: function of the number of updates done before that returns the factor.

    Returns:
        A transformation whose state holds the count.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_schedule(lambda t: 1.0 + t)
    >>> u, state = tx.update(jnp.array([1.0]), tx.init(jnp.zeros(1)))
    >>> tx.update(jnp.array([1.0]), state)[0]
    Array([2.], dtype=float32)
    """
    return scale(schedule)


@transformation
def clip(max_delta: Bound) -> GradientTransformation:
    r"""$u \leftarrow \min(\max(u, -\delta), \delta)$, number by number.

    Args:
        max_delta: largest magnitude, $\delta$.

    Raises:
        TypeError: from `update`, for complex updates.

    >>> import gdtx, jax.numpy as jnp
    >>> gdtx.clip(1.0).update(jnp.array([-3.0, 0.5]), ())[0]
    Array([-1. ,  0.5], dtype=float32)
    """

    def rule(u: jnp.ndarray) -> jnp.ndarray:
        if jnp.iscomplexobj(u):
            raise LeafError(
                TypeError, "is complex, clip orders real numbers (see clip_by_global_norm)"
            )
        return jnp.clip(u, -max_delta, max_delta)

    return elementwise(rule)


@formula_of(clip, max_delta=r"\delta")
def _(u: Expression, max_delta: Any) -> Expression:
    return apply("\\min", apply("\\max", u, -max_delta), max_delta)


@transformation
def at_least(low: Scalar) -> GradientTransformation:
    r"""$u \leftarrow \max(u, c)$, number by number.

    Args:
        low: smallest value, $c$.

    Raises:
        TypeError: from `update`, for complex updates.

    >>> import gdtx, jax.numpy as jnp
    >>> gdtx.at_least(0.5).update(jnp.array([0.1, 3.0]), ())[0]
    Array([0.5, 3. ], dtype=float32)
    """

    def rule(u: jnp.ndarray) -> jnp.ndarray:
        if jnp.iscomplexobj(u):
            raise LeafError(TypeError, "is complex, at_least orders real numbers (see absolute)")
        return jnp.maximum(u, low)

    return elementwise(rule)


@formula_of(at_least, low="c", plain="low")
def _(u: Expression, low: Any) -> Expression:
    return apply("\\max", u, low)
