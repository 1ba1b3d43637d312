"""The code of eight bits: what comes back of numbers, whatever they are.

The oracle is a list of all levels, made in NumPy: powers of two times 1, 1.125, ... 1.875.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdtx.core.numbers.eight_bits import blocks_of, decode, encode

LEVELS = np.sort(np.outer(2.0 ** np.arange(-126, 128), 1 + np.arange(8) / 8).ravel())
BLOCK = 256


@jax.jit
def coded(x, bits):
    codes, exponents = encode(x, bits, *blocks_of(x.shape, BLOCK))
    assert (codes.dtype, exponents.dtype) == (jnp.uint8, jnp.int16)
    assert codes.shape == x.shape
    return exponents, decode(codes, exponents)


def there_and_back(x, bits):
    return coded(x, bits)[1]


def draw(shape, seed=0):
    return np.random.default_rng(seed).integers(2**32, size=shape, dtype=np.uint32)


def spread(shape, octaves, is_signed, top=0, seed=0):
    """Numbers over so many octaves below a power of two, the largest among them in each block."""
    rng = np.random.default_rng(seed)
    x = 2.0 ** (top - octaves * rng.uniform(0.001, 1, size=shape))
    x[..., ::128] = 2.0**top
    if is_signed:
        x *= rng.choice([-1, 1], size=shape)
        x[..., 1::128] = -(2.0 ** (top - 1))
    return x.astype(np.float32)


def neighbours(x):
    """The levels at a magnitude or below, and above."""
    at = np.searchsorted(LEVELS, x.astype(np.float64), side="right") - 1
    return LEVELS[at], LEVELS[at + 1]


@pytest.mark.parametrize("is_signed", [False, True])
def test_numbers_become_one_of_two_neighbours_the_right_one_on_average(is_signed):
    x = spread((8, 384), 15.5 if is_signed else 31.5, is_signed, top=3)
    draws = np.asarray(jax.lax.map(lambda bits: there_and_back(x, bits), draw((1000, 8, 384))))
    size, sizes = np.abs(x), np.abs(draws)
    low, high = neighbours(size)
    assert (np.sign(draws) == np.sign(x)).all()
    assert ((sizes == low) | (sizes == high)).all()
    assert (np.abs(sizes - size) / size).max() < 0.125
    error = np.sqrt((high - size) * (size - low) / 1000)
    # Where the chance is that small, a single draw is many standard errors.
    slack = np.where((high - size) * (size - low) < 0.01 * (high - low) ** 2, (high - low) / 250, 0)
    assert (np.abs(sizes.mean(0, dtype=np.float64) - size) <= 5 * error + slack).all()
    assert (np.asarray(there_and_back(draws[0], draw(x.shape, 1))) == draws[0]).all()


def test_what_was_decoded_is_coded_as_it_was_whatever_the_range():
    raw = draw((64, BLOCK)) & 0x7FFFFFFF
    everywhere = np.minimum(raw, 0x7F7FFFFF).view(np.float32)
    for is_signed in (False, True):
        x = everywhere * (np.random.default_rng(0).choice([-1, 1], 64)[:, None] if is_signed else 1)
        once = there_and_back(x.astype(np.float32), draw(x.shape, 1))
        again = there_and_back(once, draw(x.shape, 2))
        np.testing.assert_array_equal(np.asarray(once).view("u4"), np.asarray(again).view("u4"))
        assert np.isfinite(once).all()


def test_zero_stays_and_a_positive_number_is_never_zero():
    raw = np.minimum(draw((64, BLOCK)) & 0x7FFFFFFF, 0x7F7FFFFF)
    raw[:, ::3] = 0
    x = raw.view(np.float32)
    got = np.asarray(there_and_back(x, draw(x.shape, 1)))
    np.testing.assert_array_equal(got == 0, raw == 0)
    assert got[raw > 0].min() >= 2.0**-126  # devices take smaller ones for 0
    assert not there_and_back(np.zeros((2, BLOCK), np.float32), draw((2, BLOCK))).any()
    assert not there_and_back(np.full((2, BLOCK), -0.0, np.float32), draw((2, BLOCK))).any()


def test_small_signed_numbers_go_to_the_nearer_of_zero_and_the_lowest_level():
    lowest = 2.0**-16 * 1.25  # 126 levels below 1
    x = np.tile(np.linspace(-2, 2, BLOCK).astype(np.float32) * lowest, (50, 1))
    x[:, 0] = 1.0
    got = np.asarray(there_and_back(x, draw(x.shape)))
    size, small = np.abs(x[:, 1:]), np.abs(x[:, 1:]) < lowest
    want = np.sign(x[:, 1:]) * np.where(size < lowest / 2, 0, lowest)
    np.testing.assert_array_equal(got[:, 1:][small], want[small])
    assert (got[:, 1:][~small] != 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_shows_in_all_of_its_block(bad):
    x = spread((3, 2 * BLOCK), 10, is_signed=True)
    x[1, 5] = bad
    got = np.isnan(there_and_back(x, draw(x.shape)))
    assert got[1, :BLOCK].all()
    assert got.sum() == BLOCK


def test_numbers_stay_where_they_are_when_the_largest_moves():
    x = np.asarray(there_and_back(spread((4, BLOCK), 8, False), draw((4, BLOCK))))
    for largest in (0.3, 1.7, 900.0, 0.02):
        x = np.array(there_and_back(x, draw(x.shape, int(largest * 100))))
        before = x[:, 1:].copy()
        x[:, 0] = largest
        x = np.asarray(there_and_back(x, draw(x.shape, 5)))
        np.testing.assert_array_equal(x[:, 1:], before)


@pytest.mark.parametrize(
    ("shape", "lead", "count"),
    [
        ((4096, 1024), 1, 4),
        ((50, 300), 1, 2),
        ((50, 128), 1, 1),
        ((3, 3, 64, 64), 2, 16),
        ((1000, 7), 0, 28),
        ((5, 4), 0, 1),
        ((5000,), 0, 20),
        ((), 0, 1),
        ((257, 1), 0, 2),
    ],
)
def test_blocks_lie_along_the_last_axes_and_are_of_one_length(shape, lead, count):
    assert blocks_of(shape, BLOCK) == (lead, count)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    exponents, got = map(np.asarray, coded(x, draw(shape)))
    assert exponents.shape == (*shape[:lead], count)
    large = np.abs(x) > 1e-3
    np.testing.assert_allclose(got[large], x[large], rtol=0.125)
    # Each block has a scale of its own, of its own numbers.
    length = int(np.prod(shape[lead:]))
    width = -(-length // count)
    rows = np.abs(x).reshape(*shape[:lead], length)
    rows = np.pad(rows, [(0, 0)] * lead + [(0, count * width - length)])
    top = rows.reshape(*shape[:lead], count, width).max(-1)
    np.testing.assert_array_equal(np.abs(exponents), np.ceil(np.log2(top)) + 127)
