"""Lion: the sign of an interpolation between the gradient and its average."""

from __future__ import annotations

from typing import Any

from ..core.calls.kinds import Decay, FloatDType, NonNegative
from ..core.combine import chain, join, plus, previous
from ..core.factory import transformation
from ..core.transformation import GradientTransformation
from ..links.arithmetic import scale, scale_by_learning_rate, sign
from ..links.decay import add_decayed_weights
from ..links.moments import ema


@transformation
def scale_by_lion(
    b1: Decay = 0.9, b2: Decay = 0.99, mu_dtype: FloatDType | None = None
) -> GradientTransformation:
    r"""The sign of the average before this gradient and of this gradient, mixed.

    $u_t = \operatorname{sign}(\beta_1 m_{t-1} + (1 - \beta_1) g_t)$, and only then
    $m_t = \beta_2 m_{t-1} + (1 - \beta_2) g_t$.

    Args:
        b1: $\beta_1$, share of the average in the mixture.
        b2: $\beta_2$, decay of the average.
        mu_dtype: in which the average is kept; by default that of the parameter, at least float32.
            In fewer bits it is rounded by chance, see :func:`recur`.

    Returns:
        A transformation whose state holds one buffer per array. Complex updates: $u / |u|$ for the
        sign.

    References:
        Chen et al. 2023, Symbolic Discovery of Optimization Algorithms, arXiv:2302.06675.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_lion()
    >>> tx.update(jnp.array([-3.0, 1e-4]), tx.init(jnp.zeros(2)))[0]
    Array([-1.,  1.], dtype=float32)
    """
    mixture = join(plus, mu=chain(previous(ema(b2, dtype=mu_dtype)), scale(b1)), g=scale(1 - b1))
    return chain(mixture, sign())


@transformation
def lion(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    mu_dtype: FloatDType | None = None,
    *,
    weight_decay: NonNegative = 1e-3,
    mask: Any = None,
) -> GradientTransformation:
    r"""Lion, with decoupled weight decay.

    $\theta_t = \theta_{t-1} - \eta\,(\operatorname{sign}(\beta_1 m_{t-1} + (1 - \beta_1) g_t) +
    \lambda\,\theta_{t-1})$.

    :func:`scale_by_lion`, :func:`add_decayed_weights`, :func:`scale_by_learning_rate`. All its
    numbers move by $\eta$: the authors take a tenth to a third of AdamW's rate, and as many times
    its weight decay.

    Args:
        learning_rate: $\eta$, the size of a step: a number, an array or a schedule.
        b1, b2, mu_dtype: as in :func:`scale_by_lion`.
        weight_decay, mask: as in :func:`add_decayed_weights`.

    Returns:
        A transformation whose state holds one buffer per array.

    References:
        Chen et al. 2023, see :func:`scale_by_lion`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.lion(0.1, weight_decay=0.5)
    >>> params = jnp.array([2.0])
    >>> tx.update(jnp.array([-3.0]), tx.init(params), params)[0]
    Array([-0.], dtype=float32)
    """
    return chain(
        scale_by_lion(b1, b2, mu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
