"""Updates outside of a trace: one compiled function, cached for equal transformations."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax

from .calls import recompiled
from .calls.call import merge, split
from .entrance import is_runtime
from .numbers.values import within_int32
from .trees.sharding import constrain, known_shardings
from .trees.tree import PyTree


def compiled_update(
    tx: Any,
    updates: PyTree,
    state: PyTree,
    params: PyTree,
    extra_args: Mapping[str, Any],
    stacklevel: int,
) -> tuple[PyTree, PyTree]:
    """What the update of `tx` returns; a warning is of the caller so many levels up."""
    leaves, layout = split(extra_args, is_runtime)
    leaves = list(map(within_int32, leaves))
    shardings = known_shardings((updates, state))
    result = _compiled(tx, updates, state, params, leaves, layout=layout, shardings=shardings)
    if recompiled.due:
        recompiled.warn(stacklevel=stacklevel + 1)
    return result


@functools.partial(jax.jit, static_argnames=("layout", "shardings"))
def _compiled(
    tx: Any,
    updates: PyTree,
    state: PyTree,
    params: PyTree,
    extra_leaves: list[Any],
    layout: Any,
    shardings: tuple[Any, ...] | None,
) -> tuple[PyTree, PyTree]:
    """What comes out is sharded as what went in: else the compiler would choose, and a state that
    moves at its first update compiles a second program."""
    recompiled.note(tx)
    result = tx._inline(updates, state, params, merge(extra_leaves, layout))
    return constrain(result, (updates, state), shardings)
