"""Functions of one array that a program calls for many: traced once for those that are alike."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

import jax

R = TypeVar("R")

_in_program: ContextVar[bool] = ContextVar("gdtx_in_program", default=False)


@contextlib.contextmanager
def in_program() -> Iterator[None]:
    """What is called inside becomes part of one program."""
    token = _in_program.set(True)
    try:
        yield
    finally:
        _in_program.reset(token)


def is_in_program() -> bool:
    """Whether a function that is compiled by itself is compiled with what is around it: else each
    new one would cost a compilation."""
    return _in_program.get()


def map_alike(f: Callable[..., R], leaves: list[Any]) -> list[R]:
    """`f` of each array, traced once for those of one shape and dtype where it is part of a
    program."""
    return list(map(jax.jit(f) if is_in_program() and len(leaves) > 1 else f, leaves))
