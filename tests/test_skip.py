"""Steps that are skipped leave no trace: compared as integers, bit by bit."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import gdtx

CASES, STEPS = 1000, 8
SHAPES = {"w": (8, 4), "b": (4,), "s": ()}
# The counts, moments and schedules of all kinds of links are behind these.
TX = gdtx.chain(
    gdtx.clip_by_global_norm(1.0),
    gdtx.join(gdtx.plus, adam=gdtx.scale_by_adam(), momentum=gdtx.trace(0.9)),
    gdtx.scale_by_learning_rate(gdtx.linear_schedule(0.1, 0.0, 50)),
)


def bits(tree):
    """Every number as the integer with the same bits: NaN equals NaN, and -0.0 is not 0.0."""
    return jax.tree.map(lambda x: jax.lax.bitcast_convert_type(x, jnp.int32), tree)


def same(one, other):
    equal = [jnp.all(a == b) for a, b in zip(*map(jax.tree.leaves, map(bits, (one, other))),
                                             strict=True)]  # fmt: skip
    return jnp.all(jnp.stack(equal))


def start(seed=0):
    rng = np.random.default_rng(seed)
    params = {key: rng.normal(size=shape).astype(np.float32) for key, shape in SHAPES.items()}
    params["b"][:2] = [-0.0, 0.0]
    return params


def draw(seed):
    """Gradients of all cases and steps, which of them are bad, and what is seen of each."""
    rng = np.random.default_rng(seed)
    gradients = {name: rng.normal(size=(CASES, STEPS, *shape)).astype(np.float32)
                 for name, shape in SHAPES.items()}  # fmt: skip
    seen = {name: g.copy() for name, g in gradients.items()}
    bad = rng.random((CASES, STEPS)) < 0.3
    for at in zip(*np.nonzero(bad), strict=True):
        name = rng.choice(list(SHAPES))
        place = tuple(rng.integers(size) for size in SHAPES[name])
        seen[name][at + place] = rng.choice([np.nan, np.inf, -np.inf])
    return gradients, bad, seen


def one_case(tx, case):
    """Whether each bad step changed no bit and was counted, each good one did, and parameters and
    inner state are at the end those of a run that never saw the bad ones."""

    def step(carry, inputs):
        params, state, clean, clean_state, intact = carry
        g, bad, seen = inputs
        updates, new_state = tx.update(seen, state, params)
        new = gdtx.apply_updates(params, updates)
        intact &= same((new, new_state.inner), (params, state.inner)) == bad
        # In a conditional as well: without one, compilers may round product and sum at once.
        updates, clean_state = jax.lax.cond(
            bad,
            lambda: (jax.tree.map(jnp.negative, jax.tree.map(jnp.zeros_like, g)), clean_state),
            lambda: TX.update(g, clean_state, clean),
        )
        return (new, new_state, gdtx.apply_updates(clean, updates), clean_state, intact), None

    params = jax.tree.map(jnp.asarray, start())
    carry = (params, tx.init(params), params, TX.init(params), jnp.asarray(True))
    params, state, clean, clean_state, intact = jax.lax.scan(step, carry, case)[0]
    as_without = same((params, state.inner), (clean, clean_state))
    return intact & (state.skipped == case[1].sum()), as_without


def test_a_thousand_cases():
    """One after the other, and some in a batch, where both branches run and one is chosen."""
    cases = draw(0)
    case = functools.partial(one_case, gdtx.skip_nonfinite(TX))
    intact, as_without = jax.jit(lambda cases: jax.lax.map(case, cases))(cases)
    assert intact.all()
    assert as_without.all()
    # Good steps of a batch are rounded as the compiler likes, in each run otherwise.
    some = jax.tree.map(lambda x: x[:100], cases)
    assert jax.jit(jax.vmap(case))(some)[0].all()


def test_the_comparison_sees_one_bit():
    one = {"a": jnp.zeros(3)}
    assert same(one, {"a": jnp.zeros(3)})
    assert not same(one, {"a": -jnp.zeros(3)})
    assert not same({"a": jnp.ones(3)}, {"a": jnp.nextafter(jnp.ones(3), 2)})


@pytest.mark.parametrize("device", range(8))
def test_poison_on_one_of_eight_devices(device):
    """The shard of one device is bad; all of them leave the step out."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    placed = NamedSharding(mesh, PartitionSpec("x"))
    tx = gdtx.skip_nonfinite(TX)
    params = jax.device_put({"w": np.ones((8, 4), np.float32)}, placed)
    state, step = tx.init(params), sharded_step(tx)
    good = jax.device_put({"w": np.full((8, 4), 0.5, np.float32)}, placed)
    value = [np.nan, np.inf, -np.inf][device % 3]
    shards = [np.full((1, 4), value if i == device else 0.5, np.float32) for i in range(8)]
    bad = {"w": jax.make_array_from_callback((8, 4), placed, lambda i: shards[i[0].start])}
    assert [not np.isfinite(s.data).all() for s in bad["w"].addressable_shards] == [
        i == device for i in range(8)
    ]
    params, state = step(params, state, good)
    new, new_state = step(params, state, bad)
    assert same((new, new_state.inner), (params, state.inner))
    assert new["w"].sharding.is_equivalent_to(placed, 2)
    assert (new_state.skipped, new_state.consecutive) == (1, 1)
    new, new_state = step(new, new_state, good)
    assert not same(new, params)
    assert (new_state.skipped, new_state.consecutive) == (1, 0)


