"""Randomness: as it should be distributed, the same again, and the same on any device."""

import pickle
import re
from decimal import Decimal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compilations import counted_compilations
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from latex_equations import Equations

import gdtx

NUMBERS = 100_000


def noise(tx, like, steps=1):
    """What a transformation adds to zeros, at each step."""

    def step(state, _):
        updates, state = tx.update(zeros, state)
        return state, updates

    zeros = jax.tree.map(jnp.zeros_like, like)
    return jax.jit(lambda: jax.lax.scan(step, tx.init(like), length=steps)[1])()


def assert_gaussian(x, variance):
    """The first moments, within five of their standard deviations."""
    x = np.asarray(x, np.float64).ravel() / np.sqrt(variance)
    # Of the k-th power: mean and variance for a standard normal number.
    for k, (mean, spread) in enumerate([(0, 1), (1, 2), (0, 15), (3, 96)], 1):
        assert abs(np.mean(x**k) - mean) < 5 * np.sqrt(spread / x.size), k


def test_moments(x64):
    dtypes = ("bfloat16", "float32", "float64", "complex64")
    like = {dtype: jnp.zeros(NUMBERS, dtype) for dtype in dtypes}
    drawn = {name: x[0] for name, x in noise(gdtx.add_noise(0.25, 0.55), like).items()}
    z = drawn.pop("complex64")
    for name, x in drawn.items():
        assert x.dtype == name
        assert_gaussian(x, 0.25)
    # Half of the variance in each part.
    assert z.dtype == "complex64"
    assert_gaussian(z.real, 0.125)
    assert_gaussian(z.imag, 0.125)
    assert abs(np.mean(z.real * z.imag)) < 5 * 0.125 / np.sqrt(NUMBERS)


@pytest.mark.parametrize(
    ("eta", "gamma", "etas"),
    [
        (0.3, 0.55, 0.3),
        (jnp.asarray(0.3), jnp.asarray(1), 0.3),
        (gdtx.linear_schedule(2.0, 0.0, 20), 1, np.linspace(2, 0, 21)[:20]),
    ],
    ids=["numbers", "arrays", "schedule"],
)
def test_variance_falls_as_in_the_paper(eta, gamma, etas):
    like = jnp.zeros(5)
    annealed, constant = (noise(gdtx.add_noise(*x), like, 20) for x in ((eta, gamma), (1.0, 0.0)))
    deviation = np.sqrt(etas / (1 + np.arange(20)) ** float(gamma))
    np.testing.assert_allclose(annealed, deviation[:, None] * constant, rtol=1e-5)


def test_variance_is_that_of_optax():
    ours, theirs = gdtx.add_noise(0.3, 0.55), optax.add_noise(0.3, 0.55, 0)
    like = jnp.zeros(NUMBERS)
    for one, other in zip(noise(ours, like, 3), noise(theirs, like, 3), strict=True):
        # A quotient of two sample variances, each off by sqrt(2 / n).
        assert abs(np.var(one) / np.var(other) - 1) < 5 * np.sqrt(4 / NUMBERS)


