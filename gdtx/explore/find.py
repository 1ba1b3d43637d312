"""The buffers of a state, by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from .._memory import CountState, RecurState
from .._transformation import ScheduledState
from .._tree import PyTree


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
        The one buffer there, a tree like the parameters. Of several, a dict by path.

    Raises:
        ValueError: if nothing is kept under that name; the message lists what is.

    >>> import gdtx, jax.numpy as jnp
    >>> state = gdtx.adam(0.1).init({"w": jnp.zeros(2)})
    >>> gdtx.find(state, "mu")
    {'w': Array([0., 0.], dtype=float32)}
    """
    kept = list(buffers(state))
    named = [buffer for buffer in kept if f".{name}." in f".{buffer.path}."]
    hits = [buffer for buffer in named if not buffer.is_count] or [
        buffer for buffer in named if f".{buffer.path}".endswith(f".{name}")
    ]
    if not hits:
        raise ValueError(
            f"find: the state keeps nothing under the name {name!r}; it keeps "
            f"{', '.join(buffer.path for buffer in kept) or 'nothing at all'}"
        )
    if len(hits) == 1:
        return hits[0].tree
    return {buffer.path: buffer.tree for buffer in hits}


def buffers(state: PyTree) -> Iterator[Buffer]:
    """All that a state keeps, in its order; what is below a buffer is the parameters' own."""
    return _walk(state, (), "")


def _walk(state: PyTree, path: tuple[str, ...], code: str) -> Iterator[Buffer]:
    if isinstance(state, RecurState):
        for name, tree in state.buffers.items():
            yield _buffer((*path, name), f"{code}.buffers[{name!r}]", tree)
    elif isinstance(state, tuple) and (fields := getattr(state, "_fields", None)):
        for name, value in zip(fields, state, strict=True):
            if name.startswith("inner") or _holds_states(value):
                # Of a wrapper: it adds no name, so that paths are the same with and without it.
                yield from _walk(value, path, f"{code}.{name}")
            else:
                yield _buffer((*path, name), f"{code}.{name}", value, of_state=True)
    elif isinstance(state, tuple | list):
        for i, link in enumerate(state):
            yield from _walk(link, (*path, str(i)), f"{code}[{i}]")
    elif isinstance(state, dict):
        for name, branch in state.items():
            yield from _walk(branch, (*path, str(name)), f"{code}[{name!r}]")
    elif state is not None:
        yield _buffer(path, code, state)


def _buffer(path: tuple[str, ...], code: str, tree: PyTree, of_state: bool = False) -> Buffer:
    return Buffer(".".join(path), code, tree, of_state and getattr(tree, "shape", None) == ())


def _holds_states(tree: PyTree) -> bool:
    return any(map(_is_state, jax.tree.leaves(tree, is_leaf=_is_state)))


def _is_state(value: Any) -> bool:
    return isinstance(value, RecurState | CountState | ScheduledState)
