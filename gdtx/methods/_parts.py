"""Expressions that several methods share."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from .._combine import chain, join, plus
from .._kinds import is_zero
from .._transformation import GradientTransformation
from ..links.arithmetic import add, scale, sqrt, square
from ..links.correction import bias_correction
from ..links.moments import ema
from ..links.repair import infinite_at_zero


def first_moment(b1: Any) -> GradientTransformation:
    r"""$\hat m_t$: the average of the updates, without its bias."""
    return chain(ema(b1), bias_correction(b1))


def nesterov_mean(b1: Any) -> GradientTransformation:
    r"""$\beta_1 m_t / (1 - \beta_1^{t+1}) + (1 - \beta_1) g_t / (1 - \beta_1^t)$."""
    return join(
        plus,
        ahead=chain(ema(b1), bias_correction(b1, ahead=1), scale(b1)),
        now=chain(bias_correction(b1), scale(1 - b1)),
    )


def second_moment(b2: Any) -> GradientTransformation:
    r"""$\hat v_t$: the average of their squares, without its bias."""
    return chain(square(), ema(b2), bias_correction(b2))


def root(inside: Any, outside: Any) -> GradientTransformation:
    r"""$\sqrt{u + \epsilon_{in}} + \epsilon_{out}$, to divide by: infinite where it is 0, so that
    $0 / 0$ is 0."""
    is_positive = isinstance(inside, int | float) and inside >= jnp.finfo(jnp.float32).tiny
    may_be_zero = is_zero(outside) and not is_positive
    return chain(add(inside), sqrt(), infinite_at_zero() if may_be_zero else add(outside))


def root_with(eps: Any, eps_in_sqrt: bool) -> GradientTransformation:
    """The root with its one constant inside or outside."""
    return root(eps, 0.0) if eps_in_sqrt else root(0.0, eps)
