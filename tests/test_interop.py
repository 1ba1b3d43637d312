"""gdtx.interop: transformations handed to Optax and taken from it, and runs begun there."""

import functools
import pickle
import re
import sys
from typing import NamedTuple

import chex
import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import counted_compilations

import gdtx
from gdtx.interop import from_optax, load_optax_state, to_optax

optax = pytest.importorskip("optax", reason="Optax is installed by the extra 'test'")

PARAMS = {"w": np.ones((2, 3), np.float32), "b": np.zeros(3, np.float32)}


def test_ours_are_of_their_class():
    tx = to_optax(gdtx.adam(0.1))
    assert type(tx) is optax.GradientTransformationExtraArgs
    state = tx.init(PARAMS)
    chex.assert_trees_all_equal(state, gdtx.adam(0.1).init(PARAMS))
    ours = gdtx.adam(0.1).update(PARAMS, state)
    chex.assert_trees_all_equal(tx.update(PARAMS, state), ours)


def test_equal_ones_share_a_compilation():
    """As in a flax TrainState, where the transformation is a constant."""
    one, two, three = (to_optax(gdtx.adam(rate)) for rate in (0.1, 0.1, 0.2))
    assert one == two
    assert hash(one) == hash(two)
    assert one != three
    assert pickle.loads(pickle.dumps(one)) == one
    traced = []

    @functools.partial(jax.jit, static_argnums=0)
    def init(tx, params):
        traced.append(tx)
        return tx.init(params)

    init(one, PARAMS)
    init(two, PARAMS)
    assert len(traced) == 1


def test_extra_arguments_go_through():
    def update(updates, state, params=None, *, factor, **extra_args):
        return jax.tree.map(lambda u: factor * u, updates), state

    tx = optax.chain(to_optax(gdtx.GradientTransformation(lambda params: (), update)))
    doubled, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS, factor=2.0, other=3.0)
    chex.assert_trees_all_equal(doubled["w"], 2 * PARAMS["w"])


def test_to_optax_says_what_it_needs(monkeypatch):
    with pytest.raises(
        TypeError, match="to_optax: tx must be a transformation of gdtx, got the function adam"
    ):
        to_optax(gdtx.adam)  # pyright: ignore[reportArgumentType]
    monkeypatch.setitem(sys.modules, "optax", None)
    with pytest.raises(ImportError, match="to_optax: needs Optax: pip install optax"):
        to_optax(gdtx.adam(0.1))


def test_theirs_are_data():
    adam = optax.scale_by_adam()
    tx = from_optax(adam)
    assert isinstance(tx, gdtx.GradientTransformation)
    assert repr(tx) == "from_optax(tx=scale_by_adam)"
    assert repr(from_optax(optax.MultiSteps(adam, 2))) == "from_optax(tx=MultiSteps)"
    assert str(gdtx.chain(tx, gdtx.scale(-1.0))) == "chain(from_optax(scale_by_adam), scale(-1.0))"
    assert tx == from_optax(adam)
    assert hash(tx) == hash(from_optax(adam))
    assert tx != from_optax(optax.scale_by_adam())
    copied = cloudpickle.loads(cloudpickle.dumps(tx))
    update = jax.jit(adam.update)
    chex.assert_trees_all_equal(
        copied.update(PARAMS, copied.init(PARAMS)), update(PARAMS, adam.init(PARAMS))
    )


def test_theirs_are_compiled_once():
    tx = from_optax(optax.adam(0.1))
    state = tx.init(PARAMS)
    _, state = tx.update(PARAMS, state, PARAMS)
    with counted_compilations() as compilations:
        tx.update(PARAMS, state, PARAMS)
        from_optax(optax.scale(1.0))
    assert not compilations


def test_theirs_get_the_extra_arguments_they_take():
    plain = gdtx.chain(from_optax(optax.GradientTransformation(*optax.scale(2.0))))
    doubled, _ = plain.update(PARAMS, plain.init(PARAMS), PARAMS, value=1.0)
    chex.assert_trees_all_equal(doubled["w"], 2 * PARAMS["w"])
    polyak = from_optax(optax.polyak_sgd())
    one, four = (polyak.update(PARAMS, polyak.init(PARAMS), PARAMS, value=v)[0] for v in (0.1, 0.4))
    chex.assert_trees_all_close(jax.tree.map(lambda u: 4 * u, one), four)


