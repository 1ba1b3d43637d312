"""Merges with names, and links that go to a set, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gdtx

U = np.array([[1.0, -2.0, 0.5], [3.0, 0.0, -1.0]])
G = np.array([[2.0, 1.0, 0.1], [-1.0, 5.0, -3.0]])


def merged(merge, u, g):
    """Of an update that a value names, and the gradient."""
    tx = gdtx.join(merge, u=gdtx.value_of("u"), g=gdtx.identity())
    return tx.update(jnp.asarray(g), tx.init(jnp.asarray(g)), u=jnp.asarray(u))[0]


def test_cautious_keeps_the_mean_of_the_mask_at_one(x64):
    agrees = np.array([[1, 0, 1], [0, 0, 1]])
    np.testing.assert_allclose(merged(gdtx.cautious, U, G), U * agrees / 0.5, rtol=1e-15)
    # At least 0.001 of them count, and signs of numbers whose product is none.
    many = np.full(10_000, 1e-200)
    one = np.where(np.arange(10_000), -many, many)
    np.testing.assert_allclose(merged(gdtx.cautious, many, one)[0], 1e-197, rtol=1e-15)
    np.testing.assert_array_equal(merged(gdtx.cautious, U, -U), 0 * U)
    assert np.isnan(merged(gdtx.cautious, U, np.full_like(G, np.nan))).sum() == 0
    assert np.isnan(merged(gdtx.cautious, np.full_like(U, np.nan), G)).all()
    assert merged(gdtx.cautious, np.float64(2.0), np.float64(3.0)) == 2.0
    assert merged(gdtx.cautious, np.zeros((0, 2)), np.zeros((0, 2))).shape == (0, 2)


def test_arctan2_has_derivatives_at_two_zeros(x64):
    def total(u, g):
        return jnp.sum(merged(gdtx.arctan2, u, g))

    zero = jnp.zeros(2)
    assert total(zero, zero) == 0
    for slope in jax.grad(total, (0, 1))(zero, zero):
        assert np.isfinite(slope).all()
    np.testing.assert_allclose(merged(gdtx.arctan2, U, G), np.arctan2(U, G), rtol=1e-15)


@pytest.mark.parametrize("merge", [gdtx.arctan2, gdtx.cautious])
def test_complex_arrays_are_refused_by_leaf(merge):
    with pytest.raises(TypeError, match=rf"updates is complex, {merge.__name__} takes real arrays"):
        merged(merge, U[0] + 1j, G[0])


def test_hyperball_is_that_of_the_paper(x64):
    """Steps of a share of the norm, on the sphere through the first parameters."""
    tx = gdtx.chain(
        gdtx.trace(0.9),
        gdtx.scale_by_trust_ratio(),
        gdtx.scale_by_learning_rate(0.3),
        gdtx.with_params(gdtx.hyperball),
    )
    p, m = U.copy(), np.zeros_like(U)
    params = jnp.asarray(p)
    state, norm = tx.init(params), np.linalg.norm(U)
    for t in range(5):
        g = G * np.cos(t)
        m = 0.9 * m + g
        p = p - 0.3 * norm * m / np.linalg.norm(m)
        p = p / np.linalg.norm(p) * norm
        updates, state = tx.update(jnp.asarray(g), state, params)
        params = gdtx.apply_updates(params, updates)
        np.testing.assert_allclose(params, p, rtol=1e-13)
    zero = jnp.zeros(3)
    tx = gdtx.with_params(gdtx.hyperball)
    for u, at in ((zero, zero), (G[0], zero), (-U[0], U[0])):
        new = at + tx.update(jnp.asarray(u), (), jnp.asarray(at))[0]
        np.testing.assert_array_equal(new, 0)


def test_formulas_of_merges():
    """Of these, what the page of a paper has."""
    cautious = gdtx.latex(
        gdtx.chain(
            gdtx.join(gdtx.cautious, u=gdtx.trace(0.9), g=gdtx.identity()),
            gdtx.scale_by_learning_rate(0.1),
        )
    )
    assert r"\phi_t &= \begin{cases} 1 & v_t g_t > 0 \\ 0 & \text{otherwise}" in cautious
    assert (
        r"\frac{v_t \phi_t}{\max\left( \operatorname{mean}\left( \phi_t \right), 0.001" in cautious
    )
    ball = gdtx.latex(gdtx.chain(gdtx.sgd(0.1), gdtx.with_params(gdtx.hyperball)))
    assert ball.splitlines()[-2] == (
        r"\theta_t &= \left\| \theta_{t-1} \right\| \frac{\theta_{t-1} - \eta g_t}"
        r"{\left\| \theta_{t-1} - \eta g_t \right\|}"
    )
    assert gdtx.latex(gdtx.chain(gdtx.sgd(0.1), gdtx.project(jnp.tanh))).splitlines()[-2] == (
        r"\theta_t &= \operatorname{tanh}\left( \theta_{t-1} - \eta g_t \right)"
    )


def test_project_goes_to_the_set(x64):
    tx = gdtx.chain(gdtx.sgd(0.5), gdtx.project(lambda p: jnp.clip(p, -1, 1)))
    new = U + tx.update(jnp.asarray(G), tx.init(U), jnp.asarray(U))[0]
    np.testing.assert_allclose(new, np.clip(U - 0.5 * G, -1, 1), rtol=1e-15)
    zero = gdtx.project(lambda p: jnp.maximum(p, 0)).update(G, (), U)[0]
    np.testing.assert_allclose(zero, gdtx.keep_nonnegative().update(G, (), U)[0], rtol=1e-15)


@pytest.mark.parametrize("value", [3.0, 2, np.float32(0.5), np.arange(3)[1], jnp.array(0.25)])
def test_a_scalar_is_that_number_everywhere(value):
    params = {"a": jnp.ones((2, 3), "bfloat16"), "b": jnp.ones((), "complex64"), "c": jnp.ones(0)}
    tx = gdtx.join(gdtx.multiply, u=gdtx.identity(), value=gdtx.value_of("loss"))
    updates, _ = tx.update(params, tx.init(params), loss=value)
    np.testing.assert_array_equal(updates["a"].astype("float32"), np.full((2, 3), float(value)))
    assert updates["b"] == float(value)
    assert {k: u.dtype for k, u in updates.items()} == {k: p.dtype for k, p in params.items()}


def test_a_value_of_let_may_be_a_scalar():
    norm = gdtx.GradientTransformation(
        lambda params: (),
        lambda updates, state, params=None: (gdtx.global_norm(updates), state),
        layout=(),
    )
    tx = gdtx.let(gdtx.join(gdtx.divide, u=gdtx.identity(), n=gdtx.value_of("n")), n=norm)
    updates, _ = tx.update({"a": jnp.array([3.0]), "b": jnp.array(4.0)}, tx.init({}))
    np.testing.assert_allclose(updates["a"], 0.6)
    np.testing.assert_allclose(updates["b"], 0.8)


def test_feedback_keeps_once_what_is_read_after_it():
    """SPAM's clipped gradient and the root that divides it have one second moment."""
    spikes = gdtx.feedback(
        lambda u, v: jnp.clip(u, -jnp.sqrt(4 * v), jnp.sqrt(4 * v)),
        gdtx.chain(gdtx.square(), gdtx.ema(0.9, initial=1.0)),
        name="nu",
        then=gdtx.join(
            gdtx.divide, u=gdtx.identity(), nu=gdtx.chain(gdtx.value_of("nu"), gdtx.sqrt())
        ),
    )
    params, v = jnp.zeros(1), 1.0
    state = spikes.init(params)
    assert len(jax.tree.leaves(state)) == 1
    for g in (1.0, 5.0, -0.5):
        updates, state = spikes.update(jnp.array([g]), state)
        clipped = np.clip(g, -np.sqrt(4 * v), np.sqrt(4 * v))
        v = 0.9 * v + 0.1 * clipped**2
        np.testing.assert_allclose(updates, clipped / np.sqrt(v), rtol=1e-6)
        np.testing.assert_allclose(gdtx.find(state, "nu"), v, rtol=1e-6)
    lines = gdtx.latex(spikes).splitlines()
    assert lines[-2] == r"u_t &= \frac{x_t}{\sqrt{v_t}}"
    assert r"v_t &= \beta_2 v_{t-1} + \left( 1 - \beta_2 \right) x_t^2 \\" in lines


def test_feedback_names_what_is_read_and_nothing_else():
    for wrong in (
        {"name": "v"},
        {"then": gdtx.identity()},
        {"name": "then", "then": gdtx.ema(0.9)},
    ):
        with pytest.raises(TypeError, match="feedback: needs name, of the statistic, with then"):
            gdtx.feedback(gdtx.subtract, gdtx.ema(0.9), **wrong)
