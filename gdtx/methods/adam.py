"""Adam and AdamW."""

from __future__ import annotations

from typing import Any

from ..core.calls.kinds import Decay, FloatDType, NonNegative
from ..core.combine import chain, divide, join
from ..core.factory import transformation
from ..core.transformation import GradientTransformation
from ..links.arithmetic import scale_by_learning_rate
from ..links.decay import add_decayed_weights
from ..links.fraction import first_moment, root, second_moment


@transformation
def scale_by_adam(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: FloatDType | None = None,
    *,
    nu_dtype: FloatDType | None = None,
) -> GradientTransformation:
    r"""First moment over root of second moment.

    $$u_t = \frac{\hat m_t}{\sqrt{\hat v_t + \epsilon_{root}} + \epsilon}, \quad
    \hat m_t = \frac{m_t}{1 - \beta_1^t}, \quad \hat v_t = \frac{v_t}{1 - \beta_2^t},$$

    with $m$ the average of the gradients and $v$ that of their squares (:func:`ema`).

    Args:
        b1: $\beta_1$, decay of the first moment.
        b2: $\beta_2$, decay of the second moment.
        eps, eps_root: as in :func:`root`.
        mu_dtype, nu_dtype: in which the moments are kept; by default that of the parameter, at
            least float32. In fewer bits they are rounded by chance, see :func:`recur`.

    Returns:
        A transformation whose state holds two buffers per array. Complex updates: $|g|^2$, so real
        and imaginary part share one denominator.

    References:
        Kingma & Ba 2015, Adam: A Method for Stochastic Optimization, arXiv:1412.6980.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_adam()
    >>> tx.update(jnp.array([-3.0, 1e-4]), tx.init(jnp.zeros(2)))[0].round(3)
    Array([-1.,  1.], dtype=float32)
    """
    return join(
        divide,
        mu=first_moment(b1, mu_dtype),
        nu=chain(second_moment(b2, nu_dtype), root(eps, eps_root)),
    )


@transformation
def adam(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: FloatDType | None = None,
    *,
    nu_dtype: FloatDType | None = None,
) -> GradientTransformation:
    r"""Adam.

    $\theta_t = \theta_{t-1} - \eta\,\hat m_t / (\sqrt{\hat v_t} + \epsilon)$.

    :func:`scale_by_adam` and :func:`scale_by_learning_rate`.

    Args:
        learning_rate: $\eta$, the size of a step: a number, an array or a schedule.
        b1, b2, eps, eps_root, mu_dtype, nu_dtype: as in :func:`scale_by_adam`.

    Returns:
        A transformation whose state holds two buffers per array.

    References:
        Kingma & Ba 2015, see :func:`scale_by_adam`.

    >>> import gdtx
    >>> gdtx.adam(1e-3)  # doctest: +NORMALIZE_WHITESPACE
    adam(learning_rate=0.001, b1=0.9, b2=0.999, eps=1e-08, eps_root=0.0, mu_dtype=None,
         nu_dtype=None)
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nu_dtype=nu_dtype),
        scale_by_learning_rate(learning_rate),
    )


@transformation
def adamw(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: FloatDType | None = None,
    *,
    nu_dtype: FloatDType | None = None,
    weight_decay: NonNegative = 1e-4,
    mask: Any = None,
) -> GradientTransformation:
    r"""Adam with decoupled weight decay.

    $\theta_t = \theta_{t-1} - \eta\,(\hat m_t / (\sqrt{\hat v_t} + \epsilon) +
    \lambda\,\theta_{t-1})$.

    :func:`scale_by_adam`, :func:`add_decayed_weights`, :func:`scale_by_learning_rate`.

    Args:
        learning_rate: $\eta$, the size of a step: a number, an array or a schedule.
        b1, b2, eps, eps_root, mu_dtype, nu_dtype: as in :func:`scale_by_adam`.
        weight_decay, mask: as in :func:`add_decayed_weights`.

    Returns:
        A transformation whose state holds two buffers per array.

    References:
        Loshchilov & Hutter 2019, see :func:`add_decayed_weights`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.adamw(0.1, weight_decay=0.5)
    >>> params = jnp.array([2.0])
    >>> tx.update(jnp.array([0.0]), tx.init(params), params)[0]
    Array([-0.1], dtype=float32)
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nu_dtype=nu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
