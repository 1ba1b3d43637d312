"""Large batches: does a rate that was tuned on small ones, scaled by a rule, still train?

    python benchmarks/large_batch.py
    python benchmarks/large_batch.py --epochs 60 --seeds 5
    python benchmarks/large_batch.py --smoke              a few seconds, to see that it runs

A small network learns to read handwritten digits. Every training sees as many images, whatever its
batch: with batches k times as large it has k times fewer steps. The rate rises over the first tenth
of them and falls along a cosine to 0 over the rest.

Goyal et al. 2017 (arXiv:1706.02677) multiply the rate of SGD by k; You et al. multiply that of LARS
by k (arXiv:1708.03888) and that of LAMB by the root of k (arXiv:1904.00962). Each method has its
rate tuned at the smallest batch, on as many rates as the others, and scaled by its rule from there.
Adam, by the root of k, is there to see what the ratio of norms adds to it.

The first table is accuracy on the images held out, after training, of fresh seeds. The second has
every rate tuned again at its batch: what the rule loses is the difference of the two, what the
method loses is in the second. On this task the rule decides more than the ratio does: by the root
rule LAMB and Adam still train on batches 25 times as large, where by the linear rule SGD and LARS
do not, and with their rates tuned again, all four do.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from classifier import (
    Data,
    accuracy,
    batch_indices,
    cross_entropy,
    init_params,
    load,
)

import gdtx

SIZES = (64, 64, 64, 64, 10)
BATCHES = (20, 100, 250, 500, 1000)
WARMUP = 0.1  # share of the steps
KEPT = 0.02  # an accuracy is kept if it is lower by at most this
is_matrix = functools.partial(jax.tree.map, lambda p: p.ndim == 2)


class Method(NamedTuple):
    """A method, the rates tried for it, and by which power of the batch its rate grows."""

    make: Callable[..., Any]
    rates: Sequence[float]
    power: float

    @property
    def rule(self) -> str:
        return {1.0: "linear", 0.5: "root"}[self.power]


def grid(low: float, high: float) -> list[float]:
    return [float(f"{rate:.2g}") for rate in np.geomspace(low, high, 7)]


METHODS = {
    "sgd": Method(lambda rate: gdtx.sgd(rate, momentum=0.9), grid(0.01, 1.0), 1.0),
    "lars": Method(
        lambda rate: gdtx.lars(rate, trust_coefficient=0.01, trust_mask=is_matrix),
        grid(0.02, 2.0), 1.0,
    ),
    "adam": Method(gdtx.adam, grid(0.0005, 0.05), 0.5),
    "lamb": Method(lambda rate: gdtx.lamb(rate, trust_mask=is_matrix), grid(0.0005, 0.05), 0.5),
}  # fmt: skip


class Task(NamedTuple):
    """Data, and for each seed first weights and the images that each step sees."""

    data: Data
    held_out: Data
    params: Any
    rows: jax.Array


def make_task(batch: int, epochs: int, seeds: Sequence[int]) -> Task:
    """The same for every method."""
    data, held_out = load()
    steps = epochs * len(data.labels) // batch
    params = [init_params(seed, SIZES) for seed in seeds]
    rows = [batch_indices(len(data.labels), batch, steps, seed) for seed in seeds]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    data, held_out = jax.tree.map(jnp.asarray, (data, held_out))
    return Task(data, held_out, stacked, jnp.asarray(np.stack(rows)))


def train(tx: Any, task: Task, params: Any, rows: jax.Array) -> jax.Array:
    """The accuracy on the images held out after a training."""

    def step(carry: Any, row: jax.Array) -> Any:
        params, state = carry
        batch = Data(task.data.images[row], task.data.labels[row])
        updates, state = tx.update(jax.grad(cross_entropy)(params, batch), state, params)
        return (gdtx.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), rows)
    return accuracy(params, task.held_out)


def accuracies(method: Method, rates: Sequence[float], task: Task) -> np.ndarray:
    """After trainings at these rates, one row each with a column for each seed: one program."""
    steps = task.rows.shape[1]
    warmup = max(1, round(WARMUP * steps))

    def at(rate: jax.Array) -> jax.Array:
        tx = method.make(gdtx.warmup_cosine_decay_schedule(0.0, rate, warmup, steps))
        return jax.vmap(lambda params, rows: train(tx, task, params, rows))(task.params, task.rows)

    return np.asarray(jax.jit(lambda rates: jax.lax.map(at, rates))(jnp.asarray(rates)))


def best(rates: Sequence[float], found: np.ndarray) -> float:
    """The rate with the best mean over seeds."""
    return rates[int(np.argmax(found.mean(axis=1)))]


class Row(NamedTuple):
    """A method's rate at a batch, by its rule and by tuning, and what fresh seeds make of both."""

    method: str
    batch: int
    scaled: float
    by_rule: np.ndarray
    tuned: float
    by_tuning: np.ndarray


