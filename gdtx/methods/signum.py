"""Descent on signs: of the gradient, or of its average."""

from __future__ import annotations

from ..core.calls.kinds import Decay, FloatDType, NonNegative
from ..core.combine import chain
from ..core.factory import transformation
from ..core.transformation import GradientTransformation
from ..links.arithmetic import scale_by_learning_rate, sign
from ..links.moments import ema


@transformation
def scale_by_sign() -> GradientTransformation:
    r"""The step of signSGD before its learning rate: :func:`sign`.

    Returns:
        A stateless transformation. Complex updates: $u / |u|$.

    References:
        Bernstein et al. 2018, signSGD: Compressed Optimisation for Non-Convex Problems,
        arXiv:1802.04434.

    >>> import gdtx, jax.numpy as jnp
    >>> gdtx.scale_by_sign().update(jnp.array([-3.0, 0.0, 1e-4]), ())[0]
    Array([-1.,  0.,  1.], dtype=float32)
    """
    return sign()


@transformation
def signum(
    learning_rate: NonNegative,
    momentum: Decay | None = 0.9,
    accumulator_dtype: FloatDType | None = None,
) -> GradientTransformation:
    r"""Signum: descent along the sign of the average gradient.

    $m_t = \mu m_{t-1} + (1 - \mu) g_t$,
    $\theta_t = \theta_{t-1} - \eta \operatorname{sign}(m_t)$.

    :func:`ema`, :func:`scale_by_sign`, :func:`scale_by_learning_rate`. With :func:`trace` in place
    of the average, or with its bias corrected, it is the same: they differ by a positive factor.

    Args:
        learning_rate: $\eta$, the size of a step: a number, an array or a schedule.
        momentum: $\mu$, decay of the average; None is signSGD, which keeps no state.
        accumulator_dtype: in which the momentum is kept; by default that of the parameter, at
            least float32. In fewer bits it is rounded by chance, see :func:`recur`.

    Returns:
        A transformation whose state holds one buffer per array, none without momentum. Complex
        updates: $m / |m|$ for the sign.

    Raises:
        ValueError: if a hyperparameter is out of its range, or `accumulator_dtype` is asked for
            without momentum.

    References:
        Bernstein et al. 2018, see :func:`scale_by_sign`, algorithm 2.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.signum(0.1)
    >>> tx.update(jnp.array([-3.0, 1e-4]), tx.init(jnp.zeros(2)))[0]
    Array([ 0.1, -0.1], dtype=float32)
    """
    step = chain(scale_by_sign(), scale_by_learning_rate(learning_rate))
    if momentum is not None:
        return chain(ema(momentum, dtype=accumulator_dtype), step)
    if accumulator_dtype is not None:
        raise ValueError(
            f"signum: accumulator_dtype={accumulator_dtype} needs a momentum, got momentum=None"
        )
    return step
