"""Wrappers: what all of them must do, over one table, and what each of them claims."""

import copy
import functools
import pickle
from decimal import Decimal
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import oracles
import pytest
from compilations import counted_compilations
from latex_equations import Equations, symbol
from test_sharding import PLACES, described, draw, where_expected

import gdtx

# Each around a transformation; those without a comment take any.
WRAPPERS = {
    "accumulate_gradients": lambda tx: gdtx.accumulate_gradients(tx, 2),
    "accumulate_gradients, scheduled": lambda tx: gdtx.accumulate_gradients(
        tx, gdtx.piecewise_constant_schedule(1, {2: 3})
    ),
    "skip_nonfinite": lambda tx: gdtx.skip_nonfinite(tx, max_consecutive=2),
    "skip_large": lambda tx: gdtx.skip_large(tx, gdtx.linear_schedule(1e6, 1e7, 10)),
    "lookahead": lambda tx: gdtx.lookahead(tx, sync_period=2),
    "average": gdtx.average,
    "average, exponential": lambda tx: gdtx.average(tx, decay=0.9, start=1),
    "schedule_free": lambda tx: gdtx.schedule_free(tx, 0.1),
    "displaced": lambda tx: gdtx.displaced(tx, gdtx.trace(0.5)),
    "sharpness_aware": gdtx.sharpness_aware,
    "sharpness_aware, perturbed": lambda tx: gdtx.sharpness_aware(tx, 0.1, gdtx.trace(0.5)),
    "polyak_step": lambda tx: gdtx.polyak_step(tx, max_learning_rate=0.5),
    "remember": gdtx.remember,
    "together": lambda tx: gdtx.skip_nonfinite(
        gdtx.accumulate_gradients(gdtx.average(gdtx.remember(gdtx.lookahead(tx, 2))), 2)
    ),
}
STEPS = 6
RATE = gdtx.linear_schedule(0.25, 0.0, 16)
by_wrapper = pytest.mark.parametrize("name", WRAPPERS)
# In what they do with the transformation inside.
LIKE_OTHERS = {
    "skip_large", "average, exponential", "sharpness_aware, perturbed", "together",
}  # fmt: skip


def gradient(params):
    return jax.tree.map(lambda p: p - 1, params)


EXTRAS = {"value": jnp.float32(0.5), "grad_fn": gradient}


def wrapped(name, learning_rate=RATE):
    return WRAPPERS[name](gdtx.sgd(learning_rate, momentum=0.5))


def some_params(dtype=jnp.float32):
    return {
        "w": (jnp.arange(6.0).reshape(3, 2) - 2.5).astype(dtype),
        "nested": (jnp.ones((), dtype), jnp.zeros((0, 2), dtype), None),
    }


def step(tx, params, state, **extras):
    updates, state = tx.update(gradient(params), state, params, **EXTRAS | extras)
    return gdtx.apply_updates(params, updates), state


def trained(tx, params=None, steps=STEPS):
    """Parameters, state and parameters for evaluation after some steps of one scan."""
    params = some_params() if params is None else params
    carry = (params, tx.init(params))
    params, state = jax.lax.scan(lambda c, _: (step(tx, *c), None), carry, length=steps)[0]
    return params, state, gdtx.eval_params(tx, state, params)


