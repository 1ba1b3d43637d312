"""Numbers against exact arithmetic."""

from decimal import Decimal, localcontext

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import gdtx

DECAYS = [0.0, 0.1, 0.5, 0.9, 0.999, 0.99999]
STEPS = [1, 2, 5, 6, 7, 10, 100, 700, 1000, 10_000, 10_000_000]


def after(tx, steps, u):
    """The next update of a counted transformation after some steps."""
    params = jnp.zeros_like(u)
    state = jax.tree.map(lambda count: count + (steps - 1), tx.init(params))
    return tx.update(u, state)[0]


def remaining(decay, step):
    with localcontext(prec=60):
        return float(1 - Decimal(decay) ** step)


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("step", STEPS)
def test_bias_correction_is_exact(decay, step, x64):
    tx = gdtx.bias_correction(decay)
    want = 1 / remaining(decay, step)
    np.testing.assert_allclose(after(tx, step, jnp.ones((), np.float64)), want, rtol=3e-15)
    # Between neighbours of float32, but for the rounding of the step and of the decay's logarithm.
    np.testing.assert_allclose(after(tx, step, jnp.ones((), np.float32)), want, rtol=4e-7)


def test_bias_correction_ahead():
    one = jnp.ones(())
    tx = gdtx.bias_correction(0.9, ahead=3)
    np.testing.assert_allclose(after(tx, 2, one), 1 / (1 - 0.9**5), rtol=1e-6)


