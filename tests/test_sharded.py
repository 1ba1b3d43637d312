"""Inside of `shard_map`, everything in the table computes what it would on whole arrays."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everything import EVERY, extras
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import gdtx
from gdtx.core.numbers.shards import varying_axes

SHAPES = {"b": (4,), "w": (4, 4)}
SPECS = {"b": P("model"), "w": P("data", "model")}
NOT = {
    "randomized": "each part draws its own numbers",
    "add_noise": "each part draws its own numbers",
    "differentially_private_aggregate": "its updates have an axis of examples before",
    "stored": "what is rounded by chance depends on the part",
    "sharded": "it says itself how arrays are cut",
} | dict.fromkeys(
    ("clip_by_fisher_norm", "scale_by_ekfac", "scale_by_kfac", "kfac", "levenberg_marquardt"),
    "the model whose curvature is measured has whole parameters",
)
ROWS = [name for name in EVERY if name not in NOT]
QUICK = (
    "adam", "lamb", "adafactor", "sm3", "shampoo", "muon", "prodigy", "skip_nonfinite",
    "backtracking_linesearch",
)  # fmt: skip


def mesh():
    types = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh((2, 2), ("data", "model"), devices=jax.devices()[:4], axis_types=types)


def drawn(seed):
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.normal(size=n), jnp.float32) for k, n in SHAPES.items()}


def given(name, params):
    """What a row asks for, the same on all devices where it is one number."""
    if "natural_gradient" in name:
        return {"curvature": 2 * jnp.eye(sum(math.prod(shape) for shape in SHAPES.values()))}
    more = extras(name, params)
    if "grad" in more:

        def value_fn(params):
            parts = [jnp.sum(jnp.cosh(p / 4)) for p in jax.tree.leaves(params)]
            return sum(jax.lax.psum(x, axes) if (axes := varying_axes(x)) else x for x in parts)

        more |= {"value": value_fn(params), "value_fn": value_fn}
    return more


def trained(name, tx, params, gradients):
    """In a loop, which refuses a first state of another type than the next."""

    def step(carry, gradient):
        params, state = carry
        more = given(name, params)
        # A search is along a direction in which the value falls, but for the sign.
        gradient = jax.tree.map(lambda g, u: -g if "search" in name else u,
                                more.get("grad", gradient), gradient)  # fmt: skip
        updates, state = tx.update(gradient, state, params, **more)
        return (gdtx.apply_updates(params, updates), state), updates

    gradients = jax.tree.map(lambda *x: jnp.stack(x), *gradients)
    return jax.lax.scan(step, (params, tx.init(params)), gradients)[1]


def in_parts(name, tx=None):
    tx = gdtx.sharded(EVERY[name] if tx is None else tx, SPECS)

    def run(params, *gradients):
        return trained(name, tx, params, gradients)

    specs = jax.tree.map(lambda spec: P(None, *spec), SPECS, is_leaf=lambda x: isinstance(x, P))
    return jax.shard_map(run, mesh=mesh(), in_specs=(SPECS,) * 3, out_specs=specs)


def assert_as_the_whole(name, arguments, tx=None):
    whole = EVERY[name] if tx is None else tx
    found = jax.jit(in_parts(name, tx))(*arguments)
    want = jax.jit(lambda params, *gradients: trained(name, whole, params, gradients))(*arguments)
    # Inverses multiply rounding by the condition, and a search its own by the root of it.
    rtol = 2e-4 if "full_matrix" in name or name == "lbfgs" or "search" in name else 1e-5
    for one, other in zip(*map(jax.tree.leaves, (found, want)), strict=True):
        largest = np.nan_to_num(np.abs(other)).max()
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol * largest)
    return found


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ROWS]
)
def test_parts_are_as_the_whole(name):
    assert_as_the_whole(name, [drawn(seed) for seed in range(3)])


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if "skip" in name else pytest.mark.slow) for name in ROWS],
)
def test_a_number_that_is_none_on_one_device_is_one_for_all(name):
    """Conditions and steps that are left out go the same way on all, and NaN is where it would be
    without devices."""
    params, first, second = (drawn(seed) for seed in range(3))
    first["b"] = first["b"].at[1].set(jnp.nan)
    tx = gdtx.skip_when(gdtx.adam(0.1), has_none) if name == "skip_when" else None
    found = assert_as_the_whole(name, [params, first, second], tx)
    if "skip" in name:
        assert all((x[0] == 0).all() and (x[1] != 0).all() for x in jax.tree.leaves(found))


def has_none(updates):
    return jnp.isnan(updates["b"]).any()


COLLECTIVES = r"\b(psum\w*|pmax|pmin|all_gather\w*|ppermute|all_to_all)\["


def test_what_looks_at_each_number_sends_nothing():
    for name in ("adamw", "lion", "amsgrad"):
        text = str(jax.make_jaxpr(in_parts(name))(*map(drawn, range(3))))
        assert not re.findall(COLLECTIVES, text)
    text = str(jax.make_jaxpr(in_parts("clip_by_global_norm"))(*map(drawn, range(3))))
    assert re.findall(COLLECTIVES, text)


def test_what_is_given_is_one_for_all():
    def update(tx, **more):
        def run(params):
            more_here = {key: f(params) for key, f in more.items()}
            return tx.update(params, tx.init(params), params, **more_here)[0]

        tx = gdtx.sharded(tx, SPECS)
        specs = {"in_specs": (SPECS,), "out_specs": SPECS}
        jax.eval_shape(jax.shard_map(run, mesh=mesh(), **specs), drawn(0))

    def local(params):
        return jnp.sum(params["w"])

    varies = "must be the same on all devices that have parts of the parameters, but varies over"
    with pytest.raises(ValueError, match=f"polyak_step: value {varies} 'data'"):
        update(gdtx.polyak_step(gdtx.sgd(0.1)), value=local)
    with pytest.raises(ValueError, match=f"when: flag {varies} 'data'"):
        update(gdtx.when("flag", gdtx.sgd(0.1)), flag=lambda params: local(params) > 0)
    with pytest.raises(ValueError, match=f"value_fn's result {varies} 'data'"):
        update(
            gdtx.backtracking_linesearch(), value=lambda _: 1.0, grad=lambda params: params,
            value_fn=lambda _: local,
        )  # fmt: skip


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
