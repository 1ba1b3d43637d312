"""Hyperparameters of 0 and 1, as numbers, arrays and schedules: same state, true formula."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everything import METHODS
from test_arguments import factories, required
from test_latex import evaluated, sample

import gdtx

SCHEDULE = gdtx.linear_schedule(0.5, 0.25, 10)
VALUES = {
    "0": 0.0, "1": 1.0, "array of 0": jnp.array(0.0), "array of 1": jnp.array(1.0),
    "schedule": SCHEDULE, "function": lambda step: 0.5,
}  # fmt: skip
OF_MATRICES = {"matrices": ["w"], "others": gdtx.sgd(0.1)}
NEEDED = dict.fromkeys(["dion", "muon", "normuon"], OF_MATRICES)
PRINTERS = {
    "latex": gdtx.latex, "latex of values": lambda tx: gdtx.latex(tx, values=True), "str": str,
    "tree": gdtx.tree, "expand": gdtx.expand, "expand all": lambda tx: gdtx.expand(tx, None),
}  # fmt: skip


def transformations():
    """All methods at their settings, and all factories at their defaults."""
    yield from ((name, METHODS[name].make(0.125)) for name in METHODS)
    masks = {"mask": True, "trust_mask": True, "weight_decay": 0.5}
    for name, factory in factories():
        if name in ("join", "join_trees", "warmup_cosine_decay_schedule"):
            continue  # nothing but what is given; and of two arguments one must be the larger
        needed = required(factory) | NEEDED.get(name, {})
        tx = factory(**needed)
        if isinstance(tx, gdtx.GradientTransformation):
            yield f"{name}()", tx
            with_masks = {key: masks[key] for key in masks if key in tx.signature.parameters}
            if "weight_decay" in with_masks:
                yield f"{name}(), masked", factory(**needed | with_masks)


ALL = dict(transformations())


def changed(tx, value):
    """The transformation with one scalar after the other, and then all, of this value."""
    whole = tx
    for path, old in gdtx.hyperparams(tx).items():
        if isinstance(old, float):
            try:
                yield tx.replace(**{path: value})
                whole = whole.replace(**{path: value})
            except (TypeError, ValueError):  # where it may not be that
                continue
    yield whole


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", ALL)
@pytest.mark.diagonal
def test_every_formula_is_printed(name, value):
    for tx in changed(ALL[name], VALUES[value]):
        for printed in PRINTERS.values():
            assert printed(tx)


WITH_DECAY = [name for name, tx in ALL.items() if "weight_decay" in tx.arguments]


@pytest.mark.parametrize("name", WITH_DECAY)
def test_a_decay_of_0_changes_no_state(name):
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    some, none, array = (
        jax.eval_shape(ALL[name].replace(weight_decay=decay).init, params)
        for decay in (0.5, 0.0, jnp.array(0.0))
    )
    assert jax.tree.structure(none) == jax.tree.structure(some) == jax.tree.structure(array)
    scheduled = jax.eval_shape(ALL[name].replace(weight_decay=SCHEDULE).init, params)
    assert jax.tree.structure(scheduled.inner) == jax.tree.structure(some)


@pytest.mark.parametrize("decay", [0.0, 0.5])
@pytest.mark.parametrize("name", [name for name in WITH_DECAY if name.endswith(", masked")])
def test_masks_are_looked_at_whatever_the_decay(name, decay):
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    for mask in ("mask", "trust_mask"):
        if mask in ALL[name].arguments:
            tx = ALL[name].replace(**{"weight_decay": decay, mask: "typo"})
            with pytest.raises(TypeError, match=rf"{tx.signature.name}.*mask is 'typo' \(str\)"):
                tx.init(params)


# Numbers that are plain in a formula where they are 0 or 1, against the method's float64 oracle.
EXACT = [
    (name, argument, value)
    for name, method in METHODS.items()
    for argument in inspect.signature(method.oracle).parameters
    for value in (0.0, 1.0)
    if isinstance(ALL[name].arguments.get(argument), float) and argument != "learning_rate"
]


@pytest.mark.parametrize(("name", "argument", "value"), EXACT)
def test_printed_formula_with_0_and_1_is_that_of_the_paper(name, argument, value):
    method = METHODS[name]
    gradients, theta = (x[..., :1] for x in sample())
    try:
        tx = ALL[name].replace(**{argument: value})
    except ValueError:
        return  # it may not be that
    setting = {argument: value}
    with np.errstate(divide="ignore", invalid="ignore"):
        want = method.oracle(gradients[:, 0], theta[0], method.learning_rate, **setting)
    if not np.isfinite(want).all():
        return  # of 0 / 0 and the like a formula says what it can
    tx = tx.replace(learning_rate=method.learning_rate)
    for each in (tx, gdtx.as_arrays(tx, argument)):
        got = evaluated(gdtx.latex(each, values=True), gradients, theta)
        # Where a step and its decay cancel, float64 does not see Adafactor's eps of 1e-30.
        np.testing.assert_allclose(got[:, 0], want, rtol=1e-9, atol=1e-30)


def test_what_is_wrong_between_arguments_is_known_of_arrays_too():
    for decay in (0.0, jnp.array(0.0)):
        with pytest.raises(ValueError, match=r"decay must be in \(0, 1\), got 0"):
            gdtx.rmsprop(0.1, decay, centered=True)
    with pytest.raises(ValueError, match=r"min_step_size"):
        gdtx.rprop(0.1, min_step_size=jnp.array(2.0), max_step_size=1.0)


@pytest.mark.first(1)
@pytest.mark.parametrize("b2", [1 - 1e-9, 1.0])
def test_an_array_of_1_is_the_longest_average_of_shampoo(b2):
    """As the constant 1 it is a sum: the same at the first step."""
    gradient = jnp.arange(6.0).reshape(2, 3) + 1
    tx = gdtx.scale_by_shampoo(b2=b2)
    (want, _), (got, _) = (
        each.update(gradient, each.init(gradient)) for each in (tx, gdtx.as_arrays(tx))
    )
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_an_array_of_1_is_the_sum_of_a_cover():
    gradient = jnp.array([1.0, 2.0])
    for decay in (1.0, jnp.array(1.0)):
        tx = gdtx.running_cover(decay)
        np.testing.assert_array_equal(tx.update(gradient, tx.init(gradient))[0], gradient)