def signature(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


@pytest.mark.first(4)
@by_wrapper
def test_one_compilation_of_donated_state(name):
    tx, params = wrapped(name), {"all": some_params()}
    params |= {t.__name__: some_params(t)["w"] for t in (jnp.bfloat16, jnp.complex64)}
    state = tx.init(params)
    first = signature((params, state))
    fresh = jax.tree.leaves((params, state))
    jitted = jax.jit(lambda *carry: step(tx, *carry), donate_argnums=(0, 1))
    with counted_compilations() as compilations:
        for _ in range(3):
            params, state = jitted(params, state)
            assert signature((params, state)) == first
    assert len(compilations) == 1
    # What no update reads, as the last norms, is not handed to the program and not deleted.
    assert all(x.is_deleted() for x in fresh if x.size > 1)
    evaluated = gdtx.eval_params(tx, state, params)
    assert signature(evaluated) == first[0]
    chex.assert_tree_all_finite((params, state, evaluated))


# How many times `inner` has run in six calls; its rate falls by 1/64 each time.
RUNS = {"accumulate_gradients": 3, "accumulate_gradients, scheduled": 3, "together": 3}


@pytest.mark.first(5)
@pytest.mark.parametrize(
    "name", [pytest.param(k, marks=pytest.mark.slow if k in LIKE_OTHERS else ()) for k in WRAPPERS]
)
def test_loop_batch_and_no_jit_agree_and_schedules_count_inner_updates(name):
    tx = wrapped(name, gdtx.linear_schedule(jnp.asarray(0.25), 0.0, 16))
    rates = {find_path(tx, "learning_rate.init_value"): jnp.array([0.5, 0.25])}
    scanned = jax.tree.map(lambda x: x[1], gdtx.sweep(trained, tx, rates))
    params = some_params()
    state = tx.init(params)
    for _ in range(STEPS):
        params, state = step(tx, params, state)
    evaluated = gdtx.eval_params(tx, state, params)
    chex.assert_trees_all_close((params, state, evaluated), scanned, rtol=1e-5, atol=1e-7)
    runs, path = RUNS.get(name, STEPS), find_path(tx, "inner.learning_rate")
    assert gdtx.hyperparams(tx, state)[path] == 0.25 - runs / 64
    facts = gdtx.describe(tx, state)
    # Of the update just done, where `hyperparams` tells of the next.
    assert (facts[path], facts["step"]) == (0.25 - (runs - 1) / 64, runs)
    with jax.disable_jit():
        no_jit = tx.update(gradient(params), state, params, **EXTRAS)
    jitted = tx.update(gradient(params), state, params, **EXTRAS)
    chex.assert_trees_all_close(no_jit, jitted, rtol=1e-5, atol=1e-7)


def find_path(tx, ending):
    """The path of the one argument that ends so."""
    (path,) = [path for path in tx.paths() if path.endswith(ending) and "inner" in path]
    return path


@functools.cache
def unsharded(name):
    whole = jax.tree.map(jnp.asarray, two_arrays())
    run = jax.jit(lambda: trained(wrapped(name), whole)[:2])
    return jax.device_get(run())


def two_arrays():
    return {key: x for key, x in draw(0).items() if key in ("w", "s")}


# Settings alone (after a comma) change no sharding, nor does putting the others together.
# Those whose state is that of another are tried at night.
NOTHING_MORE = {"skip_large", "sharpness_aware", "polyak_step"}
SHARDED = [
    pytest.param(name, marks=pytest.mark.slow if name in NOTHING_MORE else ())
    for name in WRAPPERS
    if "," not in name and name != "together"
]


@pytest.mark.first(2)
@pytest.mark.parametrize("name", SHARDED)
@pytest.mark.parametrize("place", ["automatic", "explicit"])
@pytest.mark.diagonal
def test_sharded(name, place):
    tx = wrapped(name)
    with PLACES[place]() as put:
        params = put(two_arrays())
        state = tx.init(params)
        for path, x in jax.tree_util.tree_flatten_with_path(state)[0]:
            assert x.sharding == where_expected(path, x, params), jax.tree_util.keystr(path)
        born = described((params, state))
        buffers = [{s.data.unsafe_buffer_pointer() for s in x.addressable_shards}
                   for x in jax.tree.leaves((params, state))]  # fmt: skip
        assert len(set.union(*buffers)) == sum(map(len, buffers))
        jitted = jax.jit(lambda *carry: step(tx, *carry), donate_argnums=(0, 1))
        params, state = jitted(params, state)
        assert described((params, state)) == born
        with counted_compilations() as compilations:
            for _ in range(STEPS - 1):
                params, state = jitted(params, state)
                assert described((params, state)) == born
        assert compilations == []
        for key, x in gdtx.eval_params(tx, state, params).items():
            assert x.sharding.is_equivalent_to(params[key].sharding, x.ndim)
    chex.assert_trees_all_close((params, state), unsharded(name), rtol=1e-5, atol=1e-6)


@by_wrapper
def test_is_data(name):
    tx = wrapped(name)
    assert tx == wrapped(name)
    assert hash(tx) == hash(wrapped(name))
    assert eval(repr(tx), vars(gdtx)) == tx
    for same in (copy.deepcopy(tx), pickle.loads(pickle.dumps(tx)), jax.tree.map(lambda x: x, tx)):
        assert same == tx
    path = find_path(tx, "momentum")
    assert gdtx.hyperparams(tx)[path] == 0.5
    assert gdtx.hyperparams(gdtx.replace(tx, {path: 0.75}))[path] == 0.75
    assert path in gdtx.hyperparams(gdtx.as_arrays(tx, path))
    held = gdtx.tunable(tx, path).init(some_params())
    assert gdtx.set_hyperparams(held, **{path: 0.25}).hyperparams[path] == 0.25
    assert r"v_t &= \mu v_{t-1} + " in gdtx.latex(tx)
    assert "momentum=0.5" in str(tx)


@by_wrapper
@pytest.mark.parametrize("params", [{}, {"a": None}], ids=repr)
def test_trees_without_leaves(name, params):
    tx = wrapped(name)

    def once():
        updates, state = tx.update(params, tx.init(params), params, **EXTRAS)
        return updates, gdtx.eval_params(tx, state, params)

    assert jax.eval_shape(once) == (params, params)


@by_wrapper
def test_gradients_of_another_dtype_or_shape(name):
    """Gradients wider than parameters do no harm; others raise with their path."""
    tx, params, wide = wrapped(name), some_params(jnp.bfloat16), some_params()
    state = tx.init(params)

    def updated(wide):
        return tx.update(wide, state, params, **EXTRAS | {"grad_fn": lambda p: wide})[1]

    assert signature(jax.eval_shape(updated, wide)) == signature(state)
    with pytest.raises(ValueError, match=r"updates\['w'\] has shape \(3,\), its parameter has"):
        tx.update({**wide, "w": jnp.ones(3)}, state, params, **EXTRAS)


@by_wrapper
def test_states_of_others(name):
    if name in ("sharpness_aware", "polyak_step"):
        pytest.skip("their state is that of what they wrap")
    tx = gdtx.accumulate_gradients(gdtx.lookahead(gdtx.sgd(0.1)), 2)
    with pytest.raises(ValueError, match="the state is that of another transformation"):
        wrapped(name).update(some_params(), tx.init(some_params())[-1][-1], some_params(), **EXTRAS)


# accumulate_gradients


def quadratic(tx, batches, dtype=jnp.float32):
    """Parameters after a pass over batches of linear regression."""

    def loss(w, batch):
        x, y = batch
        return jnp.mean((x @ w - y) ** 2)

    def one(carry, batch):
        w, state = carry
        updates, state = tx.update(jax.grad(loss)(w, batch), state, w)
        return (gdtx.apply_updates(w, updates), state), None

    w = jnp.zeros(3, dtype)
    return jax.jit(lambda: jax.lax.scan(one, (w, tx.init(w)), batches)[0][0])()


def data(every, dtype=jnp.float32):
    x = jax.random.normal(jax.random.key(0), (5 * 32, 3))
    y = x @ jnp.array([1.0, -2.0, 0.5]) + 0.1
    return x.astype(dtype).reshape(-1, 32 // every, 3), y.astype(dtype).reshape(-1, 32 // every)


@pytest.mark.diagonal
@pytest.mark.parametrize("every", [2, jnp.asarray(4)], ids=str)
@pytest.mark.parametrize(
    "tx", [gdtx.sgd(0.1, momentum=0.9), gdtx.adam(0.1), gdtx.adagrad(RATE)], ids=repr
)
def test_accumulated_gradients_equal_the_large_batch(tx, every):
    got = quadratic(gdtx.accumulate_gradients(tx, every), data(int(every)))
    np.testing.assert_allclose(got, quadratic(tx, data(1)), rtol=0, atol=1e-6)


def test_accumulated_bfloat16_gradients_equal_the_large_batch():
    """To what rounding the gradients of 4 small batches and of 1 large one costs.

    A gradient near 5 (3 × 1.6, the slope) rounds by 2^-7 at most; five steps of 0.1 add 0.5 × 2^-6
    of both, and the parameters round by 2^-8 each time.
    """
    tx = gdtx.sgd(0.1)
    got = quadratic(gdtx.accumulate_gradients(tx, 4), data(4, jnp.bfloat16), jnp.bfloat16)
    want = quadratic(tx, data(1, jnp.bfloat16), jnp.bfloat16)
    np.testing.assert_allclose(
        np.asarray(got, np.float32), np.asarray(want, np.float32), rtol=0, atol=0.5 / 64 + 5 / 256
    )


def test_sum_of_low_precision_gradients_is_float32():
    """In bfloat16 the sum 256 + 1 would stay at 256."""
    tx = gdtx.accumulate_gradients(gdtx.scale(1.0), 257)
    g = jnp.ones(1, jnp.bfloat16)
    state = tx.init(g)
    assert state.gradients.buffers["value"].dtype == jnp.float32
    state, out = jax.lax.scan(lambda s, _: tx.update(g, s, g)[::-1], state, length=257)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out[:, 0], [0.0] * 256 + [1.0])
    assert np.signbit(out[:256]).all()
    chex.assert_trees_all_equal(state, tx.init(g)._replace(step=1))


def equations(jaxpr):
    """All equations of a program, with the conditionals that they are inside of."""
    for equation in jaxpr.eqns:
        yield equation, 0
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "jaxpr")):
            for inner in [value] if hasattr(value, "jaxpr") else []:
                depth = equation.primitive.name == "cond"
                yield from ((eqn, d + depth) for eqn, d in equations(inner.jaxpr))


