"""What a link makes of a sequence of gradients of one parameter."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import examples
from .inventory import Entry

PARAMETER = 0.5

# Links whose output is no direction to go, or that show more in one dimension: what they make of a
# sequence of gradients is drawn. Of all other transformations, the path.
_of_sequences = {
    "feedback", "previous", "let", "accumulate", "counted", "recur", "randomized", "elementwise",
    "identity", "set_to_zero", "treewise", "with_params", "absolute", "add", "clip", "scale",
    "scale_by_learning_rate", "scale_by_schedule", "sign", "sqrt", "square", "clip_by_norm",
    "clip_by_block_rms", "clip_by_global_norm", "adaptive_grad_clip", "bias_correction", "rectify",
    "scheduled_bias_correction", "difference", "first", "latest", "wait", "first_moment", "root",
    "second_moment", "additive_ema", "ema", "running_max", "running_sum", "trace", "variance",
    "add_noise", "differentially_private_aggregate", "scale_by_param_block_rms",
    "reduce_on_plateau", "infinite_at_zero",
    "keep_nonnegative", "project", "zero_nans", "scale_by_natural_gradient", "skip_large",
    "skip_nonfinite", "skip_when", "running_cover", "stochastic_rounding", "add_decayed_weights",
}  # fmt: skip


def is_sequence(entry: Entry) -> bool:
    return entry.name in _of_sequences


def gradients(entry: Entry) -> np.ndarray:
    """One number that falls from 1.5 to -0.5, with noise, with what some links are there for."""
    steps = 40
    noise = np.random.default_rng(7).normal(size=steps) * 0.25
    given = np.where(np.arange(steps) < 16, 1.3, -0.5) + noise
    if entry.name in ("zero_nans", "skip_nonfinite"):
        given[[10, 28]] = np.nan
    if entry.name in ("skip_large", "skip_when"):
        given[[10, 28]] = 30.0, 40.0
    if entry.name == "infinite_at_zero":
        given[[10, 28]] = 0.0
    if entry.name in ("sqrt", "additive_ema", "running_max", "infinite_at_zero", "root"):
        given = np.abs(given)
    if entry.name == "stochastic_rounding":
        given *= 2e-3  # of the size of the distance between two numbers in bfloat16
    return given.astype(np.float32)


def dtype(entry: Entry) -> str:
    return "bfloat16" if entry.name == "stochastic_rounding" else "float32"


def outputs(entry: Entry, given: np.ndarray) -> np.ndarray:
    """What the example makes of these gradients of one parameter, one after the other."""
    tx = examples.example(entry)
    params = {"b": jnp.full((1, 1), PARAMETER, dtype(entry))}

    def step(state: Any, u: jax.Array) -> Any:
        updates = {"b": u[None, None].astype(dtype(entry))}
        if entry.name == "differentially_private_aggregate":
            updates = {"b": jnp.stack([updates["b"]] * 4)}  # of four examples that are alike
        new, state = tx.update(
            updates, state, params, value=jnp.float32(1.0), grad=updates, curvature=jnp.eye(1),
            flag=u > 0, hessian=jax.tree.map(jnp.square, updates),
        )  # fmt: skip
        return state, new["b"][0, 0]

    return np.asarray(jax.lax.scan(step, tx.init(params), jnp.asarray(given))[1])
