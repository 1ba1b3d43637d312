"""Where a state belongs is known before it is there, and stays so, for every transformation."""

import contextlib
import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everything import EVERY, PARAMS, extras
from jax.sharding import AxisType, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

import gdtx

CUT = {"b": P("model"), "w": P("data", "model")}
WHOLE = {"b": P(None), "w": P(None, "model")}
# Rows whose states are of different kinds: like parameters, of reduced shapes, matrices, blocks.
KINDS = ("adamw", "adafactor", "sm3", "shampoo", "stored", "scale_by_kfac", "lookahead")
by_kind = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in KINDS else pytest.mark.slow) for name in EVERY]
)
# The inverses of matrices multiply rounding by their condition.
CONDITION = {"scale_by_full_matrix": 10, "kfac": 30}
both_types = pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)


def drawn(seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), PARAMS)


@contextlib.contextmanager
def mesh_of(axis_type):
    """Two devices of each axis. An explicit mesh must be the context's, in older JAX by another
    name."""
    types = (axis_type, axis_type)
    mesh = jax.make_mesh((2, 2), ("data", "model"), devices=jax.devices()[:4], axis_types=types)
    set_mesh = jax.set_mesh if hasattr(jax, "set_mesh") else jax.sharding.use_mesh
    with set_mesh(mesh) if axis_type == AxisType.Explicit else contextlib.nullcontext():
        yield mesh


def on(mesh, specs):
    return {key: NamedSharding(mesh, spec) for key, spec in specs.items()}


def assert_placed(state, shardings):
    """In the same words: others would be taken for another place, and compile again."""
    paths = jax.tree_util.tree_flatten_with_path(state)[0]
    for (path, x), where in zip(paths, jax.tree.leaves(shardings), strict=True):
        assert x.sharding == where, jax.tree_util.keystr(path)


def stepped(tx, name):
    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params, **extras(name, params))
        return gdtx.apply_updates(params, updates), state

    return step


def trained(name, step, params, state):
    """After two steps of one jitted function, which is compiled once."""
    for seed in (1, 2):
        params, state = step(params, state, drawn(seed))
    assert step._cache_size() == 1
    return params, state


@functools.cache
def plain(name):
    params, tx = drawn(0), EVERY[name]
    return trained(name, jax.jit(stepped(tx, name)), params, tx.init(params))


def assert_same(found, name):
    size = CONDITION.get(name, 1)
    for pair in zip(*map(jax.tree.leaves, (found, plain(name))), strict=True):
        one, other = (np.asarray(x, np.float64) for x in pair)
        np.testing.assert_allclose(one, other, rtol=2e-5 * size, atol=2e-6 * size)


@pytest.mark.parametrize("name", EVERY)
@both_types
@pytest.mark.diagonal
def test_it_is_that_of_the_state(name, axis_type):
    with mesh_of(axis_type) as mesh:
        params = jax.device_put(drawn(0), on(mesh, CUT))
        state = EVERY[name].init(params)
        if not all(x.committed for x in jax.tree.leaves(state)):
            pytest.skip("an Optax transformation in it puts its counts nowhere")
        assert_placed(state, gdtx.state_sharding(EVERY[name], params))


@pytest.mark.parametrize("name", EVERY)
def test_zero1_leaves_each_device_its_share(name):
    with mesh_of(AxisType.Auto) as mesh:
        params = jax.tree.map(
            lambda p, where: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=where),
            PARAMS,
            on(mesh, WHOLE),
        )
        shardings = gdtx.state_sharding(EVERY[name], gdtx.zero1(params, "data"))
        state = jax.eval_shape(EVERY[name].init, params)
        for x, where in zip(*map(jax.tree.leaves, (state, shardings)), strict=True):
            names = {name for entry in where.spec if entry for name in np.atleast_1d(entry)}
            assert "data" in names or all(n % 2 for n in where.shard_shape(x.shape))


@by_kind
def test_a_compiled_init_follows_the_parameters(name):
    """What is like one; the rest is on all devices at least."""
    with mesh_of(AxisType.Auto) as mesh:
        tx, params = EVERY[name], jax.device_put(drawn(0), on(mesh, CUT))
        state, expected = jax.jit(tx.init)(params), tx.init(params)
        chex.assert_trees_all_equal(state, expected)
        assert jax.tree.map(typed, state) == jax.tree.map(typed, expected)
        paths = jax.tree_util.tree_flatten_with_path(state)[0]
        for (path, x), other in zip(paths, jax.tree.leaves(expected), strict=True):
            assert x.sharding.device_set == set(mesh.devices.flat)
            is_like_b = "['b']" in jax.tree_util.keystr(path) and x.shape == (2,)
            if is_like_b or x.shape == (4, 2):
                assert x.sharding.is_equivalent_to(other.sharding, x.ndim)


