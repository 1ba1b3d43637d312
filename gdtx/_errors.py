"""Errors that say where: the transformation at work, the leaf, what was expected and what came."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NoReturn

import jax

_path: ContextVar[tuple[str, ...]] = ContextVar("gdtx_path", default=())

# Names of makers and combinators say little below a method or a link: `adam > ema` reads better
# than `adam > chain > scale_by_adam > join > chain > ema > accumulate > recur`.
_plumbing = {
    "GradientTransformation",
    "elementwise",
    "with_params",
    "treewise",
    "recur",
    "accumulate",
    "counted",
    "randomized",
} | {
    "chain",
    "join",
    "let",
    "previous",
    "masked",
    "partition",
    "skip_when",
    "blockwise",
}


_LOCATED = "_gdtx_located"  # the transformations that an error names already
_IN_MESSAGE = "in its message"

# What jax raises where Python asks for a value that a tracer has not.
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
def at_work(name: str) -> Iterator[None]:
    """Errors raised inside name this transformation."""
    token = _path.set((*_path.get(), name))
    try:
        yield
    except Exception as error:
        # Of a pair that a user wrote, the combinator around it knows more: which part it is.
        if not hasattr(error, _LOCATED) and name != "GradientTransformation":
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


def is_outermost() -> bool:
    """Whether no transformation is at work around the caller."""
    return not _path.get()


def where() -> str:
    outermost, *inner = _path.get() or ("gdtx",)
    return " > ".join([outermost, *(name for name in inner if name not in _plumbing)])


def _innermost() -> str:
    """The same, with the name of the last even if it is a maker's."""
    names = [name for name in _path.get() if name != "GradientTransformation"] or ["gdtx"]
    inner = (name for name in names[1:-1] if name not in _plumbing)
    return " > ".join([names[0], *inner, *names[1:][-1:]])


def fail(kind: type[Exception], message: str) -> NoReturn:
    """Raise `kind`, with the names of the transformations at work before the message."""
    error = kind(f"{where()}: {message}")
    setattr(error, _LOCATED, _IN_MESSAGE)
    raise error


def describe(value: Any) -> str:
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
        f"the state is that of another transformation: expected {expected}, got {describe(state)}",
    )
