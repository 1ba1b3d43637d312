"""reduce_on_plateau against Optax's, torch's and a plain loop, and as any other link."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax.contrib
import pytest
from compilations import counted_compilations

import gdtx

SETTINGS = [
    {},
    {"factor": 0.5, "patience": 3},
    {"factor": 0.5, "patience": 1},
    {"factor": 0.5, "patience": 2, "cooldown": 3},
    {"factor": 0.5, "patience": 1, "cooldown": 2},
    {"factor": 0.5, "patience": 2, "min_scale": 0.2},
    {"factor": 0.5, "patience": 2, "accumulation_size": 3},
    {"factor": 0.5, "patience": 2, "accumulation_size": 2, "cooldown": 1},
    {"factor": 0.9, "patience": 2, "rtol": 0.1},
    {"factor": 0.9, "patience": 2, "rtol": 0.0, "atol": 0.05},
]
NAN = float("nan")
SEQUENCES = {
    "falling": [1 / (1 + t) for t in range(60)],
    "flat": [1.0] * 60,
    "noisy": list(np.random.default_rng(0).uniform(0.5, 1.5, 60) + np.linspace(1, 0, 60)),
    "steps": [3.0] * 20 + [2.0] * 20 + [1.0] * 20,
    "NaN": [2.0, 1.0, NAN, NAN, NAN, NAN, 0.5, 0.4, NAN, *[0.4] * 10],
    "infinite": [math.inf] * 10 + [1.0] * 5,
    "negative": [0.5] * 5 + [-1.0] * 20 + [-1.00001] * 10 + [-2.0] * 5 + [-1.5] * 20,
    "negative, noisy": list(np.random.default_rng(1).uniform(-1.5, -0.5, 60)),
}


def is_positive(name):
    """The others take every value for an improvement on a negative one that is near it."""
    return not name.startswith("negative")


@jax.jit  # one program for all numbers
def with_arrays(tx, updates, state, value):
    return tx.update(updates, state, value=value)


@functools.cache
def compiled(library, settings):
    make = {"optax": optax.contrib.reduce_on_plateau}.get(library, gdtx.reduce_on_plateau)
    tx = make(**dict(settings))
    if library == "gdtx of arrays":
        tx = gdtx.as_arrays(tx)
        return tx.init, functools.partial(with_arrays, tx)
    return tx.init, jax.jit(tx.update)


def scales(library, settings, values):
    """The factors by which an update is scaled, one update per value."""
    init, update = compiled(library, tuple(settings.items()))
    state, factors = init(jnp.zeros(())), []
    for value in values:
        factor, state = update(jnp.ones(()), state, value=value)
        factors.append(float(factor))
    return factors


def plain(values, factor=0.1, patience=10, rtol=1e-4, atol=0.0, cooldown=0, accumulation_size=1,
          min_scale=0.0, mode="min"):  # fmt: skip
    """The rule in a loop, as its docstring says it."""
    best = math.inf if mode == "min" else -math.inf
    scale, bad, rest, collected = 1.0, 0, 0, []
    for value in values:
        collected.append(np.float32(value))
        if len(collected) == accumulation_size:
            mean, collected = np.mean(collected), []
            margin = (rtol * abs(best) if math.isfinite(best) else 0) + atol
            improved = mean < best - margin if mode == "min" else mean > best + margin
            best = mean if improved else best
            if rest:
                rest, bad = rest - 1, 0
            else:
                bad = 0 if improved else bad + 1
                if bad == patience:
                    scale, bad, rest = max(scale * factor, min_scale), 0, cooldown
        yield scale


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.diagonal
def test_trajectory(name, settings):
    values = SEQUENCES[name]
    ours = scales("gdtx", settings, values)
    np.testing.assert_allclose(ours, list(plain(values, **settings)), rtol=1e-6)
    if is_positive(name):
        np.testing.assert_array_equal(ours, scales("optax", settings, values))
    # More of it is better: the same, mirrored.
    largest = scales("gdtx of arrays", settings | {"mode": "max"}, [-value for value in values])
    np.testing.assert_array_equal(largest, ours)


def torch_scales(values, **settings):
    torch = pytest.importorskip("torch", reason="PyTorch is installed by the extra 'peers'")
    optimizer = torch.optim.SGD([torch.zeros(())], 1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, eps=0.0, **settings)
    for value in values:
        scheduler.step(value)
        yield scheduler.get_last_lr()[0]


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.diagonal
def test_as_torch(name, threshold_mode, mode):
    """Their patience counts the values that are let pass, ours includes the one that is not."""
    if threshold_mode == "rel" and not is_positive(name):
        pytest.skip("torch's relative threshold is below a negative best value")
    common = {"factor": 0.5, "cooldown": 2, "mode": mode}
    theirs = torch_scales(
        SEQUENCES[name], patience=3, threshold=0.05, threshold_mode=threshold_mode, min_lr=0.1,
        **common,
    )  # fmt: skip
    threshold = {"rel": {"rtol": 0.05}, "abs": {"rtol": 0.0, "atol": 0.05}}[threshold_mode]
    settings = common | {"patience": 4, "min_scale": 0.1} | threshold
    ours = scales("gdtx of arrays", settings, SEQUENCES[name])
    np.testing.assert_allclose(ours, list(theirs), rtol=1e-6)


@pytest.mark.parametrize(("mode", "values"), [
    ("min", [-1.0, -1.0]), ("min", [-1.0, -0.9]), ("max", [-1.0, -1.0]), ("max", [1.0, 1.0]),
    ("max", [-1.0, -1.1]), ("min", [0.0, 0.0]), ("max", [0.0, 0.0]),
])  # fmt: skip
def test_a_value_that_is_no_better_is_no_improvement(mode, values):
    assert scales("gdtx", {"factor": 0.5, "patience": 1, "mode": mode}, values) == [1.0, 0.5]


def test_the_table_reduces():
    """Not every sequence may leave the factor at 1, or the comparison would say nothing."""
    reduced = [
        min(plain(values, **settings)) < 1 for values in SEQUENCES.values() for settings in SETTINGS
    ]
    assert 0.4 < np.mean(reduced) < 1


def test_order_of_arguments_is_optax():
    ours = gdtx.reduce_on_plateau(0.5, 2, 1e-3, 0.1, 3, 4, 0.2).arguments
    assert dict(ours) == {"factor": 0.5, "patience": 2, "rtol": 1e-3, "atol": 0.1, "cooldown": 3,
                          "accumulation_size": 4, "min_scale": 0.2, "mode": "min"}  # fmt: skip


@pytest.mark.diagonal
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.complex64])
@pytest.mark.parametrize(
    "value",
    [1, 1.0, np.float64(1), np.float32(1), jnp.float32(1), jnp.bfloat16(1), jnp.asarray(1)],
    ids=lambda value: f"{type(value).__name__}-{getattr(value, 'dtype', '')}",
)
def test_state_stays_as_it_is(dtype, value):
    tx = gdtx.reduce_on_plateau(0.5, 1, cooldown=2, accumulation_size=2)
    params = {"a": jnp.ones(3, dtype), "b": jnp.ones((), dtype)}
    state = tx.init(params)
    signature = jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), state)
    assert state.scale.dtype == np.float32
    traced = functools.partial(jax.eval_shape, tx.update)
    for update in (tx.update, traced):
        updates, new = update(params, state, params, value=value)
        assert jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), new) == signature
        assert updates["a"].dtype == dtype


def test_float64_stays_and_brings_none_of_it(x64):
    tx = gdtx.reduce_on_plateau(jnp.asarray(0.5, jnp.float64), 1, cooldown=2.0)
    for dtype in (jnp.float32, jnp.float64):
        params = jnp.ones(2, dtype)
        updates, state = tx.update(params, tx.init(params), value=jnp.asarray(2.0, jnp.float64))
        assert updates.dtype == dtype
        assert {leaf.dtype.name for leaf in state} == {"float32", "int32"}


def test_scan_and_donation_and_one_compilation():
    tx = gdtx.reduce_on_plateau(0.5, 2)
    values = jnp.asarray(SEQUENCES["steps"])
    params = jnp.zeros(3)

    def body(state, value):
        updates, state = tx.update(jnp.ones(3), state, params, value=value)
        return state, updates[0]

    _, scanned = jax.lax.scan(body, tx.init(params), values)
    step = jax.jit(lambda state, value: body(state, value), donate_argnums=0)
    values = list(values)
    state, factor = step(tx.init(params), values[0])
    looped = [factor]
    with counted_compilations() as compilations:
        for value in values[1:]:
            state, factor = step(state, value)
            looped.append(factor)
    assert compilations == []
    np.testing.assert_array_equal(scanned, jnp.stack(looped))


@pytest.mark.slow
@pytest.mark.parametrize("cooldown", [0, 2])
def test_many_updates_in_one_program(cooldown):
    """Unrolled, their scalars are one kernel, which a compiler once failed to build."""
    settings = {"factor": 0.5, "patience": 2, "cooldown": cooldown}
    values = SEQUENCES["steps"][:30]

    def factors(patience, values):
        tx = gdtx.reduce_on_plateau(**settings | {"patience": patience})
        state, found = tx.init(jnp.zeros(())), []
        for i in range(30):
            update, state = tx.update(jnp.ones(()), state, value=values[i])
            found.append(update)
        return jnp.stack(found)

    want = list(plain(values, **settings))
    np.testing.assert_allclose(jax.jit(factors)(2, jnp.asarray(values)), want)
    batch = jax.jit(jax.vmap(factors, (0, None)))(jnp.array([2, 2]), jnp.asarray(values))
    np.testing.assert_allclose(batch, [want, want])


def test_at_the_end_of_a_chain():
    tx = gdtx.chain(gdtx.adam(0.1), gdtx.reduce_on_plateau(0.5, 1))
    adam = gdtx.adam(0.1)
    params = {"w": jnp.ones(3)}
    state, plain_state = tx.init(params), adam.init(params)
    for want in (1.0, 0.5, 0.25):
        updates, state = tx.update(params, state, params, value=1.0)
        alone, plain_state = adam.update(params, plain_state, params)
        chex.assert_trees_all_close(updates, jax.tree.map(lambda u, w=want: u * w, alone))


def test_sweep_of_patience():
    def last(patience):
        tx = gdtx.reduce_on_plateau(0.5, patience)

        def body(state, value):
            update, state = tx.update(jnp.ones(()), state, value=value)
            return state, update

        return jax.lax.scan(body, tx.init(jnp.zeros(())), jnp.ones(12))[1][-1]

    patience = jnp.array([1, 2, 5])
    # The first value improves on infinity, the other 11 do not.
    np.testing.assert_allclose(jax.jit(jax.vmap(last))(patience), [0.5**11, 0.5**5, 0.5**2])


def test_empty_tree():
    tx = gdtx.reduce_on_plateau()
    assert tx.update({}, tx.init({}), value=1.0)[0] == {}


def test_optax_takes_a_plateau_below_zero_for_improvement():
    """Which is why it is no oracle of negative values."""
    assert scales("optax", {"factor": 0.5, "patience": 1}, [-1.0] * 5) == [1.0] * 5


BAD = [
    ({"factor": 0.0}, r"factor must be in \(0, 1\), got 0.0"),
    ({"factor": 1.0}, r"factor must be in \(0, 1\), got 1.0"),
    ({"patience": 0}, "patience must be at least 1, got 0"),
    ({"rtol": 1.0}, r"rtol must be in \[0, 1\), got 1.0"),
    ({"atol": -0.1}, "atol must be a non-negative finite number, got -0.1"),
    ({"cooldown": -1}, "cooldown must be a non-negative finite number, got -1"),
    ({"accumulation_size": 0}, "accumulation_size must be at least 1, got 0"),
    ({"min_scale": 1.5}, r"min_scale must be in \[0, 1\], got 1.5"),
    ({"mode": "maximum"}, "mode must be 'min' or 'max', got 'maximum'"),
]


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_bad_arguments(settings, message):
    with pytest.raises(ValueError, match=f"^reduce_on_plateau: {message}"):
        gdtx.reduce_on_plateau(**settings)


def test_bad_values():
    tx = gdtx.reduce_on_plateau()
    state = tx.init(jnp.zeros(()))
    with pytest.raises(TypeError, match=r"^reduce_on_plateau.* needs the extra argument 'value'"):
        tx.update(jnp.ones(()), state)
    with pytest.raises(TypeError, match=r"^reduce_on_plateau: value must be a number, got None"):
        tx.update(jnp.ones(()), state, value=None)
    with pytest.raises(ValueError, match=r"value must be a real scalar, got an array of shape \(2"):
        tx.update(jnp.ones(()), state, value=jnp.ones(2))
    with pytest.raises(ValueError, match=r"value must be a real scalar, got an array .* complex64"):
        tx.update(jnp.ones(()), state, value=1j)
    with pytest.raises(ValueError, match=r"expected a PlateauState, got"):
        tx.update(jnp.ones(()), (), value=1.0)
