"""Boxes: arrays with names for their axes, such as flax's `Partitioned`, in trees of parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax

from .tree import PyTree


def is_box(node: Any) -> bool:
    """Whether this is a box of flax, an `AxisMetadata`."""
    return callable(getattr(type(node), "replace_boxed", None))


def refilled(
    tree: PyTree, values: Iterable[Any], fits: Callable[[Any], bool] = lambda value: False
) -> PyTree:
    """The tree with these values in place of its arrays, in boxes only where they fit.

    The names on a box are those of its array's axes, and would shard what has others.
    """
    nodes, structure = jax.tree.flatten(tree, is_leaf=is_box)
    rest = iter(values)

    def filled(node: Any) -> Any:
        leaves, inside = jax.tree.flatten(node)
        new = [next(rest) for _ in leaves]
        keeps = not is_box(node) or all(map(fits, new))
        return inside.unflatten(new) if keeps else new[0]

    return structure.unflatten(map(filled, nodes))