def test_there_and_back():
    tx = gdtx.adam(0.1)
    assert gdtx.expand(from_optax(to_optax(tx))) == gdtx.expand(tx, 0)
    theirs = optax.adam(0.1)
    back = to_optax(from_optax(theirs))
    chex.assert_trees_all_equal(back.init(PARAMS), theirs.init(PARAMS))


@pytest.mark.parametrize("value", [optax.adam, 0.1, "adam", None])
def test_from_optax_takes_pairs_only(value):
    with pytest.raises(
        TypeError, match=r"from_optax: tx must be a transformation of Optax \(a pair"
    ):
        from_optax(value)


# Runs that begin in Optax.


class Case(NamedTuple):
    """Ours and theirs, and by how many units in the last place of an update they may differ.

    The numbers are those of the docstring. From `begin` on, if given; before, they are 8 times
    that, because Optax subtracts numbers near 2000 for a length near 5.
    """

    ours: gdtx.GradientTransformation
    theirs: object
    ulps: int = 0
    begin: int = 0


# Quarters over 256, because Optax's schedules are computed in float32.
RATE, THEIR_RATE = gdtx.linear_schedule(0.25, 0.0, 256), optax.linear_schedule(0.25, 0.0, 256)
NESTEROV = {"momentum": 0.9, "nesterov": True}
MASK = {"w": True, "b": False}
CASES = {
    "sgd": Case(gdtx.sgd(0.1), optax.sgd(0.1)),
    "sgd, scheduled": Case(gdtx.sgd(RATE), optax.sgd(THEIR_RATE)),
    "momentum": Case(gdtx.sgd(0.1, 0.9), optax.sgd(0.1, 0.9)),
    "momentum, scheduled": Case(gdtx.sgd(RATE, 0.9), optax.sgd(THEIR_RATE, 0.9)),
    "nesterov": Case(gdtx.sgd(0.1, **NESTEROV), optax.sgd(0.1, **NESTEROV)),
    "adagrad": Case(gdtx.adagrad(0.1), optax.adagrad(0.1)),
    "adagrad, scheduled": Case(gdtx.adagrad(RATE), optax.adagrad(THEIR_RATE)),
    "rmsprop": Case(gdtx.rmsprop(0.1), optax.rmsprop(0.1), 8),
    "rmsprop, scheduled": Case(gdtx.rmsprop(RATE), optax.rmsprop(THEIR_RATE), 8),
    "rmsprop with momentum": Case(
        gdtx.chain(gdtx.scale_by_rms(), gdtx.scale_by_learning_rate(0.1), gdtx.trace(0.9)),
        optax.rmsprop(0.1, momentum=0.9),
        8,
    ),
    "adadelta": Case(gdtx.adadelta(), optax.adadelta(1.0), 8),
    "adamax": Case(gdtx.adamax(0.1), optax.adamax(0.1), 16),
    "adam": Case(gdtx.adam(0.1), optax.adam(0.1), 256),
    "adam, scheduled": Case(gdtx.adam(RATE), optax.adam(THEIR_RATE), 256),
    "adam, scheduled link": Case(
        gdtx.chain(gdtx.scale_by_adam(), gdtx.scale_by_learning_rate(RATE)),
        optax.adam(THEIR_RATE),
        256,
    ),
    "adam, clipped": Case(
        gdtx.chain(gdtx.clip_by_global_norm(1.0), gdtx.adam(0.1)),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)),
        256,
    ),
    "adam, injected": Case(
        gdtx.adam(0.1), optax.inject_hyperparams(optax.adam)(learning_rate=0.1), 256
    ),
    "adam, injected schedule": Case(
        gdtx.adam(RATE), optax.inject_hyperparams(optax.adam)(learning_rate=THEIR_RATE), 256
    ),
    "adamw": Case(gdtx.adamw(0.1), optax.adamw(0.1), 256),
    "adamw, masked decay": Case(
        gdtx.adamw(RATE, mask=MASK), optax.adamw(THEIR_RATE, mask=MASK), 256
    ),
    "nadam": Case(gdtx.nadam(0.1), optax.nadam(0.1), 256),
    "radam": Case(gdtx.radam(0.1, threshold=5.0), optax.radam(0.1), 2**14, 20),
    "radam, short memory": Case(
        gdtx.radam(0.1, b2=0.9, threshold=5.0), optax.radam(0.1, b2=0.9), 64
    ),
    "masked": Case(gdtx.masked(gdtx.adam(0.1), MASK), optax.masked(optax.adam(0.1), MASK), 256),
    "partition": Case(
        gdtx.partition({"s": gdtx.sgd(0.1, 0.9), "a": gdtx.adam(0.1)}, {"w": "a", "b": "s"}),
        optax.partition(
            {"a": optax.adam(0.1), "s": optax.sgd(0.1, 0.9)}, {"w": "a", "b": "s"}
        ),
        256,
    ),
    "partition in a chain": Case(
        gdtx.chain(
            gdtx.masked(gdtx.adam(0.1), MASK),
            gdtx.masked(gdtx.sgd(0.1, 0.9), {"w": False, "b": True}),
        ),
        optax.partition(
            {"a": optax.adam(0.1), "s": optax.sgd(0.1, 0.9)}, {"w": "a", "b": "s"}
        ),
        256,
    ),
}  # fmt: skip
if hasattr(gdtx, "lion"):
    CASES["lion"] = Case(gdtx.lion(0.1), optax.lion(0.1))
    CASES["lion, masked decay"] = Case(
        gdtx.lion(RATE, weight_decay=0.1, mask=MASK),
        optax.lion(THEIR_RATE, weight_decay=0.1, mask=MASK),
    )