@functools.cache
def sharded_step(tx):
    @jax.jit
    def step(params, state, g):
        updates, state = tx.update(g, state, params)
        return gdtx.apply_updates(params, updates), state

    return step


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16, jnp.complex64])
def test_no_change_is_minus_zero(dtype):
    tx = gdtx.skip_nonfinite(gdtx.sgd(0.1))
    params = jnp.array([-0.0, 0.0, 1.0], dtype)
    updates, _ = tx.update(params * jnp.nan, tx.init(params), params)
    numbers = np.stack([np.real(updates), np.imag(updates)]).astype(np.float32)
    assert np.signbit(numbers if dtype == jnp.complex64 else numbers[:1]).all()
    new = gdtx.apply_updates(params, updates)
    np.testing.assert_array_equal(np.asarray(new).view(np.uint8), np.asarray(params).view(np.uint8))


def run(tx, values):
    params = jnp.array([1.0, 2.0])
    state, steps = tx.init(params), []
    jitted = jax.jit(tx.update)
    for value in values:
        updates, state = jitted(jnp.array([value, 1.0]), state, params)
        steps.append((updates, state))
    return steps


def test_after_too_many_in_a_row_it_shows():
    nan = float("nan")
    values = [1.0, nan, nan, 1.0, nan, nan, nan, nan, 1.0]
    steps = run(gdtx.skip_nonfinite(TX, max_consecutive=2), values)
    shown = [bool(jnp.isnan(updates).all()) for updates, _ in steps]
    assert shown == [False] * 6 + [True, True, False]
    assert [int(s.consecutive) for _, s in steps] == [0, 1, 2, 0, 1, 2, 3, 4, 0]
    assert steps[-1][1].skipped == 6
    # The state is the last good one all the while, and the run could go on from it.
    assert same(steps[3][1].inner, steps[7][1].inner)
    chex.assert_tree_all_finite(steps[-1])
    assert not any(jnp.isnan(u).any() for u, _ in run(gdtx.skip_nonfinite(TX), values))
    first, _ = run(gdtx.skip_nonfinite(TX, max_consecutive=0), [nan])[0]
    assert jnp.isnan(first).all()


def test_counts_stay_at_the_largest():
    tx = gdtx.skip_nonfinite(gdtx.sgd(0.1))
    top = jnp.asarray(2**31 - 1, jnp.int32)
    _, state = tx.update(jnp.array([jnp.nan]), gdtx.states.SkipState(top, top, ()))
    assert (state.skipped, state.consecutive) == (top, top)


def test_large_ones_are_skipped():
    tx = gdtx.skip_large(gdtx.sgd(1.0), 5.0)
    for value, taken in ((3.0, True), (4.9, False), (jnp.inf, False), (jnp.nan, False)):
        updates, state = tx.update(jnp.array([value, 4.0]), tx.init(jnp.zeros(2)))
        assert bool(state.skipped == 0) == taken
        assert bool((updates == 0).all()) != taken
    # A finite norm beyond the range of the dtype is large and not infinite; so is any bound.
    tx = gdtx.skip_large(gdtx.sgd(1.0), float("inf"))
    for value, skipped in ((3e38, 0), (jnp.inf, 1)):
        assert tx.update(jnp.full(4, value), tx.init(jnp.zeros(4)))[1].skipped == skipped


def test_bound_may_be_an_array_or_a_schedule():
    def skipped(bound):
        tx = gdtx.skip_large(gdtx.sgd(1.0), bound)
        return tx.update(jnp.ones(1), tx.init(jnp.zeros(1)))[1].skipped

    np.testing.assert_array_equal(jax.vmap(skipped)(jnp.array([0.5, 2.0])), [1, 0])
    tx = gdtx.skip_large(gdtx.adam(0.1), gdtx.piecewise_constant_schedule(2.0, {1: 0.25}))
    assert [int(s.inner.skipped) for _, s in run(tx, [1.0, 1.0])] == [0, 1]


@pytest.mark.parametrize("is_bad", [lambda u: 1.0, lambda u: u > 0, lambda u: None, lambda u: u[0]])
def test_is_bad_must_say_yes_or_no(is_bad):
    tx = gdtx.skip_when(gdtx.sgd(0.1), is_bad)
    with pytest.raises(TypeError):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))


def test_errors_name_what_is_wrong():
    tx = gdtx.skip_when(gdtx.sgd(0.1), lambda u: u > 0)
    with pytest.raises(TypeError, match=r"^skip_when: is_bad must return a boolean scalar, got an"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
    with pytest.raises(ValueError, match="skip_large: max_norm must be positive, got 0"):
        gdtx.skip_large(gdtx.sgd(0.1), 0)
    with pytest.raises(ValueError, match="max_consecutive must be a non-negative integer, got -1"):
        gdtx.skip_nonfinite(gdtx.sgd(0.1), -1)
    tx = gdtx.skip_nonfinite(gdtx.sgd(0.1, momentum=0.5))
    state = gdtx.states.SkipState(jnp.int32(0), jnp.int32(0), ((), ()))
    with pytest.raises(ValueError, match=r"^skip_nonfinite > sgd > trace: the state is that of"):
        tx.update(jnp.ones(2), state)
