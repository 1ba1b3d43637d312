"""Paths on problems in the plane, as data and as pictures."""

import base64
import re

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest
from compilations import counted_compilations

import gdtx
from gdtx import explore

mpl.use("Agg")

PROBLEMS = {
    make.__name__: make()
    for make in (explore.quadratic, explore.rosenbrock, explore.beale, explore.rastrigin,
                 explore.saddle, explore.valley)
}  # fmt: skip
PROBLEMS["turned"] = explore.quadratic((1.0, 30.0), 0.6)
METHODS = {
    "descent": gdtx.sgd(0.01),
    "heavy ball": gdtx.sgd(0.005, momentum=0.9),
    "adam": gdtx.chain(gdtx.clip(10.0), gdtx.adam(gdtx.cosine_decay_schedule(0.1, 40))),
}


@pytest.fixture
def pyplot(monkeypatch):
    from matplotlib import pyplot

    monkeypatch.setattr(pyplot, "show", lambda *args, **kwargs: pytest.fail("shown"))
    pyplot.close("all")  # figures of other files' tests that this process ran before
    yield pyplot
    pyplot.close("all")


@pytest.fixture(scope="module")
def paths():
    return explore.trajectories(METHODS, PROBLEMS["valley"], 30)


@pytest.mark.parametrize("name", PROBLEMS)
def test_problems(name):
    problem = PROBLEMS[name]
    value, slope, curvature = jax.jit(
        lambda x: (problem.fun(x), jax.grad(problem.fun)(x), jax.hessian(problem.fun)(x))
    )(jnp.asarray(problem.minima[0]))
    assert value == 0
    np.testing.assert_array_equal(slope, [0, 0])
    assert np.all(np.linalg.eigvalsh(curvature) > 0)
    (left, right), (bottom, top) = problem.bounds
    for x, y in (problem.start, *problem.minima):
        assert left < x < right
        assert bottom < y < top
    # Nowhere in sight is it lower.
    assert explore.problems.values_on_grid(problem, 41)[2].min() >= 0
    assert problem.fun(jnp.asarray(problem.start)) > 0.1


