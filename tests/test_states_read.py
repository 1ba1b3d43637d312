"""Reading a state: what is kept, what is used now, how often, and whose it is."""

import importlib
import itertools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from everything import METHODS
from flax import nnx
from flax.training.train_state import TrainState

import gdtx

SCHEDULE = gdtx.linear_schedule(0.1, 0.0, 10)
PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
ADAM = gdtx.adam(0.1)
EVERYTHING = {
    **{name: METHODS[name].make(0.1) for name in METHODS if "," not in name},
    **{f"{name}, scheduled": METHODS[name].make(SCHEDULE) for name in ("sgd", "adam", "adafactor")},
    "arrays": gdtx.as_arrays(gdtx.adamw(0.1)),
    "shampoo": gdtx.shampoo(0.1),
    "soap": gdtx.soap(0.1),
    "muon": gdtx.muon(0.1, matrices=["w"], others=ADAM),
    "full matrix": gdtx.full_matrix_adagrad(0.1),
    "window": gdtx.scale_by_window(3),
    "graft": gdtx.graft(gdtx.scale_by_adam(), gdtx.adagrad(0.1)),
    "masked": gdtx.masked(ADAM, ["w"]),
    "partition": gdtx.partition({"a": ADAM, "inner": gdtx.sgd(0.1)}, [("w", "a"), ("b", "inner")]),
    "freeze": gdtx.freeze(ADAM, ["w"]),
    "accumulate_gradients": gdtx.accumulate_gradients(ADAM, 2),
    "skip_nonfinite": gdtx.skip_nonfinite(ADAM),
    "average": gdtx.average(ADAM),
    "lookahead": gdtx.lookahead(ADAM),
    "schedule_free": gdtx.schedule_free_sgd(0.1, warmup_steps=3),
    "displaced": gdtx.displaced(ADAM, gdtx.identity()),
    "sharpness_aware": gdtx.sharpness_aware(ADAM),
    "sharpness_aware, perturbed": gdtx.sharpness_aware(ADAM, perturbation=gdtx.trace(0.9)),
    "polyak_step": gdtx.polyak_step(ADAM),
    "remember": gdtx.remember(ADAM),
    "tunable": gdtx.tunable(ADAM),
    "tunable, scheduled": gdtx.tunable(gdtx.adam(SCHEDULE)),
    "tunable shampoo": gdtx.tunable(gdtx.shampoo(0.1, b1=0.0)),
    "master_weights": gdtx.master_weights(ADAM),
    "add_noise": gdtx.add_noise(0.1, 0.5),
    "plateau": gdtx.chain(ADAM, gdtx.reduce_on_plateau()),
    "let": gdtx.let(gdtx.value_of("m"), m=gdtx.ema(0.9)),
    "rank_one": gdtx.rank_one(gdtx.ema(0.9)),
    "feedback": gdtx.feedback(gdtx.subtract, gdtx.running_sum()),
    "previous": gdtx.previous(gdtx.ema(0.9)),
    "running_cover": gdtx.running_cover(),
    "scheduled_bias_correction": gdtx.scheduled_bias_correction(lambda t: 0.9),
    "treewise": gdtx.treewise(lambda tree: tree),
}
TUNABLE = importlib.import_module("gdtx.wrappers.tunable")
FOREIGN = r"the state is that of another transformation"


@pytest.fixture(scope="module")
def states():
    return {name: tx.init(PARAMS) for name, tx in EVERYTHING.items()}


def kinds_in(state):
    """The classes, lengths and names of a state, but for the parameters and what is empty."""
    params = jax.tree.structure(PARAMS)
    return jax.tree.structure(
        state, is_leaf=lambda x: not jax.tree.leaves(x) or jax.tree.structure(x) == params
    )


def test_every_state_is_told_from_those_of_others(states):
    for name, tx in EVERYTHING.items():
        gdtx.hyperparams(tx, states[name])
    taken = set()
    kinds = {name: kinds_in(state) for name, state in states.items()}
    for one, other in itertools.permutations(EVERYTHING, 2):
        if kinds[one] == kinds[other]:
            continue
        try:
            gdtx.hyperparams(EVERYTHING[one], states[other])
        except ValueError as error:
            assert FOREIGN in str(error), (one, other)  # noqa: PT017
        else:
            taken.add((one, other))
    assert taken == {("tunable, scheduled", "tunable")}, "a number may stand where a schedule did"


