"""State lives where the parameters live, is born final, and can be donated.

Eight simulated devices. Every method runs on one device, on an automatic mesh and on an explicit
one, by itself and inside `jax.jit`. Whatever a first update would change about the state (its
dtype, weak type, placement) would compile a second one, so the compilations are counted too, and
compared with the promise: one.
"""

import contextlib
import functools
import itertools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compilations import counted_compilations
from everything import METHODS
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gdtx

# What differs in its state, from the table and beyond it.
TABLED = (
    "momentum", "ema_sgd corrected", "adagrad", "adadelta with decay", "rmsprop centered", "rprop",
    "adam", "adamw", "adamax", "nadam", "nadam with momentum schedule", "amsgrad", "radam",
)  # fmt: skip
CASES = {name: METHODS[name].make for name in TABLED} | {
    "scheduled": lambda lr: gdtx.adam(gdtx.linear_schedule(lr, 0.0, 10)),
    "clipped": lambda lr: gdtx.chain(gdtx.clip_by_global_norm(0.5), gdtx.adam(lr)),
    "bfloat16 buffers": lambda lr: gdtx.chain(gdtx.trace(0.9, dtype="bfloat16"), gdtx.scale(-lr)),
    "first values": lambda lr: gdtx.recur(
        lambda u, a, params, step: (-lr * (u + (params - a) / step), {"a": 0.9 * a}),
        a=lambda p: jnp.ones(p.shape) + p,
    ),
    "masked": lambda lr: gdtx.masked(gdtx.adam(lr), {"b": False, "s": True, "v": False, "w": True}),
}
SPECS = {
    "w": PartitionSpec("data", "model"),
    "v": PartitionSpec(None, ("data", "model")),
    "b": PartitionSpec("model"),
    "s": PartitionSpec(),
}
SHAPES = {"w": (8, 4), "v": (3, 8), "b": (4,), "s": ()}
STEPS = 4

# A constant that no earlier test had, so that its compilation is not in the cache.
fresh_rate = (0.1 + n / 2**20 for n in itertools.count()).__next__


@contextlib.contextmanager
def one_device(device=None):
    """Nothing is said about placement, or everything is committed to this device."""
    yield lambda tree: jax.device_put(tree, device)


@contextlib.contextmanager
def on_mesh(axis_type):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(axis_type, axis_type))
    # An explicit mesh must be the context's, because eager operations look it up.
    # Under its older name in the oldest jax.
    set_mesh = jax.set_mesh if hasattr(jax, "set_mesh") else jax.sharding.use_mesh
    entered = set_mesh(mesh) if axis_type == AxisType.Explicit else contextlib.nullcontext()
    with entered:
        yield lambda tree: {
            k: jax.device_put(v, NamedSharding(mesh, SPECS[k])) for k, v in tree.items()
        }


PLACES = {
    "uncommitted": one_device,
    "device 3": lambda: one_device(jax.devices()[3]),
    "automatic": lambda: on_mesh(AxisType.Auto),
    "explicit": lambda: on_mesh(AxisType.Explicit),
}

# Methods whose kinds of state are all in another one: the links of each are in the quick ones.
LIKE_OTHERS = {"ema_sgd corrected", "adagrad", "adamw", "adamax", "nadam", "radam"}
every_method = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in LIKE_OTHERS else ()) for name in CASES],
)
every_place = pytest.mark.parametrize("place", PLACES)


def draw(seed):
    rng = np.random.default_rng(seed)
    return {k: rng.normal(size=shape).astype(np.float32) for k, shape in SHAPES.items()}


def described(state):
    """All that a compilation depends on, by path."""
    return {
        jax.tree_util.keystr(path): (x.shape, x.dtype, x.weak_type, x.sharding, x.committed)
        for path, x in jax.tree_util.tree_flatten_with_path(state)[0]
    }


def where_expected(path, x, params):
    """A buffer is placed as its parameter, a scalar of the state on the same devices, whole."""
    key = next((k.key for k in path if getattr(k, "key", None) in params), None)
    if key is not None:
        assert x.shape == params[key].shape
        return params[key].sharding
    assert x.shape == ()
    sharding = params["w"].sharding
    if isinstance(sharding, NamedSharding):
        return NamedSharding(sharding.mesh, PartitionSpec())
    return sharding


def step(tx, params, state, g):
    updates, state = tx.update(g, state, params)
    return gdtx.apply_updates(params, updates), state


