"""The sharding of a state before there is one."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import NamedSharding

from ..core.calls.signature import Signature
from ..core.errors import summarize
from ..core.transformation import GradientTransformation
from ..core.trees.structs import placed_structs
from ..core.trees.tree import PyTree
from .zero import Share, cut


def state_sharding(
    tx: GradientTransformation, params: PyTree, memory_kind: str | None = None
) -> PyTree:
    """The sharding of every array of `tx.init(params)`; allocates nothing.

    It is what a jitted `init` and a jitted step are told by `out_shardings`, and what a checkpoint
    is restored to.

    Args:
        tx: any transformation.
        params: tree of arrays, or of `jax.ShapeDtypeStruct` with shardings, such as
            :func:`zero1` returns.
        memory_kind: memory of the devices in which the state is to be, `"pinned_host"` for that of
            their host; by default the devices' own, or that of the parameters for what is like
            them.

    Returns:
        A tree like the state, with a `jax.sharding.Sharding` in the place of each array.

    Raises:
        TypeError: if `tx` is not a transformation, or a leaf is not an array.
        ValueError: if a leaf has no sharding: a struct without one, or an array that is traced on
            an automatic mesh; or if devices have no such memory.

    >>> import gdtx, jax, jax.numpy as jnp
    >>> params = {"w": jnp.zeros((8, 4))}
    >>> shardings = gdtx.state_sharding(gdtx.adam(1e-3), params)
    >>> state = jax.jit(gdtx.adam(1e-3).init, out_shardings=shardings)(params)
    >>> jax.tree.all(jax.tree.map(lambda x, where: x.sharding == where, state, shardings))
    True
    """
    tx = Signature(state_sharding, schedules=False).bind((tx, params), {})["tx"]
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        if getattr(leaf, "sharding", None) is None:
            name = f"params{jax.tree_util.keystr(path)}"
            raise ValueError(
                f"state_sharding: {name} must have a sharding, got {summarize(leaf)} without"
            )
    over = next((x.over for x in jax.tree.leaves(params) if isinstance(x, Share)), ())

    def sharding(x: jax.ShapeDtypeStruct) -> Any:
        where = x.sharding
        # On an explicit mesh the types of what they are computed with say where arrays are.
        is_free = isinstance(where, NamedSharding) and not where.mesh.explicit_axes
        return cut(x.shape, where, over) if is_free else where

    shardings = jax.tree.map(sharding, placed_structs(tx.init, params))
    return shardings if memory_kind is None else in_memory(shardings, memory_kind)


def in_memory(shardings: PyTree, kind: str) -> PyTree:
    """The same devices' memory of this kind."""
    return jax.tree.map(lambda where: where.with_memory_kind(kind), shardings)
