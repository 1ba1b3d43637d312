"""SOAP against its paper, step by step, and what it says about Adam."""

import numpy as np
import oracles_matrix
import pytest
from matrix_samples import STEPS, gradients_and_params, near, trajectory

import gdtx

# A basis from fewer gradients than dimensions has vectors that are anyone's choice: from step 6 on
# there are enough. Turned at the steps 6, 19, 32, 45 and 58.
EVERY = {"eps": 1e-3, "every": 13, "start": 6}
SETTINGS = {
    "usual": {"weight_decay": 0.1, **EVERY},
    "fresh, other decays": {"b1": 0.5, "b2": 0.9, "b3": 0.99, "stale": False, **EVERY},
}


def soap(every, start, stale=True, **settings):
    """With its options named as the oracle names them."""
    return gdtx.soap(0.1, **settings, bases=gdtx.Bases(every, start, stale))


@pytest.mark.first(1)
@pytest.mark.parametrize("name", SETTINGS)
def test_trajectory_is_that_of_the_paper(name, x64):
    gradients, params = gradients_and_params(few=name != "usual")
    got, state = trajectory(soap(**SETTINGS[name]), gradients, params)
    assert gdtx.find(state, "failures") == 0
    for leaf, g in gradients.items():
        want = oracles_matrix.soap(g, params[leaf], 0.1, **SETTINGS[name])
        assert got[leaf].dtype == np.float64
        near(got[leaf], want, atol=1e-8, err_msg=leaf)


def test_in_the_identity_basis_it_is_adam(x64):
    gradients, params = gradients_and_params(few=True)
    got, _ = trajectory(gdtx.soap(0.1, bases=gdtx.Bases(start=STEPS + 1)), gradients, params)
    want, _ = trajectory(gdtx.adam(0.1, b1=0.95, b2=0.95), gradients, params)
    for leaf in gradients:
        np.testing.assert_allclose(got[leaf], want[leaf], rtol=1e-12, atol=1e-14)


def test_second_moments_are_sorted_with_the_basis(x64):
    """Diagonal second moments whose order turns around: every refresh permutes, and SOAP, which
    only permutes the axes of such gradients, stays Adam."""
    rng = np.random.default_rng(0)
    sizes = np.array([[1.0, 5.0, 25.0], [25.0, 5.0, 1.0]])[(np.arange(STEPS) // 15) % 2]
    # One number a step: the second moments along both axes stay diagonal.
    g = np.zeros((STEPS, 3, 3))
    for step in range(STEPS):
        i, j = rng.integers(3, size=2)
        g[step, i, j] = sizes[step, i] * rng.normal()
    settings = {"b1": 0.5, "b2": 0.9}
    # Only when every row and column has been seen is no eigenvector anyone's choice.
    tx = soap(4, 10, **settings)
    got, state = trajectory(tx, {"w": g}, {"w": g[0]})
    want, _ = trajectory(gdtx.adam(0.1, **settings), {"w": g}, {"w": g[0]})
    np.testing.assert_allclose(got["w"], want["w"], rtol=1e-6, atol=1e-9)
    basis = np.abs(gdtx.find(state, "basis")["3x3"][0][0, 0, 0])
    assert np.allclose(np.sort(basis, axis=0)[-1], 1)
    assert not np.allclose(basis, np.eye(3))


@pytest.mark.slow
def test_settles_on_the_eigenvectors(x64):
    """Steps of orthogonal iteration find what an eigendecomposition does."""
    rng = np.random.default_rng(1)
    g = np.einsum(
        "ij,tjk->tik", rng.normal(size=(4, 4)) * [8, 4, 2, 1], rng.normal(size=(50, 4, 9))
    )
    bases = []
    for method in ("qr", "eigh"):
        tx = gdtx.scale_by_soap(b3=0.999, bases=gdtx.Bases(1, method=method))
        _, state = trajectory(tx, {"w": g}, {"w": g[0]})
        bases.append(np.asarray(gdtx.find(state, "basis")["4x9"][0])[0, 0, 0])
    np.testing.assert_allclose(np.abs(bases[0].T @ bases[1]), np.eye(4), atol=0.02)


def test_blocks_are_parameters_of_their_own(x64):
    g = np.random.default_rng(2).normal(size=(30, 6, 4))
    settings = {"every": 5, "start": 6}
    whole, _ = trajectory(soap(**settings, blocks=gdtx.Blocks(4)), {"w": g}, {"w": g[0]})
    for rows in (slice(0, 4), slice(4, 6)):
        alone = oracles_matrix.soap(g[:, rows], g[0, rows], 0.1, **settings)
        near(whole["w"][:, rows], alone, atol=1e-8)
