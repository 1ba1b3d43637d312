"""What acts array by array is traced once for each kind of array, and not once for each array.

A maker acts array by array, a combinator if all that it combines do, and everything else if its
formula does. Such a transformation is one function of an array, of what is kept of it, and of what
depends on the step alone. That function is a program inside of the program: arrays of one shape and
dtype share it. What depends on the step alone is found before, by an update of a tree without
arrays.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

import jax

from .calls.call import Call
from .errors import at_this_place
from .numbers.program import is_in_program
from .trees.gathering import are_parts
from .trees.stacking import are_stacked
from .trees.tree import PyTree

R = TypeVar("R")

_Update = Callable[[PyTree, PyTree, PyTree, dict[str, Any]], tuple[PyTree, PyTree]]
_Find = Callable[[Callable[[], Any]], Any]

_find: ContextVar[_Find | None] = ContextVar("gdtx_step", default=None)


def of_step(compute: Callable[[], R]) -> R:
    """What depends on the step alone: computed once, and not once for each kind of array."""
    find = _find.get()
    return compute() if find is None else find(compute)


def is_leafwise(tx: Any) -> bool:
    """Whether each array of what a transformation emits and keeps depends on the arrays in its
    place alone, and on the step."""
    if not isinstance(tx, Call):
        return False
    if tx._leafwise is None:  # asked at every update, of every part
        tx._leafwise = _is_leafwise(tx)
    return tx._leafwise


def _is_leafwise(tx: Any) -> bool:
    if tx.signature.scheduled(tx.arguments):
        return False  # what it is at a step, may be
    if tx.expression is tx:
        # A pair. It may be that of another transformation.
        owners = [getattr(tx.arguments[name], "__self__", None) for name in ("init", "update")]
        return owners[0] is owners[1] and is_leafwise(owners[0])
    parts = [value for _, _, value in tx.parts() if isinstance(value, type(tx))]
    if tx.signature.leafwise:
        return all(map(is_leafwise, parts))
    return is_leafwise(tx.expression)


def by_leaf(
    tx: Any, update: _Update, updates: PyTree, state: PyTree, params: PyTree
) -> tuple[PyTree, PyTree] | None:
    """What an update makes of trees, traced once for each kind of array.

    None if it would be of no use, or if something is wrong: the ordinary way says where.
    """
    if not is_in_program() or _find.get() is not None or are_stacked() or are_parts():
        return None
    leaves, structure = jax.tree.flatten(updates)
    if len(set(map(jax.typeof, leaves))) == len(leaves) or not is_leafwise(tx):
        return None
    try:
        return _by_leaf(tx, update, leaves, structure, state, params)
    except Exception:
        return None


def _by_leaf(
    tx: Any,
    update: _Update,
    leaves: list[Any],
    structure: Any,
    state: PyTree,
    params: PyTree,
) -> tuple[PyTree, PyTree]:
    # The state of a tree without arrays is what depends on the step alone, and elsewhere None.
    of_none, places = jax.tree.flatten(jax.eval_shape(tx.init, None), is_leaf=_is_none)
    at = [i for i, x in enumerate(of_none) if x is None]
    parts = places.flatten_up_to(state)
    columns = [structure.flatten_up_to(parts[i]) for i in at]
    beside = [None] * len(leaves) if params is None else structure.flatten_up_to(params)

    def with_kept(values: Sequence[PyTree], parts: list[PyTree] = parts) -> PyTree:
        kept = dict(zip(at, values, strict=True))
        return places.unflatten(kept.get(i, x) for i, x in enumerate(parts))

    steps: list[tuple[Any, Any]] = []
    with _steps_by(functools.partial(_recorded, steps)):
        _, new = update(None, with_kept([None] * len(at)), None, {})

    @jax.jit
    def of_one(u: jax.Array, kept: list[PyTree], p: Any) -> tuple[Any, list[PyTree]]:
        with _steps_by(functools.partial(_replayed, iter(steps))):
            u, state = update(u, with_kept(kept), p, {})
        found = places.flatten_up_to(state)
        return u, [found[i] for i in at]

    kept = zip(*columns, strict=True) if columns else [()] * len(leaves)
    emitted, rows = zip(*map(of_one, leaves, map(list, kept), beside), strict=True)
    kept = [structure.unflatten(column) for column in zip(*rows, strict=True)]
    return structure.unflatten(emitted), with_kept(kept, places.flatten_up_to(new))


def _recorded(steps: list[tuple[Any, Any]], compute: Callable[[], R]) -> R:
    steps.append((at_this_place(), compute()))
    return steps[-1][1]


def _replayed(steps: Iterator[tuple[Any, Any]], compute: Callable[[], R]) -> R:
    place, value = next(steps)
    if place != at_this_place():
        raise RuntimeError("a rule that runs transformations asks for steps of its own")
    return value


def _is_none(x: Any) -> bool:
    return x is None


@contextlib.contextmanager
def _steps_by(find: _Find) -> Iterator[None]:
    token = _find.set(find)
    try:
        yield
    finally:
        _find.reset(token)
