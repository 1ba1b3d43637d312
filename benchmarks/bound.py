"""How near a step comes to what the memory allows: its time over that of moving its bytes.

    python benchmarks/bound.py                            every method, large arrays and small ones
    python benchmarks/bound.py --trees huge --methods adamw --device gpu
    python benchmarks/bound.py --smoke                    a few seconds, to see that it runs

A step (update and apply_updates, parameters and state donated) must read the gradient, and read and
write the parameters and the state, each once: `bytes` is the size of the gradient, plus twice that
of the parameters and of the state, which is the smaller one of gdtx's and Optax's, as their `init`
tells. The bound is the time in which the machine moves as many bytes when it only adds one array to
another in place, in JAX, torch or NumPy, whichever is the fastest: so small trees are held to what
the cache allows. Each figure is a median over rounds in which all take turns, in alternating order.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import operator
import statistics
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cases import METHODS, TREES
from step import APPLY, PLACEMENTS, Calls, Results, jitted_step, random_tree, timed, training

try:
    import torch  # pyright: ignore[reportMissingImports]
except ImportError:
    torch = None

# Of cases.METHODS, those that torch has too.
TORCH: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {}),
    "sgd momentum": ("SGD", {"momentum": 0.9}),
    "sgd nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "adagrad": ("Adagrad", {}),
    "adadelta": ("Adadelta", {}),
    "rmsprop": ("RMSprop", {}),
    "rmsprop momentum": ("RMSprop", {"momentum": 0.9}),
    "rmsprop centered": ("RMSprop", {"centered": True}),
    "adam": ("Adam", {}),
    "adamw": ("AdamW", {}),
    "adamax": ("Adamax", {}),
    "nadam": ("NAdam", {}),
    "radam": ("RAdam", {}),
    "amsgrad": ("Adam", {"amsgrad": True}),
}
FORMS = ("fused", "foreach")
COLUMNS = {
    "bytes": "that a step must move, a parameter",
    "compiled": "bytes that gdtx's compiled step reads and writes, over those",
    **{name: f"time of {name}'s step over the bound" for name in APPLY},
    **{name: f"the same, torch's with {name}=True, where it has the method so" for name in FORMS},
}
NAME, WIDTH = 18, 10
ADDED = 12  # bytes that an element takes to be added: read, read and written


def size(tree: Any) -> int:
    """Bytes of all arrays."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def bytes_to_move(params: Any, txs: dict[str, Any]) -> int:
    """The least that a step can read and write."""
    state = min(size(jax.eval_shape(tx.init, params)) for tx in txs.values())
    return 3 * size(params) + 2 * state  # the gradient is of the size of the parameters


@functools.partial(jax.jit, donate_argnums=0)
def added(y: jax.Array, x: jax.Array) -> jax.Array:
    """The sum, in place of the first."""
    return y + x


