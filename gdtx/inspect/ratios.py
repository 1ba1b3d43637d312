"""The length of steps relative to the parameters that they change."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ..core.errors import at_work, fail
from ..core.trees.dispatch import one_program
from ..core.trees.paths import leaf_paths
from ..core.trees.tree import PyTree
from ..links.clipping import global_norm


def update_ratios(updates: PyTree, params: PyTree) -> dict[str, jax.Array]:
    r"""$\|u\| / \|\theta\|$ of every array: by which share of itself a step changes it.

    It is the ratio of their root mean squares as well. About 1e-3 is usual where training goes
    well; a layer far from the others has a learning rate that is not for it.

    Args:
        updates: what a transformation returned.
        params: the parameters they are for.

    Returns:
        Scalars by the path of the array, as :func:`gdtx.describe` has them. One is 0 where the
        update is 0, else infinite where the parameter is 0. Works inside `jit`.

    Raises:
        ValueError: if updates and parameters have other structures.

    >>> import jax.numpy as jnp
    >>> from gdtx import explore
    >>> explore.update_ratios({"w": jnp.array([0.3, 0.4])}, {"w": jnp.array([3.0, 4.0])})
    {'w': Array(0.1, dtype=float32)}
    """
    with at_work("update_ratios"):
        return leaf_ratios(updates, params)


@one_program
def leaf_ratios(updates: PyTree, params: PyTree) -> dict[str, jax.Array]:
    """The ratios, for whoever is at work."""
    leaves, structure = jax.tree.flatten(params)
    try:
        changes = structure.flatten_up_to(updates)
    except ValueError as error:
        fail(ValueError, f"updates are not a tree like params: {error}")
    return {
        path: ratio(global_norm(u), global_norm(p))
        for path, p, u in zip(leaf_paths(params), leaves, changes, strict=True)
        if u is not None
    }


def ratio(update: jax.Array, param: jax.Array) -> jax.Array:
    """The quotient of two norms, 0 where the first is."""
    is_zero = update == 0
    return jnp.where(is_zero, 0, update / jnp.where(is_zero, 1, param))
