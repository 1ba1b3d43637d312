"""Averages of gradients, looked ahead as by Nesterov's momentum."""

from __future__ import annotations

from typing import Any

import jax

from ..core.combine import chain, join, plus
from ..core.transformation import GradientTransformation
from .arithmetic import scale, scale_by_schedule
from .correction import bias_correction, scheduled_bias_correction
from .moments import ema


def nesterov_mean(b1: Any, dtype: Any = None) -> GradientTransformation:
    r"""$\beta_1 m_t / (1 - \beta_1^{t+1}) + (1 - \beta_1) g_t / (1 - \beta_1^t)$."""
    return join(
        plus,
        ahead=chain(ema(b1, dtype=dtype), bias_correction(b1, ahead=1), scale(b1)),
        now=chain(bias_correction(b1), scale(1 - b1)),
    )


def warmed_nesterov_mean(b1: Any, momentum_decay: Any, dtype: Any) -> GradientTransformation:
    r"""The same with $\mu_t = \beta_1 (1 - \tfrac12\, 0.96^{t \psi})$ in place of $\beta_1$ but in
    the average."""

    def mu(step: jax.Array) -> jax.Array:
        return b1 * (1 - 0.5 * 0.96 ** ((step + 1.0) * momentum_decay))

    def next_mu(step: jax.Array) -> jax.Array:
        return mu(step + 1.0)

    def one_minus_mu(step: jax.Array) -> jax.Array:
        return 1 - mu(step)

    return join(
        plus,
        ahead=chain(
            ema(b1, dtype=dtype), scheduled_bias_correction(mu, ahead=1), scale_by_schedule(next_mu)
        ),
        now=chain(scheduled_bias_correction(mu), scale_by_schedule(one_minus_mu)),
    )
