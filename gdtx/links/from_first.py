"""An average that starts from what came first, and so has no bias to correct."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..core.calls.kinds import Decay, FloatDType
from ..core.factory import transformation
from ..core.memory import recur
from ..core.transformation import GradientTransformation
from ..formula import MEMORY, Expression, Reader, apply, formula_of, t
from ..formula.expression import is_apply


@transformation
def ema_from_first(decay: Decay, *, dtype: FloatDType | None = None) -> GradientTransformation:
    r"""Exponential moving average from the first update on: $m_1 = u_1$,
    $m_t = \beta m_{t-1} + (1 - \beta) u_t$, emitting $m_t$.

    Where :func:`ema` starts from 0, and is corrected for that by :func:`bias_correction`, this
    gives the first update the weight of all that came before it.

    Args:
        decay: $\beta$, share of the average that stays at each update.
        dtype: in which the buffer is kept; by default that of the parameter, at least float32.

    Returns:
        A transformation whose state holds one buffer per array, and one count.

    Raises:
        ValueError: if `decay` is not in [0, 1).

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.ema_from_first(0.5)
    >>> u, state = tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))
    >>> u, tx.update(jnp.array([2.0]), state)[0]
    (Array([4.], dtype=float32), Array([3.], dtype=float32))
    """

    def rule(u: jax.Array, value: jax.Array, step: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
        value = jnp.where(step == 1, u, decay * value + (1 - decay) * u)
        return value, {"value": value}

    return recur(rule, dtype, value=0.0)


@formula_of(ema_from_first, decay=r"\beta")
def _(u: Expression, reader: Reader, decay: Any) -> Expression:
    later = decay * MEMORY + (1 - decay) * u
    value = apply("cases", later, apply("greater", t, 1), u)
    return reader.remember(("v",) if is_apply(u, "power") else ("m",), value, 0)
