"""ADOPT: Adam whose gradient is divided by the second moment before it."""

from __future__ import annotations

from typing import Any

from ..core.calls.kinds import Bound, Decay, NonNegative
from ..core.combine import chain, divide, join, previous
from ..core.factory import transformation
from ..core.rules import identity
from ..core.transformation import GradientTransformation
from ..links.arithmetic import at_least, clip, scale_by_learning_rate, sqrt, square
from ..links.decay import add_decayed_weights
from ..links.differences import wait
from ..links.from_first import ema_from_first
from ..links.moments import ema
from ..schedules.decay import inverse_power_schedule

FOURTH_ROOT = (1 / inverse_power_schedule(1.0, 0.25)).shift(1)


@transformation
def adopt(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.9999,
    eps: NonNegative = 1e-6,
    *,
    use_clipping: bool = True,
    max_delta: Bound | None = None,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
) -> GradientTransformation:
    r"""ADOPT: a gradient is measured by those before it, and averaged then.

    $$m_t = \beta_1 m_{t-1} + (1 - \beta_1)\,\mathrm{clip}\left(\frac{g_t}{\max(\sqrt{v_{t-1}},
    \epsilon)}, \delta_t\right), \quad \theta_t = \theta_{t-1} - \eta\,(m_t +
    \lambda\,\theta_{t-1}),$$

    with $v_t = \beta_2 v_{t-1} + (1 - \beta_2)\,g_t^2$ from $v_1 = g_1^2$ on. The first gradient
    gives $v$ alone.

    Args:
        learning_rate: $\eta$, the size of a step: a number, an array or a schedule.
        b1: $\beta_1$, decay of the first moment.
        b2: $\beta_2$, decay of the second moment.
        eps: $\epsilon$, what the root is at least.
        use_clipping: False does not clip, as in the paper's algorithm 1.
        max_delta: $\delta$, a number or a schedule; None is the fourth root of the updates done
            before.
        weight_decay, mask: as in :func:`add_decayed_weights`.

    Returns:
        A transformation whose state holds two buffers per array.

    References:
        Taniguchi et al. 2024, ADOPT: Modified Adam Can Converge with Any β2 with the Optimal Rate,
        arXiv:2411.02853, algorithm 2.

    >>> import gdtx, jax.numpy as jnp
    >>> tx, g = gdtx.adopt(0.1), jnp.array([-3.0, 1e-4])
    >>> _, state = tx.update(g, tx.init(g), g)
    >>> tx.update(g, state, g)[0].round(3)
    Array([ 0.01, -0.01], dtype=float32)
    """
    last = chain(previous(chain(square(), ema_from_first(b2))), sqrt(), at_least(eps))
    return chain(
        join(divide, g=identity(), nu=last),
        clip(FOURTH_ROOT if max_delta is None else max_delta) if use_clipping else identity(),
        wait(1),
        ema(b1),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
