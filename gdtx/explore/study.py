"""Steps to a target over batch sizes: the result of a study, and the critical batch size in it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core.trees.short import in_table
from .plots import new_axes


@in_table
class BatchSizeStudy(NamedTuple):
    """The fewest steps to a target at each batch size, and the settings that took them.

    `steps` are infinite where no setting reached the target within `max_steps`, and the settings
    NaN there. `on_edge` says of each hyperparameter whether its best value is the first or last of
    its grid, so that a better one may lie outside of it (a grid of one value has no edge, and zero
    is none).
    """

    batch_sizes: np.ndarray
    steps: np.ndarray
    settings: dict[str, np.ndarray]
    on_edge: dict[str, np.ndarray]
    max_steps: np.ndarray

    @property
    def reached(self) -> np.ndarray:
        return np.isfinite(self.steps)

    @property
    def warnings(self) -> list[str]:
        """Reasons to doubt the numbers of steps, in words."""
        missed = [
            f"batch size {size:g}: target not reached within {limit:g} steps"
            for size, limit, reached in zip(
                self.batch_sizes, self.max_steps, self.reached, strict=True
            )
            if not reached
        ]
        edges = {name: self.batch_sizes[edge] for name, edge in self.on_edge.items() if edge.any()}
        return missed + [
            f"best {name} is on the edge of its grid at batch size {_listed(sizes)}"
            for name, sizes in edges.items()
        ]

    def __repr__(self) -> str:
        shown = {name: values for name, values in self.settings.items() if np.nansum(values)}
        rows = [
            f"{size:g}: {steps:g} steps"
            + "".join(f", {name}={values[i]:.3g}" for name, values in shown.items())
            for i, (size, steps) in enumerate(zip(self.batch_sizes, self.steps, strict=True))
            if self.reached[i]
        ]
        return "\n  ".join(["<BatchSizeStudy", *rows, *self.warnings]) + "\n>"

    def _facts(self) -> dict[str, Any]:
        return {
            f"batch size {size:g}": {
                "steps": steps,
                **{name: values[i] for name, values in self.settings.items()},
            }
            for i, (size, steps) in enumerate(zip(self.batch_sizes, self.steps, strict=True))
        }


def grid(grids: Mapping[str, Sequence[float]]) -> dict[str, np.ndarray]:
    """All combinations of values, as one column for each name."""
    columns = zip(*itertools.product(*grids.values()), strict=True)
    return {name: np.array(column) for name, column in zip(grids, columns, strict=True)}


def tuned(
    batch_sizes: Sequence[float],
    first: np.ndarray,
    grids: Mapping[str, Sequence[float]],
    max_steps: int | Sequence[int],
) -> BatchSizeStudy:
    """The best of all combinations, from the steps that each took: `first[setting, batch size]`.

    Of those that took equally many, one inside of the grid.
    """
    settings = grid(grids)
    edges = {name: _is_edge(settings[name], values) for name, values in grids.items()}
    outside = np.sum(list(edges.values()), axis=0)
    best = [np.lexsort((outside, column))[0] for column in first.T]
    steps = first[best, np.arange(first.shape[1])].astype(float)
    reached = np.isfinite(steps)
    return BatchSizeStudy(
        np.asarray(batch_sizes),
        steps,
        {name: np.where(reached, values[best], np.nan) for name, values in settings.items()},
        {name: reached & edge[best] for name, edge in edges.items()},
        np.broadcast_to(max_steps, steps.shape),
    )


def critical_batch_size(study: BatchSizeStudy) -> float:
    r"""Where larger batches stop to pay: $B_{crit}$ of the curve $S = S_{min} (1 + B_{crit} / B)$.

    At it the steps $S$ are twice the fewest possible, $S_{min}$, and the examples $B S$ twice the
    fewest possible, $E_{min}$; it is $E_{min} / S_{min}$, where the line of perfect scaling meets
    the floor. The curve is fitted by least squares of $\log S$, to the batch sizes that reached
    the target; they should show both the scaling and the floor.

    Args:
        study: of :func:`steps_to_target` or :func:`batch_size_study`.

    Returns:
        The critical batch size: zero without any scaling, infinite without any floor.

    Raises:
        ValueError: if fewer than three batch sizes reached the target.

    References:
        McCandlish et al. 2018, An Empirical Model of Large-Batch Training, arXiv:1812.06162.

    >>> import numpy as np
    >>> from gdtx import explore
    >>> from gdtx.explore.study import tuned
    >>> sizes = np.array([1, 10, 100, 1000])
    >>> study = tuned(sizes, 50 * (1 + 40 / sizes)[None], {"learning_rate": [0.1]}, 10_000)
    >>> round(explore.critical_batch_size(study), 2)
    40.0
    """
    sizes, steps = study.batch_sizes[study.reached], study.steps[study.reached]
    if len(sizes) < 3:
        raise ValueError(
            f"critical_batch_size: needs three batch sizes that reach the target, got {len(sizes)}"
        )

    def misfit(log_critical: np.ndarray) -> np.ndarray:
        # The variance over batch sizes of log S - log(1 + B_crit/B), whose mean is log S_min.
        return np.var(np.log(steps) - np.log1p(np.exp(log_critical)[:, None] / sizes), axis=1)

    # One smooth minimum in one dimension: a grid, and finer ones around its best point.
    points = np.linspace(np.log(sizes.min() / 1e3), np.log(sizes.max() * 1e3), 201)
    best = int(np.argmin(misfit(points)))
    if best in (0, len(points) - 1):
        return np.inf if best else 0.0
    for _ in range(5):
        points = np.linspace(points[best - 1], points[best + 1], 201)
        best = int(np.clip(np.argmin(misfit(points)), 1, len(points) - 2))
    return float(np.exp(points[best]))


def plot_batch_size_study(
    studies: BatchSizeStudy | Mapping[str, BatchSizeStudy], ax: Any = None
) -> Any:
    """Draw steps to the target over batch sizes, both as powers of two, with perfect scaling.

    The dashed line halves the steps with each doubling, from the smallest batch size on. Hollow
    markers have their best setting on an edge of the grid; crosses did not reach the target in the
    steps at which they stand. Needs matplotlib, which the extra `viz` installs.

    Args:
        studies: one, or several by label.
        ax: axes of matplotlib to draw on, new ones by default.

    Returns:
        The axes; nothing is shown or saved.

    Raises:
        ImportError: if matplotlib is not installed.

    >>> from gdtx import explore
    >>> study = explore.steps_to_target(explore.noisy_quadratic(10), 0.1, [4, 8], [0.1, 0.2])
    >>> explore.plot_batch_size_study(study).get_ylabel()
    'steps to target'
    """
    ax = new_axes("plot_batch_size_study") if ax is None else ax
    labelled = {"": studies} if isinstance(studies, BatchSizeStudy) else studies
    for i, (label, study) in enumerate(labelled.items()):
        sizes, steps, reached = study.batch_sizes, study.steps, study.reached
        style = {"color": f"C{i}", "marker": "os^Dv"[i % 5]}
        if reached.any():
            first = np.flatnonzero(reached)[np.argmin(sizes[reached])]
            perfect = steps[first] * sizes[first] / sizes
            ax.plot(sizes, perfect, "--", color=f"C{i}", linewidth=1, zorder=1)
        edge = np.any(list(study.on_edge.values()), axis=0)
        ax.plot(sizes[reached], steps[reached], label=label, **style)
        ax.plot(sizes[edge], steps[edge], "w", linestyle="", marker=style["marker"], markersize=3)
        ax.plot(sizes[~reached], study.max_steps[~reached], "x", color=f"C{i}")
    floor = min(
        (study.steps[study.reached].min() for study in labelled.values() if study.reached.any()),
        default=1.0,
    )
    ax.plot([], [], "--", color="0.5", linewidth=1, label="perfect scaling")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    # The lines of perfect scaling would go on far below all that was reached.
    ax.set_ylim(bottom=floor / 2)
    ax.set(xlabel="batch size", ylabel="steps to target")
    ax.legend()
    return ax


def _listed(sizes: np.ndarray) -> str:
    return ", ".join(f"{size:g}" for size in sizes)


def _is_edge(values: np.ndarray, candidates: Sequence[float]) -> np.ndarray:
    if len(candidates) == 1:
        return np.zeros(values.shape, bool)
    low, high = min(candidates), max(candidates)
    return (values == high) | ((values == low) & (low != 0))
