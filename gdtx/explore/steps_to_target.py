"""Steps to a target on the noisy quadratic model, computed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..wrappers.average import decays
from .noisy_quadratic import Moments, NoisyQuadratic, expected_loss, next_moments, start_moments
from .study import BatchSizeStudy, grid, tuned


def steps_to_target(
    problem: NoisyQuadratic,
    target: float,
    batch_sizes: Sequence[float],
    learning_rates: Sequence[float],
    *,
    momentum: Sequence[float] = (0.0,),
    averaging: Sequence[float] = (0.0,),
    preconditioning: float = 0.0,
    max_steps: int = 10_000,
) -> BatchSizeStudy:
    """How many steps the risk takes to a target, at the best setting for each batch size.

    Nothing is drawn: the risks are those of :meth:`NoisyQuadratic.risk`, of all settings in one
    loop, which ends once each batch size has a setting that is there.

    Args:
        problem: of :func:`noisy_quadratic`.
        target: the risk to reach.
        batch_sizes: any positive numbers.
        learning_rates, momentum, averaging: values to choose from; all combinations are tried.
        preconditioning: as in :meth:`NoisyQuadratic.risk`.
        max_steps: where to give up.

    Returns:
        Steps and best settings for each batch size.

    >>> from gdtx import explore
    >>> problem = explore.noisy_quadratic(curvatures=[1.0])
    >>> explore.steps_to_target(problem, 0.01, [25, 100], [0.25, 0.5, 1.0, 1.5])
    <BatchSizeStudy
      25: 4 steps, learning_rate=0.5
      100: 1 steps, learning_rate=1
    >
    """
    grids = {"learning_rate": learning_rates, "momentum": momentum, "averaging": averaging}
    settings = grid(grids)
    first = _first_steps(
        problem,
        preconditioning,
        {name: jnp.asarray(values, problem.start.dtype) for name, values in settings.items()},
        jnp.asarray(batch_sizes, problem.start.dtype),
        target,
        max_steps,
    )
    return tuned(batch_sizes, np.asarray(first), grids, max_steps)


@partial(jax.jit, static_argnames="max_steps")
def _first_steps(
    problem: NoisyQuadratic,
    power: Any,
    settings: Any,
    batch_sizes: Any,
    target: Any,
    max_steps: int,
) -> jax.Array:
    """The first step with the risk at the target or below, by setting and batch size; or inf."""
    h, noise = problem.curvatures, problem.noise

    def risks(now: Moments) -> jax.Array:
        # The covariance is inverse to B, so that one recursion does for all batch sizes.
        return expected_loss(problem, now, batch_sizes)

    def is_open(carry: Any) -> jax.Array:
        t, _, first = carry
        return (t < max_steps) & jnp.any(jnp.isinf(first.min(0)))

    def step(carry: Any) -> Any:
        t, now, first = carry

        def one(now: Moments, setting: Any) -> Moments:
            rate, momentum = setting["learning_rate"] * h**-power, setting["momentum"]
            return next_moments(now, h, noise, rate, momentum, decays(setting["averaging"], 0)(t))

        now = jax.vmap(one)(now, settings)
        arrived = jax.vmap(risks)(now) <= target
        return t + 1, now, jnp.minimum(first, jnp.where(arrived, t + 1.0, jnp.inf))

    count = len(settings["learning_rate"])
    now = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), start_moments(problem))
    first = jnp.where(jax.vmap(risks)(now) <= target, 0.0, jnp.inf)
    return jax.lax.while_loop(is_open, step, (0, now, first))[2]
