"""Paths in the plane, drawn and moving."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from .plots import new_axes
from .problems import Problem, values_on_grid
from .trajectories import Trajectories, learning_rates

_LINES = ("-", "--", "-.", ":")


def plot_trajectories(result: Trajectories, ax: Any = None) -> Any:
    """Draw paths over the contours of the problem, and the losses over the steps beside them.

    Contours are spaced by equal factors above the least value. Circles mark the start, squares the
    ends, stars the minima. Needs matplotlib, which the extra `viz` installs.

    Args:
        result: of :func:`trajectories`.
        ax: axes of matplotlib to draw on: one, for the paths alone, or two, for the paths and the
            losses. New ones by default, two.

    Returns:
        The axes; nothing is shown or saved.

    Raises:
        ImportError: if matplotlib is not installed.

    >>> from gdtx import explore
    >>> import gdtx
    >>> paths = explore.trajectories({"a": gdtx.adam(0.1)}, explore.rosenbrock(), 30)
    >>> left, right = explore.plot_trajectories(paths)
    >>> right.get_yscale()
    'log'
    """
    own = ax is None
    ax = new_axes("plot_trajectories", 1, 2, (9.5, 3.8)) if own else ax
    plane, *others = np.ravel(ax)
    _contours(result.problem, plane)
    # The shorter a path, the higher and the narrower: of paths on each other all are seen.
    paths = result.positions
    drawn = [_within(path, result.problem) for path in paths.values()]
    lengths = [np.nansum(np.hypot(*np.diff(path, axis=0).T)) for path in drawn]
    height = np.argsort(np.argsort(lengths)[::-1])
    for i, (name, path) in enumerate(paths.items()):
        _path(path, result.problem, plane, i, name, height[i] / len(paths))
    _start_and_minima(result, plane)
    _frame(result.problem, plane)
    plane.set_title(result.problem.name)
    if others:
        _losses(result, others[0])
    # Beside the last axes where the place is ours, so that it covers nothing.
    beside = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if own else {"loc": "best"}
    (others[0] if others else plane).legend(**beside)
    return ax


def plot_gallery(result: Trajectories, ax: Any = None) -> Any:
    """Draw each path in a panel of its own, titled with its learning rate and last loss.

    Needs matplotlib, which the extra `viz` installs.

    Args:
        result: of :func:`trajectories`; see :func:`tuned` for methods at their best.
        ax: axes of matplotlib to draw on, at least as many as there are methods; new ones by
            default.

    Returns:
        The axes, as they came, or an array of them; nothing is shown or saved.

    Raises:
        ValueError: if there are fewer axes than methods.
        ImportError: if matplotlib is not installed.

    >>> from gdtx import explore
    >>> import gdtx
    >>> methods = {"descent": gdtx.sgd(0.01), "momentum": gdtx.sgd(0.01, momentum=0.9)}
    >>> panels = explore.plot_gallery(explore.trajectories(methods, explore.quadratic(), 50))
    >>> [panel.get_title().splitlines()[0] for panel in panels]
    ['descent', 'momentum']
    """
    count = len(result.positions)
    if ax is None:
        columns = min(4, count)
        rows = math.ceil(count / columns)
        axes = np.ravel(new_axes("plot_gallery", rows, columns, (2.6 * columns + 0.5, 2.8 * rows)))
        for spare in axes[count:]:
            spare.remove()
        ax = axes[:count]
    panels = np.ravel(ax)
    if len(panels) < count:
        raise ValueError(f"plot_gallery: {count} methods need as many axes, got {len(panels)}")
    grid = values_on_grid(result.problem)
    for panel, (name, path) in zip(panels, result.positions.items(), strict=False):
        _contours(result.problem, panel, grid)
        _path(path, result.problem, panel, 0, name)
        _start_and_minima(result, panel)
        _frame(result.problem, panel)
        rates = learning_rates(result.transformations[name]).values()
        rate = ", ".join(f"η = {float(rate):.2g}" for rate in rates)
        loss = f"loss {result.losses[name][-1]:.1e}"
        panel.set_title(f"{name}\n{', '.join(filter(None, (rate, loss)))}", size="medium")
        panel.label_outer()
    return ax


def animate(
    result: Trajectories,
    path: str | Path | None = None,
    fps: int = 20,
    frames: int = 100,
    ax: Any = None,
) -> Any:
    """Let the paths move, all at the same pace, and write that to a file if asked for.

    Needs matplotlib, which the extra `viz` installs.

    Args:
        result: of :func:`trajectories`.
        path: a file to write, with the ending .gif or .html.
        fps: frames per second.
        frames: how many frames at most, spread evenly over the steps.
        ax: axes of matplotlib to draw on, new ones by default.

    Returns:
        The animation, of matplotlib's class `FuncAnimation`. Keep it while it is to move.

    Raises:
        ValueError: if the path has another ending.
        ImportError: if matplotlib is not installed.

    >>> from gdtx import explore
    >>> import gdtx, pathlib, tempfile
    >>> paths = explore.trajectories({"sgd": gdtx.sgd(0.01)}, explore.quadratic(), 20)
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "sgd.gif"
    >>> animation = explore.animate(paths, file, frames=5)
    >>> file.read_bytes()[:4]
    b'GIF8'
    """
    file = None if path is None else Path(path)
    if file is not None and file.suffix not in (".gif", ".html"):
        raise ValueError(f"animate: path must end in .gif or .html, got {str(path)!r}")
    ax = new_axes("animate") if ax is None else ax
    from matplotlib.animation import FuncAnimation, PillowWriter

    _contours(result.problem, ax)
    _start_and_minima(result, ax)
    paths = {
        name: _within(positions, result.problem) for name, positions in result.positions.items()
    }
    drawn = {}
    for i, name in enumerate(paths):
        style = _style(i)
        (line,) = ax.plot([], [], **style, label=name)
        (head,) = ax.plot([], [], "o", color=style["color"], markeredgecolor="white", zorder=4)
        drawn[name] = line, head
    _frame(result.problem, ax)
    ax.legend(loc="best")
    steps = len(next(iter(paths.values()))) - 1
    shown = np.unique(np.linspace(0, steps, min(frames, steps + 1)).round().astype(int))

    def draw(step: int) -> list[Any]:
        ax.set_title(f"{result.problem.name}, step {step}")
        for name, (line, head) in drawn.items():
            line.set_data(*paths[name][: step + 1].T)
            head.set_data(*paths[name][step : step + 1].T)
        return [artist for pair in drawn.values() for artist in pair]

    animation = FuncAnimation(ax.figure, draw, frames=list(map(int, shown)), interval=1000 / fps)
    if file is not None and file.suffix == ".gif":
        animation.save(file, writer=PillowWriter(fps=fps))
    elif file is not None:
        file.write_text(animation.to_jshtml(fps=fps))
    return animation


def _style(i: int, lines: Sequence[str] = ("-",)) -> dict[str, Any]:
    return {"color": f"C{i % 10}", "linestyle": lines[i % len(lines)], "linewidth": 1.6}


def _least(problem: Problem) -> float | None:
    """The least value, where there is one."""
    points = [jnp.asarray(point, float) for point in problem.minima]
    return min(map(float, map(problem.fun, points)), default=None)


def _contours(problem: Problem, ax: Any, grid: Sequence[Any] | None = None) -> None:
    x, y, values = map(np.asarray, grid or values_on_grid(problem))
    least = _least(problem)
    least = np.nanmin(values) if least is None else least
    height = np.nanmax(values) - least
    levels = least + np.geomspace(1e-4, 1.0, 17)[:-1] * height
    ax.contour(x, y, values, levels=levels, cmap="Greys_r", linewidths=0.7, zorder=1, alpha=0.6)


def _within(path: np.ndarray, problem: Problem) -> np.ndarray:
    """The path as far as it stays near the picture: what runs away is not worth a line."""
    low, high = np.array(problem.bounds).T
    far = ~(np.abs(path - (low + high) / 2) <= 20 * (high - low)).all(1)
    return np.where(np.logical_or.accumulate(far)[:, None], np.nan, path)


def _path(
    path: np.ndarray, problem: Problem, ax: Any, i: int, name: str, height: float = 0.5
) -> None:
    path, style = _within(path, problem), _style(i) | {"linewidth": 2.2 - 1.2 * height}
    ax.plot(*path.T, **style, marker=".", markersize=4, label=name, zorder=2 + height)
    ax.plot(*path[-1], "s", color=style["color"], markeredgecolor="white", zorder=3)


def _start_and_minima(result: Trajectories, ax: Any) -> None:
    for path in result.positions.values():
        ax.plot(*path[0], "o", color="black", markersize=5, zorder=4)
    for point in result.problem.minima:
        ax.plot(*point, "*", color="gold", markeredgecolor="black", markersize=12, zorder=4)


def _frame(problem: Problem, ax: Any) -> None:
    ax.set(xlim=problem.bounds[0], ylim=problem.bounds[1], xlabel="$x$", ylabel="$y$")


def _losses(result: Trajectories, ax: Any) -> None:
    """The losses above the least value, on a logarithmic axis, or as they are if there is none."""
    least = _least(result.problem)
    for i, (name, losses) in enumerate(result.losses.items()):
        ax.plot(losses - (least or 0), **_style(i, _LINES), label=name)
    ax.set(xlabel="step", ylabel="loss above the least" if least else "loss")
    if least is None:
        ax.set_yscale("symlog")
        return
    ax.set_yscale("log", nonpositive="mask")
    highest = max(float(losses[0]) for losses in result.losses.values()) - least
    if highest > 0:
        # What diverges, and what is 0 up to rounding, may leave the picture: neither is to press
        # the others together.
        bottom, top = ax.get_ylim()
        ax.set_ylim(max(bottom, 1e-16 * highest), min(top, 100 * highest))
