"""Docstrings whose arguments are documented once, on the function that owns them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

_AS_IN = re.compile(r"^ {4}([\w, ]+): as in :func:`(\w+)`\.$", re.M)
_ENTRY = re.compile(r"^ {4}(\w+(?:, \w+)*): (.*(?:\n {8}.*)*)", re.M)


def documented(function: Callable[..., Any]) -> str | None:
    """Its docstring, with the owner's words for arguments that are `as in :func:` another function,
    which its module knows by that name; so `help` and editors show what each of them is."""

    def words(match: re.Match[str]) -> str:
        owner = getattr(function, "__globals__", {}).get(match[2])
        names = match[1].split(", ")
        entries = dict(_entries(owner.__doc__ or "", names)) if owner is not None else {}
        known = {name for group in entries for name in group}
        if known != set(names):
            return match[0]
        return "\n".join(f"    {', '.join(group)}: {text}" for group, text in entries.items())

    if function.__doc__ is None or ": as in :func:`" not in function.__doc__:
        return function.__doc__
    return _AS_IN.sub(words, inspect.cleandoc(function.__doc__))


def _entries(doc: str, asked: list[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """What the docstring says of the arguments that are asked for, those of one entry together."""
    section = inspect.cleandoc(doc).partition("Args:\n")[2].partition("\n\n")[0]
    for names, text in _ENTRY.findall(section):
        if group := tuple(name for name in names.split(", ") if name in asked):
            yield group, text
