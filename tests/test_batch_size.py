"""The gradient noise scale, studies of the batch size, and the critical batch size in them."""

import itertools

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest
from compilations import counted_compilations

import gdtx
from gdtx import explore
from gdtx.explore.study import BatchSizeStudy

mpl.use("Agg")


def squared_error(params, batch):
    x, y = batch
    return 0.5 * jnp.mean((x @ params["w"] + params["b"] - y) ** 2)


def sample(seed, n, d=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)).astype(np.float32)
    return x, (x @ np.arange(1.0, d + 1) + 0.5 * rng.normal(size=n)).astype(np.float32)


# The noise scale


def per_example(params, x, y):
    """Gradients of single examples, by hand."""
    x, y, w, b = (np.asarray(a, np.float64) for a in (x, y, params["w"], params["b"]))
    residual = x @ w + b - y
    return np.column_stack([residual[:, None] * x, residual])


PARAMS = {"w": jnp.array([0.5, -1.0, 2.0]), "b": jnp.array(0.3)}


@pytest.mark.parametrize("together", [1, 7, 64])
def test_noise_scale_of_all_data_is_exact(together):
    x, y = sample(0, 40)
    found = explore.gradient_noise_scale(squared_error, PARAMS, (x, y), together=together)
    g = per_example(PARAMS, x, y)
    trace, signal = np.trace(np.cov(g.T, bias=True)), np.sum(g.mean(0) ** 2)
    np.testing.assert_allclose(found.trace, trace, rtol=1e-5)
    np.testing.assert_allclose(found.squared_norm, signal, rtol=1e-5)
    np.testing.assert_allclose(found.scale, trace / signal, rtol=1e-5)


def test_estimate_from_single_examples_is_the_sample_covariance():
    x, y = sample(0, 40)
    found = explore.gradient_noise_scale(squared_error, PARAMS, (x, y), 1)
    g = per_example(PARAMS, x, y)
    trace = np.trace(np.cov(g.T))
    np.testing.assert_allclose(found.trace, trace, rtol=1e-5)
    np.testing.assert_allclose(found.squared_norm, np.sum(g.mean(0) ** 2) - trace / 40, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 4])
def test_estimates_are_unbiased(size):
    """For x ~ N(0, I) and y = x·w + noise of variance σ², with e the error of the parameters,

    E g = e and E |g|² = (d + 2) |e|² + σ² d, from the fourth moments of the normal distribution.
    """
    d, n, repeats, noise, error = 3, 16, 4000, 0.5, jnp.array([0.3, -0.5, 0.4])
    key_x, key_n = jax.random.split(jax.random.key(0))
    x = jax.random.normal(key_x, (repeats, n, d))
    y = noise * jax.random.normal(key_n, (repeats, n))

    def estimate(x, y):
        return explore.gradient_noise_scale(
            lambda w, batch: 0.5 * jnp.mean((batch[0] @ w - batch[1]) ** 2), error, (x, y), size
        )

    found = jax.jit(jax.vmap(estimate))(x, y)
    signal = float(jnp.sum(error**2))
    truth = (d + 1) * signal + noise**2 * d
    for estimates, expected in ((found.trace, truth), (found.squared_norm, signal)):
        error_of_mean = estimates.std() / np.sqrt(repeats)
        assert abs(estimates.mean() - expected) < 3 * error_of_mean
        # It could tell a bias of 6 % from none.
        assert 3 * error_of_mean < 0.06 * expected
    scale = found.trace.mean() / found.squared_norm.mean()
    np.testing.assert_allclose(scale, truth / signal, rtol=0.05)


@pytest.mark.parametrize("size", [0, 3, 40])
def test_batches_must_divide_the_data(size):
    with pytest.raises(ValueError, match="gradient_noise_scale: batch_size must be a divisor of"):
        explore.gradient_noise_scale(squared_error, PARAMS, sample(0, 40), size)


def test_examples_lie_along_the_first_axis():
    x, y = sample(0, 40)
    with pytest.raises(ValueError, match="gradient_noise_scale: data must have the examples"):
        explore.gradient_noise_scale(squared_error, PARAMS, (x, y[:20]))
    with pytest.raises(ValueError, match="batch_size_study: data must have the examples"):
        explore.batch_size_study(
            squared_error, PARAMS, (x, y[:20]), gdtx.sgd(0.1), {"learning_rate": [0.1]}, [4], 0.1
        )


