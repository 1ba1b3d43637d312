"""Errors that say where: the transformation at work, the leaf, what was expected and what came."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from enum import Enum
from typing import Any, NamedTuple, NoReturn

import jax


class Voice(Enum):
    """When the name of a transformation stands in messages.

    Names of makers and combinators say little below a method or a link: `adam > ema` reads better
    than `adam > chain > scale_by_adam > join > chain > ema > accumulate > recur`.
    """

    CLEAR = "always"
    QUIET = "where it is the first, or the last one at work"
    SILENT = "where it is the first: of a pair of functions, what is around it knows more"


class _Name(NamedTuple):
    name: str
    voice: Voice


_path: ContextVar[tuple[_Name, ...]] = ContextVar("gdtx_path", default=())

_LOCATED = "_gdtx_located"  # the transformations that an error names already
_IN_MESSAGE = "in its message"

# What jax raises where Python asks for a value that a tracer does not have.
_VALUELESS = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
TRACED = (
    "what it is given is traced and has no value yet: write jnp.where(condition, a, b) for `if`, "
    "and jnp's functions for those of math and NumPy"
)


class LeafError(Exception):
    """Raised by a rule on one array, to become an error of this kind with the leaf's path."""

    def __init__(self, kind: type[Exception], message: str):
        super().__init__(message)
        self.kind = kind


@contextlib.contextmanager
def at_work(name: str, voice: Voice = Voice.CLEAR) -> Iterator[None]:
    """Errors raised inside name this transformation."""
    token = _path.set((*_path.get(), _Name(name, voice)))
    try:
        yield
    except Exception as error:
        if not hasattr(error, _LOCATED) and voice is not Voice.SILENT:
            annotate(error, "raised here")
        raise
    finally:
        _path.reset(token)


@contextlib.contextmanager
def calling(what: str, given: str = TRACED) -> Iterator[None]:
    """What a function of the user's raises keeps its type, and gets a note that says which it was.

    Args:
        what: the function, by the argument that it is.
        given: what it should know about what it is given, if it asked for values that are not
            there.
    """
    try:
        yield
    except Exception as error:
        if getattr(error, _LOCATED, None) not in (_IN_MESSAGE, _innermost()):
            annotate(error, f"raised by {what}", given)
        raise


@contextlib.contextmanager
def running(part: str) -> Iterator[None]:
    """What a part of a combinator raises gets a note that says which, if it has none yet."""
    try:
        yield
    except Exception as error:
        if not hasattr(error, _LOCATED):
            annotate(error, f"raised by {part}")
        raise


def annotate(error: Exception, what: str, given: str = TRACED) -> None:
    """Add to an error the names of the transformations at work, and what they were doing."""
    hint = f" ({given})" if isinstance(error, _VALUELESS) else ""
    path = f"{_innermost()}: " if _path.get() else ""
    error.add_note(f"{path}{what}{hint}")
    setattr(error, _LOCATED, _innermost())


def at_this_place() -> tuple[str, ...]:
    """The names of all transformations at work, from the outermost on."""
    return tuple(each.name for each in _path.get())


def where() -> str:
    """The names of the transformations at work, from the outermost on."""
    return _joined(_path.get())


def _innermost() -> str:
    """The same names, and that of the innermost even if it is a quiet one."""
    names = [each for each in _path.get() if each.voice is not Voice.SILENT]
    return _joined(names[:-1], last=names[-1:])


def _joined(names: Sequence[_Name], last: Sequence[_Name] = ()) -> str:
    shown = (*names[:1], *(each for each in names[1:] if each.voice is Voice.CLEAR), *last)
    return " > ".join(each.name for each in shown) or "gdtx"


def fail(kind: type[Exception], message: str) -> NoReturn:
    """Raise `kind`, with the names of the transformations at work before the message."""
    error = kind(f"{where()}: {message}")
    setattr(error, _LOCATED, _IN_MESSAGE)
    raise error


def summarize(value: Any) -> str:
    """What came, in few words: shape and dtype of arrays, the names in containers, or the value."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array of shape {tuple(value.shape)} and dtype {value.dtype}"
    if hasattr(value, "_fields"):
        return f"a {type(value).__name__}"
    if isinstance(value, dict) and value:
        return f"a dict of {', '.join(map(str, value))}"
    if isinstance(value, tuple | list) and value:
        return f"a {type(value).__name__} of {len(value)}"
    factory = getattr(value, "factory", None)
    if factory is not None:
        return f"{factory.__name__}(...)"
    if callable(value) and hasattr(value, "__name__"):
        return f"the function {value.__name__}"
    text = repr(value)
    return f"{text if len(text) < 60 else text[:57] + '...'} ({type(value).__name__})"


def call_with(name: str) -> str:
    """What to do where an extra argument is missing."""
    return (
        f"call update(updates, state, params, {name}=...) (Optax's wrappers pass it to "
        "gdtx.interop.to_optax(tx) only: they drop extra arguments of what is not of their class)"
    )


def check_state(state: Any, expected: type) -> None:
    """Raise unless the state is of this class."""
    if not isinstance(state, expected):
        foreign_state(f"a {expected.__name__}", state)


def foreign_state(expected: str, state: Any) -> NoReturn:
    fail(
        ValueError,
        f"the state is that of another transformation: expected {expected}, got {summarize(state)}",
    )
