"""Layers: which parameters stand in a matrix together, and which axes are its rows and columns."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ...core.numerics import cast, compute_dtype
from ...core.paths import leaf_paths
from ...core.tree import PyTree, varying_like


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

    def statistics(self, leaves: Mapping[str, Any]) -> dict[str, jax.Array]:
        """Zeros in the shapes of what is gathered for this block."""
        dtype = compute_dtype(leaves[self.weight].dtype)
        if self.kind != "dense":
            shapes = {"D": leaves[self.weight].shape}
        else:
            stack, rows, columns = self.sizes(leaves)
            shapes = {"A": (*stack, rows, rows), "S": (*stack, columns, columns), "n": stack}
        own = [leaves[path] for path in self.paths]
        return {name: varying_like(own, jnp.zeros(shape, dtype)) for name, shape in shapes.items()}

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


def infer_layout(params: PyTree) -> tuple[Layer, ...]:
    """Layers as names and shapes let one expect them.

    A parameter with two axes or more is the matrix of a dense layer or the kernel of a convolution:
    its last axis is the output, but that of `weight` (as equinox calls it) the first. Beside it, a
    parameter of as many numbers as there are outputs is its bias; of several, the one whose name
    ends alike (`w1`, `b1`). Others shift, if their name begins with `b`, or scale.
    """
    groups: dict[str, dict[str, Any]] = {}
    for path, leaf in leaves_by_path(params).items():
        parent, _, name = path.rpartition("/")
        groups.setdefault(parent, {})[name] = leaf
    layers = []
    for parent, group in groups.items():
        prefix = f"{parent}/" if parent else ""
        taken: set[str] = set()
        # Those with the most axes first, because a bias may have two itself.
        for name, leaf in sorted(group.items(), key=lambda item: -item[1].ndim):
            if name in taken or not _is_matrix(leaf):
                continue
            bias = next((b for b in group if b not in taken and _fits(group, name, b)), None)
            taken |= {name} if bias is None else {name, bias}
            layers.append(_dense(prefix, name, leaf, bias, group))
        layers += [
            Layer("shift" if name[:1] in "bB" else "scale", prefix + name)
            for name in group
            if name not in taken
        ]
    return in_order(layers)


def _is_matrix(leaf: Any) -> bool:
    return sum(size > 1 for size in leaf.shape) >= 2 or (leaf.ndim == 2)


def _outputs(name: str, leaf: Any, bias: Any | None) -> tuple[int, ...]:
    if name == "weight":
        return (0,)
    if (
        bias is not None
        and bias.ndim > 1
        and not _is_stack(leaf, bias)
        and leaf.shape[-bias.ndim :] == bias.shape
    ):
        return tuple(range(leaf.ndim - bias.ndim, leaf.ndim))
    return (leaf.ndim - 1,)


def _is_stack(leaf: Any, bias: Any | None) -> bool:
    """Whether kernel and bias are those of several layers, one above the other."""
    return bias is not None and leaf.ndim == 3 and bias.shape == (leaf.shape[0], leaf.shape[-1])


def _fits(group: Mapping[str, Any], name: str, other: str) -> bool:
    leaf, bias = group[name], group[other]
    if other == name or not (bias.ndim == 1 or 0 < bias.ndim < leaf.ndim):
        return False
    several = sum(map(_is_matrix, group.values())) > 1
    if several and re.sub(r"^\D*", "", name) != re.sub(r"^\D*", "", other):
        return False
    if _is_stack(leaf, bias):
        return True
    return bias.size == math.prod(leaf.shape[axis] for axis in _outputs(name, leaf, bias))


def _dense(prefix: str, name: str, leaf: Any, bias: str | None, group: Mapping[str, Any]) -> Layer:
    beside = None if bias is None else group[bias]
    outputs = _outputs(name, leaf, beside)
    stack = (0,) if _is_stack(leaf, beside) else ()
    inputs = tuple(axis for axis in range(leaf.ndim) if axis not in outputs + stack)
    path = None if bias is None else prefix + bias
    return Layer("dense", prefix + name, path, inputs, outputs, stack)
