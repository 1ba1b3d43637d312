"""Full-matrix AdaGrad: against its oracle on leaves of every shape, and what it must be."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from compilations import counted_compilations
from matrix_samples import trajectory
from test_sharding import PLACES, described

import gdtx

STEPS = 60
SHAPES = {
    "rank two": (3, 4), "scalar": (), "three": (2, 3, 2), "empty": (0, 4), "complex": (3, 2),
}  # fmt: skip
SETTINGS = {"dense": {}, "blocks": {"block_size": 5}, "window": {"window": 7}}

by_setting = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)


def problem(shapes=SHAPES, steps=STEPS, seed=0):
    rng = np.random.default_rng(seed)
    gradients = {}
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        # Numbers that go together, so that the matrix is far from diagonal.
        mix = rng.normal(size=(2 if name == "rank two" else size, size))
        phase = np.exp(1j * np.arange(steps))[:, None] if "complex" in name else 1
        gradients[name] = (phase * rng.normal(size=(steps, len(mix))) @ mix).reshape(steps, *shape)
    params = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    return gradients, {name: p.astype(gradients[name].dtype) for name, p in params.items()}


@by_setting
def test_trajectory(settings, x64):
    gradients, params = problem()
    got, _ = trajectory(gdtx.full_matrix_adagrad(0.1, **settings), gradients, params)
    for name, g in gradients.items():
        want = oracles.full_matrix_adagrad(g, params[name], 0.1, **settings)
        # Eigenvalues of 1e-16 of the largest are rounding; beside eps = 1e-7 the error is 1e-9.
        np.testing.assert_allclose(got[name], want, rtol=0, atol=1e-9, err_msg=name)


def test_window_is_the_whole_sum_while_it_holds_all(x64):
    gradients, params = problem({"w": (4, 3)}, steps=12)
    dense, window = (
        trajectory(gdtx.full_matrix_adagrad(0.1, window=k), gradients, params)[0]["w"]
        for k in (None, 9)
    )
    np.testing.assert_allclose(window[:9], dense[:9], rtol=0, atol=1e-9)
    assert np.max(np.abs(window[9:] - dense[9:])) > 1e-3


def test_is_adagrad_where_matrices_are_diagonal(x64):
    """Of single numbers, in blocks of one, and where no two numbers are other than 0 at once."""
    rng = np.random.default_rng(0)
    size = 10.0 ** rng.uniform(-3, 3, (40, 6))
    one_hot = np.eye(6)[rng.integers(6, size=40)]
    whole = {"number": rng.normal(size=40), "one hot": size * one_hot}
    for gradients, block_size in ((whole, None), ({"w": size * rng.normal(size=(40, 6))}, 1)):
        params = {name: np.zeros(g.shape[1:]) for name, g in gradients.items()}
        full = gdtx.full_matrix_adagrad(0.1, eps=1e-6, block_size=block_size)
        got, _ = trajectory(full, gradients, params)
        for name, g in gradients.items():
            want = oracles.adagrad(g, params[name], 0.1, initial_accumulator_value=0.0, eps=1e-6)
            np.testing.assert_allclose(got[name], want, rtol=1e-8, atol=1e-12)


def test_blocks_are_independent_parameters(x64):
    gradients, _ = problem({"w": (13,)}, steps=10)
    g = gradients["w"]
    got, _ = trajectory(gdtx.full_matrix_adagrad(0.1, block_size=8), g, np.zeros(13))
    for part in (slice(0, 7), slice(7, 13)):
        alone = oracles.full_matrix_adagrad(g[:, part], np.zeros(g[:, part].shape[1]), 0.1)
        np.testing.assert_allclose(got[:, part], alone, rtol=0, atol=1e-9)


def test_float32_takes_no_step_into_the_unknown():
    """Where there was no gradient, rounding over a root of eps would be a step all the same."""
    gradients, params = problem({"rank two": (30,)})
    got = trajectory(
        gdtx.full_matrix_adagrad(1.0, eps=1e-10), jax.tree.map(np.float32, gradients),
        jax.tree.map(np.float32, params),
    )[0]["rank two"]  # fmt: skip
    assert got.dtype == np.float32
    want = oracles.full_matrix_adagrad(gradients["rank two"], params["rank two"], 1.0, eps=1e-10)
    np.testing.assert_allclose(got, want, atol=2e-3)


def test_of_zeros_is_zero_without_eps():
    for settings in SETTINGS.values():
        tx = gdtx.full_matrix_adagrad(0.1, eps=0.0, **settings)
        params = jnp.zeros(6)
        updates, state = jax.jit(tx.update)(params, tx.init(params))
        np.testing.assert_array_equal(updates, 0)
        chex.assert_tree_all_finite(state)


def descended(tx):
    """The sum of the squares of some numbers after a few steps towards 1."""
    params = jnp.array([0.5, -1.0, 2.0])

    def one(carry, _):
        params, state = carry
        updates, state = tx.update(params - 1, state, params)
        return (gdtx.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(one, (params, tx.init(params)), length=3)
    return jnp.sum(params**2)


@pytest.mark.first(1)
@by_setting
def test_derivatives_and_vmap(settings, x64):
    """In the rate and in eps, of one or of several; and at zero, where eigenvalues coincide."""
    values, h = {"learning_rate": 0.1, "eps": 0.01}, 1e-5
    moved = [values] + [{**values, k: v + d} for k, v in values.items() for d in (h, -h)]
    stacked = {name: jnp.array([row[name] for row in moved]) for name in values}
    losses = jax.jit(jax.vmap(descended))(gdtx.full_matrix_adagrad(**stacked, **settings))
    tx = gdtx.full_matrix_adagrad(**jax.tree.map(jnp.asarray, values), **settings)
    value, gradient = jax.jit(jax.value_and_grad(descended))(tx)
    np.testing.assert_allclose(losses[0], value)
    for name, (up, down) in zip(values, np.reshape(losses[1:], (2, 2)), strict=True):
        np.testing.assert_allclose(gradient.arguments[name], (up - down) / (2 * h), rtol=1e-5)

    def last(g):
        tx = gdtx.full_matrix_adagrad(0.1, **settings)

        def step(state, _):
            updates, state = tx.update(g, state)
            return state, jnp.sum(updates)

        return jax.lax.scan(step, tx.init(g), length=2)[1][-1]

    chex.assert_tree_all_finite(jax.jit(jax.value_and_grad(last))(jnp.zeros(6)))


@pytest.mark.first(1)
@by_setting
def test_state_is_born_final(settings):
    """Of parameters of little precision, and of complex ones beside them."""
    rng = np.random.default_rng(0)
    params = {
        "w": jnp.asarray(rng.normal(size=(3, 2)), jnp.bfloat16),
        "z": jnp.asarray(rng.normal(size=(3, 2)), jnp.complex64),
        "nested": (jnp.asarray(1.5, jnp.complex64), jnp.zeros((0, 2), jnp.bfloat16), None),
    }
    gradients = jax.tree.map(np.ones_like, params)
    tx = gdtx.full_matrix_adagrad(0.1, **settings)
    state = tx.init(params)
    first = described(state)
    step = jax.jit(tx.update, donate_argnums=1)
    updates, state = step(gradients, state)
    assert described(state) == first
    assert [u.dtype for u in jax.tree.leaves(updates)] == [p.dtype for p in jax.tree.leaves(params)]
    # Its own scalar is a real number where the parameter is complex: squares are.
    jax.eval_shape(tx.update, jax.tree.map(lambda g: g.real, gradients), state)


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_one_by_one_and_uncompiled(settings, x64):
    tx, params = gdtx.full_matrix_adagrad(0.1, **settings), jnp.array([0.5, -1.0, 2.0])

    def two_steps():
        state, seen = tx.init(params), []
        for g in (params, 1 - params):
            updates, state = tx.update(g, state, params)
            seen.append(updates)
        return seen

    compiled = two_steps()
    with jax.disable_jit():
        chex.assert_trees_all_close(two_steps(), compiled, rtol=1e-7)


@by_setting
def test_is_data(settings):
    tx = gdtx.full_matrix_adagrad(0.1, **settings)
    assert eval(repr(tx), vars(gdtx)) == tx
    assert gdtx.expand(tx) != tx
    assert tx.update({}, tx.init({}))[0] == {}


@pytest.mark.first(1)
@by_setting
@pytest.mark.parametrize("place", ["device 3", "automatic", "explicit"])
@pytest.mark.diagonal
def test_sharding(settings, place):
    gradients = {"w": np.float32(problem({"w": (8, 4)}, steps=3)[0]["w"]), "s": np.ones(3, "f")}
    tx = gdtx.full_matrix_adagrad(0.1, **settings)
    want, _ = trajectory(tx, gradients, {"w": np.zeros((8, 4), "f"), "s": np.float32(0)})
    with PLACES[place]() as put:
        params = put({"w": np.zeros((8, 4), np.float32), "s": np.float32(0)})
        state = tx.init(params)
        born = described(state)
        assert {x.sharding.device_set == params["w"].sharding.device_set
                for x in jax.tree.leaves(state)} == {True}  # fmt: skip
        assert {x.committed for x in jax.tree.leaves(state)} == {params["w"].committed}
        step = jax.jit(functools.partial(tx.update), donate_argnums=1)
        compiled = 0
        for i in range(3):
            g = put({name: x[i] for name, x in gradients.items()})
            with counted_compilations() as compilations:
                updates, state = step(g, state)
            compiled += len(compilations)
            assert described(state) == born
            for name in g:
                np.testing.assert_allclose(updates[name], want[name][i], atol=1e-4)
        assert compiled == 1


def test_errors():
    large = {"a": jnp.zeros(2), "w": jax.ShapeDtypeStruct((300, 400), jnp.float32)}
    message = r"params\['w'\] has 120000 numbers, and their matrix would take 53.6 GiB: give a"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(gdtx.full_matrix_adagrad(0.1).init, large)
    jax.eval_shape(gdtx.full_matrix_adagrad(0.1, window=2).init, large)
    jax.eval_shape(gdtx.full_matrix_adagrad(0.1, block_size=100).init, large)
    with pytest.raises(ValueError, match="a window needs no blocks, got block_size=2 and window=3"):
        gdtx.full_matrix_adagrad(0.1, block_size=2, window=3)
    for settings in ({"block_size": 0}, {"window": 0}):
        with pytest.raises(ValueError, match="must be a positive integer, got 0"):
            gdtx.full_matrix_adagrad(0.1, **settings)
    for settings, expected in ((SETTINGS["blocks"], "matrices"), (SETTINGS["window"], "gradients")):
        tx = gdtx.full_matrix_adagrad(0.1, **settings)
        with pytest.raises(ValueError, match=f"another transformation: expected . {expected} of"):
            tx.update(jnp.zeros(9), tx.init(jnp.zeros(2)))