def test_formulas_of_the_problems():
    # From the papers, in NumPy; the order of x and y matters in all but Rastrigin's.
    x, y = 0.7, -0.3
    known = {
        "quadratic": 0.5 * (x**2 + 25 * y**2),
        "rosenbrock": (1 - x) ** 2 + 100 * (y - x**2) ** 2,
        "beale": (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2,
        "rastrigin": 20 + x**2 + y**2 - 10 * (np.cos(2 * np.pi * x) + np.cos(2 * np.pi * y)),
        "saddle": (x**2 - 1) ** 2 / 4 + y**2 / 2,
        "valley": np.hypot(1, x) - 1 + 10 * y**2,
    }
    for name, value in known.items():
        np.testing.assert_allclose(PROBLEMS[name].fun(jnp.array([x, y])), value, 1e-5)


def test_curvatures_of_a_turned_bowl():
    hessian = jax.jit(jax.hessian(PROBLEMS["turned"].fun))(jnp.zeros(2))
    values, vectors = np.linalg.eigh(hessian)
    np.testing.assert_allclose(values, [1, 30], 1e-5)
    np.testing.assert_allclose(np.abs(vectors[:, 0]), [np.cos(0.6), np.sin(0.6)], 1e-5)
    assert explore.quadratic((1.0, -1.0)).minima == ()


def test_paths_are_those_of_a_loop(paths):
    problem, steps = PROBLEMS["valley"], 30
    assert list(paths.positions) == list(METHODS)
    assert paths.transformations == METHODS
    for name, tx in METHODS.items():
        x = jnp.asarray(problem.start)
        state, positions = tx.init(x), [x]

        @jax.jit
        def step(x, state, tx=tx):
            updates, state = tx.update(jax.grad(problem.fun)(x), state, x)
            return gdtx.apply_updates(x, updates), state

        for _ in range(steps):
            x, state = step(x, state)
            positions.append(x)
        assert isinstance(paths.positions[name], np.ndarray)
        np.testing.assert_allclose(paths.positions[name], positions, 1e-4, 1e-5)
        losses = jax.vmap(problem.fun)(jnp.stack(positions))
        np.testing.assert_allclose(paths.losses[name], losses, 1e-4, 1e-5)


def test_one_program_for_all():
    explore.trajectories({"": gdtx.sgd(0.1)}, PROBLEMS["saddle"], 3)  # the small operations
    with counted_compilations() as programs:
        explore.trajectories(METHODS, PROBLEMS["saddle"], 20)
    assert len(programs) == 1


def test_start_and_divergence():
    runs = explore.trajectories({"far": gdtx.sgd(3.0)}, PROBLEMS["rosenbrock"], 20, (0.5, 2.0))
    np.testing.assert_array_equal(runs.positions["far"][0], [0.5, 2.0])
    assert not np.isfinite(runs.losses["far"][-1])


def test_tuned():
    problem, rates = explore.quadratic((1.0, 25.0)), [0.001, 0.01, 0.07, 0.5]
    methods = {"descent": gdtx.sgd(9.0), "clipped": gdtx.chain(gdtx.clip(1.0), gdtx.adam(9.0))}
    best = explore.tuned(methods, problem, 40, rates)
    assert list(best) == list(methods)
    assert best["descent"] == gdtx.sgd(0.07)
    for name, tx in best.items():
        path = "learning_rate" if name == "descent" else "1.learning_rate"
        tried = {str(rate): gdtx.replace(methods[name], {path: rate}) for rate in rates}
        losses = explore.trajectories(tried, problem, 40).losses
        last = {rate: x[-1] for rate, x in losses.items() if np.isfinite(x[-1])}
        assert tx == tried[min(last, key=last.get)]


@pytest.mark.parametrize(("kind", "message", "call"), [
    (ValueError, "tuned: 'wild' diverges at every learning rate from 10 to 100: its loss after 9 "
     "steps is above", lambda p: explore.tuned({"wild": gdtx.sgd(0.1)}, p, 9, [10.0, 100.0])),
    (TypeError, "tuned: 'none' must have one learning rate that is a number, got none in trace(",
     lambda p: explore.tuned({"none": gdtx.trace(0.9)}, p, 9, [0.1])),
    (TypeError, "tuned: 'two' must have one learning rate that is a number, got 0.learning_rate, "
     "1.learning_rate", lambda p: explore.tuned(
         {"two": gdtx.chain(gdtx.adam(0.1), gdtx.sgd(0.1))}, p, 9, [0.1])),
    (TypeError, "must have one learning rate that is a number, got none in sgd(learning_rate=cos",
     lambda p: explore.tuned({"s": gdtx.sgd(gdtx.cosine_decay_schedule(0.1, 9))}, p, 9, [0.1])),
    (TypeError, "trajectories: 'a' must be a transformation (a pair of init and update), got the "
     "function adam", lambda p: explore.trajectories({"a": gdtx.adam}, p, 9)),
    (ValueError, "trajectories: needs a dict of transformations by name, got {}",
     lambda p: explore.trajectories({}, p, 9)),
    (ValueError, "trajectories: steps must be a non-negative integer, got -2",
     lambda p: explore.trajectories(METHODS, p, -2)),
    (ValueError, "trajectories: start must be two numbers, got an array of shape (3,)",
     lambda p: explore.trajectories(METHODS, p, 9, (1, 2, 3))),
    (ValueError, "animate: path must end in .gif or .html, got 'a.mp4'",
     lambda p: explore.animate(explore.trajectories(METHODS, p, 2), "a.mp4")),
])  # fmt: skip
def test_what_is_wrong_is_named(kind, message, call):
    with pytest.raises(kind, match=re.escape(message)):
        call(PROBLEMS["quadratic"])


def labelled(ax):
    return [line for line in ax.get_lines() if not line.get_label().startswith("_")]


def test_plot_of_paths(paths, pyplot):
    _, axes = pyplot.subplots(1, 2)
    assert explore.plot_trajectories(paths, ax=axes) is axes
    plane, curves = axes
    for line, path in zip(labelled(plane), paths.positions.values(), strict=True):
        np.testing.assert_array_equal(line.get_xydata(), path)
    for line, losses in zip(curves.get_lines(), paths.losses.values(), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), losses)
    names = [text.get_text() for text in curves.get_legend().get_texts()]
    assert names == list(METHODS)
    # Of each method the path, its start and its end; and the minimum.
    assert len(plane.get_lines()) == 3 * len(METHODS) + 1
    levels = plane.collections[0].levels
    np.testing.assert_allclose(np.diff(np.log(levels)), np.log(1e4) / 16, 1e-3)
    assert (plane.get_xlim(), plane.get_ylim()) == paths.problem.bounds
    assert all((plane.get_xlabel(), plane.get_ylabel(), curves.get_xlabel(), curves.get_ylabel()))
    plane.figure.draw_without_rendering()


def test_paths_on_each_other_are_both_seen(pyplot):
    """The shorter lies above the longer one and is narrower, whatever their order."""
    methods = {"short": gdtx.sgd(0.01), "long": gdtx.sgd(0.1)}
    for names in (methods, dict(reversed(methods.items()))):
        paths = explore.trajectories(names, explore.quadratic(), 20)
        _, ax = pyplot.subplots()
        explore.plot_trajectories(paths, ax=ax)
        lines = {line.get_label(): line for line in labelled(ax)}
        assert lines["short"].get_zorder() > lines["long"].get_zorder()
        assert lines["short"].get_linewidth() < lines["long"].get_linewidth()


