"""What an update of a large model needs on each of many devices; nothing is allocated or run.

    python benchmarks/scale.py                           1.24 B parameters on 4 x 2 devices
    python benchmarks/scale.py --mesh 64 8               on 64 x 8; Shampoo and SOAP take long
    python benchmarks/scale.py --zero1                   parameters whole along "data"
    python benchmarks/scale.py --layers stacked          arrays of 16 layers, with `stacked`
    python benchmarks/scale.py --rows "optax adamw" muon   only these
    python benchmarks/scale.py --smoke                   two small layers, to see that it runs

The tree is that of a decoder with 16 layers of width 2048, as Llama 3.2 1B. Its matrices are cut
over both axes of the mesh; with `--zero1` over "model" alone, and the state then is where
`zero1` puts it, in Optax's rows cut like the parameters by hand. A step, `tx.update` and
`apply_updates` with parameters and state donated, is compiled for as many simulated CPU devices,
in a process for each row, and what is printed is read from the executable of one device.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import subprocess
import sys
import time
from typing import Any

import hlo
import jax
import optax
from decoder import BOTH, are_hidden, curvature_of, labels, parameters
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gdtx

COLUMNS = {
    "state": "bytes of the state, of one device as all that follows",
    "temp": "bytes of temporaries beside parameters, gradients and state",
    "times": "temporaries over the parameters there",
    "moved": "bytes that it receives in every step, by collectives; in loops as often as they run",
    "rarely": "bytes that it receives besides in steps which take a conditional (roots, bases)",
    "GFLOP": "operations of products of matrices in a step without these",
    "decomp": "decompositions, of blocks, in steps with them",
    "compile": "seconds to trace, lower and compile",
}


def matrix(method: str, dealt: bool) -> Any:
    """A method of matrices for the layers, AdamW for the rest."""
    rest = gdtx.adamw(1e-3)
    if method == "muon":
        tx = gdtx.muon(0.02, are_hidden, others=rest)
    else:
        settings: Any = {"graft": gdtx.scale_by_adam()} if method == "shampoo" else {}
        make: Any = gdtx.kfac.kfac if method == "kfac" else getattr(gdtx, method)
        tx = make(1e-3, **settings)
        tx = gdtx.partition({"hidden": tx, "rest": rest}, labels)
    return gdtx.dealt(tx, over=BOTH) if dealt else tx


ROWS = {
    "adamw": lambda: gdtx.adamw(1e-3),
    "optax adamw": lambda: optax.adamw(1e-3),
    "adafactor": lambda: gdtx.adafactor(1e-3),
    "optax adafactor": lambda: optax.adafactor(1e-3),
    **{
        f"{method}, dealt" if dealt else method: functools.partial(matrix, method, dealt)
        for method in ("muon", "shampoo", "soap", "kfac")
        for dealt in (False, True)
    },
}
SLOW = {"optax muon": lambda: optax.contrib.muon(0.02)}  # minutes to compile


def local_bytes(tree: Any) -> int:
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
    )


def is_masked(x: Any) -> bool:
    """Whether Optax has nothing here."""
    return isinstance(x, optax.MaskedNode)


def placed_state(tx: Any, params: Any, zero1: bool, mesh: Any) -> Any:
    """The state, described, with the shardings that each library has for it."""
    cut = gdtx.zero1(params, "data") if zero1 else params
    state = jax.eval_shape(tx.init, params)
    if isinstance(tx, gdtx.GradientTransformation):
        where = gdtx.state_sharding(tx, cut)
    else:
        whole = NamedSharding(mesh, P())
        where = optax.tree_map_params(
            tx,
            lambda x, p: x if is_masked(x) else p.sharding if x.shape == p.shape else whole,
            state,
            cut,
            transform_non_params=lambda _: whole,
            is_leaf=is_masked,
        )
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, where
    )


def measured(options: argparse.Namespace) -> dict[str, float]:
    """One row, in this process."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", math.prod(options.mesh))
    mesh = jax.make_mesh(tuple(options.mesh), BOTH, axis_types=(AxisType.Auto,) * 2)
    params = parameters(mesh, options.layers, options.zero1, options.smoke)
    tx = (ROWS | SLOW)[options.one]()
    if options.layers == "stacked" and isinstance(tx, gdtx.GradientTransformation):
        tx = gdtx.stacked(tx, [("layers/**", 1)])
    state = placed_state(tx, params, options.zero1, mesh)

    def step(params: Any, state: Any, grads: Any, extra: dict[str, Any]) -> Any:
        updates, state = tx.update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state

    extra = {"curvature": curvature_of(params, mesh)} if "kfac" in options.one else {}
    where = jax.tree.map(lambda x: x.sharding, (params, state))
    start = time.perf_counter()
    jitted = jax.jit(step, donate_argnums=(0, 1), out_shardings=where)
    compiled = jitted.lower(params, state, params, extra).compile()
    seconds = time.perf_counter() - start
    counts = hlo.counts(compiled.as_text() or "", math.prod(options.mesh))
    memory = compiled.memory_analysis()
    assert memory
    temporary = memory.temp_size_in_bytes
    return {
        "parameters": local_bytes(params), "state": local_bytes(state),
        "temp": temporary, "times": temporary / local_bytes(params),
        "moved": hlo.moved(counts.always), "rarely": hlo.moved(counts.sometimes),
        "GFLOP": counts.always[hlo.PRODUCTS] / 1e9, "decomp": counts.sometimes[hlo.DECOMPOSED],
        "compile": seconds, **{kind: counts.always[kind] for kind in hlo.COLLECTIVES},
    }  # fmt: skip


