"""Rprop: descent on signs, with a step length for every number."""

from __future__ import annotations

from ..core.calls.kinds import AtLeastOne, InnerDecay, NonNegative, Positive
from ..core.combine import chain
from ..core.factory import transformation
from ..core.transformation import GradientTransformation
from ..links.arithmetic import scale
from ..links.rprop import scale_by_rprop


@transformation
def rprop(
    learning_rate: NonNegative,
    eta_minus: InnerDecay = 0.5,
    eta_plus: AtLeastOne = 1.2,
    min_step_size: Positive = 1e-6,
    max_step_size: Positive = 50.0,
) -> GradientTransformation:
    r"""Rprop, for gradients of the whole data: with mini-batches, signs are mostly noise.

    $\theta_t = \theta_{t-1} - \operatorname{sign}(g_t)\,\Delta_t$.

    :func:`scale_by_rprop`, downhill. The learning rate is the length of the first step only; on a
    network it is `max_step_size` that wants tuning, since steps of 50 leave any basin.

    Args:
        learning_rate, eta_minus, eta_plus, min_step_size: as in :func:`scale_by_rprop`.
        max_step_size: as in :func:`scale_by_rprop`.

    Returns:
        A transformation whose state holds two buffers per array.

    Raises:
        TypeError: from `update`, for complex updates.

    References:
        Riedmiller & Braun 1993, see :func:`scale_by_rprop`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.rprop(0.1)
    >>> tx.update(jnp.array([-3.0, 1e-9]), tx.init(jnp.zeros(2)))[0]
    Array([ 0.1, -0.1], dtype=float32)
    """
    return chain(
        scale_by_rprop(learning_rate, eta_minus, eta_plus, min_step_size, max_step_size),
        scale(-1.0),
    )
