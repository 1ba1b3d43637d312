"""The noisy quadratic model: closed form, simulation, steps to a target."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gdtx
from gdtx import explore

H = np.array([3.0, 1.0, 0.4, 0.1])
C = np.array([0.5, 2.0, 0.1, 1.0])
START = np.array([1.0, -2.0, 0.5, 3.0])
SMALL = {"curvatures": H, "noise": C, "start": START}


def propagated(steps, rate, momentum, decay, batch, power, h=H, c=C, start=START):
    """The risks, from the second moments of the whole state (θ, v, a) in a basis that mixes all.

    In a rotated basis the matrices are full, and what is computed has no number-by-number form.
    """
    d = len(h)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(d, d)))[0]
    hessian = rotation @ np.diag(h) @ rotation.T
    covariance = rotation @ np.diag(c) @ rotation.T
    preconditioner = rotation @ np.diag(h**-power) @ rotation.T
    one, zero = np.eye(d), np.zeros((d, d))
    z = np.concatenate([rotation @ start, np.zeros(d), rotation @ start])
    moment = np.outer(z, z)
    risks = [0.5 * np.trace(hessian @ moment[2 * d :, 2 * d :])]
    for t in range(steps):
        velocity = np.block([[one, zero, zero], [hessian, momentum[t] * one, zero],
                             [zero, zero, one]])  # fmt: skip
        iterate = np.block([[one, -rate[t] * preconditioner, zero], [zero, one, zero],
                            [zero, zero, one]])  # fmt: skip
        average = np.block([[one, zero, zero], [zero, one, zero],
                            [(1 - decay[t]) * one, zero, decay[t] * one]])  # fmt: skip
        noise = np.zeros((3 * d, 3 * d))
        noise[d : 2 * d, d : 2 * d] = covariance / batch[t]
        after = average @ iterate
        moment = after @ (velocity @ moment @ velocity.T + noise) @ after.T
        risks.append(0.5 * np.trace(hessian @ moment[2 * d :, 2 * d :]))
    return np.array(risks)


def full(value, steps=30):
    return np.broadcast_to(np.asarray(value, float), steps)


T = np.arange(30)
CASES = {
    "sgd": (full(0.3), full(0.0), full(0.0), full(4.0), 0.0),
    "momentum": (full(0.1), full(0.8), full(0.0), full(1.0), 0.0),
    "preconditioned": (full(0.3), full(0.5), full(0.0), full(1.0), 0.5),
    "averaged": (full(0.3), full(0.3), 1 - 0.1 / (1 - 0.9 ** (T + 1)), full(2.0), 0.0),
    "schedules": (0.3 / (1 + T), 0.9 * T / 30, T / (T + 1), 2.0 + T, 0.25),
}


@pytest.mark.parametrize("name", CASES)
def test_risk_is_that_of_the_whole_covariance(name, x64):
    rate, momentum, decay, batch, power = CASES[name]
    problem = explore.noisy_quadratic(**SMALL)
    given = {"momentum": momentum, "averaging": decay, "preconditioning": power}
    risk = problem.risk(rate, 30, batch, **given)
    expected = propagated(30, rate, momentum, decay, batch, power)
    np.testing.assert_allclose(risk, expected, rtol=1e-12)


def test_risk_in_float32():
    rate, momentum, decay, batch, power = CASES["schedules"]
    given = {"momentum": momentum, "averaging": decay, "preconditioning": power}
    risk = explore.noisy_quadratic(**SMALL).risk(rate, 30, batch, **given)
    assert risk.dtype == jnp.float32
    expected = propagated(30, rate, momentum, decay, batch, power)
    np.testing.assert_allclose(risk, expected, rtol=3e-5)


def test_risk_takes_numbers_and_schedules():
    problem = explore.noisy_quadratic(**SMALL)
    line = gdtx.linear_schedule(0.3, 0.0, 30)
    given = {"momentum": 0.5, "averaging": 0.9}
    decay = 1 - 0.1 / (1 - 0.9 ** (T + 1))
    expected = propagated(30, line(T), full(0.5), decay, full(2), 0.0)
    np.testing.assert_allclose(problem.risk(line, 30, 2, **given), expected, rtol=3e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_risk_ends_at_the_stationary_one(momentum, x64):
    # Solved on paper from the three equations of a covariance that stays as it is.
    rate, batch = 0.2, 4.0
    problem = explore.noisy_quadratic(**SMALL)
    shrunk = rate * (1 + momentum) / ((1 - momentum) * (2 * (1 + momentum) - rate * H))
    floor = 0.5 * np.sum(C / batch * shrunk)
    risk = problem.risk(rate, 2000, batch, momentum=momentum)
    np.testing.assert_allclose(risk[-1], floor, rtol=1e-10)


def test_noise_is_inverse_to_the_batch_size(x64):
    problem = explore.noisy_quadratic(**SMALL)
    mean, one, four = (problem.risk(0.1, 50, size, momentum=0.9) for size in (np.inf, 1, 4))
    np.testing.assert_allclose(one - mean, 4 * (four - mean), rtol=1e-10, atol=1e-12)
    path, state = problem.start, (tx := gdtx.sgd(0.1, momentum=0.9)).init(problem.start)
    for t in range(50):
        np.testing.assert_allclose(problem.loss(path), mean[t], rtol=1e-10)
        updates, state = tx.update(problem.curvatures * path, state)
        path = gdtx.apply_updates(path, updates)


# Against simulation


def settings():
    """A row for each of 30: rate, its decay, momentum, p, decay of the average, c / h, batch size.

    A momentum of 0, a p of 0 and an average of decay 0 are plain SGD.
    """
    rates, sizes = [0.02, 0.1, 0.5, 1.0, 0.1, 0.5], [1.0, 4.0, 16.0, 64.0, 1.0, 4.0]
    momenta = [0.9, 0.5, 0.9, 0.8, 0.5, 0.9]
    decays = [0.9, 0.97, 0.5, 0.9, 0.97, 0.9]
    rows = []
    for rate, size, momentum, decay in zip(rates, sizes, momenta, decays, strict=True):
        rows += [
            (rate, 0.0, 0.0, 0.0, 0.0, 1.0, size),
            (0.3 * rate, 0.0, momentum, 0.0, 0.0, 1.0, size),
            (0.2 * rate, 0.0, momentum, 0.5, 0.0, 1.0, size),
            (rate, 0.0, 0.0, 0.0, decay, 1.0, size),
            (rate, 1.0, 0.5 * momentum, 0.0, 0.0, 4.0, size),
        ]
    return jnp.array(rows)


def test_simulation_lies_within_three_standard_errors_of_the_closed_form():
    """30 settings, each with noise of its own, so that their errors are independent.

    Of 30 honest ones one lies beyond three standard errors once in 13 times; the key is the first
    that was tried. No key hides errors that are too large or too small throughout from the sum of
    squares.
    """
    base, steps = explore.noisy_quadratic(20), 60

    def both(row, key):
        rate, slowing, momentum, power, decay, louder, size = row
        problem = base._replace(noise=louder * base.noise)
        rate = gdtx.inverse_time_decay(rate, 10, slowing)
        tx = gdtx.chain(problem.preconditioner(power), gdtx.sgd(rate, momentum=momentum))
        simulated = problem.simulate(gdtx.average(tx, decay), steps, size, seeds=300, key=key)
        given = {"momentum": momentum, "preconditioning": power, "averaging": decay}
        return simulated, problem.risk(rate, steps, size, **given)

    rows = settings()
    (mean, error), risk = jax.jit(jax.vmap(both))(rows, jax.random.split(jax.random.key(0), 30))
    for step in (20, steps):
        scores = ((mean - risk) / error)[:, step]
        assert np.abs(scores).max() < 3, scores
        # Standard normal ones would be within these bounds 998 times in 1000.
        assert abs(scores.sum()) < 3.29 * np.sqrt(30), scores
        assert 11.6 < np.sum(scores**2) < 59.7, scores


def test_simulation_takes_any_transformation():
    problem = explore.noisy_quadratic(10)
    result = problem.simulate(gdtx.adam(0.05), 40, 8, seeds=20)
    assert result.risk.shape == result.standard_error.shape == (41,)
    np.testing.assert_allclose(result.risk[0], problem.loss(problem.start), rtol=1e-6)
    assert result.standard_error[0] < 1e-6  # all the same, but for the rounding of their mean
    assert result.risk[-1] < 0.2 * result.risk[0]


# Steps to a target

RATES = 1.9 * 2 ** np.arange(-7, 0.1, 0.5)
SIZES = 2.0 ** np.arange(3, 15)


@pytest.fixture(scope="module")
def studies():
    problem = explore.noisy_quadratic(60)

    def study(**others):
        return explore.steps_to_target(problem, 0.01, SIZES, RATES, max_steps=3000, **others)

    return {
        "sgd": study(),
        "momentum": study(momentum=[0.0, 0.6, 0.8, 0.9]),
        "preconditioned": study(preconditioning=0.5),
        "averaged": study(averaging=[0.0, 0.9, 0.97, 0.99, 0.997]),
    }


@pytest.mark.first(1)
def test_steps_are_where_the_risk_first_is_at_the_target(studies):
    problem = explore.noisy_quadratic(60)
    for name, study in studies.items():
        assert study.reached.all()
        for i in (0, 4, 9):
            best = {key: values[i] for key, values in study.settings.items()}
            best["preconditioning"] = 0.5 * (name == "preconditioned")
            # All of one length, for one compilation.
            risk = problem.risk(best.pop("learning_rate"), 3000, SIZES[i], **best)
            steps = int(study.steps[i])
            assert risk[steps] <= 0.01 * (1 + 1e-5)
            assert (risk[:steps] > 0.01 * (1 - 1e-5)).all()


def test_no_other_setting_is_faster(studies):
    problem, study = explore.noisy_quadratic(60), studies["sgd"]
    for i in (0, 9):
        for rate in RATES:
            risk = problem.risk(rate, 3000, SIZES[i], preconditioning=0.0)
            assert (risk[: int(study.steps[i])] > 0.01 * (1 - 1e-5)).all()


def test_momentum_and_preconditioning_extend_perfect_scaling(studies):
    critical = {name: explore.critical_batch_size(study) for name, study in studies.items()}
    assert critical["momentum"] > 2 * critical["sgd"]
    assert critical["preconditioned"] > 2 * critical["sgd"]
    # With small batches momentum does no more than the larger rate would.
    steps = {name: study.steps for name, study in studies.items()}
    assert 0.9 * steps["sgd"][0] < steps["momentum"][0] <= steps["sgd"][0]
    assert steps["momentum"][-1] < 0.5 * steps["sgd"][-1]
    # An average lets small batches do what larger ones did, and has less to give to those.
    assert steps["averaged"][0] < 0.5 * steps["sgd"][0]
    assert critical["averaged"] < critical["sgd"]


def test_small_batches_scale_perfectly_and_large_ones_do_not(studies):
    steps = studies["sgd"].steps
    assert 1.8 < steps[0] / steps[1] <= 2.05
    assert steps[-2] / steps[-1] < 1.05
    rates = studies["sgd"].settings["learning_rate"]
    # The best rate grows with the batch size, in proportion at first, up to its limit.
    assert 2.8 < rates[2] / rates[0] < 5.7  # 4, a step of the grid more or less
    assert (np.diff(rates) >= 0).all()


def test_a_rate_that_diverges_never_reaches_the_target():
    # Until the moments overflow, and after.
    problem = explore.noisy_quadratic(10)
    study = explore.steps_to_target(problem, 0.1, [8], [2.7], averaging=[0.0, 0.9], max_steps=500)
    assert not study.reached.any()
    risk = problem.risk(2.7, 500, 8, averaging=0.9)
    assert (np.diff(risk[np.isfinite(risk)][5:]) > 0).all()
    assert (risk[200:] == np.inf).all()


def test_what_is_not_reached_and_what_lies_on_the_edge():
    problem = explore.noisy_quadratic(10)
    study = explore.steps_to_target(problem, 0.1, [1, 1000], [0.05, 0.5], max_steps=50)
    assert not study.reached[0]
    assert study.steps[0] == np.inf
    assert np.isnan(study.settings["learning_rate"][0])
    assert study.on_edge["learning_rate"].tolist() == [False, True]
    assert study.warnings == [
        "batch size 1: target not reached within 50 steps",
        "best learning_rate is on the edge of its grid at batch size 1000",
    ]
    assert study.warnings[1] in repr(study)
    there = explore.steps_to_target(problem, 10.0, [1], [0.1], momentum=[0.0, 0.5])
    assert there.steps.tolist() == [0]
    assert not there.on_edge["momentum"].any(), "less than none there is not"


@pytest.mark.parametrize("name", ["noise", "start"])
def test_shapes_are_those_of_the_curvatures(name):
    with pytest.raises(ValueError, match=f"noisy_quadratic: {name} must have the shape of"):
        explore.noisy_quadratic(4, **{name: np.ones(3)})