@pytest.mark.parametrize(
    "wrap", [lambda tx: gdtx.accumulate_gradients(tx, 4), gdtx.skip_nonfinite],
    ids=["accumulate_gradients", "skip_nonfinite"],
)  # fmt: skip
def test_inner_update_is_inside_a_conditional(wrap):
    """By its logarithm, which the rest of the program has no use for."""
    tx = wrap(gdtx.chain(gdtx.elementwise(jnp.log), gdtx.trace(0.9)))
    g = jnp.ones((64, 64))
    args = g, tx.init(g), g
    depths = [depth for eqn, depth in equations(jax.make_jaxpr(tx.update)(*args).jaxpr)
              if eqn.primitive.name == "log"]  # fmt: skip
    assert depths == [1]
    text = jax.jit(tx.update).lower(*args).compile().as_text()
    assert " conditional(" in text
    computations = [block for block in text.split("\n\n") if " log(" in block]
    assert computations
    assert not any(block.startswith("ENTRY") for block in computations)


def test_every_1_is_the_transformation_itself():
    tx = gdtx.adam(RATE)
    chex.assert_trees_all_equal(
        gdtx.accumulate_gradients(tx, 1).init(some_params()), tx.init(some_params())
    )
    assert gdtx.expand(gdtx.accumulate_gradients(tx, 1)) == tx
    for inner in (tx, gdtx.join(lambda a: a, g=tx), gdtx.masked(tx, True), gdtx.average(tx)):
        one = gdtx.accumulate_gradients(inner, 1)
        state = trained(one)[1]
        paths = [path for path in gdtx.hyperparams(one) if path.endswith("learning_rate")]
        assert gdtx.hyperparams(one, state)[paths[0]] == 0.25 - STEPS / 64


