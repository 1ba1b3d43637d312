"""What one optimization step costs in gdtx and in Optax, side by side in one process.

    python benchmarks/step.py                             every method on every tree
    python benchmarks/step.py --trees many --methods adam radam --json step.json
    python benchmarks/step.py --smoke                     a few seconds, to see that it runs

Timings are medians over pairs: both libraries are timed one right after the other, and the order
alternates, so that a machine that slows down or speeds up does so for both.
"""

from __future__ import annotations

import argparse
import functools
import gc
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from cases import METHODS as OF_NUMBERS
from cases import OF_ARRAYS, TREES
from tqdm import tqdm

import gdtx

METHODS = OF_NUMBERS | OF_ARRAYS
APPLY = {"gdtx": gdtx.apply_updates, "optax": optax.apply_updates}
FEWEST = 2  # pairs, however long they take: one in each order
# Where buffers happen to lie changes a step by some percent, so that it is timed in several places.
PLACEMENTS = 5

# Of each column: its width, the digits that the numbers deserve, and what it says.
RATIOS = {
    "step": (7, 3, "seconds of a jitted step: update and apply_updates, params and state donated"),
    "update": (8, 3, "seconds of update and apply_updates outside of jit"),
    "trace": (
        7,
        2,
        "seconds to trace the jitted update to a jaxpr, and to lower that to StableHLO",
    ),
    "compile": (9, 2, "seconds to compile that to an executable"),
    "FLOPs": (8, 4, "floating-point operations of that executable, as the compiler counts them"),
    "bytes": (8, 4, "bytes that it reads and writes, as the compiler counts them"),
}
COUNTS = {
    "state": (15, 2, "bytes of state per parameter, gdtx : optax"),
    "programs": (10, 0, "XLA programs that two of those outside of jit compile, gdtx : optax"),
}
COLUMNS = {**RATIOS, **COUNTS}
NAME = 18

Calls = dict[str, Callable[[], Any]]
Results = dict[str, list[float]]
Timing = Callable[[Calls, float], Results]


class Compilations:
    """Counts the programs that XLA compiles in this process."""

    def __init__(self) -> None:
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **_: Any) -> None:
        self.count += event == "/jax/core/compile/backend_compile_duration"

    def of(self, calls: Calls) -> dict[str, int]:
        """How many each call compiles. It also warms them up."""
        counts = {}
        for name, call in calls.items():
            before = self.count
            jax.block_until_ready(call())
            counts[name] = self.count - before
        return counts


def random_tree(shapes: Any) -> Any:
    """Arrays of these shapes, normally distributed."""
    leaves, structure = jax.tree.flatten(shapes, is_leaf=lambda node: isinstance(node, tuple))
    keys = jax.random.split(jax.random.key(0), len(leaves))
    arrays = [jax.random.normal(key, shape) for key, shape in zip(keys, leaves, strict=True)]
    return structure.unflatten(arrays)


def compared(results: Results) -> dict[str, Any]:
    """The median of the pairs' ratios, and the median of each side."""
    pairs = list(zip(results["gdtx"], results["optax"], strict=True))
    medians = {name: statistics.median(values) for name, values in results.items()}
    ratio = statistics.median(a / b if b else math.nan for a, b in pairs)
    return {"ratio": ratio, **medians, "pairs": len(pairs)}


def rounds(names: Iterable[str], repeats: int, seconds: float) -> Iterator[list[str]]:
    """The names in alternating order, until the repeats are done or the time is up."""
    started = time.perf_counter()
    for i in range(repeats):
        if i >= FEWEST and time.perf_counter() - started > seconds:
            break
        yield list(names)[:: -1 if i % 2 else 1]


def timed(calls: Calls, share: float, repeats: int, seconds: float) -> Results:
    """Seconds of each call, measured in pairs, in this share of the repeats and of the time."""
    results: Results = {name: [] for name in calls}
    gc.collect()
    gc.disable()  # a collection would fall on one side of a pair
    for names in rounds(calls, math.ceil(share * repeats), share * seconds):
        for name in names:
            start = time.perf_counter()
            result = jax.block_until_ready(calls[name]())
            results[name].append(time.perf_counter() - start)
            del result  # after the clock has stopped, before the next one needs the memory
    gc.enable()
    return results


