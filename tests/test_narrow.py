"""Narrow numbers that move as they should: float8 parameters, and buffers of slow averages.

The oracle of a rounding is NumPy's cast of float32; the neighbours of a number are looked up among
all numbers of the format.
"""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gdtx

NUMBERS = 4000
# The others differ from these by their exponents' range alone.
FLOAT8 = ["float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz"] + [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("float8_e4m3", "float8_e3m4", "float8_e4m3fnuz", "float8_e5m2fnuz")
]
by_float8 = pytest.mark.parametrize("dtype", FLOAT8)


def finite(dtype):
    """All finite numbers of a format, in order."""
    every = np.arange(256, dtype=np.uint8).view(getattr(ml_dtypes, dtype)).astype(np.float32)
    return np.unique(every[np.isfinite(every)])


def steps(dtype):
    """Parameters and updates that lead to numbers, between them, halfway, and out of range."""
    rng = np.random.default_rng(0)
    grid = finite(dtype)
    p, goal = rng.choice(grid, (2, NUMBERS))
    size = np.exp(rng.uniform(np.log(grid[grid > 0][0] / 4), np.log(4 * grid[-1]), NUMBERS))
    halfway = (grid[1:] + grid[:-1])[rng.integers(len(grid) - 1, size=NUMBERS)] / 2
    kind = rng.integers(4, size=NUMBERS)
    goal = np.select([kind == 0, kind == 1], [goal, halfway], size * rng.choice([-1, 1], NUMBERS))
    u = np.where(kind == 3, size, goal - p).astype(np.float32)
    return p, u


def applied(tx, p, u, dtype):
    def step(p, u):
        u, _ = tx.update(u, tx.init(p), p)
        return gdtx.apply_updates(p, u)

    with np.errstate(all="ignore"):
        return np.asarray(jax.jit(step)(p.astype(getattr(ml_dtypes, dtype)), u)).astype(np.float32)


@by_float8
def test_float8_parameters_are_their_copies_rounded(dtype):
    p, u = steps(dtype)
    with np.errstate(all="ignore"):
        want = (p + u).astype(getattr(ml_dtypes, dtype)).astype(np.float32)
    assert 0.02 < np.mean(~np.isfinite(want)) < 0.5
    np.testing.assert_array_equal(applied(gdtx.master_weights(gdtx.identity()), p, u, dtype), want)


@by_float8
def test_float8_parameters_are_rounded_by_chance_to_a_neighbour(dtype):
    p, u = steps(dtype)
    grid, total = finite(dtype), p + u
    new = applied(gdtx.stochastic_rounding(), p, u, dtype)
    low = grid[np.clip(np.searchsorted(grid, total, "right") - 1, 0, None)]
    high = grid[np.clip(np.searchsorted(grid, total), None, len(grid) - 1)]
    inside = np.abs(total) <= grid[-1]
    assert np.all(((new == low) | (new == high))[inside])
    assert np.all((new == total)[inside & (low == high)])
    between = inside & (low != high)
    # Of all together the error has the mean 0: the variance of one is (x - low) (high - x).
    new, total, low, high = (x[between] for x in (new, total, low, high))
    error, share = (new - total) / (high - low), (total - low) / (high - low)
    assert abs(error.sum()) < 5 * np.sqrt(np.sum(share * (1 - share)))
    assert np.mean(np.abs(error) > 0.5) > 0.1


def test_float8_trains():
    """Copies, chance, and neither: the last stands still where steps are below half a unit."""

    def distance(tx):
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(params, state, params)
            return (gdtx.apply_updates(params, updates), state), None

        params = jnp.linspace(0.5, 1.0, 256).astype("float8_e4m3fn")
        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=400)
        return jnp.mean(jnp.abs(params.astype("float32")))

    sgd = gdtx.sgd(0.01)
    makes = {
        "neither": sgd,
        "copies": gdtx.master_weights(sgd),
        "chance": gdtx.chain(sgd, gdtx.stochastic_rounding()),
        "skipping": gdtx.skip_nonfinite(gdtx.remember(gdtx.master_weights(sgd))),
    }
    found = jax.jit(lambda: {name: distance(tx) for name, tx in makes.items()})()
    assert found["neither"] > 0.7
    for name in ("copies", "chance", "skipping"):
        np.testing.assert_allclose(found[name], 0.75 * 0.99**400, rtol=0.3, err_msg=name)


# Buffers


def second_moment(dtype, counts):
    links = [gdtx.square(), gdtx.ema(0.999, dtype=dtype)]
    return gdtx.chain(*links, *([gdtx.bias_correction(0.999)] if counts else []))


