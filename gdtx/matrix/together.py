"""Matrices of one shape, from wherever they are, through one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType

Stacks = list[jax.Array]


def together(
    f: Callable[[jax.Array], jax.Array], stacks: Stacks, batch_size: int | None = None
) -> Stacks:
    """`f` of stacks of matrices, those of one shape and dtype joined before and split after."""
    groups: dict[Any, list[int]] = {}
    for i, stack in enumerate(stacks):
        groups.setdefault((stack.shape[1:], stack.dtype), []).append(i)
    results = list(stacks)
    for members in groups.values():
        parts = [stacks[i] for i in members]
        if len(parts) == 1:
            results[members[0]] = bounded(f, parts[0], batch_size)
            continue
        whole = bounded(f, jnp.concatenate(parts), batch_size)
        for i, part in zip(members, _split(whole, list(map(len, parts))), strict=True):
            results[i] = part
    return results


def _split(whole: jax.Array, sizes: list[int]) -> Stacks:
    """The first so many, the next so many, and so on."""
    starts = [sum(sizes[:k]) for k in range(len(sizes))]

    def at(places: list[Any]) -> Stacks:
        return [
            jax.lax.dynamic_slice_in_dim(whole, place, size)
            for place, size in zip(places, sizes, strict=True)
        ]

    def on_cpu() -> Stacks:
        # There XLA compiles each slice at a place that it knows by itself, a large part of a second
        # for 48 layers, and all at places that it does not know once. So they are hidden from it:
        # in sorting twice the same number, which comes out, whatever it is sorted by.
        # Unsigned: a place that might be negative takes three operations more.
        key = jnp.broadcast_to(whole.ravel()[0].real, 2)
        pairs = [jnp.full(2, start, jnp.uint32) for start in starts]
        _, *hidden = jax.lax.sort((key, *pairs), num_keys=1, is_stable=False)
        return at([pair[0] for pair in hidden])

    return jax.lax.platform_dependent(cpu=on_cpu, default=lambda: at(starts))


def bounded(
    f: Callable[[jax.Array], jax.Array], stack: jax.Array, batch_size: int | None
) -> jax.Array:
    """`f` of at most so many matrices at a time."""
    if batch_size is None or len(stack) <= batch_size:
        return f(stack)
    return jax.lax.map(lambda x: f(x[None])[0], stack, batch_size=batch_size)


def placed_as_they_were(f: Callable[..., list[jax.Array]], *arrays: jax.Array) -> list[jax.Array]:
    """`f`, which changes neither number nor shape of arrays, nor where they are.

    On an explicit mesh a placement is part of the type and every operation must say its own; here
    the compiler chooses those in between.
    """
    shardings = [jax.typeof(x).sharding for x in arrays]
    meshes = [sharding.mesh for sharding in shardings]
    explicit = {
        name
        for mesh in meshes
        for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
        if kind == AxisType.Explicit
    }
    if not explicit:
        return f(*arrays)
    specs = [sharding.spec for sharding in shardings]
    automatic: Any = jax.sharding.auto_axes(f, axes=tuple(explicit), out_sharding=specs)
    return automatic(*arrays)
