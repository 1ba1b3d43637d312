"""Moments in fewer bits, by an argument of the method: every method that has one."""

import inspect
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gdtx

DTYPES = ("mu_dtype", "nu_dtype", "accumulator_dtype")
PARAMS = {"w": jnp.linspace(-2.0, 2.0, 12).reshape(4, 3), "s": jnp.float32(1.0)}
LION = {"scale_by_lion", "lion"}
# Of the four that Adan keeps, the last gradient is none of the moments.
OTHERS = {"adan": 1, "scale_by_adan": 1}
MOMENTUM: dict[str, dict[str, Any]] = {"sgd": {"momentum": 0.9}}


def arguments():
    """Every public factory with every such argument of it."""
    for name in gdtx.__all__:
        value = getattr(gdtx, name)
        if inspect.isfunction(value) and hasattr(value, "__gdtx_signature__"):
            for argument in inspect.signature(value).parameters:
                if argument in DTYPES:
                    yield name, argument


BY_ARGUMENT = list(arguments())
METHODS = sorted({name for name, _ in BY_ARGUMENT})


def make(name, **more):
    factory = getattr(gdtx, name)
    asks = "learning_rate" in inspect.signature(factory).parameters
    rate = {"learning_rate": 0.02} if asks else {}
    return factory(**rate, **MOMENTUM.get(name, {}), **more)


def of_moments(tx):
    """The dtypes of all buffers, by the name of what keeps them."""
    table = gdtx.state_table(tx, {"w": jax.ShapeDtypeStruct((4, 3), jnp.float32)})
    return sorted(str(row.dtype) for row in table.rows if row.shape == (4, 3))


def test_there_are_many():
    assert len(METHODS) > 20
    assert {"adamw", "lamb", "yogi", "sgd", "signum"} <= set(METHODS)


@pytest.mark.parametrize(("name", "argument"), BY_ARGUMENT)
def test_a_moment_has_the_dtype_that_is_asked_for(name, argument):
    plain, narrow = (of_moments(make(name, **more)) for more in ({}, {argument: "bfloat16"}))
    assert set(plain) == {"float32"}
    assert len(narrow) == len(plain)
    assert "bfloat16" in narrow
    others = {key: "bfloat16" for at, key in BY_ARGUMENT if at == name}
    left = of_moments(make(name, **others)).count("float32")
    assert left == OTHERS.get(name, 0)
    if argument in ("mu_dtype", "nu_dtype") and name not in LION:
        assert narrow.count("float32") > left


@pytest.mark.parametrize("name", METHODS)
def test_the_default_is_what_it_was(name):
    """The same expression as without the argument, and the same program."""
    none = {key: None for at, key in BY_ARGUMENT if at == name}
    assert make(name, **none) == make(name)
    assert gdtx.tree(make(name)).count("dtype") == 0


def last_loss(tx):
    target = jax.tree.map(jnp.cos, PARAMS)

    def loss(params):
        return sum(jnp.sum((p - q) ** 2) for p, q in zip(*map(jax.tree.leaves, (params, target)),
                                                         strict=True))  # fmt: skip

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return (gdtx.apply_updates(params, updates), state), None

    (params, state), _ = jax.lax.scan(step, (PARAMS, tx.init(PARAMS)), length=300)
    return loss(params), state


# The others are made of the links of these.
@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name in {"adam", "lion", "sgd", "yogi"} else pytest.mark.slow)
    for name in METHODS if "scale_by" not in name
])  # fmt: skip
def test_it_still_trains(name):
    narrow = {key: "bfloat16" for at, key in BY_ARGUMENT if at == name}
    one, other = (make(name, **more) for more in ({}, narrow))
    (plain, _), (rounded, state) = jax.jit(lambda: (last_loss(one), last_loss(other)))()
    assert rounded < max(1.1 * plain, 0.05), (plain, rounded)
    assert "bfloat16" in {str(leaf.dtype) for leaf in jax.tree.leaves(state)}


def test_a_narrow_average_does_not_stand_still():
    """Rounded to the nearest, a second moment in bfloat16 would stop at a third of the way."""
    tx = cast(Any, gdtx.scale_by_adam)(b2=0.999, nu_dtype="bfloat16")
    ones = jnp.ones(256)

    def step(state, _):
        return tx.update(ones, state)[1], None

    state, _ = jax.lax.scan(step, tx.init(ones), length=2000)
    np.testing.assert_allclose(
        np.float32(gdtx.find(state, "nu")).mean(), 1 - 0.999**2000, rtol=0.02
    )
