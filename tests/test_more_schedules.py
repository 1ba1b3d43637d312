"""Schedules that Optax does not have, arrays in all of them, and the algebra of schedules.

Each is compared with the formula of its paper in Python's float64 and exact integers, and with
torch where it has the same one.
"""

import copy
import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import counted_compilations
from test_schedules import CASES, GRID, check_float32_at_every_step, check_is_data

import gdtx

FAR = [10**6, 10**9, 2**30 + 1, 2**31 - 2, 2**31 - 1]


def triangle(t, base, peak, h, scale):
    """Smith 2017, section 3.1, with the step's cycle and phase in exact integers."""
    cycle = 1 + t // (2 * h)
    x = abs(t - (2 * cycle - 1) * h) / h
    return base + (peak - base) * max(0.0, 1 - x) * scale(t, cycle)


def cyclic(t, base_value, peak_value, step_size, mode="triangular", gamma=1.0):
    scales = {
        "triangular": lambda t, cycle: 1.0,
        "triangular2": lambda t, cycle: math.exp2(max(1 - cycle, -1000)),
        "exp_range": lambda t, cycle: gamma**t,
    }
    return triangle(t, base_value, peak_value, step_size, scales[mode])


def inverse_sqrt(t, init_value, peak_value, warmup_steps):
    if t < warmup_steps:
        return init_value + (peak_value - init_value) * t / warmup_steps
    return peak_value * math.sqrt(warmup_steps / t)


def wsd(t, init_value, peak_value, warmup_steps, stable_steps, decay_steps, end_value=0.0,
        decay_type="linear"):  # fmt: skip
    if t < warmup_steps:
        return init_value + (peak_value - init_value) * t / warmup_steps
    f = min(max((t - warmup_steps - stable_steps) / decay_steps, 0), 1)
    down = {"linear": f, "cosine": (1 - math.cos(math.pi * f)) / 2, "sqrt": math.sqrt(f)}
    return peak_value + (end_value - peak_value) * down[decay_type]


def points(t, xs, ys, interpolate_type):
    """Through all points; a cosine is a line with its clock bent."""
    if interpolate_type == "linear":
        return np.interp(t, xs, ys)
    for x0, x1, y0, y1 in zip(xs, xs[1:], ys, ys[1:], strict=False):
        if x0 <= t < x1:
            return y1 + (y0 - y1) * (1 + math.cos(math.pi * (t - x0) / (x1 - x0))) / 2
    return ys[-1]


def momentum(t, transition_steps, base_momentum=0.85, max_momentum=0.95, pct_start=0.45,
             pct_final=0.9, interpolate_type="linear"):  # fmt: skip
    ends = [0, int(pct_start * transition_steps), int((pct_final or 1) * transition_steps)]
    return points(t, ends, [max_momentum, base_momentum, max_momentum], interpolate_type)


def onecycle(kind):
    def rate(t, transition_steps, peak_value, pct_start=0.3, div_factor=25.0, final_div_factor=1e4,
             pct_final=0.85 if kind == "linear" else None):  # fmt: skip
        init = peak_value / div_factor
        xs, ys = [0, int(pct_start * transition_steps)], [init, peak_value]
        if pct_final is not None:
            xs, ys = [*xs, int(pct_final * transition_steps)], [*ys, init]
        return points(t, [*xs, transition_steps], [*ys, init / final_div_factor], kind)

    return rate


def held(t, init_value, peak_value, warmup_steps):
    return peak_value if t >= warmup_steps else init_value * (1 - t / warmup_steps)