@pytest.mark.parametrize(
    "every", [3, lambda n: jnp.where(n < 2, 1, 3), lambda n: 1 + n], ids=["3", "1, 3", "1 + n"]
)
def test_trajectory_of_multi_steps(every):
    gradients = jnp.asarray(np.random.default_rng(0).normal(size=(20, 3)), jnp.float32)
    ours = gdtx.accumulate_gradients(gdtx.adam(0.1), every)
    theirs = optax.MultiSteps(optax.adam(0.1, eps=1e-8), every)

    def run(tx, apply_updates):
        def one(carry, g):
            params, state = carry
            updates, state = tx.update(g, state, params)
            params = apply_updates(params, updates)
            return (params, state), params

        start = (jnp.zeros(3), tx.init(jnp.zeros(3)))
        return jax.jit(lambda: jax.lax.scan(one, start, gradients)[1])()

    np.testing.assert_allclose(
        run(ours, gdtx.apply_updates), run(theirs, optax.apply_updates), rtol=1e-4, atol=1e-6
    )


def test_sweep_of_every():
    def train(tx):
        return trained(tx, jnp.array([3.0]))[0]

    swept = gdtx.sweep(train, gdtx.accumulate_gradients(gdtx.sgd(0.5), 1), {"every": [1, 2, 3]})
    for every, got in zip((1, 2, 3), swept, strict=True):
        np.testing.assert_allclose(got, train(gdtx.accumulate_gradients(gdtx.sgd(0.5), every)))


def test_a_period_lowered_in_mid_sum_ends_it():
    """At the next call, with the mean of all in the sum; and slow weights move at the next step."""
    with jax.disable_jit():
        tx, g = gdtx.accumulate_gradients(gdtx.scale(1.0), jnp.asarray(5)), jnp.ones(1)
        state = tx.init(g)
        for size in (1.0, 2.0, 6.0):
            updates, state = tx.update(size * g, state)
            assert updates == 0
        updates, state = tx.replace(every=2).update(3 * g, state)
        assert (updates, state.step, state.micro_step) == (3, 1, 0)
        tx = gdtx.lookahead(gdtx.sgd(1.0), jnp.asarray(5.0), 0.5)
        params, state = jnp.zeros(1), tx.init(jnp.zeros(1))
        for period in (5.0, 5.0, 5.0, 2.0):
            updates, state = tx.replace(sync_period=period).update(g, state, params)
            params = gdtx.apply_updates(params, updates)
        assert (params, state.steps_since_sync) == (-2, 0)


