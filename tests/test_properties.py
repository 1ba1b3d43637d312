"""What every method must do, written once over the table of methods."""

import copy
import math
import pickle

import chex
import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import counted_compilations
from everything import METHODS
from everything import by_kind as by_method

import gdtx

DTYPES = [jnp.float32, jnp.bfloat16, jnp.float16, jnp.complex64]


def some_params(dtype=jnp.float32):
    key = jax.random.key(0)
    return {
        "w": jax.random.normal(key, (3, 2)).astype(dtype),
        "nested": (jnp.asarray(1.5, dtype).reshape(()), jnp.zeros((0, 2), dtype), None),
    }


def make(name, learning_rate=None):
    method = METHODS[name]
    return method.make(method.learning_rate if learning_rate is None else learning_rate)


def trained(tx, steps=10, params=None):
    """Parameters after descending |p - 1|^2 / 2, in the plainest loop."""
    params = some_params(jnp.result_type(float)) if params is None else params
    state = tx.init(params)
    for _ in range(steps):
        params, state = descended(tx, params, state)
    return params


def descended(tx, params, state):
    updates, state = tx.update(jax.tree.map(lambda p: p - 1, params), state, params)
    return gdtx.apply_updates(params, updates), state


def scanned(tx, steps=10, params=None):
    """The same in a loop of the program, of which there is one step to trace and to compile."""
    params = some_params(jnp.result_type(float)) if params is None else params

    def step(carry, _):
        return descended(tx, *carry), None

    return jax.lax.scan(step, (params, tx.init(params)), length=steps)[0][0]


def loss(tx):
    return sum(jnp.sum(jnp.square(p)) for p in jax.tree.leaves(scanned(tx)))


def signature(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


@by_method
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: jnp.dtype(dtype).name)
@pytest.mark.diagonal
def test_one_compilation(name, dtype):
    if dtype == jnp.complex64 and not METHODS[name].is_complex:
        pytest.skip("defined for real numbers only")
    params = some_params(dtype)
    gradients = jax.tree.map(jnp.ones_like, params)
    tx = make(name)
    step = jax.jit(tx.update)
    state = tx.init(params)
    first = signature(state)
    _, state = step(gradients, state, params)
    _, state = tx.update(gradients, state, params)
    with counted_compilations() as compilations:
        for _ in range(3):
            _, state = step(gradients, state, params)
            _, state = tx.update(gradients, state, params)
            assert signature(state) == first
            # An equal transformation is the same program.
            make(name).update(gradients, state, params)
    assert compilations == []


def test_compilations_are_seen():
    """The counter that the tests around this one trust: a new program counts, an old one not."""
    program, x = jax.jit(lambda x: x * 12345), jnp.ones(3)
    for expected in (1, 0):
        with counted_compilations() as compilations:
            program(x)
        assert len(compilations) == expected


@by_method
def test_array_hyperparameters_share_a_compilation(name):
    params = some_params()
    rates = [jnp.asarray(rate) for rate in (0.005, 0.01, 0.015)]

    def step(rate):
        tx = make(name, rate)
        return tx.update(params, tx.init(params), params)[0]["w"]

    results = [step(rates[0])]
    with counted_compilations() as compilations:
        results += [step(rate) for rate in rates[1:]]
    assert compilations == []
    assert len({float(result[0, 0]) for result in results}) == 3


@by_method
def test_vmap_over_transformations_equals_the_loop(name):
    rates = jnp.array([0.01, 0.02, 0.05])
    train = jax.jit(scanned)
    batched = jax.jit(jax.vmap(scanned))(make(name, rates))
    for i, rate in enumerate(rates):
        one = train(make(name, rate))
        chex.assert_trees_all_close(jax.tree.map(lambda x: x[i], batched), one, rtol=1e-5)  # noqa: B023


@by_method
def test_hypergradient_equals_finite_differences(name, x64):
    rate = jnp.asarray(0.03)
    objective = jax.jit(lambda rate: loss(make(name, rate)))
    gradient = jax.jit(jax.grad(objective))(rate)
    h = 1e-6
    difference = (objective(rate + h) - objective(rate - h)) / (2 * h)
    np.testing.assert_allclose(gradient, difference, rtol=1e-5)


def test_hypergradient_of_every_adam_argument(x64):
    """Of those that are leaves, all at once: the gradient is a transformation too."""
    settings = {"learning_rate": 0.1, "b1": 0.8, "b2": 0.95, "eps": 1e-3, "eps_root": 1e-4}
    tx = gdtx.adam(**{name: jnp.asarray(value) for name, value in settings.items()})
    gradient = jax.grad(loss)(tx)
    for name, value in settings.items():
        h = 1e-6 * max(value, 1e-2)
        sides = [loss(tx.replace(**{name: jnp.asarray(value + side * h)})) for side in (1, -1)]
        difference = (sides[0] - sides[1]) / (2 * h)
        np.testing.assert_allclose(gradient.arguments[name], difference, rtol=1e-4)


