"""Layers: which parameters stand in a matrix together, and which axes are its rows and columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ...core.numbers.numerics import cast, compute_dtype
from ...core.trees.paths import leaf_paths
from ...core.trees.tree import PyTree


@dataclass(frozen=True, repr=False)
class Layer:
    """Parameters with one block of curvature.

    Args:
        kind: "dense", a matrix with or without a bias, whose block is the Kronecker product of two
            factors; "scale" or "shift", numbers that multiply or are added, with a diagonal block.
        weight: path of the parameter, by which the block is called.
        bias: path of the bias of a dense layer, if it has one.
        inputs: axes of the weight over which a dense layer sums.
        outputs: its axes that are left in the output, in the output's order.
        batch: its axes along which it is a stack of layers.
    """

    kind: str
    weight: str
    bias: str | None = None
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    batch: tuple[int, ...] = ()

    def __repr__(self) -> str:
        # Without defaults, because a model has many and they are part of a transformation's text.
        given = {
            name: value for name, value in vars(self).items() if name not in ("kind", "weight")
        }
        named = "".join(f", {name}={value!r}" for name, value in given.items() if value)
        return f"Layer({self.kind!r}, {self.weight!r}{named})"

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def sizes(self, leaves: Mapping[str, Any]) -> tuple[tuple[int, ...], int, int]:
        """The shape of the stack, the rows of the matrix, bias included, and its columns."""
        shape = leaves[self.weight].shape
        stack, rows, columns = (
            tuple(shape[axis] for axis in axes) for axes in (self.batch, self.inputs, self.outputs)
        )
        return stack, math.prod(rows) + (self.bias is not None), math.prod(columns)

    def matrix(self, leaves: Mapping[str, Any]) -> jax.Array:
        """The parameters of a dense layer, or what is shaped like them; the bias comes last.

        In at least float32, as all that is computed with them.
        """
        stack, rows, columns = self.sizes(leaves)
        wide = compute_dtype(*(leaves[path].dtype for path in self.paths))
        leaves = {path: cast(leaves[path], wide) for path in self.paths}
        weight = leaves[self.weight].transpose(self.batch + self.inputs + self.outputs)
        if self.bias is None:
            return weight.reshape(*stack, rows, columns)
        weight = weight.reshape(*stack, rows - 1, columns)
        bias = leaves[self.bias].reshape(*stack, 1, columns)
        return jnp.concatenate([weight, bias], axis=-2)

    def leaves(self, matrix: jax.Array, like: Mapping[str, Any]) -> dict[str, jax.Array]:
        """The parameters that :meth:`matrix` put together."""
        order = self.batch + self.inputs + self.outputs
        shape = like[self.weight].shape
        weight = matrix if self.bias is None else matrix[..., :-1, :]
        weight = weight.reshape([shape[axis] for axis in order])
        back = sorted(range(len(order)), key=order.__getitem__)
        found = {self.weight: weight.transpose(back)}
        if self.bias is not None:
            found[self.bias] = matrix[..., -1, :].reshape(like[self.bias].shape)
        return found


def leaves_by_path(tree: PyTree) -> dict[str, Any]:
    """The leaves of a tree by their paths."""
    return dict(zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True))


def in_order(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """Layers as a layout, which is the same whatever order they were found in."""
    return tuple(sorted(layers, key=lambda layer: layer.weight))
