"""An example of each transformation and schedule, for its formula, its state and its picture."""

from __future__ import annotations

import inspect
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp

import gdtx
from gdtx import kfac, kinds
from gdtx.core.calls.kinds import kind_of

from .inventory import Entry

# Values for arguments without a default, by name.
_values = {
    "learning_rate": "0.1",
    "decay": "0.9",
    "b2": "0.999",
    "eps": "1e-8",
    "weight_decay": "0.1",
    "inner": "adam(0.1)",
    "tx": "adam(0.1)",
    "statistic": "ema(0.9)",
    "init_value": "1.0",
    "end_value": "0.1",
    "peak_value": "1.0",
    "value": "0.5",
    "transition_steps": "100",
    "decay_steps": "100",
    "warmup_steps": "20",
    "stable_steps": "40",
    "decay_rate": "0.5",
    "power": "0.5",
    "max_norm": "1.0",
    "schedule": "linear_schedule(1.0, 0.1, 30)",
    "steps": "10",
    "window": "3",
    "every": "4",
    "what": '["b"]',
}

# And by kind, where no name is known.
_of_kinds = {
    kinds.Decay: "0.9",
    kinds.Fraction: "0.9",
    kinds.InnerDecay: "0.9",
    kinds.NonNegative: "0.1",
    kinds.Positive: "1.0",
    kinds.Bound: "1.0",
    kinds.Scalar: "0.5",
    kinds.Count: "10",
    kinds.PositiveCount: "10",
    kinds.StepCount: "100",
    kinds.ArrayFunction: "jnp.tanh",
    kinds.TransformationLike: "ema(0.9)",
}

