"""What each device keeps and receives if the state is cut over the data axis, method by method.

    python benchmarks/zero1.py                      every method
    python benchmarks/zero1.py --methods adam lion  only these
    python benchmarks/zero1.py --smoke              three, to see that it runs

The parameters are a decoder of two layers of width 64, its matrices cut over "model" of 4 x 2
simulated devices and whole along "data". The state is where they are, or where `zero1` puts it; in
Optax's methods where the parameters would be then, by hand. A step of each is compiled and not run.
"""

from __future__ import annotations

import argparse
import inspect
from typing import Any

import hlo
import jax
import jax.numpy as jnp
import optax
from decoder import BOTH, are_hidden, parameters
from jax.sharding import AxisType
from scale import local_bytes, placed_state

import gdtx
from gdtx.public import methods

COLUMNS = {
    "state": "kB of the state on a device, where the parameters are",
    "zero1": "kB of it where `zero1` puts it",
    "bound": "kB, if all that four devices can divide were divided",
    "n": "collectives of a step whose state is where the parameters are",
    "kB": "what a device receives by them",
    "n cut": "collectives of a step whose state is where `zero1` puts it",
    "kB cut": "what a device receives by them",
    "rarely": "kB besides in steps which take a conditional (roots, bases, what is not finite)",
}
REST = gdtx.adamw(1e-3)
OURS = {
    "adafactor": lambda: gdtx.adafactor(1e-3, 16),
    "dion": lambda: gdtx.dion(1e-3, 8, are_hidden, REST),
    "full_matrix_adagrad": lambda: gdtx.full_matrix_adagrad(1e-3, block_size=64),
    "galore": lambda: gdtx.galore(gdtx.adam(1e-3), 8),
    "kfac": lambda: gdtx.kfac.kfac(1e-3),
    "muon": lambda: gdtx.muon(1e-3, are_hidden, REST),
    "normuon": lambda: gdtx.normuon(1e-3, are_hidden, REST),
    "shampoo": lambda: gdtx.shampoo(1e-3, blocks=gdtx.Blocks(64)),
    "soap": lambda: gdtx.soap(1e-3, blocks=gdtx.Blocks(64)),
    "psgd": lambda: gdtx.psgd(1e-3, blocks=gdtx.Blocks(64)),
}
THEIRS = {
    "adafactor": lambda: optax.adafactor(1e-3, 16),
    "galore": None,  # of one matrix, not of a tree
    "lbfgs": None,  # takes a line search and its loss
    "schedule_free_adamw": lambda: optax.contrib.schedule_free_adamw(1e-3),
    "sm3": None,  # no function of optax tells which of its state is of which parameter
    "sophia": None,  # takes a function of the loss
}
NAMES = sorted({*vars(methods), *OURS} - {name for name in vars(methods) if name[0] == "_"})


def made(make: Any) -> Any:
    """A method with a learning rate, if it must have one."""
    required = [p for p in inspect.signature(make).parameters.values() if p.default is p.empty]
    return make(1e-3) if required else make()


def ours(name: str) -> Any:
    return made(OURS.get(name) or getattr(gdtx, name))


def theirs(name: str) -> Any:
    if name in THEIRS:
        return THEIRS[name] and THEIRS[name]()
    make = getattr(optax, name, None) or getattr(optax.contrib, name, None)
    return make and made(make)


def bound(state: Any, devices: int) -> float:
    """Bytes of each array on a device, divided by the number where that divides one of its axes."""

    def least(x: Any) -> float:
        shape = x.sharding.shard_shape(x.shape)
        return local_bytes(x) / (devices if any(n and n % devices == 0 for n in shape) else 1)

    return sum(map(least, jax.tree.leaves(state)))


def received(tx: Any, params: Any, state: Any) -> list[float]:
    """How many collectives a step has, what a device receives by them, and what it may besides."""

    def step(params: Any, state: Any, grads: Any) -> Any:
        extra: dict[str, Any] = {}
        if isinstance(tx, gdtx.GradientTransformation):  # what some ask for
            extra = {"value": jnp.float32(1), "hessian": grads, "grad": grads,
                     "value_fn": lambda params: jnp.float32(1)}  # fmt: skip
        updates, state = tx.update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state

    where = jax.tree.map(lambda x: x.sharding, (params, state))
    jitted = jax.jit(step, donate_argnums=(0, 1), out_shardings=where)
    text = jitted.lower(params, state, params).compile().as_text() or ""
    always, sometimes = hlo.counts(text, 8)
    return [always[hlo.NUMBER], hlo.moved(always) / 1e3, hlo.moved(sometimes) / 1e3]


def measured(name: str, tx: Any, params: Any, mesh: Any) -> dict[str, float]:
    states = [placed_state(tx, params, cut, mesh) for cut in (False, True)]
    row = {
        "state": local_bytes(states[0]) / 1e3,
        "zero1": local_bytes(states[1]) / 1e3,
        "bound": bound(states[0], mesh.shape["data"]) / 1e3,
    }
    if name == "kfac":  # its steps are those of a model
        return row
    (n, moved, _), (n_cut, moved_cut, rarely) = (received(tx, params, s) for s in states)
    return row | {"n": n, "kB": moved, "n cut": n_cut, "kB cut": moved_cut, "rarely": rarely}


def line(name: str, row: dict[str, float]) -> str:
    cells = (
        f"{row[each]:,.{0 if each[0] == 'n' else 1}f}" if each in row else "-" for each in COLUMNS
    )
    return f"{name:26}" + "".join(f"{cell:>9}" for cell in cells)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", choices=NAMES, default=NAMES, metavar="METHOD")
    parser.add_argument("--smoke", action="store_true", help="three, to see that all runs")
    asked = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    mesh = jax.make_mesh((4, 2), BOTH, axis_types=(AxisType.Auto,) * 2)
    params = parameters(mesh, "unrolled", zero1=True, smoke=True)
    for name, meaning in COLUMNS.items():
        print(f"{name:8}{meaning}")
    whole = local_bytes(params) / 1e3
    print(f"\nParameters are {whole:,.1f} kB on each device.")
    names = f"{'':26}" + "".join(f"{name:>9}" for name in COLUMNS)
    print(f"\n{names}\n{'-' * len(names)}")
    for name in ("adafactor", "adamw", "shampoo") if asked.smoke else asked.methods:
        for label, tx in ((name, ours(name)), (f"optax {name}", theirs(name))):
            if tx is not None:
                print(line(label, measured(name, tx, params, mesh)), flush=True)


if __name__ == "__main__":
    main()
