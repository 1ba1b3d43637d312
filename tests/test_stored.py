"""States in eight bits train as those in float32, and what must be exact stays as it is."""

import contextlib
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everything import EVERY
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gdtx
from gdtx.core.trees import eight_bits
from gdtx.states import EightBits

RNG = np.random.default_rng(0)
PARAMS = {"b": jnp.zeros(7), "w": jnp.asarray(RNG.normal(size=(16, 300)), jnp.float32)}
GRADIENT = jax.tree.map(lambda p: jnp.asarray(RNG.normal(size=p.shape), p.dtype), PARAMS)
TREE = {"b": jnp.zeros(8), "w": jnp.zeros((12, 8))}
small = functools.partial(gdtx.stored, least=1024)


def trained(tx, params=PARAMS, steps=4, gradient=GRADIENT):
    """The updates of some steps and the last state."""

    @jax.jit
    def run(params, gradient):
        def step(state, i):
            g = jax.tree.map(lambda g, i=i: jnp.roll(g, i) * (1 + i / 4), gradient)
            updates, state = tx.update(g, state, params)
            return state, updates

        state, updates = jax.lax.scan(step, tx.init(params), jnp.arange(steps))
        return updates, state

    return run(params, gradient)


def stored_paths(tx, params=PARAMS):
    """Of the buffers and arrays in eight bits, the paths."""
    rows = gdtx.state_table(tx, params).rows
    return {row.buffer for row in rows if row.leaf.endswith(".codes")}


# Laws


def test_with_an_exact_code_it_is_what_is_inside(monkeypatch):
    """Operation by operation, because programs are fused in different ways."""

    def run(tx):
        state, out = tx.init(TREE), []
        for i in range(3):
            updates, state = tx.update(jax.tree.map(lambda p, i=i: p + 1.5 - i, TREE), state, TREE)
            out.append(updates)
        return out

    def encode(x, bits, lead, count):
        return x, jnp.zeros((*x.shape[:lead], count), jnp.int16)

    monkeypatch.setattr(eight_bits, "encode", encode)
    monkeypatch.setattr(eight_bits, "decode", lambda codes, _: codes.astype(jnp.float32))
    with jax.disable_jit():
        for inner in (gdtx.adamw(0.1), gdtx.lion(0.1)):
            want, got = run(inner), run(gdtx.stored(inner, least=1))
            jax.tree.map(np.testing.assert_array_equal, got, want)


def test_of_arrays_that_are_all_smaller_it_is_what_is_inside():
    tx = gdtx.adam(gdtx.linear_schedule(0.1, 0.0, 5))
    want, state = trained(tx)
    got, kept = trained(gdtx.stored(tx, least=16 * 300 + 1))
    jax.tree.map(np.testing.assert_array_equal, (got, kept.inner), (want, state))
    assert stored_paths(gdtx.stored(tx, least=16 * 300))


# What is stored


MOMENTS = (
    "adabelief",
    "adagrad",
    "adam",
    "lion",
    "ema_sgd",
    "rmsprop",
    "sgd",
    "signum",
    "yogi",
    "nadam",
    "radam",
)
NONE = (
    "rprop", "average", "lookahead", "scale_by_full_matrix", "scale_by_window", "running_max",
    "latest", "difference", "running_cover", "packed", "scale_by_kfac", "scale_by_ekfac",
    "scale_by_natural_gradient", "from_optax",
)  # fmt: skip


def kept_as_it_is(tx):
    """By path, float buffers of arrays that stay as they are, of those that might be stored."""
    rows = gdtx.state_table(gdtx.stored(tx, least=1), TREE).rows
    return {row.buffer for row in rows if row.dtype == "float32" and row.shape != ()}


@pytest.mark.parametrize("name", MOMENTS)
def test_averages_and_sums_of_updates_are_stored(name):
    tx = EVERY[name].replace(learning_rate=0.1)
    assert not kept_as_it_is(tx)
    assert stored_paths(gdtx.stored(tx, least=1), TREE)


