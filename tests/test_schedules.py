"""Every schedule against Optax, or the paper in NumPy where Optax has none, and as data."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compilations import counted_compilations

import gdtx

# 0, boundaries and their neighbours, the end and beyond it.
GRID = [0, 1, 9, 10, 11, 19, 20, 21, 29, 30, 31, 99, 100, 101, 1000, 10**9, 2**31 - 1]

# name and arguments, the same in both libraries
SHARED = {
    "constant_schedule": [{"value": 0.3}],
    "linear_schedule": [
        {"init_value": 1.0, "end_value": 0.1, "transition_steps": 20},
        {"init_value": 0.0, "end_value": 2.0, "transition_steps": 10, "transition_begin": 20},
    ],
    "polynomial_schedule": [
        {"init_value": 1.0, "end_value": 0.1, "power": 2.5, "transition_steps": 20},
        {"init_value": 0.1, "end_value": 1.0, "power": 0.5, "transition_steps": 10,
         "transition_begin": 10},
    ],
    "exponential_decay": [
        {"init_value": 1.0, "transition_steps": 10, "decay_rate": 0.5},
        {"init_value": 1.0, "transition_steps": 10, "decay_rate": 0.5, "staircase": True},
        {"init_value": 1.0, "transition_steps": 10, "decay_rate": 0.5, "transition_begin": 20,
         "end_value": 0.3},
        {"init_value": 1.0, "transition_steps": 10, "decay_rate": 1.1, "end_value": 2.0},
    ],
    "cosine_decay_schedule": [
        {"init_value": 1.0, "decay_steps": 20},
        {"init_value": 1.0, "decay_steps": 30, "alpha": 0.1, "exponent": 2.0},
    ],
    "warmup_cosine_decay_schedule": [
        {"init_value": 0.1, "peak_value": 1.0, "warmup_steps": 10, "decay_steps": 30},
        {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 20, "decay_steps": 100,
         "end_value": 0.05, "exponent": 1.5},
    ],
    "piecewise_constant_schedule": [
        {"init_value": 1.0, "boundaries_and_scales": {10: 0.5, 20: 0.1, 30: 3.0}},
        {"init_value": 1.0},
    ],
    "piecewise_interpolate_schedule": [
        {"interpolate_type": "linear", "init_value": 2.0,
         "boundaries_and_scales": {10: 0.5, 20: 0.1, 30: 3.0}},
        {"interpolate_type": "cosine", "init_value": 0.1,
         "boundaries_and_scales": {20: 10.0, 10: 0.5, 100: 0.0}},
        {"interpolate_type": "cosine", "init_value": 1.0,
         "boundaries_and_scales": {0: 0.5, 10: 2.0}},
        {"interpolate_type": "linear", "init_value": 1.0, "boundaries_and_scales": {0: 0.5}},
        {"interpolate_type": "linear", "init_value": 1.0},
    ],
    "warmup_constant_schedule": [
        {"init_value": 0.1, "peak_value": 1.0, "warmup_steps": 10},
    ],
    "warmup_exponential_decay_schedule": [
        {"init_value": 0.1, "peak_value": 1.0, "warmup_steps": 10, "transition_steps": 10,
         "decay_rate": 0.5},
        {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 9, "transition_steps": 10,
         "decay_rate": 0.5, "transition_begin": 10, "staircase": True, "end_value": 0.2},
    ],
    "sgdr_schedule": [
        {"cosine_kwargs": [
            {"init_value": 0.1, "peak_value": 1.0, "warmup_steps": 5, "decay_steps": 10},
            {"init_value": 0.2, "peak_value": 0.5, "warmup_steps": 1, "decay_steps": 20,
             "end_value": 0.1},
            {"init_value": 0.0, "peak_value": 0.3, "warmup_steps": 30, "decay_steps": 70},
        ]},
    ],
    "linear_onecycle_schedule": [
        {"transition_steps": 100, "peak_value": 2.0},
        {"transition_steps": 30, "peak_value": 2.0, "pct_start": 0.35, "pct_final": 0.7,
         "div_factor": 5.0, "final_div_factor": 10.0},
    ],
    "cosine_onecycle_schedule": [
        {"transition_steps": 100, "peak_value": 2.0},
        {"transition_steps": 30, "peak_value": 2.0, "pct_start": 0.35, "div_factor": 5.0,
         "final_div_factor": 10.0},
        {"transition_steps": 20, "peak_value": 2.0, "pct_start": 0.0},
    ],
}  # fmt: skip
CASES = [(name, arguments) for name, settings in SHARED.items() for arguments in settings]


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_equals_optax(name, arguments):
    ours, theirs = getattr(gdtx, name)(**arguments), getattr(optax, name)(**arguments)
    for step in GRID:
        # 1e-6 of the largest value: Optax works in float32 as gdtx does, in another order.
        np.testing.assert_allclose(ours(step), theirs(jnp.asarray(step)), rtol=2e-6, atol=1e-6)


def check_float32_at_every_step(schedule):
    for step in (0, 2**31 - 1):
        for given in (step, jnp.asarray(step), np.int32(step)):
            value = schedule(given)
            assert value.dtype == np.float32
            assert value.shape == ()
            assert np.isfinite(value)
    # A compiled cosine is not the last digit of another.
    np.testing.assert_allclose(jax.vmap(schedule)(jnp.arange(40)),
                               [schedule(step) for step in range(40)],
                               rtol=1e-6, atol=1e-6)  # fmt: skip


def check_is_data(make, arguments):
    schedule = make(**arguments)
    assert schedule == make(**copy.deepcopy(arguments))
    assert hash(schedule) == hash(make(**copy.deepcopy(arguments)))
    assert eval(repr(schedule), dict(vars(gdtx))) == schedule
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert jax.tree.leaves(schedule) == []


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_float32_at_every_step(name, arguments):
    check_float32_at_every_step(getattr(gdtx, name)(**arguments))


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_is_data(name, arguments):
    check_is_data(getattr(gdtx, name), arguments)


@pytest.mark.parametrize("staircase", [False, True])
def test_inverse_time_decay(staircase):
    schedule = gdtx.inverse_time_decay(2.0, 10, 0.5, staircase)
    for step in GRID:
        done = step // 10 if staircase else step / 10
        np.testing.assert_allclose(schedule(step), 2.0 / (1 + 0.5 * done), rtol=1e-6)


def test_join_counts_from_each_beginning():
    joined = gdtx.join_schedules(
        [gdtx.linear_schedule(0.0, 1.0, 10), lambda t: 5.0 + t, gdtx.constant_schedule(7.0)],
        [10, 20],
    )
    want = [t / 10 if t < 10 else 5.0 + t - 10 if t < 20 else 7.0 for t in range(40)]
    np.testing.assert_allclose([joined(t) for t in range(40)], want, rtol=1e-6)


def test_differences_of_large_counts_are_exact():
    """As floats, both counts would round to the same number."""
    last = gdtx.linear_schedule(1.0, 0.0, 4, transition_begin=2**30)
    assert [float(last(2**30 + k)) for k in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]


@pytest.mark.parametrize("order", ["rising", "falling", "mixed"])
def test_learning_rates_of_a_spectrum_solve_the_quadratic(order, x64):
    """Gradient descent with rates 1/h_i, one per curvature, ends at the optimum exactly.

    The step with rate 1/h_i takes the error along h_i to 0, whatever the order; a schedule that is
    off by one step leaves an error.
    """
    h = np.array([1.0, 2.0, 4.0, 8.0])
    rates = {"rising": 1 / h, "falling": 1 / h[::-1], "mixed": 1 / h[[2, 0, 3, 1]]}[order]
    joined = gdtx.join_schedules([gdtx.constant_schedule(float(r)) for r in rates], [1, 2, 3])
    scaled = gdtx.piecewise_constant_schedule(
        float(rates[0]), {t: float(rates[t] / rates[t - 1]) for t in (1, 2, 3)}
    )
    for schedule in (joined, scaled):
        tx = gdtx.sgd(schedule)
        theta = jnp.array([3.0, -1.0, 0.5, 2.0])
        state = tx.init(theta)
        for _ in rates:
            updates, state = tx.update(h * theta, state, theta)
            theta = gdtx.apply_updates(theta, updates)
        assert (theta == 0).all()


def test_arrays_in_schedules_are_leaves():
    schedule = gdtx.linear_schedule(jnp.asarray(1.0), 0.0, 10)
    assert len(jax.tree.leaves(gdtx.sgd(schedule))) == 1

    @jax.jit
    def step(tx, state):
        return tx.update(jnp.ones(()), state)

    def first(peak):
        tx = gdtx.sgd(gdtx.linear_schedule(jnp.asarray(peak), 0.0, 10))
        return float(step(tx, tx.init(jnp.ones(())))[0])

    assert first(1.0) == -1
    with counted_compilations() as compilations:
        assert first(2.0) == -2
    assert compilations == []


def test_gradient_with_respect_to_a_schedules_parameter():
    def final(peak):
        tx = gdtx.sgd(gdtx.linear_schedule(peak, 0.0, 2))
        theta = jnp.asarray(1.0)
        state = tx.init(theta)
        for _ in range(2):
            updates, state = tx.update(theta, state)
            theta = gdtx.apply_updates(theta, updates)
        return theta

    # (1 - a)(1 - a/2), whose derivative at a = 0.5 is -3/2 + a.
    np.testing.assert_allclose(jax.grad(final)(0.5), -1.0, rtol=1e-6)


def test_custom_schedule():
    @gdtx.schedule
    def sawtooth(period: gdtx.Count):
        return lambda step: 1.0 * (step % period)

    assert repr(sawtooth(3)) == "sawtooth(period=3)"
    assert [float(sawtooth(3)(t)) for t in range(5)] == [0, 1, 2, 0, 1]
    with pytest.raises(ValueError, match="sawtooth: period must be a non-negative integer, got -1"):
        sawtooth(-1)
