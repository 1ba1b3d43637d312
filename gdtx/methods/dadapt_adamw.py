"""D-Adaptation: AdamW at the rate of a lower bound on the distance to the solution."""

from __future__ import annotations

from typing import Any

from ..core.calls.kinds import Decay, NonNegative, Positive
from ..core.combine import chain, divide, join, plus
from ..core.factory import transformation
from ..core.let import let, value_of
from ..core.rules import set_to_zero
from ..core.transformation import GradientTransformation
from ..formula import letters
from ..links.arithmetic import add, scale, sqrt, square
from ..links.decay import add_decayed_weights
from ..links.distance import dadapt_distance, times_estimate
from ..links.moments import ema


@transformation
def dadapt_adamw(
    learning_rate: NonNegative = 1.0,
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    estim_lr0: Positive = 1e-6,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
    bias_correction: bool = True,
) -> GradientTransformation:
    r"""AdamW whose rate is a lower bound on how far the solution is.

    $$\theta_t = \theta_{t-1} - m_t / A_t - a_t \lambda\,\theta_{t-1}, \quad A_t = \sqrt{v_t} +
    \epsilon, \quad a_t = \eta \gamma_t d_{t-1}, \quad d_t = \max(d_{t-1}, r_t / \|s_t\|_1),$$

    with $m$ and $s$ averages of $a_t g_t$ with the decays $\beta_1$ and $\sqrt{\beta_2}$, $v$ that
    of $g^2$ with $\beta_2$, and $r_t = \sqrt{\beta_2}\,r_{t-1} + a_t \langle g_t,
    s_{t-1} / A_t \rangle$ over all arrays.

    Args:
        learning_rate: $\eta$, a factor that schedules shape; 1 is meant to need no tuning.
        b1, b2: $\beta_1$ and $\beta_2$, decays of $m$ and $v$.
        eps: $\epsilon$, added to the root.
        estim_lr0: first estimate, less than any rate that is of use.
        weight_decay, mask: as in :func:`add_decayed_weights`.
        bias_correction: whether $\gamma_t = \sqrt{1 - \beta_2^t} / (1 - \beta_1^t)$, as in Optax,
            or 1, as in the paper.

    Returns:
        A transformation whose state holds three buffers per array and two numbers.

    References:
        Defazio & Mishchenko 2023, Learning-Rate-Free Learning by D-Adaptation, arXiv:2301.07733,
        algorithm 5; the authors' later program and Optax divide by $A_{t-1}$ in $r$.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.dadapt_adamw()
    >>> abs(tx.update(jnp.array([3.0]), tx.init(jnp.zeros(1)), jnp.zeros(1))[0]) < 1e-5
    Array([ True], dtype=bool)
    """
    corrections = (b1, b2) if bias_correction else None
    distance = dadapt_distance(learning_rate, b2**0.5, estim_lr0, corrections)
    moment = chain(times_estimate(learning_rate, corrections), ema(b1))
    decay = chain(set_to_zero(), add_decayed_weights(weight_decay, mask))
    step = join(
        plus,
        step=join(divide, mu=moment, nu=value_of("A")),
        decay=chain(decay, times_estimate(learning_rate, corrections)),
    )
    size = chain(square(), ema(b2), sqrt(), add(eps))
    return let(chain(step, scale(-1.0)), A=size, d=distance)


letters(dadapt_adamw, plain="estim_lr0")