@by_method
def test_jit_scan_loop_and_no_jit_agree(name):
    tx = make(name)
    plain = trained(tx)
    chex.assert_trees_all_close(scanned(tx), plain, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(jax.jit(lambda: trained(tx))(), plain, rtol=1e-5, atol=1e-6)
    with jax.disable_jit():
        chex.assert_trees_all_close(trained(tx), plain, rtol=1e-5, atol=1e-6)


@by_method
def test_vmap_over_parameters(name):
    tx = make(name)
    stacked = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), some_params())
    batched = jax.vmap(lambda params: scanned(tx, params=params))(stacked)
    for i in range(2):
        one = scanned(tx, params=jax.tree.map(lambda p: p[i], stacked))  # noqa: B023
        chex.assert_trees_all_close(jax.tree.map(lambda x: x[i], batched), one, rtol=1e-5)  # noqa: B023


@by_method
def test_derivatives_at_zero_gradients_are_finite(name):
    tx = make(name)

    def last_update(gradients):
        params = jax.tree.map(jnp.zeros_like, gradients)

        def step(state, _):
            updates, state = tx.update(gradients, state, params)
            return state, updates

        updates = jax.lax.scan(step, tx.init(params), length=10)[1]
        return sum(jnp.sum(u[-1]) for u in jax.tree.leaves(updates))

    value, derivative = jax.value_and_grad(last_update)(jax.tree.map(jnp.zeros_like, some_params()))
    chex.assert_tree_all_finite((value, derivative))


@by_method
def test_state_holds_the_stated_buffers(name):
    params = {"w": jnp.zeros((5, 7))}
    state = make(name).init(params)
    shapes = [leaf.shape for leaf in jax.tree.leaves(state)]
    if METHODS[name].buffers is None:
        # One buffer at most, and less than another beside it.
        assert sum(map(math.prod, shapes)) < 2 * 5 * 7
    else:
        assert shapes.count((5, 7)) == METHODS[name].buffers
        assert all(shape in [(5, 7), ()] for shape in shapes)


@by_method
@pytest.mark.parametrize("params", [{}, (), {"a": None}], ids=repr)
def test_trees_without_leaves(name, params):
    tx = make(name)
    updates, state = tx.update(params, tx.init(params), params)
    assert updates == params
    assert jax.tree.structure(state) == jax.tree.structure(tx.init(params))


@by_method
def test_fresh_state_can_be_donated(name):
    tx = make(name)

    def step(params, state, gradients):
        updates, state = tx.update(gradients, state, params)
        return gdtx.apply_updates(params, updates), state

    params = some_params()
    gradients = jax.tree.map(jnp.ones_like, params)
    carry = params, tx.init(params)
    for _ in range(2):
        carry = jax.jit(step, donate_argnums=(0, 1))(*carry, gradients)
    chex.assert_tree_all_finite(carry)


@by_method
def test_is_data(name):
    tx = make(name)
    assert tx == make(name)
    assert hash(tx) == hash(make(name))
    assert tx != make(name, 0.123)
    assert eval(repr(tx), vars(gdtx)) == tx
    copies = [copy.copy(tx), copy.deepcopy(tx), jax.tree.map(lambda x: x, tx)]
    copies += [library.loads(library.dumps(tx)) for library in (pickle, cloudpickle)]
    for same in copies:
        assert same == tx
        assert repr(same) == repr(tx)
    assert jax.tree.leaves(tx) == []
    assert tx.replace(learning_rate=0.123) == make(name, 0.123)


def test_arrays_of_other_dtypes_are_others():
    one, same, other = (gdtx.scale(jnp.ones((), t)) for t in ("float32", "float32", "float16"))
    assert one == same
    assert one != other


@by_method
def test_expansion_is_the_same_transformation(name):
    tx = make(name)
    formula = gdtx.expand(tx)
    assert formula != tx
    chex.assert_trees_all_equal(trained(formula), trained(tx))


@by_method
def test_extra_arguments_are_accepted(name):
    params = some_params()
    tx = make(name)
    with_extras = tx.update(
        params, tx.init(params), params, value=1.0, value_fn=sum, curvature=None
    )
    chex.assert_trees_all_equal(with_extras, tx.update(params, tx.init(params), params))