def cell(name: str, value: float) -> str:
    value = value / 1e6 if name in (*_BYTES, *hlo.COLLECTIVES) else value
    return f"{value:,.{0 if value >= 1000 or name == 'decomp' else 2}f}"


def line(name: str, row: dict[str, float], columns: Any, width: int) -> str:
    return f"{name:18}" + "".join(f"{cell(each, row[each]):>{width}}" for each in columns)


def header(title: str, columns: Any, width: int) -> str:
    shown = (name.removeprefix("collective-") for name in columns)
    names = f"{title:18}" + "".join(f"{name:>{width}}" for name in shown)
    return f"\n{names}\n{'-' * len(names)}"


_BYTES = {"state", "temp", "moved", "rarely"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mesh", type=int, nargs=2, default=[4, 2], metavar=("DATA", "MODEL"))
    parser.add_argument("--layers", choices=["unrolled", "stacked"], default="unrolled")
    parser.add_argument("--zero1", action="store_true", help="parameters whole along data")
    parser.add_argument("--rows", nargs="+", choices=[*ROWS, *SLOW], metavar="ROW",
                        help=f"of {', '.join([*ROWS, *SLOW])}")  # fmt: skip
    parser.add_argument("--smoke", action="store_true", help="a small tree, to see that all runs")
    parser.add_argument("--one", choices=[*ROWS, *SLOW], help=argparse.SUPPRESS)
    options = parser.parse_args()
    of_model = [name for name in ROWS if "kfac" in name and options.layers == "stacked"]
    rows_asked = options.rows or [name for name in ROWS if name not in of_model]
    if set(rows_asked) & set(of_model):
        parser.error("the layers of K-FAC are those of a model, which stacks none here")
    if options.one:
        print(json.dumps(measured(options)))
        return
    for name, meaning in COLUMNS.items():
        print(f"{name:10}{meaning}{', in MB' if name in _BYTES else ''}")
    title = f"{options.layers}, {options.mesh[0]} x {options.mesh[1]}"
    print(header(title, COLUMNS, 10), flush=True)
    rows: dict[str, dict[str, float]] = {}
    for name in rows_asked:
        done = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--one", name], capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"{name}: {done.stderr}")
        rows[name] = json.loads(done.stdout.splitlines()[-1])
        print(line(name, rows[name], COLUMNS, 10), flush=True)
    whole = next(iter(rows.values()))["parameters"]
    print(f"\nParameters are {whole / 1e6:,.2f} MB on each device. What it receives, in MB:")
    print(header("in every step", hlo.COLLECTIVES, 16))
    for name, row in rows.items():
        print(line(name, row, hlo.COLLECTIVES, 16))


if __name__ == "__main__":
    main()