@pytest.mark.parametrize("name", NONE)
def test_what_must_be_exact_is_not(name):
    inner = gdtx.sgd(0.1)
    tx = EVERY[name]
    tx = tx.replace(inner=inner) if name in ("average", "lookahead") else tx
    assert not stored_paths(gdtx.stored(tx, least=1), TREE)
    assert gdtx.state_table(tx, TREE).bytes > 0 or name == "scale_by_natural_gradient"


def test_of_mixed_states_only_moments_are():
    def paths(tx, params=TREE):
        return stored_paths(gdtx.stored(tx, least=1), params)

    assert paths(gdtx.amsgrad(0.1)) == {"0.mu.0.value", "0.nu.0.1.value"}
    assert kept_as_it_is(gdtx.amsgrad(0.1)) == {"0.nu.0.2.value"}
    assert kept_as_it_is(gdtx.adan(0.1)) == {"0.0.d.0.last.value"}
    assert kept_as_it_is(gdtx.schedule_free_adamw(0.1)) == {"z"}
    assert len(paths(gdtx.schedule_free_adamw(0.1))) == 1
    assert paths(gdtx.average(gdtx.sgd(0.1, 0.9))) == {"0.value"}
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), TREE)
    assert paths(gdtx.master_weights(gdtx.sgd(0.1, 0.9)), half) == {"0.value"}
    for tx in (gdtx.shampoo(0.1), gdtx.soap(0.1)):
        assert not any(
            name in path for path in paths(tx) for name in ("statistic", "basis", "roots")
        )
        assert any("statistic" in path for path in kept_as_it_is(tx))


def test_a_link_of_ones_own_may_say_that_it_is_exact():
    @gdtx.transformation(exact=True)
    def largest():
        return gdtx.accumulate(jnp.maximum)

    @gdtx.transformation
    def mean():
        return gdtx.accumulate(lambda u, m: 0.9 * m + 0.1 * u)

    tx = small(gdtx.join(gdtx.plus, a=largest(), b=mean()))
    assert stored_paths(tx) == {"b.value"}


def test_what_starts_from_the_parameters_is_not():
    def pulled(u, start, mean, step):
        return u - start, {"start": start, "mean": 0.9 * mean + 0.1 * u}

    tx = small(gdtx.recur(pulled, start=lambda p: p, mean=0.0))
    assert stored_paths(tx) == {"mean"}


def test_patterns_keep_what_they_match():
    tx = gdtx.adam(0.1)
    assert stored_paths(small(tx, ["**/nu/**"])) == {"0.mu.0.value"}
    assert stored_paths(small(tx, ["**/w"])) == set()
    assert stored_paths(small(tx, ["0/mu/0/value/*"])) == {"0.nu.0.1.value"}
    with pytest.raises(ValueError, match=r"keep: '\*\*/head' matches no path; .*'0/mu/0/value/b'"):
        small(tx, ["**/head"]).init(PARAMS)
    with pytest.raises(TypeError, match="keep must be a list of patterns of paths"):
        small(tx, "**/head")


def test_other_dtypes_stay():
    narrow = gdtx.chain(gdtx.ema(0.9, dtype=jnp.bfloat16))
    assert not stored_paths(small(narrow))
    turned = jax.tree.map(lambda p: p.astype(jnp.complex64), PARAMS)
    assert stored_paths(small(gdtx.adam(0.1)), turned) == set()


def test_bytes_a_parameter():
    struct = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    tree = {"w": struct((1024, 4096)), "v": struct((50_000, 512))}
    assert gdtx.state_table(gdtx.stored(gdtx.adam(1e-3)), tree).bytes_per_parameter < 2.05
    # As those of a transformer of a width of 256, with norms and biases.
    tree |= {f"{i}": struct((256,)) for i in range(200)} | {"u": struct((256, 768, 12))}
    assert gdtx.state_table(gdtx.stored(gdtx.adam(1e-3)), tree).bytes_per_parameter < 2.1