@pytest.mark.parametrize("foreign", [3, "x", PARAMS, ADAM], ids=["number", "text", "params", "tx"])
def test_what_is_no_state_is_none(foreign):
    for tx in EVERYTHING.values():
        with pytest.raises(ValueError, match=FOREIGN):
            gdtx.hyperparams(tx, foreign)


def test_readers_say_what_they_expected(states):
    with pytest.raises(ValueError, match=rf"^describe > adam: {FOREIGN}: expected a tuple of 2, "):
        gdtx.describe(ADAM, states["sgd"])
    with pytest.raises(ValueError, match=rf"^hyperparams > adam: {FOREIGN}.* got a MaskedState"):
        gdtx.hyperparams(ADAM, states["masked"])
    with pytest.raises(ValueError, match=rf"hyperparams > sgd: {FOREIGN}: expected a ScheduledSt"):
        gdtx.hyperparams(gdtx.sgd(SCHEDULE), states["sgd"])
    with pytest.raises(TypeError, match=r"describe: tx must be a transformation"):
        gdtx.describe(states["adam"], ADAM)
    with pytest.raises(
        TypeError, match=r"find: state must be a state, got the transformation adam"
    ):
        gdtx.find(ADAM, "mu")
    for foreign in (3, PARAMS):
        with pytest.raises(ValueError, match=r"find: the state keeps nothing under the name 'mu'"):
            gdtx.find(foreign, "mu")
    with pytest.raises(TypeError, match=r"state_table: tx must be a transformation"):
        gdtx.state_table(PARAMS, ADAM)
    with pytest.raises(TypeError, match=r"state_table: params must be the parameters, got a tuple"):
        gdtx.state_table(ADAM, states["adam"])
    for foreign in (3, states["adam"], gdtx.adam):
        with pytest.raises(
            TypeError, match=r"hyperparams: tx must be a transformation, or alone a"
        ):
            gdtx.hyperparams(foreign)


# What `tunable` keeps


def test_what_is_kept_is_read_where_it_is_set(states):
    kept = gdtx.hyperparams(states["tunable"])
    assert kept == states["tunable"].hyperparams
    state = gdtx.set_hyperparams(states["tunable"], **dict.fromkeys(kept, 0.25))
    assert gdtx.hyperparams(state) == dict.fromkeys(kept, 0.25)
    two = gdtx.chain(gdtx.tunable(gdtx.clip(1.0)), gdtx.tunable(ADAM), gdtx.tunable(gdtx.sgd(0.5)))
    kept = gdtx.hyperparams(two.init(PARAMS))
    assert list(kept) == ["max_delta", "learning_rate", "b1", "b2", "eps", "eps_root"]
    assert kept["learning_rate"] == (np.float32(0.1), 0.5), "both, in their order"
    assert gdtx.hyperparams(optax.inject_hyperparams(gdtx.sgd)(0.5).init(PARAMS)) == {
        "learning_rate": 0.5
    }


def test_what_is_kept_inside_of_frameworks():
    model = nn.Dense(1)
    params = model.init(jax.random.key(0), jnp.ones((1, 3)))
    tx = gdtx.tunable(gdtx.sgd(0.5), "learning_rate")
    state = TrainState.create(apply_fn=model.apply, params=params, tx=tx)
    assert gdtx.hyperparams(state) == {"learning_rate": 0.5}
    optimizer = nnx.Optimizer(nnx.Linear(3, 1, rngs=nnx.Rngs(0)), tx, wrt=nnx.Param)
    assert gdtx.hyperparams(optimizer.opt_state) == {"learning_rate": 0.5}


@pytest.mark.parametrize(("value", "error"), [
    (2, ValueError), (-1, ValueError), (1.0, ValueError), (np.nan, ValueError),
    (np.inf, ValueError), (jnp.array(2.0), ValueError), (np.array(-1.0), ValueError),
    (np.float64(2), ValueError), ([0.1, 0.2], ValueError), (True, TypeError), ("1e-3", TypeError),
    (1j, TypeError), (None, TypeError), (np.True_, TypeError), (jnp.array(1j), TypeError),
    (SCHEDULE, TypeError),
], ids=repr)  # fmt: skip
def test_set_values_are_checked(value, error, states):
    with pytest.raises(error, match=r"^set_hyperparams: b1 must be"):
        gdtx.set_hyperparams(states["tunable"], b1=value)


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_refuses_its_state_does(name, monkeypatch):
    monkeypatch.setattr(TUNABLE, "_kinds", {})  # of other tests' transformations
    tx = METHODS[name].make(0.1)
    state = jax.eval_shape(gdtx.tunable(tx).init, PARAMS)
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state)
    for path in state.hyperparams:
        for value in (-1.0, np.nan, "0.1", True):
            if path.endswith("weight_decay") and value == -1.0:
                continue  # which `add_decayed_weights` takes
            try:
                tx.replace(**{path: value})
            except (TypeError, ValueError) as error:
                with pytest.raises(type(error), match=rf"^set_hyperparams: {path} must be"):
                    gdtx.set_hyperparams(state, **{path: value})


