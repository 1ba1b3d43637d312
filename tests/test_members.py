"""Members of an ensemble share their counts, and keep the conditionals that counts decide."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everything import EVERY

import gdtx

N = 3
SHAPES = {"b": (2,), "w": (4, 2)}
GIVEN = ("search", "lbfgs", "kfac", "fisher", "levenberg", "natural", "sophia", "value_of", "sharp")
TOLD = {"value": 1.0, "flag": True}
ROWS = [name for name in EVERY if not any(part in name for part in GIVEN)]


def drawn(seed, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.normal(size=(N, *n)), dtype) for k, n in SHAPES.items()}


def member(tree, i):
    return jax.tree.map(lambda x: x[i], tree)


def mapped(tx, axes, **given):
    def update(g, s, p):
        return tx.update(g, s, p, **given)

    return jax.vmap(update, in_axes=(0, axes, 0), out_axes=(0, axes))


def always(f, *args):
    """Primitives of the program that run on every step: in no conditional, but for those that
    choose by platform."""

    def within(jaxpr):
        names = [e.primitive.name for e in jaxpr.eqns]
        by_platform = "platform_index" in names
        for e, name in zip(jaxpr.eqns, names, strict=True):
            yield name
            for x in jax.tree.leaves(list(e.params.values())):
                inner = getattr(x, "jaxpr", x)
                if hasattr(inner, "eqns") and (name != "cond" or by_platform):
                    yield from within(inner)

    return list(within(jax.make_jaxpr(f)(*args).jaxpr))


def alone_and_together(tx, dtype=np.float32):
    """Updates of some steps, of each member by itself and of all at once."""
    params, gradients = drawn(0, dtype), [drawn(1, dtype), drawn(2, dtype)]
    axes = gdtx.member_axes(tx, params, **TOLD)

    def run(init, update, params, gradients):
        state, steps = init(params), []
        for gradient in gradients:
            updates, state = update(gradient, state, params)
            steps.append(updates)
        return steps

    alone = jax.jit(lambda p, g: run(tx.init, partial(tx.update, **TOLD), p, g))
    each = [alone(member(params, i), member(gradients, i)) for i in range(N)]
    together = jax.jit(
        lambda p, g: run(jax.vmap(tx.init, out_axes=axes), mapped(tx, axes, **TOLD), p, g)
    )(params, gradients)
    return jax.tree.map(lambda *xs: jnp.stack(xs), *each), together


# With what costs in what runs on some steps only.
KEPT = {
    "accumulate_gradients": (gdtx.accumulate_gradients(gdtx.adam(1e-3), 4), "sqrt"),
    "every": (gdtx.every(3, gdtx.scale_by_adam()), "sqrt"),
    "soap": (gdtx.soap(1e-3), "eigh"),
    "shampoo": (gdtx.shampoo(1e-3), "eigh"),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_runs_on_some_steps_only_stays_in_its_conditional(name):
    (tx, costly), params = KEPT[name], drawn(0)
    axes = gdtx.member_axes(tx, params)
    shared = jax.eval_shape(jax.vmap(tx.init, out_axes=axes), params)
    found = always(mapped(tx, axes), params, shared, params)
    alone = member(params, 0)
    expected = always(tx.update, alone, jax.eval_shape(tx.init, alone), alone)
    assert found.count("cond") == expected.count("cond") > 0
    assert costly not in found
    everyones = jax.eval_shape(jax.vmap(tx.init), params)
    assert costly in always(jax.vmap(tx.update), params, everyones, params)


def test_a_condition_of_all_stays_one():
    tx, params = gdtx.when("now", gdtx.adam(1e-3)), drawn(0)
    axes = gdtx.member_axes(tx, params, now=jnp.array(True))
    state = jax.vmap(tx.init, out_axes=axes)(params)

    def update(now):
        return mapped(tx, axes, now=now)(params, state, params)

    assert always(update, jnp.array(True)).count("cond") == 1


def test_a_member_is_skipped_by_its_own_gradient():
    tx, params = gdtx.skip_nonfinite(gdtx.sgd(0.1, momentum=0.9)), drawn(0)
    axes = gdtx.member_axes(tx, params)
    assert axes.skipped == 0
    state = jax.vmap(tx.init, out_axes=axes)(params)
    grads = {**params, "b": params["b"].at[1, 0].set(jnp.nan)}
    _, state = mapped(tx, axes)(grads, state, params)
    np.testing.assert_array_equal(state.skipped, [0, 1, 0])


def test_members_of_a_sweep_share_their_counts():
    rates = jnp.array([1e-3, 1e-2, 1e-1])
    tx, params = gdtx.every(2, gdtx.adam(rates), otherwise="zero"), drawn(0)
    axes = gdtx.member_axes(tx, params)
    state = jax.vmap(lambda tx, p: tx.init(p), out_axes=axes)(tx, params)
    assert axes.step is None
    assert state.step.shape == ()
    step = jax.vmap(
        lambda tx, g, s, p: tx.update(g, s, p), in_axes=(0, 0, axes, 0), out_axes=(0, axes)
    )
    updates, new = step(tx, params, state, params)
    assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, state)
    alone = gdtx.adam(1e-2)
    expected, _ = alone.update(member(params, 1), alone.init(member(params, 1)), member(params, 1))
    for key in SHAPES:
        np.testing.assert_allclose(updates[key][1], expected[key], rtol=1e-5, atol=1e-7)


def test_a_sweep_that_makes_its_states_shares_their_counts():
    params = member(drawn(0), 0)

    def train(tx):
        def step(state, _):
            updates, state = tx.update(params, state, params)
            return state, updates

        return jax.lax.scan(step, tx.init(params), length=2)[1]

    def swept(rates):
        return gdtx.sweep(train, gdtx.soap(1e-3), {"learning_rate": rates})

    found = always(swept, jnp.array([1e-3, 1e-2]))
    assert "cond" in found
    assert "eigh" not in found


def test_state_is_members_arrays_and_one_count():
    params = drawn(0)
    axes = gdtx.member_axes(gdtx.adam(1e-3), params)
    state = jax.vmap(gdtx.adam(1e-3).init, out_axes=axes)(params)
    size = sum(x.size for x in jax.tree.leaves(params))
    counts = [x for x in jax.tree.leaves(state) if x.dtype == jnp.int32]
    assert [x.shape for x in counts] == [(), ()]
    assert sum(x.size for x in jax.tree.leaves(state)) == 2 * size + 2
    assert gdtx.count_steps(state) == 0


def test_what_has_no_members_is_refused():
    with pytest.raises(ValueError, match=r"member_axes: params\['b'\] must have the members"):
        gdtx.member_axes(gdtx.adam(1e-3), {"b": jnp.zeros(())})
    with pytest.raises(ValueError, match=r"params\['c'\] has 2 members .* params\['b'\] has 3"):
        gdtx.member_axes(gdtx.adam(1e-3), {"b": jnp.zeros(3), "c": jnp.zeros((2, 2))})
    with pytest.raises(ValueError, match="value has 2 members"):
        gdtx.member_axes(gdtx.adam(1e-3), drawn(0), value=jnp.zeros(2))


def test_nothing_has_no_members():
    assert gdtx.member_axes(gdtx.identity(), {}) == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_each_member_is_as_by_itself(name, x64):
    expected, found = alone_and_together(EVERY[name], np.float64)
    for x, y in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(y, x, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["adam", "accumulate_gradients"])
def test_members_of_these_are_as_by_themselves(name):
    expected, found = alone_and_together(EVERY[name])
    for x, y in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(y, x, rtol=1e-6, atol=1e-8)
