"""A model keeps its dtype, and so do states; no promotion is left to JAX's configuration."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from everything import EVERY, PARAMS, extras

import gdtx
from gdtx.interop import to_optax

FLOAT8 = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3", "float8_e3m4", "float8_e4m3b11fnuz",
          "float8_e4m3fnuz", "float8_e5m2fnuz")  # fmt: skip
NARROW = ("bfloat16", "float16", *FLOAT8)
# They emit differences that a narrow number cannot hold, for `gdtx.apply_updates`.
EXACT = ("master_bits", "master_weights", "stochastic_rounding")

by_name = pytest.mark.parametrize("name", EVERY)


def params_in(dtype):
    return jax.tree.map(lambda p: p.astype(dtype), PARAMS)


def types(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, getattr(x, "weak_type", False)), tree)


def added(p, u):
    """What anybody's program does with an update."""
    return jax.tree.map(lambda p, u: p + u, p, u)


def check_loop(tx, name, params, apply=None):
    """A loop of steps, which a carry of another type would end with an error."""
    apply = apply or (gdtx.apply_updates if name in EXACT else added)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(params, state, params, **extras(name, params))
        return (apply(params, updates), state), (updates, types_after(state))

    def types_after(state):
        seen.append(types(state))
        return ()

    seen = []
    first = jax.eval_shape(tx.init, params)
    (new, state), (updates, _) = jax.eval_shape(
        lambda params: jax.lax.scan(step, (params, tx.init(params)), length=2), params
    )
    assert types(new) == types(params)
    assert types(state) == types(first) == seen[-1]
    return updates


# Where rules mix dtypes they do so in both: what fails in float32 fails in bfloat16 too.
@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "bfloat16"])
@by_name
def test_all_run_where_promotion_is_strict(name, dtype):
    """And what reads states and parameters does as well."""
    tx, params = EVERY[name], params_in(dtype)

    def read(params):
        state = tx.init(params)
        return gdtx.eval_params(tx, state, params), gdtx.global_norm(params)

    with jax.numpy_dtype_promotion("strict"):
        updates = check_loop(tx, name, params)
        jax.eval_shape(read, params)
    if name not in EXACT:
        assert {x.dtype for x in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}


@pytest.mark.parametrize("dtype", NARROW[1:])
@by_name
@pytest.mark.diagonal
def test_narrow_parameters_stay_narrow_with_anybodys_sum(name, dtype):
    if name == "master_bits":  # of bfloat16 alone
        with pytest.raises(TypeError, match=rf"params\['b'\] is {dtype}, expected bfloat16"):
            EVERY[name].init(params_in(dtype))
        return
    check_loop(EVERY[name], name, params_in(dtype))


ELSEWHERE = {
    "trace after it": lambda tx: gdtx.chain(tx, optax.trace(0.9)),
    "adam after it": lambda tx: gdtx.chain(tx, gdtx.identity(), optax.adam(0.1)),
    "adam around it": lambda tx: optax.chain(to_optax(tx), optax.adam(0.1)),
    "in both": lambda tx: gdtx.chain(
        optax.chain(to_optax(tx), optax.trace(0.9)), optax.scale_by_rms()
    ),
    "apply_if_finite": lambda tx: optax.apply_if_finite(to_optax(tx), 3),
    "conditionally_transform": lambda tx: optax.conditionally_transform(
        to_optax(tx), lambda step: step < 1
    ),
    "conditionally_mask": lambda tx: optax.conditionally_mask(to_optax(tx), lambda step: step < 1),
}


@pytest.mark.parametrize("place", ELSEWHERE)
@pytest.mark.parametrize("name", [name for name in EVERY if name not in EXACT])
@pytest.mark.diagonal
def test_others_get_updates_in_the_dtype_of_their_parameters(name, place):
    """Their states would widen, and their conditionals have two types."""
    check_loop(ELSEWHERE[place](EVERY[name]), name, params_in("bfloat16"))


def test_without_parameters_it_is_the_dtype_of_the_gradients():
    gradients = params_in("bfloat16")
    for tx in (gdtx.adam(0.1), gdtx.chain(gdtx.scale_by_adam(), optax.trace(0.9))):
        state = tx.init(gradients)
        updates, new = tx.update(gradients, state)
        assert types(new) == types(state)
        assert {x.dtype for x in jax.tree.leaves(updates)} == {jnp.bfloat16.dtype}


def test_between_links_nothing_is_rounded():
    """The square of a third has no bfloat16, and its root is that third again."""
    third = jnp.full(1, 1 / 3, "bfloat16")
    tx = gdtx.chain(gdtx.square(), gdtx.sqrt())
    assert tx.update(third, tx.init(third))[0] == third
    assert gdtx.square().update(third, ())[0].astype("float32") != third.astype("float32") ** 2


@pytest.mark.parametrize("like", ["complex64", "float32"])
def test_real_updates_of_complex_parameters_stay_real(like):
    u = gdtx.square().update(jnp.ones(2, like), (), jnp.ones(2, like))[0]
    assert u.dtype == jnp.float32


@by_name
def test_float64_of_numpy_is_taken_without_a_warning(name):
    """Where JAX has 32 bits; warnings are errors here."""
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), PARAMS)
    tx = EVERY[name]

    def step():
        state = tx.init(params)
        updates, state = tx.update(params, state, params, **extras(name, params))
        return gdtx.apply_updates(params, updates), updates

    assert {x.dtype for x in jax.tree.leaves(jax.eval_shape(step))} == {jnp.float32.dtype}


def test_float64_of_numpy_outside_of_a_program():
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), PARAMS)
    tx = gdtx.adam(0.1)
    updates, _ = tx.update(params, tx.init(params), params)
    new = gdtx.apply_updates(params, updates)
    for key, p in params.items():
        np.testing.assert_allclose(new[key], p - 0.1 * np.sign(p), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "dtype", ["float8_e8m0fnu", "float4_e2m1fn", "int32", "bool", "float6_e2m3fn"]
)
def test_what_rules_cannot_compute_with_is_refused_by_leaf(dtype):
    if not hasattr(jnp, dtype.replace("bool", "bool_")):
        pytest.skip("this JAX has no such numbers")
    params = {"w": jax.ShapeDtypeStruct((2,), dtype)}
    message = rf"params\['w'\] has dtype {dtype}, expected a floating-point or complex array"
    with pytest.raises(TypeError, match=message):
        jax.eval_shape(gdtx.adam(0.1).init, params)
    with pytest.raises(TypeError, match=r"dtype must be"):
        gdtx.ema(0.9, dtype=dtype)
