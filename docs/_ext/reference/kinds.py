"""Annotations: what each accepts, and the error that it gives."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

import gdtx

from .inventory import Entry, entries
from .signatures import annotation

# One value of each type; the first that is refused shows the message.
_tries = (1.5, -1, 0, 0.5, -(2**40), "adam", 3, ("cubic", 0), lambda: None)


def sentence(entry: Entry) -> str:
    """What an annotation stands for."""
    if entry.kind is None:
        of = " or ".join(f"`{_short(part, entry)}`" for part in get_args(entry.value))
        return f"A type: {of}."
    kind = entry.kind
    also = ", an array or a schedule of such numbers" if kind.scalar else ""
    is_number = kind.scalar and not kind.expected.startswith("a ")
    return f"An argument that must be {'a number ' if is_number else ''}{kind.expected}{also}."


def accepted(entry: Entry) -> Iterator[str]:
    """The error, executed, and the arguments that are of this kind."""
    value, message = refusal(entry)
    if message:
        yield f"## The error\n\n```{{code-block}} pycon\n{_program(entry, value)}\n{message}\n```"
    uses = _used().get(id(entry.kind), [])
    if uses:
        yield "## Arguments of this kind"
        by_path: dict[str, list[str]] = {}
        for path, name in uses:
            by_path.setdefault(path, []).append(f"`{name}`")
        yield "\n".join(
            f"- {{py:obj}}`~{path}`: {', '.join(names)}" for path, names in by_path.items()
        )


def refusal(entry: Entry) -> tuple[Any, str]:
    """A value that is not of this kind, and what is raised for it."""

    def method(value: Any) -> gdtx.GradientTransformation:
        return gdtx.identity()

    method.__annotations__ = {"value": entry.value}
    method = gdtx.transformation(method)
    for value in _tries:
        try:
            method(value)
        except (TypeError, ValueError) as error:
            return value, f"{type(error).__name__}: {error}"
    return None, ""


def table() -> str:
    """All of them, with the message of each."""
    rows = []
    for entry in entries():
        if entry.kind is None:
            continue
        _, message = refusal(entry)
        rows.append(
            f"| {{py:obj}}`{entry.name} <{entry.path}>` | {entry.kind.expected} | "
            f"{'yes' if entry.kind.scalar else ''} | `{message}` |"
        )
    head = "| annotation | accepts | array or schedule too | the error |"
    return "\n".join([head, "|---|---|---|---|", *rows])


def _program(entry: Entry, value: Any) -> str:
    place = entry.path.rpartition(".")[0]
    return (
        ">>> @gdtx.transformation\n"
        f"... def method(value: {place}.{entry.name}):\n"
        "...     return gdtx.identity()\n"
        f">>> method({_shown(value)})\n"
        "Traceback (most recent call last):\n"
        "    ..."
    )


def _shown(value: Any) -> str:
    return "lambda: None" if callable(value) else repr(value)


def _short(part: Any, entry: Entry) -> str:
    return annotation(part, entry).rpartition(".")[2] or getattr(part, "__name__", repr(part))


@cache
def _used() -> dict[int, list[tuple[str, str]]]:
    """Factories and arguments by kind."""
    found: dict[int, list[tuple[str, str]]] = {}
    for entry in entries():
        known = getattr(entry.value, "__gdtx_signature__", None)
        if known is None or not (inspect.isfunction(entry.value) or inspect.isclass(entry.value)):
            continue
        for name in known.parameters:
            found.setdefault(id(known.kind(name)), []).append((entry.path, name))
    return found
