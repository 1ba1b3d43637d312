"""AdaMax: Adam with the infinity norm of past gradients."""

from __future__ import annotations

from ..core.calls.kinds import Decay, FloatDType, NonNegative
from ..core.combine import chain, divide, join
from ..core.factory import transformation
from ..core.transformation import GradientTransformation
from ..links.arithmetic import absolute, add, scale_by_learning_rate
from ..links.fraction import first_moment
from ..links.moments import running_max


@transformation
def scale_by_adamax(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    *,
    mu_dtype: FloatDType | None = None,
    nu_dtype: FloatDType | None = None,
) -> GradientTransformation:
    r"""First moment over the largest recent magnitude.

    $u_t = \hat m_t / n_t$ with $n_t = \max(\beta_2 n_{t-1}, |g_t| + \epsilon)$.

    Args:
        b1: $\beta_1$, decay of the first moment.
        b2: $\beta_2$, decay of the largest magnitude.
        eps: $\epsilon$. Without, 0 / 0 is NaN until the first gradient other than 0.
        mu_dtype, nu_dtype: in which the moments are kept; by default that of the parameter, at
            least float32. In fewer bits they are rounded by chance, see :func:`recur`.

    Returns:
        A transformation whose state holds two buffers per array. Complex updates: $|g|$.

    References:
        Kingma & Ba 2015, Adam: A Method for Stochastic Optimization, arXiv:1412.6980, section 7.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_adamax()
    >>> tx.update(jnp.array([-3.0, 1.0]), tx.init(jnp.zeros(2)))[0].round(3)
    Array([-1.,  1.], dtype=float32)
    """
    largest = chain(absolute(), add(eps), running_max(b2, nu_dtype))
    return join(divide, mu=first_moment(b1, mu_dtype), nu=largest)


@transformation
def adamax(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    *,
    mu_dtype: FloatDType | None = None,
    nu_dtype: FloatDType | None = None,
) -> GradientTransformation:
    r"""AdaMax.

    $\theta_t = \theta_{t-1} - \eta\,\hat m_t / n_t$.

    :func:`scale_by_adamax` and :func:`scale_by_learning_rate`.

    Args:
        learning_rate: $\eta$, the size of a step: a number, an array or a schedule.
        b1, b2, eps, mu_dtype, nu_dtype: as in :func:`scale_by_adamax`.

    Returns:
        A transformation whose state holds two buffers per array.

    References:
        Kingma & Ba 2015, see :func:`scale_by_adamax`.

    >>> import gdtx
    >>> gdtx.adamax(2e-3)  # doctest: +NORMALIZE_WHITESPACE
    adamax(learning_rate=0.002, b1=0.9, b2=0.999, eps=1e-08, mu_dtype=None,
           nu_dtype=None)
    """
    return chain(
        scale_by_adamax(b1, b2, eps, mu_dtype=mu_dtype, nu_dtype=nu_dtype),
        scale_by_learning_rate(learning_rate),
    )
