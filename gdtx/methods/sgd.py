"""Stochastic gradient descent, with momentum in its two forms."""

from __future__ import annotations

from ..core.calls.kinds import Decay, Fraction, NonNegative
from ..core.combine import chain
from ..core.factory import transformation
from ..core.transformation import GradientTransformation
from ..links.arithmetic import scale_by_learning_rate
from ..links.fraction import first_moment
from ..links.moments import ema, trace


@transformation
def sgd(
    learning_rate: NonNegative, momentum: Fraction | None = None, nesterov: bool = False
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

    Returns:
        A transformation whose state holds one buffer per array with momentum, none without.

    Raises:
        ValueError: if a hyperparameter is out of its range, or `nesterov` is asked for without
            momentum.

    References:
        Robbins & Monro 1951, A Stochastic Approximation Method; and see :func:`trace`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.sgd(0.1, momentum=0.9)
    >>> tx.update(jnp.array([1.0]), tx.init(jnp.zeros(1)))[0]
    Array([-0.1], dtype=float32)
    """
    if momentum is None:
        if nesterov:
            raise ValueError("sgd: nesterov=True needs a momentum, got momentum=None")
        return scale_by_learning_rate(learning_rate)
    return chain(trace(momentum, nesterov), scale_by_learning_rate(learning_rate))


@transformation
def ema_sgd(
    learning_rate: NonNegative, decay: Decay = 0.9, bias_correction: bool = False
) -> GradientTransformation:
    r"""Gradient descent along an exponential moving average of the gradients.

    $m_t = \beta m_{t-1} + (1 - \beta) g_t$, $\theta_t = \theta_{t-1} - \eta\,m_t$.

    :func:`ema`, if asked for :func:`gdtx.bias_correction`, and :func:`scale_by_learning_rate`.
    Without the correction it equals `sgd(learning_rate * (1 - decay), momentum=decay)`.

    Args:
        learning_rate: $\eta$, the size of a step: a number, an array or a schedule.
        decay: $\beta$, of the average of gradients.
        bias_correction: whether to divide $m_t$ by $1 - \beta^t$.

    Returns:
        A transformation whose state holds one buffer per array.

    Raises:
        ValueError: if a hyperparameter is out of its range.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.ema_sgd(0.5, decay=0.5, bias_correction=True)
    >>> tx.update(jnp.array([1.0]), tx.init(jnp.zeros(1)))[0]
    Array([-0.5], dtype=float32)
    """
    mean = first_moment(decay) if bias_correction else ema(decay)
    return chain(mean, scale_by_learning_rate(learning_rate))
