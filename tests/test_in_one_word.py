"""What takes one word: no decay of biases, a rate for each layer, a method by its name."""

import re
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gdtx
from gdtx.public import methods

PARAMS = {
    "embed": jnp.ones((3, 2)),
    "layers": [{"w": jnp.full((2, 2), 2.0), "b": jnp.ones(2)} for _ in range(3)],
    "head": {"w": jnp.ones((2, 1)), "scale": jnp.ones(())},
}


def update(tx, params=PARAMS):
    updates = jax.tree.map(jnp.ones_like, params)
    return tx.update(updates, tx.init(params), params)[0]


def test_matrices_only_is_the_mask_of_shapes():
    is_matrix = jax.tree.map(lambda p: p.ndim >= 2, PARAMS)
    for make in (
        lambda mask: gdtx.adamw(0.1, weight_decay=0.5, mask=mask),
        lambda mask: gdtx.masked(gdtx.scale(2.0), mask),
        lambda mask: gdtx.freeze(gdtx.sgd(0.1), mask),
        lambda mask: gdtx.lamb(0.1, weight_decay=0.5, mask=mask, trust_mask=mask),
    ):
        one, other = update(make(gdtx.matrices_only)), update(make(is_matrix))
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))
    decayed = update(gdtx.add_decayed_weights(1.0, gdtx.matrices_only))
    assert float(decayed["layers"][0]["w"][0, 0]) == 3.0
    assert float(decayed["layers"][0]["b"][0]) == 1.0
    assert gdtx.adamw(0.1, mask=gdtx.matrices_only) == gdtx.adamw(0.1, mask=gdtx.matrices_only)


@pytest.mark.parametrize(
    "layers",
    [
        lambda each: {"layers": [each] * 3},
        lambda each: {f"layer_{i}": each for i in range(3)},
        lambda each: {"encoder": {f"h{i}": {"dense_7": each} for i in range(3)}},
        lambda each: {str(i + 4): each for i in range(3)},
    ],
    ids=["list", "dict", "below others", "from 4 on"],
)
def test_layers_decay_from_the_last_down(layers):
    params = {**layers({"w": jnp.ones(1)}), "embed": jnp.ones(1), "head": jnp.ones(1)}
    found = update(gdtx.scale_by_layer_decay(0.5, ["embed"]), params)
    assert (found.pop("embed"), found.pop("head")) == (0.0625, 1.0)
    assert [float(u[0]) for u in jax.tree.leaves(found)] == [0.125, 0.25, 0.5]


def test_it_is_a_group_for_each_layer():
    rate = gdtx.linear_schedule(0.1, 0.0, 10)
    groups = {f"layer{i}": gdtx.adam(0.7 ** (3 - i) * rate) for i in range(3)}
    groups |= {"embed": gdtx.adam(0.7**4 * rate), "head": gdtx.adam(rate)}
    patterns = [*((f"layers/{i}/**", f"layer{i}") for i in range(3)),
                ("embed", "embed"), ("head/**", "head")]  # fmt: skip
    one = update(gdtx.partition(groups, patterns))
    other = update(gdtx.chain(gdtx.adam(rate), gdtx.scale_by_layer_decay(0.7, ["embed"])))
    for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_stacked_layers_are_the_layers():
    single = [{"w": jnp.ones(2), "b": jnp.ones(())} for _ in range(3)]
    stack = jax.tree.map(lambda *x: jnp.stack(x), *single)
    one = update(gdtx.scale_by_layer_decay(0.5, ["e"]), {"e": jnp.ones(1), "layers": single})
    tx = gdtx.scale_by_layer_decay(0.5, ["e"], stacked=["blocks/**"])
    other = update(tx, {"e": jnp.ones(1), "blocks": stack})
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *one["layers"])
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, stacked, other["blocks"])))
    assert one["e"] == other["e"]
    with pytest.raises(ValueError, match=r"updates\['a'\] is among the stacked, but has no axis"):
        update(gdtx.scale_by_layer_decay(0.5, stacked=["a"]), {"a": jnp.ones(())})


def test_a_decay_of_1_is_identity():
    one = update(gdtx.scale_by_layer_decay(1.0, ["embed"]))
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, one, update(gdtx.identity()))))


def test_a_method_by_its_name():
    names = gdtx.list_methods()
    assert set(names) == {name for name in vars(methods) if not name.startswith("_")}
    assert names == sorted(names)
    assert gdtx.get("adamw", 0.1, weight_decay=0.2) == gdtx.adamw(0.1, weight_decay=0.2)
    for name in names:
        assert getattr(gdtx, name) is getattr(methods, name)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: gdtx.get("adamv", 0.1), ValueError,
         "get: no method is called 'adamv', did you mean 'adam"),
        (lambda: gdtx.get("__doc__"), ValueError, "get: no method is called '__doc__'"),
        (lambda: gdtx.get(cast(Any, gdtx.adam), 0.1), TypeError, "get: name must be a string"),
        (lambda: gdtx.get("adam", lr=0.1), TypeError,
         "adam: unknown argument 'lr', did you mean 'learning_rate'?"),
    ],
    ids=["near", "no method", "a factory", "wrong argument"],
)  # fmt: skip
def test_errors_say_what_is_meant(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
