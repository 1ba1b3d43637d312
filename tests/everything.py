"""The one table: every public transformation by its kind, and every method with its oracle.

What holds for makers, combinators and links, each on its own, and is kept by those that put them
together, holds for the methods, which are expressions of them: it is tested there. Methods run
against their oracle, which is a row of `METHODS`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import oracles
import oracles_recent
import pytest

import gdtx
from gdtx import kfac

PARAMS = {"b": jnp.array([0.5, -1.0]), "w": jnp.arange(8.0).reshape(4, 2) / 8}
# As a wrapper of meshes takes it, where what it wraps is to be as it is.
ONE_DEVICE = jax.sharding.AbstractMesh((1,), ("data",))
MASK = {"b": False, "w": True}
INNER = gdtx.adam(0.1)


def linear(params, x):
    return x @ params["w"] + params["b"][None]


# Updates with an axis of examples before those of their parameter. Without names, as the functions
# of other rows: a pickle would name this file.
EXAMPLES = gdtx.GradientTransformation(
    lambda params: (),
    lambda updates, state, params=None: (
        jax.tree.map(lambda u: jnp.stack([u, u]), updates),
        state,
    ),
    (),
)


def pulled(u, last, params, step):
    """A rule that sees all that a rule of `recur` may see."""
    return (u - last) / step + 0.1 * params, {"last": u}


def towards(u, params, step, start, norm):
    """A rule that sees all that a rule of `recur_tree` may see."""
    norm = jnp.maximum(norm, gdtx.global_norm(u) / step)
    new = jax.tree.map(lambda u, p, p0: u + norm * (p0 - p), u, params, start)
    return new, {"start": start, "norm": norm}


def extras(name, params):
    """What a row asks for beside gradients and parameters; it varies as the parameters do."""
    if "natural_gradient" in name:
        return {"curvature": jnp.eye(10)}
    if any(part in name for part in ("kfac", "fisher", "levenberg")):
        x = jnp.arange(12.0).reshape(3, 4).astype(jnp.asarray(params["b"]).dtype)
        batch = x + 0 * params["b"][0], jnp.ones((3, 2), x.dtype)
        measured = kfac.value_grad_and_curvature(linear, kfac.squared_error, gradient=True)
        value, _, curvature = measured(params, batch, jax.random.key(0))
        return {"curvature": curvature, "value_fn": lambda params: value}
    if any(part in name for part in ("lbfgs", "search")):

        def wide(p):
            return p.astype(jnp.float32) if p.dtype.itemsize < 4 else p

        def value_fn(params):
            terms = (jnp.sum(jnp.cosh(wide(p) / 4).real) for p in jax.tree.leaves(params))
            return sum(term.astype(jnp.float32) for term in terms)

        params = jax.tree.map(jnp.asarray, params)
        grad = jax.tree.map(lambda p: (jnp.sinh(wide(p) / 4) / 4).astype(p.dtype), params)
        return {"value": value_fn(params), "grad": grad, "value_fn": value_fn}
    return {
        "value": jnp.float32(0.5), "grad_fn": partial(jax.tree.map, jnp.sin), "tree": params,
        "flag": True, "hessian": jax.tree.map(jnp.cos, params),
    }  # fmt: skip


KINDS = {
    "maker": {
        "elementwise": gdtx.elementwise(jnp.tanh),
        "with_params": gdtx.with_params(jnp.add),
        "treewise": gdtx.treewise(lambda u, params: jax.tree.map(jnp.subtract, u, params)),
        "recur": gdtx.recur(pulled, last=lambda p: p),
        "accumulate": gdtx.accumulate(jnp.add),
        "recur_tree": gdtx.recur_tree(towards, start=lambda params: params, norm=0.0),
        "counted": gdtx.counted(lambda t: lambda u: u / t),
        "randomized": gdtx.randomized(lambda t: lambda key, u: u + jax.random.normal(key, u.shape)),
        "value_of": gdtx.value_of("tree"),
        "identity": gdtx.identity(),
        "set_to_zero": gdtx.set_to_zero(),
    },
    "combinator": {
        "chain": gdtx.chain(gdtx.trace(0.9), gdtx.scale(-1.0)),
        "join": gdtx.join(gdtx.plus, a=gdtx.identity(), b=gdtx.ema(0.9)),
        "join_trees": gdtx.join_trees(
            partial(jax.tree.map, jnp.add), a=gdtx.identity(), b=gdtx.ema(0.9)
        ),
        "feedback": gdtx.feedback(
            gdtx.subtract,
            gdtx.running_sum(),
            name="s",
            then=gdtx.join(gdtx.plus, u=gdtx.identity(), s=gdtx.value_of("s")),
        ),
        "previous": gdtx.previous(gdtx.ema(0.9)),
        "let": gdtx.let(
            gdtx.join(gdtx.plus, u=gdtx.identity(), m=gdtx.value_of("m")), m=gdtx.ema(0.9)
        ),
        "graft": gdtx.graft(gdtx.sign(), gdtx.trace(0.9), start=2),
        "masked": gdtx.masked(INNER, MASK),
        "partition": gdtx.partition({"a": INNER, "b": gdtx.sgd(0.1)}, {"b": "a", "w": "b"}),
        "freeze": gdtx.freeze(INNER, MASK),
        "trainable": gdtx.trainable(INNER, ["w"]),
    },
    "link": {
        "absolute": gdtx.absolute(),
        "adaptive_grad_clip": gdtx.adaptive_grad_clip(0.1),
        "add": gdtx.add(1.0),
        "add_decayed_weights": gdtx.add_decayed_weights(0.1, MASK),
        "add_noise": gdtx.add_noise(0.1, 0.55),
        "additive_ema": gdtx.additive_ema(0.9),
        "bias_correction": gdtx.bias_correction(0.9),
        "centralize": gdtx.centralize(),
        "at_least": gdtx.at_least(0.5),
        "clip": gdtx.clip(1.0),
        "clip_by_block_rms": gdtx.clip_by_block_rms(1.0),
        "clip_by_global_norm": gdtx.clip_by_global_norm(1.0),
        "clip_by_growth": gdtx.clip_by_growth(1.5),
        "clip_by_norm": gdtx.clip_by_norm(1.0),
        "difference": gdtx.difference(),
        "differentially_private_aggregate": gdtx.chain(
            EXAMPLES, gdtx.differentially_private_aggregate(1.0, 0.01, seed=0)
        ),
        "ema": gdtx.ema(0.9),
        "first": gdtx.first(),
        "ema_from_first": gdtx.ema_from_first(0.9),
        "first_moment": gdtx.first_moment(0.9),
        "infinite_at_zero": gdtx.infinite_at_zero(),
        "keep_nonnegative": gdtx.keep_nonnegative(),
        "latest": gdtx.latest(),
        "normalize_by_global_norm": gdtx.normalize_by_global_norm(),
        "project": gdtx.project(lambda p: p / 2),
        "rank_one": gdtx.rank_one(gdtx.ema(0.9), 2),
        "rectify": gdtx.rectify(0.99),
        "reduced": gdtx.reduced(gdtx.ema(0.9), -1),
        "reduce_on_plateau": gdtx.reduce_on_plateau(),
        "root": gdtx.root(1e-8, eps_root=1e-8),
        "running_cover": gdtx.running_cover(),
        "running_max": gdtx.running_max(),
        "running_sum": gdtx.running_sum(),
        "scale": gdtx.scale(0.1),
        "scale_by_adadelta": gdtx.scale_by_adadelta(),
        "scale_by_ademamix": gdtx.scale_by_ademamix(b3=0.99),
        "scale_by_adam": gdtx.scale_by_adam(),
        "scale_by_adamax": gdtx.scale_by_adamax(),
        "scale_by_adan": gdtx.scale_by_adan(),
        "scale_by_amsgrad": gdtx.scale_by_amsgrad(),
        "scale_by_belief": gdtx.scale_by_belief(),
        "scale_by_dog": gdtx.scale_by_dog(per="array", reps_rel=0.01),
        "scale_by_factored_rms": gdtx.scale_by_factored_rms(min_dim_size_to_factor=2),
        "scale_by_lars": gdtx.scale_by_lars(0.1, MASK),
        "scale_by_layer_decay": gdtx.scale_by_layer_decay(0.5, ["w"]),
        "scale_by_learning_rate": gdtx.scale_by_learning_rate(0.1),
        "scale_by_lion": gdtx.scale_by_lion(),
        "scale_by_nadam": gdtx.scale_by_nadam(),
        "scale_by_param_block_rms": gdtx.scale_by_param_block_rms(),
        "scale_by_radam": gdtx.scale_by_radam(),
        "scale_by_rms": gdtx.scale_by_rms(),
        "scale_by_rprop": gdtx.scale_by_rprop(0.1),
        "scale_by_rss": gdtx.scale_by_rss(),
        "scale_by_schedule": gdtx.scale_by_schedule(gdtx.linear_schedule(1.0, 0.0, 10)),
        "scale_by_sign": gdtx.scale_by_sign(),
        "scale_by_sm3": gdtx.scale_by_sm3(),
        "scale_by_sophia": gdtx.scale_by_sophia(update_interval=2),
        "scale_by_stddev": gdtx.scale_by_stddev(),
        "scale_by_trust_ratio": gdtx.scale_by_trust_ratio(mask=MASK),
        "scale_by_yogi": gdtx.scale_by_yogi(),
        "second_moment": gdtx.second_moment(0.999),
        "scheduled_bias_correction": gdtx.scheduled_bias_correction(lambda t: 0.9),
        "sign": gdtx.sign(),
        "sqrt": gdtx.sqrt(),
        "square": gdtx.square(),
        "stochastic_rounding": gdtx.stochastic_rounding(),
        "trace": gdtx.trace(0.9),
        "variance": gdtx.variance(0.9),
        "wait": gdtx.wait(2),
        "zero_nans": gdtx.zero_nans(),
    },
    "matrix": {
        "scale_by_dion": gdtx.masked(gdtx.scale_by_dion(1), ["w"]),
        "scale_by_full_matrix": gdtx.scale_by_full_matrix(),
        "scale_by_lbfgs": gdtx.scale_by_lbfgs(3),
        "scale_by_muon": gdtx.masked(gdtx.scale_by_muon(), ["w"]),
        "scale_by_shampoo": gdtx.scale_by_shampoo(),
        "scale_by_shape": gdtx.masked(gdtx.scale_by_shape(), ["w"]),
        "scale_by_soap": gdtx.scale_by_soap(),
        "scale_by_window": gdtx.scale_by_window(3),
        "blockwise": gdtx.blockwise(gdtx.trace(0.9), gdtx.Blocks(2)),
        "precondition": gdtx.blockwise(gdtx.precondition(gdtx.identity(), gdtx.running_sum())),
        "in_eigenbasis": gdtx.blockwise(
            gdtx.in_eigenbasis(
                gdtx.scale_by_lion(), gdtx.ema(0.9), values=gdtx.ema(0.9), rotated=["**"]
            )
        ),
        "packed": gdtx.blockwise(gdtx.precondition(gdtx.identity(), gdtx.packed(gdtx.ema(0.9)))),
        "projected": gdtx.projected(INNER, 1, 2),
        "orthogonalize": gdtx.masked(gdtx.orthogonalize(), ["w"]),
        "averaged_over": gdtx.averaged_over(gdtx.ema(0.9), axes=MASK),
        "whiten": gdtx.blockwise(gdtx.whiten(gdtx.ema(0.9), gdtx.Whitening(2, max_skew=2))),
    },
    "search": {
        "backtracking_linesearch": gdtx.backtracking_linesearch(),
        "zoom_linesearch": gdtx.zoom_linesearch(),
    },
    "wrapper": {
        "accumulate_gradients": gdtx.accumulate_gradients(INNER, 2),
        "average": gdtx.average(INNER),
        "dealt": gdtx.dealt(INNER, "data", ONE_DEVICE),
        "displaced": gdtx.displaced(INNER, gdtx.scale(0.5), from_point=True),
        "every": gdtx.every(2, INNER),
        "lookahead": gdtx.lookahead(INNER, 2),
        "mechanize": gdtx.mechanize(INNER, s_init=1e-3),
        "master_bits": gdtx.master_bits(INNER),
        "master_weights": gdtx.master_weights(INNER),
        "polyak_step": gdtx.polyak_step(INNER),
        "remember": gdtx.remember(INNER),
        "schedule_free": gdtx.schedule_free(gdtx.sgd(0.1), 0.1),
        "sharpness_aware": gdtx.sharpness_aware(INNER),
        # With arrays this small in blocks of their own.
        "sharded": gdtx.sharded(gdtx.lamb(0.1), jax.sharding.PartitionSpec()),
        "stacked": gdtx.stacked(gdtx.lamb(0.1), 0),
        "stored": gdtx.stored(INNER, block=4, least=1),
        "skip_when": gdtx.skip_when(INNER, lambda u: jnp.sum(u["w"]) > 20),
        "skip_nonfinite": gdtx.skip_nonfinite(INNER, 2),
        "skip_large": gdtx.skip_large(INNER, 1e6),
        "tunable": gdtx.tunable(INNER, "learning_rate"),
        "when": gdtx.when("flag", INNER),
        "from_optax": gdtx.interop.from_optax(
            optax.chain(optax.adam(0.1), optax.add_decayed_weights(0.1))
        ),
    },
    "curvature": {
        "clip_by_fisher_norm": gdtx.clip_by_fisher_norm(),
        "scale_by_ekfac": gdtx.scale_by_ekfac(),
        "scale_by_kfac": gdtx.scale_by_kfac(),
        "scale_by_natural_gradient": gdtx.scale_by_natural_gradient(1.0),
        "kfac": kfac.kfac(0.1),
        "levenberg_marquardt": kfac.levenberg_marquardt(kfac.kfac(0.1)),
        "natural_gradient": kfac.natural_gradient(),
    },
    "method": {
        "adabelief": gdtx.adabelief(0.1),
        "adadelta": gdtx.adadelta(),
        "adafactor": gdtx.adafactor(0.1, min_dim_size_to_factor=2, momentum=0.9),
        "adagrad": gdtx.adagrad(0.1),
        "adam": gdtx.adam(gdtx.linear_schedule(0.1, 0.0, 10)),
        "adamax": gdtx.adamax(0.1),
        "adamw": gdtx.adamw(0.1, mask=MASK),
        "adan": gdtx.adan(0.1, weight_decay=0.1),
        "ademamix": gdtx.ademamix(0.1),
        "adopt": gdtx.adopt(0.1),
        "amsgrad": gdtx.amsgrad(0.1),
        "dion": gdtx.dion(0.1, 1, MASK, INNER),
        "dadapt_adamw": gdtx.dadapt_adamw(estim_lr0=1e-2),
        "dog": gdtx.dog(reps_rel=0.01),
        "ema_sgd": gdtx.ema_sgd(0.1),
        "full_matrix_adagrad": gdtx.full_matrix_adagrad(0.1, window=2),
        "galore": gdtx.galore(gdtx.sgd(0.1, 0.9), 1, 2),
        "lamb": gdtx.lamb(0.1, weight_decay=0.1, mask=MASK),
        "lars": gdtx.lars(0.1, 0.1, mask=MASK),
        "lbfgs": gdtx.lbfgs(memory_size=3),
        "lion": gdtx.lion(0.1),
        "mars": gdtx.mars(0.1),
        "muon": gdtx.muon(0.1, MASK, INNER),
        "nadam": gdtx.nadam(0.1, momentum_decay=0.004),
        "nadamw": gdtx.nadamw(0.1),
        "normuon": gdtx.normuon(0.1, MASK, INNER),
        "novograd": gdtx.novograd(0.1),
        "psgd": gdtx.psgd(0.1, weight_decay=0.1, mask=MASK),
        "prodigy": gdtx.prodigy(estim_lr0=1e-2),
        "radam": gdtx.radam(0.1),
        "rmsprop": gdtx.rmsprop(0.1, centered=True),
        "rprop": gdtx.rprop(0.1),
        "schedule_free_adamw": gdtx.schedule_free_adamw(0.1, 2),
        "schedule_free_sgd": gdtx.schedule_free_sgd(),
        "sgd": gdtx.sgd(0.1, 0.9),
        "shampoo": gdtx.shampoo(0.1, graft=gdtx.scale_by_adam(), blocks=gdtx.Blocks(3)),
        "signum": gdtx.signum(0.1),
        "sm3": gdtx.sm3(0.1),
        "sophia": gdtx.sophia(0.1),
        "soap": gdtx.soap(0.1, weight_decay=0.1, mask=MASK),
        "yogi": gdtx.yogi(0.1),
    },
}
EVERY = {name: tx for rows in KINDS.values() for name, tx in rows.items()}


class Method(NamedTuple):
    """A method at one setting.

    `make` takes a learning rate, and so does `oracle` after gradients and parameter. `buffers`
    counts the arrays of state per parameter, None if that depends on its shape. `ulps` bounds how
    far a float32 update may be from the float64 oracle within 200 steps, in units of its own last
    place: a decay rounded to float32 is off by up to half a unit, and its k-th power by k times
    that.
    """

    make: Callable[..., gdtx.GradientTransformation]
    oracle: Callable[..., Any]
    learning_rate: float
    buffers: int | None
    ulps: int
    is_complex: bool


def method(name: str, buffers: int | None, *, lr=0.01, ulps=32, is_complex=True, **settings: Any):
    make = partial(getattr(gdtx, name), **settings)
    known = oracles if hasattr(oracles, name) else oracles_recent
    oracle = partial(getattr(known, name), **settings)
    return Method(make, oracle, lr, buffers, ulps, is_complex)


METHODS = {
    "sgd": method("sgd", 0, ulps=2),
    "momentum": method("sgd", 1, momentum=0.9),
    "nesterov": method("sgd", 1, momentum=0.9, nesterov=True),
    "ema_sgd": method("ema_sgd", 1),
    "ema_sgd corrected": method("ema_sgd", 1, decay=0.99, bias_correction=True),
    "adagrad": method("adagrad", 1, ulps=8),
    "adagrad from 0": method("adagrad", 1, ulps=8, initial_accumulator_value=0.0, eps=1e-10),
    "adadelta": method("adadelta", 2, lr=1.0),
    "adadelta with decay": method("adadelta", 2, lr=1.0, rho=0.95, weight_decay=0.01),
    "rmsprop": method("rmsprop", 1),
    "rmsprop, eps outside": method("rmsprop", 1, eps_in_sqrt=False, initial_scale=0.5),
    "rmsprop with momentum": method("rmsprop", 2, momentum=0.9),
    "rmsprop with nesterov": method("rmsprop", 2, momentum=0.9, nesterov=True),
    "rmsprop centered": method("rmsprop", 2, centered=True),
    "rmsprop centered, eps outside": method("rmsprop", 2, centered=True, eps_in_sqrt=False),
    "rprop": method("rprop", 2, is_complex=False),
    "rprop, other steps": method("rprop", 2, is_complex=False, eta_minus=0.3, max_step_size=0.02),
    "adam": method("adam", 2),
    "adam, eps inside": method("adam", 2, eps=0.0, eps_root=1e-8),
    "adam, other decays": method("adam", 2, b1=0.5, b2=0.9),
    "adam without averages": method("adam", 2, b1=0.0, b2=0.0, ulps=2),
    "adamw": method("adamw", 2, weight_decay=0.1),
    "adamax": method("adamax", 2, ulps=64),
    "nadam": method("nadam", 2),
    "nadam with momentum schedule": method("nadam", 2, momentum_decay=0.004),
    "nadamw": method("nadamw", 2, weight_decay=0.1),
    "amsgrad": method("amsgrad", 3),
    "radam": method("radam", 2),
    "radam, threshold 5": method("radam", 2, threshold=5.0),
    "radam, long memory": method("radam", 2, b2=0.99999),
    "lion": method("lion", 1),
    "signum": method("signum", 1),
    "adabelief": method("adabelief", 2),
    "yogi": method("yogi", 2),
    "adan": method("adan", 4),
    "adan, decayed weights": method("adan", 4, weight_decay=0.1),
    "ademamix": method("ademamix", 3, b3=0.99, weight_decay=0.1),
    "adopt": method("adopt", 2, b2=0.99, weight_decay=0.1, is_complex=False),
    "adopt, not clipped": method(
        "adopt", 2, b2=0.99, use_clipping=False, weight_decay=0.1, is_complex=False
    ),
    "mars": method("mars", 3, gamma=0.1, weight_decay=0.1),
    "novograd": method("novograd", None, weight_decay=0.1),
    "adafactor": method("adafactor", 1),
    "adafactor, factored": method(
        "adafactor", None, min_dim_size_to_factor=2, momentum=0.9, weight_decay=0.01
    ),
    # The properties of its one link beyond momentum are in test_layerwise: norms compile slowly.
    "lars, with decay": method("lars", 1, lr=1.0, weight_decay=0.01),
    "lars, without decay": method("lars", 1, trust_coefficient=0.1, eps=1e-3, momentum=0.5),
    "lars, nesterov": method("lars", 1, lr=1.0, weight_decay=0.01, nesterov=True),
    "sm3": method("sm3", None),
    "sm3, averages": method("sm3", None, b2=0.9, momentum=None, eps=1e-6),
    "lamb": method("lamb", 2),
    "lamb, with decay": method("lamb", 2, weight_decay=0.1, eps_root=1e-8),
}

# Expressions of links that other rows have.
LIKE_ANOTHER = {
    "sgd", "ema_sgd", "rmsprop", "rmsprop with momentum", "adamw", "nadam", "adabelief",
    "ema_sgd corrected", "adagrad from 0", "adadelta with decay", "rmsprop with nesterov",
    "adam without averages", "nadamw", "signum",
}  # fmt: skip


def is_like_another(name: str) -> bool:
    """Whether a row differs from another by numbers alone (after a comma), or has no link alone."""
    return "," in name or name in LIKE_ANOTHER


# For what holds whatever the numbers: the others are tried with `-m slow`.
by_kind = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if is_like_another(name) else ())
        for name in METHODS
    ],
)