# How it trains


def of_average(fall, steps, decay=0.999, count=4096):
    """The steps that an average of squares allows, over float32's, of gradients that fall."""
    tx = gdtx.chain(gdtx.square(), gdtx.ema(decay, initial=1.0))
    nearest = jnp.full((count // 256, 256), 1 << 31, jnp.uint32)

    @jax.jit
    def run():
        def step(carry, key):
            g = jax.random.normal(key, (count // 256, 256)) * fall
            plain, coded, frozen = carry
            _, plain = tx.update(g, plain)
            _, coded = gdtx.stored(tx, least=1).update(g, coded)
            old, _ = tx.update(g, frozen)
            lead, blocks = eight_bits.blocks_of(old.shape, 256)
            old = eight_bits.decode(*eight_bits.encode(old, nearest, lead, blocks))
            frozen = jax.tree.map(lambda x: old if x.ndim else x, frozen)
            return (plain, coded, frozen), None

        first = jnp.zeros((count // 256, 256))
        carry = tx.init(first), gdtx.stored(tx, least=1).init(first), tx.init(first)
        keys = jax.random.split(jax.random.key(0), steps)
        (plain, coded, frozen), _ = jax.lax.scan(step, carry, keys)
        kept = map_values((plain, coded, frozen))
        return [jnp.sqrt(kept[0] / each) for each in kept[1:]]

    return map(np.asarray, run())


def map_values(states):
    return [gdtx.find(state, "value") for state in states]


def test_steps_of_a_slow_average():
    ratio, _ = of_average(fall=1.0, steps=1500)
    assert 1.0 <= ratio.mean() <= 1.03
    assert ratio.std() <= 0.13


def test_steps_after_gradients_have_fallen_a_hundredfold():
    ratio, frozen = of_average(fall=0.01, steps=7000, count=1024)
    assert 0.9 <= ratio.mean() <= 1.35
    assert frozen.mean() < 0.1  # rounded to the nearest, it has not moved


def test_a_momentum_travels_as_far():
    tx = gdtx.ema(0.9)
    g = jnp.asarray(RNG.uniform(0.5, 1.5, size=(16, 256)) * RNG.choice([-1, 1], size=(16, 256)))
    g = (g * 10.0 ** RNG.uniform(-4, 0, size=(16, 256))).astype(jnp.float32)
    updates, _ = trained(
        gdtx.join(gdtx.divide, a=gdtx.stored(tx, least=1), b=tx), jnp.zeros_like(g), 1, g
    )

    @jax.jit
    def travelled():
        def step(carry, _):
            states, sums = carry
            outs, states = zip(
                *(each.update(g, s) for each, s in zip(both, states, strict=True)), strict=True
            )
            return (states, [a + b for a, b in zip(sums, outs, strict=True)]), None

        both = gdtx.stored(tx, least=1), tx
        first = tuple(each.init(g) for each in both), [jnp.zeros_like(g)] * 2
        (_, sums), _ = jax.lax.scan(step, first, length=1000)
        return sums[0] / sums[1]

    ratio = np.asarray(travelled(), np.float64)
    assert np.abs(ratio - 1).max() < 0.05
    assert abs(ratio.mean() - 1) < 0.002
    np.testing.assert_allclose(updates, 1, rtol=1e-6)  # what is emitted is not rounded


def test_a_slow_average_in_bfloat16_moves_too():
    tx = gdtx.chain(gdtx.square(), gdtx.ema(0.999, initial=1.0, dtype=jnp.bfloat16))
    first = jnp.zeros((4, 256))

    @jax.jit
    def run():
        def step(state, key):
            return tx.update(jax.random.normal(key, first.shape) * 0.01, state)[1], None

        keys = jax.random.split(jax.random.key(0), 7000)
        return jax.lax.scan(step, tx.init(first), keys)[0]

    kept = np.asarray(gdtx.find(run(), "value"), np.float64)
    want = 0.999**7000 + (1 - 0.999**7000) * 1e-4
    assert 0.9 < np.sqrt(want / kept).mean() < 1.35


# States


def test_what_reads_states_sees_through_it():
    tx = small(gdtx.average(gdtx.adam(gdtx.linear_schedule(0.1, 0.0, 8))))
    plain = tx.arguments["inner"]
    _, state = trained(tx, steps=3)
    _, want = trained(plain, steps=3)
    for name in ("mu", "nu"):
        got, exact = (gdtx.find(each, name) for each in (state, want))
        assert jax.tree.map(lambda x: (x.shape, x.dtype), got) == jax.tree.map(
            lambda x: (x.shape, x.dtype), exact
        )
    table = gdtx.state_table(tx, PARAMS)
    assert table.bytes == sum(x.nbytes for x in jax.tree.leaves(state))
    assert gdtx.count_steps(state) == 3
    assert gdtx.hyperparams(tx, state)["inner.inner.learning_rate"] == pytest.approx(0.0625)
    assert gdtx.describe(tx, state)["step"] == 3
    current = gdtx.eval_params(tx, state, PARAMS)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=0.1, atol=0.05),
        current, gdtx.eval_params(plain, want, PARAMS),
    )  # fmt: skip


def test_found_numbers_are_near_those_in_float32():
    _, state = trained(small(gdtx.trace(0.9)), steps=1)
    _, want = trained(gdtx.trace(0.9), steps=1)
    got, exact = gdtx.find(state, "value"), gdtx.find(want, "value")
    np.testing.assert_array_equal(got["b"], exact["b"])
    large = np.abs(exact["w"]) > 1e-3
    np.testing.assert_allclose(got["w"][large], exact["w"][large], rtol=0.125)
    structs = jax.eval_shape(small(gdtx.trace(0.9)).init, PARAMS)
    assert gdtx.find(structs, "value")["w"].shape == (16, 300)
    assert gdtx.find(structs, "value")["w"].dtype == jnp.float32


def test_it_goes_on_from_a_copy_bit_for_bit_and_by_its_seed():
    tx = small(gdtx.adam(0.1))
    _, state = trained(tx)
    copy = jax.tree.map(lambda x: jnp.asarray(np.array(x)), state)
    results = [tx.update(GRADIENT, each, PARAMS) for each in (state, copy)]
    jax.tree.map(np.testing.assert_array_equal, *results)
    _, other = trained(small(gdtx.adam(0.1), seed=1))
    codes = [gdtx.find(each, "mu")["w"] for each in (state, other)]
    assert np.mean(codes[0] != codes[1]) > 0.3


def test_bad_steps_that_are_skipped_change_no_bit():
    tx = gdtx.skip_nonfinite(small(gdtx.adam(0.1)))
    _, state = trained(tx)
    bad = {**GRADIENT, "b": GRADIENT["b"].at[0].set(jnp.nan)}
    _, after = tx.update(bad, state, PARAMS)
    assert after.skipped == 1
    jax.tree.map(np.testing.assert_array_equal, after.inner, state.inner)


def test_inside_of_another_it_stays_as_it_is():
    twice = small(gdtx.chain(small(gdtx.ema(0.9)), gdtx.ema(0.5)))
    once = gdtx.chain(small(gdtx.ema(0.9)), small(gdtx.ema(0.5)))
    assert gdtx.state_table(twice, PARAMS).bytes == gdtx.state_table(once, PARAMS).bytes
    trained(twice)


def test_runs_of_many_seeds_at_once():
    def run(seed):
        tx = small(gdtx.adam(0.1), seed=seed)
        return tx.update(GRADIENT, tx.init(PARAMS), PARAMS)[1]

    states = jax.jit(jax.vmap(run))(jnp.arange(3))
    found = gdtx.find(states, "0.mu.0.value")["w"]
    assert found.shape == (3, 16, 300)
    alone = gdtx.find(jax.jit(run)(jnp.array(1)), "mu")["w"]
    assert np.mean(found[1] == alone) > 0.999  # another program may round another way
    assert np.mean(found[1] == found[2]) < 0.9


def test_codes_are_in_the_boxes_of_their_parameters():
    boxed = {"w": nn.Partitioned(PARAMS["w"], names=("data", None))}
    tx = small(gdtx.adam(0.1))
    updates, state = tx.update(boxed, tx.init(boxed), boxed)
    kept = gdtx.find(nn.get_partition_spec(state), "0.mu.0.value")["w"]
    assert kept == EightBits(PartitionSpec("data", None), PartitionSpec())
    assert isinstance(gdtx.find(state, "mu")["w"], nn.Partitioned)
    assert isinstance(updates["w"], nn.Partitioned)


# Devices

PLACES = {
    "rows": (PartitionSpec("data", None), PartitionSpec("data", None)),
    "both": (PartitionSpec("data", "model"), PartitionSpec("data", "model")),
    # A block would be on two devices.
    "columns": (PartitionSpec(None, ("data", "model")), PartitionSpec(None, None)),
}


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.diagonal
def test_codes_and_exponents_are_sharded_as_the_array(place, axis_type):
    spec, along = PLACES[place]
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(axis_type, axis_type))
    w = np.asarray(RNG.normal(size=(8, 512)), np.float32)
    tx = gdtx.stored(gdtx.sgd(0.1, 0.9), least=1)

    def steps(w):
        params, state, states = {"w": w}, tx.init({"w": w}), []
        states.append(state)
        for _ in range(3):
            updates, state = update(params, state)
            states.append(state)
        return updates, states

    update = jax.jit(lambda p, s: tx.update(p, s, p))
    want, _ = steps(jnp.asarray(w))
    set_mesh = jax.set_mesh if hasattr(jax, "set_mesh") else jax.sharding.use_mesh
    with set_mesh(mesh) if axis_type == AxisType.Explicit else contextlib.nullcontext():
        placed = jax.device_put(w, NamedSharding(mesh, spec))
        got, states = steps(placed)
    # Inside of a program of the user's, jax 0.7 cuts what has blocks on two devices as it likes.
    is_old = jax.__version_info__ < (0, 8)
    is_left_to_old_jax = place == "columns" and axis_type == AxisType.Auto and is_old
    # A program that rounds another way may come to the next level once.
    assert np.isclose(got["w"], want["w"], rtol=1e-5).mean() > 0.999
    for state in states:
        kept = state.inner[0].buffers["value"]["w"]
        assert kept.codes.sharding.is_equivalent_to(NamedSharding(mesh, spec), 2)
        if not is_left_to_old_jax:
            assert kept.exponents.sharding.is_equivalent_to(NamedSharding(mesh, along), 2)
    table = gdtx.state_table(tx, {"w": placed})
    rows = {row.leaf: row.sharding for row in table.rows}
    assert rows["['w'].codes"].is_equivalent_to(NamedSharding(mesh, spec), 2)
    assert rows["['w'].exponents"].is_equivalent_to(NamedSharding(mesh, along), 2)
    assert update._cache_size() == 2 + is_left_to_old_jax  # unsharded, and sharded: once


def test_donated_states_are_written_in_place():
    tx = gdtx.stored(gdtx.adam(0.1), least=1)
    params = {"w": jnp.zeros((32, 512))}
    state = tx.init(params)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, g):
        updates, state = tx.update(g, state, params)
        return gdtx.apply_updates(params, updates), state

    memory = step.lower(params, state, params).compile().memory_analysis()
    assert memory.alias_size_in_bytes >= sum(x.nbytes for x in jax.tree.leaves((params, state)))
    _, after = step(params, state, {"w": jnp.ones((32, 512))})
    assert all(x.is_deleted() for x in jax.tree.leaves(state))
    jax.tree.map(lambda x: x.block_until_ready(), after)
