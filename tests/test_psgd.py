"""PSGD against its rule, step by step, and what its factors do."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles_matrix
import pytest
from compilations import counted_compilations
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from matrix_samples import STEPS, gradients_and_params, near, trajectory
from test_sharding import described, draw, fresh_rate, on_mesh

import gdtx


def psgd(every=1, b1=0.9, weight_decay=0.0, **whitening):
    return gdtx.psgd(
        0.1, b1, weight_decay=weight_decay, whitening=gdtx.Whitening(every, **whitening)
    )


def first_scale(gradients, damping):
    fourth = max(np.mean(g[0] ** 4) for g in gradients.values() if g.size)
    return (fourth + damping**4) ** (-1 / 8)


def test_trajectory_is_that_of_the_rule(x64):
    gradients, params = gradients_and_params()
    for leaf in ("singular", "order 4", "column"):
        del gradients[leaf], params[leaf]
    got, state = trajectory(psgd(damping=0.0), gradients, params)
    scale = first_scale(gradients, 0.0)
    assert gdtx.find(state, "failures") == 0
    for leaf, g in gradients.items():
        if g.size:
            want = oracles_matrix.psgd(g, params[leaf], 0.1, damping=0.0, initial_scale=scale)
            near(got[leaf], want, atol=1e-9, err_msg=leaf)


@pytest.mark.parametrize("max_skew", [0, None], ids=["diagonals", "matrices"])
def test_trajectory_with_noise(x64, max_skew):
    gradients, params = gradients_and_params(few=True)
    gradients, params = ({"matrix": tree["matrix"]} for tree in (gradients, params))
    settings = {"every": 7, "rate": 0.3, "decay": 0.5, "damping": 0.5, "max_skew": max_skew}
    got, _ = trajectory(psgd(b1=0.0, weight_decay=0.1, seed=3, **settings), gradients, params)
    keys = [jax.random.fold_in(jax.random.key(3), t) for t in range(1, STEPS + 1)]
    noise = [jax.random.normal(jax.random.fold_in(key, 0), (1, 1, 1, 4, 3)) for key in keys]
    want = oracles_matrix.psgd(
        gradients["matrix"], params["matrix"], 0.1, b1=0.0, weight_decay=0.1, noise=np.array(noise),
        initial_scale=first_scale(gradients, 0.5), **settings,
    )  # fmt: skip
    near(got["matrix"], want, atol=1e-9)


def whitened(seed, shape, **whitening):
    """What comes out in the end of many correlated gradients."""
    rng = np.random.default_rng(seed)
    sides = [np.linalg.qr(rng.normal(size=(n, n)))[0] * np.logspace(0, 2, n) for n in shape]
    g = np.einsum("ij,tjk,lk->til", sides[0], rng.normal(size=(1500, *shape)), sides[1])
    settings = gdtx.Whitening(max_skew=None, **whitening)
    tx = gdtx.blockwise(gdtx.whiten(gdtx.identity(), settings))
    got, state = trajectory(tx, {"w": np.float32(g)}, {"w": np.float32(g[0])})
    return got["w"][-500:], state


def test_gradients_come_out_white():
    u, state = whitened(0, (3, 4))
    for axes in ("til,tjl->ij", "til,tim->lm"):
        moments = np.einsum(axes, u, u)
        n = len(moments)
        assert np.abs(moments * n / np.trace(moments) - np.eye(n)).max() < 0.25
    # Of a size near 1: steps of a share of the longest leave it a little below.
    assert 0.7 < np.sqrt(np.mean(u**2)) < 1
    # Rotated after each step, the factors are all but symmetric, and of one size.
    factors = [np.asarray(q)[0, 0, 0] for q in gdtx.find(state, "factors")["3x4"]]
    for q in factors:
        assert np.abs(q - q.T).max() < 0.02 * np.abs(q).max()
    sizes = [np.abs(q).max() for q in factors]
    np.testing.assert_allclose(*sizes, rtol=1e-5)


def test_scale_of_gradients_does_not_matter():
    g = np.random.default_rng(1).normal(size=(20, 4, 3)).astype(np.float32)
    tx = psgd(damping=0.0)
    one, _ = trajectory(tx, {"w": g}, {"w": g[0]})
    for factor in (2.0**-60, 2.0**60):
        other, state = trajectory(tx, {"w": factor * g}, {"w": g[0]})
        np.testing.assert_allclose(other["w"], one["w"], rtol=1e-4)
        assert gdtx.find(state, "failures") == 0


def test_what_is_not_finite_is_not_taken():
    g = jnp.ones((2, 3)).at[0, 1].set(2.0)
    tx = gdtx.blockwise(gdtx.whiten(gdtx.identity(), gdtx.Whitening(initial_scale=1e18)))
    _, state = tx.update({"w": g}, tx.init({"w": g}))
    assert gdtx.find(state, "failures") == 1
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(state))


def test_zeros_at_first_stay_zeros():
    tx = psgd(damping=0.0)
    zero = {"w": jnp.zeros((2, 3)), "b": jnp.zeros(3)}
    u, state = tx.update(zero, tx.init(zero), zero)
    assert all(np.all(np.asarray(x) == 0) for x in jax.tree.leaves(u))
    u, _ = tx.update(jax.tree.map(jnp.ones_like, zero), state, zero)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(u))


@pytest.mark.parametrize("seed", [0, jnp.asarray(0)], ids=["constant", "array"])
def test_one_program_and_numbers_that_go_on(seed):
    tx = psgd(damping=0.1, seed=seed)
    g = {"w": jnp.ones((2, 3))}
    state = tx.init(g)
    for _ in range(2):
        _, state = tx.update(g, state, g)
    again, _ = tx.update(g, state, g)
    copy = jax.tree.map(jnp.array, state)
    np.testing.assert_array_equal(tx.update(g, copy, g)[0]["w"], again["w"])


@pytest.mark.parametrize(
    "axis_type",
    [AxisType.Explicit, pytest.param(AxisType.Auto, marks=pytest.mark.slow)],
    ids=lambda t: t.name,
)
def test_state_is_born_final_where_the_blocks_are(axis_type):
    """Blocks of 2 by 2, four rows of them on four devices and two columns on two."""

    def some(seed):
        return {key: x for key, x in draw(seed).items() if key in ("w", "b")}

    rate = fresh_rate()
    tx = gdtx.psgd(rate, whitening=gdtx.Whitening(2, damping=0.1), blocks=gdtx.Blocks(2))
    with on_mesh(axis_type) as put:
        params, gradients = put(some(0)), [put(some(1 + i)) for i in range(3)]
        state = tx.init(params)
        born = described(state)
        factor = gdtx.find(state, "factors")["4x2 of 2x2"][0]
        where = NamedSharding(factor.sharding.mesh, PartitionSpec(None, "data", "model"))
        assert factor.sharding.is_equivalent_to(where, factor.ndim)
        with counted_compilations() as compilations:
            for g in gradients:
                updates, state = tx.update(g, state, params)
                assert described(state) == born
        assert len(compilations) == 1
        assert all(u.sharding == params[key].sharding for key, u in updates.items())
    plain, gradients = some(0), [some(1 + i) for i in range(3)]
    state = tx.init(jax.tree.map(jnp.asarray, plain))
    for g in gradients:
        want, state = tx.update(g, state, plain)
    for key, u in updates.items():
        np.testing.assert_allclose(u / rate, want[key] / rate, rtol=2e-3, atol=2e-3)
