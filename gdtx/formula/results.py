"""What functions of arrays make of expressions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .expression import Apply, Expression, expression


def opaque(f: Any, *inputs: Expression) -> Expression:
    """The name of a function, for what it makes of its inputs."""
    if is_nameless(f):
        return Apply("f", inputs)
    name = getattr(f, "__name__", "f")
    if name in ("sum", "prod", "mean", "power", "mod", "inner", "kron"):
        name = rf"\operatorname{{{name}}}"  # those of arrays: the names alone are others' here
    return Apply(name, inputs)


def is_nameless(f: Any) -> bool:
    return getattr(f, "__name__", "") == "<lambda>"


def symbolic(f: Callable[..., Any], *inputs: Expression) -> Expression | None:
    """What a function makes of symbols, if it does nothing but arithmetic."""
    try:
        return expression(f(*inputs))
    except Exception:  # every function has its own way to refuse what is no array
        return None


def result(name: Any, f: Any, *inputs: Expression) -> Expression:
    """What a function makes of its inputs: its arithmetic, or else a name."""
    value = symbolic(f, *inputs)
    return opaque(name, *inputs) if value is None else value