by_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
BEFORE, AFTER = (0, 1, 25), 5


def gradients():
    """Over four decades and of one sign: where momenta pass near zero, roundings are all there is
    to see."""
    rng = np.random.default_rng(0)
    return [
        {k: (10 ** rng.uniform(-2, 2, p.shape)).astype(np.float32) for k, p in PARAMS.items()}
        for _ in range(BEFORE[-1] + AFTER)
    ]


def run(update, state, gradients, params=PARAMS):
    outputs = []
    for g in gradients:
        updates, state = update(g, state, params)
        outputs.append(updates)
    return outputs, state


def assert_within(path, expected, ulps):
    for ours, theirs in zip(jax.tree.leaves(path), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == np.float32
        apart = np.abs(np.float64(ours) - np.float64(theirs)) / np.spacing(np.abs(ours))
        assert apart.max() <= ulps


@by_case
def test_a_run_goes_on(case):
    """Step by step, from the first, the second and a later one."""
    steps = gradients()
    update, our_update = jax.jit(case.theirs.update), jax.jit(case.ours.update)
    for begin in BEFORE:
        _, theirs = run(update, case.theirs.init(PARAMS), steps[:begin])
        state = load_optax_state(case.ours, theirs, PARAMS)
        chex.assert_trees_all_equal_structs(state, case.ours.init(PARAMS))
        chex.assert_trees_all_equal_shapes_and_dtypes(state, case.ours.init(PARAMS))
        expected, _ = run(update, theirs, steps[begin : begin + AFTER])
        path, _ = run(our_update, state, steps[begin : begin + AFTER])
        assert_within(path, expected, case.ulps * (1 if begin >= case.begin else 8))


@pytest.mark.first(2)
@pytest.mark.parametrize(
    "name", ["rmsprop", "adamax", "adam", "adam, scheduled", "adamw", "nadam", "radam"]
)
def test_what_differs_is_their_rounding(name, x64):
    """In float64 they agree with our float32, however far their float32 is."""
    case = CASES[name]
    steps = gradients()
    _, theirs = run(jax.jit(case.theirs.update), case.theirs.init(PARAMS), steps[:10])
    path, _ = run(
        jax.jit(case.ours.update), load_optax_state(case.ours, theirs, PARAMS), steps[10:]
    )

    def wide(tree):
        return jax.tree.map(lambda x: np.float64(x) if x.dtype == np.float32 else x, tree)

    expected, _ = run(jax.jit(case.theirs.update), wide(theirs), wide(steps[10:]), wide(PARAMS))
    assert_within(path, expected, 32)


def begun(theirs, params=PARAMS, steps=3):
    update = jax.jit(theirs.update)
    return run(update, theirs.init(params), gradients()[:steps], params)[1]


def test_injected_hyperparameters_are_loaded():
    """What Optax's state holds replaces what ours was made with; the rest stays."""
    theirs = begun(optax.inject_hyperparams(optax.adam)(learning_rate=0.1, b1=0.8))
    theirs.hyperparams["learning_rate"] = jnp.float32(0.025)
    tx = gdtx.tunable(gdtx.adam(1.0), "learning_rate", "b1")
    state = load_optax_state(tx, theirs)
    assert state.hyperparams["b1"] == np.float32(0.8)
    assert state.hyperparams["learning_rate"] == np.float32(0.025)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, tx.init(PARAMS))


