"""NAdam: Adam with Nesterov momentum."""

from __future__ import annotations

from typing import Any

from ..core.calls.kinds import Decay, FloatDType, NonNegative
from ..core.combine import chain, divide, join
from ..core.factory import transformation
from ..core.transformation import GradientTransformation
from ..formula import letters
from ..links.arithmetic import scale_by_learning_rate
from ..links.decay import add_decayed_weights
from ..links.fraction import root, second_moment
from ..links.nesterov import nesterov_mean, warmed_nesterov_mean


@transformation
def scale_by_nadam(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    momentum_decay: NonNegative | None = None,
    *,
    mu_dtype: FloatDType | None = None,
    nu_dtype: FloatDType | None = None,
) -> GradientTransformation:
    r"""Adam's step with the first moment looked ahead.

    $$u_t = \frac{\bar m_t}{\sqrt{\hat v_t + \epsilon_{root}} + \epsilon}, \quad
    \bar m_t = \frac{\mu_{t+1} m_t}{1 - \prod_{i \le t+1} \mu_i}
    + \frac{(1 - \mu_t) g_t}{1 - \prod_{i \le t} \mu_i},$$

    with $m$, $\hat v$ as in :func:`scale_by_adam` and $\mu_t = \beta_1$, or with $\psi$ given
    $\mu_t = \beta_1 (1 - \tfrac12\, 0.96^{t \psi})$.

    Args:
        b1: $\beta_1$, decay of the first moment.
        b2: $\beta_2$, decay of the second moment.
        eps, eps_root: as in :func:`root`.
        mu_dtype, nu_dtype: in which the moments are kept; by default that of the parameter, at
            least float32. In fewer bits they are rounded by chance, see :func:`recur`.
        momentum_decay: $\psi$ of Dozat's momentum schedule (he has 0.004); None is constant
            momentum.

    Returns:
        A transformation whose state holds two buffers per array. Complex updates: $|g|^2$. The mean
        looked ahead may be half as large again as the gradients; of the largest that float32 has,
        it is infinite as their squares are, see :func:`square`, and the update NaN.

    References:
        Dozat 2016, Incorporating Nesterov Momentum into Adam, ICLR workshop.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_nadam(b1=0.0)
    >>> tx.update(jnp.array([-3.0, 1.0]), tx.init(jnp.zeros(2)))[0].round(3)
    Array([-1.,  1.], dtype=float32)
    """
    if momentum_decay is None:
        mean = nesterov_mean(b1, mu_dtype)
    else:
        mean = warmed_nesterov_mean(b1, momentum_decay, mu_dtype)
    return join(divide, mu=mean, nu=chain(second_moment(b2, nu_dtype), root(eps, eps_root)))


letters(scale_by_nadam, momentum_decay=r"\psi")


@transformation
def nadam(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: FloatDType | None = None,
    *,
    nu_dtype: FloatDType | None = None,
    momentum_decay: NonNegative | None = None,
) -> GradientTransformation:
    r"""NAdam.

    $\theta_t = \theta_{t-1} - \eta\,\bar m_t / (\sqrt{\hat v_t} + \epsilon)$.

    :func:`scale_by_nadam` and :func:`scale_by_learning_rate`.

    Args:
        learning_rate: $\eta$, the size of a step: a number, an array or a schedule.
        b1, b2, eps, eps_root, mu_dtype, nu_dtype, momentum_decay: as in :func:`scale_by_nadam`.

    Returns:
        A transformation whose state holds two buffers per array.

    References:
        Dozat 2016, see :func:`scale_by_nadam`.

    >>> import gdtx
    >>> print(gdtx.nadam(2e-3).replace(momentum_decay=0.004))
    nadam(0.002, momentum_decay=0.004)
    """
    return chain(
        scale_by_nadam(b1, b2, eps, eps_root, momentum_decay, mu_dtype=mu_dtype, nu_dtype=nu_dtype),
        scale_by_learning_rate(learning_rate),
    )


@transformation
def nadamw(
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
    momentum_decay: NonNegative | None = None,
) -> GradientTransformation:
    r"""NAdam with decoupled weight decay.

    $\theta_t = \theta_{t-1} - \eta\,(\bar m_t / (\sqrt{\hat v_t} + \epsilon) +
    \lambda\,\theta_{t-1})$.

    :func:`scale_by_nadam`, :func:`add_decayed_weights`, :func:`scale_by_learning_rate`.

    Args:
        learning_rate: $\eta$, the size of a step: a number, an array or a schedule.
        b1, b2, eps, eps_root, mu_dtype, nu_dtype, momentum_decay: as in :func:`scale_by_nadam`.
        weight_decay, mask: as in :func:`add_decayed_weights`.

    Returns:
        A transformation whose state holds two buffers per array.

    References:
        Dozat 2016, see :func:`scale_by_nadam`; Loshchilov & Hutter 2019, see
        :func:`add_decayed_weights`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.nadamw(0.1, weight_decay=0.5)
    >>> params = jnp.array([2.0])
    >>> tx.update(jnp.array([0.0]), tx.init(params), params)[0]
    Array([-0.1], dtype=float32)
    """
    return chain(
        scale_by_nadam(b1, b2, eps, eps_root, momentum_decay, mu_dtype=mu_dtype, nu_dtype=nu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
