"""One function finds the parameters for evaluation, wherever in a state they are."""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gdtx

PARAMS = {"a": jnp.array([1.0, 2.0]), "b": jnp.array(3.0), "none": None}
ONLY_A = {"a": True, "b": False, "none": None}


class FixedState(NamedTuple):
    """As a user would write one: it has nothing to do with gdtx but the method."""

    kept: dict
    inner: tuple

    def eval_params(self, params):
        return self.kept


@gdtx.transformation
def fixed(inner: gdtx.GradientTransformation, value: float):
    def init(params):
        return FixedState(jax.tree.map(lambda p: 0 * p + value, params), inner.init(params))

    def update(updates, state, params=None, **extra_args):
        updates, inner_state = inner.update(updates, state.inner, params, **extra_args)
        return updates, FixedState(state.kept, inner_state)

    return gdtx.GradientTransformation(init, update)


SGD = gdtx.sgd(0.25)
# Where a transformation with evaluation parameters may be; the rest of the parameters are trained.
PLACES = {
    "alone": (lambda tx: tx, True),
    "chain": (lambda tx: gdtx.chain(gdtx.clip(9.0), tx, gdtx.identity()), True),
    "masked": (lambda tx: gdtx.masked(tx, ONLY_A), False),
    "masked twice": (lambda tx: gdtx.masked(gdtx.chain(gdtx.masked(tx, ONLY_A)), True), False),
    "partition": (
        lambda tx: gdtx.partition({"tx": tx, "sgd": SGD}, [("a", "tx"), ("**", "sgd")]),
        False,
    ),
    "trainable": (lambda tx: gdtx.trainable(tx, ["a"]), False),
    "master_weights": (gdtx.master_weights, True),
    "tunable": (gdtx.tunable, True),
    "accumulate": (lambda tx: gdtx.accumulate_gradients(tx, jnp.asarray(1)), True),
    "skip": (gdtx.skip_nonfinite, True),
    "remember": (gdtx.remember, True),
    "optax chain": (lambda tx: optax.chain(optax.identity(), tx), True),
    "optax masked": (lambda tx: optax.masked(tx, ONLY_A), False),
    "optax partition": (
        lambda tx: optax.partition({"tx": tx, "sgd": SGD}, {"a": "tx", "b": "sgd", "none": None}),
        False,
    ),
    "optax MultiSteps": (lambda tx: optax.MultiSteps(tx, 1), True),
    "optax apply_if_finite": (lambda tx: optax.apply_if_finite(tx, 3), True),
}
KINDS = {
    "average": gdtx.average,
    "lookahead": lambda tx: gdtx.lookahead(tx, 2),
    "schedule_free": lambda tx: gdtx.schedule_free(tx, 0.25),
    "displaced": lambda tx: gdtx.displaced(tx, gdtx.scale(0.5)),
    "user's": lambda tx: fixed(tx, 7.0),
}


def trained(tx, params=PARAMS, steps=3):
    params = jax.tree.map(jnp.array, params)
    state = tx.init(params)
    update = jax.jit(tx.update)
    for _ in range(steps):
        updates, state = update(params, state, params)
        params = gdtx.apply_updates(params, updates)
    return params, state


@functools.cache
def found_alone(kind):
    tx = KINDS[kind](SGD)
    params, state = trained(tx)
    return gdtx.eval_params(tx, state, params)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["average", "schedule_free", "displaced", "user's"])
@pytest.mark.diagonal
def test_found_in(kind, place):
    wrap, all_of_them = PLACES[place]
    outer = wrap(KINDS[kind](SGD))
    params, state = trained(outer)
    got, want = gdtx.eval_params(outer, state, params), found_alone(kind)
    chex.assert_trees_all_close(got["a"], want["a"], rtol=1e-6)
    np.testing.assert_allclose(got["b"], want["b"] if all_of_them else params["b"], rtol=1e-6)
    assert got["none"] is None
    assert not np.allclose(got["a"], params["a"])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "user's"])
def test_before_the_first_update_they_are_the_parameters(kind):
    tx = KINDS[kind](SGD)
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    got = gdtx.eval_params(tx, tx.init(params), params)
    chex.assert_trees_all_equal(got, params)
    chex.assert_trees_all_equal_dtypes(got, params)


@pytest.mark.parametrize(
    "tx", [gdtx.sgd(0.1), gdtx.adam(0.1), optax.adam(0.1)], ids=["sgd", "adam", "optax"]
)
def test_identity_where_there_is_nothing_to_do(tx):
    params, state = trained(tx)
    assert gdtx.eval_params(tx, state, params) is params


