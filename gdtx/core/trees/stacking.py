"""Layers that are stacked along leading axes of one array: told to all that looks at arrays.

A rule on one array is run on each layer, by :func:`of_layers`; what puts arrays together itself
asks :func:`stacked_axes`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from ..numbers.layers import of_layer
from .tree import PyTree, explicit_sharding

_told: ContextVar[Mapping[str, int]] = ContextVar("gdtx_stacked", default=MappingProxyType({}))


@contextlib.contextmanager
def layers_along(axes: Mapping[str, int]) -> Iterator[None]:
    """Inside, arrays at these paths are layers along so many leading axes, and no others."""
    token = _told.set(axes)
    try:
        yield
    finally:
        _told.reset(token)


def are_stacked() -> bool:
    """Whether some arrays are layers."""
    return bool(_told.get())


def stacked_axes(tree: PyTree) -> list[int]:
    """For each leaf, along how many leading axes it is layers."""
    told = _told.get()
    if not told:
        return [0] * len(jax.tree.leaves(tree))
    found = jax.tree_util.tree_flatten_with_path(tree)[0]
    axes = [told.get(jax.tree_util.keystr(path), 0) for path, _ in found]
    # At the path of an array there may be less than one number a layer: one for all of them.
    return [n if jnp.ndim(x) >= n else 0 for n, (_, x) in zip(axes, found, strict=True)]


def layer_structs(tree: PyTree) -> PyTree:
    """The tree with shapes and dtypes of one layer in place of layers."""
    axes = stacked_axes(tree)
    leaves, structure = jax.tree.flatten(tree)
    return structure.unflatten(
        jax.ShapeDtypeStruct(x.shape[n:], x.dtype) if n else x
        for x, n in zip(leaves, axes, strict=True)
    )


def of_layers(f: Callable[..., Any], n: int) -> Callable[..., Any]:
    """`f` of each layer along so many leading axes of its first argument, and of what the others
    have for each. What is not for each layer, all are given."""
    if not n:
        return f

    def of_all(*columns: Any) -> Any:
        first = jax.tree.leaves(columns[0])[0]
        lead = first.shape[:n]

        def axis(x: Any) -> int | None:
            return 0 if jnp.ndim(x) >= n and jnp.shape(x)[:n] == lead else None

        def of_one(index: jax.Array, *columns: Any) -> Any:
            with of_layer(index):
                return f(*columns)

        axes = (0, *(jax.tree.map(axis, column) for column in columns))
        for _ in range(n):
            of_one = jax.vmap(of_one, in_axes=axes)
        return of_one(_numbered(first, n), *columns)

    return of_all


def _numbered(x: jax.Array, n: int) -> jax.Array:
    """The number of each layer, sharded as layers are."""
    lead, where = x.shape[:n], explicit_sharding(x)
    if where is not None:
        where = NamedSharding(where.mesh, PartitionSpec(*where.spec[:n]))
    numbers = jnp.arange(math.prod(lead), dtype=jnp.uint32).reshape(lead)
    return numbers if where is None else jax.sharding.reshard(numbers, where)
