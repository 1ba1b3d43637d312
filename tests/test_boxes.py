"""Parameters in flax's boxes, which name the axes over which they are sharded."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from everything import EVERY, PARAMS, extras
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gdtx

NAMES = {"b": (None,), "w": ("d", None)}
SPECS = {key: PartitionSpec(*names) for key, names in NAMES.items()}
# Of functions of the user that know arrays only.
KNOWN = {name: tx for name, tx in EVERY.items() if name != "skip_when"}


def boxed(params):
    return {key: nn.Partitioned(p, names=NAMES[key]) for key, p in params.items()}


def step(name):
    def run(params):
        tx = EVERY[name]
        given = extras(name, PARAMS) | {"tree": params, "grad": params, "hessian": params}
        return tx.update(params, tx.init(params), params, **given)

    return run


@pytest.mark.parametrize("name", KNOWN)
def test_specs_fit_the_state_and_it_keeps_its_structure(name):
    """On a box a spec has an entry for each axis, and no other array has one."""
    tx, params = EVERY[name], boxed(PARAMS)
    state = jax.eval_shape(tx.init, params)
    updates, new = jax.eval_shape(step(name), params)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    specs = nn.get_partition_spec(state)

    def check(spec, below):
        for x in jax.tree.leaves(below):
            assert spec == PartitionSpec() or [*x.shape] in ([2], [4, 2])
            assert len(spec) in (0, x.ndim)

    jax.tree.map(check, specs, state, is_leaf=lambda x: isinstance(x, PartitionSpec))


def test_what_has_the_shape_of_the_parameters_keeps_their_boxes():
    specs = nn.get_partition_spec(jax.eval_shape(EVERY["adafactor"].init, boxed(PARAMS)))
    buffers = gdtx.find(specs, "value")
    rank_one, momentum = buffers.values()
    assert momentum == SPECS
    assert rank_one == {"b": SPECS["b"], "w": gdtx.Margins(PartitionSpec(), PartitionSpec())}


@pytest.mark.first(1)
@pytest.mark.parametrize("name", ["adafactor", "scale_by_full_matrix"])
def test_sharded_as_the_boxes_say(name):
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
    specs = nn.get_partition_spec(jax.eval_shape(EVERY[name].init, boxed(PARAMS)))
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    state = jax.jit(EVERY[name].init, out_shardings=shardings)(boxed(PARAMS))
    updates, _ = EVERY[name].update(boxed(PARAMS), state, boxed(PARAMS))
    want, _ = EVERY[name].update(PARAMS, EVERY[name].init(PARAMS), PARAMS)
    for key, update in nn.unbox(updates).items():
        np.testing.assert_allclose(update, want[key], rtol=1e-5)
