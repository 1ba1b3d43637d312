"""Calls as text: on one line, or as the expression that a reader would write, indented."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .signature import Signature
from .views import shown

_WIDTH = 88


class Printed:
    """What prints as a call: a signature, and arguments by name."""

    __slots__ = ()

    @property
    def signature(self) -> Signature:
        raise NotImplementedError

    @property
    def arguments(self) -> Mapping[str, Any]:
        raise NotImplementedError

    def __repr__(self) -> str:
        """The call with all of its arguments, by name."""
        return f"{self.signature.name}({', '.join(self._shown())})"

    def __str__(self) -> str:
        """The call as one would write it: no defaults, a line for each part of a long one."""
        return text(self)

    def _repr_html_(self) -> str | None:
        """What notebooks show, if something above knows how."""
        return shown(self)

    def _shown(self) -> Iterator[str]:
        for name, value in self.arguments.items():
            if name == self.signature.varargs:
                yield from map(show, value)
            else:
                yield f"{name}={show(value)}"


def show(value: Any) -> str:
    """A value as a reader would write it; functions by their names."""
    if isinstance(value, Printed):
        return repr(value)
    return getattr(value, "__name__", None) or repr(value)


def holds_calls(value: Any) -> bool:
    """Whether this is a dict of calls."""
    return isinstance(value, Mapping) and any(isinstance(item, Printed) for item in value.values())


def changed(call: Printed) -> dict[str, Any]:
    """The arguments of a call that are not its defaults."""
    parameters = call.signature.parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    return {
        name: value for name, value in call.arguments.items()
        if name not in defaults or not _is_same(defaults[name], value)
    }  # fmt: skip


def _is_same(default: Any, value: Any) -> bool:
    return type(default) is type(value) and bool(default == value)


def one_line(value: Any) -> str:
    """A value as a reader would write it, however long it gets."""
    opening, parts, closing = taken_apart(value)
    inside = ", ".join(name + one_line(part) for name, part in parts)
    return opening + inside + ("," if type(value) is tuple and len(parts) == 1 else "") + closing


def text(value: Any, indent: int = 0, used: int = 0) -> str:
    """A value's text; its first line begins `used` columns after its indentation."""
    line = one_line(value)
    opening, parts, closing = taken_apart(value)
    if not parts or indent + used + len(line) <= _WIDTH:
        return line
    inner = indent + 4
    texts = (name + text(part, inner, len(name) + 1) for name, part in parts)
    lines = "".join(f"{' ' * inner}{part},\n" for part in texts)
    return f"{opening}\n{lines}{' ' * indent}{closing}"


def taken_apart(value: Any) -> tuple[str, list[tuple[str, Any]], str]:
    """How a value's text begins, its parts with what stands before each, and how it ends."""
    if isinstance(value, Printed):
        return f"{value.signature.name}(", list(_arguments(value)), ")"
    if holds_calls(value):
        return "{", [(f"{key!r}: ", item) for key, item in value.items()], "}"
    if type(value) in (tuple, list):
        opening, closing = repr(type(value)())
        return opening, [("", item) for item in value], closing
    return show(value), [], ""


def _arguments(call: Printed) -> Iterator[tuple[str, Any]]:
    """Each argument to show, after its name and an equals sign if it needs them."""
    parameters = call.signature.parameters
    for name, value in changed(call).items():
        parameter = parameters.get(name)
        if parameter is not None and parameter.kind is parameter.VAR_POSITIONAL:
            yield from (("", item) for item in value)
        elif parameter is not None and parameter.default is parameter.empty:
            yield "", value
        else:
            yield f"{name}=", value