def typed(x):
    return x.shape, x.dtype, x.weak_type


def test_a_compiled_init_takes_no_number_of_the_parameters():
    with mesh_of(AxisType.Auto) as mesh:
        params = jax.device_put({"w": jnp.full((4, 2), jnp.nan)}, NamedSharding(mesh, P("data")))
        state = jax.jit(gdtx.adam(0.1).init)(params)
        assert not any(np.any(x) for x in jax.tree.leaves(state))

        # In a program that is differentiated, and one that maps over parameters.
        def total(p):
            return sum(jnp.sum(x) for x in jax.tree.leaves(gdtx.sgd(0.1, 0.9).init({"w": p})))

        assert not np.any(jax.jit(jax.grad(total))(params["w"]))
        assert not np.any(jax.jit(jax.vmap(jax.grad(total)))(params["w"]))
        count = gdtx.scale_by_schedule(lambda t: 1.0).init
        assert jax.jit(count)(params).step.sharding.device_set == set(mesh.devices.flat)
        assert jax.jit(jax.vmap(count))(params).step.shape == (4,)


@by_kind
def test_a_state_cut_over_the_data_axis_is_the_same_state(name):
    with mesh_of(AxisType.Auto) as mesh:
        params = jax.device_put(drawn(0), on(mesh, WHOLE))
        tx, where = EVERY[name], on(mesh, WHOLE)
        shardings = gdtx.state_sharding(tx, gdtx.zero1(params, "data"))
        state = jax.jit(tx.init, out_shardings=shardings)(params)
        step = jax.jit(stepped(tx, name), out_shardings=(where, shardings), donate_argnums=(0, 1))
        found = trained(name, step, params, state)
        assert_placed(found, (where, shardings))
        assert_same(found, name)


@by_kind
def test_on_an_explicit_mesh_gradients_and_parameters_are_resharded(name):
    if "natural_gradient" in name:
        pytest.skip("it has no state, and one matrix for all parameters, which are to be whole")
    with mesh_of(AxisType.Explicit) as mesh:
        where = on(mesh, WHOLE)
        params = jax.device_put(drawn(0), where)
        # A model sees whole parameters, values and gradients at a point may be those of shares.
        of_model = any(part in name for part in ("kfac", "fisher", "levenberg"))
        tx, cut = EVERY[name], jax.tree.map(lambda x: x.sharding, gdtx.zero1(params, "data"))
        shardings = gdtx.state_sharding(tx, gdtx.zero1(params, "data"))
        state = jax.jit(tx.init, out_shardings=shardings)(params)

        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def step(params, state, gradient):
            gradient, shares = jax.sharding.reshard((gradient, params), (cut, cut))
            updates, state = tx.update(
                gradient, state, shares, **extras(name, params if of_model else shares)
            )
            return gdtx.apply_updates(params, jax.sharding.reshard(updates, where)), state

        found = trained(name, step, params, state)
        assert_placed(found, (where, shardings))
    assert_same(found, name)


@by_kind
def test_a_state_may_be_in_the_memory_of_the_host(name):
    kind = of_host()
    with mesh_of(AxisType.Auto) as mesh:
        where = on(mesh, CUT)
        params, tx = jax.device_put(drawn(0), where), EVERY[name]
        near, far = gdtx.state_sharding(tx, params), gdtx.state_sharding(tx, params, kind)
        state = jax.device_put(tx.init(params), far)

        @functools.partial(jax.jit, out_shardings=(where, far))
        def step(params, state, gradient):
            return stepped(tx, name)(params, jax.device_put(state, near), gradient)

        found = trained(name, step, params, state)
        assert_placed(found, (where, far))
        assert_same(found, name)


def of_host():
    kinds = [memory.kind for memory in jax.devices()[0].addressable_memories()]
    return "pinned_host" if "pinned_host" in kinds else kinds[0]  # the older CPU has one


def test_the_memory_of_the_parameters_is_that_of_what_is_like_them():
    with mesh_of(AxisType.Auto) as mesh:
        near = on(mesh, CUT)
        far = jax.tree.map(lambda where: where.with_memory_kind(of_host()), near)
        params, tx = jax.device_put(drawn(0), far), gdtx.adam(0.1)
        assert_placed(tx.init(params), gdtx.state_sharding(tx, params))
        shares = gdtx.zero1(params, "data").values()
        assert {share.sharding.memory_kind for share in shares} == {of_host()}


