"""What methods of whole matrices cost, and what they gain.

    python benchmarks/matrix.py                  both tables
    python benchmarks/matrix.py --smoke          a few seconds, to see that it runs
    python benchmarks/matrix.py --only cost      or gain

Cost: a stack of equal layers of 16 arrays each. Operations are those of the compiled update that do
work (products, decompositions, loops, conditionals, sorts) and all of them; the first for a quarter
of the layers too, to show what grows. Seconds are of tracing and lowering, and of compiling, the
least of a few times, each of them over Adam's: of compiling alone, and of both. Steps are those
that compute roots and those between. What these methods compile beside what Adam does is for each
shape of arrays once, so that trees of few arrays pay more for it, beside Adam: see --arrays.

Gain: steps until a small network reads scikit-learn's digits with a given training loss. Every
method is tuned over the same number of trainings: as many rates, with two settings of the decays.
For each the setting is taken whose slowest seed is the fastest, then trained from fresh seeds. A
rate at an end of those that were tried has a star: another might be better. The last lines say
whether each of Shampoo and SOAP took fewer steps than Adam.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import re
import statistics
import time
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from classifier import Data, batch_indices, cross_entropy, init_params, load

import gdtx

EVERY = 10  # steps between two roots
WORK = ("dot", "custom-call", "while", "conditional", "sort")
LOSS = 0.05


def methods() -> dict[str, Any]:
    """What is compared in cost."""

    def matrices(params: Any) -> Any:
        return jax.tree.map(lambda p: p.ndim == 2, params)

    return {
        "adam": gdtx.adam(1e-3),
        "shampoo": gdtx.shampoo(1e-3, roots=gdtx.Roots(EVERY)),
        "soap": gdtx.soap(1e-3, bases=gdtx.Bases(EVERY)),
        "muon": gdtx.muon(1e-3, matrices, gdtx.adamw(1e-3)),
        "optax muon": optax.contrib.muon(1e-3),
    }


def layers(count: int, width: int, arrays: int) -> Any:
    """Shapes of the parameters of so many layers of a transformer, or of some arrays of each."""

    def linear(inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
        return {"w": (inputs, outputs), "b": (outputs,)}

    norm = {"scale": (width,), "b": (width,)}
    layer = {
        **{name: linear(width, width) for name in ("query", "key", "value", "out")},
        **{"up": linear(width, 4 * width), "down": linear(4 * width, width)},
        **{"norm1": norm, "norm2": norm},
    }
    flat = jax.tree.leaves(layer, is_leaf=lambda node: isinstance(node, tuple))
    matrices_first = sorted(flat, key=len, reverse=True)
    one = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in matrices_first[:arrays]]
    return {f"layer{i}": one for i in range(count)}


def compiled(
    tx: Any, params: Any, times: int = 1
) -> tuple[Any, list[float], collections.Counter[str]]:
    """The update, seconds until it was lowered and compiled, and its operations."""
    state = jax.eval_shape(tx.init, params)
    program, clocks = None, []
    for _ in range(times):
        clock = [time.perf_counter()]
        lowered = jax.jit(lambda *args: tx.update(*args)).lower(params, state, params)
        clock.append(time.perf_counter())
        program = lowered.compile()
        clock.append(time.perf_counter())
        clocks.append([b - a for a, b in itertools.pairwise(clock)])
    assert program is not None
    operations = collections.Counter(re.findall(r"= .*? ([a-z\-]+)\(", program.as_text() or ""))
    return program, [min(column) for column in zip(*clocks, strict=True)], operations


def step_times(tx: Any, program: Any, params: Any, steps: int) -> tuple[float, float]:
    """Milliseconds of a step that computes roots, and of one that does not."""
    rng = np.random.default_rng(0)
    grads = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), params)
    state, times = tx.init(grads), []
    for _ in range(steps):
        start = time.perf_counter()
        _, state = jax.block_until_ready(program(grads, state, grads))
        times.append(1e3 * (time.perf_counter() - start))
    between = [t for i, t in enumerate(times) if i % EVERY]
    return statistics.median(times[::EVERY]), statistics.median(between)


def cost(count: int, width: int, arrays: int, steps: int, times: int) -> str:
    """The first table."""
    header = f"{'method':<12}{'work':>6}{'all':>8}{'lower':>8}{'compile':>9}{'x adam':>8}"
    header += f"{'both, x':>9}{'roots, ms':>11}{'between, ms':>13}{f'work, {count // 4}':>11}"
    lines, first = [], None
    for name, tx in methods().items():
        params = layers(count, width, arrays)
        jax.eval_shape(tx.update, params, jax.eval_shape(tx.init, params), params)
        program, seconds, operations = compiled(tx, params, times)
        *_, few = compiled(tx, layers(count // 4, width, arrays))
        first = first or seconds
        ratios = f"{seconds[1] / first[1]:>8.1f}{sum(seconds) / sum(first):>9.1f}"
        work, work_few = (sum(each[op] for op in WORK) for each in (operations, few))
        at, between = step_times(tx, program, params, steps)
        lines.append(
            f"{name:<12}{work:>6}{operations.total():>8}{seconds[0]:>8.2f}{seconds[1]:>9.2f}"
            f"{ratios}{at:>11.1f}{between:>13.1f}{work_few:>11}"
        )
    title = f"{count} layers of a transformer, {arrays} arrays each, {width} wide"
    return "\n".join([title, "", header, "-" * len(header), *lines])


# The settings of each method, whose steps are of one size: the same rates suit all.
TUNED = {
    "adam": [gdtx.adam(1.0), gdtx.adam(1.0, b1=0.95, b2=0.95)],
    "shampoo": [gdtx.shampoo(1.0, b2=b2, graft=gdtx.scale_by_adam()) for b2 in (0.95, 0.999)],
    "soap": [gdtx.soap(1.0), gdtx.soap(1.0, b1=0.9, b2=0.99)],
}
RATES = np.geomspace(2e-3, 0.2, 9)


def losses(tx: Any, rates: Any, seeds: range, steps: int) -> np.ndarray:
    """The loss on all images after every step, for each rate and seed."""
    data = jax.tree.map(jnp.asarray, load()[0])
    rows = jnp.asarray(np.stack([batch_indices(1000, 100, steps, seed) for seed in seeds]))
    params = jax.tree.map(lambda *x: jnp.stack(x), *map(init_params, seeds))

    def train(tx: Any, params: Any, rows: Any) -> jax.Array:
        def step(carry: Any, row: jax.Array) -> Any:
            params, state = carry
            batch = Data(data.images[row], data.labels[row])
            updates, state = tx.update(jax.grad(cross_entropy)(params, batch), state, params)
            params = gdtx.apply_updates(params, updates)
            return (params, state), cross_entropy(params, data)

        return jax.lax.scan(step, (params, tx.init(params)), rows)[1]

    # One after the other: mapped over, a conditional would compute both of its branches.
    run = jax.jit(train)
    return np.stack([
        [run(tx.replace(learning_rate=jnp.float32(rate)),
             jax.tree.map(lambda p, i=i: p[i], params), rows[i]) for i in range(len(seeds))]
        for rate in rates
    ])  # fmt: skip


def steps_to(level: float, curves: np.ndarray) -> np.ndarray:
    """Steps until the loss is this low, infinity if it never is."""
    hits = curves <= level
    return np.where(hits.any(axis=-1), hits.argmax(axis=-1) + 1.0, np.inf)


def gain(steps: int, seeds: int, most_rates: int, most_settings: int) -> str:
    """The second table."""
    header = f"{'method':<10}{'trainings':>10}{'rate':>10}{'setting':>9}{'slowest':>9}"
    header += f"{'fresh seeds: median (range)':>30}"
    lines, medians = [], {}
    tried = RATES[:: -(-len(RATES) // most_rates)]
    for name, settings in TUNED.items():
        settings = settings[:most_settings]
        swept = [losses(tx, tried, range(seeds), steps) for tx in settings]
        slowest = np.array([steps_to(LOSS, curves).max(axis=1) for curves in swept])
        best, rate = np.unravel_index(slowest.argmin(), slowest.shape)
        fresh = losses(settings[best], tried[rate : rate + 1], range(seeds, 3 * seeds), steps)
        needed = steps_to(LOSS, fresh[0])
        medians[name] = float(np.median(needed))
        shown = f"{medians[name]:.0f} ({needed.min():.0f} - {needed.max():.0f})"
        star = "*" if rate in (0, len(tried) - 1) else " "
        lines.append(
            f"{name:<10}{slowest.size * seeds:>10}{tried[rate]:>9.2g}{star}{best:>9}"
            f"{slowest[best, rate]:>9.0f}{shown:>30}"
        )
    lines += ["", *(verdict(name, medians) for name in medians if name != "adam")]
    title = f"Digits: steps to a training loss of {LOSS}, of at most {steps}"
    return "\n".join([title, "", header, "-" * len(header), *lines])


def verdict(name: str, medians: dict[str, float]) -> str:
    """Whether a method took fewer steps than Adam, in words."""
    ours, adams = medians[name], medians["adam"]
    if np.isinf(ours):
        return f"{name} did not reach this loss"
    than = f"than Adam's {adams:.0f}" if np.isfinite(adams) else "than Adam, which did not reach it"
    return f"{name}: {'fewer' if ours < adams else 'not fewer'} steps, {ours:.0f}, {than}"


def main() -> None:
    """Print what the command line asks for."""
    parser = argparse.ArgumentParser(description="Methods of whole matrices: cost and gain.")
    parser.add_argument("--only", choices=["cost", "gain"])
    parser.add_argument("--layers", type=int, default=48)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--arrays", type=int, default=16, help="of each layer, matrices first")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="few layers, few steps, few rates")
    args = parser.parse_args()
    rates, settings, timed, times = 9, 2, 31, 3
    if args.smoke:
        args.layers, args.width, args.steps, args.seeds = 4, 4, 20, 1
        rates, settings, timed, times = 1, 1, 11, 1
    print(", ".join(f"{name} {version(name)}" for name in ("gdtx", "optax", "jax")), flush=True)
    if args.only != "gain":
        print("", cost(args.layers, args.width, args.arrays, timed, times), sep="\n", flush=True)
    if args.only != "cost":
        print("", gain(args.steps, args.seeds, rates, settings), sep="\n", flush=True)


if __name__ == "__main__":
    main()
