"""Descent with noise, repeated over seeds."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core.transformation import GradientTransformation
from ..core.trees.apply_updates import apply_updates
from ..core.trees.short import in_short
from ..wrappers.evaluation import eval_params


@in_short
class Simulation(NamedTuple):
    """The mean loss over seeds at each step, that before the first included, and its error."""

    risk: jax.Array
    standard_error: jax.Array


@partial(jax.jit, static_argnames="steps")
def simulated(
    problem: Any, tx: GradientTransformation, batch_size: Any, keys: Any, steps: int
) -> Simulation:
    """Descent on a problem that has a loss and noisy gradients, once for each key."""

    def run(key: jax.Array) -> jax.Array:
        def step(carry: Any, key: jax.Array) -> Any:
            theta, state = carry
            gradient = problem.gradient(theta, key, batch_size)
            updates, state = tx.update(gradient, state, theta)
            theta = apply_updates(theta, updates)
            return (theta, state), problem.loss(eval_params(tx, state, theta))

        start = (problem.start, tx.init(problem.start))
        _, losses = jax.lax.scan(step, start, jax.random.split(key, steps))
        return jnp.append(problem.loss(problem.start), losses)

    losses = jax.vmap(run)(keys)
    return Simulation(losses.mean(0), losses.std(0, ddof=1) / jnp.sqrt(len(losses)))
