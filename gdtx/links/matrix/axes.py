"""Which arrays are matrices, and which of their axes are inputs, outputs and batch."""

from __future__ import annotations

import math
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from ...core.errors import fail, summarize
from ...core.trees.choice import given, is_patterns, is_rules
from ...core.trees.paths import first_matches, leaf_paths, matches
from ...core.trees.stacking import stacked_axes
from ...core.trees.tree import PyTree, is_prefix

PLAIN = "io"


def axes_of(
    axes: Any, tree: PyTree, name: str, like: str, complete: bool = True
) -> list[str | None]:
    """For each leaf of `tree` its axes, a letter each, or None where it is no matrix.

    Args:
        axes: axes or booleans as a tree like `tree` or a prefix of it, by patterns of paths, or
            from a function.
        tree: the arrays.
        name: what the axes are called in messages.
        like: what the tree is called in messages.
        complete: whether each pattern must match.
    """
    rules = _rules(axes, tree)
    values = (
        given(axes, tree, name, _check)
        if rules is None
        else _from_patterns(rules, tree, name, complete)
    )
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [
        _checked_axes(value, leaf, n, f"{like}{jax.tree_util.keystr(path)}", name)
        for (path, leaf), value, n in zip(leaves, values, stacked_axes(tree), strict=True)
    ]


def among_matrices(axes: Any, name: str) -> Any:
    """The same axes, for trees in which all other arrays are left out."""
    if type(axes) not in (list, tuple):
        return axes

    def of_the_others(tree: PyTree) -> PyTree:
        values = axes_of(axes, tree, name, "params", complete=False)
        return jax.tree.structure(tree).unflatten([value or False for value in values])

    return of_the_others


def _rules(axes: Any, tree: PyTree) -> list[tuple[str, Any]] | None:
    """Pairs of a pattern and axes, if these are patterns and not a tree."""
    if not (is_patterns(axes) or is_rules(axes)):
        return None
    if all(map(_is_value, jax.tree.leaves(axes))) and is_prefix(axes, tree):
        return None
    return [(item, True) if isinstance(item, str) else tuple(item) for item in axes]


def _from_patterns(
    rules: list[tuple[str, Any]], tree: PyTree, name: str, complete: bool
) -> list[Any]:
    paths = leaf_paths(tree)
    for pattern, value in rules:
        _check(value, f"{name} of pattern {pattern!r}")
    if complete:
        first_matches(rules, paths)
    return [next((value for pattern, value in rules if matches(pattern, path)), False)
            for path in paths]  # fmt: skip


def _check(value: Any, where: str) -> None:
    if not _is_value(value):
        fail(
            ValueError if isinstance(value, str) else TypeError,
            f"{where} is {summarize(value)}, expected True, False or a letter for each axis: "
            "i for the inputs, o for the outputs, b for a batch of matrices, as in 'io'",
        )


def fail_without_matrices(tree: PyTree, name: str, like: str) -> NoReturn:
    """The error of a method that was not told which leaves are matrices."""
    flat = [
        f"{like}{jax.tree_util.keystr(path)}"
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
        if leaf.ndim == 2
    ]
    fail(
        ValueError,
        f"{name} must say which leaves are matrices, as patterns of paths or a tree of True, False "
        f"and axes such as 'io'; {', '.join(flat) or 'no leaf'} may be, of two dimensions "
        "(embeddings and output layers, though of two dimensions, are no such matrices)",
    )


def fans(shape: tuple[int, ...], axes: str) -> tuple[int, int]:
    """How many inputs and outputs a matrix has."""
    sizes = [math.prod(shape[i] for i in places_of(axes, letter)) for letter in "io"]
    return sizes[0], sizes[1]


def as_matrices(x: jax.Array, axes: str) -> jax.Array:
    """A stack of matrices with no more rows than columns."""
    n_in, n_out = fans(x.shape, axes)
    stack = jnp.transpose(x, axis_order(axes)).reshape(-1, n_in, n_out)
    return jnp.swapaxes(stack, 1, 2) if n_in > n_out else stack


def from_matrices(stack: jax.Array, shape: tuple[int, ...], axes: str) -> jax.Array:
    """The array of this shape that :func:`as_matrices` took apart."""
    n_in, n_out = fans(shape, axes)
    return in_order_of(axes, jnp.swapaxes(stack, 1, 2) if n_in > n_out else stack, shape)


def _is_value(value: Any) -> bool:
    is_axes = isinstance(value, str) and {"i", "o"} <= set(value) <= {"i", "o", "b"}
    return is_axes or isinstance(value, bool | np.bool_)


def _checked_axes(value: Any, leaf: Any, stacked: int, where: str, name: str) -> str | None:
    """The axes of one array, of which the first so many count layers."""
    axes = value or None if isinstance(value, str) else PLAIN if value else None
    if axes is None:
        return None
    shape = tuple(leaf.shape[stacked:])
    if len(axes) != len(shape):
        fail(
            ValueError,
            f"{where} has shape {shape}, where {name} says that it has {len(axes)} "
            f"axes, {axes!r} (i for the inputs, o for the outputs, b for a batch of matrices)",
        )
    return "b" * stacked + axes


def places_of(axes: str, letter: str) -> list[int]:
    """Which axes have this letter."""
    return [i for i, each in enumerate(axes) if each == letter]


def axis_order(axes: str) -> list[int]:
    """The axes of a batch first, then those of the inputs, then those of the outputs."""
    return [*places_of(axes, "b"), *places_of(axes, "i"), *places_of(axes, "o")]


def in_order_of(axes: str, x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The array of this shape whose axes :func:`axis_order` has ordered."""
    order = axis_order(axes)
    return jnp.transpose(
        x.reshape([shape[i] for i in order]), [order.index(i) for i in range(len(order))]
    )
