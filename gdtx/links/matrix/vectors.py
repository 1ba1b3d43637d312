"""Arrays of one axis, for which matrices of that axis are out of proportion."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import jax

from ...core.calls.types import TransformationLike
from ...core.errors import where
from ...core.select import partition
from ...core.transformation import GradientTransformation
from ...core.trees.paths import listed
from ...core.trees.tree import PyTree, leaf_path
from .axes import axes_of
from .blocks import Part, Stacks

_LARGE = 1000


def with_others(
    tx: GradientTransformation, others: GradientTransformation | None
) -> GradientTransformation:
    """`tx`, and `others` of arrays of at most one axis, if that is given.

    Args:
        tx: method of matrices.
        others: transformation of arrays of at most one axis longer than 1, such as biases, its
            learning rate its own; None is this method for them too. Of a vector of $n$ numbers it
            keeps at least $2n^2$, or of a longer one 2 `blocks.size` for each, and a warning says
            so where that is much.
    """
    return tx if others is None else partition({"matrices": tx, "others": others}, _by_axes)


def of_matrices(
    matrices: GradientTransformation, others: TransformationLike, axes: Any
) -> GradientTransformation:
    """`matrices` of the arrays that `axes` says are such and that have numbers, and `others` of the
    others. It has no name of its own, so that expressions show what is made with it."""

    def labels(tree: PyTree) -> PyTree:
        both = zip(jax.tree.leaves(tree), axes_of(axes, tree, "axes", "params"), strict=True)
        names = ["matrices" if a and x.size else "others" for x, a in both]
        return jax.tree.structure(tree).unflatten(names)

    parts = partition({"matrices": matrices, "others": others}, labels)
    return GradientTransformation(*parts, parts)


def two_axes(params: PyTree) -> PyTree:
    """Whether arrays have two axes longer than 1 and no other."""
    return jax.tree.map(lambda p: p.ndim == 2 and min(p.shape) > 1, params)


def _by_axes(params: PyTree) -> PyTree:
    def label(p: jax.Array) -> str:
        return "matrices" if sum(size > 1 for size in p.shape) > 1 else "others"

    return jax.tree.map(label, params)


def warn_of_size(
    params: PyTree, layout: dict[str, list[Part]], stacks: Stacks, state: PyTree
) -> None:
    """Warn of arrays whose state, which lies in stacks by name, is out of proportion."""
    numbers: Counter[str] = Counter()
    for path, x in jax.tree_util.tree_flatten_with_path(state)[0]:
        keys = (getattr(key, "key", None) for key in path)
        numbers.update({key: x.size for key in keys if key in layout})
    large: dict[str, float] = {}
    for name, members in layout.items():
        own = stacks[name].size
        for part in members if numbers[name] > _LARGE * own else ():
            path = f"params{leaf_path(params, part.leaf)}"
            large[path] = max(large.get(path, 0), numbers[name] / own)
    if large:
        warnings.warn(
            f"{where()}: the state takes up to {max(large.values()):,.0f} numbers for each of "
            f"{listed(large)}. Arrays of one axis, or nearly so, are often left to another method: "
            "with others=adam(...) or partition",
            stacklevel=2,
        )