def movers(nbytes: int, device: Any) -> Calls:
    """Ways to move so many bytes by adding one array to another in place."""
    x = np.ones(max(nbytes // ADDED, 1), np.float32)
    on_device = jnp.asarray(x)
    carry = jnp.copy(on_device)

    def of_jax() -> jax.Array:
        nonlocal carry
        carry = added(carry, on_device)
        return carry

    calls: Calls = {"jax": of_jax}
    if device.platform == "cpu":
        y = x.copy()
        calls["numpy"] = lambda: np.add(y, x, out=y)
    if torch and (at := torch_device(device)):
        theirs = [torch.ones(x.shape, device=at) for _ in range(2)]
        calls["torch"] = synchronized(lambda: theirs[0].add_(theirs[1]), at)
    return calls


def torch_device(device: Any) -> str | None:
    """The same in torch's words, if it has it."""
    assert torch
    at = {"cpu": "cpu", "gpu": "cuda"}.get(device.platform)
    return None if at == "cuda" and not torch.cuda.is_available() else at


def synchronized(call: Callable[[], Any], at: str) -> Callable[[], None]:
    """A call that returns when the device is done, and nothing."""
    assert torch
    wait = torch.cuda.synchronize if at == "cuda" else lambda: None

    def run() -> None:
        call()
        wait()

    return run


def torch_steps(name: str, grads: Any, device: Any) -> Calls:
    """Torch's steps by this method, in the forms in which it has it."""
    if torch is None or name not in TORCH or not (at := torch_device(device)):
        return {}
    word, arguments = TORCH[name]
    make = getattr(torch.optim, word)
    calls: Calls = {}
    for form in FORMS:
        if form not in inspect.signature(make).parameters:
            continue
        params = []
        for g in jax.tree.leaves(grads):
            p = torch.tensor(np.asarray(g), device=at, requires_grad=True)
            p.grad = p.detach().clone()
            params.append(p)
        optimizer = make(params, lr=1e-3, **arguments, **{form: True})
        calls[form] = synchronized(optimizer.step, at)
    return calls


def measured(name: str, grads: Any, device: Any, repeats: int, seconds: float) -> dict[str, float]:
    """A row of the table."""
    ours, theirs, _ = METHODS[name]
    txs = {"gdtx": ours, "optax": theirs}
    params = jax.eval_shape(lambda: grads)
    nbytes = bytes_to_move(params, txs)
    steps = {each: jitted_step(tx, APPLY[each]) for each, tx in txs.items()}
    compiled = steps["gdtx"].lower(params, jax.eval_shape(ours.init, params), params).compile()
    moved = (compiled.cost_analysis() or {}).get("bytes accessed", float("nan"))
    times: Results = {}

    def once() -> None:
        calls = {
            **movers(nbytes, device),
            **{each: training(steps[each], tx, grads) for each, tx in txs.items()},
            **torch_steps(name, grads, device),
        }
        for call in [*calls.values()] * 2:
            jax.block_until_ready(call())
        for each, found in timed(calls, 1 / PLACEMENTS, repeats, seconds).items():
            times.setdefault(each, []).extend(found)

    for _ in range(PLACEMENTS):
        once()
    moving = [times.pop(each) for each in ("jax", "numpy", "torch") if each in times]
    bound = min(moving, key=statistics.median)
    over = {
        each: statistics.median(map(operator.truediv, found, bound))
        for each, found in times.items()
    }
    count = sum(x.size for x in jax.tree.leaves(params))
    return {
        "bytes": nbytes / count,
        "compiled": moved / nbytes,
        "GB/s": nbytes / statistics.median(bound) / 1e9,
        **over,
    }


def line(name: str, row: dict[str, float]) -> str:
    """One line of the table."""
    cells = (f"{row[column]:.2f}" if column in row else "" for column in COLUMNS)
    return name.ljust(NAME) + "".join(cell.rjust(WIDTH) for cell in cells)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time of a step over that of moving its bytes.")
    parser.add_argument("--device", choices=["cpu", "gpu", "tpu"], help="default: JAX's own")
    parser.add_argument("--trees", nargs="+", choices=TREES, default=["large", "cached"])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--repeats", type=int, default=50, help="rounds, at most")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each row, at most")
    parser.add_argument("--smoke", action="store_true", help="two methods on a tiny tree")
    args = parser.parse_args()
    if args.smoke:
        args.trees, args.methods, args.repeats = ["tiny"], ["sgd", "adam"], 5
    try:
        args.device = jax.devices(args.device)[0]
    except RuntimeError as error:
        parser.error(str(error))
    return args


def main() -> None:
    """Measure what the command line asks for, and print."""
    args = arguments()
    packages = ["gdtx", "jax", "optax", *(["torch"] if torch else [])]
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    print(f"{versions}, device {args.device.device_kind}")
    for name, meaning in COLUMNS.items():
        print(f"  {name:<9} {meaning}")
    for tree in args.trees:
        title, shapes = TREES[tree]
        with jax.default_device(args.device):
            grads = random_tree(shapes)
            count = sum(x.size for x in jax.tree.leaves(grads))
            print(f"\n{title}: {len(jax.tree.leaves(grads))} arrays, {count:,} parameters\n")
            print("method".ljust(NAME) + "".join(name.rjust(WIDTH) for name in COLUMNS))
            speeds = []
            for name in args.methods:
                row = measured(name, grads, args.device, args.repeats, args.seconds)
                speeds.append(row["GB/s"])
                print(line(name, row), flush=True)
        print(f"the bound is {statistics.median(speeds):.3g} GB/s")


if __name__ == "__main__":
    main()
