"""Docstrings turned into MyST: roles, mathematics, sections and doctests."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator

from .inventory import Entry, resolved

_sections = ("Args", "Returns", "Raises", "Warns", "References")
_section = re.compile(rf"^({'|'.join(_sections)}):\n", re.M)


def body(entry: Entry) -> str:
    """All but the example: what it says, its arguments, results, errors and sources."""
    text, *parts = _section.split(_without_example(entry))
    sections = {
        name: textwrap.dedent(re.split(r"\n\n(?=\S)", part)[0])
        for name, part in zip(parts[::2], parts[1::2], strict=True)
    }
    # What follows a section, and is not indented, is text again.
    after = [
        rest
        for part in parts[1::2]
        if (rest := "\n\n".join(re.split(r"\n\n(?=\S)", part)[1:]).strip())
    ]
    fields = [
        *(f":param {name}: {meaning}" for name, meaning in _entries(sections.get("Args", ""))),
        *(f":returns: {_flat(sections[name])}" for name in ("Returns",) if name in sections),
        *(f":raises {name}: {meaning}" for name, meaning in _entries(sections.get("Raises", ""))),
    ]
    written = [text.strip(), *after, "\n".join(fields)]
    if "Warns" in sections:
        written += [f"**Warns.** {_flat(sections['Warns'])}"]
    if "References" in sections:
        written += [f"**Source.** {_flat(sections['References'])}"]
    return marked("\n\n".join(part for part in written if part), entry)


def example(entry: Entry) -> str:
    """The doctests at the end, as they run in the tests."""
    doc = _doc(entry)
    start = doc.find(">>> ")
    if start < 0:
        return ""
    start = doc.rfind("\n", 0, start) + 1
    code = re.sub(r" *# doctest: \+\w+$", "", textwrap.dedent(doc[start:]).strip(), flags=re.M)
    return f"```{{code-block}} pycon\n{code}\n```"


def marked(text: str, entry: Entry | None = None) -> str:
    """Roles as links; all else of a docstring is MyST already."""

    def link(match: re.Match[str]) -> str:
        target = match["target"].lstrip("~")
        found = resolved(target, entry)
        if found is None:
            return f"`{target.removeprefix('gdtx.')}`"
        return f"{{py:obj}}`{found.name} <{found.path}>`"

    return re.sub(r":(?:func|class|meth|mod|data):`(?P<target>[^`]+)`", link, text)


def _doc(entry: Entry) -> str:
    return inspect.cleandoc(entry.value.__doc__ or "")


def _without_example(entry: Entry) -> str:
    doc = _doc(entry)
    start = doc.find(">>> ")
    return doc + "\n" if start < 0 else doc[: doc.rfind("\n", 0, start) + 1]


def _entries(section: str) -> Iterator[tuple[str, str]]:
    """Those of `Args` and `Raises`: a name, or several, and what is said of them."""
    for entry in re.split(r"\n(?! )", section.strip()):
        names, colon, meaning = entry.partition(": ")
        if colon:
            yield names.replace("`", ""), _flat(meaning)


def _flat(text: str) -> str:
    return " ".join(text.split())