@pytest.mark.parametrize("decay", [0.9, 0.99, 0.999, 0.9999, 0.99999])
@pytest.mark.parametrize("threshold", [4.0, 5.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rectification_is_exact(decay, threshold, dtype, x64):
    """In float32 too, where the textbook formula loses four digits to cancellation."""
    tx = gdtx.rectify(decay, threshold)
    for step in (*range(1, 12), 100, 1000, 100_000):
        rectifier = oracles.rectification(decay, step, threshold)
        got = after(tx, step, jnp.asarray(3.0, dtype))
        if rectifier is None:
            assert got == 1
        else:
            bound = 1e-12 if dtype == "float64" else 2e-6
            np.testing.assert_allclose(got, 3.0 / rectifier, rtol=bound, err_msg=str(step))


def test_rectification_in_float32_without_x64():
    """The program of most users: no float64 anywhere."""
    for decay in (0.99, 0.999, 0.9999):
        for step in range(1, 12):
            rectifier = oracles.rectification(decay, step, 4.0)
            got = after(gdtx.rectify(decay), step, jnp.asarray(3.0))
            want = 1.0 if rectifier is None else 3.0 / rectifier
            np.testing.assert_allclose(got, want, rtol=1e-5, err_msg=f"{decay} {step}")


@pytest.mark.parametrize("decay", [0.5, 0.6])
def test_short_averages_are_never_tractable(decay):
    for step in (1, 10, 1000):
        assert after(gdtx.rectify(decay), step, jnp.asarray(3.0)) == 1


def test_variance_stays_non_negative_where_the_difference_of_moments_does_not(x64):
    """A constant far from zero: E[g^2] - E[g]^2 is all rounding error."""
    tx = gdtx.variance(0.9)
    g = jnp.asarray([1e4], np.float32)
    state = tx.init(g)
    for _ in range(100):
        s, state = tx.update(g, state)
        assert s[0] >= 0
    # What is left is the memory of the start, rho^t of the first squared distance.
    np.testing.assert_allclose(s[0], 0.9**100 * (1 - 0.9**100) * 1e8, rtol=1e-2)


NORMS = {
    "overflow": ([3e38, -4e37], np.hypot(3e38, 4e37)),
    "underflow": ([3e-38, 4e-38], 5e-38),
    "zero": ([0.0, 0.0], 0.0),
    "infinite": ([np.inf, 1.0], np.inf),
    "complex": ([3.0 + 4.0j, 0.0], 5.0),
}


@pytest.mark.parametrize("name", NORMS)
def test_global_norm(name):
    values, want = NORMS[name]
    values = jnp.asarray(values, jnp.complex64 if np.iscomplexobj(values) else jnp.float32)
    np.testing.assert_allclose(
        gdtx.global_norm({"a": values[:1], "b": values[1:]}), want, rtol=1e-6
    )
    assert gdtx.global_norm({}) == 0


@pytest.mark.parametrize("exponent", [-140, -126, -75, -64, -62, -58, -30, 0, 30, 62, 64, 75, 126])
def test_global_norm_is_right_at_every_magnitude(exponent):
    """On both sides of where squares leave the range, and with much smaller numbers beside."""
    rng = np.random.default_rng(0)
    values = np.float32(np.ldexp(rng.uniform(-1, 1, (100, 100)), exponent))
    values[50:] *= np.float32(2.0**-20)
    # Devices take what is subnormal for 0.
    values[np.abs(values) < np.finfo(np.float32).tiny] = 0
    want = min(np.sqrt(np.sum(values.astype(np.float64) ** 2)), np.finfo(np.float32).max)
    found = gdtx.global_norm({"a": jnp.asarray(values[::2]), "b": jnp.asarray(values[1::2])})
    np.testing.assert_allclose(np.float64(found), want, rtol=1e-6)


def test_norm_beyond_the_range_is_finite_and_is_clipped_exactly():
    huge = {"a": jnp.full(100, 3e38)}
    assert gdtx.global_norm(huge) == np.finfo(np.float32).max
    clipped, _ = gdtx.clip_by_global_norm(2.0).update(huge, ())
    np.testing.assert_allclose(clipped["a"], 0.2, rtol=1e-6)
    short = {"a": jnp.array([0.3, 0.4])}
    assert (gdtx.clip_by_global_norm(0.6).update(short, ())[0]["a"] == short["a"]).all()


def test_derivatives_of_norms():
    norm = jax.grad(lambda x: gdtx.global_norm([x]))
    assert (norm(jnp.zeros(3)) == 0).all()
    np.testing.assert_allclose(norm(jnp.array([3.0, -4.0])), [0.6, -0.8], rtol=1e-6)
    clipped = jax.grad(lambda x: gdtx.clip_by_global_norm(1.0).update(x, ())[0][0])
    # d/dx (x / |x|)_0 = (1 - x_0^2 / |x|^2, -x_0 x_1 / |x|^2) / |x|
    np.testing.assert_allclose(clipped(jnp.array([3.0, -4.0])), [0.128, 0.096], rtol=1e-5)


def test_not_a_number_is_not_hidden():
    assert np.isnan(gdtx.global_norm([jnp.array([np.nan, 1.0])]))


@pytest.mark.parametrize("held", ["as_arrays", "tunable", "schedule", "function"])
@pytest.mark.parametrize("name", ["adam", "radam", "nadam"])
def test_a_decay_that_rounds_to_one_is_no_division_by_zero(name, held):
    """1 - 1e-9 in float32: the nearest number below 1 gives the same while the average is short."""
    factory = getattr(gdtx, name)
    number = factory(0.1, b2=1 - 1e-9)
    tx = {
        "as_arrays": lambda: gdtx.as_arrays(number),
        "tunable": lambda: gdtx.tunable(number),
        "schedule": lambda: factory(0.1, b2=gdtx.constant_schedule(1 - 1e-9)),
        "function": lambda: factory(0.1, b2=lambda t: 1 - 1e-9),
    }[held]()
    states, gradients = [t.init(jnp.zeros(2)) for t in (tx, number)], jnp.array([3.0, -1.0])
    for scale in (1.0, 0.1, 2.0):
        (got, states[0]), (want, states[1]) = (
            t.update(scale * gradients, state)
            for t, state in zip((tx, number), states, strict=True)
        )
        np.testing.assert_allclose(got, want, rtol=1e-5)