# name, arguments, oracle, boundaries
OWN = [
    ("cyclic_schedule", {"base_value": 0.1, "peak_value": 1.0, "step_size": 10}, cyclic, [10, 20]),
    ("cyclic_schedule", {"base_value": 0.1, "peak_value": 1.0, "step_size": 7,
                         "mode": "triangular2"}, cyclic, [7, 14, 21, 28, 35]),
    ("cyclic_schedule", {"base_value": 0.1, "peak_value": 1.0, "step_size": 10,
                         "mode": "exp_range", "gamma": 0.99994}, cyclic, [10, 20, 100_000]),
    # Cycles whose length float32 cannot hold, and of which the last count is in the first.
    ("cyclic_schedule", {"base_value": 0.0, "peak_value": 1.0, "step_size": 2**24 + 1}, cyclic,
     [2**24 + 1, 2**25 + 2]),
    ("cyclic_schedule", {"base_value": 0.0, "peak_value": 1.0, "step_size": 2**31 - 1}, cyclic, []),
    ("inverse_sqrt_schedule", {"init_value": 0.1, "peak_value": 1.0, "warmup_steps": 10},
     inverse_sqrt, [10, 40]),
    ("warmup_stable_decay_schedule",
     {"init_value": 0.1, "peak_value": 1.0, "warmup_steps": 10, "stable_steps": 20,
      "decay_steps": 70, "end_value": 0.05}, wsd, [10, 30, 100]),
    ("warmup_stable_decay_schedule",
     {"init_value": 0.1, "peak_value": 1.0, "warmup_steps": 0, "stable_steps": 20,
      "decay_steps": 9, "decay_type": "cosine"}, wsd, [20, 29]),
    ("warmup_stable_decay_schedule",
     {"init_value": 0.1, "peak_value": 1.0, "warmup_steps": 10, "stable_steps": 0,
      "decay_steps": 10**6, "decay_type": "sqrt"}, wsd, [10, 10**6 + 10]),
    ("warmup_stable_decay_schedule",
     {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 10, "stable_steps": 2**31 - 21,
      "decay_steps": 5}, wsd, [2**31 - 11, 2**31 - 6]),
    ("onecycle_momentum_schedule", {"transition_steps": 100}, momentum, [45, 90, 100]),
    ("onecycle_momentum_schedule",
     {"transition_steps": 31, "base_momentum": 0.0, "max_momentum": 0.5, "pct_start": 0.35,
      "pct_final": None, "interpolate_type": "cosine"}, momentum, [10, 31]),
    ("linear_onecycle_schedule", {"transition_steps": 100, "peak_value": 1.0, "pct_final": None},
     onecycle("linear"), [30, 100]),
    ("linear_onecycle_schedule",
     {"transition_steps": 20, "peak_value": 1.0, "pct_start": 0.5, "pct_final": 1.0},
     onecycle("linear"), [10, 20]),
    ("cosine_onecycle_schedule", {"transition_steps": 100, "peak_value": 1.0, "pct_final": 0.8},
     onecycle("cosine"), [30, 80, 100]),
    ("warmup_constant_schedule", {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 0},
     held, []),
]  # fmt: skip
by_own = pytest.mark.parametrize(
    ("name", "arguments", "oracle", "boundaries"),
    OWN,
    ids=[f"{i}-{row[0]}" for i, row in enumerate(OWN)],
)
EVERY = CASES + [(name, arguments) for name, arguments, *_ in OWN]
by_schedule = pytest.mark.parametrize(("name", "arguments"), EVERY)


def kind(name, arguments):
    """What chooses the rule: its name, what is no number, and where it has no length."""
    chosen = [x for x in arguments.values() if isinstance(x, str | bool)]
    return name, *chosen, 0 in arguments.values()


def by_kind(rows):
    """The first of each kind; others, which differ in numbers, are slow."""
    kinds = [kind(*row) for row in rows]
    marks = [() if kinds.index(k) == i else pytest.mark.slow for i, k in enumerate(kinds)]
    cases = [pytest.param(*row, marks=mark) for row, mark in zip(rows, marks, strict=True)]
    return pytest.mark.parametrize(("name", "arguments"), cases)


def around(boundaries):
    steps = {max(b + k, 0) for b in boundaries for k in (-1, 0, 1)} | {*GRID, *FAR}
    return sorted(step for step in steps if step < 2**31)


@by_own
def test_equals_the_paper(name, arguments, oracle, boundaries):
    schedule = getattr(gdtx, name)(**arguments)
    for step in around(boundaries):
        want = oracle(step, **arguments)
        np.testing.assert_allclose(schedule(step), want, rtol=1e-6, atol=2e-7, err_msg=f"{step}")


@by_own
def test_float32_at_every_step(name, arguments, oracle, boundaries):
    check_float32_at_every_step(getattr(gdtx, name)(**arguments))


@by_own
def test_is_data(name, arguments, oracle, boundaries):
    check_is_data(getattr(gdtx, name), arguments)


