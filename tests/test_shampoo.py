"""Shampoo against the papers, step by step, and the identities that they state."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import oracles_matrix
import pytest
from matrix_samples import STEPS, gradients_and_params, near, trajectory

import gdtx

EVERY = {"every": 13, "start": 4}  # roots at the steps 4, 17, 30, 43 and 56
SETTINGS = {
    "sums": {"b1": 0.0, "b2": 1.0, "every": 1, "eps": 1e-3},
    "averages": {"b1": 0.9, "b2": 0.95, "eps": 1e-3, "weight_decay": 0.1, **EVERY},
    "stale": {"b1": 0.5, "b2": 1.0, "eps": 1e-2, "exponent": -0.35, "stale": True, **EVERY},
}
MORE = {
    "newton": {"roots.method": "newton"},
    "one at a time": {"roots.batch_size": 1, "blocks.stacked": False},
}


def shampoo(every, start=1, stale=False, **settings):
    """With its options named as the oracle names them."""
    return gdtx.shampoo(0.1, **settings, roots=gdtx.Roots(every, start, stale))


@pytest.mark.parametrize("name", SETTINGS)
def test_trajectory_is_that_of_the_papers(name, x64):
    gradients, params = gradients_and_params(few=name != "sums")
    got, _ = trajectory(shampoo(**SETTINGS[name]), gradients, params)
    for leaf, g in gradients.items():
        want = oracles_matrix.shampoo(g, params[leaf], 0.1, **SETTINGS[name])
        assert got[leaf].dtype == np.float64
        near(got[leaf], want, atol=1e-10, err_msg=leaf)


@pytest.mark.first(1)
@pytest.mark.parametrize("name", MORE)
def test_how_roots_are_computed_changes_no_number(name, x64):
    gradients, params = gradients_and_params(few=True)
    tx = shampoo(**SETTINGS["averages"])
    usual, _ = trajectory(tx, gradients, params)
    got, state = trajectory(gdtx.replace(tx, MORE[name]), gradients, params)
    assert gdtx.find(state, "failures") == 0
    for leaf in gradients:
        near(got[leaf], usual[leaf], atol=1e-9, err_msg=leaf)


def test_float32_follows_float64():
    """As far as the last digits of float32, over the condition number, allow."""
    gradients, params = gradients_and_params(few=True)
    settings = SETTINGS["averages"]
    single = jax.tree.map(lambda x: x.astype(np.float32), (gradients, params))
    got, _ = trajectory(shampoo(**settings), *single)
    for leaf, g in gradients.items():
        want = oracles_matrix.shampoo(g, params[leaf], 0.1, **settings)
        assert got[leaf].dtype == np.float32
        near(got[leaf], want, atol=2e-3, err_msg=leaf)


def test_grafted(x64):
    gradients, params = gradients_and_params(few=True)
    settings = {**SETTINGS["averages"], "start": 20}
    tx = shampoo(**settings, graft=gdtx.scale_by_adam())
    got, _ = trajectory(tx, gradients, params)
    for leaf, g in gradients.items():
        adam = oracles.adam(g, params[leaf], 1.0)
        want = oracles_matrix.grafted_shampoo(g, params[leaf], 0.1, adam, **settings)
        near(got[leaf], want, atol=1e-10, err_msg=leaf)


def test_before_its_start_a_grafted_step_is_that_of_the_graft():
    gradients, params = gradients_and_params(few=True)
    tx = gdtx.shampoo(0.1, roots=gdtx.Roots(start=STEPS + 1), graft=gdtx.scale_by_adam())
    got, _ = trajectory(tx, gradients, params)
    want, _ = trajectory(gdtx.adam(0.1), gradients, params)
    jax.tree.map(np.testing.assert_array_equal, got, want)


def first_step(gradients, **settings):
    tx = gdtx.scale_by_shampoo(**{"b1": 0.0, "b2": 1.0, **settings}, roots=gdtx.Roots(1))
    updates, _ = trajectory(tx, {k: g[None] for k, g in gradients.items()}, gradients)
    return {k: np.asarray(u[0]) for k, u in updates.items()}


@pytest.mark.parametrize("settings", [{}, {"b1": 0.9, "b2": 0.9}], ids=["sums", "averages"])
def test_first_step_is_the_polar_factor(settings, x64):
    g = np.random.default_rng(0).normal(size=(5, 3))
    gradients = {"tall": g, "square": g[:3]}
    got = first_step(gradients, eps=1e-14, **settings)
    for name, atol in {"tall": 1e-6, "square": 1e-9}.items():
        u, _, vt = np.linalg.svd(gradients[name], full_matrices=False)
        np.testing.assert_allclose(got[name], u @ vt, atol=atol)


def test_first_step_is_that_of_muon_made_exact(x64):
    g = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)))
    exact = gdtx.orthogonalize(gdtx.Polar("exact"))
    muon, _ = exact.update(g, exact.init(g))
    np.testing.assert_allclose(first_step({"w": g}, eps=1e-14)["w"], muon, atol=1e-9)


def test_constant_gradients_act_on_singular_values(x64):
    g = np.random.default_rng(1).normal(size=(4, 4))
    u, s, vt = np.linalg.svd(g)
    eps = 0.3
    tx = gdtx.shampoo(1.0, b1=0.0, b2=1.0, eps=eps, roots=gdtx.Roots(1))
    got, _ = trajectory(tx, {"g": np.stack([g] * 7)}, {"g": g})
    for step, update in enumerate(got["g"], 1):
        want = -u @ np.diag(s / np.sqrt(step * s**2 + eps)) @ vt
        np.testing.assert_allclose(update, want, rtol=1e-10)


def test_diagonal_gradients_are_those_of_adagrad(x64):
    diagonals = np.random.default_rng(2).normal(size=(STEPS, 4))
    gradients = {"w": diagonals[:, :, None] * np.eye(4)}
    tx = shampoo(1, b1=0.0, b2=1.0, eps=1e-6)
    got, _ = trajectory(tx, gradients, {"w": np.zeros((4, 4))})
    want = oracles.adagrad(diagonals, np.zeros(4), 0.1, initial_accumulator_value=0.0, eps=1e-6)
    np.testing.assert_allclose(got["w"], want[:, :, None] * np.eye(4), rtol=1e-10, atol=1e-14)


def test_on_vectors_it_is_full_matrix_adagrad(x64):
    rng = np.random.default_rng(3)
    g = rng.normal(size=(STEPS, 5))
    settings = {"b1": 0.0, "b2": 1.0, "eps": 1e-3, "every": 1}
    (got, _), (named, _) = (
        trajectory(shampoo(**settings, exponent=exponent), {"v": g}, {"v": g[0]})
        for exponent in (None, -1 / 2)
    )
    total = 1e-3 * np.eye(5)
    for step in range(STEPS):
        total = total + np.outer(g[step], g[step])
        values, vectors = np.linalg.eigh(total)
        want = -0.1 * vectors @ (vectors.T @ g[step] / np.sqrt(values))
        np.testing.assert_allclose(got["v"][step], want, rtol=1e-9)
    np.testing.assert_array_equal(got["v"], named["v"])


def test_order_of_the_exponent(x64):
    """-1/4 of matrices, -1/6 and -1/8 of tensors: a gradient c times as large changes nothing in
    the first step, and it would at any other power."""
    rng = np.random.default_rng(4)
    gradients = {str(k): rng.normal(size=(2,) * k) for k in (1, 2, 3, 4)}
    larger = {name: 100 * g for name, g in gradients.items()}
    steps = [first_step(each, eps=1e-12) for each in (gradients, larger)]
    for name in gradients:
        np.testing.assert_allclose(*(step[name] for step in steps), rtol=1e-6)


def test_blocks_are_parameters_of_their_own(x64):
    g = np.random.default_rng(5).normal(size=(STEPS, 5, 4))
    settings = {"b1": 0.9, "b2": 0.9, "eps": 1e-3, "every": 7}
    whole, _ = trajectory(shampoo(**settings, blocks=gdtx.Blocks(2)), {"w": g}, {"w": g[0]})
    for i in (0, 2, 4):
        for j in (0, 2):
            here = (slice(None), slice(i, i + 2), slice(j, j + 2))
            alone = oracles_matrix.shampoo(g[here], g[0][here[1:]], 0.1, **settings)
            np.testing.assert_allclose(whole["w"][here], alone, rtol=1e-9, atol=1e-11)


def test_merged_dimensions_are_a_reshape(x64):
    g = np.random.default_rng(6).normal(size=(STEPS, 2, 3, 4, 5))
    settings = {"b1": 0.9, "b2": 0.9, "eps": 1e-3, "every": 7}
    merged, _ = trajectory(
        shampoo(**settings, blocks=gdtx.Blocks(merge_size=6)), {"w": g}, {"w": g[0]}
    )
    flat = g.reshape(STEPS, 6, 4, 5)
    shaped = oracles_matrix.shampoo(flat, flat[0], 0.1, **settings)
    near(merged["w"].reshape(flat.shape), shaped, atol=1e-10)
