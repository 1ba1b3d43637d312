"""Methods that find their rate: the rules of their papers, whose norms are those of the whole tree.

A tree is one long array, so an oracle on all of it together is the rule.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles_recent
import pytest
from test_latex import evaluated

import gdtx

STEPS = 60
ROWS = {
    "prodigy": (gdtx.prodigy, oracles_recent.prodigy, {"estim_lr0": 1e-3}),
    "prodigy of the paper": (
        gdtx.prodigy, oracles_recent.prodigy,
        {"bias_correction": False, "b3": 0.9, "estim_lr0": 1e-2, "estim_lr_coef": 2.0},
    ),
    "prodigy, warmed up": (
        gdtx.prodigy, oracles_recent.prodigy,
        {"safeguard_warmup": True, "estim_lr0": 1e-3, "weight_decay": 0.1, "learning_rate": 2.0},
    ),
    "dadapt_adamw": (gdtx.dadapt_adamw, oracles_recent.dadapt_adamw, {"estim_lr0": 1e-3}),
    "dadapt_adamw, with decay": (
        gdtx.dadapt_adamw, oracles_recent.dadapt_adamw,
        {"estim_lr0": 1e-3, "weight_decay": 0.1, "b2": 0.9},
    ),
    "dog": (gdtx.dog, oracles_recent.dog, {"reps_rel": 1e-3, "weight_decay": 0.1}),
}  # fmt: skip


@pytest.fixture(scope="module")
def problem():
    """Gradients of which more point one way, so that there is a distance to go."""
    rng = np.random.default_rng(3)
    theta = rng.normal(size=13)
    return rng.normal(size=(STEPS, 13)) + 1.5 * np.sign(theta), theta


def tree(x):
    return {"a": x[..., :1].reshape(x.shape[:-1]), "b": x[..., 1:].reshape(*x.shape[:-1], 4, 3)}


def run_all(transformations, gradients, theta):
    """The updates of each, as one array, in one program."""

    def run(tx):
        def step(carry, g):
            params, state = carry
            updates, state = tx.update(g, state, params)
            return (jax.tree.map(jnp.add, params, updates), state), updates

        params = jax.tree.map(jnp.asarray, tree(theta))
        updates = jax.lax.scan(step, (params, tx.init(params)), tree(gradients))[1]
        return jnp.concatenate([updates["a"][:, None], updates["b"].reshape(STEPS, -1)], 1)

    return jax.jit(lambda: [run(tx) for tx in transformations])()


@pytest.fixture(scope="module")
def ours(problem):
    jax.config.update("jax_enable_x64", True)
    try:
        made = [make(**settings) for make, _, settings in ROWS.values()]
        return dict(zip(ROWS, run_all(made, *problem), strict=True))
    finally:
        jax.config.update("jax_enable_x64", False)


@pytest.mark.parametrize("name", ROWS)
def test_trajectory_is_that_of_the_paper(name, problem, ours):
    _, oracle, settings = ROWS[name]
    want = oracle(*problem, **settings)
    assert np.abs(want).max() > 100 * np.abs(want[0]).max(), "the rate was found"
    np.testing.assert_allclose(ours[name], want, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("name", ROWS)
def test_printed_formula_is_that_of_the_paper(name, problem):
    make, oracle, settings = ROWS[name]
    gradients, theta = problem[0][:12, :2], problem[1][:2]
    pairs = zip(gradients.T, theta, strict=True)
    want = np.stack([oracle(g, p, **settings) for g, p in pairs], axis=1)
    got = evaluated(gdtx.latex(make(**settings), values=True), gradients, theta)
    np.testing.assert_allclose(got, want, rtol=1e-9)


def test_mechanic_scales_the_steps_of_any_method(x64, problem):
    settings = {"s_init": 1e-2, "weight_decay": 0.1, "num_betas": 4}
    ours, theirs = run_all(
        [
            gdtx.mechanize(gdtx.sgd(0.5), **settings),
            optax.contrib.mechanize(optax.sgd(0.5), **settings),
        ],
        *problem,
    )
    want = oracles_recent.mechanize(*problem, lambda g: -0.5 * g, **settings)
    np.testing.assert_allclose(ours, want, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-14)


def test_d_adaptation_divides_by_the_new_moment(x64, problem):
    """As the paper does: Optax and the authors' program take the one before in the estimate."""
    ours, theirs = run_all(
        [gdtx.dadapt_adamw(estim_lr0=1e-3), optax.contrib.dadapt_adamw(estim_lr0=1e-3)], *problem
    )
    np.testing.assert_allclose(ours[:2], theirs[:2], rtol=1e-12)
    assert not np.allclose(ours[5:], theirs[5:], rtol=1e-3)


def test_arrays_may_have_distances_of_their_own(x64, problem):
    """L-DoG is DoG of each array."""
    whole, alone = gdtx.dog(per="array", reps_rel=1e-3), gdtx.dog(reps_rel=1e-3)
    labels = {"a": "a", "b": "b"}
    each = gdtx.partition(dict.fromkeys(labels, alone), labels)
    ours, theirs = run_all([whole, each], *problem)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_nothing_is_found_where_no_gradient_is():
    """0 / 0 is no estimate; a gradient that is not a number shows."""
    for tx in (gdtx.prodigy(), gdtx.dadapt_adamw(), gdtx.dog(), gdtx.mechanize(gdtx.sgd(1.0))):
        params = {"w": jnp.ones(2)}
        state = tx.init(params)
        updates, after = tx.update({"w": jnp.zeros(2)}, state, params)
        assert not np.any(updates["w"])
        updates, _ = tx.update({"w": jnp.array([1.0, jnp.nan])}, after, params)
        assert np.isnan(updates["w"]).any()
