"""What a state has of each parameter is where the parameter is, in compiled programs too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.core import Tracer
from jax.sharding import AxisType

from ..numbers.values import is_array
from .sharding import sharded_like
from .tree import PyTree


def counterpart_in(tree: PyTree) -> Callable[[Any], Any]:
    """A function of a path in a state: the leaf of this tree that is at its end or above that, or
    None."""
    leaves = dict(jax.tree_util.tree_flatten_with_path(tree)[0])
    lengths = sorted({len(path) for path in leaves})

    def find(path: tuple[Any, ...]) -> Any:
        # From the end: containers of the state may have keys that parameters have too.
        for start in reversed(range(len(path) + 1)):
            below = (path[start : start + n] for n in lengths if start + n <= len(path))
            found = next((leaves[part] for part in below if part in leaves), None)
            if found is not None:
                return found
        return None

    return find


def following(state: PyTree, params: PyTree) -> PyTree:
    """A first state, within a program over an automatic mesh, sharded as the parameters will be.

    Only the compiler knows their shardings. Zeros depend on no data, so that it would put them on
    one device; what is like no parameter, it puts on all devices at least.
    """
    if jax.device_count() == 1:
        return state
    first = next(filter(_is_free, jax.tree.leaves(params)), None)
    if first is None:
        return state
    find = counterpart_in(params)
    leaves, structure = jax.tree_util.tree_flatten_with_path(state)
    likes = [_alike(find(path), x) for path, x in leaves]
    both = [(x, like) for (_, x), like in zip(leaves, likes, strict=True)]
    if any(like is not None for like in likes):
        return structure.unflatten(x if y is None else sharded_like(x, y) for x, y in both)
    beside = jax.lax.optimization_barrier
    return structure.unflatten(beside((x, first))[0] if is_array(x) else x for x, _ in both)


def _alike(param: Any, x: Any) -> Any:
    """The parameter, if the compiler chooses where it is and the array has its shape."""
    return param if _is_free(param) and is_array(x) and x.shape == param.shape != () else None


def _is_free(x: Any) -> bool:
    """Whether the compiler chooses where this array is."""
    if not isinstance(x, Tracer):
        return False
    types = jax.typeof(x).sharding.mesh.axis_types
    return AxisType.Explicit not in types and AxisType.Manual not in types
