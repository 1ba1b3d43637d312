"""A warning for loops that compile an update for every value of a constant."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from typing import Any

import jax

from ..numbers.values import is_array
from .call import Call

_MANY = 16
_KEPT = 64

# By a hash of all but the constants: for each constant, by path, the hashes of its values.
_seen: OrderedDict[int, dict[str, set[int]]] = OrderedDict()
_warned: set[tuple[str, str]] = set()
due: list[str] = []
"""Warnings to raise where the update was called, out of jax's frames."""


def note(call: Call) -> None:
    """Remember the constants for which an update is compiled."""
    constants: dict[str, tuple[str, int]] = {}
    key = hash(_rest(call, "", constants))
    seen = _seen.setdefault(key, {})
    _seen.move_to_end(key)
    if len(_seen) > _KEPT:
        _seen.popitem(last=False)
    for path, (name, constant) in constants.items():
        values = seen.setdefault(path, set())
        argument = name, path.rpartition(".")[2]
        if len(values) < _MANY and argument not in _warned:
            values.add(constant)
            if len(values) == _MANY:
                _warned.add(argument)
                due.append(
                    f"{name}: {path} came as {_MANY} different constants, and each compiled an "
                    f"update of its own, in time and memory. As an array it compiles once: "
                    f"tx = gdtx.as_arrays(tx, {path!r}), then gdtx.replace(tx, {{{path!r}: value}})"
                )


def warn(stacklevel: int) -> None:
    while due:
        warnings.warn(due.pop(), stacklevel=stacklevel + 1)


def _rest(call: Call, above: str, constants: dict[str, tuple[str, int]]) -> Any:
    """The parts of a call that are equal where only scalar constants differ; puts these by path."""
    parts = []
    for path, name, value in call.parts():
        if isinstance(value, Call):
            parts.append((path, _rest(value, f"{above}{path}.", constants)))
        elif call.signature.is_scalar(name):
            parts.append((path, is_array(value)))
            if not is_array(value):
                constants[above + path] = call.signature.name, hash(value)
        else:
            leaves, structure = jax.tree.flatten(value)
            parts.append((path, structure, *(x for x in leaves if not is_array(x))))
    return call.factory, *parts
