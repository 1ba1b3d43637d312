"""Every public name with its page: read from the modules that publish them."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import resolve_name
from types import ModuleType
from typing import Any

from gdtx import explore, interop, kfac, kinds, public, sharding, states
from gdtx.core.calls.kinds import Kind

MODULES = (explore, interop, kfac, kinds, sharding, states)


@dataclass(frozen=True)
class Entry:
    """A public object.

    `path` is where users find it, `aliases` are its other public paths, `origin` is the module
    that its code stands in, and `group` the module that lists it.
    """

    path: str
    aliases: tuple[str, ...]
    value: Any
    origin: str
    group: ModuleType

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def page(self) -> str:
        """Its page. States share one."""
        if self.path.startswith("gdtx.states."):
            return "states"
        short = self.path.removeprefix("gdtx.")
        # Some file systems take `Schedule.html` and `schedule.html` for one file.
        return f"{short}.class" if short != short.lower() and _is_taken(short) else short

    @property
    def is_transformation(self) -> bool:
        return self._returns("transformation")

    @property
    def is_schedule(self) -> bool:
        return self._returns("schedule")

    @property
    def kind(self) -> Kind | None:
        """Of an annotation, the kind in it."""
        metadata = getattr(self.value, "__metadata__", ())
        return next((x for x in metadata if isinstance(x, Kind)), None)

    @property
    def objtype(self) -> str:
        """What Sphinx calls it."""
        if isinstance(self.value, ModuleType):
            return "module"
        if inspect.isclass(self.value):
            return "class"
        is_data = self.kind is not None or not callable(self.value) or _is_union(self.value)
        return "data" if is_data else "function"

    def _returns(self, what: str) -> bool:
        known = getattr(self.value, "__gdtx_signature__", None)
        if known is None or not inspect.isfunction(self.value):
            return False
        # Only factories of transformations take schedules in place of their scalars.
        return known.schedules == (what == "transformation")


def _is_union(value: Any) -> bool:
    return type(value).__name__ in ("UnionType", "Union")


@cache
def entries() -> tuple[Entry, ...]:
    """All of them, in the order in which `help(gdtx)` shows the groups."""
    found: dict[int, Entry] = {}
    for place, group in [("gdtx", group) for group in public.GROUPS] + [
        (module.__name__, module) for module in MODULES
    ]:
        origins = _origins(group)
        for name in public.contents.names(group):
            value = getattr(group, name)
            if isinstance(value, ModuleType):
                continue
            path = f"{place}.{name}"
            if id(value) in found:
                first = found[id(value)]
                found[id(value)] = Entry(
                    first.path, (*first.aliases, path), value, first.origin, first.group
                )
            else:
                found[id(value)] = Entry(path, (), value, origins[name], group)
    modules = (Entry(m.__name__, (), m, m.__name__, m) for m in MODULES)
    return (*found.values(), *modules)


@cache
def by_path() -> dict[str, Entry]:
    """Every public path, aliases too."""
    return {path: entry for entry in entries() for path in (entry.path, *entry.aliases)}


def resolved(name: str, near: Entry | None = None) -> Entry | None:
    """What a docstring means by a name: something in its own module, in gdtx, or anywhere."""
    own = near.path.rpartition(".")[0] if near else "gdtx"
    places = dict.fromkeys((own, "gdtx", "gdtx.kinds", *(m.__name__ for m in MODULES)))
    paths = (name if name.startswith("gdtx.") else f"{place}.{name}" for place in places)
    return next((by_path()[path] for path in paths if path in by_path()), None)


def brief(entry: Entry) -> str:
    """The first sentence of its docstring, or what an annotation asks for."""
    if entry.kind is not None:
        return entry.kind.expected
    lines = inspect.cleandoc(entry.value.__doc__ or "").partition("\n\n")[0].splitlines()
    text = " ".join(lines)
    end = text.find(". ")
    return text if end < 0 else text[: end + 1]


@cache
def _is_taken(short: str) -> bool:
    return f"gdtx.{short.lower()}" in by_path()


def _origins(module: ModuleType) -> dict[str, str]:
    """The module that each name is imported from; a module's own `__module__` says less."""

    def imports() -> Iterator[tuple[str, str]]:
        package = module.__name__ if hasattr(module, "__path__") else module.__package__
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.ImportFrom) and node.level:
                source = resolve_name("." * node.level + (node.module or ""), package)
                yield from ((alias.asname or alias.name, source) for alias in node.names)

    return dict(imports())
