"""Gradients that are not finite, singular statistics and failed roots leave finite updates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix_samples import near, trajectory

import gdtx

METHODS = {
    "shampoo": gdtx.scale_by_shampoo(eps=1e-6, roots=gdtx.Roots(3)),
    "newton": gdtx.scale_by_shampoo(eps=1e-6, roots=gdtx.Roots(3, method="newton")),
    "grafted": gdtx.scale_by_shampoo(eps=1e-6, roots=gdtx.Roots(3), graft=gdtx.scale_by_adam()),
    "soap": gdtx.scale_by_soap(bases=gdtx.Bases(3)),
}
SHAPES = {"w": (4, 3), "other": (4, 3), "v": (3,), "s": ()}
# What a graft is given is Shampoo's step.
by_method = pytest.mark.parametrize(
    "name",
    [pytest.param(k, marks=pytest.mark.slow if k == "shampoo" else ()) for k in METHODS],
)


def everything_finite(tree):
    return all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(tree))


@pytest.mark.first(1)
@by_method
def test_finite_whatever_comes(name):
    rng = np.random.default_rng(0)
    gradients = {k: rng.normal(size=(200, *s)).astype(np.float32) for k, s in SHAPES.items()}
    for step in range(200):
        leaf = rng.choice(list(SHAPES))
        kind = rng.integers(7)
        x = gradients[leaf][step : step + 1]
        place = tuple(rng.integers(n) for n in x.shape)
        if kind < 3:
            x[place] = [np.nan, np.inf, -np.inf][kind]
        elif kind == 3:
            x[...] = 0
        elif kind == 4:
            x[...] = 1e30  # whose squares overflow
        elif kind == 5:
            x[...] = 1e-30
    updates, state = trajectory(METHODS[name], gradients, {k: g[0] for k, g in gradients.items()})
    assert everything_finite(updates)
    assert everything_finite(state)


@pytest.mark.first(1)
@by_method
def test_poison_in_one_array_is_zero_there_and_nothing_elsewhere(name):
    g = np.random.default_rng(1).normal(size=(12, 4, 3)).astype(np.float32)
    gradients = {"clean": g, "poisoned": g.copy(), "zeroed": g.copy()}
    gradients["zeroed"][5] = 0
    want, _ = trajectory(METHODS[name], gradients, dict.fromkeys(gradients, g[0]))
    gradients["poisoned"][5, 1, 1] = np.nan
    got, _ = trajectory(METHODS[name], gradients, dict.fromkeys(gradients, g[0]))
    np.testing.assert_array_equal(got["poisoned"], got["zeroed"])
    np.testing.assert_array_equal(got["clean"], want["clean"])


@pytest.mark.parametrize("name", ["shampoo", "newton", "soap"])
def test_a_root_that_fails_is_counted_and_the_last_good_one_stays(name):
    """A statistic that has overflowed, in one of two arrays that are worked on together."""
    tx = METHODS[name]
    key = "basis" if name == "soap" else "roots"
    params = {"w": jnp.ones((3, 3)), "other": jnp.ones((3, 3))}
    rng = np.random.default_rng(2)
    update = jax.jit(tx.update)
    gradients = [{k: jnp.asarray(rng.normal(size=(3, 3)), jnp.float32) for k in params}
                 for _ in range(9)]  # fmt: skip
    state = tx.init(params)
    _, state = update(gradients[0], state, params)
    good = gdtx.find(state, key)["3x3"]
    # By their names in sorted order: "other" is the first of the stack.
    statistic = jax.tree.map(lambda x: x.at[0].set(jnp.nan) if x.ndim else x, state.statistic)
    state = state._replace(statistic=statistic)
    for step in range(1, 9):
        updates, state = update(gradients[step], state, params)
        assert everything_finite(updates)
    assert state.failures == 2 * 2  # two axes of one array, at the steps 4 and 7
    for axis, matrices in enumerate(gdtx.find(state, key)["3x3"]):
        np.testing.assert_array_equal(matrices[0], good[axis][0])
        assert not np.allclose(matrices[1], good[axis][1])


def test_a_root_with_too_large_an_error_is_not_taken():
    roots = gdtx.Roots(1, tolerance=0.0)
    tx = gdtx.blockwise(gdtx.precondition(gdtx.identity(), gdtx.running_sum(), roots=roots))
    params = {"w": jnp.asarray(np.random.default_rng(3).normal(size=(3, 3)), jnp.float32)}
    updates, state = tx.update(params, tx.init(params))
    assert state.failures == 2
    near(updates["w"], params["w"], atol=1e-6)  # through the identity, the first good root


def test_bfloat16_statistics_are_off_by_no_more_than_stated():
    """Steps round by chance to 2^-8 of a number, with a variance of a quarter of its square."""
    rng = np.random.default_rng(4)
    g = {"w": rng.normal(size=(100, 4, 3)).astype(np.float32)}
    states = []
    for dtype in (None, "bfloat16"):
        tx = gdtx.scale_by_shampoo(b1=0.0, b2=0.95, statistic_dtype=dtype)
        _, state = trajectory(tx, g, {"w": g["w"][0]})
        states.append(gdtx.find(state, "value")["4x3"])
    for exact, rounded in zip(*states, strict=True):
        assert rounded.dtype == jnp.bfloat16
        size = np.abs(exact).max()
        rounded = np.asarray(rounded, np.float32)
        off = np.sqrt(np.mean((rounded - exact) ** 2)) / size
        assert 0 < off <= 2**-8 / np.sqrt(8 * 0.05)
        np.testing.assert_array_equal(rounded, rounded.swapaxes(-1, -2))