# Studies


def bowl(w, batch):
    return 0.5 * jnp.mean(batch) * w**2


@pytest.mark.slow
def test_steps_without_noise_are_those_of_gradient_descent():
    # All examples alike: after t steps w is (1 - ηh)^t, and the loss h/2 times its square.
    h, target, rates = 2.0, 1e-3, [0.01, 0.1, 0.3, 0.9, 1.2]
    study = explore.batch_size_study(
        bowl, jnp.array(1.0), jnp.full(10, h), gdtx.sgd(0.1), {"learning_rate": rates}, [1, 8],
        target,
    )  # fmt: skip
    contraction = abs(1 - 0.3 * h)
    expected = np.ceil(np.log(target / (h / 2)) / (2 * np.log(contraction)))
    assert study.steps.tolist() == [expected, expected]
    np.testing.assert_allclose(study.settings["learning_rate"], 0.3)
    assert not study.on_edge["learning_rate"].any()
    assert study.warnings == []


def test_study_is_a_training_loop():
    x, y = sample(1, 30)
    start = {"w": jnp.zeros(3), "b": jnp.zeros(())}
    grids = {"learning_rate": [0.02, 0.1], "momentum": [0.0, 0.9]}
    study = explore.batch_size_study(
        squared_error, start, (x, y), gdtx.sgd(0.1, momentum=0.5), grids, [30], 0.2,
        every=2, microbatch=10, key=jax.random.key(3),
    )  # fmt: skip

    def batch(t):
        (key,) = jax.random.split(jax.random.key(3), 1)
        keys = (jax.random.fold_in(jax.random.fold_in(key, t), part) for part in range(3))
        chosen = jnp.concatenate([jax.random.randint(key, (10,), 0, 30) for key in keys])
        return x[chosen], y[chosen]

    def first(tx):
        params, state = start, tx.init(start)
        for t in range(200):
            updates, state = tx.update(gradient(params, batches[t]), state, params)
            params = gdtx.apply_updates(params, updates)
            if t % 2 and squared_error(params, (x, y)) <= 0.2:
                return t + 1
        return np.inf

    batches = [batch(t) for t in range(200)]

    gradient = jax.jit(jax.grad(squared_error))
    arrays = gdtx.as_arrays(gdtx.sgd(0.1, momentum=0.5))
    steps = {
        pair: first(arrays.replace(learning_rate=jnp.array(pair[0]), momentum=jnp.array(pair[1])))
        for pair in itertools.product(*grids.values())
    }
    assert study.steps[0] == min(steps.values())
    best = min(steps, key=steps.get)
    np.testing.assert_allclose([v[0] for v in study.settings.values()], best, rtol=1e-6)


