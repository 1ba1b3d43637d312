"""How programs of matrix methods grow with the number of layers: operations and compile time.

    python benchmarks/layers.py                        12 and 48 layers of a transformer
    python benchmarks/layers.py --layers 2 --width 8   a few seconds, to see that it runs

All layers are equal, and their matrices go through one call, so that products, which are the most
of the code, are as many for any number of layers. What each array needs by itself, momentum and
rate, is as in Adam.
"""

from __future__ import annotations

import argparse
import re
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax

import gdtx

COLUMNS = {
    "products": "matrix products in the lowered program",
    "lowered": "all operations of it",
    "compiled": "operations of the executable's main program, each a kernel or a call",
    "trace": "seconds of processor time to trace and lower",
    "compile": "seconds of processor time to compile, of all threads",
    "to Adam": "compile, over that of gdtx's Adam on the same parameters",
}


def are_matrices(params: Any) -> Any:
    return jax.tree.map(lambda p: p.ndim == 2, params)


METHODS = {
    "adam": gdtx.adam(1e-3),
    "muon": gdtx.muon(0.02, are_matrices, others=gdtx.adam(1e-3)),
    "muon, alone": gdtx.muon(
        0.02, are_matrices, others=gdtx.adam(1e-3), polar=gdtx.Polar(batched=False)
    ),
    "optax adam": optax.adam(1e-3),
    "optax muon": optax.contrib.muon(0.02),
}


def transformer(layers: int, width: int) -> Any:
    """Shapes of the parameters between embedding and head."""
    layer = {"qkv": (width, 3 * width), "out": (width, width), "up": (width, 4 * width),
             "down": (4 * width, width), "bias": (width,)}  # fmt: skip
    one = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in layer.items()}
    return {f"layer{i}": one for i in range(layers)}


def measured(tx: Any, params: Any) -> dict[str, float]:
    state = jax.eval_shape(tx.init, params)
    start = time.process_time()
    lowered = jax.jit(tx.update).lower(params, state, params)
    traced = time.process_time()
    executable = lowered.compile().as_text()
    compiled = time.process_time()
    text = lowered.as_text()
    return {
        "products": text.count("stablehlo.dot_general"),
        "lowered": len(re.findall(r"^ +%\S+ = ", text, re.MULTILINE)),
        "compiled": len(re.findall(r"^ +(?:ROOT )?%\S+ = ", _main(executable), re.MULTILINE)),
        "trace": traced - start,
        "compile": compiled - traced,
    }


def _main(executable: str | None) -> str:
    assert executable is not None
    return executable[executable.index("ENTRY") :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # pyright: ignore[reportOptionalMemberAccess]
    parser.add_argument("--layers", type=int, nargs="+", default=[12, 48])
    parser.add_argument("--width", type=int, default=64)
    args = parser.parse_args()
    for name, meaning in COLUMNS.items():
        print(f"{name:10}{meaning}")
    for layers in args.layers:
        params = transformer(layers, args.width)
        title = f"{layers} layers, {len(jax.tree.leaves(params))} arrays"
        print(f"\n{title:24}" + "".join(f"{name:>10}" for name in COLUMNS))
        measured(METHODS["adam"], params)  # what is loaded first is not Adam's to pay
        adam = 0.0
        for name, tx in METHODS.items():
            row = measured(tx, params)
            adam = adam or row["compile"]
            row["to Adam"] = row["compile"] / adam
            shown = (f"{v:10.2f}" if isinstance(v, float) else f"{v:10}" for v in row.values())
            print(f"{name:24}" + "".join(shown))


if __name__ == "__main__":
    main()
