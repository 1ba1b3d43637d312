"""Shampoo and SOAP of arrays of one axis: a warning where that is large, and another method."""

import warnings

import jax
import jax.numpy as jnp
import pytest

import gdtx

METHODS = {"shampoo": gdtx.shampoo, "soap": gdtx.soap}
by_method = pytest.mark.parametrize("name", METHODS)


def first_state(tx, **shapes):
    params = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    return jax.eval_shape(tx.init, params)


def numbers(state):
    return sum(x.size for x in jax.tree.leaves(state))


@by_method
@pytest.mark.parametrize("shape", [(4096,), (1, 2000), (600,), (5000, 1)])
def test_a_long_vector_gets_a_warning_that_names_it(name, shape):
    tx = METHODS[name](0.1)
    with pytest.warns(UserWarning, match=r"^" + name) as seen:
        first_state(tx, w=(2, 3), b=shape)
    (message,) = (str(each.message) for each in seen)
    assert message.startswith(f"{name} > scale_by_{name}: the state takes up to ")
    each = message.split(" up to ")[1].split()[0].replace(",", "")
    assert int(each) == pytest.approx(2 * min(max(shape), 1024), abs=3)
    assert "numbers for each of \"params['b']\". Arrays of one axis" in message


@by_method
def test_matrices_and_short_vectors_get_none(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first_state(METHODS[name](0.1), w=(2000, 3000), k=(3, 3, 64, 64), b=(400,), scalar=())
        first_state(METHODS[name](0.1, blocks=gdtx.Blocks(16)), b=(5000,))
        first_state(gdtx.blockwise(gdtx.trace(0.9)), b=(5000,))
        first_state(METHODS[name](0.1, others=gdtx.adam(0.1)), w=(8, 8), b=(5000,))


@by_method
def test_others_are_left_to_another_method(name):
    of_matrices, adam = METHODS[name](0.1), gdtx.adam(0.2)
    tx = METHODS[name](0.1, others=adam)
    formula = gdtx.expand(tx)
    assert formula.arguments["transforms"] == {
        "matrices": gdtx.expand(of_matrices),
        "others": adam,
    }
    state = first_state(tx, w=(8, 8), row=(1, 8), b=(5000,), scalar=())
    both = numbers(first_state(of_matrices, w=(8, 8))) + numbers(
        first_state(adam, row=(1, 8), b=(5000,), scalar=())
    )
    assert numbers(state) == both
    assert gdtx.hyperparams(tx)["others.learning_rate"] == 0.2
    table = gdtx.state_table(tx, {"w": jnp.zeros((8, 8)), "b": jnp.zeros(5000)})
    assert table.parameters == 5064
    assert table.bytes < 5064 * 12
