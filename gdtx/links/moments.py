"""Running statistics of the updates, one buffer each."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..core.calls.kinds import Decay, FloatDType, Fraction, InnerDecay, NonNegative, Scalar
from ..core.combine import chain, join, subtract
from ..core.errors import LeafError
from ..core.factory import transformation
from ..core.memory import accumulate
from ..core.rules import identity
from ..core.transformation import GradientTransformation
from ..formula import MEMORY, Expression, Reader, apply, expression, formula_of, letters
from .arithmetic import scale, square


@transformation
def trace(
    decay: Fraction, nesterov: bool = False, dtype: FloatDType | None = None
) -> GradientTransformation:
    r"""Momentum: $v_t = \mu v_{t-1} + u_t$, emitting $v_t$.

    Args:
        decay: $\mu$; 1 gives the sum of all updates. The sum may be $1 / (1 - \mu)$ times as large
            as they are, and infinite where they are not.
        nesterov: emit $\mu v_t + u_t$, Nesterov's momentum with the gradient taken at the current
            point.
        dtype: in which the buffer is kept; by default that of the parameter, at least float32.

    Returns:
        A transformation whose state holds one buffer per array, with Nesterov or without.

    Raises:
        ValueError: if `decay` is not in [0, 1].

    References:
        Polyak 1964, Some methods of speeding up the convergence of iteration methods;
        Sutskever et al. 2013, On the importance of initialization and momentum in deep learning.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.trace(0.9)
    >>> u, state = tx.update(jnp.array(1.0), tx.init(jnp.zeros(())))
    >>> tx.update(jnp.array(1.0), state)[0]
    Array(1.9, dtype=float32)
    """
    return accumulate(lambda u, v: u + decay * v, dtype=dtype, nesterov=nesterov)


letters(trace, "vb", decay=r"\mu")


@transformation
def ema(
    decay: Decay, *, dtype: FloatDType | None = None, initial: Scalar = 0.0
) -> GradientTransformation:
    r"""Exponential moving average: $m_t = \beta m_{t-1} + (1 - \beta) u_t$, emitting $m_t$.

    Starting from 0 it is biased toward 0; :func:`bias_correction` with the same decay removes
    that exactly.

    Args:
        decay: $\beta$. An average over about $2/(1-\beta) - 1$ steps. Of an array or a schedule,
            which hold a number as float32 does, the one nearest below 1 is $1 - 6 \cdot 10^{-8}$;
            it counts in place of those that round to 1. A Python number is exact.
        dtype: in which the buffer is kept; by default that of the parameter, at least float32.
        initial: $m_0$, the average at first.

    Returns:
        A transformation whose state holds one buffer per array.

    Raises:
        ValueError: if `decay` is not in [0, 1).

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.chain(gdtx.ema(0.9), gdtx.bias_correction(0.9))
    >>> tx.update(jnp.array([5.0]), tx.init(jnp.zeros(1)))[0].round(5)
    Array([5.], dtype=float32)
    """
    return accumulate(lambda u, m: decay * m + (1 - decay) * u, initial, dtype)


letters(ema, "m", squares="v", decay=r"\beta", plain="initial")


@transformation
def additive_ema(
    decay: Decay, dtype: FloatDType | None = None, initial: NonNegative = 0.0
) -> GradientTransformation:
    r"""An average of non-negative updates that forgets slowly:
    $v_t = v_{t-1} - (1 - \beta) \operatorname{sign}(v_{t-1} - u_t)\,u_t$, emitting $v_t$.

    It moves toward the update as :func:`ema` does, but by a share of the update and not of the
    distance: after a large one, it falls no faster than the small ones that follow let it. An
    infinite one counts as the largest number that there is.

    Args:
        decay: $\beta$; a step moves the average by $1 - \beta$ of the update.
        dtype: in which the buffer is kept; by default that of the parameter, at least float32.
        initial: $v_0$, the average at first.

    Returns:
        A transformation of non-negative updates whose state holds one buffer per array.

    Raises:
        ValueError: if `decay` is not in [0, 1).
        TypeError: from `update`, for complex updates.

    References:
        Zaheer et al. 2018, Adaptive Methods for Nonconvex Optimization, NeurIPS (Yogi).

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.additive_ema(0.5)
    >>> u, state = tx.update(jnp.array(8.0), tx.init(jnp.zeros(())))
    >>> u, tx.update(jnp.array(1.0), state)[0]
    (Array(4., dtype=float32), Array(3.5, dtype=float32))
    """

    def rule(u: jax.Array, v: jax.Array) -> jax.Array:
        if jnp.iscomplexobj(u):
            raise LeafError(TypeError, "is complex, additive_ema needs real ones, as of square")
        # Squares of finite gradients may be infinite, and the difference of two would be NaN.
        u = jnp.minimum(u, jnp.finfo(u.dtype).max)
        return v - (1 - decay) * jnp.sign(v - u) * u

    return accumulate(rule, initial, dtype)


@formula_of(additive_ema, decay=r"\beta", plain="initial")
def _(u: Expression, reader: Reader, decay: Any, initial: Any) -> Expression:
    direction = apply("sign", MEMORY - u)
    return reader.remember(("v",), MEMORY - (1 - decay) * direction * u, initial)


@transformation(exact=True)
def running_max(decay: Fraction = 1.0, dtype: FloatDType | None = None) -> GradientTransformation:
    r"""Largest so far: $a_t = \max(\beta a_{t-1}, u_t)$ with $a_0 = 0$, emitting $a_t$.

    Args:
        decay: $\beta$; 1 never forgets.
        dtype: in which the buffer is kept; by default that of the parameter, at least float32.

    Returns:
        A transformation of non-negative updates whose state holds one buffer per array.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.running_max()
    >>> u, state = tx.update(jnp.array(3.0), tx.init(jnp.zeros(())))
    >>> tx.update(jnp.array(1.0), state)[0]
    Array(3., dtype=float32)
    """

    def rule(u: jax.Array, a: jax.Array) -> jax.Array:
        if jnp.iscomplexobj(u):
            raise LeafError(TypeError, "is complex, running_max needs real ones, as of absolute")
        return jnp.maximum(decay * a, u)

    return accumulate(rule, dtype=dtype)


@formula_of(running_max, decay=r"\beta")
def _(u: Expression, reader: Reader, decay: Any) -> Expression:
    # The letters of AMSGrad and of AdaMax.
    names = ("a", "n") if expression(decay) == expression(1) else ("n", "a")
    return reader.remember(names, apply("\\max", decay * MEMORY, u), 0)


@transformation
def running_sum(
    initial: NonNegative = 0.0, dtype: FloatDType | None = None
) -> GradientTransformation:
    r"""Sum so far: $s_t = s_{t-1} + u_t$, emitting $s_t$.

    Args:
        initial: $s_0$, the sum at first.
        dtype: in which the buffer is kept; by default that of the parameter, at least float32.

    Returns:
        A transformation whose state holds one buffer per array.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.running_sum(initial=0.5)
    >>> tx.update(jnp.array(3.0), tx.init(jnp.zeros(())))[0]
    Array(3.5, dtype=float32)
    """
    return accumulate(lambda u, s: s + u, initial, dtype)


letters(running_sum, "s", plain="initial")


@transformation
def variance(
    decay: InnerDecay, dtype: FloatDType | None = None, initial: NonNegative = 0.0
) -> GradientTransformation:
    r"""Exponentially weighted variance, emitted as $s_t$.

    $s_t = \rho s_{t-1} + \rho (1 - \rho) (u_t - m_{t-1})^2$ with $m$ the average of
    :func:`ema`: what $E[u^2] - E[u]^2$ is in exact arithmetic, but non-negative in any. As
    $u_t - m_t = \rho (u_t - m_{t-1})$, it is the average of squared distances to the new mean,
    over $\rho$.

    Args:
        decay: $\rho$, share of the average that stays at each update.
        dtype: in which the buffers are kept; by default that of the parameter, at least float32.
        initial: $s_0$, the variance at first.

    Returns:
        A transformation whose state holds two buffers per array.

    Raises:
        ValueError: if `decay` is not in (0, 1).

    References:
        West 1979, Updating mean and variance estimates: an improved method.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.variance(0.5)
    >>> u, state = tx.update(jnp.array(4.0), tx.init(jnp.zeros(())))
    >>> u
    Array(4., dtype=float32)
    """
    deviation = join(subtract, u=identity(), mean=ema(decay, dtype=dtype))
    return chain(
        deviation, square(), ema(decay, dtype=dtype, initial=decay * initial), scale(1 / decay)
    )


@formula_of(variance, decay=r"\rho", plain="initial")
def _(u: Expression, reader: Reader, decay: Any, initial: Any) -> Expression:
    # As papers define it: what the link does is the same, without the cancellation.
    u = reader.atom(u)
    mean = reader.remember(("m",), decay * MEMORY + (1 - decay) * u, 0)
    power = reader.remember(("v",), decay * MEMORY + (1 - decay) * u**2, initial)
    return power - mean**2
