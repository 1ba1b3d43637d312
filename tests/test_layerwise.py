"""Ratios of norms, SM3 and grafts: what the papers say of them, and where they meet others."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from compilations import counted_compilations
from test_full_matrix import problem
from test_methods import trajectory
from test_sharding import PLACES, described

import gdtx

SHAPES = {
    "matrix": (4, 3), "rank two": (3, 4), "row": (1, 5), "column": (5, 1), "scalar": (),
    "three": (2, 3, 2), "four": (2, 1, 3, 2), "empty": (0, 4),
}  # fmt: skip


def draw(*shape, seed=0, low=-2, high=2):
    rng = np.random.default_rng(seed)
    return rng.choice([-1.0, 1.0], shape) * 10.0 ** rng.uniform(low, high, shape)


def first_update(tx, gradients, params):
    return tx.update(gradients, tx.init(params), params)[0]


def length(x):
    scale = np.max(np.abs(x))
    return scale * np.linalg.norm(x / scale)


def test_step_of_lamb_has_the_length_of_its_parameters(x64):
    """Of each array its own, at any magnitude."""
    params = {"w": draw(4, 3), "b": draw(5, seed=1, low=140, high=160), "s": np.asarray(1e-200)}
    gradients = {name: draw(30, *p.shape, seed=2, low=-3, high=3) for name, p in params.items()}
    updates = trajectory(gdtx.lamb(0.01, weight_decay=0.1), gradients, params)
    for name, theta in params.items():
        for u in np.asarray(updates[name]):
            np.testing.assert_allclose(length(u), 0.01 * length(theta))
            theta = theta + u


@pytest.mark.parametrize("tx", [
    gdtx.scale_by_trust_ratio(), gdtx.scale_by_lars(trust_coefficient=1.0),
    gdtx.scale_by_lars(trust_coefficient=1.0, weight_decay=jnp.asarray(0.0)),
    gdtx.graft(gdtx.identity(), gdtx.with_params(lambda u, p: p)),
], ids=["trust", "lars", "lars with decay", "graft"])  # fmt: skip
def test_neither_norms_nor_ratios_overflow(tx):
    """In float32, where squares end at 1e19, and a ratio of these lengths is beyond 1e38."""
    ends = [1e-37, 1e-30, 1.0, 1e30, 2e38]
    for small in ends:
        for large in ends:
            u, p = jnp.full(2, small).at[0].multiply(-1), jnp.full(2, large)
            np.testing.assert_allclose(first_update(tx, u, p), [-large, large], rtol=1e-6)


def test_ratio_is_one_where_a_norm_is_zero():
    params = {"zero": jnp.zeros(2), "still": jnp.ones(2), "w": jnp.full(2, 3.0)}
    gradients = {"zero": jnp.ones(2), "still": jnp.zeros(2), "w": jnp.full(2, 9.0)}
    trust = first_update(
        gdtx.scale_by_trust_ratio(trust_coefficient=2.0, eps=1.0), gradients, params
    )
    np.testing.assert_array_equal(trust["zero"], 1)
    np.testing.assert_array_equal(trust["still"], 0)
    np.testing.assert_allclose(trust["w"], 2 * 3 * 2**0.5 / (9 * 2**0.5 + 1) * 9, rtol=1e-6)
    lars = first_update(gdtx.scale_by_lars(0.5, trust_coefficient=2.0), gradients, params)
    np.testing.assert_array_equal(lars["zero"], 1)
    np.testing.assert_array_equal(lars["still"], 0.5)
    np.testing.assert_allclose(lars["w"], 2 * 3 / (9 + 1.5) * 10.5, rtol=1e-6)


def test_masks_leave_out_decay_and_ratio_separately(x64):
    """Every leaf is as if it were alone with its own settings."""
    decays, trusts = {"w": True, "b": False, "s": True, "v": False}, ("w", "b")
    params = {name: draw(3, seed=i) for i, name in enumerate(decays)}
    gradients = {name: draw(10, 3, seed=9 + i) for i, name in enumerate(decays)}
    trust_mask = {name: name in trusts for name in decays}
    for make, ratio_is_one in (
        (gdtx.lamb, lambda decay: gdtx.adamw(0.1, eps=1e-6, weight_decay=decay)),
        (gdtx.lars, lambda decay: gdtx.chain(gdtx.add_decayed_weights(decay),
                                             gdtx.scale(-0.1), gdtx.trace(0.9))),
    ):  # fmt: skip
        masks = {"mask": decays, "trust_mask": trust_mask}
        functions = {key: lambda _, mask=mask: mask for key, mask in masks.items()}
        got = trajectory(make(0.1, weight_decay=0.5, **masks), gradients, params)
        same = trajectory(make(0.1, weight_decay=0.5, **functions), gradients, params)
        chex.assert_trees_all_equal(got, same)
        for name, decay in decays.items():
            decay = 0.5 if decay else 0.0
            alone = make(0.1, weight_decay=decay) if name in trusts else ratio_is_one(decay)
            want = trajectory(alone, gradients[name], params[name])
            np.testing.assert_allclose(got[name], want, rtol=1e-12, err_msg=name)


@pytest.mark.slow
def test_lars_is_data_with_derivatives(x64):
    def loss(tx):
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(params - 1, state, params)
            return (gdtx.apply_updates(params, updates), state), None

        params = jnp.array([0.5, -1.0, 2.0])
        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=3)
        return jnp.sum(params**2)

    values, h = {"learning_rate": 0.5, "weight_decay": 0.1, "trust_coefficient": 0.2}, 1e-5
    values["eps"] = 0.3
    moved = [values] + [{**values, k: v + d} for k, v in values.items() for d in (h, -h)]
    stacked = {name: jnp.array([row[name] for row in moved]) for name in values}
    losses = jax.jit(jax.vmap(loss))(gdtx.lars(**stacked))
    tx = gdtx.lars(**jax.tree.map(jnp.asarray, values))
    value, gradient = jax.jit(jax.value_and_grad(loss))(tx)
    np.testing.assert_allclose(losses[0], value)
    for name, (up, down) in zip(values, np.reshape(losses[1:], (-1, 2)), strict=True):
        np.testing.assert_allclose(gradient.arguments[name], (up - down) / (2 * h), rtol=1e-6)
    constant = gdtx.lars(**values)
    assert eval(repr(constant), vars(gdtx)) == constant
    with jax.disable_jit():
        np.testing.assert_allclose(value, loss(constant))
        np.testing.assert_allclose(value, loss(gdtx.expand(constant)))
    zero = jnp.zeros(3)
    jacobian = jax.jit(jax.jacobian(lambda g: first_update(constant, g, zero)))(zero)
    chex.assert_tree_all_finite(jacobian)


def test_lars_of_optax_is_the_same_links_in_another_order(x64):
    """Their denominator is the norm of the sum, not the sum of the norms."""
    gradients, params = {"w": draw(20, 4, 3)}, {"w": draw(4, 3, seed=1)}
    theirs = trajectory(optax.lars(0.1, 0.5, eps=1e-3), gradients, params)["w"]
    links = (
        gdtx.add_decayed_weights(0.5),
        gdtx.scale_by_trust_ratio(trust_coefficient=0.001, eps=1e-3),
    )
    ours = gdtx.chain(*links, gdtx.scale_by_learning_rate(0.1), gdtx.trace(0.9))
    np.testing.assert_allclose(trajectory(ours, gradients, params)["w"], theirs, rtol=1e-12)
    paper = trajectory(gdtx.lars(0.1, 0.5, eps=1e-3), gradients, params)["w"]
    assert np.all(np.abs(paper[0]) < np.abs(theirs[0]))


def test_sm3_on_every_shape(x64):
    gradients, params = problem(SHAPES)
    for settings in ({}, {"b2": 0.9, "momentum": None, "eps": 1e-4}):
        got = trajectory(gdtx.sm3(0.1, **settings), gradients, params)
        for name in SHAPES:
            want = oracles.sm3(gradients[name], params[name], 0.1, **settings)
            np.testing.assert_allclose(got[name], want, rtol=1e-12, err_msg=name)


def test_sm3_of_optax_is_the_same_but_of_single_numbers(x64):
    gradients, params = problem({"v": (5,), "w": (4, 3), "t": (2, 3, 2)})
    averages = optax.chain(optax.scale_by_sm3(b2=0.9), optax.scale(-0.1))
    for theirs, b2 in ((optax.sm3(0.1), 1.0), (averages, 0.9)):
        want = trajectory(theirs, gradients, params)
        got = trajectory(gdtx.sm3(0.1, b2=b2), gradients, params)
        chex.assert_trees_all_close(got, want, rtol=1e-12)


def test_cover_bounds_the_sum_from_above_and_never_falls(x64):
    names = ("matrix", "row", "column", "scalar", "three")
    gradients, params = problem({name: SHAPES[name] for name in names})
    sums = trajectory(gdtx.chain(gdtx.square(), gdtx.running_sum()), gradients, params)
    covers = trajectory(gdtx.chain(gdtx.square(), gdtx.running_cover()), gradients, params)
    for name in names:
        bound, total = covers[name], sums[name]
        assert np.all(bound >= total * (1 - 1e-14)), name
        assert np.all(np.diff(bound, axis=0) >= 0), name
        if name in ("row", "column", "scalar"):
            np.testing.assert_allclose(bound, total, rtol=1e-14)
    assert np.all(covers["matrix"][-1] > 1.01 * sums["matrix"][-1])
    rows = trajectory(gdtx.sm3(0.1, momentum=None), gradients["row"], params["row"])
    adagrad = trajectory(gdtx.adagrad(0.1, 0.0, eps=1e-8), gradients["row"], params["row"])
    np.testing.assert_allclose(rows, adagrad, rtol=1e-13)


def test_sm3_remembers_the_sum_of_dimensions():
    params = {"w": jnp.zeros((30, 20, 10)), "s": jnp.zeros(()), "e": jnp.zeros((0, 4))}
    state = gdtx.sm3(0.1, momentum=None).init(params)
    bounds = gdtx.find(state, "nu")
    sizes = {name: [x.size for x in bounds[name]] for name in params}
    assert sizes == {"w": [30, 20, 10], "s": [1], "e": [0, 4]}


def test_cover_needs_its_own_state_and_real_numbers():
    tx = gdtx.running_cover()
    with pytest.raises(ValueError, match=r"updates\['w'\] has shape \(2, 3\), its state is"):
        tx.update({"w": jnp.ones((2, 3))}, tx.init({"w": jnp.zeros((3, 2))}))
    with pytest.raises(ValueError, match="expected bounds of each leaf"):
        tx.update({"w": jnp.ones(2)}, tx.init([jnp.zeros(2)]))
    with pytest.raises(TypeError, match=r"updates\['w'\] is complex, a cover needs real ones"):
        tx.update({"w": jnp.ones(2) * 1j}, tx.init({"w": jnp.zeros(2) * 1j}))
    # A decay that may change sums where it is 1, as the constant.
    state = tx.init(jnp.zeros(2))
    for decay in (1.0, 0.5):
        same = (
            gdtx.running_cover(d).update(jnp.ones(2), state)[0] for d in (decay, jnp.asarray(decay))
        )
        np.testing.assert_array_equal(*same)


TWO = {"direction": gdtx.scale_by_adam(), "magnitude": gdtx.scale_by_rss(0.0)}


def test_graft_has_one_direction_and_the_other_length(x64):
    gradients, params = problem({"w": (4, 3), "s": (), "empty": (0, 4)}, steps=8)
    d, m, got = (trajectory(tx, gradients, params) for tx in (*TWO.values(), gdtx.graft(**TWO)))
    np.testing.assert_allclose(got["s"], np.abs(m["s"]) * np.sign(d["s"]))
    for u, direction, magnitude in zip(got["w"], d["w"], m["w"], strict=True):
        want = direction * np.linalg.norm(magnitude) / np.linalg.norm(direction)
        np.testing.assert_allclose(u, want, rtol=1e-12)


@pytest.mark.slow
def test_graft_by_blocks_has_a_length_in_each(x64):
    gradients, params = problem({"w": (5, 4), "v": (7,), "s": (), "e": (0, 4), "t": (2, 3, 2)}, 3)
    d, m, got = (
        trajectory(tx, gradients, params)
        for tx in (*TWO.values(), gdtx.graft(**TWO, per="block", block_size=3))
    )
    for name in gradients:
        starts = np.ndindex(*[-(-n // 3) for n in params[name].shape])
        for start in starts:
            block = (slice(None), *[slice(3 * i, 3 * i + 3) for i in start])
            for u, one, other in zip(got[name][block], d[name][block], m[name][block], strict=True):
                want = one * np.linalg.norm(other) / np.linalg.norm(one)
                np.testing.assert_allclose(u, want, rtol=1e-12, err_msg=name)
    whole = trajectory(gdtx.graft(**TWO, per="block", block_size=9), gradients, params)
    chex.assert_trees_all_close(whole, trajectory(gdtx.graft(**TWO), gradients, params), rtol=1e-12)


def test_graft_is_exactly_the_magnitude_before_its_start():
    gradients, params = {"w": np.float32(draw(8, 3))}, {"w": np.zeros(3, np.float32)}
    broken = gdtx.chain(TWO["direction"], gdtx.counted(lambda t: lambda u: u / (t > 3)))
    txs = gdtx.graft(broken, TWO["magnitude"], start=4), TWO["magnitude"]
    late, m = (trajectory(tx, gradients, params)["w"] for tx in txs)
    np.testing.assert_array_equal(late[:3], m[:3])
    soon = trajectory(gdtx.graft(**TWO), gradients, params)["w"]
    np.testing.assert_allclose(late[3:], soon[3:], rtol=1e-6)
    assert jax.tree.leaves(gdtx.graft(gdtx.sign(), gdtx.sign()).init(params)) == []


def test_graft_of_nothing_is_zero_with_finite_derivatives():
    """Zeros that a compiler knows of too, products of which it computes in another order."""
    zero, one = jnp.zeros(3), jnp.ones(3)
    for settings in ({}, {"per": "block", "block_size": 2}, {"start": 2}):
        nowhere = gdtx.graft(gdtx.set_to_zero(), gdtx.identity(), **settings)
        nothing = gdtx.graft(gdtx.identity(), gdtx.set_to_zero(), **settings)
        for tx in (nowhere, nothing):
            if "start" not in settings:
                np.testing.assert_array_equal(first_update(tx, one, one), zero)
        tx = gdtx.graft(gdtx.scale_by_adam(), gdtx.identity(), **settings)
        jacobian = jax.jit(jax.jacobian(lambda g, tx=tx: first_update(tx, g, g)))(zero)
        chex.assert_tree_all_finite(jacobian)


def test_graft_says_what_goes_together():
    pair = "per='block' and a block_size need each other,"
    for settings, message in (
        ({"per": "row"}, "per must be 'leaf' or 'block', got 'row'"),
        ({"per": "block"}, f"{pair} got per='block' and block_size=None"),
        ({"block_size": 2}, f"{pair} got per='leaf' and block_size=2"),
        ({"per": "block", "block_size": 0}, "block_size must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=f"graft: {message}"):
            gdtx.graft(**TWO, **settings)
    tx = gdtx.graft(gdtx.trace(0.9), gdtx.adam(0.1), per="block", block_size=2, start=3)
    assert eval(repr(tx), vars(gdtx)) == tx
    assert gdtx.hyperparams(tx)["magnitude.learning_rate"] == 0.1
    assert eval(gdtx.tree(tx), vars(gdtx)) == gdtx.expand(tx, None)


PLACED = {
    "lamb": gdtx.lamb(0.1, weight_decay=0.1),
    "lars": gdtx.lars(0.1, weight_decay=0.1),
    "sm3": gdtx.sm3(0.1),
    "graft": gdtx.graft(**TWO, per="block", block_size=3, start=2),
}


@pytest.mark.first(2)
@pytest.mark.parametrize("place", ["device 3", "automatic", "explicit"])
@pytest.mark.parametrize("name", PLACED)
@pytest.mark.diagonal
def test_placement(name, place):
    tx, theta = PLACED[name], {"w": np.float32(draw(8, 4)), "s": np.float32(2)}
    gradients = {"w": np.float32(draw(3, 8, 4, seed=1)), "s": np.ones(3, np.float32)}
    want = jax.tree.map(lambda x: x[0], trajectory(tx, gradients, theta))
    with PLACES[place]() as put:
        params, g = put(theta), put({k: v[0] for k, v in gradients.items()})
        state = tx.init(params)
        born = described(state)
        assert all(x.committed and not x.weak_type for x in jax.tree.leaves(state))
        step = jax.jit(tx.update, donate_argnums=1)
        with counted_compilations() as compilations:
            updates, state = step(g, state, params)
            assert described(state) == born
            _, state = step(g, state, params)
        assert len(compilations) == 1
        chex.assert_trees_all_close(updates, want, rtol=1e-5)
        assert {k: u.sharding for k, u in updates.items()} == {
            k: p.sharding for k, p in params.items()
        }
