"""What it costs to return donated parameters and state in another order than they came in.

    python benchmarks/donation.py
    python benchmarks/donation.py --arrays 4 --size 8     a second, to see that it runs

XLA gives donated buffers to results in order. In the other order a buffer is given to a result that
another array is still needed for, and so every one of them is copied first. Copies and temporary
bytes are those of the compiled program of a step of Adam. Seconds are medians of steps that take
turns, over those of the first order.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp

import gdtx

Step = tuple[Any, Any]


def step(params: Any, state: Any, grads: Any) -> Step:
    """Parameters first, as they came."""
    updates, state = gdtx.adam(1e-3).update(grads, state, params)
    return gdtx.apply_updates(params, updates), state


def step_turned(params: Any, state: Any, grads: Any) -> Step:
    """The state first."""
    return step(params, state, grads)[::-1]


def main() -> None:
    """Print a line for each order."""
    parser = argparse.ArgumentParser(description="Costs of the order of donated arguments.")
    parser.add_argument("--arrays", type=int, default=24)
    parser.add_argument("--size", type=int, default=1000, help="rows and columns of each array")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    params = {f"{i}": jnp.ones((options.size, options.size)) for i in range(options.arrays)}
    state, grads = gdtx.adam(1e-3).init(params), jax.tree.map(jnp.ones_like, params)
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}")
    orders = {"(params, state)": step, "(state, params)": step_turned}
    programs = {
        order: jax.jit(function, donate_argnums=(0, 1)).lower(params, state, grads).compile()
        for order, function in orders.items()
    }
    seconds: dict[str, list[float]] = {order: [] for order in orders}
    at = {order: jax.tree.map(jnp.copy, (params, state)) for order in orders}
    for _ in range(options.steps):
        for order, program in programs.items():
            begin = time.perf_counter()
            out = jax.block_until_ready(program(*at[order], grads))
            seconds[order].append(time.perf_counter() - begin)
            at[order] = out if order == "(params, state)" else out[::-1]
    medians = {order: statistics.median(times) for order, times in seconds.items()}
    print("returns          copies  temporary MB  seconds")
    for order, program in programs.items():
        analysis = program.memory_analysis()
        copies = (program.as_text() or "").count(" copy(")
        temporary = analysis.temp_size_in_bytes / 1e6 if analysis else float("nan")
        print(
            f"{order}  {copies:6}  {temporary:12.1f}  {medians[order] / min(medians.values()):7.1f}"
        )


if __name__ == "__main__":
    main()
