"""Parameters cut over the devices that have equal copies of them."""

from __future__ import annotations

import math
from typing import Any

import jax
from jax.sharding import NamedSharding

from ..core.errors import summarize
from ..core.trees.sharding import shard_count, spec_of, with_spec
from ..core.trees.tree import PyTree


class Share(jax.ShapeDtypeStruct):
    """An array as it would be, were it cut over mesh axes of these names."""

    over: tuple[str, ...]

    def __init__(self, like: Any, where: NamedSharding, over: tuple[str, ...]) -> None:
        super().__init__(like.shape, like.dtype, sharding=cut(like.shape, where, over))
        object.__setattr__(self, "over", over)  # in newer JAX its class refuses the plain way


def zero1(params: PyTree, axis: str | tuple[str, ...]) -> PyTree:
    """The parameters as they would be, were they cut over a mesh axis on which they are whole.

    For states of which each device is to keep its share (ZeRO, stage 1):
    `state_sharding(tx, zero1(params, "data"))` is for the `out_shardings` of a jitted `init` and of
    the jitted step, whose parameters stay as they are. The compiler then has each device compute
    its share of the update and brings the shares together. What of a state is not like a parameter,
    such as matrices of statistics, is cut by the same rule.

    An array is cut along the longest of its axes that is divided by no other mesh axis and can be
    divided equally; if none can, along the longest of which the parts can be divided again. What
    cannot be divided stays whole, as does what is cut over a mesh axis of this name already.

    Args:
        params: tree of arrays on a mesh, or of `jax.ShapeDtypeStruct` with such shardings.
        axis: name of a mesh axis, or names of several.

    Returns:
        A tree like the parameters of `jax.ShapeDtypeStruct`, whose `sharding` is the new one.
        :func:`state_sharding` takes it.

    Raises:
        ValueError: if an array is not on a mesh, or its mesh has no such axis.

    References:
        Rajbhandari et al. 2020, ZeRO: Memory Optimizations Toward Training Trillion Parameter
        Models, arXiv:1910.02054, for the states of optimizers.

    >>> import gdtx, jax, jax.numpy as jnp
    >>> from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
    >>> mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    >>> params = {"w": jax.device_put(jnp.zeros((8, 4)), NamedSharding(mesh, P()))}
    >>> gdtx.zero1(params, "data")["w"].sharding.spec == P("data")
    True
    """
    names = (axis,) if isinstance(axis, str) else tuple(axis)

    def share(path: Any, x: Any) -> Share:
        where = getattr(x, "sharding", None)
        if not isinstance(where, NamedSharding):
            raise _problem(path, f"must be on a mesh, got {summarize(x)}, sharding {where}")
        missing = [name for name in names if name not in where.mesh.axis_names]
        if missing:
            raise _problem(
                path, f"is on a mesh with axes {where.mesh.axis_names}, without {missing[0]!r}"
            )
        return Share(x, where, names)

    return jax.tree_util.tree_map_with_path(share, params)


def cut(shape: tuple[int, ...], where: NamedSharding, names: tuple[str, ...]) -> NamedSharding:
    """The sharding of an array of this shape that is cut over these mesh axes too."""
    entries = [() if e is None else e if isinstance(e, tuple) else (e,)
               for e in spec_of(where, len(shape))]  # fmt: skip
    used = {name for entry in entries for name in entry}
    new = tuple(name for name in names if name not in used)
    parts = math.prod(where.mesh.shape[name] for name in new)
    sizes = [n // shard_count(where, entry) for n, entry in zip(shape, entries, strict=True)]
    fits = [i for i, size in enumerate(sizes) if size and size % parts == 0]
    if not new or not fits:
        return where
    chosen = max(fits, key=lambda i: (not entries[i], sizes[i], -i))
    entries[chosen] = (*entries[chosen], *new)
    spec = [entry[0] if len(entry) == 1 else entry or None for entry in entries]
    return with_spec(where, spec, len(shape))


def _problem(path: Any, problem: str) -> ValueError:
    return ValueError(f"zero1: params{jax.tree_util.keystr(path)} {problem}")
