"""A step length for every number, by the signs of its gradients."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..core.calls.kinds import AtLeastOne, InnerDecay, NonNegative, Positive
from ..core.errors import LeafError
from ..core.factory import transformation
from ..core.memory import recur
from ..core.numbers.values import is_array
from ..core.transformation import GradientTransformation
from ..formula import MEMORY, Expression, Reader, Symbol, apply, formula_of, t


@transformation(exact=True)
def scale_by_rprop(
    learning_rate: NonNegative,
    eta_minus: InnerDecay = 0.5,
    eta_plus: AtLeastOne = 1.2,
    min_step_size: Positive = 1e-6,
    max_step_size: Positive = 50.0,
) -> GradientTransformation:
    r"""Replace each number by a step of its own length in its direction.

    The step $\Delta$ grows by $\eta^+$ while the sign of the gradient stays, and shrinks by
    $\eta^-$ when it changes; then the gradient counts as 0, for this update and as the previous
    one of the next.

    $$\Delta_t = \min(\max(\Delta_{t-1} \cdot \{\eta^+, 1, \eta^-\}, \Delta_{min}), \Delta_{max}),
    \quad u_t = \operatorname{sign}(g_t)\,\Delta_t.$$

    Args:
        learning_rate: $\eta$, the length $\Delta_0$ of the first step.
        eta_minus: $\eta^-$, factor of a step when the sign of its gradient changes.
        eta_plus: $\eta^+$, factor of a step while the sign of its gradient stays.
        min_step_size: $\Delta_{min}$, the shortest step.
        max_step_size: $\Delta_{max}$, the longest step.

    Returns:
        A transformation whose state holds two buffers per array: the last sign and the step.

    Raises:
        ValueError: if a hyperparameter is out of its range.
        TypeError: from `update`, for complex updates.

    References:
        Riedmiller & Braun 1993, A Direct Adaptive Method for Faster Backpropagation Learning:
        The RPROP Algorithm; the variant of Igel & Hüsken 2000 called iRprop-.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_rprop(0.1)
    >>> u, state = tx.update(jnp.array([-3.0]), tx.init(jnp.zeros(1)))
    >>> tx.update(jnp.array([-1.0]), state)[0]
    Array([-0.12], dtype=float32)
    """

    limits = min_step_size, max_step_size
    if not any(map(is_array, limits)) and min_step_size > max_step_size:
        raise ValueError(
            "rprop: min_step_size must be at most max_step_size, got "
            f"{min_step_size} and {max_step_size}"
        )

    def rule(
        u: jax.Array, sign: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        if jnp.iscomplexobj(u):
            raise LeafError(TypeError, "is complex, Rprop needs the sign of real numbers")
        agreement = jnp.sign(u) * sign
        factor = jnp.where(agreement > 0, eta_plus, jnp.where(agreement < 0, eta_minus, 1.0))
        step = jnp.clip(step * factor, min_step_size, max_step_size)
        sign = jnp.where(agreement < 0, 0.0, jnp.sign(u))
        return sign * step, {"sign": sign, "step": step}

    return recur(rule, sign=0.0, step=learning_rate)


@formula_of(
    scale_by_rprop, learning_rate=r"\eta", eta_minus=r"\eta^-", eta_plus=r"\eta^+",
    min_step_size=r"\Delta_{min}", max_step_size=r"\Delta_{max}",
)  # fmt: skip
def _(
    u: Expression, reader: Reader, learning_rate: Any, eta_minus: Any, eta_plus: Any,
    min_step_size: Any, max_step_size: Any,
) -> Expression:  # fmt: skip
    u = reader.atom(u)
    turned = apply("less", u * MEMORY, 0)
    direction = reader.remember(("s",), apply("cases", 0, turned, apply("sign", u)), 0)
    agreement = u * direction.at(t - 1)
    turned, stayed = apply("less", agreement, 0), apply("greater", agreement, 0)
    factor = reader.define(
        (Symbol("q", time=t),), apply("cases", eta_plus, stayed, eta_minus, turned, 1)
    )
    longer = apply("\\max", factor * MEMORY, min_step_size)
    step = reader.remember((r"\Delta",), apply("\\min", longer, max_step_size), learning_rate)
    return direction * step
