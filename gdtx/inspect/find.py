"""The buffers of a state, by name."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core.errors import summarize
from ..core.memory import CountState, RecurState
from ..core.scheduled import ScheduledState
from ..core.transformation import GradientTransformation
from ..core.trees.eight_bits import read
from ..core.trees.tree import PyTree
from ..wrappers.sometimes import EveryState, WhenState


class Buffer(NamedTuple):
    """One thing that a state keeps.

    `path` joins its names and numbers by dots, `code` is how Python reaches it from the state,
    `tree` is what is kept, and `is_count` tells whether that is one number of the state's own.
    """

    path: str
    code: str
    tree: PyTree
    is_count: bool


def find(state: PyTree, name: str) -> PyTree:
    """What a state keeps under a name: of a branch, a buffer, or a field.

    Names inside the trees of parameters are not looked at. Counts of steps belong to no branch;
    they are found by their own name where no buffer has it.

    Args:
        state: of any transformation.
        name: of a branch of :func:`join`, such as `"mu"` of Adam's first moment, of a buffer of
            :func:`recur`, or of a field of a state. More of the path tells two of them apart:
            `"1.mu"`.

    Returns:
        The one buffer there, a tree like the parameters. Of several, a dict by path. What
        :func:`stored` keeps in eight bits is decoded.

    Raises:
        TypeError: for a transformation, which is no state.
        ValueError: if nothing is kept under that name; the message lists what is.

    >>> import gdtx, jax.numpy as jnp
    >>> state = gdtx.adam(0.1).init({"w": jnp.zeros(2)})
    >>> gdtx.find(state, "mu")
    {'w': Array([0., 0.], dtype=float32)}
    """
    if isinstance(state, GradientTransformation):
        raise TypeError(f"find: state must be a state, got the transformation {summarize(state)}")
    kept = list(buffers(state))
    named = [buffer for buffer in kept if f".{name}." in f".{buffer.path}."]
    hits = [buffer for buffer in named if not buffer.is_count] or [
        buffer for buffer in named if f".{buffer.path}".endswith(f".{name}")
    ]
    if not hits:
        raise ValueError(
            f"find: the state keeps nothing under the name {name!r}; it keeps "
            f"{', '.join(buffer.path for buffer in kept if buffer.path) or 'nothing at all'}"
        )
    if len(hits) == 1:
        return read(hits[0].tree)
    return {buffer.path: read(buffer.tree) for buffer in hits}


def count_steps(state: PyTree) -> jax.Array:
    """The number of updates that a transformation has done.

    Args:
        state: of a transformation that counts, as all do that correct a bias or have a schedule.

    Returns:
        An integer scalar. Calls in which a wrapper waits, or which it skips, are none.

    Raises:
        ValueError: if nothing in the state counts.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.adam(0.1)
    >>> _, state = tx.update(jnp.ones(1), tx.init(jnp.ones(1)))
    >>> gdtx.count_steps(state)
    Array(1, dtype=int32)
    """
    steps = steps_counted(state)
    if steps is None:
        raise ValueError(
            "count_steps: nothing in the state counts the updates; it keeps "
            f"{', '.join(buffer.path for buffer in buffers(state) if buffer.path) or 'nothing'}"
        )
    return steps


def steps_counted(state: PyTree) -> Any:
    """The number of updates done, None where nothing counts them."""
    # What runs on some of the steps counts these alone.
    counts = _counts(jax.tree.map(_outside, state, is_leaf=_is_sometimes)) or _counts(state)
    # All count the same updates, but for those inside of a wrapper that does not always run them:
    # these are fewer, and they are the updates.
    return functools.reduce(jnp.minimum, counts) if counts else None


def _counts(state: PyTree) -> list[PyTree]:
    return [
        buffer.tree for buffer in buffers(state)
        if buffer.is_count and buffer.path.split(".")[-1] in ("step", "count")
    ]  # fmt: skip


def _is_sometimes(state: PyTree) -> bool:
    return isinstance(state, EveryState | WhenState)


def _outside(state: PyTree) -> PyTree:
    return state._replace(inner=()) if _is_sometimes(state) else state


def buffers(state: PyTree) -> Iterator[Buffer]:
    """All that a state keeps, in its order; what is below a buffer is the parameters' own."""
    return _walk(state, (), "")


def states(state: PyTree, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every state in a state with its path, the outer ones first."""
    yield ".".join(path), state
    if not isinstance(state, RecurState):
        for name, _, value, is_buffer in _parts(state):
            if not is_buffer:
                yield from states(value, (*path, *name))


def _walk(state: PyTree, path: tuple[str, ...], code: str) -> Iterator[Buffer]:
    if not isinstance(state, dict | list | tuple):
        if state is not None:
            yield _buffer(path, code, state)
        return
    for name, below, value, is_buffer in _parts(state):
        if is_buffer:
            yield _buffer((*path, *name), code + below, value, not isinstance(state, RecurState))
        else:
            yield from _walk(value, (*path, *name), code + below)


def _parts(state: PyTree) -> Iterator[tuple[tuple[str, ...], str, PyTree, bool]]:
    """For each part: its piece of the path, how Python reaches it, the part, whether a buffer."""
    if isinstance(state, RecurState):
        for name, tree in state.buffers.items():
            yield (name,), f".buffers[{name!r}]", tree, True
    elif isinstance(state, tuple) and (fields := getattr(state, "_fields", None)):
        for name, value in zip(fields, state, strict=True):
            if isinstance(value, tuple) and not value:
                continue  # the state of a transformation that has none
            # Of a wrapper: it adds no name, so that paths are the same with and without it.
            is_inner = name.startswith("inner")
            if is_inner or holds_states(value):
                is_inner |= name.endswith("state")
                yield () if is_inner else (name,), f".{name}", value, False
            else:
                yield (name,), f".{name}", value, True
    elif isinstance(state, tuple | list):
        yield from (((str(i),), f"[{i}]", link, False) for i, link in enumerate(state))
    elif isinstance(state, dict):
        yield from (((str(name),), f"[{name!r}]", x, False) for name, x in state.items())


def _buffer(path: tuple[str, ...], code: str, tree: PyTree, of_state: bool = False) -> Buffer:
    return Buffer(".".join(path), code, tree, of_state and getattr(tree, "shape", None) == ())


def holds_states(tree: PyTree) -> bool:
    return any(map(_is_state, jax.tree.leaves(tree, is_leaf=_is_state)))


def _is_state(value: Any) -> bool:
    return isinstance(value, RecurState | CountState | ScheduledState)