@by_schedule
def test_whole_numbers_make_floats(name, arguments):
    def whole(value):
        return int(value) if isinstance(value, float) and value == int(value) else value

    floats, wholes = (
        getattr(gdtx, name)(**jax.tree.map(f, arguments)) for f in (lambda x: x, whole)
    )
    for step in (0, 11):
        assert wholes(step).dtype == np.float32
        np.testing.assert_array_equal(wholes(step), floats(step))


@by_schedule
def test_value_at_the_beginning_is_exact(name, arguments):
    schedule = getattr(gdtx, name)(**arguments)
    if "init_value" in arguments and not (
        arguments.get("warmup_steps") == 0 or 0 in arguments.get("boundaries_and_scales", {})
    ):
        assert schedule(0) == np.float32(arguments["init_value"])
        if name != "exponential_decay":  # whose end_value is a bound
            assert schedule.replace(init_value=1e-9)(0) == np.float32(1e-9)


def floats_of(schedule):
    """The numbers among the arguments that may be arrays, without those that count."""
    arrays = gdtx.as_arrays(schedule).arguments
    return {
        key: value
        for key, value in schedule.arguments.items()
        if isinstance(value, float) and isinstance(arrays[key], jax.Array)
    }


@by_kind(EVERY)
def test_numbers_may_be_arrays(name, arguments):
    """One program for all values, and the same numbers; counts may be arrays of floats."""
    schedule = getattr(gdtx, name)(**arguments)
    arrays = gdtx.as_arrays(schedule)
    at = jax.jit(lambda schedule, step: schedule(step))
    for step in (0, 1, 9, 10, 11, 20, 29, 30, 31, 100):
        np.testing.assert_allclose(at(arrays, step), schedule(step), rtol=1e-5, atol=1e-6)
    others = jax.tree.map(lambda x: x + x, arrays)
    with counted_compilations() as compilations:
        for step in (10**9, 2**31 - 1):
            assert np.isfinite(at(arrays, step))
        at(others, 1)
    assert compilations == []