def test_extra_arguments_of_the_last_call_reach_inner():
    tx = gdtx.accumulate_gradients(gdtx.polyak_step(max_learning_rate=9.0), 2)
    g = jnp.ones(1)
    _, state = tx.update(g, tx.init(g), g, value=5.0)
    np.testing.assert_allclose(tx.update(g, state, g, value=3.0)[0], [-3.0])


def test_a_state_that_would_widen_stays():
    """Optax's moments of bfloat16 parameters, which float32 gradients would make float32."""
    tx = gdtx.accumulate_gradients(optax.adam(0.1), 2)
    params = jnp.ones(2, jnp.bfloat16)
    state = tx.init(params)
    for _ in range(2):
        _, new = tx.update(params, state, params)
        assert signature(new) == signature(state)


def test_groups_accumulate_by_themselves():
    tx = gdtx.chain(
        gdtx.masked(gdtx.accumulate_gradients(gdtx.sgd(1.0), 2), {"a": True, "b": False}),
        gdtx.masked(gdtx.sgd(1.0), {"a": False, "b": True}),
    )
    params = {"a": jnp.ones(1), "b": jnp.ones(1)}
    updates, state = tx.update(params, tx.init(params), params)
    assert (updates["a"], updates["b"]) == (0, -1)
    assert tx.update(params, state, params)[0]["a"] == -1


# average


@pytest.mark.diagonal
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("start", [0, 7])
@pytest.mark.parametrize("decay", [None, 0.999, 0.0, "array"])
def test_average_is_that_of_the_parameters(decay, start, dtype, x64):
    decay = jnp.asarray(0.9) if decay == "array" else decay
    tx = gdtx.average(gdtx.sgd(0.5), decay, start)
    gradients = np.random.default_rng(1).normal(size=(100, 3))

    def one(carry, g):
        params, state = carry
        updates, state = tx.update(g, state, params)
        params = gdtx.apply_updates(params, updates)
        return (params, state), (params, gdtx.eval_params(tx, state, params))

    params = jnp.ones(3, dtype)
    gradients = jnp.asarray(gradients, dtype)
    path, got = jax.jit(lambda: jax.lax.scan(one, (params, tx.init(params)), gradients)[1])()
    path = np.asarray(path, np.float64)
    assert got.dtype == dtype
    for t in range(1, len(path) + 1):
        seen = path[min(start, t - 1) : t]
        weights = np.power(1.0 if decay is None else float(decay), np.arange(len(seen))[::-1])
        want = np.average(seen, axis=0, weights=weights)
        # Each step rounds the average twice, by half a unit of its last place.
        error = np.max(np.abs(got[t - 1] - want)) / np.max(np.abs(path))
        assert error <= len(seen) * np.finfo(dtype).eps


@pytest.mark.parametrize("decay", [None, 0.9999])
def test_average_of_a_long_run_in_float32(decay):
    """The decay is rounded to float32, near 1 - 1e-4: weights must still add up to 1."""
    tx, params = gdtx.average(gdtx.set_to_zero(), decay), jnp.full(2, 3.0)
    state = jax.lax.scan(
        lambda s, _: (tx.update(params, s, params)[1], None), tx.init(params), length=20000
    )[0]
    np.testing.assert_allclose(gdtx.eval_params(tx, state, params), params, rtol=1e-5)


def test_average_leaves_the_updates_alone():
    plain = jax.jit(trained)(gdtx.adam(0.1))[0]
    params, state, _ = jax.jit(trained)(gdtx.average(gdtx.adam(0.1)))
    chex.assert_trees_all_equal(params, plain)
    assert gdtx.find(state, "average")["w"].shape == (3, 2)


@pytest.mark.diagonal
@pytest.mark.parametrize("decay", [None, 0.9])
@pytest.mark.parametrize("start", [0, 2])
def test_printed_average_is_what_is_computed(decay, start, x64):
    tx = gdtx.average(gdtx.sgd(0.5), decay, start)
    params = jnp.asarray(2.0)
    state, equations = tx.init(params), Equations(gdtx.latex(tx, values=True), {})
    equations.given[symbol(r"\theta_0")] = Decimal(2)
    for t in range(1, 6):
        equations.given[symbol(f"g_{t}")] = Decimal(t * t)
        updates, state = tx.update(jnp.asarray(1.0 * t * t), state, params)
        params = gdtx.apply_updates(params, updates)
        want = float(equations(rf"\bar{{\theta}}_{t}", t))
        np.testing.assert_allclose(gdtx.eval_params(tx, state, params), want, rtol=1e-12)