def test_no_plot_changes_the_users_style(paths, pyplot):
    before = dict(pyplot.rcParams)
    explore.plot_trajectories(paths)
    gdtx.plot_schedule(gdtx.linear_schedule(0.0, 1.0, 4), 3)
    assert dict(pyplot.rcParams) == before


def test_plot_of_paths_alone(paths, pyplot):
    _, ax = pyplot.subplots()
    assert explore.plot_trajectories(paths, ax=ax) is ax
    assert len(ax.get_legend().get_texts()) == len(METHODS)
    assert len(pyplot.get_fignums()) == 1


@pytest.mark.parametrize("name", ["saddle", "without a minimum"])
def test_plot_of_what_runs_away(name, pyplot):
    problem = PROBLEMS.get(name) or explore.quadratic((1.0, -1.0))
    methods = {"wild": gdtx.sgd(9.0), "ends at 0": gdtx.sgd(1.0), "tame": gdtx.sgd(0.1)}
    runs = explore.trajectories(methods, problem, 60)
    assert not np.isfinite(runs.positions["wild"][-1]).all() or name != "saddle"
    plane, curves = explore.plot_trajectories(runs)
    drawn = {line.get_label(): line.get_xydata() for line in labelled(plane)}
    for method, path in runs.positions.items():
        near = np.logical_and.accumulate(np.isfinite(drawn[method]).all(1))
        np.testing.assert_array_equal(drawn[method][near], path[near])
        # Gone for good, and not by little.
        assert not np.isfinite(drawn[method][~near]).any()
        assert near.all() or np.abs(path[~near][0]).max() > 30
        assert not near.all() or method != "wild"
    curves.figure.canvas.draw()
    assert curves.get_ylim()[1] <= 100 * runs.losses["tame"][0] or name != "saddle"
    explore.plot_gallery(runs)[0].figure.canvas.draw()


def test_gallery(paths, pyplot):
    panels = explore.plot_gallery(paths)
    titles = [panel.get_title().splitlines() for panel in panels]
    assert [name for name, _ in titles] == list(METHODS)
    losses = {name: f"loss {x[-1]:.1e}" for name, x in paths.losses.items()}
    assert titles[0][1] == f"η = 0.01, {losses['descent']}"
    assert titles[2][1] == losses["adam"]  # its rate is a schedule
    assert len({panel.figure for panel in panels}) == 1
    assert len(panels[0].figure.axes) == 3
    _, axes = pyplot.subplots(2, 2)
    assert explore.plot_gallery(paths, ax=axes) is axes
    assert [len(labelled(panel)) for panel in axes.flat] == [1, 1, 1, 0]
    with pytest.raises(ValueError, match="plot_gallery: 3 methods need as many axes, got 1"):
        explore.plot_gallery(paths, ax=axes[0, 0])


def test_gallery_in_rows(pyplot):
    methods = {str(i): gdtx.sgd(0.01) for i in range(5)}
    panels = explore.plot_gallery(explore.trajectories(methods, PROBLEMS["saddle"], 2))
    assert len(panels) == len(panels[0].figure.axes) == 5


def test_animation(paths, pyplot, tmp_path):
    from PIL import Image

    animation = explore.animate(paths, tmp_path / "paths.gif", fps=10, frames=6)
    with Image.open(tmp_path / "paths.gif") as image:
        assert (image.format, image.n_frames) == ("GIF", 6)
        assert image.info["duration"] == 100
    ax = animation._fig.axes[0]
    heads = [line for line in ax.get_lines() if line.get_marker() == "o"][-3:]
    for line, head, path in zip(labelled(ax), heads, paths.positions.values(), strict=True):
        np.testing.assert_array_equal(line.get_xydata(), path)
        np.testing.assert_array_equal(head.get_xydata(), path[-1:])


def test_animation_as_html(paths, pyplot, tmp_path):
    _, ax = pyplot.subplots(figsize=(2, 2))
    explore.animate(paths, str(tmp_path / "paths.html"), frames=3, ax=ax)
    page = (tmp_path / "paths.html").read_text()
    images = re.findall(r'"data:image/png;base64,([^"]+)"', page)
    assert len(images) == 3
    assert all(base64.b64decode(x.replace("\\\n", ""))[:4] == b"\x89PNG" for x in images)
    assert len(pyplot.get_fignums()) == 1


def test_names_are_documented():
    for name in ("minimize", "trajectories", "tuned", "plot_trajectories", "plot_gallery",
                 "animate", *(p for p in PROBLEMS if p != "turned")):  # fmt: skip
        assert ">>> " in getattr(explore, name).__doc__
