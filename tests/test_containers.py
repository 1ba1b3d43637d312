"""Masks and labels in other containers than the parameters: the error says which differ."""

import equinox
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from flax.core import FrozenDict

import gdtx

PLAIN = {"a": {"kernel": jnp.ones((2, 2))}, "b": jnp.ones(2)}
LINEAR = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
STATE = nnx.state(LINEAR, nnx.Param)
FLAT = {"bias": jnp.ones(3), "kernel": jnp.ones((2, 3))}
# The tree that is like the mask, the parameters, and where and what they are.
DIFFER = {
    "dict, FrozenDict": (PLAIN, FrozenDict(PLAIN), "", "dict", "FrozenDict"),
    "FrozenDict, dict": (FrozenDict(PLAIN), PLAIN, "", "FrozenDict", "dict"),
    "FrozenDict inside": (
        PLAIN | {"a": FrozenDict(PLAIN["a"])}, PLAIN, r"\['a'\]", "FrozenDict", "dict",
    ),
    "dict, nnx.State": (FLAT, STATE, "", "dict", "State"),
    "nnx.State, dict": (STATE, FLAT, "", "State", "dict"),
    "dict, module": (
        FLAT, equinox.nn.Linear(2, 3, key=jax.random.key(0)), "", "dict", "Linear",
    ),
    "list, tuple": (
        {"a": [1.0, 2.0]}, {"a": (jnp.ones(1), jnp.ones(2))}, r"\['a'\]", "list", "tuple",
    ),
}  # fmt: skip
# Each with the name of its argument, from the tree of True or labels.
CHOOSING = {
    "masked": ("mask", lambda tree: gdtx.masked(gdtx.adam(0.1), tree), True),
    "adamw": ("mask", lambda tree: gdtx.adamw(0.1, mask=tree), True),
    "freeze": ("what", lambda tree: gdtx.freeze(gdtx.adam(0.1), tree), True),
    "partition": ("labels", lambda tree: gdtx.partition({"x": gdtx.adam(0.1)}, tree), "x"),
    "muon": ("matrices", lambda tree: gdtx.muon(0.1, tree, gdtx.adam(0.1)), True),
}


@pytest.mark.parametrize("choosing", CHOOSING)
@pytest.mark.parametrize("differ", DIFFER)
def test_error_names_the_containers(differ, choosing):
    like, params, where, one, other = DIFFER[differ]
    name, make, value = CHOOSING[choosing]
    message = rf": {name}{where} is a {one}, params{where} a {other}(\n|$)"
    tx = make(jax.tree.map(lambda _: value, like))
    with pytest.raises(ValueError, match=message):
        tx.init(params)


def test_patterns_and_masks_of_the_same_container_fit():
    expected = jax.tree.leaves(gdtx.masked(gdtx.trace(0.9), ["kernel"]).init(FLAT))
    for params in (FrozenDict(FLAT), STATE):
        for mask in (["kernel"], jax.tree.map(lambda x: x.ndim == 2, params)):
            state = gdtx.masked(gdtx.trace(0.9), mask).init(params)
            assert [x.shape for x in jax.tree.leaves(state)] == [x.shape for x in expected]


def test_updates_and_states_in_other_containers():
    tx, frozen = gdtx.adam(0.1), FrozenDict(PLAIN)
    with pytest.raises(ValueError, match=r"adam: params is a FrozenDict, updates a dict"):
        tx.update(PLAIN, tx.init(frozen), frozen)
    with pytest.raises(ValueError, match=r"ema: state is a FrozenDict, updates a dict"):
        tx.update(PLAIN, tx.init(frozen))
