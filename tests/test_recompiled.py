"""Loops outside of `jit` that compile an update for each value of a constant are warned of."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import counted_compilations

import gdtx
from gdtx.core.calls import recompiled

PARAMS = jnp.ones(2)
RATES = np.linspace(0.01, 0.1, 20).tolist()


@pytest.fixture(autouse=True)
def afresh():
    recompiled._warned.clear()
    yield
    recompiled._warned.clear()


def said(make, values=RATES):
    """What a loop that makes a transformation for each value is told."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for value in values:
            tx = make(value)
            tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    assert all(warning.filename == __file__ for warning in caught)
    return [str(warning.message) for warning in caught]


def test_a_loop_is_told_once_and_what_to_do():
    (message,) = said(gdtx.sgd)
    assert message.startswith("sgd: learning_rate came as 16 different constants")
    assert "gdtx.as_arrays(tx, 'learning_rate')" in message
    assert said(gdtx.sgd, [rate / 7 for rate in RATES]) == [], "once"
    (message,) = said(lambda b1: gdtx.chain(gdtx.clip(1.0), gdtx.sgd(0.1, momentum=b1)))
    assert message.startswith("sgd: 1.momentum came as 16")


def test_what_it_says_helps():
    tx = gdtx.as_arrays(gdtx.sgd(0.5), "learning_rate")
    assert said(lambda rate: gdtx.replace(tx, {"learning_rate": rate})) == []
    with counted_compilations() as compilations:
        said(lambda rate: gdtx.replace(tx, {"learning_rate": rate}))
    assert compilations == []


@pytest.mark.parametrize("make", [
    lambda rate: gdtx.sgd(jnp.float32(rate) * jnp.ones(())),
    lambda rate: gdtx.sgd(0.25),
    lambda rate: gdtx.sgd(gdtx.linear_schedule(0.1, 0.0, 10)),
], ids=["arrays", "one constant", "one schedule"])  # fmt: skip
def test_what_compiles_once_is_not_warned_of(make):
    assert said(make) == []


def test_schedules_made_anew():
    (message,) = said(lambda rate: gdtx.sgd(gdtx.constant_schedule(rate)))
    assert message.startswith("constant_schedule: learning_rate.value came as 16")
    (message,) = said(lambda rate: gdtx.sgd(lambda t: rate))
    assert message.startswith("sgd: learning_rate came as 16")


def test_few_constants_and_others_that_differ_are_not_warned_of():
    assert said(gdtx.sgd, RATES[:15]) == []
    assert said(gdtx.sgd, RATES[:15]) == [], "the same again"
    assert said(lambda i: gdtx.chain(*[gdtx.sgd(0.1 + 0.01 * i)] * i), range(1, 20)) == []


def test_inside_of_jit_nothing_is_said():
    def total(params):
        return sum(gdtx.sgd(rate).update(params, ())[0] for rate in RATES)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jax.jit(total)(PARAMS)


def test_what_is_remembered_is_bounded():
    for i in range(100):
        for rate in range(20):
            recompiled.note(gdtx.masked(gdtx.sgd(rate), [f"layer{i}"]))
    recompiled.due.clear()
    assert len(recompiled._seen) <= 64
    assert all(len(values) <= 16 for seen in recompiled._seen.values() for values in seen.values())
    held = (each for seen in recompiled._seen.values() for each in seen.values())
    assert {type(value) for values in held for value in values} == {int}, "hashes, no objects"
