"""What acts array by array: it does so to the bit, and is traced once for each kind of array."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import counted_compilations
from everything import EVERY

import gdtx
from gdtx.core.leafwise import is_leafwise

# What reads a tree that it is not given by a `let` has no part of it for each array.
LEAFWISE = [name for name, tx in EVERY.items() if is_leafwise(tx) and name != "value_of"]
SHAPES = {"a": (3,), "b": (2, 3), "c": (3,), "d": (), "e": (2, 3), "f": ()}


def trees(seed):
    """Parameters and gradients."""
    rng = np.random.default_rng(seed)
    return tuple(
        {name: jnp.asarray(rng.normal(size=shape)) for name, shape in SHAPES.items()}
        for _ in range(2)
    )


def counting():
    """A rule that is square, and the list of the shapes that it was given."""
    seen = []

    def rule(u):
        seen.append(u.shape)
        return u * u

    return rule, seen


@pytest.mark.parametrize(
    "name",
    ["adabelief", "adadelta", "adagrad", "adam", "adamax", "adamw", "adan", "amsgrad",
     "lamb", "lars", "lion", "nadam", "radam", "rmsprop", "sgd", "sm3", "yogi"],
)  # fmt: skip
def test_what_acts_array_by_array(name):
    assert is_leafwise(gdtx.get(name, 1e-3))


@pytest.mark.parametrize(
    "tx", [gdtx.clip_by_global_norm(1.0), gdtx.muon(1e-3), gdtx.add_noise(1, 0)],
    ids=["of the tree", "matrices", "keys"],
)  # fmt: skip
def test_what_does_not_act_array_by_array(tx):
    assert not is_leafwise(tx)
    assert not is_leafwise(gdtx.chain(gdtx.scale(2.0), tx))
    assert not is_leafwise(gdtx.join(gdtx.plus, u=gdtx.identity(), v=tx))


@pytest.mark.first(16)
@pytest.mark.parametrize("name", LEAFWISE)
def test_each_array_alone_gives_the_same(name, x64):
    tx, (params, grads) = EVERY[name], trees(0)

    def after_two(params, grads):
        _, state = tx.update(grads, tx.init(params), params)
        return tx.update(jax.tree.map(jnp.sin, grads), state, params)[0]

    @jax.jit
    def together_and_alone():
        alone = {one: after_two({one: params[one]}, {one: grads[one]})[one] for one in SHAPES}
        return after_two(params, grads), alone

    for one, other in zip(*map(jax.tree.leaves, together_and_alone()), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13)


@pytest.mark.parametrize(
    "around",
    [
        lambda tx: tx,
        lambda tx: gdtx.chain(tx, gdtx.scale_by_adam(), gdtx.scale_by_learning_rate(0.1)),
        lambda tx: gdtx.join(gdtx.divide, u=gdtx.identity(), v=tx),
        lambda tx: gdtx.chain(gdtx.clip_by_global_norm(1.0), gdtx.chain(tx, gdtx.ema(0.5))),
        lambda tx: gdtx.let(gdtx.value_of("m"), m=tx),
        lambda tx: gdtx.chain(gdtx.scale_by_learning_rate(lambda t: 0.1 * t), tx),
    ],
    ids=["alone", "chain", "join", "beside a norm", "let", "beside a schedule"],
)
def test_a_rule_is_traced_once_for_each_kind_of_array(around):
    rule, seen = counting()
    tx, (params, grads) = around(gdtx.elementwise(rule)), trees(1)
    state = tx.init(params)
    jax.jit(lambda *args: tx.update(*args)).trace(grads, state, params)
    assert sorted(seen) == [(), (2, 3), (3,)]
    # Another program with the same transformation in it traces nothing anew.
    jax.jit(lambda *args: tx.update(*args)[0]).trace(grads, state, params)
    assert len(seen) == 3


def test_what_depends_on_the_step_is_computed_once():
    calls = []

    def at(t):
        calls.append(t)
        return lambda u: u / t

    params, grads = trees(2)
    tx = gdtx.counted(at)
    text = str(jax.make_jaxpr(lambda g, s: tx.update(g, s))(grads, tx.init(params)))
    assert len(calls) == 1
    assert text.count(" lt ") == 1  # the comparison with which a count stays at the largest


def test_errors_keep_the_path_of_the_leaf():
    def rule(u):
        if u.shape == (2, 3):
            raise ValueError("no matrices here")
        return u

    params, grads = trees(3)
    tx = gdtx.chain(gdtx.ema(0.5), gdtx.elementwise(rule))
    with pytest.raises(ValueError, match="no matrices here") as caught:
        jax.jit(tx.update)(grads, tx.init(params), params)
    assert any("updates['b']" in note for note in caught.value.__notes__)


def test_rules_that_run_transformations_themselves():
    inner = gdtx.chain(gdtx.ema(0.5), gdtx.bias_correction(0.5))

    def rule(u):
        return inner.update(u, inner.init(u))[0] * 2

    params, grads = trees(4)
    tx = gdtx.chain(gdtx.bias_correction(0.9), gdtx.elementwise(rule), gdtx.bias_correction(0.8))
    emitted = jax.jit(tx.update)(grads, tx.init(params), params)[0]
    for name, g in grads.items():
        np.testing.assert_allclose(emitted[name], g / 0.1 * 2 / 0.2, rtol=2e-6)


def test_what_users_know_by_names_is_not_cut_into_arrays():
    """An extra argument, a function of the parameters as a whole."""
    params, grads = trees(5)
    tx = gdtx.join(gdtx.plus, u=gdtx.scale(2.0), v=gdtx.value_of("total"))

    def total(params):
        return gdtx.global_norm(params)

    found = jax.jit(lambda g, s, p: tx.update(g, s, p, total=total))(grads, tx.init(params), params)
    np.testing.assert_allclose(found[0]["a"], 2 * grads["a"] + gdtx.global_norm(params), rtol=1e-6)


def test_a_derivative_of_an_update_is_compiled_once():
    params, grads = trees(6)
    tx = gdtx.adam(jnp.float32(0.1))
    state = tx.init(params)

    def loss(tx):
        updates, _ = tx.update(grads, state, params)
        return sum(map(jnp.sum, jax.tree.leaves(updates)))

    first = jax.grad(loss)(tx)
    with counted_compilations() as compilations:
        again = jax.grad(loss)(tx)
    assert not compilations
    np.testing.assert_array_equal(
        first.arguments["learning_rate"], again.arguments["learning_rate"]
    )


@pytest.mark.parametrize("tx", [gdtx.clip_by_global_norm(1.0), gdtx.normalize_by_global_norm()])
def test_the_norm_of_a_tree_squares_arrays_of_one_shape_in_one_function(tx):
    def operations(number):
        params = {str(i): jax.ShapeDtypeStruct((3,), jnp.float32) for i in range(number)}
        lowered = jax.jit(tx.update).lower(params, tx.init(params), params)
        return re.findall(r"stablehlo\.(multiply|reduce|abs)\b", lowered.as_text())

    assert operations(20) == operations(10) != []
