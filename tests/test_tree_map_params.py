"""Optax's map over the copies of the parameters in a state, with which shardings are often made."""

import jax
import optax
import pytest
from everything import EVERY, MASK, PARAMS

import gdtx

SPECS = {"b": "spec of b", "w": "spec of w"}


def specs_in(tx, params=PARAMS, specs=SPECS):
    """The state's structures and, in place of copies of the parameters, the specs of these."""
    structs = jax.eval_shape(tx.init, params)
    found = optax.tree_map_params(
        tx,
        lambda x, spec: None if x is None else spec,
        structs,
        specs,
        transform_non_params=lambda x: "no copy",
        is_leaf=lambda x: x is None,
    )
    return structs, found


@pytest.mark.parametrize("name", EVERY)
def test_copies_of_the_parameters_are_found(name):
    """Whatever is taken for a copy has the shape of its parameter."""
    structs, found = specs_in(EVERY[name])

    def check(spec, below):
        if spec in SPECS.values():
            assert below.shape == PARAMS[spec[-1]].shape

    jax.tree.map(check, found, structs)


@pytest.mark.parametrize(
    "tx",
    [
        gdtx.adamw(0.1, mask=MASK),
        gdtx.adamw(0.1, mask=lambda params: {key: key == "w" for key in params}),
    ],
    ids=["tree", "function"],
)
def test_masks_hide_no_copy(tx):
    _, found = specs_in(tx)
    assert list(gdtx.find(found, "value").values()) == [SPECS, SPECS]
    assert set(gdtx.find(found, "step").values()) == {"no copy"}


def test_groups_have_the_copies_of_theirs():
    tx = gdtx.partition({"a": gdtx.sgd(0.1, 0.9), "b": gdtx.soap(0.1)}, {"b": "a", "w": "b"})
    _, found = specs_in(tx)
    assert jax.tree.leaves(found.inner["a"]) == ["spec of b"]
    assert set(jax.tree.leaves(found.inner["b"])) == {"no copy"}


def test_statistics_of_blocks_are_no_copies_and_the_graft_is_one():
    _, found = specs_in(EVERY["shampoo"])
    assert set(jax.tree.leaves(found[0]["direction"])) == {"no copy"}
    assert list(gdtx.find(found[0]["magnitude"], "value").values()) == [SPECS, SPECS]