# lookahead


def slow_and_fast(directions, theta, learning_rate, k, alpha):
    """Algorithm 1 of Zhang et al. 2019, for gradient descent: fast and slow weights by step."""
    slow, fast, both = theta, theta, []
    for t, g in enumerate(directions, 1):
        fast = fast - learning_rate * g
        if t % k == 0:
            slow = slow + alpha * (fast - slow)
            fast = slow
        both.append((fast, slow))
    return np.array(both)


@pytest.mark.parametrize(("k", "alpha"), [(6, 0.5), (1, 0.8), (3, 1.0), (4, 0.0)])
def test_lookahead_trajectory(k, alpha, x64):
    gradients = np.random.default_rng(2).normal(size=(20, 3))
    ours, theirs = (
        gdtx.lookahead(gdtx.sgd(0.3), k, alpha),
        optax.lookahead(optax.sgd(0.3), k, alpha),
    )
    theta = np.ones(3)

    def our_step(carry, g):
        params, state = carry
        updates, state = ours.update(g, state, params)
        params = gdtx.apply_updates(params, updates)
        return (params, state), jnp.stack([params, gdtx.eval_params(ours, state, params)])

    def their_step(carry, g):
        updates, state = theirs.update(g, carry[1], carry[0])
        params = optax.apply_updates(carry[0], updates)
        return (params, state), jnp.stack([params.fast, params.slow])

    synced = optax.LookaheadParams.init_synced(jnp.asarray(theta))
    starts = {our_step: jnp.asarray(theta), their_step: synced}
    want = slow_and_fast(gradients, theta, 0.3, k, alpha)
    for one, tx in ((our_step, ours), (their_step, theirs)):
        carry = (starts[one], tx.init(starts[one]))
        got = jax.jit(lambda c=carry, f=one: jax.lax.scan(f, c, jnp.asarray(gradients))[1])()
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-15)


# schedule_free


class Case(NamedTuple):
    ours: object
    theirs: object
    oracle: object


SCHEDULE_FREE = {
    "sgd": Case(
        gdtx.schedule_free_sgd(0.3, b1=0.8, weight_decay=0.1),
        optax.contrib.schedule_free_sgd(0.3, b1=0.8, weight_decay=0.1),
        lambda g, p: oracles.schedule_free_sgd(g, p, 0.3, b1=0.8, weight_decay=0.1),
    ),
    "adamw": Case(
        gdtx.schedule_free_adamw(0.02, weight_decay=0.1, weight_lr_power=1.0),
        optax.contrib.schedule_free_adamw(0.02, weight_decay=0.1, weight_lr_power=1.0),
        lambda g, p: oracles.schedule_free_adamw(g, p, 0.02, weight_decay=0.1, weight_lr_power=1.0),
    ),
    # Optax's warmup begins with a lost step at rate 0; here the rates are one step ahead.
    "warmup": Case(
        gdtx.schedule_free_sgd(0.3, warmup_steps=10),
        optax.contrib.schedule_free(
            optax.sgd(lambda t: 0.3 * jnp.minimum((t + 1) / 10, 1)),
            lambda t: 0.3 * jnp.minimum(t / 10, 1),
        ),
        lambda g, p: oracles.schedule_free_sgd(g, p, lambda t: 0.3 * min((t + 1) / 10, 1)),
    ),
}


@pytest.mark.parametrize("name", SCHEDULE_FREE)
def test_schedule_free_trajectory(name, x64):
    case = SCHEDULE_FREE[name]
    gradients = np.random.default_rng(3).normal(size=(60, 3)) * 10.0 ** np.arange(-1, 2)
    theta = np.array([1.0, -2.0, 0.5])

    def run(tx, apply_updates, evaluated):
        def one(carry, g):
            params, state = carry
            updates, state = tx.update(g, state, params)
            params = apply_updates(params, updates)
            return (params, state), (params, evaluated(state, params))

        start = (jnp.asarray(theta), tx.init(jnp.asarray(theta)))
        return jax.jit(lambda: jax.lax.scan(one, start, jnp.asarray(gradients))[1])()

    ours = run(case.ours, gdtx.apply_updates, lambda s, p: gdtx.eval_params(case.ours, s, p))
    evaluated = optax.contrib.schedule_free_eval_params
    theirs = run(case.theirs, optax.apply_updates, evaluated)
    # Of the parameters themselves: an update is a difference of them and may be near 0.
    want = theta + np.cumsum(case.oracle(gradients, theta), axis=0)
    np.testing.assert_allclose(ours[0], want, rtol=1e-11, atol=1e-12)
    # Their weights are float32 where a rate is a float32 schedule.
    loose = 1e-6 if name == "warmup" else 1e-10
    np.testing.assert_allclose(ours, theirs, rtol=loose, atol=loose)