def test_the_outermost_counts():
    tx = fixed(gdtx.average(fixed(SGD, 2.0)), 7.0)
    params, state = trained(tx)
    assert gdtx.eval_params(tx, state, params)["b"] == 7
    tx = gdtx.chain(gdtx.masked(fixed(gdtx.identity(), 2.0), ONLY_A), gdtx.average(SGD))
    params, state = trained(tx)
    # Of two side by side the first that has a parameter.
    got = gdtx.eval_params(tx, state, params)
    assert got["a"][0] == 2
    assert got["b"] not in (2, params["b"])


def test_inside_jit_and_in_a_batch():
    tx = gdtx.average(SGD)
    params, state = trained(tx)
    want = gdtx.eval_params(tx, state, params)
    inside = jax.jit(gdtx.eval_params)(tx, state, params)
    chex.assert_trees_all_close(inside, want)
    batch = jax.tree.map(lambda x: jnp.stack([x, x]), (state, params))
    got = jax.vmap(lambda s, p: gdtx.eval_params(tx, s, p))(*batch)
    chex.assert_trees_all_close(jax.tree.map(lambda x: x[1], got), want)


def test_master_weights_are_averaged_in_float32():
    """Steps that bfloat16 cannot see add up in the average of the copies."""
    tx = gdtx.master_weights(gdtx.average(gdtx.sgd(2.0**-10)))
    params = jnp.ones(1, jnp.bfloat16)
    state = tx.init(params)
    for _ in range(15):
        updates, state = tx.update(-params, state, params)
        params = gdtx.apply_updates(params, updates)
    np.testing.assert_allclose(gdtx.find(state, "average"), 1 + 8 * 2.0**-10, rtol=1e-3)
    assert gdtx.eval_params(tx, state, params).dtype == jnp.bfloat16


def test_of_a_train_state():
    train_state = pytest.importorskip("flax.training.train_state")
    params = {"w": jnp.ones(2)}
    tx = gdtx.chain(gdtx.clip(1.0), gdtx.average(SGD))
    state = train_state.TrainState.create(apply_fn=None, params=params, tx=tx)
    for _ in range(2):
        state = state.apply_gradients(grads={"w": jnp.ones(2)})
    np.testing.assert_allclose(
        gdtx.eval_params(state.tx, state.opt_state, state.params)["w"], [0.625, 0.625]
    )


def test_in_nnx():
    """Whose containers come off both the state and the parameters, by a function new in 0.12."""
    pytest.importorskip("flax", minversion="0.12")
    from flax import nnx

    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, gdtx.average(gdtx.sgd(1.0)), wrt=nnx.Param)
    seen = []
    for _ in range(2):
        optimizer.update(model, nnx.grad(lambda m: m(jnp.ones((1, 2))).sum())(model))
        seen.append(np.asarray(model.kernel[...]))
    params = nnx.as_pure(nnx.state(model, nnx.Param))
    averaged = gdtx.eval_params(optimizer.tx, nnx.as_pure(optimizer.opt_state), params)
    np.testing.assert_allclose(averaged["kernel"], np.mean(seen, axis=0), rtol=1e-6)


def test_what_does_not_fit_raises():
    tx = gdtx.average(gdtx.adam(0.1))
    params, state = trained(tx)
    swapped = r"^eval_params: .* they are swapped; call eval_params\(tx, state, params\)$"
    with pytest.raises(ValueError, match=swapped):
        gdtx.eval_params(tx, params, state)
    with pytest.raises(ValueError, match=swapped):
        gdtx.eval_params(gdtx.sgd(0.1), params, ())
    fits_not = "^eval_params: the transformation makes no such state of these parameters; call"
    restored = {"average": state.average, "inner": state.inner}  # as from a checkpoint
    for wrong in ((), state.inner, restored):
        with pytest.raises(ValueError, match=fits_not):
            gdtx.eval_params(tx, wrong, params)
    with pytest.raises(ValueError, match=fits_not):
        gdtx.eval_params(tx, state, {"a": params["a"]})
    with pytest.raises(TypeError, match="eval_params: tx must be a transformation"):
        gdtx.eval_params(state, tx, params)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({"c": jnp.ones(1)}, r"has a leaf \['c'\] that is not in params"),
        ({"a": jnp.ones(3)}, r"eval_params\['a'\] has shape \(3,\), its parameter has \(2,\)"),
    ],
)
def test_a_state_that_returns_something_else(returned, message):
    class Odd(NamedTuple):
        x: tuple = ()

        def eval_params(self, params):
            return returned

    tx = gdtx.GradientTransformation(lambda params: Odd(), lambda u, s, p=None: (u, s))
    with pytest.raises(ValueError, match=message):
        gdtx.eval_params(tx, Odd(), PARAMS)
