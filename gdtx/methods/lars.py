"""LARS: gradient descent whose rate is each layer's own."""

from __future__ import annotations

from typing import Any

from .._combine import chain, join
from .._kinds import Decay, NonNegative, Positive, is_zero
from .._rules import identity, set_to_zero
from .._transformation import GradientTransformation, transformation
from ..links.arithmetic import scale_by_learning_rate
from ..links.decay import add_decayed_weights
from ..links.moments import trace
from ..links.trust import trusted


@transformation
def scale_by_lars(
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
    trust_coefficient: Positive = 0.001,
    eps: NonNegative = 0.0,
    trust_mask: Any = None,
) -> GradientTransformation:
    r"""Add decayed weights, and give every array a length in proportion to its parameter's.

    $$u_t = r_t\,(g_t + \lambda \theta_{t-1}), \quad
    r_t = \frac{c\,\|\theta_{t-1}\|}{\|g_t\| + \lambda \|\theta_{t-1}\| + \epsilon},$$

    and $r_t = 1$ where $\|\theta_{t-1}\|$ or $\|g_t\|$ is 0. The norms are those of one array each.

    Args:
        weight_decay: $\lambda$, 0 where it is masked out, in the ratio too.
        mask: which parameters decay, as in :func:`masked`; all by default.
        trust_coefficient: $c$, called $\eta$ in the paper.
        eps: $\epsilon$.
        trust_mask: which parameters have a ratio; for the others it is 1. All by default.

    Returns:
        A stateless transformation.

    Raises:
        ValueError: if a hyperparameter is out of its range; from `update`, if it is called
            without the parameters.

    References:
        You, Gitman & Ginsburg 2017, Large Batch Training of Convolutional Networks,
        arXiv:1708.03888, algorithm 1. Optax takes the norm of the sum $g_t + \lambda \theta_{t-1}$
        in the denominator, which is at most the paper's sum of norms: that is
        :func:`add_decayed_weights` before :func:`scale_by_trust_ratio`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_lars(weight_decay=0.5, trust_coefficient=1.0)
    >>> params = jnp.array([0.0, 10.0])
    >>> tx.update(jnp.array([3.0, 4.0]), tx.init(params), params)[0]
    Array([3., 9.], dtype=float32)
    """
    # A leaf whose weights count as 0 has the ratio 1.
    branches = {
        "g": identity(),
        "weights": chain(set_to_zero(), add_decayed_weights(1, trust_mask)),
    }
    if not is_zero(weight_decay):
        branches["decay"] = chain(set_to_zero(), add_decayed_weights(weight_decay, mask))
    return join(
        lambda g, weights, decay=None: trusted(g, weights, trust_coefficient, eps, decay),
        **branches,
    )


@transformation
def lars(
    learning_rate: NonNegative,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
    trust_coefficient: Positive = 0.001,
    eps: NonNegative = 0.0,
    momentum: Decay = 0.9,
    nesterov: bool = False,
    trust_mask: Any = None,
) -> GradientTransformation:
    r"""LARS, momentum for large batches of images.

    $v_t = \mu v_{t-1} + \eta\,r_t\,(g_t + \lambda \theta_{t-1})$,
    $\theta_t = \theta_{t-1} - v_t$, with the ratio $r_t$ of :func:`scale_by_lars`.

    :func:`scale_by_lars`, :func:`scale_by_learning_rate` and :func:`trace`, in the paper's order:
    what momentum keeps has had its rate.

    Args:
        learning_rate: $\eta$, as in :func:`scale_by_learning_rate`.
        weight_decay, mask, trust_coefficient, eps, trust_mask: as in :func:`scale_by_lars`.
        momentum, nesterov: $\mu$ and its form, as in :func:`trace`.

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