def test_leaves_steps_and_seeds_are_independent():
    like = {"a": jnp.zeros(NUMBERS), "b": jnp.zeros((NUMBERS // 2, 2))}
    seeds = jnp.array([0, 1, 2**32 - 1], "uint32")
    drawn = jax.vmap(lambda seed: noise(gdtx.add_noise(1.0, 0.0, seed), like, 2))(seeds)
    rows = np.concatenate([np.reshape(x, (6, NUMBERS)) for x in drawn.values()])
    correlations = np.corrcoef(rows) - np.eye(len(rows))
    assert np.abs(correlations).max() < 5 / np.sqrt(NUMBERS)


def test_keys_are_made_of_seed_step_and_leaf():
    """Numbers that a saved state goes on with must not change with the library's version."""
    like = {"a": jnp.zeros(3), "b": jnp.zeros(()), "c": jnp.zeros((2, 0)), "d": None}
    drawn = noise(gdtx.add_noise(1.0, 0.0, 7), like, 3)
    for step in range(3):
        key = jax.random.fold_in(jax.random.key(7), step + 1)
        for i, name in enumerate("abc"):
            want = jax.random.normal(jax.random.fold_in(key, i), like[name].shape)
            np.testing.assert_allclose(drawn[name][step], want, rtol=1e-6)
    assert drawn["d"] is None


def some_params(dtype=jnp.float32):
    return {"w": jnp.ones((3, 2), dtype), "b": (jnp.ones((), dtype), jnp.ones((0, 4), dtype), None)}


def test_resumes_bit_for_bit():
    tx, params = gdtx.chain(gdtx.add_noise(0.1, 0.55), gdtx.sgd(0.1)), some_params()
    state = tx.init(params)
    assert [x.shape for x in jax.tree.leaves(state)] == [()]
    whole = []
    for i in range(6):
        if i == 3:
            saved = pickle.dumps(jax.device_get(state))
        updates, state = tx.update(params, state)
        whole.append(updates)
    state = jax.tree.map(jnp.asarray, pickle.loads(saved))
    for want in whole[3:]:
        updates, state = tx.update(params, state)
        chex.assert_trees_all_equal(updates, want)


def test_jit_and_no_jit_agree():
    tx, params = gdtx.add_noise(0.1, 0.55), jnp.ones(2)
    state = tx.init(params)
    plain, _ = tx.update(params, state)
    with jax.disable_jit():
        chex.assert_trees_all_close(tx.update(params, state)[0], plain, rtol=1e-6)


@pytest.mark.parametrize("tree", [{}, (), {"a": None}], ids=repr)
def test_trees_without_leaves(tree):
    tx = gdtx.add_noise(0.1, 0.55)
    updates, state = tx.update(tree, tx.init(tree), tree)
    assert (updates, state.step) == (tree, 1)


def test_seeds_are_swept_and_share_a_compilation():
    def train(tx):
        updates, _ = tx.update(jnp.ones(4), tx.init(jnp.ones(4)))
        return updates

    tx, jitted = gdtx.add_noise(0.1, 0.55, jnp.asarray(0)), jax.jit(train)
    one_by_one = [jitted(tx)]
    with counted_compilations() as compilations:
        one_by_one += [jitted(tx.replace(seed=jnp.asarray(seed))) for seed in (1, 2)]
    assert compilations == []
    constant = jitted(gdtx.add_noise(0.1, 0.55, 2))
    np.testing.assert_allclose(constant, one_by_one[2], rtol=1e-6)
    swept = gdtx.sweep(train, gdtx.add_noise(0.1, 0.55), {"seed": [0, 1, 2]})
    np.testing.assert_allclose(swept, one_by_one, rtol=1e-6)


def test_derivatives():
    def size(eta):
        tx = gdtx.add_noise(eta, 0.55)
        return jnp.sum(tx.update(jnp.zeros(5), tx.init(jnp.zeros(5)))[0] ** 2)

    value, gradient = jax.jit(jax.vmap(jax.value_and_grad(size)))(jnp.array([0.0, 0.3, 1.0]))
    # The sum is linear in the variance; the root has derivative 0 at 0.
    np.testing.assert_allclose(gradient, [0.0, value[2], value[2]], rtol=1e-5)


def test_count_saturates():
    tx, params = gdtx.add_noise(0.1, 0.55), jnp.zeros(3)
    last = gdtx.states.CountState(jnp.asarray(2**31 - 1, jnp.int32))
    assert tx.update(params, last)[1] == last


@pytest.mark.slow
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize(
    "tx", [gdtx.add_noise(0.1, 0.55), gdtx.stochastic_rounding()], ids=["noise", "rounding"]
)
def test_numbers_are_those_of_one_device_and_each_makes_its_own(tx, axis_type):
    params = jnp.ones((16, 24), jnp.bfloat16)
    g = jnp.full((16, 24), 1e-3)
    want, _ = tx.update(g, tx.init(params), params)
    assert len(jnp.unique(want)) > 1
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(axis_type, axis_type))
    set_mesh = jax.set_mesh if hasattr(jax, "set_mesh") else jax.sharding.use_mesh
    with set_mesh(mesh):
        sharding = NamedSharding(mesh, PartitionSpec("data", "model"))
        params, g = jax.device_put((params, g), sharding)
        state = tx.init(params)
        compiled = jax.jit(tx.update).lower(g, state, params).compile()
        got, new = compiled(g, state, params)
    program = compiled.as_text()
    np.testing.assert_array_equal(got, want)
    assert got.sharding == sharding
    assert new.step.sharding == state.step.sharding
    assert "[4,12]" in program
    assert "[16,24]" not in program
    assert not re.search("all-(gather|reduce|to-all)|collective", program)


def test_rules_of_users():
    """The makers' contract: the step, a key for each array, and on demand the parameter."""
    seen = []

    def at(t):
        seen.append("step")

        def rule(key, u, p):
            assert jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
            assert (u.dtype, p.dtype) == (jnp.float32, jnp.bfloat16)
            return jnp.where(jnp.arange(u.size).reshape(u.shape) < 3, u * t, p.astype(u.dtype))

        return rule

    tx, params = gdtx.randomized(at, seed=3, needs_params=True), some_params(jnp.bfloat16)
    state = tx.init(params)
    updates, state = tx.update(jax.tree.map(lambda p: 3 * p, params), state, params)
    assert seen == ["step"]
    np.testing.assert_array_equal(updates["w"], [[3, 3], [3, 1], [1, 1]])
    assert repr(tx) == "randomized(f=at, seed=3, needs_params=True)"
    assert gdtx.latex(tx).splitlines()[1] == r"u_t &= \operatorname{at}\left( g_t \right)"


def test_an_array_draws_the_same_whatever_comes_after_it():
    tx = gdtx.add_noise(0.1, 0.55)
    few, many = ({str(i): jnp.zeros(3) for i in range(n)} for n in (1, 2))
    one, other = (tx.update(tree, tx.init(tree))[0] for tree in (few, many))
    chex.assert_trees_all_close(one, {name: other[name] for name in one}, rtol=1e-6)


def test_printed_formula_is_what_is_computed():
    tx = gdtx.chain(gdtx.add_noise(0.3, 0.55), gdtx.sgd(0.1, momentum=0.9))
    drawn = noise(gdtx.add_noise(1.0, 0.0), {"w": jnp.zeros(())}, 5)["w"]
    text = gdtx.latex(tx)
    assert r"\xi_t &\sim \mathcal{N}\left( 0, 1 \right) \\" in text
    given = {r"\theta_0": 0, r"\eta": Decimal("0.1"), r"\mu": Decimal("0.9")}
    given |= {r"\eta_{\xi}": Decimal("0.3"), r"\gamma": Decimal("0.55")}
    given |= {rf"\xi_{t}": Decimal(float(x)) for t, x in enumerate(drawn, 1)}
    given |= {f"g_{t}": 1 for t in range(1, 6)}
    equations = Equations("\n".join(x for x in text.splitlines() if "sim" not in x), given)
    state, theta = tx.init({"w": jnp.zeros(())}), 0.0
    for t in range(1, 6):
        updates, state = tx.update({"w": jnp.ones(())}, state)
        theta += float(updates["w"])
        np.testing.assert_allclose(float(equations(rf"\theta_{t}", t)), theta, rtol=1e-5)
    twice = gdtx.latex(gdtx.chain(gdtx.add_noise(1.0, 0.0), gdtx.add_noise(1.0, 0.0, seed=1)))
    assert twice.splitlines()[-2] == (
        r"u_t &= g_t + \sqrt{\eta_{\xi}} \xi_t + \sqrt{\eta_{\xi}} \bar{\xi}_t"
    )


SEED = r"seed must be an integer in \[0, 2\*\*32\) or an integer array, got "


@pytest.mark.parametrize(
    ("kind", "seed", "message"),
    [
        (ValueError, -1, SEED + "-1"),
        (ValueError, 2**32, SEED + "4294967296"),
        (ValueError, 1.5, SEED + "1.5"),
        (ValueError, True, SEED + "True"),
        (TypeError, "0", SEED + "'0'"),
        (TypeError, jnp.asarray(1.5), SEED),
        (TypeError, lambda t: 1, SEED),
    ],
)
def test_bad_seeds(kind, seed, message):
    with pytest.raises(kind, match=f"^add_noise: {message}"):
        gdtx.add_noise(0.1, 0.55, seed)


def test_other_errors():
    params = {"w": jnp.ones(3)}
    tx = gdtx.add_noise(0.1, 0.55, jax.random.PRNGKey(0))
    with pytest.raises(ValueError, match=r"^add_noise: seed must be a scalar, got .* \(2,\)"):
        tx.update(params, tx.init(params))
    with pytest.raises(TypeError, match="unknown argument 'key', did you mean 'seed'"):
        gdtx.add_noise(0.1, 0.55, key=0)
    with pytest.raises(ValueError, match=r"^add_noise: eta must be a non-negative"):
        gdtx.add_noise(-0.1, 0.55)
    for f, message in (
        (lambda t: t, "f must return a function of one array"),
        (lambda t: lambda key, u: u[:2], r"updates\['w'\] has shape \(3,\), the rule made it"),
        (lambda t: lambda key, u: None, r"updates\['w'\]: the rule returned None"),
    ):
        tx = gdtx.randomized(f)
        with pytest.raises((TypeError, ValueError), match=f"^randomized: {message}"):
            tx.update(params, tx.init(params))
    tx = gdtx.randomized(lambda t: lambda key, u, p: u, needs_params=True)
    with pytest.raises(ValueError, match=r"^randomized: needs the parameters: call update"):
        tx.update(params, tx.init(params))
    with pytest.raises(ValueError, match=r"^add_noise: .*expected a CountState, got"):
        gdtx.add_noise(0.1, 0.55).update(params, ())
