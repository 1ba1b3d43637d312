"""MARS: gradients corrected by their change, before Adam."""

from __future__ import annotations

from typing import Any

from ..core.calls.kinds import Bound, Decay, NonNegative
from ..core.combine import chain, join, plus
from ..core.factory import transformation
from ..core.rules import identity
from ..core.transformation import GradientTransformation
from ..formula import letters
from ..links.arithmetic import scale, scale_by_learning_rate
from ..links.clipping import clip_by_norm
from ..links.decay import add_decayed_weights
from ..links.differences import difference
from .adam import scale_by_adam


@transformation
def mars(
    learning_rate: NonNegative,
    b1: Decay = 0.95,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-8,
    *,
    gamma: NonNegative = 0.025,
    max_norm: Bound = 1.0,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
) -> GradientTransformation:
    r"""MARS-AdamW: Adam of gradients whose variance their last change takes down.

    $$c_t = g_t + \gamma\,\frac{\beta_1}{1 - \beta_1}\,(g_t - g_{t-1}), \quad
    \theta_t = \theta_{t-1} - \eta\,(\mathrm{Adam}(c_t \min(1, c / \|c_t\|))
    + \lambda\,\theta_{t-1}),$$

    where the norm is that of one array. It is the paper's approximate form, whose two gradients are
    of two batches, with the first difference 0; in the authors' program that is the first gradient.
    They leave vectors to AdamW: :func:`partition`.

    :func:`difference`, :func:`clip_by_norm`, :func:`scale_by_adam`, :func:`add_decayed_weights`,
    :func:`scale_by_learning_rate`.

    Args:
        learning_rate: $\eta$, the size of a step: a number, an array or a schedule.
        b1, b2, eps: as in :func:`scale_by_adam`.
        gamma: $\gamma$, strength of the correction; 0 is :func:`adamw` of clipped gradients.
        max_norm: $c$, largest norm of an array of corrected gradients.
        weight_decay, mask: as in :func:`add_decayed_weights`.

    Returns:
        A transformation whose state holds three buffers per array.

    References:
        Yuan et al. 2024, MARS: Unleashing the Power of Variance Reduction for Training Large
        Models, arXiv:2411.10438, algorithm 3.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.mars(0.1)
    >>> tx.update(jnp.array([-3.0, 4.0]), tx.init(jnp.zeros(2)), jnp.zeros(2))[0].round(3)
    Array([ 0.1, -0.1], dtype=float32)
    """
    change = chain(difference(), scale(gamma * b1 / (1 - b1)))
    corrected = chain(join(plus, g=identity(), d=change), clip_by_norm(max_norm))
    return chain(
        corrected,
        scale_by_adam(b1, b2, eps),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


letters(mars, gamma=r"\gamma", max_norm="c")