def test_what_no_transformation_has_kept_is_checked_by_its_name(monkeypatch):
    state = gdtx.tunable(gdtx.schedule_free_sgd(0.1)).init(PARAMS)
    with pytest.raises(ValueError, match=r"^set_hyperparams: b1 must be in \(0, 1\), got 0"):
        gdtx.set_hyperparams(state, b1=0.0)
    monkeypatch.setattr(TUNABLE, "_kinds", {})  # as in a process that has only read a checkpoint
    assert gdtx.set_hyperparams(state, b1=0.0).hyperparams["b1"] == 0
    with pytest.raises(ValueError, match=r"^set_hyperparams: b1 must be"):
        gdtx.set_hyperparams(state, b1=1.0)


def test_set_values_are_rounded_into_their_range(states):
    state = gdtx.set_hyperparams(states["tunable"], b1=1 - 1e-9)
    assert 0.999 < state.hyperparams["b1"] < 1
    traced = jax.jit(lambda b1: gdtx.set_hyperparams(states["tunable"], b1=b1))(2.0)
    assert traced.hyperparams["b1"] == 2, "of a tracer no value is known"


def test_tunable_takes_paths_only():
    with pytest.raises(
        TypeError, match=r"tunable: names\[0\] must be the path of a hyperparameter"
    ):
        gdtx.tunable(ADAM, 0.5)


# What is used now


@pytest.mark.parametrize("wrap", [lambda tx: tx, gdtx.tunable, gdtx.skip_nonfinite])
def test_rates_of_the_update_just_done_and_of_the_next(wrap):
    tx = wrap(gdtx.sgd(SCHEDULE))
    (path,) = (path for path in gdtx.hyperparams(tx) if path.endswith("learning_rate"))
    state = tx.init(PARAMS)
    before = np.float32(gdtx.describe(tx, state)[path])
    np.testing.assert_array_max_ulp(before, np.float32(0.1), maxulp=1)  # that of the first
    for _ in range(3):
        following = gdtx.hyperparams(tx, state)[path]
        updates, state = tx.update(PARAMS, state, PARAMS)
        used = np.float32(gdtx.describe(tx, state)[path])
        # One is computed in a program, the other operation by operation.
        np.testing.assert_array_max_ulp(used, following, maxulp=1)
        chex.assert_trees_all_close(updates, jax.tree.map(lambda p: -used * p, PARAMS))  # noqa: B023


def test_rates_are_those_of_what_is_kept():
    """Not of the schedule that the transformation was made with."""
    tx = gdtx.tunable(gdtx.adam(SCHEDULE))
    state = gdtx.set_hyperparams(tx.init(PARAMS), **{"learning_rate.init_value": 0.5})
    assert gdtx.hyperparams(tx, state)["inner.learning_rate"] == 0.5
    assert gdtx.describe(tx, state)["inner.learning_rate"] == 0.5


def test_steps_are_counted():
    tx = gdtx.chain(gdtx.clip(1.0), gdtx.skip_nonfinite(gdtx.adam(SCHEDULE)))
    update, state = jax.jit(tx.update), tx.init(PARAMS)
    assert gdtx.count_steps(state) == 0
    for factor in (1.0, np.nan, 1.0):
        _, state = update(jax.tree.map(lambda p: factor * p, PARAMS), state)  # noqa: B023
    assert gdtx.count_steps(state) == gdtx.describe(tx, state)["step"] == 2
    assert jax.jit(gdtx.count_steps)(state) == 2
    with pytest.raises(ValueError, match=r"count_steps: nothing in the state counts.* keeps value"):
        gdtx.count_steps(gdtx.trace(0.9).init(PARAMS))


@pytest.mark.parametrize("depth", [1, 2, None])
def test_expansion_of_tunable_keeps_its_names(depth):
    for tx in (gdtx.tunable(ADAM, "learning_rate"), gdtx.tunable(gdtx.adam(SCHEDULE))):
        formula = gdtx.expand(gdtx.chain(tx), depth)
        kept = formula.init(PARAMS)[0].hyperparams
        assert list(kept) == list(tx.init(PARAMS).hyperparams)
        assert str(formula)
