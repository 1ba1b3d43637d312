"""Signatures as the source writes them, with every type under its public name."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

from gdtx.core.calls.options import Options

from .inventory import Entry, entries, resolved

# What the sources import under short names, and another library documents.
_elsewhere = {
    "Array": "jax.Array",
    "Mesh": "jax.sharding.Mesh",
    "ArrayLike": "jax.typing.ArrayLike",
}


def signature(entry: Entry) -> str:
    """`(learning_rate: gdtx.NonNegative, ...) -> gdtx.GradientTransformation`, or nothing."""
    value = entry.value
    if entry.objtype in ("module", "data") or (inspect.isclass(value) and not _is_called(value)):
        return ""
    found = inspect.signature(value)
    defaults = _defaults(value)
    parameters = [
        _with_type(
            parameter.replace(
                annotation=parameter.empty,
                default=_Text(defaults.get(name, repr(parameter.default)))
                if parameter.default is not parameter.empty
                else parameter.empty,
            ),
            annotation(parameter.annotation, entry),
        )
        for name, parameter in found.parameters.items()
    ]
    returns = "" if inspect.isclass(value) else annotation(found.return_annotation, entry)
    if entry.is_schedule:
        returns = "gdtx.Schedule"
    return _joined(list(found.parameters.values()), parameters) + (
        f" -> {returns}" if returns else ""
    )


def annotation(given: Any, entry: Entry) -> str:
    """A type as text, with public names in full."""
    if given is inspect.Parameter.empty:
        return ""
    given = getattr(given, "__forward_arg__", given)
    if not isinstance(given, str):
        known = next((x for x in entries() if x.value is given), None)
        if known is not None:
            return known.path
        if hasattr(given, "__metadata__"):
            given = given.__origin__
        given = (
            inspect.formatannotation(given).replace("typing.", "").replace("collections.abc.", "")
        )
    try:
        tree = ast.parse(given, mode="eval")
    except SyntaxError:
        return ""
    text = ast.unparse(_Public(entry).visit(tree))
    return "" if text.startswith("_") else text


class _Public(ast.NodeTransformer):
    def __init__(self, entry: Entry):
        self.entry = entry

    def visit_Name(self, node: ast.Name) -> ast.AST:
        found = resolved(node.id, self.entry)
        name = found.path if found is not None else _elsewhere.get(node.id, node.id)
        return ast.parse(name, mode="eval").body

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        return node  # jax.Array

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        is_annotated = isinstance(node.value, ast.Name) and node.value.id == "Annotated"
        if is_annotated and isinstance(node.slice, ast.Tuple):
            return self.visit(node.slice.elts[0])  # what the kind beside the type says, Args say
        return self.generic_visit(node)


class _Text:
    def __init__(self, text: str):
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _is_called(value: type) -> bool:
    """Whether users call this class, and do not only receive its instances or inherit from it."""
    is_options = issubclass(value, Options) and value is not Options
    is_record = hasattr(value, "_fields") or hasattr(value, "__dataclass_fields__")
    return is_options or is_record or "__new__" in vars(value)


def _defaults(value: Any) -> dict[str, str]:
    """Defaults as they are written, which is shorter than what they print."""
    try:
        source = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(value)))).body[0]
    except (TypeError, OSError, SyntaxError):
        return {}
    if isinstance(source, ast.ClassDef):
        return {
            node.target.id: ast.unparse(node.value)
            for node in source.body
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value
        }
    if not isinstance(source, ast.FunctionDef):
        return {}
    given = source.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args)]
    written = dict(zip(names[len(names) - len(given.defaults) :], given.defaults, strict=True))
    by_name = zip(given.kwonlyargs, given.kw_defaults, strict=True)
    written |= {argument.arg: default for argument, default in by_name if default}
    return {name: ast.unparse(default) for name, default in written.items()}


def _with_type(parameter: inspect.Parameter, kind: str) -> str:
    text = str(parameter)  # `name`, `*name`, `name=default`
    name, equals, default = text.partition("=")
    if not kind:
        return text
    return f"{name}: {kind} = {default}" if equals else f"{name}: {kind}"


def _joined(parameters: list[inspect.Parameter], texts: list[str]) -> str:
    """With the `*` before those that are given by name, and the `/` after those that are not."""
    parts: list[str] = []
    before: Any = None
    for parameter, text in zip(parameters, texts, strict=True):
        kind = parameter.kind
        if before is parameter.POSITIONAL_ONLY and kind is not before:
            parts.append("/")
        is_starred = any(part.startswith("*") for part in parts)
        if kind is parameter.KEYWORD_ONLY and not is_starred:
            parts.append("*")
        parts.append(text)
        before = kind
    return f"({', '.join(parts)})"
