"""Buffers of another library, in our containers, dtypes and shardings."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from ..core.errors import fail, summarize
from ..core.trees.tree import PyTree
from ..links.rank_one import Margins


def margins(old: PyTree, factored: Any) -> PyTree:
    """What Optax keeps of rows and columns, or of the whole, where ours keeps the same."""

    def is_margins(node: Any) -> bool:
        return isinstance(node, Margins)

    ours, structure = jax.tree_util.tree_flatten_with_path(old, is_leaf=is_margins)
    columns = [jax.tree_util.tree_flatten_with_path(tree)[0] for tree in factored[1:]]
    if any([path for path, _ in ours] != [path for path, _ in column] for column in columns):
        return factored.v  # for other parameters, as will be seen
    return structure.unflatten(
        Margins(row, col) if is_margins(leaf) else whole
        for (_, leaf), (_, row), (_, col), (_, whole) in zip(ours, *columns, strict=True)
    )


def buffer_like(old: PyTree, tree: PyTree, where: str) -> PyTree:
    """What Optax kept there, in our container and dtype."""
    ours, structure = jax.tree_util.tree_flatten_with_path(old)
    theirs = jax.tree_util.tree_flatten_with_path(tree)[0]
    for (our_path, x), (path, y) in zip(ours, theirs, strict=False):
        if our_path != path or x.shape != jnp.shape(y):
            found = f"{where}{jax.tree_util.keystr(path)} is {summarize(y)}"
            wanted = f"params{jax.tree_util.keystr(our_path)} of shape {x.shape}"
            fail(ValueError, f"{found}, expected what belongs to {wanted}")
    if len(ours) != len(theirs):
        fail(ValueError, f"{where} has {len(theirs)} leaves, tx is for {len(ours)} parameters")
    return structure.unflatten([_cast(y, x) for (_, x), (_, y) in zip(ours, theirs, strict=True)])


def _cast(new: Any, old: jax.Array) -> jax.Array:
    # Theirs is where it is used; what a checkpoint gave is nowhere yet.
    is_placed = isinstance(new, jax.Array)
    new = jnp.asarray(new, old.dtype)
    return new if is_placed else placed(new, old)


def copied(new: Any, old: jax.Array) -> jax.Array:
    """A number of theirs in a buffer of its own, where ours was."""
    return placed(jnp.array(new, old.dtype), old)


def placed(new: jax.Array, old: jax.Array) -> jax.Array:
    if isinstance(old, Tracer) or isinstance(new, Tracer) or not old.committed:
        return new
    return jax.device_put(new, old.sharding)
