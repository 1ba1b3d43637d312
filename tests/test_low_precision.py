"""Parameters in half precision that do not stand still: master weights and stochastic rounding.

The oracle of a rounding is NumPy's cast of float32, and the neighbours of a number are those of
its bits. Numbers below the smallest normal float32 may count as 0 on a device.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from compilations import counted_compilations
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gdtx

HALVES = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
TINY = np.finfo(np.float32).tiny
by_half = pytest.mark.parametrize("half", HALVES)


def quiet():
    """NumPy would warn of overflow and NaN, which are meant to be there."""
    return np.errstate(over="ignore", under="ignore", invalid="ignore")


def every_number(half, kinds=12):
    """Each number of a format, and updates of many kinds for it."""
    rng = np.random.default_rng(0)
    bits = np.arange(2**16, dtype=np.uint16)
    p = bits.view(HALVES[half])
    with quiet():
        wide = p.astype(np.float32)
        size = np.where(np.isfinite(wide), np.abs(wide), 1) + TINY
        relative = rng.choice([-1, 1], (kinds, 2**16)) * 10.0 ** rng.uniform(-9, 3, (kinds, 2**16))
        updates = (size * relative).astype(np.float32)
        updates[0] = -wide  # to 0
        updates[1] = -wide * (1 - np.float32(2**-20))  # nearly
        updates[2] = rng.normal(size=2**16) * np.float32(10.0) ** rng.uniform(-38, 38, 2**16)
        updates[3] = rng.choice(np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 3e38, -3e38]), 2**16)
        updates[4] = np.nextafter(-wide, np.float32(0))
    return np.broadcast_to(p, updates.shape), updates


def neighbours(x, half):
    """The largest number of the format that is not above, the smallest that is not below."""
    dtype = HALVES[half]
    with quiet():
        nearest = x.astype(dtype)
        value = nearest.astype(np.float32)
        up = np.nextafter(nearest, dtype(np.inf)).astype(np.float32)
        down = np.nextafter(nearest, dtype(-np.inf)).astype(np.float32)
    return np.where(value > x, down, value), np.where(value < x, up, value), value


def applied(tx, state, p, u):
    """The new parameters and state, in one program, which is where excess precision would be."""

    def step(state, p, u):
        u, state = tx.update(u, state, p)
        assert u.dtype == jnp.float32
        return gdtx.apply_updates(p, u), state

    new, state = jax.jit(step)(state, jnp.asarray(p), jnp.asarray(u))
    return np.asarray(new).astype(np.float32), state


def seen(*arrays):
    """Whether all are numbers that a device tells from 0, or 0."""
    return np.all([~(np.abs(x) < TINY) | (x == 0) for x in map(np.float32, arrays)], axis=0)


def equal(a, b):
    return (a == b) | (np.isnan(a) & np.isnan(b))


# Stochastic rounding


@by_half
def test_new_parameters_are_neighbours_of_the_sum(half):
    p, u = every_number(half)
    tx = gdtx.stochastic_rounding()
    new, _ = applied(tx, tx.init(jnp.asarray(p)), p, u)
    with quiet():
        total = p.astype(np.float32) + u
        low, high, nearest = neighbours(total, half)
    largest = float(jnp.finfo(half).max)
    ordinary = seen(p, u, total) & (np.abs(total) < largest)
    assert ordinary.mean() > 0.5
    is_one = (new == low) | (new == high)
    assert np.all(is_one[ordinary])
    exact = ordinary & (low == high)
    assert exact.sum() > 1000
    # Both are taken, the farther one less often.
    taken = (new == nearest)[ordinary & ~exact]
    assert 0.7 < taken.mean() < 0.99
    # No upper neighbour to take a mean with, or no number at all.
    special = ~(np.abs(total) < largest)
    assert np.all(equal(new, nearest)[special])
    assert special.sum() > 1000
    # Too small for the device, which is wrong by no more.
    rest = ~ordinary & ~special
    assert np.all((low[rest] - 2 * TINY <= new[rest]) & (new[rest] <= high[rest] + 2 * TINY))


PLACES = {
    "bfloat16": [1.0, -1.0, 1.7, 3e-7, -6.2e-5, 3e4],
    # With 0 and others whose neighbours are at the distance of the smallest.
    "float16": [1.0, -1.0, 1.7, 3e-7, -6.2e-5, 3e4, 0.0],
}


@by_half
def test_rounding_is_unbiased(half):
    """A Bernoulli variable with the right mean, for fractions from 0 to 1."""
    number, fractions = 20_000, np.array([0, 2.0**-12, 0.01, 0.25, 0.5, 0.9, 1 - 2.0**-12, 1])
    p = np.repeat(np.asarray(PLACES[half], HALVES[half]), 2)
    ends = np.tile(np.asarray([np.inf, -np.inf], HALVES[half]), len(p) // 2)
    start = np.float32(p)[:, None]
    gaps = np.float32(np.nextafter(p, ends))[:, None] - start
    u = (fractions * gaps).astype(np.float32)
    # What float32 holds of the sum is what is rounded.
    want = (start + u - start) / gaps
    like = np.broadcast_to(p[:, None, None], (*u.shape, number))
    tx = gdtx.stochastic_rounding(seed=3)
    new, _ = applied(tx, tx.init(jnp.zeros(3)), like, np.broadcast_to(u[..., None], like.shape))
    moved = (new - start[..., None]) / gaps[..., None]
    assert set(np.unique(moved)) == {0.0, 1.0}
    error = 5 * np.sqrt(want * (1 - want) / number)
    assert np.all(np.abs(moved.mean(axis=-1) - want) <= error)


def test_numbers_are_rounded_independently():
    params = {"a": jnp.ones((2, 50_000), "bfloat16"), "b": jnp.ones(50_000, "float16")}
    u = {"a": jnp.full((2, 50_000), 2.0**-8), "b": jnp.full(50_000, 2.0**-11)}  # halfway
    tx = gdtx.stochastic_rounding()
    first, state = tx.update(u, tx.init(params), params)
    second, _ = tx.update(u, state, params)
    rows = np.concatenate([np.reshape(x, (-1, 50_000)) for x in jax.tree.leaves((first, second))])
    assert np.abs(np.corrcoef(rows) - np.eye(6)).max() < 5 / np.sqrt(50_000)


def test_rounding_is_independent_of_noise_with_the_same_seed():
    params = jnp.ones(100_000, "bfloat16")
    noise, rounding = gdtx.add_noise(1e-6, 0.0), gdtx.stochastic_rounding()
    added, _ = noise.update(jnp.zeros(100_000), noise.init(params))
    rounded, _ = rounding.update(jnp.full(100_000, 2.0**-8), rounding.init(params), params)
    assert abs(np.corrcoef(added, rounded)[0, 1]) < 5 / np.sqrt(100_000)


@pytest.mark.parametrize(
    "tx", [gdtx.stochastic_rounding(), gdtx.master_weights(gdtx.identity())], ids=repr
)
@by_half
def test_the_derivative_is_that_of_the_expectation(tx, half):
    def new(p, u):
        return gdtx.apply_updates(p, tx.update(u, tx.init(p), p)[0]).astype("float32")

    p, u = jnp.array([1.0, 1e-6, 0.0], half), jnp.array([1e-3, 3e-7, 0.0])
    _, tangent = jax.jit(lambda u, v: jax.jvp(lambda u: new(p, u), (u,), (v,)))(u, u + 1.01)
    np.testing.assert_allclose(tangent, u + 1.01, rtol=2 * float(jnp.finfo(half).eps))


def test_other_parameters_pass_unchanged(x64):
    params = {"f": jnp.ones(2), "d": jnp.ones(2, "float64"), "c": jnp.ones(2, "complex64")}
    params |= {"none": None, "empty": jnp.zeros((0, 3), "bfloat16"), "0-d": jnp.ones((), "float16")}
    u = jax.tree.map(lambda p: jnp.full_like(p, 2.0**-11, dtype=p.dtype), params)
    for tx in (gdtx.stochastic_rounding(), gdtx.master_weights(gdtx.identity())):
        updates, _ = tx.update(u, tx.init(params), params)
        for name in "fdc":
            assert updates[name] is u[name] or np.array_equal(updates[name], u[name])
            assert updates[name].dtype == params[name].dtype
        assert (updates["empty"].shape, updates["0-d"].shape) == ((0, 3), ())
        wide = u | {"0-d": jnp.ones((), "float64"), "empty": jnp.zeros((0, 3), "float64")}
        # 64-bit updates of parameters in half precision become none.
        assert tx.update(wide, tx.init(params), params)[0]["0-d"].dtype == "float32"


@pytest.mark.parametrize(
    "make", [gdtx.stochastic_rounding, lambda: gdtx.master_weights(gdtx.sgd(1))]
)
def test_errors(make):
    tx, params = make(), {"w": jnp.ones(2, "bfloat16")}
    name, state = tx.signature.name, tx.init(params)
    with pytest.raises(ValueError, match=f"^{name}: needs the parameters: call update"):
        tx.update(params, state)
    with pytest.raises(
        TypeError, match=rf"^{name}: updates\['w'\] is complex, its parameter is bf"
    ):
        tx.update({"w": jnp.ones(2, "complex64")}, state, params)
    with pytest.raises(ValueError, match=f"^{name}: the state is that of another"):
        tx.update(params, {}, params)


# Master weights


@by_half
def test_new_parameters_are_the_rounded_copies(half):
    p, u = every_number(half)
    tx = gdtx.master_weights(gdtx.identity())
    new, state = applied(tx, tx.init(jnp.asarray(p)), p, u)
    copies = np.asarray(state.params)
    with quiet():
        total = p.astype(np.float32) + u
        want = copies.astype(HALVES[half]).astype(np.float32)
    ordinary = seen(p, u, total)
    assert np.all(equal(copies, total)[ordinary])
    # From infinity there is no way back by adding.
    lost = np.isinf(np.float32(p)) & np.isfinite(want)
    assert not lost.any()
    assert np.all(equal(new, want)[ordinary])


@by_half
def test_copies_that_are_not_on_the_grid(half):
    """Steps from any float32 number, not only from where the format has one."""
    rng = np.random.default_rng(1)
    tx, p = gdtx.master_weights(gdtx.identity()), np.ones(200_000, HALVES[half])
    state, exact = tx.init(jnp.asarray(p)), np.ones(200_000, np.float32)
    step = jax.jit(lambda u, state, p: tx.update(u, state, p))
    for _ in range(5):
        scale = np.abs(exact) * 10.0 ** rng.uniform(-5, 2, p.size)
        u = (scale * rng.choice([-1, 1], p.size)).astype(np.float32).clip(-6e3, 6e3)
        updates, state = step(u, state, p)
        exact, p = exact + u, gdtx.apply_updates(p, updates)
        np.testing.assert_array_equal(state.params, exact)
        np.testing.assert_array_equal(np.asarray(p), exact.astype(HALVES[half]))


METHODS = {
    "sgd": lambda: gdtx.sgd(1e-4, momentum=0.9),
    "adamw": lambda: gdtx.adamw(gdtx.linear_schedule(1e-4, 1e-5, 50), weight_decay=10.0),
    "clipped": lambda: gdtx.chain(gdtx.clip_by_global_norm(1.0), gdtx.rmsprop(1e-4)),
}
WRAPPED = {
    "alone": gdtx.master_weights,
    "in a chain": lambda tx: gdtx.chain(gdtx.identity(), gdtx.master_weights(tx)),
    "masked": lambda tx: gdtx.masked(gdtx.master_weights(tx), dict.fromkeys(SHAPES, True)),
    "tunable outside": lambda tx: gdtx.tunable(gdtx.master_weights(tx)),
    "in conditionals": lambda tx: gdtx.skip_nonfinite(gdtx.remember(gdtx.master_weights(tx))),
    "to Optax and back": lambda tx: gdtx.chain(
        gdtx.identity(), gdtx.interop.to_optax(gdtx.master_weights(tx))
    ),
    "tunable inside": lambda tx: gdtx.master_weights(gdtx.tunable(tx)),
}
SHAPES = {"w": (3, 2), "b": (4,), "s": (1,)}


def start(dtype="bfloat16"):
    rng = np.random.default_rng(2)
    return {name: jnp.asarray(rng.normal(size=shape), dtype) for name, shape in SHAPES.items()}


def gradients(steps, dtype="bfloat16"):
    rng = np.random.default_rng(3)
    return {k: jnp.asarray(rng.normal(size=(steps, *v)), dtype) for k, v in SHAPES.items()}


def descend(tx, params, gs):
    def step(carry, g):
        params, state = carry
        updates, state = tx.update(g, state, params)
        return (gdtx.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, tx.init(params)), gs)[0]


@pytest.mark.parametrize(
    ("name", "wrapped"),
    [*((m, "alone") for m in METHODS), *(("sgd", w) for w in WRAPPED if w != "alone")],
)
def test_training_is_that_of_float32(name, wrapped):
    tx, params, gs = METHODS[name](), start(), gradients(50)
    wide = jax.tree.map(lambda p: p.astype("float32"), params)
    (halves, state), (singles, _) = jax.jit(
        lambda: (descend(WRAPPED[wrapped](tx), params, gs), descend(tx, wide, gs))
    )()
    copies = gdtx.find(state, "params")
    chex.assert_trees_all_close(copies, singles, rtol=1e-6)
    for leaf, copy in zip(jax.tree.leaves(halves), jax.tree.leaves(copies), strict=True):
        np.testing.assert_array_equal(leaf, np.asarray(copy).astype(ml_dtypes.bfloat16))


def test_only_halves_have_copies():
    params = start() | {"s": jnp.ones((), "float32"), "none": None, "h": jnp.ones(3, "float16")}
    tx = gdtx.master_weights(gdtx.sgd(0.1))
    state = tx.init(params)
    assert state.params["s"] is None
    assert state.params["none"] is None
    chex.assert_trees_all_equal_shapes({**state.params, "s": params["s"]}, params)
    table = gdtx.state_table(tx, params)
    assert {row.dtype for row in table.rows} == {"float32"}
    assert table.bytes == 4 * (3 * 2 + 4 + 3)
    adam = gdtx.state_table(gdtx.adam(0.1), start()).bytes
    assert gdtx.state_table(gdtx.master_weights(gdtx.adam(0.1)), start()).bytes == adam + 4 * 11
    rounding = gdtx.chain(gdtx.adam(0.1), gdtx.stochastic_rounding())
    assert gdtx.state_table(rounding, start()).bytes == adam + 4
    from_numpy = tx.init({"w": np.ones(3, ml_dtypes.bfloat16)})
    assert isinstance(from_numpy.params["w"], jax.Array)
    empty = gdtx.master_weights(gdtx.sgd(0.1))
    assert jax.tree.leaves(empty.init({"w": jnp.ones(3)})) == []
    assert empty.update({}, empty.init({}), {})[0] == {}


def test_numbers_changed_by_others_are_followed():
    tx = gdtx.master_weights(gdtx.sgd(1.0))
    params = jnp.array([1.0, 2.0, 3.0], "bfloat16")
    _, state = tx.update(jnp.full(3, 1e-3), tx.init(params), params)
    params = params.at[1].set(5.0)
    _, state = tx.update(jnp.full(3, 1e-3), state, params)
    np.testing.assert_allclose(state.params, [0.998, 4.999, 2.998], rtol=1e-6)


def test_hyperparameters_are_reached():
    tx = gdtx.master_weights(gdtx.sgd(gdtx.linear_schedule(0.5, 0.0, 10), momentum=0.9))
    state = tx.update(start(), tx.init(start()), start())[1]
    assert gdtx.hyperparams(tx, state)["inner.learning_rate"] == 0.45
    assert gdtx.describe(tx, state)["step"] == 1
    assert gdtx.replace(tx, {"inner.momentum": 0.5}).arguments["inner"].arguments["momentum"] == 0.5
    assert gdtx.latex(tx) == gdtx.latex(tx.arguments["inner"])
    assert eval(repr(gdtx.master_weights(gdtx.sgd(0.1))), vars(gdtx)) == gdtx.master_weights(
        gdtx.sgd(0.1)
    )
    rounded = gdtx.chain(gdtx.sgd(0.1), gdtx.stochastic_rounding())
    assert gdtx.latex(rounded).splitlines()[1] == (
        r"\theta_t &= \operatorname{SR}\left( \theta_{t-1} - \eta g_t \right)"
    )


def step(tx, params, state, g):
    updates, state = tx.update(g, state, params)
    return gdtx.apply_updates(params, updates), state


@pytest.mark.slow
def test_one_compilation_and_donation_on_any_devices():
    tx = gdtx.chain(gdtx.add_noise(0.01, 0.55), gdtx.master_weights(gdtx.sgd(0.1, 0.9)))
    specs = {"w": ("data", "model"), "b": (None,), "h": ("model",)}

    def train(put):
        params = {"w": jnp.ones((8, 4), "bfloat16"), "b": jnp.ones(4), "h": jnp.ones(8, "float16")}
        gs, params = put(jax.tree.map(jnp.ones_like, params)), put(params)
        jitted, state = jax.jit(functools.partial(step, tx), donate_argnums=(0, 1)), tx.init(params)
        for name in "wh":
            assert state[1].params[name].sharding == params[name].sharding
        born = described((params, state))
        with counted_compilations() as compilations:
            for _ in range(3):
                params, state = jitted(params, state, gs)
                assert described((params, state)) == born
        assert len(compilations) == 1
        return params, state

    want = train(lambda tree: tree)
    for axis_type in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(axis_type, axis_type))
        places = {k: NamedSharding(mesh, PartitionSpec(*spec)) for k, spec in specs.items()}
        set_mesh = jax.set_mesh if hasattr(jax, "set_mesh") else jax.sharding.use_mesh
        with set_mesh(mesh):
            got = train(lambda tree: jax.device_put(tree, places))  # noqa: B023
        chex.assert_trees_all_close(got, want, rtol=1e-6)


def described(tree):
    return jax.tree.map(lambda x: (x.dtype, x.weak_type, x.sharding, x.committed), tree)


# Both


@pytest.mark.first(1)
@by_half
def test_updates_below_half_a_unit_add_up(half):
    r"""10,000 updates of 2,000 parameters, none of which changes a parameter by itself.

    Rounding $\theta + u$ up with probability $r = u / d$, d the distance of the neighbours, adds
    an error of mean 0 and variance $d^2 r (1 - r) = u (d - u)$, given all before. Their sum is a
    martingale with the variance V of all; by Freedman's inequality it exceeds x with a
    probability of at most $2 \exp(-x^2 / (2 V + 2 d x / 3))$.
    """
    number, steps = 2000, 10_000
    rng = np.random.default_rng(4)
    p = (rng.choice([-1, 1], number) * 2 ** rng.uniform(-3, 3, number)).astype(HALVES[half])
    digits = jnp.finfo(half).nmant
    # Away from 0, so that distances never fall; to both sides half a unit is a quarter at least.
    rate = np.float32(p) * rng.uniform(0.02, 0.98, number) * 2.0 ** -(digits + 2)
    rate = rate.astype(np.float32)
    tx = gdtx.scale(-1.0)
    rounding = gdtx.chain(tx, gdtx.stochastic_rounding())
    copies = gdtx.master_weights(tx)

    def step(carry, factor):
        (plain, exact, kept, by_chance), (kept_state, chance_state), variance = carry
        g = -rate * factor
        plain, exact = (gdtx.apply_updates(x, tx.update(g, ())[0]) for x in (plain, exact))
        u, kept_state = copies.update(g, kept_state, kept)
        kept = gdtx.apply_updates(kept, u)
        _, exponent = jnp.frexp(by_chance.astype("float32"))
        distance = jnp.ldexp(1.0, exponent - 1 - digits)
        variance += jnp.abs(g) * (distance - jnp.abs(g))
        u, chance_state = rounding.update(g, chance_state, by_chance)
        by_chance = gdtx.apply_updates(by_chance, u)
        return ((plain, exact, kept, by_chance), (kept_state, chance_state), variance), None

    start = jnp.asarray(p)
    carry = ((start, start.astype("float32"), start, start),
             (copies.init(start), rounding.init(start)), jnp.zeros(number))  # fmt: skip
    factors = jnp.asarray(rng.uniform(0.5, 1, steps), "float32")
    (values, states, variance), _ = jax.jit(lambda: jax.lax.scan(step, carry, factors))()
    plain, exact, kept, by_chance = map(np.asarray, values)
    # Alone they are lost; they would move a parameter a hundred units and more.
    np.testing.assert_array_equal(plain, p)
    distance = np.abs(np.spacing(exact.astype(HALVES[half])).astype(np.float64))
    assert np.median(np.abs(exact - np.float32(p)) / distance) > 100
    # The copies are the float32 run.
    np.testing.assert_array_equal(states[0].params, exact)
    np.testing.assert_array_equal(kept, exact.astype(HALVES[half]))
    # Rounding by chance keeps to it: every parameter, their mean, and their spread.
    error, variance = by_chance.astype(np.float64) - exact, np.asarray(variance, np.float64)
    log = np.log(2 * number / 1e-6)
    bound = distance * log / 3 + np.sqrt((distance * log / 3) ** 2 + 2 * variance * log)
    assert np.all(np.abs(error) < bound)
    assert np.median(bound / np.abs(exact - np.float32(p))) < 0.5
    standard = error / np.sqrt(variance)
    assert abs(standard.mean()) < 5 / np.sqrt(number)
    assert abs((standard**2).mean() - 1) < 5 * np.sqrt(2 / number)
