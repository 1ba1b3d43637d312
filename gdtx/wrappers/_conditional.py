"""Updates that run only under a condition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..core.numbers.handover import exact, in_a_branch, is_exact
from ..core.trees.tree import PyTree


def update_if(
    run: jax.Array,
    update: Callable[[], tuple[PyTree, PyTree]],
    otherwise: Callable[[PyTree], PyTree],
    state: PyTree,
) -> tuple[PyTree, PyTree]:
    """Run `update` in a conditional of the program; else emit what `otherwise` does, and keep the
    state.

    `otherwise` is a function of shapes and dtypes, those of what `update` emits, which are to be
    its own.
    """

    marks: list[list[bool]] = []

    def new() -> tuple[PyTree, PyTree]:
        with in_a_branch():
            emitted, new_state = update()
            marks.append([is_exact(u) for u in jax.tree.leaves(emitted)])
        # A transformation from elsewhere may widen its state on the first update; the two branches
        # must agree, and the state must not change its dtype anyhow.
        return emitted, jax.tree.map(_as_before, new_state, state)

    emitted, _ = jax.eval_shape(new)
    emitted, state = jax.lax.cond(run, new, lambda: (otherwise(emitted), state))
    exact([u for u, marked in zip(jax.tree.leaves(emitted), marks[0], strict=True) if marked])
    return emitted, state


def no_change(updates: PyTree, fill: jax.Array | None = None) -> Callable[[PyTree], PyTree]:
    """Zeros where `updates` are, or `fill`.

    No change is -0.0, because x + -0.0 is x to the bit for every x, while -0.0 + 0.0 is not.
    """

    def nothing(u: jax.Array, like: Any) -> jax.Array:
        # A first link may have made one of many: then it does not have the shape of `u`.
        shape = None if u.shape == like.shape else like.shape
        zero = jnp.zeros_like(u, dtype=like.dtype, shape=shape)
        return -zero if fill is None else -(zero + fill.astype(like.dtype))

    return lambda emitted: jax.tree.map(nothing, updates, emitted)


def _as_before(new: Any, old: Any) -> Any:
    dtype = jnp.result_type(old)
    return new if jnp.result_type(new) == dtype else jnp.asarray(new, dtype)
