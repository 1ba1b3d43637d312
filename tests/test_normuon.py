"""NorMuon against its paper and its peer, and the statistic of outputs that it is made of."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.sharding import AxisType, PartitionSpec
from matrix_samples import trajectory
from test_sharding import described, draw, on_mesh

import gdtx


def problem():
    rng = np.random.default_rng(0)
    gradients = {"wide": rng.normal(size=(60, 3, 7)), "tall": rng.normal(size=(60, 6, 4))}
    return gradients, {name: rng.normal(size=g.shape[1:]) for name, g in gradients.items()}


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "settings",
    [{}, {"nesterov": False, "shape_factor": "moonshot", "b2": 0.5, "eps": 0.1, "momentum": 0.8}],
    ids=["usual", "others"],
)
def test_trajectory_is_that_of_the_paper(settings, x64):
    gradients, params = problem()
    got, state = trajectory(gdtx.normuon(0.1, True, weight_decay=0.1, **settings), *problem())
    assert sorted(x.shape for x in jax.tree.leaves(state)) == [(1, 4), (1, 7), (3, 7), (6, 4)]
    for name, g in gradients.items():
        want = oracles.normuon(g, params[name], 0.1, weight_decay=0.1, **settings)
        np.testing.assert_allclose(got[name], want, rtol=1e-10, atol=1e-12)


def test_is_that_of_pytorch_optimizer(x64):
    """Which has matrices of outputs by inputs, and iterates in bfloat16 if it is not asked."""
    because = "pytorch_optimizer is installed by the extra 'peers'"
    torch = pytest.importorskip("torch", reason=because)
    peers = pytest.importorskip("pytorch_optimizer", reason=because)
    gradients, params = problem()
    got, _ = trajectory(gdtx.normuon(0.1, True), gradients, params)
    module = "pytorch_optimizer.optimizer.muon.normuon"
    iterate = "zero_power_via_newton_schulz_5"
    wide = functools.partial(
        getattr(__import__(module, fromlist=[iterate]), iterate), dtype=torch.float64
    )
    with mock.patch(f"{module}.{iterate}", wide):
        for name, g in gradients.items():
            p = torch.tensor(params[name].T.copy(), requires_grad=True)
            settings = {"lr": 0.1, "use_muon": True}
            theirs = peers.NorMuon([{"params": [p], **settings}], foreach=False)
            for step, u in zip(g, got[name], strict=True):
                before = p.detach().numpy().copy()
                p.grad = torch.tensor(step.T.copy())
                theirs.step()
                np.testing.assert_allclose(p.detach().numpy() - before, u.T, rtol=1e-7, atol=1e-9)


def test_each_matrix_of_a_stack_has_a_length_of_its_own():
    g = np.random.default_rng(1).normal(size=(4, 2, 3, 5)).astype(np.float32)
    stack, state = trajectory(gdtx.normuon(0.1, "bio"), {"w": g}, {"w": g[0]})
    assert sorted(x.shape for x in jax.tree.leaves(state)) == [(2, 1, 5), (2, 3, 5)]
    for i in range(2):
        alone, _ = trajectory(gdtx.normuon(0.1, True), {"w": g[:, i]}, {"w": g[0, i]})
        np.testing.assert_allclose(stack["w"][:, i], alone["w"], rtol=1e-4, atol=1e-6)


def test_nothing_stays_nothing():
    zero = jnp.zeros((2, 3))
    tx = gdtx.normuon(0.1, True)
    u, _ = tx.update(zero, tx.init(zero), zero)
    np.testing.assert_array_equal(u, zero)


@pytest.mark.parametrize(
    ("over", "axes", "mean"),
    [
        ("i", "ibo", 0),
        ("o", "oib", 0),
        ("io", "iob", (0, 1)),
        ("i", "iio", (0, 1)),
        ("i", False, ()),
    ],
)
def test_means_are_over_the_axes_of_these_letters(over, axes, mean):
    u = jnp.asarray(np.random.default_rng(2).normal(size=(2, 3, 4)), jnp.float32)
    tx = gdtx.averaged_over(gdtx.running_sum(), over, axes)
    out, state = tx.update(u, tx.init(u))
    want = np.mean(u, axis=mean, keepdims=True) if mean != () else u
    np.testing.assert_allclose(out, np.broadcast_to(want, u.shape), rtol=1e-6)
    assert jax.tree.leaves(state)[0].shape == want.shape


def test_numbers_of_outputs_are_where_the_outputs_are():
    tx = gdtx.averaged_over(gdtx.ema(0.9))
    with on_mesh(AxisType.Explicit) as put:
        params = put({"w": draw(0)["w"]})
        state = tx.init(params)
        born = described(state)
        assert jax.tree.leaves(state)[0].sharding.spec == PartitionSpec(None, "model")
        updates, state = tx.update(params, state)
        assert described(state) == born
        assert updates["w"].sharding == params["w"].sharding
