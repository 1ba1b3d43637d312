"""What is called outside of `jit` is one program, that of `jit`, compiled once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import counted_compilations

import gdtx
from gdtx import explore

TX = gdtx.schedule_free(gdtx.adam(1e-3), 1e-3)


def given(size):
    """Parameters, what leads away from them, and a state, of a size that no other test has."""
    rng = np.random.default_rng(size)
    params, gradients = (
        {
            "w": jnp.asarray(rng.normal(size=size), jnp.bfloat16),
            "b": jnp.asarray(rng.normal(size=3)),
        }
        for _ in range(2)
    )
    updates, state = TX.update(gradients, TX.init(params), params)
    return params, updates, gradients, state


CALLS = {
    "global_norm": lambda params, updates, gradients, state: gdtx.global_norm(gradients),
    "describe": lambda params, updates, gradients, state: gdtx.describe(
        TX, state, updates, params, grads=gradients
    ),
    "apply_updates": lambda params, updates, *_: gdtx.apply_updates(params, updates),
    "eval_params": lambda params, updates, gradients, state: gdtx.eval_params(TX, state, params),
    "update_ratios": lambda params, updates, *_: explore.update_ratios(updates, params),
    "effective_learning_rates": lambda params, updates, gradients, state: (
        explore.effective_learning_rates(updates, gradients)
    ),
}
by_name = pytest.mark.parametrize("name", CALLS)


@by_name
def test_one_program_which_is_that_of_jit(name):
    call = CALLS[name]
    first, second = given(17), given(17)
    with counted_compilations() as compilations:
        results = [call(*first), call(*second)]
    assert len(compilations) == 1
    for result, args in zip(results, (first, second), strict=True):
        compiled = jax.tree.leaves(jax.jit(call)(*args))
        for one, other in zip(jax.tree.leaves(result), compiled, strict=True):
            np.testing.assert_array_equal(np.asarray(one, other.dtype), other)


@by_name
def test_as_without_jit(name):
    args = given(17)
    with jax.disable_jit():
        plain = CALLS[name](*args)
    for one, other in zip(*map(jax.tree.leaves, (CALLS[name](*args), plain)), strict=True):
        np.testing.assert_allclose(np.float32(one), np.float32(other), rtol=1e-2)


def test_numbers_stay_exact_and_arguments_what_they_are():
    params, updates, _, state = given(17)
    tx = gdtx.adam(1e-3)
    assert gdtx.describe(tx, tx.init(params))["learning_rate"] == 1e-3
    assert gdtx.apply_updates(params, updates | {"w": None})["w"] is params["w"]
    state = gdtx.lookahead(gdtx.sgd(0.1)).init({"b": params["b"]})
    seen = gdtx.eval_params(gdtx.lookahead(gdtx.sgd(0.1)), state, {"b": params["b"]})
    assert seen["b"] is state.slow["b"]


def test_noise_scale_is_one_program():
    data = jnp.arange(8.0)
    with counted_compilations() as compilations:
        explore.gradient_noise_scale(lambda w, x: jnp.mean((w - x) ** 2), jnp.ones(()), data)
    assert len(compilations) == 1
