"""Symmetric matrices kept as triangles: the same numbers, half the memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from matrix_samples import gradients_and_params, trajectory
from test_sharding import on_mesh

import gdtx


@pytest.mark.first(2)
@pytest.mark.diagonal
@pytest.mark.parametrize("n", range(1, 7))
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64], ids=["real", "complex"])
def test_every_number_of_a_triangle_is_kept_once(n, dtype):
    rng = np.random.default_rng(n)
    half = rng.normal(size=(2, 3, n, n)).astype(np.float32)
    x = half + 1j * rng.normal(size=half.shape) if dtype == jnp.complex64 else half
    x = jnp.asarray(x + np.swapaxes(x, -1, -2).conj(), dtype)
    tx = gdtx.packed(gdtx.running_sum())
    state = tx.init(x)
    (kept,) = jax.tree.leaves(state)
    assert kept.shape == (2, 3, (n + 1) // 2, n + 1)
    for step in (1, 2):
        u, state = tx.update(x, state)
        np.testing.assert_allclose(u, step * x, rtol=1e-6)
    triangle = np.asarray(x)[..., *np.tril_indices(n)]
    kept = np.asarray(jax.tree.leaves(state)[0]).reshape(2, 3, -1)
    for numbers, found in zip(triangle.reshape(6, -1), kept.reshape(6, -1), strict=True):
        assert set(2 * numbers) == set(found)


def packed_or_not(wrap):
    mean = gdtx.chain(gdtx.ema(0.9), gdtx.bias_correction(0.9))
    size = gdtx.chain(gdtx.square(), gdtx.ema(0.9), gdtx.sqrt(), gdtx.add(1e-3))
    return {
        "shampoo": gdtx.precondition(mean, wrap(gdtx.running_sum()), 1e-3, roots=gdtx.Roots(3)),
        "soap": gdtx.in_eigenbasis(
            size, wrap(gdtx.ema(0.9)), gdtx.Bases(3, start=6), direction=mean, merge=gdtx.divide
        ),
    }


@pytest.mark.first(1)
@pytest.mark.parametrize("name", ["shampoo", "soap"])
def test_methods_do_not_notice(name, x64):
    gradients, params = gradients_and_params(few=True, steps=12)
    gradients, params = ({"matrix": tree["matrix"]} for tree in (gradients, params))
    plain, packed = (gdtx.blockwise(packed_or_not(wrap)[name], gdtx.Blocks(3))
                     for wrap in (lambda link: link, gdtx.packed))  # fmt: skip
    want, _ = trajectory(plain, gradients, params)
    got, _ = trajectory(packed, gradients, params)
    for leaf in gradients:
        np.testing.assert_allclose(got[leaf], want[leaf], rtol=1e-9, atol=1e-12)
    assert gdtx.latex(packed) == gdtx.latex(plain)
    table, whole = (gdtx.state_table(tx, {"w": jnp.zeros((6, 3))}) for tx in (packed, plain))
    # Of four blocks of 3 by 3 that are two, each with two matrices.
    assert whole.bytes - table.bytes == 2 * 2 * 8 * (9 - 8)


@pytest.mark.parametrize(
    "axis_type", [pytest.param(AxisType.Auto, marks=pytest.mark.slow), AxisType.Explicit],
    ids=lambda t: t.name,
)  # fmt: skip
def test_triangles_are_where_the_blocks_are(axis_type):
    with on_mesh(axis_type) as put:
        params = put({"w": np.ones((8, 4), np.float32)})
        tx = gdtx.blockwise(packed_or_not(gdtx.packed)["shampoo"], gdtx.Blocks(2))
        state = tx.init(params)
        _, after = tx.update(params, state)
        for kept in (state, after):
            for x in jax.tree.leaves(kept.statistic):
                expected = NamedSharding(x.sharding.mesh, PartitionSpec(None, "data", "model"))
                assert x.sharding.is_equivalent_to(expected, x.ndim)


def test_only_matrices():
    with pytest.raises(ValueError, match=r"updates\['w'\] has shape \(2, 3\), expected matrices"):
        gdtx.packed(gdtx.ema(0.9)).init({"w": jnp.zeros((2, 3))})
