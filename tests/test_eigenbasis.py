"""Elementwise transformations in an eigenbasis: the laws, and what moves with the basis."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from matrix_samples import STEPS, gradients_and_params, near, trajectory
from test_sharding import described, draw, on_mesh

import gdtx

DECAYS = {"b1": 0.9, "b2": 0.95}
# From step 6 on no eigenvector is anyone's choice. Turned at the steps 6, 19, 32, 45 and 58.
BASES = gdtx.Bases(13, start=6)


def matrices():
    gradients, params = gradients_and_params(few=True)
    return ({"matrix": tree["matrix"]} for tree in (gradients, params))


def updates(inner, bases=BASES, **settings):
    tx = gdtx.blockwise(gdtx.in_eigenbasis(inner, gdtx.ema(0.95), bases, **settings))
    return trajectory(tx, *matrices())[0]["matrix"]


def test_in_the_identity_basis_it_is_the_transformation(x64):
    got = updates(gdtx.scale_by_adam(), gdtx.Bases(start=STEPS + 1), rotated=["**"])
    want, _ = trajectory(gdtx.scale_by_adam(), *matrices())
    np.testing.assert_allclose(got, want["matrix"], rtol=1e-12, atol=1e-14)


def test_a_momentum_that_rotates_is_one_that_is_not_turned(x64):
    """Adam's sum of turned gradients, turned again with the basis, is the momentum of SOAP."""
    adam = gdtx.scale_by_adam(**DECAYS, eps=1e-3)
    soap, _ = trajectory(gdtx.scale_by_soap(**DECAYS, eps=1e-3, bases=BASES), *matrices())
    near(updates(adam, rotated=["mu/**"]), soap["matrix"], atol=1e-9)
    sorted_only = updates(adam)
    assert np.max(np.abs(sorted_only[:6] - soap["matrix"][:6])) < 1e-12
    assert np.max(np.abs(sorted_only[6:8] - soap["matrix"][6:8])) > 0.01


def test_lion_in_a_basis_is_the_sign_of_its_turned_mean(x64):
    """Signs are of what has signs: with sorted buffers Lion would be another method."""
    mean = gdtx.join(
        gdtx.plus,
        mu=gdtx.chain(gdtx.previous(gdtx.ema(0.99)), gdtx.scale(0.9)),
        g=gdtx.scale(1 - 0.9),
    )
    want = updates(gdtx.sign(), direction=mean)
    np.testing.assert_allclose(updates(gdtx.scale_by_lion(), rotated=["**"]), want, atol=1e-9)


def test_a_merge_is_a_join_with_a_branch_that_is_turned_after(x64):
    adam = gdtx.join(gdtx.divide, m=gdtx.first_moment(0.9), v=gdtx.second_moment(0.95))
    merged = updates(gdtx.second_moment(0.95), direction=gdtx.first_moment(0.9), merge=gdtx.divide)
    near(merged, updates(adam, rotated=["m/**"]), atol=1e-9)


def test_inner_reads_the_products_of_eigenvalues(x64):
    """Without a basis yet: of the identity the diagonals are those of the whitened moments."""
    tx = gdtx.blockwise(
        gdtx.in_eigenbasis(
            gdtx.value_of("eigenvalues"),
            gdtx.ema(0.9),
            gdtx.Bases(start=99),
            values=gdtx.ema(0.9, initial=1.0),
        )
    )
    gradients, params = matrices()
    got, _ = trajectory(tx, gradients, params)
    rows, columns = np.ones(4), np.ones(3)
    for g, products in zip(gradients["matrix"], got["matrix"], strict=True):
        np.testing.assert_allclose(products, np.outer(rows, columns), rtol=1e-12)
        rows, columns = (
            0.9 * rows + 0.1 * np.mean(g**2 / columns, axis=1),
            0.9 * columns + 0.1 * np.mean(g**2 / rows[:, None], axis=0),
        )


def test_no_gradient_along_an_axis_is_nothing_to_the_others():
    tx = gdtx.blockwise(
        gdtx.in_eigenbasis(
            gdtx.scale_by_adam(), gdtx.ema(0.5), gdtx.Bases(2), values=gdtx.ema(0.5, initial=1.0)
        )
    )
    g = np.random.default_rng(0).normal(size=(STEPS, 4, 3)).astype(np.float32)
    g[:, 1] = 0
    g[30:, :, 2] = 0
    got, state = trajectory(tx, {"w": np.tile(g, (4, 1, 1))}, {"w": g[0]})
    assert np.all(np.isfinite(got["w"]))
    assert gdtx.find(state, "failures") == 0


def test_a_pattern_must_match_a_buffer():
    tx = gdtx.blockwise(gdtx.in_eigenbasis(gdtx.scale_by_adam(), gdtx.ema(0.9), rotated=["m/**"]))
    with pytest.raises(ValueError, match=r"pattern 'm/\*\*' matches no path; the paths are 'mu/0"):
        tx.init({"w": jnp.zeros((2, 3))})


@pytest.mark.parametrize(
    "axis_type",
    [AxisType.Explicit, pytest.param(AxisType.Auto, marks=pytest.mark.slow)],
    ids=lambda t: t.name,
)
def test_eigenvalues_and_rotated_buffers_are_where_the_blocks_are(axis_type):
    """Blocks of 2 by 2; from step 4 on no eigenvector of the statistics is anyone's choice."""
    tx = gdtx.blockwise(
        gdtx.in_eigenbasis(
            gdtx.scale_by_adam(eps=1e-3),
            gdtx.ema(0.9),
            gdtx.Bases(1, start=4),
            values=gdtx.ema(0.9, initial=1.0),
            rotated=["mu/**"],
        ),
        gdtx.Blocks(2),
    )
    params, *gradients = ({"w": draw(i)["w"]} for i in range(7))
    state = tx.init(params)
    for g in gradients:
        want, state = tx.update(g, state, params)
    with on_mesh(axis_type) as put:
        state = tx.init(put(params))
        born = described(state)
        for g in gradients:
            got, state = tx.update(put(g), state, put(params))
            assert described(state) == born
    np.testing.assert_allclose(got["w"], want["w"], rtol=5e-3, atol=5e-3)
