"""DoG: the distance gone, over the root of all gradients."""

from __future__ import annotations

from typing import Annotated, Any

from ..core.calls.kinds import NonNegative, Positive, one_of
from ..core.combine import chain
from ..core.factory import transformation
from ..core.transformation import GradientTransformation
from ..links.arithmetic import scale_by_learning_rate
from ..links.decay import add_decayed_weights
from ..links.dog import scale_by_dog


@transformation
def dog(
    learning_rate: NonNegative = 1.0,
    *,
    per: Annotated[str, one_of("tree", "array")] = "tree",
    reps_rel: Positive = 1e-6,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
) -> GradientTransformation:
    r"""SGD whose rate is the distance gone over the root of all squared gradients.

    $\theta_t = \theta_{t-1} - \eta\,r_t g_t / \sqrt{G_t + \epsilon}$ with $r$ and $G$ of
    :func:`scale_by_dog`. Evaluate with an :func:`average` of the parameters, as its authors do.

    Args:
        learning_rate: $\eta$, a factor that is meant to be 1.
        per, reps_rel, eps: as in :func:`scale_by_dog`.
        weight_decay: $\lambda$, an L2 penalty: $\lambda\,\theta_{t-1}$ is added to the gradient.
        mask: which parameters decay, in any form of :func:`masked`; all by default.

    Returns:
        A transformation with the state of :func:`scale_by_dog`.

    References:
        Ivgi, Hinder & Carmon 2023, see :func:`scale_by_dog`.

    >>> import gdtx
    >>> gdtx.dog(per="array").arguments["per"]
    'array'
    """
    return chain(
        add_decayed_weights(weight_decay, mask),
        scale_by_dog(per=per, reps_rel=reps_rel, eps=eps),
        scale_by_learning_rate(learning_rate),
    )
