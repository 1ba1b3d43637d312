"""Parts of arrays inside of `shard_map`, and numbers that are of all parts together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp

from ..errors import fail

_over: ContextVar[frozenset[str]] = ContextVar("gdtx_sharded_over", default=frozenset())


@contextlib.contextmanager
def sharded_over(axes: frozenset[str]) -> Iterator[None]:
    """Inside, arrays that vary over these mesh axes are parts of whole ones."""
    token = _over.set(axes)
    try:
        yield
    finally:
        _over.reset(token)


def varying_axes(x: Any) -> tuple[str, ...]:
    """Inside of `shard_map`, the mesh axes over which `x` varies.

    They are known where it checks over which axes arrays vary, as it does by default.
    """
    kind = jax.typeof(x)
    # In jax 0.7 it has another name.
    manual = getattr(kind, "manual_axis_type", None)
    return tuple(sorted(getattr(kind, "vma", ()) if manual is None else manual.varying))


def shared_axes(x: Any) -> tuple[str, ...]:
    """Of these, the axes over which `x` is a part of a whole array."""
    over = _over.get()
    return tuple(name for name in varying_axes(x) if name in over) if over else ()


def total(x: jax.Array, part: Any) -> jax.Array:
    """The sum of `x` over the parts of the array of which `part` is one."""
    axes = shared_axes(part)
    return jax.lax.psum(x, axes) if axes else x


def largest(x: jax.Array, part: Any) -> jax.Array:
    """The largest over the parts."""
    axes = shared_axes(part)
    return jax.lax.pmax(x, axes) if axes else x


def anywhere(flag: jax.Array) -> jax.Array:
    """Whether it is true of any part, where it is of parts: all devices must go the same way."""
    return total(flag.astype(jnp.int32), flag) > 0 if shared_axes(flag) else flag


def one_for_all(what: str, x: jax.Array) -> jax.Array:
    """`x`, which must be the same on all devices that have parts of the parameters."""
    if axes := shared_axes(x):
        fail(
            ValueError,
            f"{what} must be the same on all devices that have parts of the parameters, but varies "
            f"over {axes[0]!r}: put them together, by jax.lax.pmean, psum or pmax",
        )
    return x


def whole_size(x: Any) -> int:
    """How many numbers the whole array has."""
    size = x.size
    for name in shared_axes(x):
        size *= jax.lax.psum(1, name)  # a number that is known while tracing
    return size


def number_of_part(x: Any) -> jax.Array | None:
    """Which part this is of those of which `x` is one; None if it is whole."""
    axes = varying_axes(x)
    return jax.lax.axis_index(axes) if axes else None
