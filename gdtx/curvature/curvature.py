"""Curvature of a model: what its blocks are made of."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from ..core.errors import fail, summarize
from .model.layers import Layer
from .model.statistics import Statistics, shapes


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["blocks", "examples"], meta_fields=["layout"]
)
@dataclass(frozen=True)
class Curvature:
    """What the blocks of curvature are made of, as sums over examples.

    Curvatures of the same model add up, leaf by leaf: over micro-batches, and over devices.

    Args:
        blocks: for each block, by the path of its parameter, its statistics.
        examples: the number of examples.
        layout: the blocks' layers, in their order.
    """

    blocks: dict[str, Statistics]
    examples: jax.Array
    layout: tuple[Layer, ...]


def checked(curvature: Any, layers: tuple[Layer, ...], leaves: Mapping[str, Any]) -> Curvature:
    """The curvature, if it is one, and has of these layers what their leaves let one expect."""
    if not isinstance(curvature, Curvature):
        fail(TypeError, f"curvature must be a Curvature or None, got {summarize(curvature)}")
    for layer in layers:
        missing = [path for path in layer.paths if path not in leaves]
        if missing:
            fail(
                ValueError,
                f"the curvature is that of another model: there is no {missing[0]!r}, of which it "
                f"has the block {layer.weight!r}",
            )
        block = curvature.blocks.get(layer.weight, {})
        for name, expected in shapes(layer, leaves).items():
            shape = getattr(block.get(name), "shape", None)
            if shape != expected:
                what = f"curvature[{layer.weight!r}]"
                if shape is None:
                    fail(ValueError, f"{what} has no {name!r}, expected one of shape {expected}")
                fail(
                    ValueError,
                    f"{what}[{name!r}] has shape {shape}, the layer's has {expected}",
                )
    return curvature


def means_of(
    curvature: Curvature, layers: tuple[Layer, ...], leaves: Mapping[str, Any]
) -> dict[str, Any]:
    """The factors and diagonals of this batch, checked to be those of these layers."""
    if isinstance(curvature, Curvature):
        _check_layout(curvature.layout, layers)
    curvature = checked(curvature, layers, leaves)
    means: dict[str, Any] = {"factors": {}, "diagonals": {}}
    for layer in layers:
        block = curvature.blocks[layer.weight]
        if layer.kind == "dense":
            rows = block["n"][..., None, None]
            means["factors"][layer.weight] = {
                "A": block["A"] / rows,
                "S": block["S"] / curvature.examples,
            }
        else:
            means["diagonals"][layer.weight] = block["D"] / curvature.examples
    return means


def _check_layout(given: tuple[Layer, ...], expected: tuple[Layer, ...]) -> None:
    for layer in expected:
        if layer not in given:
            same = next((other for other in given if other.weight == layer.weight), "none")
            fail(
                ValueError,
                f"the curvature is that of another model: expected {layer}, got {same}. If the "
                "model is right, give its layers: scale_by_kfac(layout=model.layout(params, "
                "inputs)) with model = kfac.capture(...)",
            )
    known = {layer.weight for layer in expected}
    for layer in given:
        if layer.weight not in known:
            fail(ValueError, f"the curvature has a block {layer.weight} that no parameter has")
