"""Numerator and denominator of Adam and the methods like it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..core.calls.kinds import Decay, FloatDType, NonNegative
from ..core.combine import chain
from ..core.factory import transformation
from ..core.numbers import numerics as _numerics
from ..core.numbers.values import is_zero
from ..core.rules import elementwise
from ..core.transformation import GradientTransformation
from ..formula import Expression, apply, formula_of
from .arithmetic import square
from .correction import bias_correction
from .moments import ema


@transformation
def first_moment(decay: Decay, dtype: FloatDType | None = None) -> GradientTransformation:
    r"""Average of the updates, without the bias of its start at 0:
    $\hat m_t = m_t / (1 - \beta^t)$ with $m_t = \beta m_{t-1} + (1 - \beta) u_t$.

    :func:`ema` and :func:`bias_correction`.

    Args:
        decay: $\beta$, share of the average that stays at each update.
        dtype: in which the buffer is kept; by default that of the parameter, at least float32.

    Returns:
        A transformation whose state holds one buffer per array and a count.

    Raises:
        ValueError: if `decay` is not in [0, 1).

    References:
        Kingma & Ba 2015, Adam: A Method for Stochastic Optimization, arXiv:1412.6980.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.first_moment(0.9)
    >>> tx.update(jnp.array([-5.0]), tx.init(jnp.zeros(1)))[0].round(5)
    Array([-5.], dtype=float32)
    """
    return chain(ema(decay, dtype=dtype), bias_correction(decay))


@transformation
def second_moment(decay: Decay, dtype: FloatDType | None = None) -> GradientTransformation:
    r"""Average of the squared updates, without the bias of its start at 0:
    $\hat v_t = v_t / (1 - \beta^t)$ with $v_t = \beta v_{t-1} + (1 - \beta) |u_t|^2$.

    :func:`square` and what :func:`first_moment` is made of.

    Args:
        decay: $\beta$, share of the average that stays at each update.
        dtype: in which the buffer is kept; by default that of the parameter, at least float32.

    Returns:
        A transformation whose state holds one buffer per array and a count. It emits real numbers
        for complex updates too.

    Raises:
        ValueError: if `decay` is not in [0, 1).

    References:
        Kingma & Ba 2015, see :func:`first_moment`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.second_moment(0.5)
    >>> tx.update(jnp.array([-5.0]), tx.init(jnp.zeros(1)))[0]
    Array([25.], dtype=float32)
    """
    return chain(square(), ema(decay, dtype=dtype), bias_correction(decay))


@transformation
def root(eps: NonNegative, eps_root: NonNegative = 0.0) -> GradientTransformation:
    r"""$u \leftarrow \sqrt{u + \epsilon_{root}} + \epsilon$, to divide by.

    Where both are the number 0, it is infinite in place of 0, so that $0 / 0$ in a method is 0, as
    with :func:`infinite_at_zero`. The derivative at 0 is 0, as that of :func:`sqrt`.

    Args:
        eps: $\epsilon$, outside the root.
        eps_root: $\epsilon_{root}$, inside the root.

    Returns:
        A stateless transformation of non-negative updates.

    Raises:
        ValueError: if one of them is negative.

    >>> import gdtx, jax.numpy as jnp
    >>> gdtx.root(0.5).update(jnp.array([9.0, 0.0]), gdtx.root(0.5).init(jnp.zeros(2)))[0]
    Array([3.5, 0.5], dtype=float32)
    """
    is_positive = isinstance(eps_root, int | float) and eps_root >= jnp.finfo(jnp.float32).tiny

    def inside(u: jax.Array) -> jax.Array:
        return u if is_zero(eps_root) else u + eps_root

    def outside(u: jax.Array) -> jax.Array:
        if not is_zero(eps):
            return u + eps
        return u if is_positive else jnp.where(u == 0, jnp.inf, u)

    # Always three links, so that the structure of the state does not depend on the numbers.
    return chain(*map(elementwise, (inside, _numerics.sqrt, outside)))


@formula_of(root)
def _(u: Expression, eps: Any, eps_root: Any) -> Expression:
    # A convention for 0 / 0, which is not part of a formula.
    return apply("root", u + eps_root) + eps