# Calls whose arguments their names do not tell.
_calls = {
    "accumulate": "accumulate(lambda u, m: 0.9 * m + u)",
    "adafactor": "adafactor(0.1, min_dim_size_to_factor=2)",
    "adaptive_grad_clip": "adaptive_grad_clip(0.1)",
    "add": "add(1.0)",
    "add_noise": "add_noise(0.5, 0.55)",
    "averaged_over": 'averaged_over(ema(0.9), axes=["w"])',
    "average": "average(sgd(0.1), decay=0.9)",
    "blockwise": "blockwise(normalize_by_global_norm(), Blocks(2))",
    "chain": "chain(clip_by_global_norm(1.0), adam(0.1))",
    "clip": "clip(1.0)",
    "clip_by_block_rms": "clip_by_block_rms(1.0)",
    "clip_by_fisher_norm": "clip_by_fisher_norm(1.0)",
    "clip_schedule": "clip_schedule(exponential_decay(1.0, 20, 0.5), 0.1)",
    "counted": "counted(lambda t: lambda u: u / jnp.sqrt(t))",
    "cyclic_schedule": "cyclic_schedule(0.1, 1.0, 25)",
    "differentially_private_aggregate": "differentially_private_aggregate(1.0, 1.1, 0)",
    "sharded": "sharded(adam(0.1), jax.sharding.PartitionSpec())",
    "stacked": "stacked(clip_by_norm(1.0), 1)",
    "dealt": 'dealt(muon(0.1, ["w"], adam(0.1)), "data", jax.make_mesh((1,), ("data",)))',
    "displaced": "displaced(sgd(0.1), scale(0.9), from_point=True)",
    "elementwise": "elementwise(jnp.tanh)",
    "dion": 'dion(0.1, 1, ["w"], adam(0.1))',
    "feedback": "feedback(subtract, ema(0.9))",
    "galore": "galore(adam(0.1), 1)",
    "graft": "graft(direction=scale_by_adam(), magnitude=trace(0.9))",
    "in_eigenbasis": "blockwise(in_eigenbasis(scale_by_adam(), ema(0.99), rotated=['mu/**']))",
    "inverse_sqrt_schedule": "inverse_sqrt_schedule(0.0, 1.0, 20)",
    "inverse_time_decay": "inverse_time_decay(1.0, 20, 0.5)",
    "every": 'every(4, sgd(0.5), otherwise="zero")',
    "exponential_decay": "exponential_decay(1.0, 20, 0.5)",
    "join": "join(divide, mu=ema(0.9), nu=chain(square(), ema(0.99), root(1e-8)))",
    "join_schedules": "join_schedules([linear_schedule(0.0, 1.0, 20), "
    "cosine_decay_schedule(1.0, 80)], [20])",
    "let": 'let(join(plus, u=identity(), m=value_of("m")), m=ema(0.9))',
    "levenberg_marquardt": "kfac.levenberg_marquardt(kfac.kfac(0.1, norm_constraint=1.0))",
    "kfac": "kfac.kfac(0.1, norm_constraint=1.0)",
    "lookahead": "lookahead(sgd(0.09), 5, 0.5)",
    "masked": 'masked(trace(0.9), ["w"])',
    "master_weights": "master_weights(adam(0.1))",
    "merge_schedules": "merge_schedules(multiply, linear_schedule(0.0, 1.0, 20), "
    "exponential_decay(1.0, 40, 0.5))",
    "muon": 'muon(0.1, ["w"], adam(0.1))',
    "normuon": 'normuon(0.1, ["w"], adam(0.1))',
    "orthogonalize": 'masked(orthogonalize(), ["w"])',
    "packed": "blockwise(precondition(identity(), packed(ema(0.9))))",
    "partition": 'partition({"fast": sgd(0.8), "slow": sgd(0.04)}, {"w": "fast", "b": "slow"})',
    "piecewise_constant_schedule": "piecewise_constant_schedule(1.0, {30: 0.5, 60: 0.2})",
    "piecewise_interpolate_schedule": 'piecewise_interpolate_schedule("cosine", 1.0, '
    "{40: 0.5, 80: 0.2})",
    "polynomial_schedule": "polynomial_schedule(1.0, 0.0, 2.0, 100)",
    "precondition": "blockwise(precondition(identity(), running_sum()))",
    "projected": "projected(scale_by_adam(), 1)",
    "randomized": "randomized(lambda t: lambda key, u: u + jax.random.normal(key, u.shape) / t)",
    "rank_one": "rank_one(ema(0.9), 2)",
    "recur_tree": "recur_tree(lambda u, a: (jax.tree.map(lambda x: x / a, u), {'a': a + 1}), a=1)",
    "recur": "recur(lambda u, last: (u - last, {'last': u}), last=0.0)",
    "reduced": "reduced(ema(0.9), -1)",
    "root": "root(1e-8)",
    "scale": "scale(0.5)",
    "scale_by_dion": 'masked(scale_by_dion(1), ["w"])',
    "scale_by_factored_rms": "scale_by_factored_rms(min_dim_size_to_factor=2)",
    "scale_by_muon": 'masked(scale_by_muon(), ["w"])',
    "scale_by_natural_gradient": "scale_by_natural_gradient(1.0)",
    "scale_by_shape": 'masked(scale_by_shape(), ["w"])',
    "schedule_free": "schedule_free(sgd(0.1), 0.1)",
    "scheduled_bias_correction": "scheduled_bias_correction(linear_schedule(0.5, 0.9, 10))",
    "sgd": "sgd(0.1, momentum=0.9)",
    "sgdr_schedule": "sgdr_schedule([dict(init_value=0.0, peak_value=peak, decay_steps=50, "
    "warmup_steps=10) for peak in (1.0, 0.5)])",
    "skip_large": "skip_large(sgd(0.5), 10.0)",
    "skip_nonfinite": "skip_nonfinite(sgd(0.5))",
    "skip_when": "skip_when(sgd(0.5), lambda u: jnp.sum(u['b']) > 20)",
    "from_optax": "",
    "trainable": 'trainable(adam(0.1), ["w"])',
    "freeze": 'freeze(adam(0.1), ["b"])',
    "join_trees": "join_trees(partial(jax.tree.map, jnp.add), a=identity(), b=ema(0.9))",
    "treewise": "treewise(partial(jax.tree.map, jnp.sign))",
    "tunable": "tunable(adam(0.1))",
    "value_of": 'chain(value_of("grad"), scale(-0.08))',
    "warmup_constant_schedule": "warmup_constant_schedule(0.0, 1.0, 20)",
    "warmup_stable_decay_schedule": "warmup_stable_decay_schedule(0.0, 1.0, 20, 40, 40)",
    "warmup_cosine_decay_schedule": "warmup_cosine_decay_schedule(0.0, 1.0, 20, 100)",
    "warmup_exponential_decay_schedule": "warmup_exponential_decay_schedule(0.0, 1.0, 20, 20, 0.5)",
    "when": 'when("flag", sgd(0.5), otherwise="zero")',
    "whiten": "blockwise(whiten(ema(0.9)))",
    "with_params": "with_params(lambda u, p: u + 0.1 * p)",
}

_names = {name: getattr(gdtx, name) for name in gdtx.__all__} | {
    "gdtx": gdtx,
    "jax": jax,
    "jnp": jnp,
    "kfac": kfac,
    "partial": partial,
}


def call(entry: Entry) -> str:
    """The example as a reader would write it, with the names of gdtx bare; "" for none."""
    if entry.name in _calls:
        return _calls[entry.name]
    signature = inspect.signature(entry.value, eval_str=True)
    given = [
        _value(entry, parameter)
        for parameter in signature.parameters.values()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    ]
    place = "kfac." if entry.path.startswith("gdtx.kfac.") else ""
    return f"{place}{entry.name}({', '.join(given)})"


def _value(entry: Entry, parameter: inspect.Parameter) -> str:
    if parameter.name in _values:
        return _values[parameter.name]
    for annotation, text in _of_kinds.items():
        if kind_of(parameter)[0] is kind_of(parameter.replace(annotation=annotation))[0]:
            return text
    raise LookupError(
        f"{entry.path}: no example of its argument {parameter.name}: give the call a line in "
        f"{__file__}"
    )


@cache
def example(entry: Entry) -> Any:
    """That call, made; None where there is none."""
    text = call(entry)
    return eval(text, dict(_names)) if text else None
