"""AdEMAMix: Adam with a second, far longer average of the gradients."""

from __future__ import annotations

from typing import Any

from ..core.calls.kinds import Decay, NonNegative
from ..core.combine import chain, divide, join, plus
from ..core.factory import transformation
from ..core.transformation import GradientTransformation
from ..formula import letters
from ..links.arithmetic import scale, scale_by_learning_rate
from ..links.decay import add_decayed_weights
from ..links.fraction import first_moment, root, second_moment
from ..links.moments import ema


@transformation
def scale_by_ademamix(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay = 0.9999,
    alpha: NonNegative = 6.0,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
) -> GradientTransformation:
    r"""A fast and a slow average of the gradients, over root of the second moment.

    $u_t = (\hat m_t + \alpha a_t) / (\sqrt{\hat v_t + \epsilon_{root}} + \epsilon)$ with the slow
    $a_t = \beta_3 a_{t-1} + (1 - \beta_3)\,g_t$, whose bias is left: it grows in with the steps.

    Args:
        b1, b3: $\beta_1$ and $\beta_3$, decays of the fast average and of the slow one.
        b2: $\beta_2$, decay of the second moment.
        alpha: $\alpha$, weight of the slow average, 5 to 10; the paper brings it and $\beta_3$ up.
            Optax's default, which is 5 in :func:`ademamix`.
        eps, eps_root: $\epsilon$ outside the root and $\epsilon_{root}$ inside.

    Returns:
        A transformation whose state holds three buffers per array.

    References:
        Pagliardini et al. 2024, The AdEMAMix Optimizer: Better, Faster, Older, arXiv:2409.03137.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_ademamix(b3=0.5, alpha=1.0)
    >>> tx.update(jnp.array([-3.0, 1e-4]), tx.init(jnp.zeros(2)))[0].round(2)
    Array([-1.5,  1.5], dtype=float32)
    """
    slow = chain(ema(b3), scale(alpha))
    mean = join(plus, fast=first_moment(b1), slow=slow)
    return join(divide, mu=mean, nu=chain(second_moment(b2), root(eps, eps_root)))


letters(scale_by_ademamix, alpha=r"\alpha")


@transformation
def ademamix(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay = 0.9999,
    alpha: NonNegative = 5.0,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    *,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
) -> GradientTransformation:
    r"""AdEMAMix, with decoupled weight decay.

    $\theta_t = \theta_{t-1} - \eta\,(u_t + \lambda\,\theta_{t-1})$ with $u$ of
    :func:`scale_by_ademamix`.

    :func:`scale_by_ademamix`, :func:`add_decayed_weights`, :func:`scale_by_learning_rate`.

    Args:
        learning_rate: $\eta$, the size of a step: a number, an array or a schedule.
        b1, b3, b2, eps, eps_root: as in :func:`scale_by_ademamix`.
        alpha: $\alpha$, weight of the slow average.
        weight_decay, mask: as in :func:`add_decayed_weights`.

    Returns:
        A transformation whose state holds three buffers per array.

    References:
        Pagliardini et al. 2024, see :func:`scale_by_ademamix`.

    >>> import gdtx, jax.numpy as jnp
    >>> gdtx.ademamix(0.1, alpha=0.0).init(jnp.zeros(2)) is not None
    True
    """
    return chain(
        scale_by_ademamix(b1, b2, b3, alpha, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
