"""Natural gradient descent with Kronecker-factored curvature."""

from __future__ import annotations

from typing import Annotated

from ..core.calls.kinds import Decay, NonNegative, Positive, StepCount, one_of
from ..core.calls.types import TransformationLike
from ..core.combine import chain
from ..core.factory import transformation
from ..core.transformation import GradientTransformation
from ..curvature.blocks import Layout
from ..curvature.factors import DAMPINGS
from ..curvature.fisher import clip_by_fisher_norm
from ..curvature.kfac import scale_by_kfac
from ..links.decay import add_decayed_weights
from .sgd import sgd


@transformation
def kfac(
    learning_rate: NonNegative,
    momentum: Decay | None = 0.9,
    damping: NonNegative = 1e-3,
    decay: Decay = 0.95,
    inverse_every: StepCount = 10,
    norm_constraint: Positive = 1e-3,
    weight_decay: NonNegative = 0.0,
    split: Annotated[str, one_of(*DAMPINGS)] = "factored",
    layout: Layout = None,
    fallback: TransformationLike | None = None,
) -> GradientTransformation:
    r"""K-FAC: natural gradient descent with Kronecker-factored curvature.

    :func:`add_decayed_weights`, :func:`scale_by_kfac`, :func:`clip_by_fisher_norm` and
    :func:`sgd` with momentum.

    Tune the learning rate first, from 0.03 up with this momentum. Where outputs are few, take the
    curvature with `output="exact"`: targets that are sampled from a network which is sure of itself
    are those that it expects, the curvature is then nearly 0, and the gradient of a wrong answer is
    divided by little more than the damping. `benchmarks/kfac_defaults.py` compares.

    Args:
        learning_rate: $\eta$, factor of the step.
        momentum: $\mu$, share of the last step that is added to the next; None keeps no state.
        damping: $\lambda$, added to the curvature, in its units.
        decay: of the averages of the factors.
        inverse_every: steps between two new bases, at least.
        norm_constraint: $c$, the largest $u^T F u$, in the units of the loss, of updates before
            learning rate and momentum. The default suits cross-entropies, means over examples of a
            few nats; of squared errors it may be far from what they are measured in.
        weight_decay: factor of the parameters that are added to the gradient.
        split, layout, fallback: as in :func:`scale_by_kfac`.

    Returns:
        A transformation whose state is that of :func:`scale_by_kfac` and, with momentum, one buffer
        per array.

    Raises:
        TypeError: from `update`, if it is called without `curvature`.

    References:
        Martens & Grosse 2015, see :func:`scale_by_kfac`.

    >>> from gdtx import kfac
    >>> tx = kfac.kfac(0.1, damping=1e-2)
    >>> tx.replace(damping=1e-3) == kfac.kfac(0.1)
    True
    """
    return chain(
        add_decayed_weights(weight_decay),
        scale_by_kfac(damping, decay, inverse_every, split, layout, fallback),
        clip_by_fisher_norm(norm_constraint),
        sgd(learning_rate, momentum),
    )