def test_schedule_free_average_is_weighted(x64):
    """x is the mean of z with the squares of the rates as weights; b1 may change on the way."""
    rates = 0.1 * np.array([0.0, 1.0, 2.0, 3.0, 3.0, 2.0])
    rate = lambda t: jnp.asarray(rates)[t]  # noqa: E731
    for b1 in (0.7, lambda t: 0.5 + 0.05 * t):
        tx = gdtx.schedule_free(gdtx.sgd(rate), rate, b1)
        params, zs = jnp.asarray(2.0), []
        state = tx.init(params)
        for t in range(len(rates)):
            updates, state = tx.update(params - 1, state, params)
            params = gdtx.apply_updates(params, updates)
            zs.append(gdtx.find(state, "z"))
            want = np.average(zs, weights=rates[: t + 1] ** 2) if t else 2.0
            np.testing.assert_allclose(gdtx.eval_params(tx, state, params), want, rtol=1e-12)


def test_schedule_free_needs_no_schedule():
    """On a noisy quadratic, at a rate at which SGD itself stays noisy."""
    noise = jax.random.normal(jax.random.key(0), (2000, 8))

    def run(tx):
        def one(carry, n):
            params, state = carry
            updates, state = tx.update(params + n, state, params)
            return (gdtx.apply_updates(params, updates), state), None

        start = (jnp.ones(8), tx.init(jnp.ones(8)))
        params, state = jax.jit(lambda: jax.lax.scan(one, start, noise)[0])()
        return float(gdtx.global_norm(gdtx.eval_params(tx, state, params)))

    assert run(gdtx.schedule_free_sgd(0.5)) < 0.2 * run(gdtx.sgd(0.5))


# sharpness_aware


def test_sharpness_aware_on_a_quadratic(x64):
    """f = x'Hx / 2: the gradient at x + rho g / |g| is g + rho H g / |g|."""
    h = np.diag([1.0, 10.0])
    tx = gdtx.sharpness_aware(gdtx.sgd(1.0), rho=0.3)

    def curved(p):
        return jnp.asarray(h) @ p

    for x in ([3.0, 4.0], [1e-200, 0.0], [0.0, 0.0], [1e200, -1e200]):
        g = h @ np.array(x)
        norm = np.hypot(*g)
        want = -(g + 0.3 * (h @ (g / norm) if norm else 0 * g))
        got = tx.update(g, tx.init(g), np.array(x), grad_fn=curved)[0]
        np.testing.assert_allclose(got, want, rtol=1e-14)


def test_weights_decay_where_they_are():
    """And not where the gradient is taken, nor where they have been rounded to."""
    x = jnp.array([3.0, 4.0])
    decay = gdtx.chain(gdtx.set_to_zero(), gdtx.add_decayed_weights(1.0))
    tx = gdtx.sharpness_aware(decay, rho=0.5)
    np.testing.assert_array_equal(tx.update(x, tx.init(x), x, grad_fn=lambda p: p)[0], x)


def test_sharpness_aware_is_differentiable_at_zero():
    tx = gdtx.sharpness_aware(gdtx.sgd(1.0))
    both = jax.value_and_grad(lambda x: jnp.sum(tx.update(x, (), x, grad_fn=lambda p: 2 * p)[0]))
    value, slope = jax.jit(both)(jnp.zeros(2))
    chex.assert_tree_all_finite((value, slope))


# polyak_step


@pytest.mark.parametrize("settings", [{}, {"max_learning_rate": 0.05}, {"f_min": -2.0, "eps": 0.1}])
def test_polyak_step_equals_optax(settings, x64):
    ours, theirs = gdtx.polyak_step(**settings), optax.polyak_sgd(**settings)

    def run(tx, apply_updates):
        def step(carry, _):
            params, state = carry
            value, g = jax.value_and_grad(lambda p: jnp.sum(p**4))(params)
            updates, state = tx.update(g, state, params, value=value)
            params = apply_updates(params, updates)
            return (params, state), params

        params = jnp.array([3.0, -1.0])
        return jax.jit(lambda: jax.lax.scan(step, (params, tx.init(params)), length=10)[1])()

    chex.assert_trees_all_close(
        run(ours, gdtx.apply_updates), run(theirs, optax.apply_updates), rtol=1e-12
    )


