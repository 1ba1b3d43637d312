"""The names under which a state's buffers and a transformation's hyperparameters are found."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gdtx
from gdtx import kfac

PARAMS = {"b": jnp.zeros(2), "w": jnp.zeros((4, 2))}
STEP = gdtx.linear_schedule(0.0, 0.5, 64)  # of which the value tells the step
EMA, SUM, SGD = gdtx.ema(STEP), gdtx.running_sum(), gdtx.sgd(STEP, 0.9)
CHAIN = gdtx.chain(gdtx.square(), EMA)


@gdtx.transformation
def between(inner: gdtx.GradientTransformation, bound: gdtx.NonNegative = 1.0):
    return gdtx.chain(gdtx.clip(bound), gdtx.chain(inner, SUM), gdtx.trace(0.5))


@gdtx.transformation
def swapped(one: gdtx.GradientTransformation, other: gdtx.GradientTransformation):
    return gdtx.join(gdtx.plus, a=other, b=gdtx.chain(one, gdtx.scale(2.0)))


def pair():
    """Of a user, that keeps two things."""
    return gdtx.GradientTransformation(
        lambda params: {"seen": jnp.zeros(()), "m": params},
        lambda updates, state, params=None: (updates, state),
    )


# Of each the buffers in the order of the state, the hyperparameters, and what else is described.
# Behind @ is the number of the array, among those of the state, that the value is read from.
TABLE = {
    "chain": (
        gdtx.chain(gdtx.clip(1.0), gdtx.chain(SUM, gdtx.chain(gdtx.scale(2.0), EMA))),
        "1.0.value 1.1.1.step 1.1.1.value",
        "0.max_delta 1.0.initial 1.1.0.factor 1.1.1.decay@2 1.1.1.initial",
        "step",
    ),
    "join": (
        gdtx.join(gdtx.plus, a=gdtx.adamax(STEP), b=gdtx.chain(SUM, EMA)),
        "a.step a.0.mu.0.value a.0.mu.1.step a.0.nu.2.value b.0.value b.1.step b.1.value",
        "a.learning_rate@0 a.b1 a.b2 a.eps b.0.initial b.1.decay@8 b.1.initial",
        "step",
    ),
    "feedback": (
        gdtx.feedback(gdtx.subtract, CHAIN, gdtx.add(2.0)),
        "1.step 1.value",
        "statistic.1.decay@0 statistic.1.initial readout.constant",
        "step",
    ),
    "previous": (
        gdtx.previous(EMA),
        "step value",
        "statistic.decay@0 statistic.initial",
        "step",
    ),
    "let": (
        gdtx.let(gdtx.join(gdtx.plus, u=EMA, m=gdtx.value_of("m")), m=gdtx.trace(STEP)),
        "body.u.step body.u.value m.step m.value",
        "body.u.decay@0 body.u.initial m.decay@3 m.nesterov",
        "step",
    ),
    "graft": (
        gdtx.graft(gdtx.scale_by_rms(STEP), gdtx.trace(STEP), start=2),
        "direction.step direction.nu.0.1.value magnitude.step magnitude.value started.step",
        "direction.decay@0 direction.eps direction.initial_scale direction.eps_in_sqrt "
        "magnitude.decay@3 magnitude.nesterov start",
        "step",
    ),
    "masked": (
        gdtx.masked(SGD, ["w"]),
        "step 0.value",
        "inner.learning_rate@0 inner.momentum inner.nesterov",
        "step",
    ),
    "partition": (
        gdtx.partition({"b": SGD, "a": gdtx.adamax(STEP)}, [("w", "a"), ("b", "b")]),
        "a.step a.0.mu.0.value a.0.mu.1.step a.0.nu.2.value b.step b.0.value",
        "transforms.a.learning_rate@0 transforms.a.b1 transforms.a.b2 transforms.a.eps "
        "transforms.b.learning_rate@4 transforms.b.momentum transforms.b.nesterov",
        "step",
    ),
    "freeze": (
        gdtx.freeze(SGD, ["b"]),
        "trained.step trained.0.value",
        "tx.learning_rate@0 tx.momentum tx.nesterov",
        "step",
    ),
    "muon": (
        gdtx.muon(STEP, ["w"], gdtx.adamax(STEP)),
        "step matrices.0.0.value others.step others.0.mu.0.value others.0.mu.1.step "
        "others.0.nu.2.value",
        "learning_rate@0 others.learning_rate@2 others.b1 others.b2 others.eps momentum "
        "nesterov bias_correction polar.steps polar.batched weight_decay",
        "step",
    ),
    "projected": (
        gdtx.projected(EMA, 1),
        "matrices.step matrices.basis matrices.step matrices.value others.step others.value",
        "inner.decay@2 inner.initial rank every seed",
        "step",
    ),
    "accumulate_gradients": (
        gdtx.accumulate_gradients(SGD, 2),
        "step micro_step gradients.value step 0.value",
        "inner.learning_rate@4 inner.momentum inner.nesterov every",
        "micro_step step",
    ),
    "average": (
        gdtx.average(SGD, 0.5),
        "average.step average.value step 0.value",
        "inner.learning_rate@3 inner.momentum inner.nesterov decay start bias_correction",
        "step",
    ),
    "lookahead": (
        gdtx.lookahead(SGD),
        "steps_since_sync slow step 0.value",
        "inner.learning_rate@3 inner.momentum inner.nesterov sync_period slow_step_size",
        "step",
    ),
    "master_weights": (
        gdtx.master_weights(SGD),
        "step 0.value",
        "inner.learning_rate@0 inner.momentum inner.nesterov",
        "step",
    ),
    "polyak_step": (
        gdtx.polyak_step(EMA),
        "step value",
        "inner.decay@0 inner.initial max_learning_rate f_min eps",
        "step",
    ),
    "sharpness_aware": (
        gdtx.sharpness_aware(SGD),
        "step 0.value",
        "inner.learning_rate@0 inner.momentum inner.nesterov rho",
        "step",
    ),
    "remember": (
        gdtx.remember(SGD),
        "step shortened norm_in norm_out step 0.value",
        "inner.learning_rate@4 inner.momentum inner.nesterov",
        "clip_rate grad_norm norm_in norm_out step",
    ),
    "schedule_free": (
        gdtx.schedule_free(SGD, STEP),
        "step weight_sum b1 z step 0.value",
        "inner.learning_rate@5 inner.momentum inner.nesterov learning_rate@0 b1 weight_lr_power",
        "step",
    ),
    "displaced": (
        gdtx.displaced(SGD, gdtx.chain(gdtx.scale(STEP), SUM)),
        "displacement.0.step displacement.1.value step 0.value",
        "inner.learning_rate@3 inner.momentum inner.nesterov displacement.0.factor@0 "
        "displacement.1.initial from_point",
        "step",
    ),
    "skip_nonfinite": (
        gdtx.skip_nonfinite(SGD),
        "skipped consecutive step 0.value",
        "inner.learning_rate@2 inner.momentum inner.nesterov",
        "consecutive_skipped skipped step",
    ),
    "plateau": (
        gdtx.chain(SGD, gdtx.reduce_on_plateau()),
        "0.step 0.0.value 1.scale 1.best_value 1.avg_value 1.avg_count 1.plateau_count "
        "1.cooldown_count",
        "0.learning_rate@0 0.momentum 0.nesterov 1.factor 1.patience 1.rtol 1.atol 1.cooldown "
        "1.accumulation_size 1.min_scale",
        "plateau_scale step",
    ),
    "tunable": (
        gdtx.tunable(SGD),
        "hyperparams step 0.value",
        "inner.learning_rate@4 inner.momentum@3 inner.nesterov inner.learning_rate.end_value@0 "
        "inner.learning_rate.init_value@1 inner.learning_rate.transition_steps@2",
        "step",
    ),
    "tunable inside": (
        gdtx.skip_nonfinite(gdtx.tunable(gdtx.sgd(0.1, 0.9), "momentum")),
        "skipped consecutive hyperparams 0.value",
        "inner.inner.learning_rate inner.inner.momentum@2 inner.inner.nesterov",
        "consecutive_skipped skipped",
    ),
    "blockwise": (
        gdtx.blockwise(CHAIN, gdtx.Blocks(2)),
        "1.step 1.value",
        "inner.1.decay@0 inner.1.initial blocks.size blocks.merge_size blocks.stacked",
        "step",
    ),
    "precondition": (
        gdtx.blockwise(gdtx.precondition(gdtx.trace(STEP), gdtx.packed(EMA))),
        "step failures direction.step direction.value statistic.step statistic.value roots",
        "inner.direction.decay@2 inner.direction.nesterov inner.statistic.statistic.decay@5 "
        "inner.statistic.statistic.initial inner.eps inner.relative_eps inner.exponent "
        "inner.roots.every inner.roots.start inner.roots.stale inner.roots.tolerance "
        "inner.roots.batch_size blocks.size blocks.merge_size blocks.stacked",
        "step",
    ),
    "in_eigenbasis": (
        gdtx.blockwise(
            gdtx.in_eigenbasis(CHAIN, EMA, direction=gdtx.trace(STEP), merge=gdtx.divide)
        ),
        "step failures direction.step direction.value magnitude.1.step magnitude.1.value "
        "statistic.step statistic.value basis",
        "inner.inner.1.decay@5 inner.inner.1.initial inner.statistic.decay@8 "
        "inner.statistic.initial inner.bases.every inner.bases.start inner.bases.stale "
        "inner.bases.batch_size inner.direction.decay@2 inner.direction.nesterov blocks.size "
        "blocks.merge_size blocks.stacked",
        "step",
    ),
    "shampoo": (
        gdtx.shampoo(STEP, graft=gdtx.scale_by_rms(STEP)),
        "step 0.direction.step 0.direction.failures 0.direction.direction.0.value "
        "0.direction.direction.1.step 0.direction.statistic.0.value "
        "0.direction.statistic.1.step 0.direction.roots 0.magnitude.1.step "
        "0.magnitude.1.nu.0.1.value",
        "learning_rate@0 b1 b2 eps relative_eps exponent graft.decay@13 graft.eps "
        "graft.initial_scale graft.eps_in_sqrt weight_decay roots.every roots.start roots.stale "
        "roots.tolerance roots.batch_size blocks.size blocks.merge_size blocks.stacked",
        "step",
    ),
    "rank_one": (
        gdtx.rank_one(EMA, 2),
        "step value",
        "statistic.decay@0 statistic.initial min_dim_size_to_factor",
        "step",
    ),
    "kfac": (
        gdtx.scale_by_kfac(STEP, fallback=EMA),
        "step blocks.step blocks.age blocks.statistics.0.value blocks.statistics.1.step "
        "blocks.bases blocks.failures fallback.step",
        "damping@0 decay inverse_every fallback.decay@11 fallback.initial",
        "step",
    ),
    "ekfac": (
        gdtx.scale_by_ekfac(fallback=EMA),
        "blocks.step blocks.age blocks.statistics.0.value blocks.statistics.1.step blocks.bases "
        "blocks.failures squares.value fallback.step",
        "damping decay inverse_every fallback.decay@11 fallback.initial",
        "step",
    ),
    "levenberg_marquardt": (
        kfac.levenberg_marquardt(kfac.kfac(STEP)),
        "step damping ratio step 1.blocks.step 1.blocks.age 1.blocks.statistics.0.value "
        "1.blocks.statistics.1.step 1.blocks.bases 1.blocks.failures 2.factor 3.0.value",
        "inner.learning_rate@3 inner.momentum inner.damping@1 inner.decay inner.inverse_every "
        "inner.norm_constraint inner.weight_decay damping every factor min_damping max_damping",
        "step",
    ),
    "a user's": (
        between(SGD),
        "1.0.step 1.0.0.value 1.1.value 2.value",
        "inner.learning_rate@0 inner.momentum inner.nesterov bound",
        "step",
    ),
    "a user's of two": (
        swapped(EMA, gdtx.trace(STEP)),
        "a.step a.value b.0.step b.0.value",
        "one.decay@3 one.initial other.decay@0 other.nesterov",
        "step",
    ),
    "a user's in its own": (
        between(between(EMA)),
        "1.0.1.0.step 1.0.1.0.value 1.0.1.1.value 1.0.2.value 1.1.value 2.value",
        "inner.inner.decay@0 inner.inner.initial inner.bound bound",
        "step",
    ),
    "a pair": (
        gdtx.chain(gdtx.clip(1.0), pair(), EMA),
        "1.m.b 1.m.w 1.seen 2.step 2.value",
        "0.max_delta 2.decay@3 2.initial",
        "step",
    ),
    "Optax's": (
        gdtx.chain(EMA, optax.scale_by_adam(), gdtx.masked(optax.trace(0.9), ["w"])),
        "0.step 0.value 1.count 1.mu 1.nu 2.trace",
        "0.decay@0 0.initial",
        "step",
    ),
}

HOLDS = ("tunable", "tunable inside", "levenberg_marquardt")
by_name = pytest.mark.parametrize("name", TABLE)


def numbered(tx):
    """A state whose i-th array is i everywhere."""
    leaves, structure = jax.tree.flatten(jax.eval_shape(tx.init, PARAMS))
    return structure.unflatten([np.full(x.shape, i, x.dtype) for i, x in enumerate(leaves)])


@by_name
def test_buffers(name):
    tx, expected, *_ = TABLE[name]
    rows = gdtx.state_table(tx, PARAMS).rows
    paths = [row.buffer for row in rows]
    assert [p for p, before in zip(paths, ["", *paths], strict=False) if p != before] == (
        expected.split()
    )
    state = numbered(tx)
    reached = [eval(f"state{row.path}", {"state": state}) for row in rows]
    assert sorted(int(x.flat[0]) for x in reached) == list(range(len(rows))), "each array once"
    for row, x in zip(rows, reached, strict=True):
        if expected.split().count(row.buffer) == 1:
            assert any(x is leaf for leaf in jax.tree.leaves(gdtx.find(state, row.buffer))), row


@by_name
def test_hyperparameters(name):
    tx, _, expected, _ = TABLE[name]
    given, current = gdtx.hyperparams(tx), gdtx.hyperparams(tx, numbered(tx))
    places = {}
    for word in expected.split():
        path, _, place = word.partition("@")
        places[path] = int(place) if place else None
    assert list(current) == list(places)
    assert list(given) == [path for path in places if path in given]
    for path, place in places.items():
        if place is None:
            assert current[path] is given[path] or current[path] == given[path], path
        elif name in HOLDS and path != "inner.learning_rate":
            assert current[path] == place, path
        else:
            # What tunable keeps of the schedule goes from 1 to 0 in 2 steps, and 4 are done.
            assert current[path] == (0 if name == "tunable" else place / 128), path


@by_name
def test_facts(name):
    tx, *_, expected = TABLE[name]
    with jax.disable_jit():
        facts = gdtx.describe(tx, numbered(tx))
    assert sorted(facts.keys() - gdtx.hyperparams(tx, numbered(tx)).keys()) == expected.split()


@by_name
def test_what_is_shown_can_be_replaced(name):
    tx = TABLE[name][0]
    for path, value in gdtx.hyperparams(tx).items():
        assert tx.replace(**{path: value}) == tx, path
    changed = next(path for path, x in gdtx.hyperparams(tx).items() if callable(x) or x == 0.1)
    new = tx.replace(**{changed: 0.25})
    assert [path for path, x in gdtx.hyperparams(new).items() if x == 0.25] == [changed]