def compare(batches: Sequence[int], epochs: int, seeds: int, stride: int) -> list[Row]:
    """Every method at every batch."""
    rows, first = [], {}
    for batch in batches:
        swept = make_task(batch, epochs, range(seeds))
        fresh = make_task(batch, epochs, range(seeds, 3 * seeds))
        for name, method in METHODS.items():
            growth = (batch / batches[0]) ** method.power
            # Those tried grow with the batch too, and all below, down to those of the smallest.
            rates = [rate * growth for rate in method.rates[::stride]]
            rates += [rate for rate in method.rates[::stride] if rate < rates[0]]
            tuned = best(rates, accuracies(method, rates, swept))
            scaled = first.setdefault(name, tuned) * growth
            by_rule, by_tuning = accuracies(method, [scaled, tuned], fresh)
            rows.append(Row(name, batch, scaled, by_rule, tuned, by_tuning))
    return rows


def table(title: str, rows: list[Row], cell: Callable[[Row], tuple[float, np.ndarray]]) -> str:
    """Mean accuracies and rates, a line for each method and a column for each batch."""
    batches = sorted({row.batch for row in rows})
    header = f"{title:<14}" + "".join(f"{f'batch {batch}':>17}" for batch in batches)
    lines = [header, "-" * len(header)]
    for name, method in METHODS.items():
        cells = [cell(row) for row in rows if row.method == name]
        text = "".join(f"{f'{found.mean():.1%} at {rate:.2g}':>17}" for rate, found in cells)
        lines.append(f"{f'{name}, {method.rule}':<14}{text}")
    return "\n".join(lines)


def verdict(rows: list[Row]) -> str:
    """The largest batch at which each method has kept its accuracy."""
    smallest = min(row.batch for row in rows)
    lines = []
    for name in METHODS:
        own = [row for row in rows if row.method == name]
        start = next(row.by_rule.mean() for row in own if row.batch == smallest)
        kept = [row.batch for row in own if row.by_rule.mean() >= start - KEPT]
        lost = [row.batch for row in own if row.batch not in kept]
        line = f"{name} keeps its accuracy within {KEPT:.0%} up to batches of {max(kept)}"
        lines.append(line + (f" and has lost it at {min(lost)}." if lost else "."))
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Rates tuned on small batches, on large ones.")
    parser.add_argument("--epochs", type=int, default=30, help="how often each image is seen")
    parser.add_argument("--seeds", type=int, default=3, help="of the tuning; twice as fresh")
    parser.add_argument("--smoke", action="store_true", help="few epochs, rates and seeds")
    args = parser.parse_args()
    args.batches, args.stride = BATCHES, 1
    if args.smoke:
        args.epochs, args.seeds, args.batches, args.stride = 1, 1, (50, 500), 4
    for name in ("epochs", "seeds"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be positive, got {getattr(args, name)}")
    return args


def main() -> None:
    """Train all and print."""
    args = arguments()
    versions = ", ".join(f"{name} {version(name)}" for name in ("gdtx", "jax"))
    print(f"{versions}, device {jax.devices()[0].device_kind}, {args.epochs} epochs")
    rows = compare(args.batches, args.epochs, args.seeds, args.stride)
    print(table("by the rule", rows, lambda row: (row.scaled, row.by_rule)), end="\n\n")
    print(table("tuned there", rows, lambda row: (row.tuned, row.by_tuning)), end="\n\n")
    print(verdict(rows))


if __name__ == "__main__":
    main()