def stages(tx: Any, params: Any) -> dict[str, float]:
    """Seconds per stage from function to executable, and the compiler's account of that."""
    state = jax.eval_shape(tx.init, params)
    jax.clear_caches()  # as in a new process, but that jax.numpy has traced what it needs
    one = {"one": jax.ShapeDtypeStruct((), jnp.float32)}
    jax.eval_shape(tx.update, one, jax.eval_shape(tx.init, one), one)
    update = jax.jit(tx.update)
    clock = [time.perf_counter()]
    lowered = update.lower(params, state, params)
    clock.append(time.perf_counter())
    cost = lowered.compile().cost_analysis() or {}
    clock.append(time.perf_counter())
    trace, compile_ = (end - start for start, end in itertools.pairwise(clock))
    account = {"FLOPs": cost.get("flops", math.nan), "bytes": cost.get("bytes accessed", math.nan)}
    return {"trace": trace, "compile": compile_, **account}


def measure_stages(txs: dict[str, Any], params: Any, seconds: float) -> dict[str, Any]:
    """Trace, lower and compile times, FLOPs and bytes of the jitted update."""
    found = [
        {name: stages(txs[name], params) for name in names} for names in rounds(txs, 3, seconds)
    ]
    return {
        column: compared({name: [each[name][column] for each in found] for name in txs})
        for column in found[0]["gdtx"]
    }


def measure_update(
    txs: dict[str, Any], grads: Any, timing: Timing, compilations: Compilations
) -> dict[str, Any]:
    """Time of an update and its addition outside of jit, and how many programs they compile."""
    jax.clear_caches()
    states = {name: tx.init(grads) for name, tx in txs.items()}

    def update(name: str, state: Any) -> tuple[Any, Any]:
        updates, state = txs[name].update(grads, state, grads)
        return APPLY[name](grads, updates), state

    twice: Calls = {name: lambda n=name: update(n, update(n, states[n])[1]) for name in txs}
    once: Calls = {name: lambda n=name: update(n, states[n]) for name in txs}
    return {"programs": compilations.of(twice), "update": compared(timing(once, 1.0))}


def jitted_step(tx: Any, apply_updates: Callable[..., Any]) -> Any:
    """One step of a training, which takes over the memory of its parameters and state."""

    def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        updates, state = tx.update(grads, state, params)
        return apply_updates(params, updates), state

    return jax.jit(step, donate_argnums=(0, 1))


def training(step: Callable[..., Any], tx: Any, grads: Any) -> Callable[[], Any]:
    """A function that takes the next step of a training in memory of its own."""
    params = jax.tree.map(jnp.copy, grads)  # any numbers do
    carry = (params, tx.init(params))

    def advance() -> Any:
        nonlocal carry
        carry = step(*carry, grads)
        return carry

    return advance


def measure_step(
    txs: dict[str, Any], grads: Any, timing: Timing, compilations: Compilations
) -> dict[str, Any]:
    """Time of the jitted step, and how many programs it compiles."""
    steps = {name: jitted_step(tx, APPLY[name]) for name, tx in txs.items()}
    times: Results = {name: [] for name in txs}
    programs = dict.fromkeys(txs, 0)

    def once() -> None:
        calls: Calls = {name: training(steps[name], tx, grads) for name, tx in txs.items()}
        for _ in range(2):  # the second would show a state that the first has changed in type
            for name, count in compilations.of(calls).items():
                programs[name] += count
        for name, seconds in timing(calls, 1 / PLACEMENTS).items():
            times[name] += seconds

    for _ in range(PLACEMENTS):
        once()
    return {"step programs": programs, "step": compared(times)}


def state_bytes(tx: Any, params: Any) -> float:
    """Bytes of state per parameter."""
    state = jax.tree.leaves(jax.eval_shape(tx.init, params))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in state) / parameters


