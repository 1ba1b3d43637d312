"""What it takes to try 100 learning rates: in gdtx one program, in Optax it depends.

    python benchmarks/sweep.py
    python benchmarks/sweep.py --rates 30 --steps 50 --rounds 5
    python benchmarks/sweep.py --smoke                    a few seconds, to see that it runs

Trains a small network on handwritten digits with Adam, once per learning rate, in several ways.
Each begins with nothing compiled. They take turns, in one order and then in the other, so that a
machine that slows down or speeds up does so for all.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from classifier import Data, batch_indices, cross_entropy, init_params, load
from step import Compilations
from tqdm import tqdm

import gdtx

BATCH = 32
SELDOM = 3  # the way that takes minutes is in every third round only
# Rounding differs between programs, and a hundred steps multiply the difference.
TOLERANCE = 1e-3


class Task(NamedTuple):
    """First weights, and the mini-batches of all steps along a leading axis."""

    params: Any
    batches: Data


class Run(NamedTuple):
    """What one way of sweeping gave in one round."""

    losses: np.ndarray
    seconds: float
    programs: int


def make_task(steps: int) -> Task:
    """The same for every learning rate."""
    data, _ = load()
    rows = batch_indices(len(data.labels), BATCH, steps, seed=0)
    batches = Data(jnp.asarray(data.images[rows]), jnp.asarray(data.labels[rows]))
    return Task(init_params(seed=0), batches)


def step_with(tx: Any, params: Any, state: Any, batch: Data) -> Any:
    """One step of a training."""
    loss, grads = jax.value_and_grad(cross_entropy)(params, batch)
    updates, state = tx.update(grads, state, params)
    return jax.tree.map(jnp.add, params, updates), state, loss


def scanned(tx: Any, state: Any, task: Task) -> jax.Array:
    """The losses of one training, all steps in one program."""

    def step(carry: Any, batch: Data) -> Any:
        params, state = carry
        params, state, loss = step_with(tx, params, state, batch)
        return (params, state), loss

    return jax.lax.scan(step, (task.params, state), task.batches)[1]


def looped(step: Callable[..., Any], state: Any, task: Task) -> list[jax.Array]:
    """The losses of one training, a call for each step."""
    params, losses = task.params, []
    for images, labels in zip(*jax.device_get(task.batches), strict=True):
        params, state, loss = step(params, state, Data(images, labels))
        losses.append(loss)
    return losses


def gdtx_sweep(task: Task, rates: list[float]) -> Any:
    """One program over a batch of transformations."""
    return gdtx.sweep(
        lambda tx: scanned(tx, tx.init(task.params), task),
        gdtx.adam(1e-3),
        {"learning_rate": rates},
    )


def gdtx_as_arrays(task: Task, rates: list[float]) -> Any:
    """One jitted step that takes the transformation as an argument."""
    step = jax.jit(lambda *args: step_with(*args))
    losses = []
    for rate in rates:
        tx = gdtx.as_arrays(gdtx.adam(rate), "learning_rate")
        losses.append(looped(lambda *args, tx=tx: step(tx, *args), tx.init(task.params), task))
    return losses


def optax_rebuilt(task: Task, rates: list[float]) -> Any:
    """A transformation per rate, and so a jitted step per rate."""
    losses = []
    for rate in rates:
        tx = optax.adam(rate)
        step = jax.jit(lambda *args, tx=tx: step_with(tx, *args))
        losses.append(looped(step, tx.init(task.params), task))
    return losses


def optax_injected(task: Task, rates: list[float]) -> Any:
    """One jitted step; the learning rate is in the state, and is set there."""
    tx = optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)
    step = jax.jit(lambda *args: step_with(tx, *args))
    losses = []
    for rate in rates:
        state: Any = tx.init(task.params)
        state.hyperparams["learning_rate"] = jnp.asarray(rate)
        losses.append(looped(step, state, task))
    return losses


def optax_injected_vmap(task: Task, rates: list[float]) -> Any:
    """One program over a batch of states that differ in the learning rate."""
    tx = optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)

    def train(rate: jax.Array) -> jax.Array:
        state: Any = tx.init(task.params)
        state.hyperparams["learning_rate"] = rate
        return scanned(tx, state, task)

    return jax.jit(jax.vmap(train))(jnp.asarray(rates))


def optax_closure_vmap(task: Task, rates: list[float]) -> Any:
    """One program over a batch of rates, with the transformation made inside of it."""

    def train(rate: jax.Array) -> jax.Array:
        tx = optax.adam(rate)
        return scanned(tx, tx.init(task.params), task)

    return jax.jit(jax.vmap(train))(jnp.asarray(rates))


OURS, REBUILT, MADE_INSIDE = "gdtx.sweep", "optax rebuilt, loop", "optax made inside of vmap"
WAYS: dict[str, Callable[[Task, list[float]], Any]] = {
    OURS: gdtx_sweep,
    "gdtx.as_arrays, loop": gdtx_as_arrays,
    REBUILT: optax_rebuilt,
    "optax inject_hyperparams, loop": optax_injected,
    "optax inject_hyperparams, vmap": optax_injected_vmap,
    MADE_INSIDE: optax_closure_vmap,
}


def measured(way: str, task: Task, rates: list[float], compilations: Compilations) -> Run:
    """One sweep, from nothing compiled to the last loss."""
    jax.clear_caches()
    before, start = compilations.count, time.perf_counter()
    losses = np.asarray(jax.device_get(WAYS[way](task, rates)))
    seconds = time.perf_counter() - start
    return Run(losses, seconds, compilations.count - before)


def measure(task: Task, rates: list[float], rounds: int) -> dict[str, dict[int, Run]]:
    """What each way gave, by round."""
    compilations = Compilations()
    for way in (OURS, MADE_INSIDE):  # what a process does once is no one's cost
        WAYS[way](task, rates[:1])
    runs: dict[str, dict[int, Run]] = {way: {} for way in WAYS}
    with tqdm(total=rounds, unit="round") as progress:
        for i in range(rounds):
            for way in list(WAYS)[:: -1 if i % 2 else 1]:
                if way != REBUILT or i % SELDOM == 0:
                    progress.set_description(way)
                    runs[way][i] = measured(way, task, rates, compilations)
            progress.update()
    return runs


def exact(task: Task, rates: list[float]) -> np.ndarray:
    """The losses in float64. From here on, all numbers are."""
    jax.config.update("jax_enable_x64", True)
    params, batches = jax.tree.map(
        lambda leaf: leaf.astype(float) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, task
    )
    return np.asarray(WAYS[MADE_INSIDE](Task(params, batches), rates))


def error(runs: dict[int, Run], reference: np.ndarray) -> float:
    """How far from the reference a loss is, at most, as a share of it."""
    return max(float(np.max(np.abs(run.losses / reference - 1))) for run in runs.values())


def ratio(runs: dict[int, Run], others: dict[int, Run]) -> float:
    """How many times as long as the others, in the same rounds."""
    return statistics.median(run.seconds / others[i].seconds for i, run in runs.items())


def table(runs: dict[str, dict[int, Run]], reference: np.ndarray) -> str:
    """The measurements, aligned."""
    header = f"{'way':<32}{'programs':>9}{'seconds':>9}{'min - max':>17}{'ratio':>9}{'error':>10}"
    lines = [header, "-" * len(header)]
    for way, each in runs.items():
        seconds = [run.seconds for run in each.values()]
        lines.append(
            f"{way:<32}{max(run.programs for run in each.values()):>9}"
            f"{statistics.median(seconds):>9.2f}{f'{min(seconds):.2f} - {max(seconds):.2f}':>17}"
            f"{ratio(each, runs[OURS]):>9.2f}{error(each, reference):>10.1e}"
        )
    return "\n".join(lines)


LEGEND = """\
programs  XLA programs compiled, those of single operations outside of jit among them
seconds   median over the rounds, from nothing compiled to the last loss
ratio     to the seconds of gdtx.sweep in the same round, median
error     of the losses, relative to the same sweep in float64, at most"""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="The cost of a sweep, in gdtx and in Optax.")
    parser.add_argument("--rates", type=int, default=100, help="learning rates to try")
    parser.add_argument("--steps", type=int, default=100, help="steps of each training")
    parser.add_argument("--rounds", type=int, default=6, help="times that all is done")
    parser.add_argument("--smoke", action="store_true", help="3 rates, 5 steps, 1 round")
    args = parser.parse_args()
    if args.smoke:
        args.rates, args.steps, args.rounds = 3, 5, 1
    for name in ("rates", "steps", "rounds"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be positive, got {getattr(args, name)}")
    return args


def main() -> None:
    """Measure, check that all ways give the same losses, and print."""
    args = arguments()
    jax.config.update("jax_enable_compilation_cache", False)  # no program from an earlier run
    versions = ", ".join(f"{name} {version(name)}" for name in ("gdtx", "optax", "jax"))
    print(f"{versions}, device {jax.devices()[0].device_kind}")
    print(f"adam, {args.rates} learning rates, {args.steps} steps each, {args.rounds} rounds\n")
    rates = np.geomspace(1e-4, 3e-2, args.rates).tolist()
    task = make_task(args.steps)
    runs = measure(task, rates, args.rounds)
    reference = exact(task, rates)
    largest = max(error(each, reference) for each in runs.values())
    print(f"All losses are within {largest:.1e} of those computed in float64.\n")
    if not largest <= TOLERANCE:
        raise SystemExit(f"That is more than rounding does, {TOLERANCE}: they are not the same.")
    optax_ways = [way for way in runs if way.startswith("optax")]
    best = min(optax_ways, key=lambda way: ratio(runs[way], runs[OURS]))
    print(f"{table(runs, reference)}\n\n{LEGEND}\n")
    print(
        f"Optax's rebuild-and-recompile loop takes {ratio(runs[REBUILT], runs[OURS]):.1f} times as "
        f"long as gdtx.sweep;\nits fastest way, {best[6:]}, {ratio(runs[best], runs[OURS]):.2f} "
        "times."
    )


if __name__ == "__main__":
    main()