@functools.cache
def unsharded(name):
    """Parameters and state of the plain, un-jitted run."""
    tx, params = CASES[name](0.1), jax.tree.map(jnp.asarray, draw(0))
    state = tx.init(params)
    for i in range(STEPS):
        params, state = step(tx, params, state, draw(1 + i))
    return params, state


@pytest.mark.first(3)
@every_method
@every_place
@pytest.mark.diagonal
def test_state_is_born_final(name, place):
    tx = CASES[name](fresh_rate())
    with PLACES[place]() as put:
        params, gradients = put(draw(0)), [put(draw(1 + i)) for i in range(STEPS)]
        state = tx.init(params)
        for path, x in jax.tree_util.tree_flatten_with_path(state)[0]:
            assert x.sharding == where_expected(path, x, params), jax.tree_util.keystr(path)
            assert x.committed == params["w"].committed, jax.tree_util.keystr(path)
            assert not x.weak_type, jax.tree_util.keystr(path)
        born = described(state)
        with counted_compilations() as compilations:
            for g in gradients:
                updates, state = tx.update(g, state, params)
                assert described(state) == born
                assert all(u.sharding == params[k].sharding for k, u in updates.items())
        assert len(compilations) == 1


@pytest.mark.first(5)
@every_method
@every_place
@pytest.mark.diagonal
def test_training_compiles_once_donates_all_and_equals_the_plain_run(name, place):
    tx = CASES[name](0.1)
    with PLACES[place]() as put:
        params, gradients = put(draw(0)), [put(draw(1 + i)) for i in range(STEPS)]
        state = tx.init(params)
        born, fresh = described((params, state)), jax.tree.leaves((params, state))
        # A buffer that appears twice must not be donated twice; some backends raise, and some
        # crash, so look before. One that no result matches is not usable: JAX warns, and warnings
        # are errors here.
        buffers = [{s.data.unsafe_buffer_pointer() for s in x.addressable_shards} for x in fresh]
        assert len(set.union(*buffers)) == sum(map(len, buffers))
        jitted = jax.jit(functools.partial(step, tx), donate_argnums=(0, 1))
        with counted_compilations() as compilations:
            for g in gradients:
                params, state = jitted(params, state, g)
                assert described((params, state)) == born
        assert len(compilations) == 1
        assert all(x.is_deleted() for x in fresh)
        # One program for all rounds sums in another order, and so does one for smaller shards.
        chex.assert_trees_all_close((params, state), unsharded(name), rtol=1e-5, atol=1e-6)


def test_explicit_state_follows_inside_jit_as_well():
    """On an explicit mesh a sharding is part of the type, so a jitted `init` knows it."""

    @jax.jit  # all methods in one program
    def init(params):
        return {name: make(0.1).init(params) for name, make in CASES.items()}

    with PLACES["explicit"]() as put:
        params = put(draw(0))
        for name, state in init(params).items():
            for path, x in jax.tree_util.tree_flatten_with_path(state)[0]:
                expected = where_expected(path, x, params)
                key = name + jax.tree_util.keystr(path)
                assert x.sharding.is_equivalent_to(expected, x.ndim), key


def test_unusual_trees_are_placed_too():
    """No leaf, no float leaf first, and a mesh of one axis of the devices only."""
    tx = gdtx.adam(0.1)
    assert jax.tree.leaves(tx.init({})) == [0, 0]
    mesh = jax.sharding.Mesh(np.array(jax.devices()[4:6]), ("x",))
    sharding = NamedSharding(mesh, PartitionSpec("x"))
    params = {"a": None, "b": [jax.device_put(jnp.zeros(2), sharding), None]}
    for x in jax.tree.leaves(tx.init(params)):
        assert x.sharding.device_set == set(jax.devices()[4:6])


def test_a_global_norm_takes_one_round_of_messages():
    """As Optax's, which is infinite where squares are; what mends that is in a conditional."""

    def of_every_step(tx):
        with PLACES["automatic"]() as put:
            step = jax.jit(lambda updates: tx.update(updates, tx.init(updates))[0])
            text = step.lower(put(draw(0))).compile().as_text()
        return re.findall(r" all-reduce(?:-start)?\(", text[text.index("\nENTRY ") :])

    ours = of_every_step(gdtx.clip_by_global_norm(1.0))
    assert 0 < len(ours) <= len(of_every_step(optax.clip_by_global_norm(1.0)))
