"""Updates outside of a trace: one compiled function, cached for equal transformations."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax

from .calls import recompiled
from .calls.call import merge, split
from .entrance import Dispatch, is_runtime
from .numbers.program import in_program
from .numbers.values import within_int32
from .trees.sharding import constrain, known_shardings
from .trees.tree import PyTree


def compiled_update(
    tx: Any,
    updates: PyTree,
    state: PyTree,
    params: PyTree,
    extra_args: Mapping[str, Any],
    how: Dispatch,
    stacklevel: int,
) -> tuple[PyTree, PyTree]:
    """What the update of `tx` returns; a warning is of the caller so many levels up."""
    leaves, layout = split(extra_args, is_runtime)
    leaves = list(map(within_int32, leaves))
    trees = updates, state
    shardings = known_shardings(trees) if how is Dispatch.RUN else None
    result = _compiled(tx, *trees, params, leaves, layout=layout, shardings=shardings, how=how)
    if recompiled.due:
        recompiled.warn(stacklevel=stacklevel + 1)
    return result


# A program around it has its operations in its own jaxpr, which newer versions ask to say.
_kinds: Any = getattr(jax, "Inline", None)
_INLINE: Any = True if _kinds is None else _kinds.JAX_EARLY


@functools.partial(jax.jit, static_argnames=("layout", "shardings", "how"), inline=_INLINE)
def _compiled(
    tx: Any,
    updates: PyTree,
    state: PyTree,
    params: PyTree,
    extra_leaves: list[Any],
    layout: Any,
    shardings: tuple[Any, ...] | None,
    how: Dispatch,
) -> tuple[PyTree, PyTree]:
    """What comes out is sharded as what went in: else the compiler would choose, and a state that
    moves at its first update compiles a second program."""
    if how is Dispatch.RUN:
        recompiled.note(tx)
    with in_program():
        result = tx._inline(updates, state, params, merge(extra_leaves, layout))
    return constrain(result, (updates, state), shardings)
