"""What depends on the buffers that a method puts together: their number, types and donation."""

import math

import chex
import jax
import jax.numpy as jnp
import pytest
from compilations import counted_compilations
from everything import EVERY, METHODS, PARAMS, is_like_another

import gdtx


def some_params(dtype=jnp.float32):
    return {
        "w": jnp.arange(6.0).reshape(3, 2).astype(dtype) / 4,
        "nested": (jnp.asarray(1.5, dtype), jnp.zeros((0, 2), dtype), None),
    }


def signature(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


@pytest.mark.parametrize("name", METHODS)
def test_state_holds_the_stated_buffers(name):
    row = METHODS[name]
    state = jax.eval_shape(row.make(row.learning_rate).init, {"w": jnp.zeros((5, 7))})
    shapes = [leaf.shape for leaf in jax.tree.leaves(state)]
    if row.buffers is None:
        # One buffer at most, and less than another beside it.
        assert sum(map(math.prod, shapes)) < 2 * 5 * 7
    else:
        assert shapes.count((5, 7)) == row.buffers
        assert all(shape in [(5, 7), ()] for shape in shapes)


@pytest.mark.parametrize("name", [name for name in EVERY if name != "from_optax"])
def test_no_buffer_of_a_fresh_state_is_there_twice(name):
    """Nor is one of the parameters, which are donated with it."""
    arrays = jax.tree.leaves((PARAMS, EVERY[name].init(PARAMS)))
    arrays = [
        x for x in arrays if x.size and not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    ]
    places = [x.unsafe_buffer_pointer() for x in arrays]
    assert len(set(places)) == len(places)


SLOW = [pytest.param(dtype, marks=pytest.mark.slow) for dtype in ("bfloat16", "complex64")]


@pytest.mark.parametrize("dtype", ["float32", *SLOW])
def test_fresh_states_are_donated_and_compiled_for_once(dtype):
    """Of all methods together: what differs after the first step would compile a second program."""
    txs = {
        name: row.make(row.learning_rate)
        for name, row in METHODS.items()
        if not is_like_another(name) and (row.is_complex or dtype != "complex64")
    }
    gradients = some_params(dtype)

    def step(carry):
        after = {}
        for name, (params, state) in carry.items():
            updates, state = txs[name].update(gradients, state, params)
            after[name] = gdtx.apply_updates(params, updates), state
        return after

    carry = {}
    for name, tx in txs.items():
        params = some_params(dtype)
        carry[name] = params, tx.init(params)
    first, jitted = signature(carry), jax.jit(step, donate_argnums=0)
    fresh = jax.tree.leaves(carry)
    for expected in (1, 0, 0):
        with counted_compilations() as compilations:
            carry = jitted(carry)
        assert len(compilations) == expected
        assert {name: signature(carry[name]) for name in txs} == first
    assert all(x.is_deleted() for x in fresh if x.size)
    chex.assert_tree_all_finite(carry)


@pytest.mark.parametrize("name", ["momentum", "adam", "adafactor, factored"])
def test_an_equal_transformation_is_the_same_program(name):
    row, params = METHODS[name], some_params()
    state = row.make(row.learning_rate).init(params)
    for expected in (1, 0):
        with counted_compilations() as compilations:
            row.make(row.learning_rate).update(params, state, params)
        assert len(compilations) == expected
