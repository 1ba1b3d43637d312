"""Makers, combinators and the laws they obey."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compilations import counted_compilations
from everything import METHODS

import gdtx

PARAMS = {"a": jnp.array([1.0, -2.0, 0.5]), "b": {"c": jnp.array([[3.0], [-0.25]])}}


def updates_of(tx, steps=5):
    """The updates of some steps, of gradients that change."""
    params = jax.tree.map(lambda p: p.astype(float), PARAMS)
    state = tx.init(params)
    out = []
    for t in range(steps):
        gradients = jax.tree.map(lambda p: p * jnp.cos(2.0 * t + p), params)  # noqa: B023
        updates, state = tx.update(gradients, state, params)
        out.append(updates)
    return out


def assert_same(one, other, **tolerance):
    close = chex.assert_trees_all_close if tolerance else chex.assert_trees_all_equal
    close(updates_of(one), updates_of(other), **tolerance)


def mean(b1):
    return gdtx.chain(gdtx.ema(b1), gdtx.bias_correction(b1))


def radam_without_rectification():
    nu = gdtx.chain(gdtx.square(), mean(0.999), gdtx.sqrt(), gdtx.add(1e-8))
    return gdtx.join(gdtx.divide, mu=mean(0.9), nu=nu)


def as_one(tree):
    norm = gdtx.global_norm(tree)
    return jax.tree.map(lambda x: x / norm, tree)


a, b, c = gdtx.trace(0.9), gdtx.clip(0.7), gdtx.scale(0.3)

# What must be the same, bit for bit unless a tolerance stands behind it.
LAWS = {
    "chain is associative": (gdtx.chain(gdtx.chain(a, b), c), gdtx.chain(a, gdtx.chain(b, c))),
    "identity is its unit, left": (gdtx.chain(gdtx.identity(), a), a),
    "identity is its unit, right": (gdtx.chain(a, gdtx.identity()), a),
    "the empty chain is the identity": (gdtx.chain(), gdtx.identity()),
    "join of one is elementwise": (
        gdtx.join(jnp.tanh, u=gdtx.identity()),
        gdtx.elementwise(jnp.tanh),
    ),
    "join keeps the order of its branches": (
        gdtx.join(gdtx.subtract, z=gdtx.scale(3.0), a=gdtx.identity()),
        gdtx.elementwise(lambda u: 3.0 * u - u),
    ),
    "trace and scale commute": (gdtx.chain(a, c), gdtx.chain(c, a), {"rtol": 1e-12}),
    "nesterov is a join": (
        gdtx.trace(0.9, nesterov=True),
        gdtx.join(lambda g, v: g + 0.9 * v, g=gdtx.identity(), v=gdtx.trace(0.9)),
    ),
    "the lecture's momentum is the other order": (
        gdtx.chain(gdtx.scale_by_learning_rate(0.1), gdtx.trace(0.9)),
        gdtx.sgd(0.1, momentum=0.9),
        {"rtol": 1e-12},
    ),
    "an average is a trace at the rate times one minus its decay": (
        gdtx.ema_sgd(0.1, decay=0.9),
        gdtx.sgd(0.1 * (1 - 0.9), momentum=0.9),
        {"rtol": 1e-12},
    ),
    "radam without rectify is adam": (radam_without_rectification(), gdtx.scale_by_adam()),
    "amsgrad without running_max is adam": (
        gdtx.join(
            gdtx.divide,
            mu=mean(0.9),
            nu=gdtx.chain(gdtx.square(), gdtx.ema(0.999), gdtx.bias_correction(0.999),
                          gdtx.sqrt(), gdtx.add(1e-8)),
        ),
        gdtx.scale_by_adam(),
    ),
    "a rule that sees the step is counted": (
        gdtx.recur(lambda u, step: (u / step, {})), gdtx.counted(lambda t: lambda u: u / t)),
    "a rule that sees the parameter is with_params": (
        gdtx.recur(lambda u, params: (u + 0.1 * params, {})),
        gdtx.with_params(lambda u, p: u + 0.1 * p)),
    "a first value may be computed from the parameter": (
        gdtx.recur(lambda u, a: (a, {"a": a + u}), a=lambda p: 0.5 + 0 * p),
        gdtx.recur(lambda u, a: (a, {"a": a + u}), a=0.5)),
    "buffers have the names that they are given": (
        gdtx.recur(lambda u, step, params: (step, {"step": u, "params": u}), step=0.5, params=0.0),
        gdtx.recur(lambda u, a: (a, {"a": u}), a=0.5)),
    "join_trees of a function of arrays is join": (
        gdtx.join_trees(
            lambda a, b: jax.tree.map(jnp.add, a, b), a=gdtx.identity(), b=gdtx.ema(0.9)
        ),
        gdtx.join(gdtx.plus, a=gdtx.identity(), b=gdtx.ema(0.9))),
    "join_trees of one is treewise": (
        gdtx.join_trees(as_one, u=gdtx.identity()), gdtx.treewise(as_one)),
    "treewise of each array and its parameter is with_params": (
        gdtx.treewise(lambda u, params: jax.tree.map(lambda u, p: u + 0.1 * p, u, params)),
        gdtx.with_params(lambda u, p: u + 0.1 * p)),
    "masked with all": (gdtx.masked(a, True), a),
    "masked with none": (gdtx.masked(a, {"a": False, "b": False}), gdtx.identity()),
    "partition of one group": (gdtx.partition({"all": a}, [("**", "all")]), a),
    "groups of one transformation without memory": (
        gdtx.partition({"one": b, "other": b}, {"a": "one", "b": "other"}), b),
    "masks of all leaves, one by one": (
        gdtx.chain(gdtx.masked(a, ["a"]), gdtx.masked(a, ["b/*"])), a),
    "freeze none": (gdtx.freeze(a, []), a),
    "freeze all": (gdtx.freeze(a, ["**"]), gdtx.set_to_zero()),
    "train what is not frozen": (gdtx.trainable(a, ["a"]), gdtx.freeze(a, ["b/**"])),
    "adamw without decay is adam": (gdtx.adamw(0.1, weight_decay=0.0), gdtx.adam(0.1)),
    "rmsprop is adam without the first average and correction": (
        gdtx.scale_by_rms(0.9),
        gdtx.join(gdtx.divide, g=gdtx.identity(), nu=gdtx.chain(
            gdtx.square(), gdtx.ema(0.9), gdtx.add(1e-8), gdtx.sqrt())),
    ),
    "a running maximum that forgets at once is the identity on magnitudes": (
        gdtx.chain(gdtx.absolute(), gdtx.running_max(0.0)), gdtx.absolute()),
    "set_to_zero": (gdtx.set_to_zero(), gdtx.scale(0.0)),
    "sign": (gdtx.sign(), gdtx.join(gdtx.divide, u=gdtx.identity(), n=gdtx.absolute())),
    "a constant schedule is its constant": (
        gdtx.adam(gdtx.constant_schedule(0.1)), gdtx.adam(0.1), {"rtol": 1e-12}),
    "a schedule of momentum is resolved where it is given": (
        gdtx.chain(gdtx.trace(lambda t: jnp.where(t < 2, 0.0, 0.9)), gdtx.scale(-0.5)),
        gdtx.sgd(0.5, momentum=lambda t: jnp.where(t < 2, 0.0, 0.9))),
}  # fmt: skip


@pytest.mark.parametrize("law", LAWS)
def test_law(law, x64):
    one, other, *tolerance = LAWS[law]
    assert_same(one, other, **dict(*tolerance))


def test_nesterov_keeps_the_structure_of_the_state():
    plain, ahead = (gdtx.trace(0.9, nesterov=flag).init(PARAMS) for flag in (False, True))
    assert jax.tree.structure(plain) == jax.tree.structure(ahead)


def test_sutskevers_look_ahead_form():
    """theta + mu v follows Nesterov's momentum with the gradient at the current point.

    Sutskever et al. 2013, equations 3 and 4: v <- mu v - eta grad(theta + mu v).
    """
    mu, eta = 0.9, 0.05
    gradient = jax.grad(lambda p: jnp.sum(jnp.cosh(p)))
    theta = np.array([1.0, -0.5])
    tx = gdtx.sgd(eta, momentum=mu, nesterov=True)
    params = jnp.asarray(theta)
    state = tx.init(params)
    v = np.zeros(2)
    for _ in range(20):
        v = mu * v - eta * np.asarray(gradient(jnp.asarray(theta + mu * v)))
        theta = theta + v
        updates, state = tx.update(gradient(params), state, params)
        params = gdtx.apply_updates(params, updates)
        np.testing.assert_allclose(params, theta + mu * v, rtol=1e-5, atol=1e-6)


def test_feedback_reads_the_past_and_holds_the_statistic_only():
    tx = gdtx.feedback(gdtx.multiply, gdtx.running_sum(1.0), gdtx.scale(2.0))
    params = jnp.array([0.0])
    state = tx.init(params)
    assert jax.tree.structure(state) == jax.tree.structure(gdtx.running_sum(1.0).init(params))
    total = 1.0
    for _ in range(4):
        u, state = tx.update(jnp.array([0.5]), state)
        assert float(u[0]) == 0.5 * 2.0 * total
        total += float(u[0])


def test_feedback_refuses_a_statistic_that_does_not_emit_its_buffer():
    tx = gdtx.feedback(gdtx.multiply, gdtx.chain(gdtx.ema(0.9), gdtx.sqrt()))
    with pytest.raises(TypeError, match=r"last link of the statistic must emit"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
    tx = gdtx.feedback(gdtx.multiply, gdtx.ema(0.9), gdtx.ema(0.5))
    with pytest.raises(TypeError, match=r"readout must be stateless"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))


def test_counted_runs_once_per_update():
    calls = []

    def f(t):
        calls.append(t)
        return lambda u: u * t

    tx = gdtx.counted(f)
    updates, state = jax.jit(tx.update)(PARAMS, tx.init(PARAMS))
    assert len(calls) == 1
    chex.assert_trees_all_equal(updates, PARAMS)
    updates, _ = tx.update(PARAMS, state)
    chex.assert_trees_all_equal(updates, jax.tree.map(lambda p: 2 * p, PARAMS))


def test_counts_saturate():
    last = jnp.asarray(np.iinfo(np.int32).max)
    counted = gdtx.recur(lambda u, step: (u * (step > 0), {}))
    for tx in (gdtx.bias_correction(0.9, ahead=1), gdtx.scale(lambda t: 1.0), counted):
        state = jax.tree.map(lambda _: last, tx.init(PARAMS))
        updates, state = tx.update(PARAMS, state)
        chex.assert_trees_all_equal(updates, PARAMS)
        assert all(count == last for count in jax.tree.leaves(state))


OF_THE_STEP = {
    "schedule": gdtx.scale(lambda t: (t + 1) / 7),
    "counted": gdtx.counted(lambda t: lambda u: u * (t / 7)),
    "randomized": gdtx.randomized(lambda t: lambda key, u: u * (t / 7)),
    "recur": gdtx.recur(lambda u, step: (u * (step / 7), {})),
    "scheduled_bias_correction": gdtx.chain(
        gdtx.scale(1 / 7), gdtx.scheduled_bias_correction(lambda t: (t + 1) / (t + 2))
    ),
}


@pytest.mark.parametrize("name", OF_THE_STEP)
def test_quotients_of_the_step_are_exact_in_64_bits(name, x64):
    """Functions of the step get 64 bits; the state counts in 32, and updates keep their dtype."""
    tx = OF_THE_STEP[name]
    params = {"narrow": jnp.ones(2, "float32"), "wide": jnp.ones(2)}
    state = tx.init(params)
    with counted_compilations() as compilations:
        for t in (1, 2, 3):
            updates, state = tx.update(params, state)
            want = (t + 1) / t / 7 if name == "scheduled_bias_correction" else t / 7
            np.testing.assert_allclose(updates["wide"], want, rtol=1e-15)
            assert updates["narrow"].dtype == jnp.float32
            assert all(x.dtype in (jnp.int32, float) for x in jax.tree.leaves(state))
    assert len(compilations) <= 1


def test_masked_leaves_hold_no_state_and_pass():
    mask = {"a": False, "b": True}
    tx = gdtx.masked(gdtx.adam(0.1), mask)
    state = tx.init(PARAMS)
    assert [leaf.shape for leaf in jax.tree.leaves(state)].count(PARAMS["a"].shape) == 0
    updates, _ = tx.update(PARAMS, state, PARAMS)
    chex.assert_trees_all_equal(updates["a"], PARAMS["a"])
    alone = gdtx.adam(0.1)
    want, _ = alone.update(PARAMS["b"], alone.init(PARAMS["b"]), PARAMS["b"])
    chex.assert_trees_all_equal(updates["b"], want)


def test_mask_may_leave_nothing():
    u = jnp.ones(3)
    tx = gdtx.add_decayed_weights(0.1, mask=False)
    chex.assert_trees_all_equal(tx.update(u, tx.init(u), u)[0], u)


def test_mask_may_be_a_function():
    decay = gdtx.add_decayed_weights(0.5, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p))
    updates, _ = decay.update(PARAMS, decay.init(PARAMS), PARAMS)
    chex.assert_trees_all_equal(updates["a"], PARAMS["a"])
    chex.assert_trees_all_equal(updates["b"]["c"], 1.5 * PARAMS["b"]["c"])


@jax.tree_util.register_pytree_node_class
class Layer:
    """A module as in equinox: a pytree that can be called."""

    def __init__(self, w, b):
        self.w, self.b = w, b

    def __call__(self, x):
        raise AssertionError("a module was taken for a function")

    def tree_flatten(self):
        return (self.w, self.b), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


def test_mask_that_is_a_callable_tree_is_a_tree():
    tx = gdtx.masked(gdtx.scale(2.0), Layer(True, False))
    params = Layer(jnp.ones(2), jnp.ones(2))
    updates, _ = tx.update(params, tx.init(params))
    chex.assert_trees_all_equal((updates.w, updates.b), (2 * jnp.ones(2), jnp.ones(2)))


def test_weight_decay_schedule_and_mask():
    decay = gdtx.add_decayed_weights(lambda t: 0.1 * (t + 1), mask={"a": True, "b": False})
    state = decay.init(PARAMS)
    for t in range(3):
        updates, state = decay.update(PARAMS, state, PARAMS)
        np.testing.assert_allclose(updates["a"], (1 + 0.1 * (t + 1)) * PARAMS["a"], rtol=1e-6)
        chex.assert_trees_all_equal(updates["b"], PARAMS["b"])


def test_bare_pairs_and_pairs_from_elsewhere_are_links():
    def update(updates, state, params=None):
        return jax.tree.map(lambda u: -u, updates), state

    bare = gdtx.GradientTransformation(lambda params: (), update)
    init_fn, update_fn = bare
    assert init_fn(PARAMS) == ()
    chex.assert_trees_all_equal(update_fn(PARAMS, ())[0], jax.tree.map(lambda p: -p, PARAMS))
    assert_same(gdtx.chain(bare, gdtx.scale(2.0)), gdtx.scale(-2.0))
    assert_same(gdtx.chain(optax.scale(-1.0), gdtx.scale(2.0)), gdtx.scale(-2.0))


def test_bare_pair_gets_the_extra_arguments_it_names():
    def update(updates, state, params=None, *, value):
        return jax.tree.map(lambda u: u * value, updates), state

    tx = gdtx.chain(gdtx.identity(), gdtx.GradientTransformation(lambda params: (), update))
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), value=2.0, other="ignored")
    chex.assert_trees_all_equal(updates, jax.tree.map(lambda p: 2 * p, PARAMS))


def test_custom_transformation_has_the_same_powers():
    @gdtx.transformation
    def powered(exponent: gdtx.Positive = 0.5, decay=0.9):
        magnitude = gdtx.elementwise(lambda u: jnp.sign(u) * jnp.abs(u) ** exponent)
        return gdtx.chain(magnitude, gdtx.trace(decay))

    tx = powered()
    assert repr(tx) == "powered(exponent=0.5, decay=0.9)"
    assert tx == powered(0.5)
    assert jax.tree.leaves(powered(jnp.asarray(0.5))) == [0.5]
    assert_same(powered(lambda t: 0.5, decay=lambda t: 0.9), tx, rtol=1e-6)
    with pytest.raises(ValueError, match=r"powered: exponent must be positive, got -1"):
        powered(-1)


def test_rule_that_remembers_several_buffers():
    def rule(u, slow, fast):
        slow, fast = 0.9 * slow + 0.1 * u, 0.5 * fast + 0.5 * u
        return fast - slow, {"slow": slow, "fast": fast}

    tx = gdtx.recur(rule, slow=0.0, fast=0.0)
    assert_same(tx, gdtx.join(gdtx.subtract, fast=gdtx.ema(0.5), slow=gdtx.ema(0.9)), rtol=1e-5,
                atol=1e-6)  # fmt: skip


def test_a_rule_sees_the_step_and_a_first_value_the_parameter():
    """The state counts in int32, from 1 on, and keeps the first value in the dtype of a buffer."""
    tx = gdtx.recur(
        lambda u, start, step, params: (step * (params - start), {"start": start}),
        "bfloat16",
        start=lambda p: p + 1 / 3,
    )
    params = jnp.ones(2)
    state = tx.init(params)
    assert state.step.dtype == jnp.int32
    start = state.inner.buffers["start"]
    assert start.dtype == jnp.bfloat16
    for t in (1, 2, 3):
        u, state = tx.update(params, state, params)
        np.testing.assert_array_equal(u, t * (params - start.astype("float32")))
        assert state.step == t


def test_first_values_are_refused_by_leaf():
    def first(f, param):
        return gdtx.recur(lambda u, a: (u, {"a": a}), a=f).init({"w": param})

    with pytest.raises(ValueError, match=r"a, of params\['w'\], must be .* its shape \(2,\), got"):
        first(lambda p: jnp.sum(p), jnp.ones(2))
    with pytest.raises(ValueError, match=r"must be a real array"):
        first(lambda p: 1j * p, jnp.ones(2))
    with pytest.raises(
        TypeError, match=r"recur: a must be a scalar or a function of the parameter"
    ):
        first(None, jnp.ones(2))
    with pytest.raises(ValueError, match=r"recur: needs the parameters"):
        gdtx.recur(lambda u, params: (u, {})).update(jnp.ones(2), gdtx.states.RecurState({}))


def test_functions_of_trees_are_checked():
    wrong = {
        "join_trees: merge must be a function of as many trees as there are branches, 1, got": (
            lambda: gdtx.join_trees(gdtx.divide, u=gdtx.identity())
        ),
        "join_trees: needs at least one branch": lambda: gdtx.join_trees(gdtx.divide),
        "treewise: f must be a function of the updates, got": (
            lambda: gdtx.treewise(lambda u, p: u)
        ),
    }
    for message, make in wrong.items():
        with pytest.raises(TypeError, match=message):
            make()
    tx = gdtx.join_trees(lambda u: {"a": u["a"]}, u=gdtx.identity())
    with pytest.raises(ValueError, match=r"the result has no leaf the result\['b'\]\['c'\], which"):
        tx.update(PARAMS, tx.init(PARAMS))
    tx = gdtx.join_trees(lambda u: jax.tree.map(jnp.sum, u), u=gdtx.identity())
    with pytest.raises(ValueError, match=r"updates\['a'\] has shape \(3,\), its result has \(\)"):
        tx.update(PARAMS, tx.init(PARAMS))
    with pytest.raises(ValueError, match="treewise: needs the parameters"):
        gdtx.treewise(lambda u, params: u).update(PARAMS, ())


@pytest.mark.parametrize("name", ["adam", "rprop", "adadelta"])
def test_hyperparameters_may_be_arrays_in_the_state_of_a_program(name):
    """A jitted step that takes the transformation itself: new values, same program."""

    @jax.jit
    def step(tx, params, state):
        return tx.update(params, state, params)

    tx = METHODS[name].make(jnp.asarray(0.1))
    step(tx, PARAMS, tx.init(PARAMS))
    with counted_compilations() as compilations:
        tx = METHODS[name].make(jnp.asarray(0.2))
        step(tx, PARAMS, tx.init(PARAMS))
    assert compilations == []