@pytest.mark.first(1)
@pytest.mark.parametrize("counts", [True, False], ids=["counted", "without a count"])
def test_steps_after_a_fall_of_the_gradients_are_those_of_float32(counts):
    """A hundredfold. To the nearest, bfloat16 moves by nothing at all: steps stay at 0.03 of them.

    For gradients of chance, such that stay as they are, and rows that seldom have any.
    """
    shape = (64, 3)
    size = jnp.stack([jnp.ones(64), jnp.linspace(0.5, 2.0, 64), jnp.ones(64)], axis=1)

    def gradients(t):
        key = jax.random.fold_in(jax.random.key(0), t)
        noise = jax.random.normal(key, shape)
        seldom = (t + jnp.arange(64)) % 64 == 0
        kinds = [noise[:, 0], jnp.ones(64), jnp.where(seldom, 8.0, 0.0)]
        return size * jnp.stack(kinds, axis=1) * jnp.where(t < 2000, 1.0, 0.01)

    narrow, wide = (second_moment(dtype, counts) for dtype in ("bfloat16", None))

    def step(carry, t):
        pairs = zip((narrow, wide), carry, strict=True)
        return tuple(tx.update(gradients(t), state)[1] for tx, state in pairs), None

    first = tuple(tx.init(jnp.zeros(shape)) for tx in (narrow, wide))
    states, _ = jax.jit(lambda: jax.lax.scan(step, first, jnp.arange(9000)))()
    v, exact = (np.asarray(gdtx.find(state, "value")).astype(np.float64) for state in states)
    ratio = np.sqrt(exact / v)
    assert np.all((ratio.mean(axis=0) > 0.9) & (ratio.mean(axis=0) < 1.35)), ratio.mean(axis=0)
    assert np.all(ratio.std(axis=0) < 0.2)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("counts", [True, False], ids=["counted", "without a count"])
def test_buffers_are_rounded_without_a_bias(dtype, counts):
    """Each share of the distance from a number to the next is the share that goes there."""
    number, shares = 20_000, np.array([0, 0.01, 0.25, 0.5, 0.9, 1], np.float32)
    gap = float(jnp.finfo(dtype).eps)
    values = jnp.broadcast_to(1 + gap * shares[:, None], (len(shares), number))
    tx = gdtx.chain(gdtx.latest(dtype), *([gdtx.wait(0)] if counts else []))
    _, state = tx.update(values, tx.init(values))
    kept = np.asarray(gdtx.find(state, "value").astype("float32"))
    taken = (kept - 1) / gap
    assert set(np.unique(taken)) == {0.0, 1.0}
    error = 5 * np.sqrt(shares * (1 - shares) / number)
    assert np.all(np.abs(taken.mean(axis=1) - shares) <= error)
    # Numbers in one place go different ways at different times.
    _, state = tx.update(values, state)
    again = (np.asarray(gdtx.find(state, "value").astype("float32")) - 1) / gap
    assert abs(np.corrcoef(taken[3], again[3])[0, 1]) < 5 / np.sqrt(number)


def run(tx, first, gradients):
    state = tx.init(first)
    for g in gradients:
        _, state = tx.update(g, state)
    return gdtx.find(state, "value")


@pytest.mark.slow
def test_buffers_are_the_same_in_every_program_and_on_any_devices():
    """All is exact in float32 here, so that programs differ in the order of operations alone."""
    rng = np.random.default_rng(0)
    gradients = [jnp.asarray(rng.integers(-99, 99, (16, 8)), jnp.float32) for _ in range(4)]
    set_mesh = jax.set_mesh if hasattr(jax, "set_mesh") else jax.sharding.use_mesh
    counted = gdtx.chain(gdtx.ema(0.5, dtype="bfloat16"), gdtx.wait(0))
    for tx in (counted, gdtx.ema(0.5, dtype="bfloat16")):
        want = run(tx, gradients[0], gradients)
        with jax.disable_jit():
            np.testing.assert_array_equal(run(tx, gradients[0], gradients), want)
        for kind in (AxisType.Auto, AxisType.Explicit):
            mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(kind, kind))
            put = lambda x, mesh=mesh: jax.device_put(  # noqa: E731
                x, NamedSharding(mesh, PartitionSpec("a", "b"))
            )
            placed = list(map(put, gradients))
            with set_mesh(mesh):
                got = jax.jit(lambda *gs, tx=tx: run(tx, gs[0], gs))(*placed)
            np.testing.assert_array_equal(got, want)


def test_stacks_of_symmetric_matrices_stay_symmetric():
    x = jax.random.normal(jax.random.key(0), (2, 3, 8, 8))
    x = x + jnp.swapaxes(x, -1, -2)
    kept = run(gdtx.ema(0.75, dtype="bfloat16"), x, [x, x]).astype("float32")
    np.testing.assert_array_equal(kept, jnp.swapaxes(kept, -1, -2))
    assert not np.array_equal(kept, (0.4375 * x).astype("bfloat16").astype("float32"))


def test_a_wide_buffer_costs_nothing_more():
    x = jnp.zeros(3)
    program = str(jax.make_jaxpr(lambda x: run(gdtx.ema(0.9), x, [x]))(x))
    assert not any(op in program for op in ("xor", "shift", "bitcast", "iota"))
    narrow = gdtx.ema(0.9, dtype="bfloat16")
    assert "xor" in str(jax.make_jaxpr(lambda x: run(narrow, x, [x]))(x))


def test_the_derivative_of_a_narrow_buffer_is_that_of_a_wide_one():
    def last(u, dtype):
        return jnp.sum(run(gdtx.ema(0.75, dtype=dtype), u, [u, u]).astype("float32"))

    u = jnp.array([0.3, -2.0])
    np.testing.assert_allclose(jax.grad(last)(u, "bfloat16"), jax.grad(last)(u, None), rtol=1e-2)
