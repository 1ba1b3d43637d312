"""The pictures of the reference: paths on a valley, sequences of gradients, schedules."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jax
import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

import gdtx
from gdtx import explore

from . import examples, paths, sequences
from .inventory import Entry, by_path, entries

SIZE = (4.6, 2.1)
STYLE = "gdtx.explore.gdtx"


def figures(folder: Path, redraw: bool = True) -> dict[str, str]:
    """The figure of each name that has one, in MyST.

    They are drawn anew where the code has changed, unless they are to stay as they were drawn.
    """
    folder.mkdir(exist_ok=True)
    kept, key = folder / "figures.json", _key()
    if kept.exists():
        before = json.loads(kept.read_text())
        if before["key"] == key or not redraw:
            return before["figures"]
    if not redraw:
        return {}
    paths_of = [entry.path for entry in entries() if drawn(entry) is not None]
    # Not forked: a process that has run JAX has threads.
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        made = pool.map(partial(_figure_of, folder), paths_of, chunksize=8)
        found = dict(zip(paths_of, made, strict=True))
    kept.write_text(json.dumps({"key": key, "figures": found}))
    return found


def drawn(entry: Entry) -> Callable[[Any], tuple[str, str]] | None:
    """What draws its picture on axes, and returns the alternative text and the caption."""
    if not (entry.is_transformation or entry.is_schedule) or examples.example(entry) is None:
        return None
    draw = _schedule if entry.is_schedule else _sequence if sequences.is_sequence(entry) else _path
    return partial(draw, entry)


def _figure_of(folder: Path, path: str) -> str:
    return figure(by_path()[path], folder)


def figure(entry: Entry, folder: Path) -> str:
    """Draw the picture into the folder, and return its figure in MyST."""
    draw = drawn(entry)
    assert draw is not None, entry.path
    with plt.style.context(STYLE):
        canvas, ax = plt.subplots(figsize=SIZE)
        alt, caption = draw(ax)
        canvas.savefig(folder / f"{entry.page}.png")
        plt.close(canvas)
    return "\n".join(
        [
            f"```{{figure}} pictures/{entry.page}.png",
            f":alt: {alt}",
            ":width: 530px",
            "",
            caption,
            "```",
        ]
    )


def _path(entry: Entry, ax: Any) -> tuple[str, str]:
    path = paths.path(entry)
    descent = paths.descent(path.problem.name)
    x, y, values = map(np.asarray, explore.problems.values_on_grid(path.problem))
    levels = np.geomspace(0.05, np.nanmax(values), 14)
    ax.contour(x, y, values, levels=levels, colors="0.8", linewidths=0.6, zorder=1)
    for i, (name, each) in enumerate({"gradient descent": descent, entry.name: path}.items()):
        # The one below is wide, so that both are seen where they lie on each other.
        color, width = ("#e9b48a", 2.5) if i == 0 else ("C0", 1)
        rate = "" if each.rate is None else f", η = {each.rate:.2g}"
        ax.plot(*each.positions.T, "-", color=color, linewidth=width, label=f"{name}{rate}")
        ax.plot(*each.positions.T, ".", color="C1" if i == 0 else "C0", markersize=3)
        ax.plot(*each.positions[-1], "s", color="C1" if i == 0 else "C0", markersize=5)
    ax.plot(*path.problem.start, "o", color="black", markersize=4, zorder=5)
    ax.plot(0, 0, "*", color="black", markersize=8, zorder=5)
    (left, right), (low, high) = path.problem.bounds
    ax.set(xlim=(left, right), ylim=(low, high), xlabel="x", ylabel="y")
    ax.figure.legend(loc="outside upper left", ncols=2)
    problem = path.problem.name
    after = f"loss {path.losses[-1]:.2g} against {descent.losses[-1]:.2g} of gradient descent"
    how = (
        f"each at the best of {len(paths.RATES)} learning rates at which it stays in the picture"
        if path.rate is not None
        else "gradient descent at its best learning rate"
    )
    where = f"{paths.STEPS} steps on {{py:obj}}`~gdtx.explore.{problem}`"
    alt = f"Path of {entry.name} down a long {problem} beside that of gradient descent."
    return alt, f"{where}, from the dot toward the star, {how}: {after}."


def _sequence(entry: Entry, ax: Any) -> tuple[str, str]:
    given = sequences.gradients(entry)
    made = sequences.outputs(entry, given)
    ax.plot(given, ".-", color="0.72", linewidth=3, markersize=6, label="in")
    ax.plot(made, color="C0", label="out")
    shown = np.concatenate([made[np.isfinite(made)], np.clip(given[np.isfinite(given)], -3, 3)])
    low, high = shown.min(), shown.max()
    ax.set(
        xlabel="step", ylabel="update", ylim=(low - 0.1 * (high - low), high + 0.1 * (high - low))
    )
    ax.figure.legend(loc="outside upper left", ncols=2)
    alt = f"What {entry.name} makes of a sequence of noisy gradients, step by step."
    caption = (
        f"What `{examples.call(entry)}` makes of the gradients of one parameter, whose value is "
        f"{sequences.PARAMETER}, in {sequences.dtype(entry)}."
    )
    return alt, caption


def _schedule(entry: Entry, ax: Any) -> tuple[str, str]:
    gdtx.plot_schedule(examples.example(entry), 121, ax)
    if ax.get_legend():
        ax.get_legend().remove()
    ax.set(ylabel="value")
    alt = f"The values of {entry.name} over 120 steps."
    return alt, f"`{examples.call(entry)}` over the steps."


def _key() -> str:
    """Of all that the pictures depend on."""
    package, here = Path(gdtx.__file__).parent, Path(__file__).parent
    digest = hashlib.sha256(f"{jax.__version__} {mpl.__version__}".encode())
    files = sorted([*package.rglob("*.py"), *package.rglob("*.mplstyle"), *here.glob("*.py")])
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()
