"""Full-matrix AdaGrad: against its oracle on leaves of every shape, and what it must be."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from compilations import counted_compilations
from test_methods import trajectory
from test_sharding import PLACES, described

import gdtx

STEPS = 60
SHAPES = {
    "matrix": (4, 3), "rank two": (3, 4), "row": (1, 5), "column": (5, 1), "scalar": (),
    "three": (2, 3, 2), "four": (2, 1, 3, 2), "empty": (0, 4),
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
        gradients[name] = (rng.normal(size=(steps, len(mix))) @ mix).reshape(steps, *shape)
    return gradients, {name: rng.normal(size=shape) for name, shape in shapes.items()}


@by_setting
@pytest.mark.parametrize("is_complex", [False, True], ids=["real", "complex"])
def test_trajectory(settings, is_complex, x64):
    shapes = {"matrix": (4, 3), "scalar": ()} if is_complex else SHAPES
    gradients, params = problem(shapes)
    if is_complex:
        phases = problem(shapes, seed=1)[0]
        gradients = {name: g + 1j * phases[name] for name, g in gradients.items()}
        params = {name: p + 0j for name, p in params.items()}
    got = trajectory(gdtx.full_matrix_adagrad(0.1, **settings), gradients, params)
    for name, g in gradients.items():
        want = oracles.full_matrix_adagrad(g, params[name], 0.1, **settings)
        # Eigenvalues of 1e-16 of the largest are rounding; beside eps = 1e-7 the error is 1e-9.
        np.testing.assert_allclose(got[name], want, rtol=0, atol=1e-9, err_msg=name)


def test_window_is_the_whole_sum_while_it_holds_all(x64):
    gradients, params = problem({"matrix": (4, 3), "rank two": (3, 4)}, steps=12)
    dense, window = (
        trajectory(gdtx.full_matrix_adagrad(0.1, window=k), gradients, params) for k in (None, 9)
    )
    for name, want in dense.items():
        np.testing.assert_allclose(window[name][:9], want[:9], rtol=0, atol=1e-9, err_msg=name)
    assert np.max(np.abs(window["matrix"][9:] - dense["matrix"][9:])) > 1e-3


def test_is_adagrad_where_matrices_are_diagonal(x64):
    """Of single numbers, in blocks of one, and where no two numbers are other than 0 at once."""
    rng = np.random.default_rng(0)
    size = 10.0 ** rng.uniform(-3, 3, (40, 6))
    one_hot = np.eye(6)[rng.integers(6, size=40)]
    cases = [
        (rng.normal(size=40), None), (size * rng.normal(size=(40, 6)), 1), (size * one_hot, None)
    ]  # fmt: skip
    for gradients, block_size in cases:
        params = jnp.zeros(gradients.shape[1:])
        full = gdtx.full_matrix_adagrad(0.1, eps=1e-6, block_size=block_size)
        want = trajectory(gdtx.adagrad(0.1, 0.0, eps=1e-6), gradients, params)
        np.testing.assert_allclose(trajectory(full, gradients, params), want, rtol=1e-8, atol=1e-12)


def test_blocks_are_independent_parameters(x64):
    gradients, _ = problem({"w": (13,)}, steps=10)
    g = gradients["w"]
    got = trajectory(gdtx.full_matrix_adagrad(0.1, block_size=8), g, np.zeros(13))
    for part in (slice(0, 7), slice(7, 13)):
        alone = trajectory(gdtx.full_matrix_adagrad(0.1), g[:, part], np.zeros(g[:, part].shape[1]))
        np.testing.assert_allclose(got[:, part], alone, rtol=0, atol=1e-9)


def test_float32_takes_no_step_into_the_unknown():
    """Where there was no gradient, rounding over a root of eps would be a step all the same."""
    gradients, params = problem({"rank two": (30,)})
    got = trajectory(
        gdtx.full_matrix_adagrad(1.0, eps=1e-10), jax.tree.map(np.float32, gradients),
        jax.tree.map(np.float32, params),
    )["rank two"]  # fmt: skip
    assert got.dtype == np.float32
    want = oracles.full_matrix_adagrad(gradients["rank two"], params["rank two"], 1.0, eps=1e-10)
    np.testing.assert_allclose(got, want, atol=2e-3)


def test_of_zeros_is_zero_without_eps():
    for settings in SETTINGS.values():
        tx = gdtx.full_matrix_adagrad(0.1, eps=0.0, **settings)
        params = jnp.zeros(6)
        updates, state = tx.update(params, tx.init(params))
        np.testing.assert_array_equal(updates, 0)
        chex.assert_tree_all_finite(state)


def loss(tx, steps=3):
    params = jnp.array([0.5, -1.0, 2.0])
    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update(params - 1, state, params)
        params = gdtx.apply_updates(params, updates)
    return jnp.sum(params**2)


@by_setting
def test_derivatives(settings, x64):
    """In the rate and in eps; and at zero, where eigenvalues coincide."""
    tx = gdtx.full_matrix_adagrad(jnp.asarray(0.1), eps=jnp.asarray(0.01), **settings)
    gradient, run, h = jax.jit(jax.grad(loss))(tx), jax.jit(loss), 1e-5
    for name, value in (("learning_rate", 0.1), ("eps", 0.01)):
        sides = [run(tx.replace(**{name: jnp.asarray(value + side * h)})) for side in (1, -1)]
        difference = (sides[0] - sides[1]) / (2 * h)
        np.testing.assert_allclose(gradient.arguments[name], difference, rtol=1e-5)

    def last(g):
        tx = gdtx.full_matrix_adagrad(0.1, **settings)
        state = tx.init(g)
        for _ in range(2):
            updates, state = tx.update(g, state)
        return jnp.sum(updates)

    chex.assert_tree_all_finite(jax.jit(jax.value_and_grad(last))(jnp.zeros(6)))


def some_params(dtype):
    key = jax.random.key(0)
    return {
        "w": jax.random.normal(key, (3, 2)).astype(dtype),
        "nested": (jnp.asarray(1.5, dtype).reshape(()), jnp.zeros((0, 2), dtype), None),
    }


@by_setting
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.complex64], ids=["bfloat16", "complex64"])
def test_state_is_born_final(settings, dtype):
    params = some_params(dtype)
    gradients = jax.tree.map(jnp.ones_like, params)
    tx = gdtx.full_matrix_adagrad(0.1, **settings)
    state = tx.init(params)
    first = described(state)
    updates, state = jax.jit(tx.update, donate_argnums=1)(gradients, state)
    assert described(state) == first
    assert {u.dtype for u in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}
    # Its own scalar is a real number where the parameter is complex: squares are.
    real = jax.tree.map(lambda g: g.real, gradients)
    tx.update(real, state)


@by_setting
def test_vmap_and_data(settings, x64):
    rates = jnp.array([0.01, 0.1])
    batched = jax.jit(jax.vmap(loss))(gdtx.full_matrix_adagrad(rates, **settings))
    for rate, value in zip((0.01, 0.1), batched, strict=True):
        # One update by one: every one its own dispatch, of the same program.
        np.testing.assert_allclose(value, loss(gdtx.full_matrix_adagrad(rate, **settings)))
    tx = gdtx.full_matrix_adagrad(0.1, **settings)
    with jax.disable_jit():
        np.testing.assert_allclose(loss(tx), batched[1])
    assert eval(repr(tx), vars(gdtx)) == tx
    assert gdtx.expand(tx) != tx
    assert tx.update({}, tx.init({}))[0] == {}


@by_setting
@pytest.mark.parametrize("place", ["device 3", "automatic", "explicit"])
def test_placement(settings, place):
    gradients = {"w": np.float32(problem({"w": (8, 4)}, steps=3)[0]["w"]), "s": np.ones(3, "f")}
    tx = gdtx.full_matrix_adagrad(0.1, **settings)
    want = trajectory(tx, gradients, {"w": np.zeros((8, 4), "f"), "s": np.float32(0)})
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
