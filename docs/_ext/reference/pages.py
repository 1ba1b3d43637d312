"""The page of one name: signature, docstring, formula, parts, state, picture, uses."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping
from types import UnionType
from typing import Any

import jax
import jax.numpy as jnp

import gdtx
from gdtx.core.calls.call import Call
from gdtx.core.calls.options import Options
from gdtx.formula.trees import rate_formula

from . import docstrings, examples, kinds
from .inventory import Entry, brief, by_path
from .signatures import signature

MAKERS = ("elementwise", "with_params", "treewise", "accumulate", "recur", "counted", "randomized")
FENCE = "`" * 8
PARAMS = {"w": jnp.zeros((4, 3)), "b": jnp.zeros(3)}
LARGE = {
    "w": jax.ShapeDtypeStruct((1024, 1024), "float32"),
    "b": jax.ShapeDtypeStruct((1024,), "float32"),
}


def page(entry: Entry, picture: str = "", uses: Mapping[str, str] | None = None) -> str:
    """MyST. `picture` is the figure of its path, and `uses` are titles by document."""
    parts = [f"# {entry.name}", described(entry)]
    if entry.kind is not None:
        parts += kinds.accepted(entry)
    if entry.is_transformation or entry.is_schedule:
        parts += _formula(entry)
    parts += [picture]
    if entry.is_transformation:
        parts += [*_parts(entry), *_state(entry)]
    parts += _uses(uses or {})
    return "\n\n".join(part for part in parts if part) + "\n"


def described(entry: Entry, example: bool = True) -> str:
    """The Sphinx object of a name, with what its docstring says."""
    module, _, name = entry.path.rpartition(".")
    options = [f":module: {module}", *(f":canonical: {alias}" for alias in entry.aliases[:1])]
    said = [docstrings.body(entry), docstrings.example(entry) if example else ""]
    if entry.objtype == "data":
        said = [kinds.sentence(entry)]
    said += list(_methods(entry))
    body = "\n\n".join(part for part in said if part)
    directive = f"{FENCE}{{py:{entry.objtype}}} {name}{signature(entry)}"
    return "\n".join([directive, *options, "", body, FENCE])


def _methods(entry: Entry) -> Iterator[str]:
    """Methods and properties of a class that say what they are for."""
    if not inspect.isclass(entry.value):
        return
    for name, member in _members(entry.value):
        if name.startswith("_") or not getattr(member, "__doc__", None):
            continue
        inner = Entry(f"{entry.path}.{name}", (), member, entry.origin, entry.group)
        if isinstance(member, property) and inspect.isfunction(member.fget):
            head = f"`````{{py:property}} {entry.name}.{name}"
        elif inspect.isfunction(member):
            text = re.sub(r"\(self(, )?", "(", signature(inner), count=1)
            head = f"`````{{py:method}} {entry.name}.{name}{text}"
        else:
            continue
        module = entry.path.rpartition(".")[0]
        said = docstrings.body(inner), docstrings.example(inner)
        yield "\n".join([head, f":module: {module}", "", "\n\n".join(filter(None, said)), "`````"])


def _members(value: type) -> Iterator[tuple[str, Any]]:
    yield from vars(value).items()
    if issubclass(value, Call) and not issubclass(value, Options):  # these say what they inherit
        yield from ((name, vars(Call)[name]) for name in ("arguments", "replace"))


def _formula(entry: Entry) -> Iterator[str]:
    written = formula(examples.example(entry))
    if written:
        writer = "notebooks show" if entry.is_schedule else "{py:obj}`~gdtx.latex` writes"
        yield f"## Formula\n\nOf `{examples.call(entry)}`, as {writer} it:"
        yield f"$$\n{written}\n$$"


def formula(call: Any) -> str:
    """What notebooks show of it, without the dollars."""
    if isinstance(call, gdtx.Schedule):
        return rate_formula(call)
    shown = getattr(call, "_repr_latex_", lambda: None)()
    return (shown or "").strip().strip("$").strip()


def _parts(entry: Entry) -> Iterator[str]:
    tx = examples.example(entry)
    if tx is None:
        return
    once, whole = gdtx.tree(tx, 1), gdtx.tree(tx)
    if once == gdtx.tree(tx, 0):
        return
    if gdtx.expand(tx).signature.name in MAKERS:  # of a rule, which only the code tells
        yield f"## Made of\n\n```{{code-block}} python\n{code(entry)}\n```"
        return
    yield f"## Made of\n\n```{{code-block}} python\n{once}\n```"
    if whole not in (once, gdtx.tree(tx, 0)):
        yield f"````{{dropdown}} All the way down\n```{{code-block}} python\n{whole}\n```\n````"
    names = dict.fromkeys(re.findall(r"\b([a-z]\w*)\(", f"{once}\n{whole}"))
    yield _linked("Links in it", (f"gdtx.{name}" for name in names if name != entry.name))


def code(entry: Entry) -> str:
    """What a factory does, without its signature and its docstring."""
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(entry.value)))
    factory = ast.parse(source).body[0]
    assert isinstance(factory, ast.FunctionDef)
    first = factory.body[1 if ast.get_docstring(factory) else 0]
    return textwrap.dedent("\n".join(source.splitlines()[first.lineno - 1 :]))


def _state(entry: Entry) -> Iterator[str]:
    tx = examples.example(entry)
    if tx is None:
        return
    table = gdtx.state_table(tx, PARAMS)
    yield "## State"
    if not table.rows:
        yield "None: nothing is kept between updates."
        return
    yield (
        f"Of `{examples.call(entry)}` for a 4 × 3 matrix `w` and a vector `b` of 3 numbers, by "
        f"{{py:obj}}`~gdtx.state_table`. {_large(tx)}"
    )
    rows = (
        f"| `{row.buffer}` | {f'`{row.leaf}`' if row.leaf else ''} | "
        f"{' × '.join(map(str, row.shape)) or 'scalar'} | {row.dtype} | {row.bytes} |"
        for row in table.rows
    )
    yield "\n".join(["| buffer | of | shape | dtype | bytes |", "|---|---|---|---|--:|", *rows])


def _large(tx: Any) -> str:
    of = "For a matrix of 1024 × 1024 and a vector of 1024, in float32,"
    with warnings.catch_warnings(action="ignore"):  # of sizes, which are what is asked for here
        try:
            size = gdtx.state_table(tx, LARGE).bytes_per_parameter
        except ValueError as error:
            return f"{of} it is refused: `{error}`."
    return f"{of} it is {size:.3g} bytes a parameter."


def _uses(uses: Mapping[str, str]) -> Iterator[str]:
    if uses:
        yield "## Used in"
        yield "\n".join(f"- [{title}](/{document}.md)" for document, title in uses.items())


def _linked(label: str, paths: Iterable[str]) -> str:
    known = [path for path in paths if path in by_path()]
    links = ", ".join(f"{{py:obj}}`~{path}`" for path in known)
    return f"{label}: {links}." if links else ""


def line(entry: Entry) -> str:
    """A row of a table of names."""
    # A union's own docstring is Python's, and says nothing of this one.
    said = kinds.sentence(entry) if isinstance(entry.value, UnionType) else brief(entry)
    text = docstrings.marked(said, entry).replace("|", r"\|")
    return f"| {{py:obj}}`{entry.name} <{entry.path}>` | {text} |"
