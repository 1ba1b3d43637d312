"""AMSGrad: Adam whose denominators never shrink."""

from __future__ import annotations

from ..core.calls.kinds import Decay, FloatDType, NonNegative
from ..core.combine import chain, divide, join
from ..core.factory import transformation
from ..core.transformation import GradientTransformation
from ..links.arithmetic import scale_by_learning_rate, square
from ..links.correction import bias_correction
from ..links.fraction import first_moment, root
from ..links.moments import ema, running_max


@transformation
def scale_by_amsgrad(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: FloatDType | None = None,
    *,
    nu_dtype: FloatDType | None = None,
) -> GradientTransformation:
    r"""First moment over root of the largest second moment so far.

    $$u_t = \frac{\hat m_t}{\sqrt{\hat a_t + \epsilon_{root}} + \epsilon}, \quad
    a_t = \max(a_{t-1}, v_t), \quad \hat a_t = \frac{a_t}{1 - \beta_2^t},$$

    with $\hat m$, $v$ as in :func:`scale_by_adam`. The maximum is taken before the correction: of
    corrected values, the noisy first would stay the largest.

    Args:
        b1: $\beta_1$, decay of the first moment.
        b2: $\beta_2$, decay of the second moment.
        eps, eps_root: as in :func:`root`.
        mu_dtype, nu_dtype: in which the moments are kept; by default that of the parameter, at
            least float32. In fewer bits they are rounded by chance, see :func:`recur`.

    Returns:
        A transformation whose state holds three buffers per array. Complex updates: $|g|^2$.

    References:
        Reddi, Kale & Kumar 2018, On the Convergence of Adam and Beyond, arXiv:1904.09237.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_amsgrad()
    >>> tx.update(jnp.array([-3.0, 1e-4]), tx.init(jnp.zeros(2)))[0].round(3)
    Array([-1.,  1.], dtype=float32)
    """
    largest = chain(
        square(), ema(b2, dtype=nu_dtype), running_max(dtype=nu_dtype), bias_correction(b2)
    )
    return join(divide, mu=first_moment(b1, mu_dtype), nu=chain(largest, root(eps, eps_root)))


@transformation
def amsgrad(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: FloatDType | None = None,
    *,
    nu_dtype: FloatDType | None = None,
) -> GradientTransformation:
    r"""AMSGrad.

    $\theta_t = \theta_{t-1} - \eta\,\hat m_t / (\sqrt{\hat a_t} + \epsilon)$.

    :func:`scale_by_amsgrad` and :func:`scale_by_learning_rate`.

    Args:
        learning_rate: $\eta$, the size of a step: a number, an array or a schedule.
        b1, b2, eps, eps_root, mu_dtype, nu_dtype: as in :func:`scale_by_amsgrad`.

    Returns:
        A transformation whose state holds three buffers per array.

    References:
        Reddi, Kale & Kumar 2018, see :func:`scale_by_amsgrad`.

    >>> import gdtx
    >>> gdtx.amsgrad(1e-3)  # doctest: +NORMALIZE_WHITESPACE
    amsgrad(learning_rate=0.001, b1=0.9, b2=0.999, eps=1e-08, eps_root=0.0, mu_dtype=None,
            nu_dtype=None)
    """
    return chain(
        scale_by_amsgrad(b1, b2, eps, eps_root, mu_dtype, nu_dtype=nu_dtype),
        scale_by_learning_rate(learning_rate),
    )
