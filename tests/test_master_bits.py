"""Eight more bits beside bfloat16 parameters.

The oracle counts the numbers of float32 without their last eight bits, as integers.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gdtx
from gdtx.core.numbers.longer import lengthened, shortened_by_chance

RNG = np.random.default_rng(0)


def draw(shape):
    return RNG.integers(2**32, size=shape, dtype=np.uint32)


def test_both_together_are_one_of_two_neighbours_the_right_one_on_average():
    raw = draw(4096) % np.uint32(0x7F000000) | draw(4096) & np.uint32(0x80000000)
    x = raw.view(np.float32)

    @jax.jit
    def there_and_back(x, bits):
        short, extra = shortened_by_chance(x, bits)
        assert (short.dtype, extra.dtype) == (jnp.bfloat16, jnp.int8)
        return short, jax.lax.bitcast_convert_type(lengthened(short, extra), jnp.uint32)

    size, sign = raw.astype(np.int64) & 0x7FFFFFFF, raw >> 31
    total, draws = np.zeros(4096), 400
    for _ in range(draws):
        short, long = there_and_back(x, draw(4096))
        long = np.asarray(long).astype(np.int64)
        assert (long % 256 == 0).all()
        assert ((long >> 31) == sign).all()
        steps = (long & 0x7FFFFFFF) - size
        assert (np.abs(steps) < 256).all()
        total += steps
        # The parameter is the nearest bfloat16, a half up.
        near = np.asarray(short).view(np.uint16).astype(np.int64) & 0x7FFF
        assert (near == ((long & 0x7FFFFFFF) + 0x8000) >> 16).all()
    assert (np.abs(total / draws) < 128 * 5 / draws**0.5).all()
    exact = (raw & np.uint32(0xFFFFFF00)).view(np.float32)
    _, long = there_and_back(exact, draw(4096))
    np.testing.assert_array_equal(np.asarray(long), exact.view(np.uint32))


def test_many_small_updates_lead_where_they_should():
    p = jnp.asarray(RNG.uniform(1.0, 1.2, 1024), jnp.bfloat16)
    tx, unit, steps = gdtx.master_bits(gdtx.identity()), 2.0**-7, 10_000

    @jax.jit
    def run(u):
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(u, state, params)
            return (gdtx.apply_updates(params, updates), state), None

        (params, state), _ = jax.lax.scan(step, (p, tx.init(p)), length=steps)
        return lengthened(params, state.extra)

    for share in (3e-4, 3e-3, 3e-2):
        kept = run(jnp.full(p.shape, share * unit))
        want = np.asarray(p, np.float64) + steps * share * unit
        units = 2.0 ** np.floor(np.log2(want)) / 128
        assert np.sqrt(np.mean(((np.asarray(kept) - want) / units) ** 2)) < 0.25


@pytest.mark.parametrize("value", [0.0, -0.0, 2.0, np.inf, np.nan])
def test_a_number_that_someone_else_changed_is_followed(value):
    tx = gdtx.master_bits(gdtx.sgd(0.01))
    p = jnp.full(64, 1.0, jnp.bfloat16)
    state = tx.init(p)
    for g in (0.3, -0.3, 0.7):
        updates, state = tx.update(jnp.full(64, g), state, p)
        p = gdtx.apply_updates(p, updates)
    assert np.abs(np.asarray(state.extra)).max() > 0
    changed = jnp.full_like(p, value)
    for sign in (1, -1):
        kept = state._replace(extra=sign * jnp.abs(state.extra))
        updates, _ = tx.update(jnp.zeros(64), kept, changed)
        new = gdtx.apply_updates(changed, updates)
        want = np.float32(value)
        np.testing.assert_allclose(new.astype(jnp.float32), want, atol=1e-38)


def test_of_float32_it_is_what_is_inside_and_others_are_refused():
    tx, inner = gdtx.master_bits(gdtx.adamw(0.1)), gdtx.adamw(0.1)
    p, g = jnp.ones(8), jnp.arange(8.0)
    state = tx.init(p)
    assert state.extra is None
    got, want = tx.update(g, state, p)[0], inner.update(g, inner.init(p), p)[0]
    np.testing.assert_array_equal(got, want)
    with pytest.raises(TypeError, match=r"master_bits: params\['w'\] is float16, expected bfl"):
        tx.init({"w": jnp.ones(2, jnp.float16)})
    short = {"w": jnp.ones(2, jnp.bfloat16)}
    with pytest.raises(ValueError, match="expected bits beside the bfloat16 parameters"):
        tx.update(short, tx.init({"w": jnp.ones(2)}), short)


def test_numbers_beyond_the_largest():
    tx = gdtx.master_bits(gdtx.identity())
    p = jnp.full(4, jnp.finfo(jnp.bfloat16).max)
    updates, state = tx.update(jnp.full(4, 3e38), tx.init(p), p)
    assert np.isinf(gdtx.apply_updates(p, updates)).all()
    assert not state.extra.any()
    worst = np.full(4, 0x7FFFFFFF, np.uint32).view(np.float32)
    assert np.isnan(shortened_by_chance(worst, np.full(4, 2**32 - 1, np.uint32))[0]).all()


def test_bytes():
    p = {"w": jnp.zeros((64, 64), jnp.bfloat16), "b": jnp.zeros(8)}
    adam = gdtx.state_table(gdtx.adam(0.1), p).bytes
    assert gdtx.state_table(gdtx.master_bits(gdtx.adam(0.1)), p).bytes == adam + 4 + 64 * 64
    both = gdtx.master_bits(gdtx.stored(gdtx.adam(0.1)))
    assert gdtx.state_table(both, {"w": p["w"]}).bytes_per_parameter < 3.04
