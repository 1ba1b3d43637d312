"""Branches that are given the same updates, joined leaf by leaf or as whole trees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax

from .calls.functions import accepts_arguments, with_arguments
from .calls.kinds import Function
from .calls.types import TransformationLike
from .errors import calling, running
from .factory import transformation
from .rules import each_leaf, leaves_like
from .transformation import GradientTransformation
from .trees.tree import PyTree, leaves_as, widened


@transformation(quiet=True)
def join_trees(merge: Function, **branches: TransformationLike) -> GradientTransformation:
    r"""Give the same updates to every branch and merge what they make of them, as whole trees.

    Args:
        merge: function of as many trees as there are branches, in their order, in at least
            float32, that returns a tree like the updates.
        **branches: transformations by name.

    Returns:
        A transformation whose state is the dict of the branches' states.

    Raises:
        TypeError: if `merge` is not a function or a branch is not a transformation.
        ValueError: from `update`, if what `merge` returns is no tree like the updates.

    >>> import gdtx, jax, jax.numpy as jnp
    >>> def as_long_as(u, other):
    ...     ratio = gdtx.global_norm(other) / gdtx.global_norm(u)
    ...     return jax.tree.map(lambda x: ratio * x, u)
    >>> tx = gdtx.join_trees(as_long_as, u=gdtx.identity(), other=gdtx.clip(1.0))
    >>> tx.update({"a": jnp.array(3.0), "b": jnp.array(0.0)}, tx.init({}))[0]["a"]
    Array(1., dtype=float32)
    """
    check_branches("join_trees", merge, branches, "trees")

    def merged(updates: PyTree, *outputs: PyTree) -> PyTree:
        with calling("merge"):
            result = merge(*map(widened, outputs))
        return jax.tree.structure(updates).unflatten(leaves_like(updates, result))

    return joined(branches, merged)


def check_branches(name: str, merge: Any, branches: Mapping[str, Any], what: str) -> None:
    if not branches:
        raise TypeError(f"{name}: needs at least one branch, as in {name}(divide, mu=..., nu=...)")
    if not accepts_arguments(merge, len(branches)):
        raise TypeError(
            f"{name}: merge must be a function of as many {what} as there are branches, "
            f"{len(branches)}, got {with_arguments(merge)}"
        )


def joined(branches: Mapping[str, Any], merged: Callable[..., PyTree]) -> GradientTransformation:
    """What `merged` makes of the updates and of what each branch makes of them."""

    def init(params: PyTree) -> dict[str, PyTree]:
        states = {}
        for name, branch in branches.items():
            with running(name):
                states[name] = branch.init(params)
        return states

    def update(
        updates: PyTree, state: dict[str, PyTree], params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, dict[str, PyTree]]:
        outputs, states = {}, {}
        for name, branch in branches.items():
            with running(name):
                outputs[name], states[name] = branch.update(
                    updates, state[name], params, **extra_args
                )
        return merged(updates, *outputs.values()), states

    return GradientTransformation(init, update, dict(branches))


def merged_leaves(merge: Any, *trees: PyTree) -> PyTree:
    """What a function of arrays makes of trees, leaf by leaf."""
    first, structure = jax.tree.flatten(trees[0])
    others = [leaves_as(structure, tree, "a branch", "the first") for tree in trees[1:]]
    return structure.unflatten(each_leaf(merge, structure, first, *others, what="merge"))
