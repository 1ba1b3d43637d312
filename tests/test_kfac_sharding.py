"""K-FAC on meshes: curvature of sharded models, and a state that stays where it was made."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import counted_compilations
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from test_sharding import described, fresh_rate

import gdtx
from gdtx import kfac

# Sharded within matrices: by their columns, then by their rows; examples over the other axis.
SPECS = {
    "hidden": {"w": PartitionSpec(None, "model"), "b": PartitionSpec("model")},
    "out": {"w": PartitionSpec("model"), "b": PartitionSpec()},
    "scale": PartitionSpec("model"),
}
EXAMPLES = PartitionSpec("data")
METHODS = {
    "kfac, adapted": lambda rate: kfac.levenberg_marquardt(kfac.kfac(rate), every=1),
    # Arrays among the hyperparameters are on no mesh.
    "ekfac": lambda rate: gdtx.chain(
        gdtx.scale_by_ekfac(0.1, decay=jnp.array(0.9), inverse_every=2), gdtx.scale(rate)
    ),
}
LOSSES = {
    "squared": (kfac.squared_error, np.random.default_rng(3).normal(size=(8, 4)).astype("f4")),
    "softmax": (kfac.softmax_cross_entropy, np.arange(8, dtype=np.int32) % 4),
    "sigmoid": (kfac.sigmoid_cross_entropy, np.arange(32).reshape(8, 4) % 3 == 0),
}
MESHES = {"automatic": AxisType.Auto, "explicit": AxisType.Explicit}
STEPS = 3


def model(params, x, spec=None):
    hidden = jnp.tanh(x @ params["hidden"]["w"] + params["hidden"]["b"][None])
    hidden = hidden * params["scale"][None]
    # On an explicit mesh a product over an axis that is cut must say where its result is.
    out = jnp.matmul(hidden, params["out"]["w"], out_sharding=spec)
    return out + params["out"]["b"][None]


def draw():
    rng = np.random.default_rng(0)
    shapes = {"hidden": {"w": (6, 8), "b": (8,)}, "out": {"w": (8, 4), "b": (4,)}, "scale": (8,)}
    return jax.tree.map(
        lambda shape: rng.normal(size=shape).astype(np.float32), shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )  # fmt: skip


INPUTS = np.random.default_rng(1).normal(size=(8, 6)).astype(np.float32)


@contextlib.contextmanager
def on_mesh(axis_type):
    """What puts parameters and examples on a mesh, and the model as it is written there."""
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(axis_type, axis_type))
    is_explicit = axis_type == AxisType.Explicit
    set_mesh = jax.set_mesh if hasattr(jax, "set_mesh") else jax.sharding.use_mesh
    with set_mesh(mesh) if is_explicit else contextlib.nullcontext():

        def put_one(x, spec):
            # As programs there say it: of every axis, or up to the last that is cut.
            spec = PartitionSpec(*spec, *[None] * (x.ndim - len(spec))) if is_explicit else spec
            return jax.device_put(x, NamedSharding(mesh, spec))

        def put(tree, specs):
            return jax.tree.map(put_one, tree, specs)

        yield put, functools.partial(model, spec=EXAMPLES if is_explicit else None)


def gathered(put, model):
    """On a mesh the parameters, and what an update is given in each of a few steps."""
    loss, targets = LOSSES["squared"]
    params, batch = put(draw(), SPECS), put((INPUTS, targets), (EXAMPLES, EXAMPLES))
    f = jax.jit(kfac.value_grad_and_curvature(model, loss, gradient=True))
    value_fn = jax.tree_util.Partial(lambda batch, p: loss(model(p, batch[0]), batch[1]), batch)
    return params, [f(params, batch, jax.random.key(i))[1:] for i in range(STEPS)], value_fn


def run(tx, params, given, value_fn):
    """The updates, the state as it is made and after each, and how often one was compiled."""
    state = tx.init(params)
    steps, states, compiled = [], [described(state)], []
    for grads, curvature in given:
        with counted_compilations() as compilations:
            updates, state = tx.update(grads, state, params, curvature=curvature, value_fn=value_fn)
        steps.append(jax.device_get(updates))
        states.append(described(state))
        compiled.append(len(compilations))
    return steps, states, compiled


@functools.cache
def unsharded():
    return gathered(lambda tree, specs: jax.tree.map(jnp.asarray, tree), model)


@pytest.mark.first(1)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.diagonal
def test_state_is_born_final_and_equals_the_plain_run(mesh, name):
    rate = fresh_rate()
    with on_mesh(MESHES[mesh]) as place:
        steps, (born, *later), compiled = run(METHODS[name](rate), *gathered(*place))
    for state in later:
        assert state == born
    known = [x for path, x in born.items() if "blocks" in path or "squares" in path]
    assert all(sharding.is_fully_replicated for *_, sharding, _ in known)
    assert compiled == [1, *[0] * (STEPS - 1)]
    plain, *_ = run(METHODS[name](0.1), *unsharded())
    for one, other in zip(jax.tree.leaves(steps), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(one / rate, other / 0.1, rtol=2e-3, atol=2e-3)


@pytest.mark.first(2)
@pytest.mark.parametrize(
    ("loss", "output"),
    [
        ("softmax", "sampled"), ("sigmoid", "sampled"), ("squared", "exact"),
        ("squared", "empirical"),
    ],
)  # fmt: skip
def test_curvature_on_an_explicit_mesh(loss, output):
    """Where every operation must say the placement of its result, as the model does."""
    loss, targets = LOSSES[loss]

    def curvature(put, model):
        f = jax.jit(kfac.value_grad_and_curvature(model, loss, output))
        batch = put((INPUTS, targets), (EXAMPLES, EXAMPLES))
        return jax.device_get(f(put(draw(), SPECS), batch, jax.random.key(0)))

    plain = curvature(lambda tree, specs: jax.tree.map(jnp.asarray, tree), model)
    with on_mesh(AxisType.Explicit) as place:
        sharded = curvature(*place)
    for one, other in zip(jax.tree.leaves(sharded), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_state_made_inside_jit_is_placed_by_its_type():
    """An explicit mesh is part of it."""
    with on_mesh(AxisType.Explicit) as (put, _):
        tx, params = gdtx.scale_by_kfac(), put(draw(), SPECS)
        for x in jax.tree.leaves(jax.jit(tx.init)(params)):
            assert x.sharding.is_fully_replicated
            assert x.sharding.device_set == params["scale"].sharding.device_set
