"""What to tune of K-FAC first: how the curvature is taken, damping and learning rate, on digits.

    python benchmarks/kfac_defaults.py
    python benchmarks/kfac_defaults.py --hidden 128 64     two hidden layers
    python benchmarks/kfac_defaults.py --smoke             a few steps, to see that it runs

Prints the loss on images that are not trained on, averaged over the second half of a training and
over seeds, of `kfac` with everything else as by default, and of Adam beside it. The curvature of
mini-batches enters either by targets drawn from the model, which is what models of many outputs
need, or exactly, by a backward pass for each of the ten outputs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from classifier import batch_indices, cross_entropy, init_params, load, logits
from tqdm import tqdm

import gdtx
from gdtx import kfac

RATES = (0.03, 0.1, 0.3)
DAMPINGS = (1e-3, 1e-2, 1e-1)
OUTPUTS = ("sampled", "exact")
EVERY = 20  # steps between two looks at the images that are not trained on
ADAM_RATES = (0.003, 0.01, 0.03)


@partial(jax.jit, static_argnames="output")
def losses(tx: Any, params: Any, data: Any, rows: Any, keys: Any, output: str | None) -> Any:
    """The losses on the other images, `EVERY` steps apart."""
    train, test = data

    def step(carry: Any, drawn: Any) -> Any:
        params, state = carry
        row, key = drawn
        batch, more = jax.tree.map(lambda x: x[row], train), {}
        if output is None:
            grads = jax.grad(cross_entropy)(params, batch)
        else:
            f = kfac.value_grad_and_curvature(logits, kfac.softmax_cross_entropy, output)
            key = key if output == "sampled" else None
            _, grads, more["curvature"] = f(params, (batch.images, batch.labels), key)
        updates, state = tx.update(grads, state, params, **more)
        return (gdtx.apply_updates(params, updates), state), None

    def block(carry: Any, drawn: Any) -> Any:
        carry, _ = jax.lax.scan(step, carry, drawn)
        return carry, cross_entropy(carry[0], test)

    return jax.lax.scan(block, (params, tx.init(params)), (rows, keys))[1]


def mean_loss(tx: Any, output: str | None, args: argparse.Namespace) -> float:
    """Over the second half of the training and over seeds."""
    data = jax.tree.map(jnp.asarray, load())
    found = []
    for seed in range(args.seeds):
        rows = batch_indices(len(data[0].labels), args.batch, args.steps, seed)
        rows = jnp.asarray(rows.reshape(-1, EVERY, args.batch))
        keys = jax.random.split(jax.random.key(seed), rows.shape[:2])
        params = init_params(seed, (64, *args.hidden, 10))
        each = losses(tx, params, data, rows, keys, output)
        found.append(np.asarray(each)[len(each) // 2 :].mean())
    return float(np.mean(found))


def table(args: argparse.Namespace) -> Iterator[str]:
    """A line for each way to take the curvature and each damping."""
    dampings, rates = (DAMPINGS, RATES) if not args.smoke else (DAMPINGS[:1], RATES[-2:])
    with tqdm(total=len(OUTPUTS) * len(dampings) * len(rates) + len(rates)) as bar:

        def cells(make: Any, rates: Any, output: str | None) -> str:
            line = ""
            for rate in rates:
                # As arrays, because then all of them are one program.
                line += f"{mean_loss(gdtx.as_arrays(make(rate)), output, args):10.4f}"
                bar.update()
            return line

        header = f"{'K-FAC, learning rate':22}" + "".join(f"{rate:>10g}" for rate in rates)
        yield from (header, "-" * len(header))
        for output in OUTPUTS:
            for damping in dampings:
                made = cells(partial(kfac.kfac, damping=damping), rates, output)
                yield f"{f'{output}, damping {damping:g}':22}{made}"
        rates = ADAM_RATES[: len(rates)]
        yield f"\n{'Adam, learning rate':22}" + "".join(f"{rate:>10g}" for rate in rates)
        yield f"{'':22}{cells(gdtx.adam, rates, None)}"


def main() -> None:
    """Train all and print."""
    parser = argparse.ArgumentParser(description="What to tune of K-FAC first.")
    parser.add_argument("--steps", type=int, default=600, help=f"a multiple of {EVERY}")
    parser.add_argument("--batch", type=int, default=64, help="images of a step")
    parser.add_argument("--hidden", type=int, nargs="+", default=[64], help="units")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--smoke", action="store_true", help="few steps and settings")
    args = parser.parse_args()
    if args.smoke:
        args.steps, args.seeds = 2 * EVERY, 1
    if args.steps < EVERY or args.steps % EVERY:
        parser.error(f"--steps must be a multiple of {EVERY}, got {args.steps}")
    for name in ("batch", "seeds"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be positive, got {getattr(args, name)}")
    versions = ", ".join(f"{name} {version(name)}" for name in ("gdtx", "jax"))
    print(f"{versions}, device {jax.devices()[0].device_kind}")
    lines = list(table(args))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
