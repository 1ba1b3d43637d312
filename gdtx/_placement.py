"""Results kept where the state is, for rules that mix the numbers of a sharded array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ._tree import scalar_like


def whole(x: jax.Array) -> jax.Array:
    """The array, all of it on every device of its mesh."""
    mesh = jax.typeof(x).sharding.mesh
    # Without tracing there is no choice that a compiler could make instead.
    if not isinstance(x, Tracer) or AxisType.Auto not in mesh.axis_types:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec()))


def zeros_whole(like: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Zeros on the devices of an array, all of them on each."""
    return jnp.broadcast_to(scalar_like(like, 0, dtype), shape)


def placed_like(f: Callable[..., Any], likes: tuple[jax.Array, ...]) -> Callable[..., Any]:
    """A function that returns arrays, which are to be placed as these, one for each.

    On an explicit mesh, where the placement of an array is in its type, every operation would
    have to say that of its result; so inside of the function the compiler chooses.
    """
    mesh = jax.typeof(likes[0]).sharding.mesh
    names = tuple(
        name
        for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
        if kind == AxisType.Explicit
    )
    if not names:
        return f
    specs = tuple(jax.typeof(x).sharding.spec for x in likes)
    return jax.sharding.auto_axes(f, axes=names, out_sharding=specs)
