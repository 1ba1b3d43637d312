"""All pages of the reference, written where they changed."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from gdtx import public

from . import docstrings, errors, kinds, pages
from .inventory import MODULES, Entry, by_path, entries
from .pictures import figures

_INTRODUCTION = """\
A page for each public name: its signature, its arguments, its formula as the code has it, what it
is made of, what it keeps, and a picture. Nothing here is written by hand: pages are made from the
code and its docstrings at every build.

{doc}`all` lists every name, {doc}`kinds` what arguments may be, {doc}`errors` what to do about
messages."""


def write(source: Path, redraw: bool = True) -> None:
    """Write `reference/` below the folder of the sources."""
    folder = source / "reference"
    folder.mkdir(exist_ok=True)
    written = dict(texts(source, figures(folder / "pictures", redraw)))
    for name, text in written.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    for path in folder.glob("*.md"):
        if path.name.removesuffix(".md") not in written:
            path.unlink()


def texts(source: Path, figure: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Every page by name."""
    uses = _uses(source)
    for entry in entries():
        if entry.page != "states" and not isinstance(entry.value, ModuleType):
            shown = figure.get(entry.path, "")
            yield entry.page, pages.page(entry, shown, uses.get(entry.path))
    groups = [group for group in public.GROUPS if group is not public.kinds]
    for group in (*groups, *MODULES):
        yield _page_of(group), _group_page(group)
    yield "all", _all()
    yield "errors", errors.page()
    yield "index", _index([*groups, *MODULES])


def _page_of(group: ModuleType) -> str:
    return group.__name__.rpartition(".")[2]


def _listed(group: ModuleType) -> list[Entry]:
    return [
        entry
        for entry in entries()
        if not isinstance(entry.value, ModuleType)
        and (entry.group is group or (group in MODULES and _is_in(entry, group)))
    ]


def _is_in(entry: Entry, module: ModuleType) -> bool:
    return any(path.startswith(f"{module.__name__}.") for path in (entry.path, *entry.aliases))


def _group_page(group: ModuleType) -> str:
    if group in MODULES:
        entry = by_path()[group.__name__]
        title = {"kinds": "Kinds of arguments", "states": "States"}.get(_page_of(group), entry.path)
        said = f"{docstrings.body(entry)}\n\n{docstrings.example(entry)}".strip()
        head = f"# {title}\n\n```````{{py:module}} {entry.path}\n```````\n\n{said}"
    else:
        title, _, rest = (group.__doc__ or "").strip().partition(": ")
        head = f"# {title}\n\n{rest[0].upper()}{rest[1:]}"
    listed = _listed(group)
    own = [entry for entry in listed if entry.group is group or group.__name__ == "gdtx.kinds"]
    if _page_of(group) == "states":
        return "\n\n".join([head, *(pages.described(entry) for entry in listed)]) + "\n"
    rows = "\n".join(["| name | what it is |", "|---|---|", *map(pages.line, listed)])
    if _page_of(group) == "kinds":
        rows = f"{kinds.table()}\n\n## Types\n\n" + "\n".join(
            [
                "| name | what it is |",
                "|---|---|",
                *(pages.line(x) for x in listed if x.kind is None),
            ]
        )
    return f"{head}\n\n{rows}\n\n{_toctree(entry.page for entry in own)}\n"


def _index(groups: list[ModuleType]) -> str:
    parts = ["# Reference", _INTRODUCTION]
    for group in groups:
        doc = docstrings.marked((group.__doc__ or "").partition("\n\n")[0])
        links = ", ".join(f"{{py:obj}}`{x.name} <{x.path}>`" for x in _listed(group))
        parts += [f"## [{_title(group)}]({_page_of(group)}.md)\n\n{_rest(doc)}\n\n{links}"]
    names = [*map(_page_of, groups), "errors", "all"]
    return "\n\n".join([*parts, _toctree(names)]) + "\n"


def _title(group: ModuleType) -> str:
    doc = (group.__doc__ or "").partition(":")
    return group.__name__ if group in MODULES else doc[0].partition(".")[0]


def _rest(doc: str) -> str:
    title, colon, rest = " ".join(doc.split()).partition(": ")
    return f"{rest[0].upper()}{rest[1:]}" if colon and len(title.split()) == 1 else doc


def _all() -> str:
    listed = sorted(entries(), key=lambda entry: (entry.name.lower(), entry.path))
    rows = "\n".join(
        pages.line(x).replace(f"`{x.name} <", f"`{x.path.removeprefix('gdtx.')} <") for x in listed
    )
    return f"# All names\n\n| name | what it is |\n|---|---|\n{rows}\n"


def _toctree(names: Iterator[str] | list[str]) -> str:
    return "\n".join(["```{toctree}", ":hidden:", "", *names, "```"])


def _uses(source: Path) -> dict[str, dict[str, str]]:
    """The written pages that name something, by path: documents with their titles."""
    found: dict[str, dict[str, str]] = {}
    known = {entry.path for entry in entries()}
    for path in sorted(source.rglob("*.md")):
        document = path.relative_to(source).with_suffix("").as_posix()
        # Parts of a page are no page, and the methods page has all names.
        if document.startswith(("reference/", "recipes/", "_")) or document == "methods":
            continue
        text = path.read_text()
        title = re.search(r"^# (.+)$", text, re.M)
        for name in set(re.findall(r"\bgdtx(?:\.\w+)+", text)) & known:
            found.setdefault(name, {})[document] = title[1] if title else document
    return found


if __name__ == "__main__":
    write(Path(sys.argv[1]), redraw=sys.argv[2:] != ["--as-drawn"])
