"""Stochastic gradient descent, with momentum in its two forms."""

from __future__ import annotations

from ..core.calls.kinds import Decay, FloatDType, Fraction, NonNegative
from ..core.combine import chain
from ..core.factory import transformation
from ..core.transformation import GradientTransformation
from ..links.arithmetic import scale_by_learning_rate
from ..links.fraction import first_moment
from ..links.moments import ema, trace


@transformation
def sgd(
    learning_rate: NonNegative,
    momentum: Fraction | None = None,
    nesterov: bool = False,
    accumulator_dtype: FloatDType | None = None,
) -> GradientTransformation:
    r"""Stochastic gradient descent, with momentum if asked for.

    $\theta_t = \theta_{t-1} - \eta\,g_t$, or with $v_t = \mu v_{t-1} + g_t$ in place of $g_t$, or
    with $g_t + \mu v_t$ (Nesterov).

    :func:`trace` and :func:`scale_by_learning_rate`. In the other order they are the form
    $v_t = \mu v_{t-1} - \eta g_t$, $\theta_t = \theta_{t-1} + v_t$: the same while $\eta$ is
    constant.

    Args:
        learning_rate: $\eta$, the size of a step: a number, an array or a schedule.
        momentum: $\mu$, share of the last step that is added to the next; None keeps no state.
        nesterov: whether to add the momentum once more, as Nesterov's looks ahead.
        accumulator_dtype: in which the momentum is kept; by default that of the parameter, at
            least float32. In fewer bits it is rounded by chance, see :func:`recur`.

    Returns:
        A transformation whose state holds one buffer per array with momentum, none without.

    Raises:
        ValueError: if a hyperparameter is out of its range, or `nesterov` or `accumulator_dtype`
            is asked for without momentum.

    References:
        Robbins & Monro 1951, A Stochastic Approximation Method; and see :func:`trace`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.sgd(0.1, momentum=0.9)
    >>> tx.update(jnp.array([1.0]), tx.init(jnp.zeros(1)))[0]
    Array([-0.1], dtype=float32)
    """
    if momentum is None:
        for name, value in (("nesterov", nesterov), ("accumulator_dtype", accumulator_dtype)):
            if value:
                raise ValueError(f"sgd: {name}={value} needs a momentum, got momentum=None")
        return scale_by_learning_rate(learning_rate)
    return chain(
        trace(momentum, nesterov, accumulator_dtype), scale_by_learning_rate(learning_rate)
    )


@transformation
def ema_sgd(
    learning_rate: NonNegative,
    decay: Decay = 0.9,
    bias_correction: bool = False,
    accumulator_dtype: FloatDType | None = None,
) -> GradientTransformation:
    r"""Gradient descent along an exponential moving average of the gradients.

    $m_t = \beta m_{t-1} + (1 - \beta) g_t$, $\theta_t = \theta_{t-1} - \eta\,m_t$.

    :func:`ema`, if asked for :func:`gdtx.bias_correction`, and :func:`scale_by_learning_rate`.
    Without the correction it equals `sgd(learning_rate * (1 - decay), momentum=decay)`.

    Args:
        learning_rate: $\eta$, the size of a step: a number, an array or a schedule.
        decay: $\beta$, of the average of gradients.
        bias_correction: whether to divide $m_t$ by $1 - \beta^t$.
        accumulator_dtype: in which the average is kept; by default that of the parameter, at
            least float32. In fewer bits it is rounded by chance, see :func:`recur`.

    Returns:
        A transformation whose state holds one buffer per array.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.ema_sgd(0.5, decay=0.5, bias_correction=True)
    >>> tx.update(jnp.array([1.0]), tx.init(jnp.zeros(1)))[0]
    Array([-0.5], dtype=float32)
    """
    if bias_correction:
        mean = first_moment(decay, accumulator_dtype)
    else:
        mean = ema(decay, dtype=accumulator_dtype)
    return chain(mean, scale_by_learning_rate(learning_rate))
