"""What `replace` makes of a transformation: arrays stay arrays, and no change is lost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import counted_compilations
from everything import METHODS
from jax.sharding import NamedSharding, PartitionSpec

import gdtx

SCHEDULE = gdtx.linear_schedule(0.1, 0.0, 10)


@pytest.mark.parametrize("name", METHODS)
def test_a_number_in_the_place_of_an_array_is_an_array(name):
    constants = METHODS[name].make(0.125)
    tx = gdtx.as_arrays(constants)
    numbers = {
        path: value for path, value in gdtx.hyperparams(constants).items()
        if isinstance(value, float)
    }  # fmt: skip
    again = gdtx.replace(tx, numbers)
    assert jax.tree.structure(again) == jax.tree.structure(tx)
    assert again == tx
    for path, value in gdtx.hyperparams(again).items():
        if path in numbers:
            assert (value.dtype, value.weak_type) == (np.float32, False)


@pytest.mark.parametrize("change", [
    lambda tx, value: tx.replace(learning_rate=value),
    lambda tx, value: next(gdtx.chain(tx).replace(**{"0.learning_rate": value}).parts())[2],
    lambda tx, value: gdtx.tunable(tx).replace(**{"inner.learning_rate": value}).arguments["inner"],
])  # fmt: skip
def test_new_values_compile_nothing(change):
    tx = gdtx.as_arrays(gdtx.sgd(0.1), "learning_rate")
    params, state = jnp.ones(3), tx.init(jnp.ones(3))
    step = jax.jit(lambda tx, state: tx.update(params, state))
    for at in (tx, change(tx, 0.5)):
        at.update(params, state), step(at, state)
    with counted_compilations() as compilations:
        for rate in np.linspace(0.0, 1.0, 20):
            for value in (float(rate), rate, np.float32(rate)):
                tx = change(tx, value)
                np.testing.assert_array_equal(tx.update(params, state)[0], -np.float32(rate))
                step(tx, state)
    assert compilations == []


def placed():
    mesh = jax.make_mesh((8,), ("x",))
    return {
        "weak": jnp.asarray(0.1),
        "half": jnp.asarray(0.1, jnp.bfloat16),
        "on a device": jax.device_put(jnp.float32(0.1), jax.devices()[3]),
        "on a mesh": jax.device_put(jnp.float32(0.1), NamedSharding(mesh, PartitionSpec())),
        "NumPy's": np.array(0.1),
    }


@pytest.mark.parametrize("name", placed())
def test_dtype_and_devices_are_those_of_the_old(name):
    old = placed()[name]
    new = gdtx.adam(old).replace(learning_rate=0.25).arguments["learning_rate"]
    assert type(new) is type(old)
    assert (new.dtype, float(new)) == (old.dtype, 0.25)
    if isinstance(old, jax.Array):
        assert new.weak_type == old.weak_type
        assert (new.sharding, new.committed) == (old.sharding, old.committed)


def test_inside_a_trace():
    tx = gdtx.adam(jnp.float32(0.1))
    assert jax.jit(lambda tx: tx.replace(learning_rate=0.25))(tx) == gdtx.adam(jnp.float32(0.25))


def test_what_is_no_number_replaces_an_array_as_it_is():
    tx = gdtx.as_arrays(gdtx.adam(0.1))
    assert tx.replace(learning_rate=SCHEDULE).arguments["learning_rate"] == SCHEDULE
    batch = jnp.array([0.1, 0.2])
    assert tx.replace(learning_rate=batch).arguments["learning_rate"] is batch
    one = tx.replace(learning_rate=batch).replace(learning_rate=0.5)
    assert one.arguments["learning_rate"].shape == ()
    for bad, error in ((True, TypeError), ("0.1", TypeError), (2.0, ValueError)):
        with pytest.raises(error, match="adam: b1 must be"):
            tx.replace(b1=bad)
    # The way back to a constant is a new transformation, also in place of a part of another.
    chain = gdtx.replace(gdtx.chain(tx), {"0": gdtx.adam(0.1)})
    assert chain == gdtx.chain(gdtx.adam(0.1))


def test_integers():
    assert gdtx.adam(jnp.array(1)).replace(learning_rate=0.5).arguments["learning_rate"] == 0.5
    noise = gdtx.add_noise(0.1, 0.5, seed=jnp.array(3))
    for seed in (7, 2**32 - 1):
        new = noise.replace(seed=seed).arguments["seed"]
        assert isinstance(new, jax.Array)
        assert int(new) == seed


@pytest.mark.parametrize("path", ["b1", "b2", "eps"])
def test_numbers_are_rounded_into_their_range(path):
    """Nearest to 1 - 1e-9 in float32 is 1, which is no decay; to 1e-60 it is 0, which is fine."""
    value = {"eps": 1e-60}.get(path, 1 - 1e-9)
    tx = gdtx.adam(0.1).replace(**{path: value})
    arrays = gdtx.as_arrays(tx)
    assert arrays == gdtx.as_arrays(gdtx.adam(0.1)).replace(**{path: value})
    rounded = float(arrays.arguments[path])
    assert 0 <= rounded < 1
    assert gdtx.tunable(tx).init(jnp.ones(1)).hyperparams[path] == rounded
    step = gdtx.as_arrays(gdtx.polyak_step(max_learning_rate=1e-60))
    assert float(step.arguments["max_learning_rate"]) > 0


def test_of_a_path_and_one_below_it_both_count():
    tx = gdtx.chain(gdtx.clip(1.0), gdtx.sgd(0.1))
    outer = {"1": gdtx.adam(SCHEDULE)}
    inner = {"1.learning_rate.init_value": 0.5, "1.b1": 0.8}
    want = gdtx.chain(gdtx.clip(1.0), gdtx.adam(gdtx.linear_schedule(0.5, 0.0, 10), b1=0.8))
    assert gdtx.replace(tx, outer | inner) == gdtx.replace(tx, inner | outer) == want
    groups = gdtx.partition({"a": gdtx.sgd(0.1)}, "a")
    changes = {"transforms.a.b1": 0.8, "transforms.a": gdtx.adam(0.1)}
    assert gdtx.replace(groups, changes).arguments["transforms"] == {"a": gdtx.adam(0.1, b1=0.8)}
    with pytest.raises(TypeError, match=r"^adam: no argument 'c' to replace"):
        gdtx.replace(tx, {"1": gdtx.adam(0.1), "1.c": 0.5})
    with pytest.raises(TypeError, match=r"^sgd: learning_rate is to be 0\.5, which has no 'init_v"):
        gdtx.replace(tx, {"1.learning_rate": 0.5, "1.learning_rate.init_value": 0.2})


def test_paths_that_begin_or_end_alike_are_others():
    tx = gdtx.chain(*[gdtx.scale(1.0)] * 11)
    changed = gdtx.replace(tx, {"1": gdtx.clip(2.0), "10.factor": 3.0})
    assert changed == gdtx.chain(
        gdtx.scale(1.0), gdtx.clip(2.0), *[gdtx.scale(1.0)] * 8, gdtx.scale(3.0)
    )
    groups = gdtx.partition({"bias": gdtx.sgd(0.1), "nobias": gdtx.sgd(0.2)}, "bias")
    changed = gdtx.replace(groups, {"transforms.nobias.learning_rate": 0.3})
    assert changed == gdtx.partition({"bias": gdtx.sgd(0.1), "nobias": gdtx.sgd(0.3)}, "bias")
    with pytest.raises(TypeError, match="no argument 'learning_rates' to replace"):
        gdtx.replace(gdtx.sgd(0.1), {"learning_rate": 0.2, "learning_rates": 0.3})
