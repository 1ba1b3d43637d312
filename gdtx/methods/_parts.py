"""An expression that several methods share."""

from __future__ import annotations

from typing import Any

from ..core.combine import chain, join, plus
from ..core.transformation import GradientTransformation
from ..links.arithmetic import scale
from ..links.correction import bias_correction
from ..links.moments import ema


def nesterov_mean(b1: Any, dtype: Any = None) -> GradientTransformation:
    r"""$\beta_1 m_t / (1 - \beta_1^{t+1}) + (1 - \beta_1) g_t / (1 - \beta_1^t)$."""
    return join(
        plus,
        ahead=chain(ema(b1, dtype=dtype), bias_correction(b1, ahead=1), scale(b1)),
        now=chain(bias_correction(b1), scale(1 - b1)),
    )