def test_after_loading_nothing_compiles_again():
    tx = gdtx.adam(RATE)
    tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    state = load_optax_state(tx, begun(optax.adam(THEIR_RATE)))
    with counted_compilations() as compilations:
        tx.update(PARAMS, state, PARAMS)
    assert not compilations
    # And it can be donated: no buffer is in it twice.
    arrays = jax.tree.leaves(state)
    assert len({x.unsafe_buffer_pointer() for x in arrays}) == len(arrays)
    jax.jit(tx.update, donate_argnums=1)(PARAMS, state, PARAMS)


def test_loads_inside_a_program():
    theirs = begun(optax.adamw(THEIR_RATE))
    tx = gdtx.adamw(RATE)
    loaded = jax.jit(lambda state: load_optax_state(tx, state))(theirs)
    chex.assert_trees_all_equal(loaded, load_optax_state(tx, theirs))


def test_loads_what_a_checkpoint_gives():
    """NumPy arrays, placed as the parameters are."""
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    params = {"w": jax.device_put(jnp.ones((2, 3)), split)}
    tx, theirs = gdtx.adam(0.1), optax.adam(0.1)
    stored = jax.tree.map(np.asarray, theirs.update(params, theirs.init(params))[1])
    state = load_optax_state(tx, stored, params)
    fresh = tx.init(params)
    for ours, like in zip(jax.tree.leaves(state), jax.tree.leaves(fresh), strict=True):
        assert ours.sharding == like.sharding
    chex.assert_trees_all_equal(gdtx.find(state, "mu"), stored[0].mu)


def test_narrow_moments_become_wide():
    theirs = begun(optax.adam(0.1, mu_dtype=jnp.bfloat16))
    state = load_optax_state(gdtx.adam(0.1), theirs)
    assert theirs[0].mu["w"].dtype == jnp.bfloat16
    assert gdtx.find(state, "mu")["w"].dtype == jnp.float32
    chex.assert_trees_all_equal(gdtx.find(state, "mu"), jax.tree.map(jnp.float32, theirs[0].mu))


def test_narrow_moments_stay_narrow_if_asked_to():
    theirs = begun(optax.adam(0.1, mu_dtype=jnp.bfloat16))
    state = load_optax_state(gdtx.adam(0.1, mu_dtype=jnp.bfloat16), theirs)
    chex.assert_trees_all_equal(gdtx.find(state, "mu"), theirs[0].mu)
    assert gdtx.find(state, "nu")["w"].dtype == jnp.float32


@pytest.mark.parametrize("params", [{}, {"a": None, "b": jnp.zeros((0, 2)), "c": jnp.ones(())}])
def test_loads_any_tree(params):
    state = load_optax_state(gdtx.adam(0.1), optax.adam(0.1).init(params))
    chex.assert_trees_all_equal(state, gdtx.adam(0.1).init(params))


