"""Every method against its oracle, step by step, and what all of them must do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everything import METHODS, by_kind

import gdtx

STEPS = 200
SHAPES = {"matrix": (3, 2), "scalar": (), "empty": (0, 4)}

by_method = pytest.mark.parametrize("name", METHODS)


def gradients_and_params(seed=0, dtype=np.float64, low=-8, high=8):
    rng = np.random.default_rng(seed)

    def some(*shape):
        size = 10.0 ** rng.uniform(low, high, shape)
        return (rng.choice([-1.0, 1.0], shape) * size).astype(dtype)

    gradients = {name: some(STEPS, *shape) for name, shape in SHAPES.items()}
    return gradients, {name: rng.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()}


def trajectory(tx, gradients, params):
    """The updates of all steps, in one scan."""

    def step(carry, g):
        params, state = carry
        updates, state = tx.update(g, state, params)
        return (gdtx.apply_updates(params, updates), state), updates

    params = jax.tree.map(jnp.asarray, params)
    return jax.jit(lambda: jax.lax.scan(step, (params, tx.init(params)), gradients)[1])()


def expected(method, gradients, params, learning_rate=None):
    learning_rate = method.learning_rate if learning_rate is None else learning_rate
    return {name: method.oracle(gradients[name], params[name], learning_rate) for name in SHAPES}


@by_method
def test_trajectory_in_float64(name, x64):
    method = METHODS[name]
    gradients, params = gradients_and_params()
    got = trajectory(method.make(method.learning_rate), gradients, params)
    for leaf, want in expected(method, gradients, params).items():
        assert got[leaf].dtype == np.float64
        np.testing.assert_allclose(got[leaf], want, rtol=1e-12, atol=0, err_msg=leaf)


@by_kind
@pytest.mark.usefixtures("optimized")
def test_trajectory_in_float32(name):
    method = METHODS[name]
    # Positive, so that nothing cancels and the last place of an update is a fair unit; of
    # magnitudes whose squares float32 still holds.
    gradients, params = gradients_and_params(dtype=np.float32, low=-4, high=4)
    gradients = jax.tree.map(np.abs, gradients)
    params = jax.tree.map(lambda p: 10 + np.abs(p), params)
    got = trajectory(method.make(method.learning_rate), gradients, params)
    for leaf, want in expected(method, gradients, params).items():
        assert got[leaf].dtype == np.float32
        units = np.abs(got[leaf] - want) / np.spacing(np.abs(want).astype(np.float32))
        assert np.max(units, initial=0) <= method.ulps, leaf


@by_kind
def test_schedule(name, x64):
    method = METHODS[name]
    gradients, params = gradients_and_params(low=-2, high=2)
    schedule = gdtx.cosine_decay_schedule(0.1, STEPS, alpha=0.1)
    got = trajectory(method.make(schedule), gradients, params)

    def rate(step):
        return 0.1 * (0.9 * 0.5 * (1 + np.cos(np.pi * step / STEPS)) + 0.1)

    for leaf, want in expected(method, gradients, params, rate).items():
        np.testing.assert_allclose(got[leaf], want, rtol=1e-11, atol=0, err_msg=leaf)


@by_kind
def test_complex(name, x64):
    method = METHODS[name]
    if not method.is_complex:
        pytest.skip("defined for real numbers only")
    gradients, params = (
        {leaf: values * np.exp(1j * np.arange(values.size)).reshape(values.shape)
         for leaf, values in tree.items()}
        for tree in gradients_and_params(low=-2, high=2)
    )  # fmt: skip
    got = trajectory(method.make(method.learning_rate), gradients, params)
    for leaf, want in expected(method, gradients, params).items():
        assert got[leaf].dtype == np.complex128
        np.testing.assert_allclose(got[leaf], want, rtol=1e-11, atol=0, err_msg=leaf)
