"""Yogi: Adam whose second moment moves by shares of the gradient."""

from __future__ import annotations

from ..core.calls.kinds import Decay, FloatDType, NonNegative, Scalar
from ..core.combine import chain, divide, join
from ..core.factory import transformation
from ..core.transformation import GradientTransformation
from ..formula import letters
from ..links.arithmetic import scale_by_learning_rate, square
from ..links.correction import bias_correction
from ..links.fraction import root
from ..links.moments import additive_ema, ema


@transformation
def scale_by_yogi(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-3,
    eps_root: NonNegative = 0.0,
    initial_accumulator_value: NonNegative = 1e-6,
    initial_mean: Scalar = 0.0,
    *,
    mu_dtype: FloatDType | None = None,
    nu_dtype: FloatDType | None = None,
) -> GradientTransformation:
    r"""First moment over root of an additive second moment.

    $$u_t = \frac{\hat m_t}{\sqrt{\hat v_t + \epsilon_{root}} + \epsilon}, \quad
    v_t = v_{t-1} - (1 - \beta_2) \operatorname{sign}(v_{t-1} - g_t^2)\,g_t^2,$$

    with $m$ the average of the gradients and the biases corrected as in :func:`scale_by_adam`.
    :func:`scale_by_adam` with :func:`additive_ema` in place of its second :func:`ema`.

    Args:
        b1: $\beta_1$, decay of the first moment.
        b2: $\beta_2$, decay of the second moment.
        eps, eps_root: as in :func:`root`.
        initial_accumulator_value: $v_0$, the second moment at first.
        initial_mean: $m_0$, 0 in the paper; Optax starts it at $v_0$ too.
        mu_dtype, nu_dtype: in which the moments are kept; by default that of the parameter, at
            least float32. In fewer bits they are rounded by chance, see :func:`recur`.

    Returns:
        A transformation whose state holds two buffers per array. Complex updates: $|g|^2$.

    References:
        Zaheer et al. 2018, Adaptive Methods for Nonconvex Optimization, NeurIPS.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_yogi(initial_accumulator_value=0.0, eps=0.0)
    >>> tx.update(jnp.array([-3.0, 1e-4]), tx.init(jnp.zeros(2)))[0].round(3)
    Array([-1.,  1.], dtype=float32)
    """
    mean = chain(ema(b1, dtype=mu_dtype, initial=initial_mean), bias_correction(b1))
    power = chain(
        square(),
        additive_ema(b2, nu_dtype, initial_accumulator_value),
        bias_correction(b2),
    )
    return join(divide, mu=mean, nu=chain(power, root(eps, eps_root)))


letters(scale_by_yogi, plain="initial_accumulator_value initial_mean")


@transformation
def yogi(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-3,
    eps_root: NonNegative = 0.0,
    initial_accumulator_value: NonNegative = 1e-6,
    initial_mean: Scalar = 0.0,
    *,
    mu_dtype: FloatDType | None = None,
    nu_dtype: FloatDType | None = None,
) -> GradientTransformation:
    r"""Yogi.

    $\theta_t = \theta_{t-1} - \eta\,\hat m_t / (\sqrt{\hat v_t} + \epsilon)$.

    :func:`scale_by_yogi` and :func:`scale_by_learning_rate`.

    Args:
        learning_rate: $\eta$, the size of a step: a number, an array or a schedule.
        b1, b2, eps, eps_root, initial_accumulator_value, initial_mean: as in :func:`scale_by_yogi`.
        mu_dtype, nu_dtype: as in :func:`scale_by_yogi`.

    Returns:
        A transformation whose state holds two buffers per array.

    References:
        Zaheer et al. 2018, see :func:`scale_by_yogi`.

    >>> import gdtx
    >>> print(gdtx.yogi(1e-2))
    yogi(0.01)
    """
    return chain(
        scale_by_yogi(
            b1,
            b2,
            eps,
            eps_root,
            initial_accumulator_value,
            initial_mean,
            mu_dtype=mu_dtype,
            nu_dtype=nu_dtype,
        ),
        scale_by_learning_rate(learning_rate),
    )
