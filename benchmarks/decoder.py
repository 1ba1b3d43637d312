"""The parameters of a decoder on a mesh, described and not there, for programs that never run."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import gdtx

BOTH = ("data", "model")


def are_hidden(params: Any) -> Any:
    """The matrices of the layers, not the embedding."""
    return {
        name: name != "embedding" and jax.tree.map(lambda p: p.ndim == 2, part)
        for name, part in params.items()
    }


def labels(params: Any) -> Any:
    return jax.tree.map(lambda hidden: "hidden" if hidden else "rest", are_hidden(params))


def shapes(smoke: bool) -> tuple[int, dict[str, Any]]:
    """How many layers, and shapes of the parameters with the axes of the mesh along each."""
    layers, width, hidden, keys, words = (
        (2, 64, 128, 16, 256) if smoke else (16, 2048, 8192, 512, 128256)
    )
    rows, columns = ("data", "model"), ("model", "data")
    layer = {
        "query": ((width, width), rows), "key": ((width, keys), rows),
        "value": ((width, keys), rows), "out": ((width, width), columns),
        "gate": ((width, hidden), rows), "up": ((width, hidden), rows),
        "down": ((hidden, width), columns),
        "norm1": ((width,), (None,)), "norm2": ((width,), (None,)),
    }  # fmt: skip
    return layers, {"embedding": ((words, width), columns), "layer": layer}


def parameters(mesh: Any, layers: str, zero1: bool, smoke: bool) -> Any:
    """Arrays that are only described, on the mesh: of layers "unrolled" or "stacked"."""

    def put(lead: tuple[int, ...], shape: tuple[int, ...], names: tuple[str | None, ...]) -> Any:
        kept = [None if zero1 and name == "data" else name for name in names]
        where = NamedSharding(mesh, P(*[None] * len(lead), *kept))
        return jax.ShapeDtypeStruct((*lead, *shape), jnp.float32, sharding=where)

    count, tree = shapes(smoke)
    each_layer = tree["layer"].items()
    params = {"embedding": put((), *tree["embedding"])}
    if layers == "stacked":
        return params | {"layers": {name: put((count,), *each) for name, each in each_layer}}
    return params | {f"layer{i}": {name: put((), *each) for name, each in each_layer}
                     for i in range(count)}  # fmt: skip


def curvature_of(params: Any, mesh: Any) -> Any:
    """Of layers as large as the matrices, on every device."""
    where = NamedSharding(mesh, P())
    chosen = jax.tree.map(lambda p, hidden: p if hidden else None, params, are_hidden(params))
    layers = gdtx.kfac.infer_layout(chosen)

    def described(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=where)

    blocks: dict[str, Any] = {}
    for layer in layers:
        part, name = layer.weight.split("/")
        m, n = params[part][name].shape
        blocks[layer.weight] = {"A": described(m, m), "S": described(n, n), "n": described()}
    examples: Any = described()
    return gdtx.kfac.Curvature(blocks, examples, layers)
