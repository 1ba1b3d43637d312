"""What `optax.tree_map_params` asks: which parts of a state are like the parameters."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from .tree import PyTree


def unlike_params(init: Callable[[PyTree], PyTree]) -> Callable[[PyTree], PyTree]:
    """An `init` of a state whose trees are not like the parameters, which says so to Optax.

    That asks for the state of a node of its own in place of the parameters, without leaves, and
    takes every such node in the state for a tree like them. Here a leaf stands for those trees.
    """

    def first(params: PyTree) -> PyTree:
        # By its name, because it is not public.
        if type(params).__name__ != "_ParamsPlaceholder":
            return init(params)

        def is_tree(node: PyTree) -> bool:
            return isinstance(node, dict) and not node

        return jax.tree.map(lambda x: jnp.zeros(()) if is_tree(x) else x, init({}), is_leaf=is_tree)

    return first