def measure(
    name: str, grads: Any, repeats: int, seconds: float, compilations: Compilations
) -> dict[str, Any]:
    """All columns for one method on one tree."""
    ours, theirs, differs = METHODS[name]
    txs = {"gdtx": ours, "optax": theirs}
    shapes = jax.eval_shape(lambda: grads)
    timing = functools.partial(timed, repeats=repeats, seconds=seconds)
    return {
        "method": name,
        "differs": differs,
        **measure_stages(txs, shapes, seconds),
        **measure_update(txs, grads, timing, compilations),
        **measure_step(txs, grads, timing, compilations),
        "state": {name: state_bytes(tx, shapes) for name, tx in txs.items()},
    }


def line(row: dict[str, Any]) -> str:
    """One line of the table."""
    text = f"{row['method'] + '*' * bool(row['differs']):<{NAME}}"
    for column, (width, digits, _) in RATIOS.items():
        text += f"{row[column]['ratio']:>{width}.{digits}f}"
    for column, (width, digits, _) in COUNTS.items():
        ours, theirs = (f"{row[column][name]:.{digits}f}" for name in APPLY)
        text += f"{ours + ' : ' + theirs:>{width}}"
    return text


def table(tree: str, size: dict[str, int], rows: list[dict[str, Any]]) -> str:
    """The measurements of one tree, aligned."""
    title = f"{TREES[tree][0]}: " + ", ".join(f"{count:,} {what}" for what, count in size.items())
    header = "method".ljust(NAME)
    header += "".join(f"{column:>{width}}" for column, (width, _, _) in COLUMNS.items())
    notes = [f"* {row['method']}: {row['differs']}" for row in rows if row["differs"]]
    return "\n".join(["", title, "", header, "-" * len(header), *map(line, rows), *notes])


def legend(setting: dict[str, str]) -> str:
    """What was run, and what the columns mean."""
    lines = [", ".join(f"{name} {value}" for name, value in setting.items()), ""]
    lines += ["Ratios are gdtx / optax: below 1, gdtx needs less. The last two columns are not."]
    lines += [f"  {name:<9} {meaning}" for name, (_, _, meaning) in COLUMNS.items()]
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="What a step costs in gdtx and in Optax.")
    parser.add_argument("--device", choices=["cpu", "gpu", "tpu"], help="default: JAX's own")
    parser.add_argument("--trees", nargs="+", choices=TREES, default=["large", "many", "gpt2"])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--repeats", type=int, default=30, help="pairs per timing, at most")
    parser.add_argument("--seconds", type=float, default=10.0, help="per timing, at most")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the numbers here too")
    parser.add_argument("--smoke", action="store_true", help="two methods on a tiny tree")
    args = parser.parse_args()
    if args.smoke:
        args.trees, args.methods, args.repeats = ["tiny"], ["sgd", "adam"], 10
    try:
        args.device = jax.devices(args.device)[0]
    except RuntimeError as error:
        parser.error(str(error))
    return args


def main() -> None:
    """Measure what the command line asks for; print each tree's table when it is done."""
    args = arguments()
    compilations = Compilations()
    setting = {name: version(name) for name in ("gdtx", "optax", "jax")}
    setting |= {"device": args.device.device_kind}
    print(legend(setting), flush=True)
    trees = []
    progress = tqdm(total=len(args.trees) * len(args.methods), unit="method")
    with jax.default_device(args.device), progress:
        for tree in args.trees:
            grads = random_tree(TREES[tree][1])
            leaves = jax.tree.leaves(grads)
            size = {"leaves": len(leaves), "parameters": sum(leaf.size for leaf in leaves)}
            rows = []
            for name in args.methods:
                progress.set_description(f"{tree}, {name}")
                rows.append(measure(name, grads, args.repeats, args.seconds, compilations))
                progress.update()
            tqdm.write(table(tree, size, rows))
            trees.append({"tree": tree, **size, "methods": rows})
    if args.json:
        args.json.write_text(json.dumps({"setting": setting, "trees": trees}, indent=1) + "\n")


if __name__ == "__main__":
    main()
