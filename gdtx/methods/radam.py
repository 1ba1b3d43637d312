"""RAdam: Adam that waits until its denominator can be trusted."""

from __future__ import annotations

from ..core.calls.kinds import Decay, FloatDType, LengthThreshold, NonNegative
from ..core.combine import chain, divide, join
from ..core.factory import transformation
from ..core.transformation import GradientTransformation
from ..links.arithmetic import scale_by_learning_rate
from ..links.correction import rectify
from ..links.fraction import first_moment, root, second_moment


@transformation
def scale_by_radam(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    threshold: LengthThreshold = 4.0,
    *,
    mu_dtype: FloatDType | None = None,
    nu_dtype: FloatDType | None = None,
) -> GradientTransformation:
    r"""Adam with the variance of its adaptive step rectified.

    $u_t = r_t\, \hat m_t / (\sqrt{\hat v_t + \epsilon_{root}} + \epsilon)$ while
    $\rho_t > \tau$, else $\hat m_t$.

    :func:`scale_by_adam` with :func:`rectify` on its denominator.

    Args:
        b1: $\beta_1$, decay of the first moment.
        b2: $\beta_2$, decay of the second moment.
        eps, eps_root: as in :func:`root`.
        threshold: $\tau$, shortest equivalent average, in steps, at which the variance counts as
            tractable; at least 4.
        mu_dtype, nu_dtype: in which the moments are kept; by default that of the parameter, at
            least float32. In fewer bits they are rounded by chance, see :func:`recur`.

    Returns:
        A transformation whose state holds two buffers per array. Complex updates: $|g|^2$.

    References:
        Liu et al. 2020, On the Variance of the Adaptive Learning Rate and Beyond,
        arXiv:1908.03265.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_radam()
    >>> tx.update(jnp.array([-3.0]), tx.init(jnp.zeros(1)))[0].round(5)
    Array([-3.], dtype=float32)
    """
    denominator = chain(second_moment(b2, nu_dtype), root(eps, eps_root), rectify(b2, threshold))
    return join(divide, mu=first_moment(b1, mu_dtype), nu=denominator)


@transformation
def radam(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    threshold: LengthThreshold = 4.0,
    *,
    mu_dtype: FloatDType | None = None,
    nu_dtype: FloatDType | None = None,
) -> GradientTransformation:
    r"""Rectified Adam.

    $\theta_t = \theta_{t-1} - \eta\,r_t\,\hat m_t / (\sqrt{\hat v_t} + \epsilon)$ while
    $\rho_t > \tau$, else $\theta_{t-1} - \eta\,\hat m_t$.

    :func:`scale_by_radam` and :func:`scale_by_learning_rate`.

    Args:
        learning_rate: $\eta$, the size of a step: a number, an array or a schedule.
        b1, b2, eps, eps_root, threshold, mu_dtype, nu_dtype: as in :func:`scale_by_radam`.

    Returns:
        A transformation whose state holds two buffers per array.

    References:
        Liu et al. 2020, see :func:`scale_by_radam`.

    >>> import gdtx
    >>> print(gdtx.radam(1e-3, threshold=5.0))
    radam(0.001, threshold=5.0)
    """
    return chain(
        scale_by_radam(b1, b2, eps, eps_root, threshold, mu_dtype=mu_dtype, nu_dtype=nu_dtype),
        scale_by_learning_rate(learning_rate),
    )
