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
