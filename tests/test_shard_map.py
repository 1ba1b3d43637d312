"""Inside of `shard_map`, where the type of an array says over which axes it varies."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everything import EVERY, PARAMS, extras
from jax.sharding import AxisType, PartitionSpec

import gdtx

# Other programs of transformations that are in the table.
OTHERS = {
    "newton": gdtx.shampoo(0.1, roots=gdtx.Roots(method="newton"), blocks=gdtx.Blocks(3)),
    "sums, stale": gdtx.shampoo(0.1, b1=0.0, b2=1.0, roots=gdtx.Roots(stale=True)),
    "eigh": gdtx.soap(0.1, bases=gdtx.Bases(method="eigh")),
    "blocks of vectors": gdtx.full_matrix_adagrad(0.1, block_size=2),
    "several wrappers": gdtx.skip_nonfinite(
        gdtx.accumulate_gradients(gdtx.average(gdtx.remember(gdtx.shampoo(0.1))), 2)
    ),
    # That of the table says that nothing is cut.
    "sharded": gdtx.sharded(gdtx.lamb(0.1), PartitionSpec("d")),
}
CASES = EVERY | OTHERS


def loop(name, params):
    """Parameters after two steps of a loop on what each device has."""
    tx = CASES[name]

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(params, state, params, **extras(name, params))
        return (gdtx.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, tx.init(params)), length=2)[0][0]


def on_two_devices(name):
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("d")
    return jax.shard_map(functools.partial(loop, name), mesh=mesh, in_specs=spec, out_specs=spec)


@pytest.mark.parametrize("name", CASES)
def test_types_of_states_stay(name):
    """A loop refuses a first state of another type than the next, as a conditional does."""
    both = jax.tree.map(lambda p: jnp.concatenate([p, p]), PARAMS)
    jax.eval_shape(on_two_devices(name), both)


@pytest.mark.parametrize(
    "name", ["scale_by_window", "skip_nonfinite", pytest.param("shampoo", marks=pytest.mark.slow)]
)
def test_each_device_computes_what_it_would_alone(name):
    both = jax.tree.map(lambda p: jnp.concatenate([p, -2 * p]), PARAMS)
    got = jax.jit(on_two_devices(name))(both)
    alone = jax.jit(functools.partial(loop, name))
    for i, factor in enumerate((1, -2)):
        want = alone(jax.tree.map(lambda p: factor * p, PARAMS))  # noqa: B023
        for key, p in want.items():
            np.testing.assert_allclose(np.split(got[key], 2)[i], p, rtol=1e-5, atol=1e-6)


RANDOM = {
    "noise": (gdtx.add_noise(1.0, 0.5), jnp.float32, 0.0),
    "rounding": (gdtx.stochastic_rounding(), jnp.bfloat16, 1e-3),
    "narrow buffer": (gdtx.trace(0.9, dtype="bfloat16"), jnp.float32, 1.001),
    "eight bits": (gdtx.stored(gdtx.trace(0.9), block=64, least=1), jnp.float32, 1.03),
    "more bits": (gdtx.master_bits(gdtx.scale(1.0)), jnp.bfloat16, 1e-6),
}


@pytest.mark.parametrize("name", RANDOM)
def test_parts_of_an_array_draw_numbers_of_their_own(name):
    """And copies of an array on several devices the same."""
    tx, dtype, value = RANDOM[name]
    mesh = jax.make_mesh((2, 2), ("cut", "same"), axis_types=(AxisType.Auto, AxisType.Auto))

    def run(u, p):
        state = tx.init(p)
        for _ in range(2):
            emitted, state = tx.update(u, state, p)
        kept = [x for x in jax.tree.leaves(state) if x.shape == u.shape]
        return [emitted, *kept]

    spec = PartitionSpec("cut")
    u, p = jnp.full((256,), value), jnp.ones(256, dtype)
    # Of what is the same over the other axis the type says so: it would be an error else.
    mapped = jax.shard_map(run, mesh=mesh, in_specs=(spec, spec), out_specs=spec)
    found = [np.asarray(x, np.float32) for x in jax.jit(mapped)(u, p)]
    assert any((x[:128] != x[128:]).any() for x in found)
    # Outside, and where an array is whole, no axis index is asked for.
    assert "axis_index" not in str(jax.make_jaxpr(run)(u, p))
