"""First states of parameters of which no numbers are known."""

import jax
import jax.numpy as jnp
import optax
import pytest
from everything import EVERY, PARAMS
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding

import gdtx

SPECS = {"b": PartitionSpec(), "w": PartitionSpec("d")}


def structs(params, shardings=None):
    shardings = jax.tree.map(lambda _: None, params) if shardings is None else shardings
    return {
        key: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=shardings[key])
        for key, p in params.items()
    }


def described(state):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), state)


@pytest.mark.parametrize("name", EVERY)
def test_state_of_structs_is_structs(name):
    found = EVERY[name].init(structs(PARAMS))
    assert described(found) == described(jax.eval_shape(EVERY[name].init, PARAMS))
    assert all(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(found))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.diagonal
def test_structs_are_where_the_state_would_be(name, axis_type):
    mesh = jax.make_mesh((2,), ("d",), axis_types=(axis_type,))
    shardings = {key: NamedSharding(mesh, spec) for key, spec in SPECS.items()}
    found = EVERY[name].init(structs(PARAMS, shardings))
    state = EVERY[name].init(jax.device_put(PARAMS, shardings))
    assert described(found) == described(state)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
        # Optax's counts are nowhere yet.
        assert not other.committed or one.sharding.is_equivalent_to(other.sharding, other.ndim)


def test_structs_on_one_device_and_structs_among_arrays():
    where = SingleDeviceSharding(jax.devices()[1])
    found = gdtx.adam(0.1).init(structs(PARAMS, {"b": where, "w": where}))
    assert {x.sharding for x in jax.tree.leaves(found)} == {where}
    mixed = gdtx.adam(0.1).init({**PARAMS, "b": structs(PARAMS)["b"]})
    assert described(mixed) == described(gdtx.adam(0.1).init(PARAMS))
    assert all(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(mixed))


def test_structs_inside_of_optax():
    """Each of our links answers for itself there."""
    tx = optax.chain(gdtx.lookahead(gdtx.sgd(0.1, 0.9)), gdtx.sm3(0.1))
    assert described(tx.init(structs(PARAMS))) == described(jax.eval_shape(tx.init, PARAMS))


def test_structs_of_what_is_refused():
    with pytest.raises(TypeError, match=r"adam: params\['n'\] has dtype int32"):
        gdtx.adam(0.1).init({"n": jax.ShapeDtypeStruct((), jnp.int32)})