@pytest.mark.slow
def test_small_batches_of_a_study_take_more_steps():
    x, y = data = sample(2, 200)
    start = {"w": jnp.zeros(3), "b": jnp.zeros(())}
    residuals = np.linalg.lstsq(np.column_stack([x, np.ones(200)]), y, rcond=None)[1]
    target = 1.02 * 0.5 * float(residuals[0]) / 200
    study = explore.batch_size_study(
        squared_error, start, data, gdtx.average(gdtx.sgd(0.1), 0.8),
        {"inner.learning_rate": 2.0 ** np.arange(-9, 2)}, [1, 8, 64], target, seeds=5,
        max_steps={1: 2400, 8: 800, 64: 200}.__getitem__, every=lambda size: max(1, 16 // size),
    )  # fmt: skip
    assert study.warnings == []
    assert study.steps[0] > 3 * study.steps[1] > 6 * study.steps[2]
    assert (np.diff(study.settings["inner.learning_rate"]) > 0).all()
    assert (study.steps % [16, 2, 1] == 0).all()
    assert study.max_steps.tolist() == [2400, 800, 200]


def test_a_batch_size_is_one_compilation_and_with_microbatches_all_are():
    def study(sizes, **others):
        return explore.batch_size_study(
            bowl, jnp.array(1.0), jnp.ones(10), gdtx.sgd(0.1), {"learning_rate": [0.1]}, sizes,
            0.1, **others,
        )  # fmt: skip

    study([1])  # single operations, which are compiled once for all
    with counted_compilations() as compiled:
        study([2, 3])
        assert len(compiled) == 2
        study([2, 6, 10], microbatch=2, max_steps=lambda size: 10 * size, every=lambda size: size)
        assert len(compiled) == 3
    with pytest.raises(ValueError, match="microbatch must divide the batch sizes, got 4 for 10"):
        study([8, 10], microbatch=4)


def test_study_says_what_it_did_not_reach():
    study = explore.batch_size_study(
        bowl, jnp.array(1.0), jnp.ones(10), gdtx.sgd(0.1),
        {"learning_rate": [1e-3, 1e-2]}, [2, 4], 1e-2,
        max_steps=lambda size: 100 if size == 2 else 1000,
    )  # fmt: skip
    assert study.reached.tolist() == [False, True]
    assert study.warnings == [
        "batch size 2: target not reached within 100 steps",
        "best learning_rate is on the edge of its grid at batch size 4",
    ]


def test_study_of_another_metric():
    study = explore.batch_size_study(
        bowl, jnp.array(1.0), jnp.ones(10), gdtx.sgd(0.1), {"learning_rate": [0.1]}, [2], 0.5,
        metric=jnp.abs,
    )  # fmt: skip
    assert study.steps.tolist() == [7]  # 0.9^7 is the first power below one half
    with pytest.raises(TypeError, match="no argument 'rate' to replace"):
        explore.batch_size_study(
            bowl, jnp.array(1.0), jnp.ones(10), gdtx.sgd(0.1), {"rate": [0.1]}, [2], 0.5
        )


# The critical batch size


def made(sizes, steps, edge=None):
    sizes, steps = np.asarray(sizes, float), np.asarray(steps, float)
    edge = np.zeros(sizes.shape, bool) if edge is None else np.asarray(edge)
    settings = {"learning_rate": np.ones(sizes.shape)}
    return BatchSizeStudy(
        sizes, steps, settings, {"learning_rate": edge}, np.full(sizes.shape, 10_000)
    )


@pytest.mark.parametrize("critical", [3.0, 100.0, 5000.0])
def test_critical_batch_size_of_the_curve_itself(critical):
    sizes = 2.0 ** np.arange(0, 14, 2)
    found = explore.critical_batch_size(made(sizes, 30 * (1 + critical / sizes)))
    np.testing.assert_allclose(found, critical, rtol=1e-4)


def test_critical_batch_size_leaves_out_what_was_not_reached():
    sizes = 2.0 ** np.arange(0, 14, 2)
    steps = 30 * (1 + 64.0 / sizes)
    steps[0] = np.inf
    np.testing.assert_allclose(explore.critical_batch_size(made(sizes, steps)), 64, rtol=1e-4)
    with pytest.raises(ValueError, match="critical_batch_size: needs three batch sizes that reach"):
        explore.critical_batch_size(made([1, 2, 4], [5, np.inf, 3]))


def test_critical_batch_size_without_scaling_or_floor():
    assert explore.critical_batch_size(made([1, 2, 4], [5, 5, 5])) == 0
    assert explore.critical_batch_size(made([1, 2, 4], [40, 20, 10])) == np.inf


# Drawn


@pytest.fixture
def ax():
    from matplotlib import pyplot

    yield pyplot.subplots()[1]
    pyplot.close("all")


def test_plot_of_a_study(ax):
    study = made([1, 2, 4, 8], [np.inf, 64, 40, 30], [False, False, True, False])
    assert explore.plot_batch_size_study(study, ax=ax) is ax
    perfect, curve, edge, missed, _ = ax.get_lines()
    np.testing.assert_allclose(perfect.get_ydata(), [128, 64, 32, 16])
    assert curve.get_xydata().tolist() == [[2, 64], [4, 40], [8, 30]]
    assert edge.get_xydata().tolist() == [[4, 40]]
    assert missed.get_xydata().tolist() == [[1, 10_000]]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_xlabel() == "batch size"
    ax.figure.draw_without_rendering()


def test_plot_of_several_studies(ax):
    studies = {"one": made([1, 2, 4], [9, 6, 5]), "other": made([1, 2, 4], [np.inf] * 3)}
    explore.plot_batch_size_study(studies, ax=ax)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["one", "other", "perfect scaling"]
    ax.figure.draw_without_rendering()