@by_kind([row for row in EVERY if row[0] != "sgdr_schedule"])
def test_derivatives_equal_finite_differences(name, arguments, x64):
    """With respect to every number, at every step: what is beyond a boundary adds no NaN."""
    schedule = getattr(gdtx, name)(**arguments)
    # AtLeastOne leaves the range of numbers, and its derivative with it.
    last = 1000 if arguments.get("decay_rate", 0) > 1 else 2**31 - 1
    steps = jnp.array([0, 1, 5, 10, 11, 20, 25, 30, 40, 100, 1000, last])
    numbers = floats_of(schedule)

    def values(numbers):
        return jax.vmap(schedule.replace(**numbers))(steps)

    # From one side at 0, below which some have no meaning.
    moved = [
        numbers | {key: x + side * 1e-6 * (x if x else 1)}
        for key, x in numbers.items()
        for side in (1, -1 if x else 0)
    ]
    columns = {key: np.array([row[key] for row in moved]) for key in numbers}

    @jax.jit  # one program for all of it
    def everything(numbers, columns):
        return jax.vmap(values)(columns), jax.jacfwd(values)(numbers), jax.jacrev(values)(numbers)

    if not numbers:
        return
    found, jacobian, pullback = jax.device_get(everything(numbers, columns))
    for i, key in enumerate(numbers):
        high, low = columns[key][2 * i], columns[key][2 * i + 1]
        difference = (found[2 * i] - found[2 * i + 1]) / (high - low)
        np.testing.assert_allclose(jacobian[key], difference, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(pullback[key], jacobian[key], rtol=1e-9, atol=1e-12)


# Positive from the beginning, so that each value is a learning rate that solves its direction.
SHORT = [
    gdtx.warmup_constant_schedule(0.5, 2.0, 4),
    gdtx.warmup_cosine_decay_schedule(0.5, 2.0, 2, 7, 0.1),
    gdtx.warmup_exponential_decay_schedule(0.5, 2.0, 2, 2, 0.5),
    gdtx.warmup_stable_decay_schedule(0.5, 2.0, 2, 2, 3, 0.1),
    gdtx.warmup_stable_decay_schedule(0.5, 2.0, 1, 1, 4, 0.1, "sqrt"),
    gdtx.inverse_sqrt_schedule(0.5, 2.0, 3),
    gdtx.cyclic_schedule(0.5, 2.0, 2),
    gdtx.cyclic_schedule(0.5, 2.0, 1, "triangular2"),
    gdtx.cyclic_schedule(0.5, 2.0, 3, "exp_range", 0.8),
    gdtx.sgdr_schedule([{"init_value": 0.5, "peak_value": 2.0, "warmup_steps": 1, "decay_steps": 3,
                         "end_value": 0.1}] * 2),
    gdtx.linear_onecycle_schedule(6, 2.0, 0.4, 0.7, 4.0, 2.0),
    gdtx.cosine_onecycle_schedule(6, 2.0, 0.4, 4.0, 2.0),
    gdtx.piecewise_interpolate_schedule("linear", 0.5, {2: 4.0, 5: 0.1}),
]  # fmt: skip


@pytest.mark.parametrize("schedule", SHORT, ids=lambda schedule: schedule.signature.name)
def test_the_value_of_each_step_is_used_once(schedule, x64):
    """Gradient descent solves a quadratic whose curvatures are 1 over the values at 0, 1, …

    The step that uses the value of step t takes the error along that direction to 0. That a
    value was left out, repeated or used for another count would leave one.
    """
    steps = 6
    h = np.array([1 / float(schedule(t)) for t in range(steps)])
    assert len(set(h.round(9))) > 2
    tx = gdtx.sgd(schedule)

    @jax.jit
    def trained(theta):
        def step(carry, _):
            theta, state = carry
            updates, state = tx.update(h * theta, state, theta)
            return (gdtx.apply_updates(theta, updates), state), None

        return jax.lax.scan(step, (theta, tx.init(theta)), length=steps)[0][0]

    np.testing.assert_allclose(trained(np.ones(steps)), 0, atol=1e-9)


def test_small_values_at_the_ends_of_a_long_line():
    """The difference of two numbers near 1 would keep no digit of them."""
    n = 10**7
    up, down = gdtx.linear_schedule(0.0, 1.0, n), gdtx.linear_schedule(1.0, 0.0, n)
    for t in (1, 2, 1000, n - 1000, n - 2, n - 1):
        np.testing.assert_allclose(up(t), t / n, rtol=1e-6)
        np.testing.assert_allclose(down(t), (n - t) / n, rtol=1e-6)


@pytest.mark.parametrize("period", [10**9, 2**24 + 1, 2**30])
def test_stairs_that_floats_cannot_count(period):
    """As a float, the last step before a stair is on it."""
    schedules = [
        gdtx.exponential_decay(1.0, period, 0.5, staircase=True),
        gdtx.inverse_time_decay(1.0, period, 1.0, staircase=True),
    ]
    for schedule in schedules:
        assert [float(schedule(t)) for t in (0, period - 1, period)] == [1.0, 1.0, 0.5]


@pytest.mark.parametrize("kind", ["linear", "cosine", "sqrt"])
def test_derivative_with_respect_to_a_length(kind):
    """The root begins with an infinite slope, where the decay does not begin yet."""

    def value(decay_steps, step):
        return gdtx.warmup_stable_decay_schedule(0.5, 1.0, 5, 5, decay_steps, decay_type=kind)(step)

    for step in (0, 5, 10, 100):
        np.testing.assert_allclose(jax.grad(value)(20.0, step), 0, atol=1e-8)
    assert jax.grad(value)(20.0, 15) > 0


def test_inverse_sqrt_is_that_of_the_transformer():
    """Whose step is 1 on the first update."""
    d, warmup = 512, 4000
    schedule = gdtx.inverse_sqrt_schedule(0.0, (d * warmup) ** -0.5, warmup).shift(-1)
    for t in (0, 1, 100, warmup - 2, warmup - 1, warmup, 10**5, 2**31 - 2, 2**31 - 1):
        n = min(t + 1, 2**31 - 1)
        want = d**-0.5 * min(n**-0.5, n * warmup**-1.5)
        np.testing.assert_allclose(schedule(t), want, rtol=1e-6)


def test_both_boundaries_of_a_range_decay():
    """As the paper words exp_range; ours, like other implementations, keeps the base."""
    both = gdtx.cyclic_schedule(0.1, 1.0, 10) * gdtx.exponential_decay(1.0, 1, 0.99)
    for t in (0, 1, 10, 19, 20, 31):
        np.testing.assert_allclose(both(t), cyclic(t, 0.1, 1.0, 10) * 0.99**t, rtol=1e-6)


def torch_path(make, steps, **settings):
    """Learning rate and momentum before each step of a training with torch's scheduler."""
    torch = pytest.importorskip("torch", reason="PyTorch is installed by the extra 'peers'")
    parameter = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], lr=1.0, momentum=0.5)
    scheduler = getattr(torch.optim.lr_scheduler, make)(optimizer, **settings)
    path = []
    for _ in range(steps):
        group = optimizer.param_groups[0]
        path.append((group["lr"], group["momentum"]))
        optimizer.step()
        scheduler.step()
    return np.array(path).T


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
def test_cyclic_equals_torch(mode):
    rates, momenta = torch_path("CyclicLR", 100, base_lr=0.1, max_lr=1.0, step_size_up=7,
                                mode=mode, gamma=0.97)  # fmt: skip
    ours = gdtx.cyclic_schedule(0.1, 1.0, 7, mode, 0.97)
    inverse = gdtx.cyclic_schedule(0.9, 0.8, 7, mode, 0.97)
    steps = jnp.arange(100)
    np.testing.assert_allclose(jax.vmap(ours)(steps), rates, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(inverse)(steps), momenta, rtol=1e-6)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("phases", [2, 3])
