"""Layers that the names and shapes of parameters let one expect."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ...core.trees.tree import PyTree
from .layers import Layer, in_order, leaves_by_path


def infer_layout(params: PyTree) -> tuple[Layer, ...]:
    """Layers as names and shapes let one expect them.

    A parameter with two axes or more is the matrix of a dense layer or the kernel of a convolution:
    its last axis is the output, but that of `weight` (as equinox calls it) the first. Beside it, a
    parameter of as many numbers as there are outputs is its bias; of several, the one whose name
    ends alike (`w1`, `b1`). Others shift, if their name begins with `b`, or scale.

    Args:
        params: tree of arrays.

    Returns:
        The layers, in the order of the paths of their weights.

    >>> import jax.numpy as jnp
    >>> from gdtx import kfac
    >>> kfac.infer_layout({"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)})
    (Layer('dense', 'kernel', bias='bias', inputs=(0,), outputs=(1,)),)
    """
    return infer_layers(leaves_by_path(params))


def infer_layers(leaves: Mapping[str, Any]) -> tuple[Layer, ...]:
    """:func:`infer_layout` of parameters by their paths."""
    groups: dict[str, dict[str, Any]] = {}
    for path, leaf in leaves.items():
        parent, _, name = path.rpartition("/")
        groups.setdefault(parent, {})[name] = leaf
    return in_order(
        layer
        for parent, group in groups.items()
        for layer in _side_by_side(f"{parent}/" if parent else "", group)
    )


def _side_by_side(prefix: str, group: Mapping[str, Any]) -> Iterator[Layer]:
    """The layers of parameters that stand in one container, by their names in it."""
    taken: set[str] = set()
    # Those with the most axes first, because a bias may have two itself.
    for name, leaf in sorted(group.items(), key=lambda item: -item[1].ndim):
        if name in taken or not _is_matrix(leaf):
            continue
        bias = next((b for b in group if b not in taken and _fits(group, name, b)), None)
        taken |= {name} if bias is None else {name, bias}
        yield _dense(prefix, name, leaf, bias, group)
    for name in group:
        if name not in taken:
            yield Layer("shift" if name[:1] in "bB" else "scale", prefix + name)


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
