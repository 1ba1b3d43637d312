"""Prodigy: Adam at the rate of an estimated distance to the solution."""

from __future__ import annotations

from typing import Any

from ..core.calls.kinds import Decay, NonNegative, Positive
from ..core.combine import chain, divide, join, multiply, plus
from ..core.factory import transformation
from ..core.let import let, value_of
from ..core.rules import identity
from ..core.transformation import GradientTransformation
from ..formula import letters
from ..links.arithmetic import scale, sqrt, square
from ..links.decay import add_decayed_weights
from ..links.distance import prodigy_distance, times_estimate
from ..links.moments import ema


@transformation
def prodigy(
    learning_rate: NonNegative = 1.0,
    *,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay | None = None,
    eps: NonNegative = 1e-8,
    estim_lr0: Positive = 1e-6,
    estim_lr_coef: Positive = 1.0,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
    bias_correction: bool = True,
    safeguard_warmup: bool = False,
) -> GradientTransformation:
    r"""Adam whose rate is an estimate of how far the solution is.

    $$\theta_t = \theta_{t-1} - \eta \gamma_t d_{t-1} \left(
    \frac{m_t}{\sqrt{v_t} + \epsilon d_{t-1}} + \lambda\,\theta_{t-1}\right), \quad
    d_t = \max\left(d_{t-1}, c\,r_t / \|s_t\|_1\right),$$

    with $m$ and $v$ the averages of $d_{t-1} g_t$ and of its squares, and, with
    $a_t = \eta \gamma_t d_{t-1}^2$, $s_t = \beta_3 s_{t-1} + a_t g_t$ and over all arrays
    $r_t = \beta_3 r_{t-1} + a_t \langle g_t, \theta_0 - \theta_{t-1}\rangle$.

    Args:
        learning_rate: $\eta$, a factor that schedules shape; 1 is meant to need no tuning.
        b1, b2: $\beta_1$ and $\beta_2$, decays of $m$ and $v$.
        b3: $\beta_3$; None is $\sqrt{\beta_2}$.
        eps: $\epsilon$. The authors' program and Optax multiply it by $d_t$.
        estim_lr0: first estimate, less than any rate that is of use.
        estim_lr_coef: $c$, to tune in place of the rate.
        weight_decay, mask: as in :func:`add_decayed_weights`.
        bias_correction: whether $\gamma_t = \sqrt{1 - \beta_2^t} / (1 - \beta_1^t)$, as in Optax,
            or 1, as in the paper.
        safeguard_warmup: leave $\eta \gamma_t$ out of $s$, for schedules that start near 0.

    Returns:
        A transformation whose state holds four buffers per array and two numbers.

    References:
        Mishchenko & Defazio 2023, Prodigy: An Expeditiously Adaptive Parameter-Free Learner,
        arXiv:2306.06101, algorithm 4.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.prodigy()
    >>> abs(tx.update(jnp.array([3.0]), tx.init(jnp.zeros(1)), jnp.zeros(1))[0]) < 1e-5
    Array([ True], dtype=bool)
    """
    corrections = (b1, b2) if bias_correction else None
    distance = prodigy_distance(
        learning_rate, b2**0.5 if b3 is None else b3, estim_lr0, estim_lr_coef, corrections,
        safeguard_warmup,
    )  # fmt: skip
    small = chain(value_of("d"), scale(eps))
    size = chain(square(), ema(b2), sqrt(), join(plus, v=identity(), d=small))
    step = chain(
        join(multiply, g=identity(), d=value_of("d")),
        join(divide, mu=ema(b1), nu=size),
        add_decayed_weights(weight_decay, mask),
        times_estimate(learning_rate, corrections),
        scale(-1.0),
    )
    return let(step, d=distance)


letters(prodigy, plain="estim_lr0", estim_lr_coef="c")
