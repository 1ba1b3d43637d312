"""Choosing the parameters that a transformation is for."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from ._errors import check_state, describe, fail
from ._transformation import GradientTransformation, transformation
from ._tree import PyTree, broadcast_prefix


class MaskedState(NamedTuple):
    """State of a transformation of some of the parameters only."""

    inner: PyTree


@transformation
def masked(inner: GradientTransformation, mask: Any) -> GradientTransformation:
    r"""Transform only the leaves that a mask selects; the others pass as they are.

    Args:
        inner: transformation of the selected leaves; the others are None to it and take no state.
        mask: tree of booleans, like the parameters or a prefix of them, or a function of the
            parameters (of the updates where there are none) that returns one.

    Returns:
        A transformation whose state is that of `inner` on the selected leaves.

    Raises:
        ValueError: if the mask does not fit the parameters.
        TypeError: if a leaf of it is not True or False.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.masked(gdtx.scale(2.0), {"w": True, "b": False})
    >>> tx.update({"w": jnp.array([1.0]), "b": jnp.array([1.0])}, gdtx.MaskedState(()))[0]
    {'b': Array([1.], dtype=float32), 'w': Array([2.], dtype=float32)}
    """

    def init(params: PyTree) -> MaskedState:
        return MaskedState(inner.init(_selected(params, _selection(mask, params))))

    def update(
        updates: PyTree, state: MaskedState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, MaskedState]:
        check_state(state, MaskedState)
        selection = _selection(mask, updates if params is None else params)
        leaves, structure = jax.tree.flatten(updates)
        if params is not None:
            params = _selected(params, selection)
        new, inner_state = inner.update(
            _selected(updates, selection), state.inner, params, **extra_args
        )
        transformed = iter(jax.tree.leaves(new))
        merged = [
            next(transformed) if chosen else leaf
            for leaf, chosen in zip(leaves, selection, strict=True)
        ]
        return structure.unflatten(merged), MaskedState(inner_state)

    return GradientTransformation(init, update)


def _selection(mask: Any, tree: PyTree) -> list[bool]:
    # A callable pytree, such as a module, is a tree of booleans and not a function.
    is_function = callable(mask) and jax.tree_util.treedef_is_leaf(jax.tree.structure(mask))
    mask = mask(tree) if is_function else mask
    for path, chosen in jax.tree_util.tree_flatten_with_path(mask)[0]:
        if not isinstance(chosen, bool | np.bool_):
            where = jax.tree_util.keystr(path)
            fail(TypeError, f"mask{where} is {describe(chosen)}, expected True or False")
    return broadcast_prefix(mask, tree, "mask", "params")


def _selected(tree: PyTree, selection: list[bool]) -> PyTree:
    leaves, structure = jax.tree.flatten(tree)
    return structure.unflatten(
        [leaf if chosen else None for leaf, chosen in zip(leaves, selection, strict=True)]
    )