def test_params_are_asked_for_where_there_are_holes():
    theirs = optax.masked(optax.adam(0.1), MASK).init(PARAMS)
    tx = gdtx.masked(gdtx.adam(0.1), MASK)
    with pytest.raises(TypeError, match=r"call load_optax_state\(tx, optax_state, params\)"):
        load_optax_state(tx, theirs)
    chex.assert_trees_all_equal(load_optax_state(tx, theirs, PARAMS), tx.init(PARAMS))


MISMATCHES = {
    "other method": (
        gdtx.adam(0.1), optax.sgd(0.1, 0.9),
        "load_optax_state > adam > scale_by_adam > mu > first_moment > ema: looked for mu in "
        "Optax's state, found optax_state[0].trace; it keeps optax_state[0].trace",
    ),
    "nothing there": (
        gdtx.sgd(0.1, 0.9), optax.sgd(0.1),
        "looked for trace in Optax's state, which keeps no moments",
    ),
    "too much there": (
        gdtx.sgd(0.1), optax.adam(0.1),
        "load_optax_state: sgd(0.1) keeps nothing like optax_state[0].mu of Optax's state",
    ),
    "no count": (
        gdtx.sgd(RATE), optax.sgd(0.1),
        "load_optax_state > sgd: looked for a count in Optax's state, which keeps no moments and "
        "no count",
    ),
    "maximum of other values": (
        gdtx.amsgrad(0.1), optax.amsgrad(0.1), "found optax_state[0].nu_max",
    ),
    "other variance": (
        gdtx.rmsprop(0.1, centered=True), optax.rmsprop(0.1, centered=True),
        "looked for a variance in Optax's state, found optax_state[0].mu",
    ),
    "momentum of steps": (
        gdtx.rmsprop(0.1, momentum=0.9), optax.rmsprop(0.1, momentum=0.9),
        "found optax_state[2].trace, but between it and optax_state[0].nu Optax's state has a link "
        "that keeps nothing and tx has none",
    ),
    "wrapper": (
        gdtx.adam(0.1), optax.apply_if_finite(optax.adam(0.1), 3),
        "looked for mu in Optax's state, found optax_state of class ApplyIfFiniteState",
    ),
    "step sizes": (
        gdtx.rprop(0.1), optax.rprop(0.1), "looked for sign in Optax's state, found",
    ),
    "their own state": (
        gdtx.chain(optax.scale_by_adam()), optax.adam(0.1),
        "load_optax_state: cannot tell what a ScaleByAdamState keeps",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("tx", "theirs", "message"), MISMATCHES.values(), ids=MISMATCHES)
def test_what_cannot_be_matched_raises(tx, theirs, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        load_optax_state(tx, theirs.init(PARAMS), PARAMS)


def test_counts_and_shapes_must_agree():
    adam = optax.adam(THEIR_RATE).init(PARAMS)
    with pytest.raises(ValueError, match="the counts of Optax's state are not the same"):
        load_optax_state(gdtx.adam(RATE), (adam[0]._replace(count=3), adam[1]))
    others = [
        ({"w": np.ones((3, 2), np.float32), "b": PARAMS["b"]}, "w'] is an array of shape (2, 3)"),
        ({"w": PARAMS["w"], "c": PARAMS["b"]}, "b'] is an array of shape (3,) and dtype float32, "
         "expected what belongs to params['c'] of shape (3,)"),
        ({"b": PARAMS["b"]}, "optax_state[0].mu has 2 leaves, tx is for 1 parameters"),
    ]  # fmt: skip
    for params, message in others:
        with pytest.raises(ValueError, match=re.escape(message)):
            load_optax_state(gdtx.adam(RATE), adam, params)
    with pytest.raises(ValueError, match=r"optax_state is a dict of mu, expected a state of Optax"):
        load_optax_state(gdtx.adam(0.1), {"mu": PARAMS})
    with pytest.raises(TypeError, match="tx must be a transformation of gdtx, got the function"):
        load_optax_state(gdtx.adam, adam)  # pyright: ignore[reportArgumentType]
