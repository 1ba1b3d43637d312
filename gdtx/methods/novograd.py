"""NovoGrad: gradients over a second moment of each array."""

from __future__ import annotations

from typing import Any

from ..core.calls.kinds import Decay, NonNegative
from ..core.combine import chain, divide, join
from ..core.factory import transformation
from ..core.rules import identity
from ..core.transformation import GradientTransformation
from ..links.arithmetic import scale_by_learning_rate, square
from ..links.clipping import global_norm
from ..links.decay import add_decayed_weights
from ..links.fraction import root
from ..links.from_first import ema_from_first
from ..links.moments import trace
from ..links.reduced import reduced


@transformation
def novograd(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.25,
    eps: NonNegative = 1e-6,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
) -> GradientTransformation:
    r"""NovoGrad: momentum of gradients over the root of a second moment of each array.

    $m_t = \beta_1 m_{t-1} + g_t / (\sqrt{v_t} + \epsilon) + \lambda\,\theta_{t-1}$ and
    $\theta_t = \theta_{t-1} - \eta\,m_t$, with one number for an array, $v_1 = \|g_1\|^2$ and
    $v_t = \beta_2 v_{t-1} + (1 - \beta_2) \|g_t\|^2$.

    Args:
        learning_rate: $\eta$, the size of a step: a number, an array or a schedule.
        b1: $\beta_1$, how much of the momentum stays.
        b2: $\beta_2$, decay of the second moment.
        eps, eps_root: as in :func:`root`.
        weight_decay: $\lambda$, what of the weights joins the momentum.
        mask: which parameters decay, in any form of :func:`masked`; all by default.

    Returns:
        A transformation whose state holds one buffer and one number per array.

    References:
        Ginsburg et al. 2019, Stochastic Gradient Methods with Layer-wise Adaptive Moments for
        Training of Deep Networks, arXiv:1905.11286.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.novograd(5.0)
    >>> tx.update(jnp.array([3.0, -4.0]), tx.init(jnp.zeros(2)), jnp.zeros(2))[0].round(2)
    Array([-3.,  4.], dtype=float32)
    """
    size = reduced(chain(square(), ema_from_first(b2)), global_norm)
    return chain(
        join(divide, g=identity(), nu=chain(size, root(eps, eps_root))),
        add_decayed_weights(weight_decay, mask),
        trace(b1),
        scale_by_learning_rate(learning_rate),
    )
