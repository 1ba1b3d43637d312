"""One cycle against constant learning rates: steps until a given accuracy is reached.

    python benchmarks/one_cycle.py --out one_cycle.png
    python benchmarks/one_cycle.py --steps 1000 --seeds 9
    python benchmarks/one_cycle.py --still                an easier task, with less to be had
    python benchmarks/one_cycle.py --smoke                a few seconds, to see that it runs

A small network learns to read handwritten digits, each at any of nine places; held out are images
of other digits, each at one place. Smith & Topin 2018 (Super-Convergence, arXiv:1708.07120) say
that one cycle with a large peak takes fewer steps than training with any constant rate. To see
whether it does, both sides get as many trainings, on the same rates:

- constants: every rate with every momentum, trained to the end of the budget of steps;
- one cycle: every rate as the peak with every length, up to that budget, all else by default.

A training reaches an accuracy at the first look, one in ten steps, that finds it. That is kind to
constant rates: what they reach by a lucky look, they lose again at the next. For each accuracy, the
setting of each side is chosen whose slowest seed is the fastest, then trained again from fresh
seeds: the numbers that count, because the chosen ones owe something to chance.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from classifier import (
    Data,
    accuracy,
    batch_indices,
    cross_entropy,
    init_params,
    load,
    shifted,
    shifted_once,
)

import gdtx

EVERY = 10  # steps between two looks at the images held out
BATCH = 32
RATES = [float(f"{rate:.2g}") for rate in np.geomspace(0.02, 4.0, 12)]
MOMENTA = (0.0, 0.5, 0.8, 0.9, 0.95)
LENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)  # shares of the budget
LEVELS = tuple(percent / 100 for percent in (50, 70, 80, 85, *range(90, 100)))
CONSTANTS = ("learning_rate", "momentum")
LOWEST_DRAWN = 0.8


class Setting(NamedTuple):
    """A training: constant rate and momentum, or if the momentum is None, one cycle."""

    learning_rate: float
    momentum: float | None
    steps: int


USUAL, ANY, CYCLE = "constant rates, momentum 0.9", "constant rates and momenta", "one cycles"
SIDES: dict[str, Callable[[Setting], bool]] = {
    USUAL: lambda setting: setting.momentum == 0.9,
    ANY: lambda setting: setting.momentum is not None,
    CYCLE: lambda setting: setting.momentum is None,
}
Found = dict[Setting, np.ndarray]


class Task(NamedTuple):
    """Data, and for each seed first weights and the images that each step sees."""

    data: Data
    held_out: Data
    params: Any
    rows: Any


def make_task(steps: int, seeds: Sequence[int], still: bool) -> Task:
    """The same for every setting."""
    data, held_out = load()
    if not still:
        data, held_out = shifted(data), shifted_once(held_out, seed=0)
    each = [init_params(seed) for seed in seeds]
    rows = [batch_indices(len(data.labels), BATCH, steps, seed) for seed in seeds]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    rows = jnp.asarray(np.stack(rows).reshape(len(rows), steps // EVERY, EVERY, BATCH))
    data, held_out = jax.tree.map(jnp.asarray, (data, held_out))
    return Task(data, held_out, params, rows)


def train(tx: Any, task: Task, params: Any, rows: Any) -> jax.Array:
    """The accuracy on the images held out, every few steps of a training."""

    def step(carry: Any, row: jax.Array) -> Any:
        params, state = carry
        batch = Data(task.data.images[row], task.data.labels[row])
        updates, state = tx.update(jax.grad(cross_entropy)(params, batch), state, params)
        return (gdtx.apply_updates(params, updates), state), None

    def block(carry: Any, rows: jax.Array) -> Any:
        carry, _ = jax.lax.scan(step, carry, rows)
        return carry, accuracy(carry[0], task.held_out)

    return jax.lax.scan(block, (params, tx.init(params)), rows)[1]


def curves(settings: Sequence[Setting], task: Task) -> Found:
    """Accuracies for every seed and look: one program for all constants, one for each length."""

    def kind(setting: Setting) -> tuple[bool, int]:
        return setting.momentum is None, setting.steps

    found = {}
    for (is_cycle, steps), group in itertools.groupby(sorted(settings, key=kind), kind):
        members = list(group)
        columns: dict[str, Any]
        if is_cycle:
            tx = gdtx.sgd(*gdtx.one_cycle(1.0, steps))
            columns = {"learning_rate.peak_value": [setting.learning_rate for setting in members]}
        else:
            tx = gdtx.sgd(1.0, momentum=0.9)
            columns = {name: [getattr(s, name) for s in members] for name in CONSTANTS}
        rows = task.rows[:, : steps // EVERY]

        def over_seeds(tx: Any, rows: Any = rows) -> jax.Array:
            return jax.vmap(lambda *seed: train(tx, task, *seed))(task.params, rows)

        found |= zip(members, np.asarray(gdtx.sweep(over_seeds, tx, columns)), strict=True)
    return found


def steps_to(level: float, accuracies: np.ndarray) -> np.ndarray:
    """Steps until a training has this accuracy, infinity if it never has; for each seed."""
    hits = accuracies >= level
    return np.where(hits.any(axis=-1), EVERY * (hits.argmax(axis=-1) + 1), np.inf)


def fastest(level: float, found: Found) -> Setting | None:
    """The setting whose slowest seed reaches this accuracy first, if all seeds of any do."""
    slowest = {setting: steps_to(level, each).max() for setting, each in found.items()}
    best = min(slowest, key=lambda setting: slowest[setting])
    return best if np.isfinite(slowest[best]) else None


class Row(NamedTuple):
    """The setting that a side has for an accuracy, and what its seeds need."""

    level: float
    side: str
    setting: Setting
    swept: np.ndarray
    fresh: np.ndarray


def compare(
    settings: Sequence[Setting], steps: int, seeds: int, still: bool
) -> tuple[Found, Found, list[Row]]:
    """Accuracies in the sweep, those from fresh seeds, and what they say about each accuracy."""
    found = curves(settings, make_task(steps, range(seeds), still))
    chosen = {
        (level, side): fastest(level, {s: each for s, each in found.items() if belongs(s)})
        for level in LEVELS
        for side, belongs in SIDES.items()
    }
    kept = sorted(set(filter(None, chosen.values())), key=str)
    fresh = curves(kept, make_task(steps, range(seeds, 4 * seeds), still))
    rows = [
        Row(level, side, s, steps_to(level, found[s]), steps_to(level, fresh[s]))
        for (level, side), s in chosen.items()
        if s is not None
    ]
    return found, fresh, rows


def number(steps: float) -> str:
    """A number of steps, which may be infinite."""
    return f"{steps:.0f}" if np.isfinite(steps) else "never"


def table(rows: list[Row], counts: dict[str, int], seeds: int) -> str:
    """What each side needs for each accuracy, aligned."""
    header = f"{'accuracy':<9}{'best of':<32}{'rate':>6}{'momentum':>9}{'length':>7}"
    header += f"{f'slowest of {seeds}':>14}{f'{3 * seeds} fresh seeds':>22}"
    lines = []
    for level, group in itertools.groupby(rows, lambda row: row.level):
        lines.append("-" * len(header))
        for i, (_, side, setting, swept, fresh) in enumerate(group):
            rate, momentum, length = setting
            low, middle, high = map(number, (fresh.min(), np.median(fresh), fresh.max()))
            lines.append(
                f"{'' if i else f'{level:.0%}':<9}{f'{counts[side]} {side}':<32}{rate:>6}"
                f"{'cycled' if momentum is None else momentum:>9}{length:>7}"
                f"{number(swept.max()):>14}{f'{middle} ({low} - {high})':>22}"
            )
    return "\n".join([header, *lines])


def verdict(rows: list[Row]) -> str:
    """The comparison at the highest accuracy that a constant rate reaches."""
    theirs = [row for row in rows if row.side != CYCLE]
    if not theirs:
        return "No constant rate reaches any of the accuracies."
    level = max(row.level for row in theirs)
    theirs = [row for row in theirs if row.level == level]
    ours = [row for row in rows if row.side == CYCLE and row.level == level]
    # Of the constants chosen, the one that turned out best.
    us, them = (
        min((np.median(row.fresh) for row in side), default=np.inf) for side in (ours, theirs)
    )
    ratio = f", {them / us:.2f} times as many" if max(us, them) < np.inf else ""
    highest = max((row.level for row in rows if row.side == CYCLE), default=0.0)
    return (
        f"The highest of these accuracies that a constant rate reaches is {level:.0%}. One cycle "
        f"needs\n{number(us)} steps for it, the best constant {number(them)}{ratio} "
        f"(medians of fresh seeds).\nThe highest that one cycle reaches is {highest:.0%}."
    )


def shaded(ax: Any, x: Any, runs: Any, side: str, **line: Any) -> None:
    """The median of the runs, seeds along the last axis, and between what half of them are."""
    quartiles = np.quantile(runs, [0.25, 0.5, 0.75], axis=-1, method="nearest")
    line |= dict(zip(SIDES, plt.rcParams["axes.prop_cycle"], strict=False))[side]
    ax.fill_between(x, quartiles[0], quartiles[2], color=line["color"], alpha=0.2, linewidth=0)
    ax.plot(x, quartiles[1], **line)


def draw_curves(ax: Any, found: Found, fresh: Found, rows: list[Row]) -> None:
    """Accuracy against step, for the highest accuracy that a constant rate reaches."""

    def looks(accuracies: np.ndarray) -> np.ndarray:
        return EVERY * np.arange(1, accuracies.shape[1] + 1)

    grey = {
        "color": "0.85", "linewidth": 0.6, "linestyle": "-", "label": "every constant of the sweep"
    }  # fmt: skip
    for each in (100 * each for setting, each in found.items() if SIDES[ANY](setting)):
        ax.plot(looks(each), np.median(each, axis=0), **grey)
        grey["label"] = None
    level = max((row.level for row in rows if row.side != CYCLE), default=0.0)
    for row in rows:
        if row.level == level:
            each = 100 * fresh[row.setting]
            shaded(ax, looks(each), each.T, row.side, label=row.side)
    ax.axhline(100 * level, color="0.4", linewidth=0.8)
    ax.set(xlabel="step", ylabel="accuracy, %", xlim=(0, None), ylim=(60, 100))
    ax.set_title(f"Chosen for {level:.0%}: median and quartiles")


def draw_steps(ax: Any, rows: list[Row], budget: int) -> None:
    """Steps against the accuracy that they reach; never is beyond the top."""
    for side in SIDES:
        if mine := [row for row in rows if row.side == side and row.level >= LOWEST_DRAWN]:
            steps = [np.minimum(row.fresh, 10 * budget) for row in mine]
            levels = [100 * row.level for row in mine]
            shaded(ax, levels, steps, side, marker="o", markersize=3, label=side)
    ax.set(xlabel="accuracy, %", ylabel="steps", ylim=(0, budget))
    ax.set_title("Steps until an accuracy is reached")


def draw(found: Found, fresh: Found, rows: list[Row], path: Path) -> None:
    """Both pictures, side by side."""
    plt.style.use("gdtx.explore.gdtx")
    figure, (left, right) = plt.subplots(ncols=2, figsize=(9, 3.8))
    draw_curves(left, found, fresh, rows)
    draw_steps(right, rows, max(setting.steps for setting in found))
    # A side may be in one of the pictures only.
    lines = {line.get_label(): line for ax in (left, right) for line in ax.get_lines()}
    named = [lines[label] for label in ("every constant of the sweep", *SIDES) if label in lines]
    figure.legend(handles=named, loc="outside lower center", ncols=4)
    figure.savefig(path)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="One cycle against constant learning rates.")
    parser.add_argument("--steps", type=int, default=2000, help=f"a multiple of {5 * EVERY}")
    parser.add_argument("--seeds", type=int, default=5, help="of the sweep; three times as fresh")
    parser.add_argument("--still", action="store_true", help="every digit at its own place only")
    parser.add_argument("--out", type=Path, metavar="PATH", help="draw a picture there")
    parser.add_argument("--smoke", action="store_true", help="few steps, rates and seeds")
    args = parser.parse_args()
    args.rates = RATES
    if args.smoke:
        args.steps, args.seeds, args.rates = 20 * EVERY, 1, [0.1, 0.4]
    if args.steps < 1 or args.steps % (5 * EVERY):
        parser.error(f"--steps must be a multiple of {5 * EVERY}, got {args.steps}")
    if args.seeds < 1:
        parser.error(f"--seeds must be positive, got {args.seeds}")
    return args


def main() -> None:
    """Train all, print and draw."""
    args = arguments()
    versions = ", ".join(f"{name} {version(name)}" for name in ("gdtx", "jax"))
    print(f"{versions}, device {jax.devices()[0].device_kind}, at most {args.steps} steps")
    settings = [Setting(rate, m, args.steps) for rate in args.rates for m in MOMENTA]
    lengths = [round(share * args.steps) for share in LENGTHS]
    settings += [Setting(rate, None, length) for rate in args.rates for length in lengths]
    counts = {side: sum(map(belongs, settings)) for side, belongs in SIDES.items()}
    found, fresh, rows = compare(settings, args.steps, args.seeds, args.still)
    print(f"{table(rows, counts, args.seeds)}\n\n{verdict(rows)}")
    if args.out:
        draw(found, fresh, rows, args.out)
        print(f"The accuracies are drawn in {args.out}.")


if __name__ == "__main__":
    main()
