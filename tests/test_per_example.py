"""Updates with an axis of examples before those of their parameters: the first link's affair."""

import importlib
import re
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everything import METHODS
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gdtx

optax = pytest.importorskip("optax", reason="Optax is installed by the extra 'test'")
importlib.import_module("optax.contrib")

PARAMS = {"b": jnp.zeros(3), "w": jnp.ones((2, 3))}
EXAMPLES = 4


def each_example(tree):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=(EXAMPLES, *p.shape)), p.dtype), tree)


def summed():
    """What makes one update of those of all examples."""

    def update(updates, state, params=None):
        return jax.tree.map(lambda u: u.sum(0), updates), state

    return gdtx.GradientTransformation(lambda params: (), update)


def per_example_clip(max_norm):
    """The mean of the examples' gradients, each no longer than this."""

    def update(updates, state, params=None):
        clipped, _ = optax.per_example_global_norm_clip(jax.tree.leaves(updates), max_norm)
        mean = [g / EXAMPLES for g in clipped]
        return jax.tree.structure(updates).unflatten(mean), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


FIRST = {
    "aggregate": partial(
        optax.contrib.differentially_private_aggregate, 1.0, noise_multiplier=0.5, key=0
    ),
    "clip": partial(per_example_clip, 1.0),
}


@pytest.mark.parametrize("first", FIRST)
def test_in_front_of_a_chain(first):
    """Step by step what Optax's own chain makes of them."""
    ours = gdtx.chain(FIRST[first](), gdtx.sgd(0.1, 0.9))
    theirs = optax.chain(FIRST[first](), optax.sgd(0.1, 0.9))
    state, expected = ours.init(PARAMS), theirs.init(PARAMS)
    for _ in range(2):
        updates, state = ours.update(each_example(PARAMS), state, PARAMS)
        wanted, expected = theirs.update(each_example(PARAMS), expected, PARAMS)
        # Ours is compiled, and so differs by rounding where numbers cancel.
        chex.assert_trees_all_close(updates, wanted, rtol=1e-6, atol=1e-7)


