"""Transformations as text: the expression, indented."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .._call import Call, holds_calls, show
from .._expand import expand
from .._transformation import GradientTransformation

_WIDTH = 88


def tree(tx: GradientTransformation, depth: int | None = None) -> str:
    """A transformation as the expression a reader would write, a line for each part.

    What fits in a line stays in one. Arguments that have their default are left out, those
    without a default are not named.

    Args:
        tx: any transformation.
        depth: how many levels to :func:`expand` first, None for all, 0 for none.

    Raises:
        TypeError: if `tx` is not a transformation.

    >>> import gdtx
    >>> print(gdtx.tree(gdtx.adam(0.001)))
    chain(
        join(
            divide,
            mu=chain(ema(0.9), bias_correction(0.9)),
            nu=chain(chain(square(), ema(0.999), bias_correction(0.999)), root(1e-08)),
        ),
        scale(-0.001),
    )
    """
    return _text(expand(tx, depth), indent=0, used=0)


def changed(call: Call) -> dict[str, Any]:
    """The arguments of a call that are not its defaults."""
    parameters = call.signature.parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    return {
        name: value for name, value in call.arguments.items()
        if name not in defaults or not _is_same(defaults[name], value)
    }  # fmt: skip


def _is_same(default: Any, value: Any) -> bool:
    return type(default) is type(value) and bool(default == value)


def _line(value: Any) -> str:
    opening, parts, closing = _taken_apart(value)
    inside = ", ".join(name + _line(part) for name, part in parts)
    return opening + inside + ("," if type(value) is tuple and len(parts) == 1 else "") + closing


def _text(value: Any, indent: int, used: int) -> str:
    """A value's text, `used` columns of whose first line are taken beside its indentation."""
    line = _line(value)
    opening, parts, closing = _taken_apart(value)
    if not parts or indent + used + len(line) <= _WIDTH:
        return line
    inner = indent + 4
    texts = (name + _text(part, inner, len(name) + 1) for name, part in parts)
    lines = "".join(f"{' ' * inner}{part},\n" for part in texts)
    return f"{opening}\n{lines}{' ' * indent}{closing}"


def _taken_apart(value: Any) -> tuple[str, list[tuple[str, Any]], str]:
    """What a value's text begins with, its parts, each after what names it, and how it ends."""
    if isinstance(value, Call):
        return f"{value.signature.name}(", list(_arguments(value)), ")"
    if holds_calls(value):
        return "{", [(f"{key!r}: ", item) for key, item in value.items()], "}"
    if type(value) in (tuple, list):
        opening, closing = repr(type(value)())
        return opening, [("", item) for item in value], closing
    return show(value), [], ""


def _arguments(call: Call) -> Iterator[tuple[str, Any]]:
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
