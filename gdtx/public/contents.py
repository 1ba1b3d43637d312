"""The table of contents of `help(gdtx)`, and the place that public objects say they are in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from ..core.calls.kinds import Kind


def names(module: ModuleType) -> list[str]:
    """The names that a module makes public."""
    return [name for name in vars(module) if not name.startswith("_")]


def contents(groups: Iterable[ModuleType]) -> str:
    """What is in these groups, a line for each name."""
    return "\n".join(line for group in groups for line in ("", *_lines(group)))


def _lines(group: ModuleType) -> Iterator[str]:
    yield (group.__doc__ or "").partition("\n")[0]
    for name in names(group):
        yield f"    {name}: {_brief(getattr(group, name))}"


def _brief(value: Any) -> str:
    for kind in getattr(value, "__metadata__", ()):
        if isinstance(kind, Kind):
            return kind.expected
    return (value.__doc__ or "").partition("\n")[0]


def publish(module: ModuleType, place: str) -> None:
    """Let the functions and classes of a module say that they are in `place`, where users find
    them: a pickle names that, and the files behind it may move."""
    for name in names(module):
        value = getattr(module, name)
        if getattr(value, "__name__", None) == name and not isinstance(value, ModuleType):
            value.__module__ = place
