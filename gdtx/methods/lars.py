"""LARS: gradient descent whose rate is each layer's own."""

from __future__ import annotations

from typing import Any

from ..core.calls.kinds import Fraction, NonNegative, Positive
from ..core.combine import chain
from ..core.factory import transformation
from ..core.transformation import GradientTransformation
from ..links.arithmetic import scale_by_learning_rate
from ..links.moments import trace
from ..links.trust import scale_by_lars


@transformation
def lars(
    learning_rate: NonNegative,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
    trust_coefficient: Positive = 0.001,
    eps: NonNegative = 0.0,
    trust_mask: Any = None,
    momentum: Fraction = 0.9,
    nesterov: bool = False,
) -> GradientTransformation:
    r"""LARS, momentum for large batches of images.

    $v_t = \mu v_{t-1} + \eta\,r_t\,(g_t + \lambda \theta_{t-1})$,
    $\theta_t = \theta_{t-1} - v_t$, with the ratio $r_t$ of :func:`scale_by_lars`.

    :func:`scale_by_lars`, :func:`scale_by_learning_rate` and :func:`trace`, in the paper's order:
    what momentum keeps has had its rate.

    Args:
        learning_rate: $\eta$, the size of a step: a number, an array or a schedule.
        weight_decay, mask, trust_coefficient, eps, trust_mask: as in :func:`scale_by_lars`.
        momentum: $\mu$, share of the last step that is added to the next; None keeps no state.
        nesterov: whether to add the momentum once more, as Nesterov's looks ahead.

    Returns:
        A transformation whose state holds one buffer per array.

    Raises:
        ValueError: if a hyperparameter is out of its range; from `update`, if it is called
            without the parameters.

    References:
        You, Gitman & Ginsburg 2017, see :func:`scale_by_lars`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.lars(0.5, trust_coefficient=1.0)
    >>> params = jnp.array([0.0, 10.0])
    >>> tx.update(jnp.array([3.0, 4.0]), tx.init(params), params)[0]
    Array([-3., -4.], dtype=float32)
    """
    return chain(
        scale_by_lars(weight_decay, mask, trust_coefficient, eps, trust_mask),
        scale_by_learning_rate(learning_rate),
        trace(momentum, nesterov),
    )
