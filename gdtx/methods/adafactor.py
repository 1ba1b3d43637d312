"""Adafactor: RMSProp in the memory of rows and columns, with relative steps."""

from __future__ import annotations

from typing import Any

from ..core.calls.kinds import Count, Decay, NonNegative, Positive
from ..core.combine import chain, divide, join
from ..core.factory import transformation
from ..core.rules import identity
from ..core.transformation import GradientTransformation
from ..formula import letters
from ..links.arithmetic import add, scale, scale_by_learning_rate, sqrt, square
from ..links.clipping import clip_by_block_rms
from ..links.decay import add_decayed_weights
from ..links.moments import ema
from ..links.normalizing import scale_by_param_block_rms
from ..links.rank_one import rank_one
from ..schedules.decay import inverse_power_schedule


@transformation
def scale_by_factored_rms(
    factored: bool = True,
    decay_rate: NonNegative = 0.8,
    step_offset: Count = 0,
    min_dim_size_to_factor: Count = 128,
    eps: NonNegative = 1e-30,
) -> GradientTransformation:
    r"""Divide by the root of an average square of which rows and columns are kept.

    $u_t = g_t / \sqrt{v_t}$ with $v_t = \beta_t v_{t-1} + (1 - \beta_t)(g_t^2 + \epsilon)$,
    $\beta_t = 1 - t^{-c}$, in the form that :func:`rank_one` keeps it in.

    Args:
        factored: whether to keep rows and columns only; False keeps all of $v$.
        decay_rate: $c$. At 0 nothing is remembered, at 1 all squares so far weigh the same.
        step_offset: number of updates before $t$ starts to count, for a run that continues another.
        min_dim_size_to_factor: size that the two longest axes need for an array to be factored.
        eps: $\epsilon$. Without, 0 / 0 is NaN in rows or columns of zeros.

    Returns:
        A transformation whose state holds one buffer per array; of a matrix that is factored,
        $rows + columns$ numbers. Complex updates: $|g|^2$.

    References:
        Shazeer & Stern 2018, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost,
        arXiv:1804.04235, algorithms 4 and 5.

    >>> import gdtx, jax, jax.numpy as jnp
    >>> tx = gdtx.scale_by_factored_rms()
    >>> tx.update(jnp.array([-3.0, 1e-4]), tx.init(jnp.zeros(2)))[0].round(3)
    Array([-1.,  1.], dtype=float32)
    >>> sum(x.size for x in jax.tree.leaves(tx.init(jnp.zeros((200, 300)))))  # and a count
    501
    """
    forgotten = inverse_power_schedule(1.0, decay_rate)
    average = ema(1.0 - (forgotten.shift(step_offset) if step_offset else forgotten))
    kept = rank_one(average, min_dim_size_to_factor) if factored else average
    return join(divide, g=identity(), nu=chain(square(), add(eps), kept, sqrt()))


letters(scale_by_factored_rms, decay_rate="c")


@transformation
def adafactor(
    learning_rate: NonNegative | None = None,
    min_dim_size_to_factor: Count = 128,
    decay_rate: NonNegative = 0.8,
    decay_offset: Count = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: Positive | None = 1.0,
    momentum: Decay | None = None,
    *,
    weight_decay: NonNegative = 0.0,
    eps: NonNegative = 1e-30,
    factored: bool = True,
    mask: Any = None,
) -> GradientTransformation:
    r"""Adafactor.

    $\theta_t = \theta_{t-1} - \eta_t \max(\epsilon_2, \mathrm{RMS}(\theta_{t-1}))\,u_t /
    \max(1, \mathrm{RMS}(u_t) / \tau)$ for each array, with $u_t = g_t / \sqrt{v_t}$ of
    :func:`scale_by_factored_rms` and $\epsilon_2 = 10^{-3}$.

    :func:`scale_by_factored_rms`, :func:`clip_by_block_rms`, :func:`scale_by_learning_rate`,
    :func:`scale_by_param_block_rms`, if asked for an :func:`ema` of the steps so far, and
    :func:`add_decayed_weights`.

    Args:
        learning_rate: $\eta$, relative to the size of the parameters. None for the paper's
            $\eta_t = \min(10^{-2}, 1 / \sqrt t)$; Optax then takes 1.
        min_dim_size_to_factor, decay_rate, eps, factored: as in :func:`scale_by_factored_rms`.
        decay_offset: number of updates before $t$ starts to count, for a run that continues
            another.
        multiply_by_parameter_scale: whether steps are relative; else $\eta$ is the size of a step.
        clipping_threshold: $\tau$, largest root mean square of an array before the learning rate;
            None for no bound.
        momentum: decay of the average of the steps, which costs a whole buffer; None for none.
        weight_decay: $\lambda$, share of the weights that is taken off, not times the learning
            rate, as in Optax.
        mask: which parameters decay, in any form of :func:`masked`; all by default.

    Returns:
        A transformation whose state holds one buffer per array, or its rows and columns only, and
        one buffer more with momentum.

    References:
        Shazeer & Stern 2018, see :func:`scale_by_factored_rms`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.adafactor(0.1)
    >>> params = jnp.array([2.0, 2.0])
    >>> tx.update(jnp.array([-3.0, 1e-4]), tx.init(params), params)[0].round(3)
    Array([ 0.2, -0.2], dtype=float32)
    """
    if learning_rate is None:
        learning_rate = inverse_power_schedule(1.0, 0.5).clip(high=1e-2)
    links = [
        scale_by_factored_rms(factored, decay_rate, decay_offset, min_dim_size_to_factor, eps),
        None if clipping_threshold is None else clip_by_block_rms(clipping_threshold),
        scale_by_learning_rate(learning_rate, flip_sign=False),
        scale_by_param_block_rms() if multiply_by_parameter_scale else None,
        None if momentum is None else ema(momentum),
        add_decayed_weights(weight_decay, mask),
        scale(-1.0),
    ]
    return chain(*(link for link in links if link is not None))


letters(adafactor, clipping_threshold=r"\tau")