def test_one_cycle_equals_torch(kind, phases):
    """Torch ends at the step before its last and counts each phase from the step before it.

    So `total_steps` is ours and 1, and a rise of k steps is its share k + 1 of those. It has the
    third phase only for a rise as long as the fall.
    """
    n, rise = 60, 24
    settings = {"div_factor": 10.0, "final_div_factor": 100.0,
                "base_momentum": 0.8, "max_momentum": 0.9}  # fmt: skip
    rates, momenta = torch_path(
        "OneCycleLR", n + 1, max_lr=2.0, total_steps=n + 1, pct_start=(rise + 1) / (n + 1),
        anneal_strategy="cos" if kind == "cosine" else kind, three_phase=phases == 3, **settings,
    )  # fmt: skip
    rate, momentum = gdtx.one_cycle(
        2.0, n, rise / n, 2 * rise / n if phases == 3 else None, interpolate_type=kind, **settings
    )
    steps = jnp.arange(n + 1)
    np.testing.assert_allclose(jax.vmap(rate)(steps), rates, rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(jax.vmap(momentum)(steps), momenta, rtol=1e-6)


def test_one_cycle_of_the_paper():
    """As long up as down, momentum its mirror image, then the rate alone goes on to nothing."""
    rate, momentum = gdtx.one_cycle(3.0, 100)
    np.testing.assert_allclose([rate(0), rate(45), rate(90), rate(100), rate(10**9)],
                               [0.12, 3.0, 0.12, 1.2e-5, 1.2e-5], rtol=1e-6)  # fmt: skip
    heights = (rate - 0.12) / (3.0 - 0.12)
    for t in range(91):
        np.testing.assert_allclose(momentum(t), 0.95 - 0.1 * heights(t), rtol=1e-6)
        np.testing.assert_allclose(rate(t), rate(90 - t), rtol=1e-6)
    for t in (90, 95, 100, 2**31 - 1):
        assert momentum(t) == np.float32(0.95)


def test_one_cycle_trains():
    """Given to SGD as a pair, each step uses both values of its count."""
    rate, momentum = gdtx.one_cycle(0.5, 20, base_momentum=0.5, max_momentum=0.9)
    tx = gdtx.sgd(*gdtx.one_cycle(0.5, 20, base_momentum=0.5, max_momentum=0.9))
    assert tx == gdtx.sgd(learning_rate=rate, momentum=momentum)
    theta, state = jnp.asarray(1.0), tx.init(jnp.asarray(1.0))
    want, velocity = 1.0, 0.0
    for t in range(25):
        updates, state = tx.update(theta, state)
        theta = gdtx.apply_updates(theta, updates)
        velocity = float(momentum(t)) * velocity + want
        want -= float(rate(t)) * velocity
        np.testing.assert_allclose(theta, want, rtol=1e-4, atol=1e-7)


def test_sweeping_the_peak_of_one_cycle():
    def train(peak):
        tx = gdtx.sgd(*gdtx.one_cycle(peak, 10))

        def step(carry, _):
            theta, state = carry
            updates, state = tx.update(theta, state)
            return (gdtx.apply_updates(theta, updates), state), None

        theta = jnp.asarray(1.0)
        return jax.lax.scan(step, (theta, tx.init(theta)), length=10)[0][0]

    peaks = jnp.array([0.1, 0.3])
    one, batch = jax.jit(train), jax.jit(jax.vmap(train))
    np.testing.assert_allclose(batch(peaks), [one(peak) for peak in peaks], rtol=1e-5)
    slope = (one(0.301) - one(0.299)) / 0.002
    np.testing.assert_allclose(jax.jit(jax.grad(train))(0.3), slope, rtol=1e-2)


LINE = gdtx.linear_schedule(1.0, 0.0, 20)
CYCLE = gdtx.cyclic_schedule(0.5, 2.0, 7, "triangular2")


def plain(step):
    return 3.0 + 0.25 * step


def larger(one, other):
    return jnp.maximum(one, other)


# What an expression of schedules is at a step, and the same expression of their values.
LAWS = {
    "s1 + s2": (LINE + CYCLE, lambda t: LINE(t) + CYCLE(t)),
    "s1 - s2": (LINE - CYCLE, lambda t: LINE(t) - CYCLE(t)),
    "s1 * s2": (LINE * CYCLE, lambda t: LINE(t) * CYCLE(t)),
    "s1 / s2": (LINE / CYCLE, lambda t: LINE(t) / CYCLE(t)),
    "-s": (-CYCLE, lambda t: -CYCLE(t)),
    "s * 0.5": (CYCLE * 0.5, lambda t: CYCLE(t) * 0.5),
    "0.5 * s": (0.5 * CYCLE, lambda t: 0.5 * CYCLE(t)),
    "s / 3": (CYCLE / 3, lambda t: CYCLE(t) / 3),
    "1 / s": (1 / CYCLE, lambda t: 1 / CYCLE(t)),
    "1 - s": (1 - LINE, lambda t: 1 - LINE(t)),
    "s + 1": (LINE + 1, lambda t: LINE(t) + 1),
    "1 + s": (1 + LINE, lambda t: 1 + LINE(t)),
    "s - 1": (LINE - 1, lambda t: LINE(t) - 1),
    "s * 1": (CYCLE * 1, CYCLE),
    "s + 0": (CYCLE + 0, CYCLE),
    "s - s": (CYCLE - CYCLE, lambda t: 0.0),
    "s + f": (LINE + plain, lambda t: LINE(t) + plain(t)),
    "f + s": (plain + LINE, lambda t: plain(t) + LINE(t)),
    "f - s": (plain - LINE, lambda t: plain(t) - LINE(t)),
    "f * s": (plain * LINE, lambda t: plain(t) * LINE(t)),
    "f / s": (plain / CYCLE, lambda t: plain(t) / CYCLE(t)),
    "s * array": (LINE * jnp.array(0.5), lambda t: LINE(t) * 0.5),
    "array * s": (jnp.array(0.5) * LINE, lambda t: LINE(t) * 0.5),
    "NumPy's array * s": (np.array(0.5, np.float32) * LINE, lambda t: LINE(t) * 0.5),
    "NumPy's number * s": (np.float32(0.5) * LINE, lambda t: LINE(t) * 0.5),
    "shifted": (CYCLE.shift(5), lambda t: CYCLE(max(t - 5, 0))),
    "not shifted": (CYCLE.shift(0), CYCLE),
    "shifted back": (CYCLE.shift(-5), lambda t: CYCLE(min(t + 5, 2**31 - 1))),
    "clipped": (CYCLE.clip(0.6, 1.1), lambda t: np.clip(CYCLE(t), 0.6, 1.1)),
    "clipped from below": (CYCLE.clip(0.6), lambda t: max(CYCLE(t), np.float32(0.6))),
    "clipped from above": (CYCLE.clip(high=1.1), lambda t: min(CYCLE(t), np.float32(1.1))),
    "merged": (gdtx.merge_schedules(larger, LINE, CYCLE), lambda t: max(LINE(t), CYCLE(t))),
    "of sums": ((LINE + CYCLE).shift(3) * 2 - 1,
                lambda t: 2 * (LINE(max(t - 3, 0)) + CYCLE(max(t - 3, 0))) - 1),
}  # fmt: skip


@pytest.mark.parametrize("law", LAWS)
def test_expression_equals_its_values(law):
    expression, values = LAWS[law]
    assert isinstance(expression, gdtx.Schedule)
    for step in (0, 1, 2, 5, 6, 7, 8, 14, 15, 20, 21, 29, 10**9, 2**31 - 4, 2**31 - 1):
        value = expression(step)
        assert value.dtype == np.float32
        assert value.shape == ()
        np.testing.assert_allclose(value, values(step), rtol=1e-6, atol=1e-7)


def test_compiled_expressions_equal_their_values():
    """Of them all one program."""
    found = jax.jit(lambda step: {law: expression(step) for law, (expression, _) in LAWS.items()})
    for law, value in jax.device_get(found(11)).items():
        np.testing.assert_allclose(value, LAWS[law][1](11), rtol=1e-6, atol=1e-7, err_msg=law)


@pytest.mark.parametrize("law", LAWS)
def test_expressions_are_data(law):
    expression, _ = LAWS[law]
    assert pickle.loads(pickle.dumps(expression)) == expression
    assert copy.deepcopy(expression) == expression
    assert hash(copy.deepcopy(expression)) == hash(expression)
    if not jax.tree.leaves(expression):
        names = vars(gdtx) | {"plain": plain, "larger": larger}
        assert eval(repr(expression), names) == expression


def test_expressions_are_equal_as_their_parts_are():
    assert LINE + CYCLE == LINE + CYCLE
    assert LINE + CYCLE != CYCLE + LINE
    assert LINE + CYCLE != LINE - CYCLE
    assert LINE.shift(1) != LINE.shift(2)
    assert LINE.clip(0.1) != LINE.clip(0.2)
    assert len({LINE + CYCLE, LINE + CYCLE, LINE * CYCLE}) == 2


def test_arrays_of_numpy_stay_arrays():
    """NumPy would make a product with each of its numbers, and an array of those."""
    assert len(jax.tree.leaves(np.array(0.5, np.float32) * LINE)) == 1
    both = np.array([0.5, 2.0], np.float32) * LINE
    assert isinstance(both, gdtx.Schedule)
    np.testing.assert_array_equal(both(10), [0.25, 1.0])


def test_shift_on_steps_that_are_floats():
    assert float(LINE.shift(5)(jnp.float32(10.5))) == float(LINE(jnp.float32(5.5)))
    assert float(LINE.shift(-5)(jnp.float32(1.5))) == float(LINE(jnp.float32(6.5)))


def test_arrays_in_expressions_are_leaves():
    factor = jnp.asarray(0.5)
    schedule = (gdtx.linear_schedule(jnp.asarray(2.0), 0.0, 10) * factor).clip(jnp.asarray(0.1))
    assert [float(leaf) for leaf in jax.tree.leaves(schedule)] == [2.0, 0.5, np.float32(0.1)]
    gradient = jax.grad(lambda schedule: schedule(5))(schedule)
    # 2 / 2 times 0.5 is 0.5, above the bound of 0.1.
    assert [float(leaf) for leaf in jax.tree.leaves(gradient)] == [0.25, 1.0, 0.0]


def test_expressions_drive_a_transformation():
    tx = gdtx.sgd(0.5 * LINE, momentum=1 - LINE.clip(0.1))
    theta, state = jnp.asarray(1.0), tx.init(jnp.asarray(1.0))
    velocity = 0.0
    for t in range(5):
        updates, state = tx.update(theta, state)
        velocity = (1 - float(LINE(t))) * velocity + float(theta)
        np.testing.assert_allclose(updates, -0.5 * float(LINE(t)) * velocity, rtol=1e-5)


def test_a_schedule_joined_asks_no_part_outside_of_its_own_steps():
    """Where it may be undefined, and its derivative too."""

    def late(peak):
        return lambda t: peak * jnp.sqrt(1.0 * t)

    def early(peak):
        return lambda t: peak * jnp.sqrt(10.0 - t)

    def value(peak, step):
        return gdtx.join_schedules([early(peak), late(peak)], [10])(step)

    for step, want in [(0, math.sqrt(10)), (9, 1.0), (11, 1.0), (14, 2.0), (1000, math.sqrt(990))]:
        for got in (value(1.0, step), jax.grad(value)(1.0, step)):
            np.testing.assert_allclose(got, want, rtol=1e-6)


BAD = [
    ("cyclic_schedule", (0.0, 1.0, 0), "step_size must be a positive number of steps, got 0"),
    ("cyclic_schedule", (0.0, 1.0, 10, "sine"),
     "mode must be 'triangular' or 'triangular2' or 'exp_range', got 'sine'"),
    ("cyclic_schedule", (0.0, 1.0, 10, "exp_range", 0.0), "gamma must be positive, got 0.0"),
    ("cyclic_schedule", (math.nan, 1.0, 10), "base_value must be a finite number"),
    ("piecewise_interpolate_schedule", ("cubic", 1.0),
     "interpolate_type must be 'linear' or 'cosine', got 'cubic'"),
    ("piecewise_interpolate_schedule", ("linear", 1.0, {3: -1.0}),
     r"boundaries_and_scales\[3\] must be non-negative, got -1.0"),
    ("piecewise_interpolate_schedule", ("linear", 1.0, {-3: 1.0}),
     "boundaries_and_scales must not begin before step 0, got -3"),
    ("warmup_constant_schedule", (0.0, 1.0, -1), "warmup_steps must be a non-negative integer"),
    ("warmup_cosine_decay_schedule", (0.0, 1.0, 10, 10),
     "decay_steps must be larger than warmup_steps, got 10 and 10"),
    ("warmup_exponential_decay_schedule", (0.0, 1.0, 10, 10, -0.5), "decay_rate must be positive"),
    ("warmup_stable_decay_schedule", (0.0, 1.0, 1, 1, 1, 0.0, "cubic"),
     "decay_type must be 'linear' or 'cosine' or 'sqrt', got 'cubic'"),
    ("warmup_stable_decay_schedule", (0.0, 1.0, 1, -1, 1), "stable_steps must be a non-negative"),
    ("warmup_stable_decay_schedule", (0.0, 1.0, 1, 1, 0), "decay_steps must be a positive number"),
    ("inverse_sqrt_schedule", (0.0, 1.0, 0), "warmup_steps must be a positive number of steps"),
    ("sgdr_schedule", ([],), "cosine_kwargs must hold a dict per cycle, got none"),
    ("linear_onecycle_schedule", (100, 1.0, 0.8, 0.3),
     "pct_start must not be larger than pct_final, got 0.8 and 0.3"),
    ("linear_onecycle_schedule", (100, 1.0, 1.5), r"pct_start must be in \[0, 1\], got 1.5"),
    ("linear_onecycle_schedule", (0, 1.0), "transition_steps must be positive, got 0"),
    ("cosine_onecycle_schedule", (-1, 1.0), "transition_steps must be a non-negative integer"),
    ("cosine_onecycle_schedule", (100, 1.0, 0.3, 0.0), "div_factor must be positive"),
    ("onecycle_momentum_schedule", (100, 0.9, 1.0), r"max_momentum must be in \[0, 1\), got 1.0"),
    ("clip_schedule", (LINE, 0.5, 0.1), "low must not be larger than high, got 0.5 and 0.1"),
    ("shift_schedule", (LINE, 0.5), "steps must be an integer, got 0.5"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "args", "message"), BAD)
def test_bad_arguments(name, args, message):
    with pytest.raises(ValueError, match=f"^{name}: {message}"):
        getattr(gdtx, name)(*args)


def test_one_cycle_checks_its_arguments():
    with pytest.raises(ValueError, match=r"^one_cycle: interpolate_type must be 'linear' or 'co"):
        gdtx.one_cycle(1.0, 100, interpolate_type="cubic")
    with pytest.raises(ValueError, match=r"_momentum_schedule: base_momentum must be in \[0, 1\)"):
        gdtx.one_cycle(1.0, 100, base_momentum=1.5)
    with pytest.raises(
        ValueError, match=r"^linear_onecycle_schedule: pct_final must be in \[0, 1\], got 2.0"
    ):
        gdtx.one_cycle(1.0, 100, pct_final=2.0)


@pytest.mark.parametrize(
    "other", ["x", None, 1j, True, math.nan, jnp.array(True), jnp.array(1j)], ids=repr
)
def test_operands_that_are_no_terms(other):
    with pytest.raises(TypeError, match=r"^merge_schedules: other must be a finite number, a real"):
        LINE + other
