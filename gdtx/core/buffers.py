"""Buffers of a rule that remembers: their first values, and how new ones are kept."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import keystr, tree_flatten_with_path
from jax.typing import DTypeLike

from .calls.functions import is_function
from .errors import calling, fail, summarize
from .numbers.handover import counts
from .numbers.narrow import bits, drawn, mixed, rounded_by_chance
from .numbers.numerics import cast, compute_dtype, is_narrow
from .numbers.values import is_array
from .trees.stacking import of_layers, stacked_axes
from .trees.tree import PyTree, explicit_sharding, placed_as


def first_buffer(name: str, value: Any, params: PyTree, dtype: DTypeLike | None) -> PyTree:
    """A tree like the parameters, of this number or of what this function makes of each."""
    if is_function(value):
        leaves, structure = tree_flatten_with_path(params)
        return structure.unflatten(
            _computed(f"{name}, of params{keystr(path)},", of_layers(value, n), p, dtype)
            for n, (path, p) in zip(stacked_axes(params), leaves, strict=True)
        )
    expected = f"{name} must be a scalar or a function of the parameter"
    if not (is_array(value) or isinstance(value, int | float | complex)):
        fail(TypeError, f"{expected}, got {summarize(value)}")
    if jnp.shape(value) != ():
        fail(ValueError, f"{expected}, got {summarize(value)}")
    return jax.tree.map(
        lambda p: jnp.full_like(p, value, dtype=_buffer_dtype(p.dtype, dtype)), params
    )


def _computed(what: str, f: Any, param: Any, dtype: DTypeLike | None) -> jax.Array:
    """A buffer of its own: parameters and state may both be donated."""
    with calling(what.partition(",")[0]):
        value = f(cast(param, compute_dtype(param.dtype)))
    kept = _buffer_dtype(param.dtype, dtype)
    is_real = not jnp.issubdtype(kept, jnp.complexfloating)
    if jnp.shape(value) != param.shape or (is_real and jnp.iscomplexobj(value)):
        fail(ValueError, f"{what} must be a {'real ' * is_real}array of its shape {param.shape}, "
             f"got {summarize(value)}")  # fmt: skip
    return placed_as(param, jnp.array(value, kept, copy=True))


def stored(new: jax.Array, old: jax.Array, u: jax.Array) -> jax.Array:
    """The new buffer in the dtype of the old one."""
    if not is_narrow(old.dtype):
        return new.astype(old.dtype)
    # What differs from step to step: else a number whose input stays would never move again, once
    # it did not. If nothing counts, that is what the others in the array do.
    steps = [count.astype(jnp.uint32) for count in counts()]
    others = [] if steps else [bits(cast(u, jnp.float32)), jnp.sum(bits(old), dtype=jnp.uint32)]
    salt = mixed(functools.reduce(jnp.add, steps or others))
    chance = drawn(old, salt, explicit_sharding(old))
    return cast(rounded_by_chance(cast(new, jnp.float32), chance, old.dtype), old.dtype)


def _buffer_dtype(param: Any, asked: DTypeLike | None) -> Any:
    if asked is None or jnp.issubdtype(param, jnp.complexfloating):
        # There is no narrow complex dtype.
        return compute_dtype(param)
    return jnp.dtype(asked)
