"""What is drawn of a transformation: its path down a valley, or what it makes of gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gdtx
from gdtx import explore, public
from gdtx.explore.trajectories import learning_rates

from . import examples
from .inventory import Entry

STEPS = 60
PARAMETER = 0.5
RATES = np.geomspace(1e-3, 1e3, 64)
VALLEY = explore.valley()

# Links whose output is no direction to go, or that show more in one dimension: what they make of a
# sequence of gradients is drawn. Of all other transformations, the path.
_of_sequences = {
    "feedback", "previous", "let", "accumulate", "counted", "recur", "randomized", "elementwise",
    "identity", "set_to_zero", "treewise", "with_params", "absolute", "add", "clip", "scale",
    "scale_by_learning_rate", "scale_by_schedule", "sign", "sqrt", "square", "clip_by_norm",
    "clip_by_block_rms", "clip_by_global_norm", "adaptive_grad_clip", "bias_correction", "rectify",
    "scheduled_bias_correction", "difference", "latest", "wait", "first_moment", "root",
    "second_moment", "additive_ema", "ema", "running_max", "running_sum", "trace", "variance",
    "add_noise", "scale_by_param_block_rms", "reduce_on_plateau", "infinite_at_zero",
    "keep_nonnegative", "zero_nans", "scale_by_natural_gradient", "skip_large", "skip_nonfinite",
    "skip_when", "running_cover", "stochastic_rounding", "add_decayed_weights",
}  # fmt: skip
_of_curvature = {
    "scale_by_kfac", "scale_by_ekfac", "clip_by_fisher_norm", "scale_by_natural_gradient", "kfac",
    "levenberg_marquardt", "natural_gradient",
}  # fmt: skip


class Path(NamedTuple):
    """Positions, losses, and the learning rate, None where there is none to choose."""

    positions: np.ndarray
    losses: np.ndarray
    rate: float | None


def is_sequence(entry: Entry) -> bool:
    return entry.name in _of_sequences


def is_of_curvature(entry: Entry) -> bool:
    return entry.path.startswith("gdtx.") and entry.name in _of_curvature


def path(entry: Entry) -> Path:
    """The path of its example on the valley, at the best of the learning rates."""
    tx = examples.example(entry)
    found = list(learning_rates(tx))
    if not _descends(entry, found):
        return best(lambda rate: gdtx.chain(tx, gdtx.sgd(rate)), *_shape(entry))
    if not found or entry.name == "value_of":
        return best(lambda rate: tx, *_shape(entry), rates=None)
    return best(lambda rate: gdtx.replace(tx, dict.fromkeys(found, rate)), *_shape(entry))


def descent() -> Path:
    return best(gdtx.sgd, *_flat)


def best(
    method: Callable[[Any], gdtx.GradientTransformation],
    inside: Callable[[jax.Array], Any],
    back: Callable[[Any], jax.Array],
    rates: np.ndarray | None = RATES,
) -> Path:
    """Of the paths at all these learning rates, that with the least losses."""

    def run(rate: Any) -> Any:
        result = explore.minimize(
            lambda x: VALLEY.fun(back(x)), inside(jnp.array(VALLEY.start)), method(rate), STEPS,
            keep=True,
        )  # fmt: skip
        return jax.vmap(back)(result.path), jnp.append(result.losses, result.value)

    with warnings.catch_warnings(action="ignore"):
        each = jax.jit(jax.vmap(run))(jnp.ones(1) if rates is None else jnp.asarray(rates))
    positions, losses = map(np.asarray, each)
    # The less the loss on the way, the better, of those that stay in the picture.
    score = np.log10(np.maximum(losses, 1e-3)).mean(1)
    low, high = np.array(VALLEY.bounds).T
    stays = ((positions >= low - 0.1) & (positions <= high + 0.1)).all((1, 2))
    chosen = int(np.argmin(np.where(stays, score, np.inf)))
    return Path(positions[chosen], losses[chosen], None if rates is None else float(rates[chosen]))


def gradients(entry: Entry) -> np.ndarray:
    """One number that falls from 1.5 to -0.5, with noise, with what some links are there for."""
    steps = 40
    noise = np.random.default_rng(7).normal(size=steps) * 0.25
    given = np.where(np.arange(steps) < 16, 1.3, -0.5) + noise
    if entry.name in ("zero_nans", "skip_nonfinite"):
        given[[10, 28]] = np.nan
    if entry.name in ("skip_large", "skip_when"):
        given[[10, 28]] = 30.0, 40.0
    if entry.name in ("sqrt", "additive_ema", "running_max", "infinite_at_zero", "root"):
        given = np.abs(given)
    if entry.name == "stochastic_rounding":
        given *= 2e-3  # of the size of the distance between two numbers in bfloat16
    return given.astype(np.float32)


def _dtype(entry: Entry) -> str:
    return "bfloat16" if entry.name == "stochastic_rounding" else "float32"


def outputs(entry: Entry, given: np.ndarray) -> np.ndarray:
    """What the example makes of these gradients of one parameter, one after the other."""
    tx = examples.example(entry)
    params = {"b": jnp.full((1, 1), PARAMETER, _dtype(entry))}

    def step(state: Any, u: jax.Array) -> Any:
        updates = {"b": u[None, None].astype(_dtype(entry))}
        new, state = tx.update(
            updates, state, params, value=jnp.float32(1.0), grad=updates, curvature=jnp.eye(1)
        )
        return state, new["b"][0, 0]

    return np.asarray(jax.lax.scan(step, tx.init(params), jnp.asarray(given))[1])


def _descends(entry: Entry, rates: list[str]) -> bool:
    """Whether it changes the sign of the gradient itself, as methods do and links do not."""
    is_link = entry.group in (public.links, public.matrices) and entry.name != "full_matrix_adagrad"
    return not is_link and (
        bool(rates) or entry.group is not public.algebra or entry.name == "value_of"
    )


_flat = (lambda x: x), (lambda x: x)
_matrix = (lambda x: {"w": x[None]}), (lambda p: p["w"][0])
_parted = (lambda x: {"w": x[:1], "b": x[1:]}), (lambda p: jnp.concatenate([p["w"], p["b"]]))


def _shape(entry: Entry) -> tuple[Callable[[jax.Array], Any], Callable[[Any], jax.Array]]:
    """The two numbers as the example's parameters."""
    if entry.name in ("masked", "partition", "freeze", "trainable"):
        return _parted
    return _matrix if '["w"]' in examples.call(entry) else _flat