def test_polyak_step_makes_the_linear_model_least(x64):
    """In any direction: f + <g, u> = f*, until the cap."""
    g = {"a": jnp.array([3.0, -4.0]), "b": jnp.array(2.0)}
    for inner in (gdtx.identity(), gdtx.sgd(0.01), gdtx.scale_by_adam(), gdtx.sign()):
        tx = gdtx.polyak_step(inner, max_learning_rate=1e6, f_min=0.5)
        u = tx.update(g, tx.init(g), g, value=3.0)[0]
        slope = sum(jnp.sum(x * y) for x, y in zip(*map(jax.tree.leaves, (g, u)), strict=True))
        np.testing.assert_allclose(3.0 + slope, 0.5)
        for value, gradient in ((0.25, g), (3.0, jax.tree.map(jnp.zeros_like, g))):
            still = tx.update(gradient, tx.init(g), g, value=value)[0]
            chex.assert_trees_all_equal(
                jax.tree.map(jnp.abs, still), jax.tree.map(jnp.zeros_like, g)
            )


# remember and describe


def test_remember_counts_what_is_clipped():
    tx = gdtx.chain(gdtx.remember(gdtx.clip_by_global_norm(5.0)), gdtx.adam(1e-3))
    params = {"w": jnp.zeros(2), "none": None}
    state = tx.init(params)
    for size in (1.0, 2.0, 0.5, 4.0):
        g = {"w": jnp.array([3.0, 4.0]) * size, "none": None}
        updates, state = tx.update(g, state, params)
    facts = gdtx.describe(tx, state, updates, params)
    assert facts["norm_in"] == facts["grad_norm"] == pytest.approx(20)
    assert facts["norm_out"] == pytest.approx(5)
    assert (facts["clip_rate"], facts["step"]) == (0.5, 4)
    inside = jax.jit(lambda state: gdtx.describe(tx, state))(state)
    assert inside["clip_rate"] == 0.5
    assert facts["update_norm"] == pytest.approx(1e-3 * 2**0.5, rel=0.2)
    assert gdtx.describe(tx, state, grads={"w": jnp.ones(1)})["grad_norm"] == 1
    assert gdtx.describe(tx, tx.init(params))["clip_rate"] == 0


def test_reports_of_several_have_their_paths():
    clip = gdtx.remember(gdtx.clip_by_global_norm(1.0))
    tx = gdtx.chain(clip, gdtx.remember(gdtx.chain(clip, gdtx.sgd(0.5))), gdtx.reduce_on_plateau())
    params = jnp.array([3.0, 4.0])
    _, state = tx.update(params, tx.init(params), params, value=1.0)
    facts = gdtx.describe(tx, state)
    wanted = {
        "0.norm_in": 5, "0.norm_out": 1, "0.clip_rate": 1, "1.norm_in": 1, "1.norm_out": 0.5,
        "1.clip_rate": 1, "1.0.norm_in": 1, "1.0.norm_out": 1, "1.0.clip_rate": 0, "grad_norm": 5,
        "plateau_scale": 1, "step": 1,
    }  # fmt: skip
    assert facts == pytest.approx(facts | wanted)
    assert "clip_rate" not in facts


def test_describe_reports_skips_and_waits():
    tx = gdtx.skip_nonfinite(gdtx.accumulate_gradients(gdtx.adam(0.1), 2))
    params = jnp.ones(2)
    state = tx.init(params)
    for g in (1.0, 1.0, 1.0, jnp.nan, jnp.nan):
        _, state = tx.update(params * g, state, params)
    facts = gdtx.describe(tx, state)
    wanted = {"skipped": 2, "consecutive_skipped": 2, "micro_step": 1, "step": 1}
    assert facts == facts | wanted
    assert not any(isinstance(value, jax.Array) for value in facts.values())


def test_step_is_the_number_of_updates_wherever_counts_are():
    schedule = gdtx.scale_by_schedule(lambda t: 1.0)
    waits = gdtx.accumulate_gradients(gdtx.sgd(0.1), 3)
    for tx in (gdtx.chain(schedule, waits), gdtx.chain(waits, schedule), gdtx.average(waits)):
        state = trained(tx)[1]
        assert gdtx.describe(tx, state)["step"] == 2