@pytest.mark.parametrize("name", ["adafactor", "sm3", "shampoo", "full_matrix_adagrad", "kfac"])
def test_a_table_shows_the_same(name):
    with mesh_of(AxisType.Auto) as mesh:
        params = jax.device_put(drawn(0), on(mesh, CUT))
        shown = [row.sharding for row in gdtx.state_table(EVERY[name], params).rows]
        expected = jax.tree.leaves(gdtx.state_sharding(EVERY[name], params))
        assert sorted(map(str, shown)) == sorted(map(str, expected))


def test_an_array_is_cut_along_the_longest_axis_that_can_be():
    with mesh_of(AxisType.Auto) as mesh:

        def cut(shape, spec, axis="data"):
            where = NamedSharding(mesh, P(*spec))
            struct = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=where)
            return gdtx.zero1({"w": struct}, axis)["w"].sharding.spec

        assert cut((4, 8), ()) == P(None, "data")
        assert cut((8, 8), ()) == P("data")
        assert cut((4, 7), ()) == P("data")
        assert cut((3, 7), ()) == P()
        assert cut((), ()) == P()
        assert cut((0, 2), ()) == P(None, "data")
        assert cut((2, 8), (None, "model")) == P("data", "model")
        assert cut((3, 8), (None, "model")) == P(None, ("model", "data"))
        assert cut((3, 2), (None, "model")) == P(None, "model")
        assert cut((8, 8), ("data", None)) == P("data", None)
        assert cut((8, 8), (), ("data", "model")) == P(("data", "model"))
        assert cut((8, 4), ("model", None), ("data", "model")) == P("model", "data")


def test_nothing_is_allocated():
    with mesh_of(AxisType.Auto) as mesh:
        huge = {
            "w": jax.ShapeDtypeStruct(
                (2**20, 2**20), jnp.float32, sharding=NamedSharding(mesh, P())
            )
        }
        shardings = gdtx.state_sharding(gdtx.adafactor(0.1), gdtx.zero1(huge, "data"))
    assert {where.spec for where in jax.tree.leaves(shardings)} == {P(), P("data")}


def test_numbers_are_not_asked_for():
    with mesh_of(AxisType.Auto) as mesh:
        params = jax.device_put(drawn(0), on(mesh, CUT))
        expected = gdtx.state_sharding(gdtx.adam(0.1), params)
        jax.tree.map(lambda p: p.delete(), params)
        assert gdtx.state_sharding(gdtx.adam(0.1), params) == expected


@pytest.mark.parametrize("name", ["adamw", "adafactor", "shampoo", "scale_by_kfac"])
def test_of_parameters_in_boxes(name):
    """The same, in the boxes that the state has."""
    with mesh_of(AxisType.Auto) as mesh:
        params = jax.device_put(drawn(0), on(mesh, CUT))
        boxed = {key: nn.Partitioned(p, names=tuple(CUT[key])) for key, p in params.items()}
        found = gdtx.state_sharding(EVERY[name], boxed)
        plain = gdtx.state_sharding(EVERY[name], params)
        assert jax.tree.leaves(found) == jax.tree.leaves(plain)
        assert jax.tree.structure(found) == jax.tree.structure(EVERY[name].init(boxed))
        cut = gdtx.state_sharding(EVERY[name], gdtx.zero1(boxed, "data"))
        assert jax.tree.structure(cut) == jax.tree.structure(found)


def test_of_one_device():
    where = SingleDeviceSharding(jax.devices()[1])
    for params, expected in (
        (PARAMS, PARAMS["w"].sharding),
        (jax.device_put(PARAMS, jax.devices()[1]), where),
    ):
        found = gdtx.state_sharding(gdtx.adam(0.1), params)
        assert set(jax.tree.leaves(found)) == {expected}
        assert jax.tree.structure(found) == jax.tree.structure(gdtx.adam(0.1).init(params))


def test_mistakes():
    adam, struct = gdtx.adam(0.1), jax.ShapeDtypeStruct((2,), jnp.float32)
    with pytest.raises(ValueError, match=r"state_sharding: params\['w'\] must have a sharding"):
        gdtx.state_sharding(adam, {"w": struct})
    with pytest.raises(TypeError, match="state_sharding: tx must be a transformation"):
        gdtx.state_sharding(0.1, PARAMS)
    with pytest.raises(ValueError, match=r"zero1: params\['b'\] must be on a mesh, got an array"):
        gdtx.zero1(PARAMS, "data")
    with mesh_of(AxisType.Auto) as mesh, pytest.raises(ValueError, match="without 'rows'"):
        gdtx.zero1(jax.device_put(PARAMS, NamedSharding(mesh, P())), "rows")
