"""Statistics and roots are where the parameters are, and moved by no step that computes no root."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import counted_compilations
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from test_sharding import PLACES, described, draw, fresh_rate, on_mesh

import gdtx

METHODS = {
    "shampoo": lambda rate, **settings: gdtx.shampoo(
        rate, eps=1e-3, roots=gdtx.Roots(2), graft=gdtx.scale_by_adam(), **settings
    ),
    # From step 4 on no eigenvector of the statistics is anyone's choice.
    "soap": lambda rate, **settings: gdtx.soap(
        rate, eps=1e-3, bases=gdtx.Bases(2, start=4), **settings
    ),
}
STEPS = 6
# What moves numbers from device to device.
COLLECTIVES = r"\b(all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(-start)?\("

by_method = pytest.mark.parametrize("name", METHODS)


@pytest.mark.first(1)
@by_method
@pytest.mark.parametrize(
    "place", ["automatic", "explicit", pytest.param("uncommitted", marks=pytest.mark.slow)]
)
@pytest.mark.diagonal
def test_state_is_born_final_and_equals_the_plain_run(name, place):
    params, gradients = some(0), [some(1 + i) for i in range(STEPS)]
    rate = fresh_rate()
    with PLACES[place]() as put:
        params, gradients = put(params), [put(g) for g in gradients]
        tx = METHODS[name](rate)
        state = tx.init(params)
        born = described(state)
        assert not any(x.weak_type for x in jax.tree.leaves(state))
        devices = params["w"].sharding.device_set
        assert all(x.sharding.device_set == devices for x in jax.tree.leaves(state))
        with counted_compilations() as compilations:
            steps = []
            for g in gradients:
                updates, state = tx.update(g, state, params)
                assert described(state) == born
                assert all(u.sharding == params[k].sharding for k, u in updates.items())
                steps.append(updates)
        assert len(compilations) == 1
    plain = unsharded(name)
    for one, other in zip(jax.tree.leaves(steps), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(one / rate, other / 0.1, rtol=5e-3, atol=5e-3)


def some(seed):
    """A matrix cut along both axes, one along both at once, and a vector."""
    return {k: v for k, v in draw(seed).items() if k != "s"}


@functools.cache
def unsharded(name):
    tx, params = METHODS[name](0.1), some(0)
    state, steps = tx.init(jax.tree.map(jnp.asarray, params)), []
    for i in range(STEPS):
        updates, state = tx.update(some(1 + i), state, params)
        steps.append(updates)
    return steps


def compiled(tx, params):
    state = tx.init(params)
    return jax.jit(tx.update).lower(params, state, params).compile().as_text(), state


@by_method
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=lambda t: t.name)
@pytest.mark.diagonal
def test_whole_blocks_are_where_their_parameters_are_and_stay_there(name, axis_type):
    """Blocks of 2 by 2, four rows of them on four devices and two columns on two."""
    with on_mesh(axis_type) as put:
        params = put({"w": np.ones((8, 4), np.float32)})
        # Without a graft, which needs the norms of whole arrays.
        tx = getattr(gdtx, name)(0.1, blocks=gdtx.Blocks(2))
        text, state = compiled(tx, params)
        expected = PartitionSpec(None, "data", "model")
        kept = [x for x in jax.tree.leaves(state) if x.ndim > 2]
        assert kept
        for x in kept:
            assert x.sharding.is_equivalent_to(NamedSharding(x.sharding.mesh, expected), x.ndim)
    # How many roots failed is summed over all devices, in the conditional that computes them.
    for line in text.splitlines():
        if re.search(COLLECTIVES, line):
            assert re.search(r"= \(?s32\[\].* all-reduce", line), line
            assert re.search("cond/branch_1_fun/.*reduce_sum", line), line


@pytest.mark.first(1)
@by_method
def test_parameters_on_every_device_need_no_communication(name):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    whole = NamedSharding(mesh, PartitionSpec())
    params = jax.device_put({"w": jnp.ones((8, 4)), "b": jnp.ones(3)}, whole)
    text, state = compiled(METHODS[name](0.1), params)
    assert not re.findall(COLLECTIVES, text)
    assert all(x.sharding.is_fully_replicated for x in jax.tree.leaves(state))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shampoo", "soap", "muon"])
def test_arrays_of_one_shape_are_each_where_they_were(name):
    """As the projections into attention and out of it are, which one program handles together."""
    mesh = jax.make_mesh((8,), ("model",), axis_types=(AxisType.Auto,))
    columns, rows = PartitionSpec(None, "model"), PartitionSpec("model", None)
    specs = {"query": columns, "out": rows, "key": columns, "down": rows}
    params = {
        name: jax.device_put(jnp.ones((16, 16)), NamedSharding(mesh, spec))
        for name, spec in specs.items()
    }
    everything = jax.tree.map(lambda _: True, params)
    settings = (0.1, everything, gdtx.sgd(0.1)) if name == "muon" else (0.1,)
    tx = getattr(gdtx, name)(*settings)
    updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
    assert {name: u.sharding.spec for name, u in updates.items()} == specs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (gdtx.shampoo, {"eps": 1e-3}),
        (gdtx.shampoo, {"b2": 0.9}),
        (gdtx.soap, {"b1": 0.9}),
        (gdtx.full_matrix_adagrad, {"eps": 1e-3}),
    ],
    ids=["shampoo-eps", "shampoo-b2", "soap-b1", "full-eps"],
)
@pytest.mark.parametrize("kind", [jnp.asarray, gdtx.constant_schedule])
def test_numbers_that_are_no_constants_serve_on_explicit_meshes(method, settings, kind):
    def one_step(settings, put):
        params = put({"w": np.arange(32, dtype=np.float32).reshape(8, 4)})
        tx = method(0.1, **settings)
        return tx.update(params, tx.init(params), params)[0]["w"]

    with on_mesh(AxisType.Explicit) as put:
        found = one_step({name: kind(value) for name, value in settings.items()}, put)
    expected = one_step(settings, lambda tree: jax.tree.map(jnp.asarray, tree))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
