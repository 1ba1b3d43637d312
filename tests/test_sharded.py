"""Inside of `shard_map`, everything in the table computes what it would on whole arrays."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everything import EVERY
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import gdtx

SHAPES = {"b": (4,), "w": (4, 4)}
SPECS = {"b": P("model"), "w": P("data", "model")}
NOT = {
    "randomized": "each part draws its own numbers",
    "add_noise": "each part draws its own numbers",
    "differentially_private_aggregate": "its updates have an axis of examples before",
    "skip_when": "its function, which sums, sees parts",
    "stored": "what is rounded by chance depends on the part",
    "sharded": "it says itself how arrays are cut",
}
# What they ask for beside gradients is of a model, or of a function of whole parameters.
GIVEN = ("search", "lbfgs", "kfac", "fisher", "levenberg", "natural", "sophia", "value_of", "sharp")
ROWS = [name for name in EVERY if name not in NOT and not any(part in name for part in GIVEN)]
QUICK = ("adam", "lamb", "adafactor", "sm3", "shampoo", "muon", "prodigy", "skip_nonfinite")


def mesh():
    types = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh((2, 2), ("data", "model"), devices=jax.devices()[:4], axis_types=types)


def drawn(seed):
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.normal(size=n), jnp.float32) for k, n in SHAPES.items()}


def trained(tx, params, gradients):
    """In a loop, which refuses a first state of another type than the next."""

    def step(carry, gradient):
        params, state = carry
        value, flag = jnp.float32(0.5), jnp.array(True)
        updates, state = tx.update(gradient, state, params, value=value, flag=flag)
        return (gdtx.apply_updates(params, updates), state), updates

    gradients = jax.tree.map(lambda *x: jnp.stack(x), *gradients)
    return jax.lax.scan(step, (params, tx.init(params)), gradients)[1]


def in_parts(tx):
    def run(params, *gradients):
        return trained(gdtx.sharded(tx, SPECS), params, gradients)

    specs = jax.tree.map(lambda spec: P(None, *spec), SPECS, is_leaf=lambda x: isinstance(x, P))
    return jax.shard_map(run, mesh=mesh(), in_specs=(SPECS,) * 3, out_specs=specs)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ROWS]
)
def test_parts_are_as_the_whole(name):
    tx, arguments = EVERY[name], [drawn(seed) for seed in range(3)]
    found = jax.jit(in_parts(tx))(*arguments)
    want = jax.jit(lambda params, *gradients: trained(tx, params, gradients))(*arguments)
    rtol = 2e-4 if "full_matrix" in name else 1e-5  # inverses multiply rounding by the condition
    for one, other in zip(*map(jax.tree.leaves, (found, want)), strict=True):
        largest = np.nan_to_num(np.abs(other)).max()
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol * largest)


COLLECTIVES = r"\b(psum\w*|pmax|pmin|all_gather\w*|ppermute|all_to_all)\["


def test_what_looks_at_each_number_sends_nothing():
    for tx in (gdtx.adamw(0.1), gdtx.lion(0.1), gdtx.amsgrad(0.1)):
        text = str(jax.make_jaxpr(in_parts(tx))(*[drawn(seed) for seed in range(3)]))
        assert not re.findall(COLLECTIVES, text)
    text = str(jax.make_jaxpr(in_parts(gdtx.clip_by_global_norm(1.0)))(*map(drawn, range(3))))
    assert re.findall(COLLECTIVES, text)


def test_mistakes():
    def initialized(specs, in_specs=SPECS):
        tx = gdtx.sharded(gdtx.lamb(0.1), specs)
        run = lambda params: tx.update(params, tx.init(params), params)[0]  # noqa: E731
        return jax.shard_map(run, mesh=mesh(), in_specs=(in_specs,), out_specs=in_specs)(drawn(0))

    with pytest.raises(ValueError, match=r"sharded: params\['w'\] varies over 'data', which its"):
        initialized({"b": P("model"), "w": P(None, "model")})
    with pytest.raises(
        ValueError, match=r"sharded: params\['b'\] does not vary over 'data', which"
    ):
        initialized({"b": P(("data", "model")), "w": P("data", "model")})
    with pytest.raises(TypeError, match="sharded: specs must be of jax"):
        initialized({"b": "model", "w": P("data", "model")})
    with pytest.raises(ValueError, match="does not vary over 'data'"):
        gdtx.sharded(gdtx.adam(0.1), P("data")).init(drawn(0))
