"""LAMB: Adam whose step is a share of each layer's length."""

from __future__ import annotations

from typing import Any

from ..core.calls.kinds import Decay, FloatDType, NonNegative
from ..core.combine import chain
from ..core.factory import transformation
from ..core.transformation import GradientTransformation
from ..links.arithmetic import scale_by_learning_rate
from ..links.decay import add_decayed_weights
from ..links.trust import scale_by_trust_ratio
from .adam import scale_by_adam


@transformation
def lamb(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
    trust_mask: Any = None,
    *,
    mu_dtype: FloatDType | None = None,
    nu_dtype: FloatDType | None = None,
) -> GradientTransformation:
    r"""LAMB, Adam for large batches.

    $$\theta_t = \theta_{t-1} - \eta\,\frac{\|\theta_{t-1}\|}{\|d_t\|}\,d_t, \quad
    d_t = \frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon} + \lambda\,\theta_{t-1},$$

    with 1 in place of the ratio where either norm is 0. The norms are those of one array each, so
    its step has the length $\eta\,\|\theta_{t-1}\|$.

    :func:`scale_by_adam`, :func:`add_decayed_weights`, :func:`scale_by_trust_ratio` and
    :func:`scale_by_learning_rate`.

    Args:
        learning_rate: $\eta$, the size of a step: a number, an array or a schedule.
        b1, b2, eps, eps_root, mu_dtype, nu_dtype: as in :func:`scale_by_adam`.
        weight_decay: $\lambda$, share of the weights that is added to the direction before its
            ratio.
        mask: which parameters decay, in any form of :func:`masked`; all by default.
        trust_mask: which parameters have a ratio, in any form of :func:`masked`; the others take
            the step of Adam.

    Returns:
        A transformation whose state holds two buffers per array.

    Raises:
        ValueError: if a hyperparameter is out of its range; from `update`, if it is called
            without the parameters.

    References:
        You et al. 2020, Large Batch Optimization for Deep Learning: Training BERT in 76 minutes,
        arXiv:1904.00962.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.lamb(0.1)
    >>> params = jnp.array([3.0, 4.0])
    >>> updates, _ = tx.update(jnp.array([1.0, -1.0]), tx.init(params), params)
    >>> gdtx.global_norm(updates).round(3)
    Array(0.5, dtype=float32)
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nu_dtype=nu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_trust_ratio(mask=trust_mask),
        scale_by_learning_rate(learning_rate),
    )