def test_private_aggregate_is_that_of_the_paper(x64):
    """Abadi et al. 2016, algorithm 1: without noise to the last digits, and AdamW behind it."""
    params = jax.tree.map(lambda p: p.astype(float), PARAMS)
    tx = gdtx.chain(gdtx.differentially_private_aggregate(2.0, 0.0, 0), gdtx.adamw(0.1))
    plain = gdtx.adamw(0.1)
    state, expected = tx.init(params), plain.init(params)
    drawn = each_example(params)
    lengths = np.sqrt(
        sum(np.sum(np.square(g.reshape(EXAMPLES, -1)), 1) for g in jax.tree.leaves(drawn))
    )
    for scale in np.array([1.0, 1e-3, 1e200, 0.0]):
        shares = np.minimum(1, 2.0 / (lengths * scale)) if scale else np.ones(EXAMPLES)
        each = {key: scale * np.asarray(g) for key, g in drawn.items()}
        mean = {key: np.tensordot(shares, g, 1) / EXAMPLES for key, g in each.items()}
        updates, state = tx.update(each, state, params)
        wanted, expected = plain.update(mean, expected, params)
        chex.assert_trees_all_close(updates, wanted, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_private_noise_has_its_size(dtype):
    """In the sum, times the bound, in each part of a number; new in each step and array."""
    tx, like = gdtx.differentially_private_aggregate(3.0, 0.5, 7), jnp.zeros(20000, dtype)
    zeros = {"a": jnp.zeros((EXAMPLES, 20000), dtype), "b": jnp.zeros((EXAMPLES, 20000), dtype)}
    state, drawn = tx.init({"a": like, "b": like}), []
    for _ in range(2):
        updates, state = tx.update(zeros, state, {"a": like, "b": like})
        drawn += [np.asarray(x) for x in updates.values()]
    parts = [part for x in drawn for part in ([x.real, x.imag] if dtype[0] == "c" else [x])]
    for part in parts:
        assert abs(np.std(part) / (3.0 * 0.5 / EXAMPLES) - 1) < 0.03
    together = np.corrcoef(parts)
    assert np.max(np.abs(together - np.eye(len(parts)))) < 0.05
    again = tx.update(zeros, tx.init({"a": like, "b": like}), {"a": like, "b": like})[0]
    np.testing.assert_array_equal(again["a"], drawn[0])


def test_optax_private_aggregate():
    """Without noise the same; with it other random numbers."""
    theirs = optax.contrib.differentially_private_aggregate(0.5, 0.0, key=0)
    wanted, _ = theirs.update(each_example(PARAMS), theirs.init(PARAMS))
    tx = gdtx.differentially_private_aggregate(0.5, 0.0, 0)
    chex.assert_trees_all_close(
        tx.update(each_example(PARAMS), tx.init(PARAMS), PARAMS)[0], wanted, rtol=1e-6
    )


def test_private_aggregate_wants_an_axis_of_examples():
    tx = gdtx.differentially_private_aggregate(1.0, 1.0, 0)
    message = r"updates\['b'\] has shape \(3,\), expected \(examples, 3\): .* jax\.vmap"
    with pytest.raises(ValueError, match=message):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    uneven = {"b": jnp.ones((4, 3)), "w": jnp.ones((5, 2, 3))}
    with pytest.raises(ValueError, match=r"updates\['w'\] has shape \(5, 2, 3\), expected \(4, "):
        tx.update(uneven, tx.init(PARAMS))


@pytest.mark.skipif(
    jax.__version_info__ < (0, 8), reason="its compiler writes down the squares of every norm"
)
def test_private_aggregate_holds_no_copy_of_the_examples():
    params = {"w": jnp.zeros((64, 64))}
    tx = gdtx.differentially_private_aggregate(1.0, 1.0, 0)
    each = {"w": jax.ShapeDtypeStruct((256, 64, 64), jnp.float32)}
    compiled = jax.jit(tx.update).lower(each, tx.init(params), params).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 256 * 64 * 64 * 4 / 4


@pytest.mark.parametrize("place", ["automatic", "explicit"])
def test_private_aggregate_of_examples_on_many_devices(place):
    """The examples over one axis of the mesh, the parameters over the other."""
    kind = {"automatic": AxisType.Auto, "explicit": AxisType.Explicit}[place]
    mesh = jax.make_mesh((4, 2), ("data", "model"), (kind, kind))
    tx = gdtx.chain(gdtx.differentially_private_aggregate(1.0, 0.0, 0), gdtx.adam(0.1))
    params, each = {"w": jnp.ones((6, 4))}, {"w": jnp.arange(192.0).reshape(8, 6, 4)}
    wanted, _ = tx.update(each, tx.init(params), params)
    put = {"w": jax.device_put(params["w"], NamedSharding(mesh, P("model")))}
    cut = {"w": jax.device_put(each["w"], NamedSharding(mesh, P("data", "model")))}
    updates, _ = jax.jit(tx.update)(cut, tx.init(put), put)
    chex.assert_trees_all_close(jax.device_get(updates), wanted, rtol=1e-5)
    assert updates["w"].sharding.is_equivalent_to(put["w"].sharding, 2)


WRAPPERS = {
    "skip": gdtx.skip_nonfinite,
    "average": gdtx.average,
    "displaced": lambda tx: gdtx.displaced(tx, gdtx.scale(0.9)),
    "lookahead": gdtx.lookahead,
    "master": gdtx.master_weights,
    "remember": gdtx.remember,
    "schedule_free": lambda tx: gdtx.schedule_free(tx, 0.1),
    "tunable": gdtx.tunable,
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_inside_a_wrapper(wrapper):
    tx = WRAPPERS[wrapper](gdtx.chain(summed(), gdtx.scale(-0.1)))
    updates, _ = jax.eval_shape(tx.update, each_example(PARAMS), tx.init(PARAMS), PARAMS)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, PARAMS)


METHODS_TRIED = (
    "sgd", "momentum", "adagrad", "adadelta", "rmsprop centered", "rprop", "adam", "adamax",
    "radam", "lion", "adabelief", "adan", "adafactor, factored", "lars, with decay",
)  # fmt: skip
MANY = {name: METHODS[name].make(0.1) for name in METHODS_TRIED} | {
    "sm3": gdtx.sm3(0.1),
    "lamb": gdtx.lamb(0.1),
    "shampoo": gdtx.shampoo(0.1),
    "soap": gdtx.soap(0.1),
    "muon": gdtx.muon(0.1, ["w"], gdtx.adam(0.1)),
    "full_matrix": gdtx.full_matrix_adagrad(0.1),
    "window": gdtx.scale_by_window(2),
    "decay": gdtx.add_decayed_weights(0.1),
    "clip": gdtx.clip_by_global_norm(1.0),
    "units": gdtx.adaptive_grad_clip(0.1),
    "zero": gdtx.freeze(gdtx.adam(0.1), ["w"]),
    **{name: wrap(gdtx.scale(-0.1)) for name, wrap in WRAPPERS.items()},
}


@pytest.mark.parametrize("name", MANY)
def test_who_needs_one_update_says_so(name):
    """With the leaf and both shapes; the others take what comes."""
    tx, updates = MANY[name], each_example(PARAMS)
    state = jax.eval_shape(tx.init, PARAMS)
    try:
        new, _ = jax.eval_shape(tx.update, updates, state, PARAMS)
    except ValueError as error:
        message = str(error)
    else:
        chex.assert_trees_all_equal_shapes(new, updates)
        assert not [x for x in jax.tree.leaves(state) if x.shape]
        return
    found = re.search(
        r"^(.*): updates\['([bw])'\] has shape \(4, .*3\), its \w+ has \(.*3,?\)$", message
    )
    assert found, message
    assert found[1].split(" > ")[0] == tx.signature.name


@pytest.mark.parametrize("updates", [
    {"b": jnp.zeros((4, 3)), "w": jnp.ones((2, 3))},
    {"b": jnp.zeros((4, 3)), "w": jnp.ones((5, 2, 3))},
    {"b": jnp.zeros((4, 3)), "w": jnp.ones((4, 3, 2))},
    {"b": jnp.zeros(()), "w": jnp.ones((2, 3))},
])  # fmt: skip
def test_other_shapes_are_refused_at_the_door(updates):
    tx = gdtx.sgd(0.1)
    with pytest.raises(ValueError, match=r"^sgd: updates\['.'\] has shape .*, its parameter has"):
        tx.update(updates, tx.init(PARAMS), PARAMS)
