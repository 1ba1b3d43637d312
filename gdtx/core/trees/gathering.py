"""Parts of arrays brought together inside of `shard_map`, for what must see whole ones."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from ..numbers.shards import sharded_over
from .tree import PyTree

Cuts = Mapping[str, tuple[tuple[str, ...], ...]]
"""By path, the mesh axes over which each axis of an array is cut."""

_cuts: ContextVar[Cuts] = ContextVar("gdtx_cuts", default=MappingProxyType({}))


@contextlib.contextmanager
def cut_so(cuts: Cuts) -> Iterator[None]:
    """Inside, arrays at these paths are parts of whole ones that are cut so."""
    token = _cuts.set(cuts)
    names = frozenset(name for axes in cuts.values() for entry in axes for name in entry)
    try:
        with sharded_over(names):
            yield
    finally:
        _cuts.reset(token)


def are_parts() -> bool:
    """Whether arrays are parts of whole ones."""
    return bool(_cuts.get())


def on_whole(f: Callable[..., PyTree], *trees: PyTree) -> Any:
    """What `f` makes of whole arrays, which no device need know to be parts."""
    whole = [None if tree is None else _mapped(_joined, tree) for tree in trees]
    with cut_so({}):
        return f(*whole)


def parts_of(tree: PyTree) -> PyTree:
    """Of each array that is cut, this device's part."""
    return _mapped(_part, tree)


def _mapped(f: Callable[[jax.Array, Any], jax.Array], tree: PyTree) -> PyTree:
    cuts = _cuts.get()

    def of_leaf(path: Any, x: Any) -> Any:
        axes = cuts.get(jax.tree_util.keystr(path), ())
        return f(x, axes) if any(axes) else x

    return jax.tree_util.tree_map_with_path(of_leaf, tree)


def _joined(x: jax.Array, axes: tuple[tuple[str, ...], ...]) -> jax.Array:
    """A sum with zeros in the places of the others, because its type is the same on all devices.

    What `jax.lax.all_gather` returns is the same too, and half of what is sent, but its type says
    that it varies, and nothing public says otherwise: a state of it would be refused as whole.
    """
    for axis, names in enumerate(axes):
        if names:
            n = x.shape[axis]
            shape = list(x.shape)
            shape[axis] = n * jax.lax.psum(1, names)
            start = jax.lax.axis_index(names) * n
            zeros = jnp.zeros(shape, x.dtype)
            placed = jax.lax.dynamic_update_slice_in_dim(zeros, x, start, axis)
            x = jax.lax.psum(placed, names)
    return x


def _part(x: jax.Array, axes: tuple[tuple[str, ...], ...]) -> jax.Array:
    for axis, names in enumerate(axes):
        if names:
            n = x.shape[axis] // jax.lax.psum(1, names)
            x = jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(names) * n, n, axis)
    return x
