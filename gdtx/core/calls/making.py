"""Factories at work: what they compute of numbers, and for whom."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeVar

import jax

T = TypeVar("T")

# How many factories are at work, one called by another, of whose calls no user needs to hear.
_unheard: ContextVar[int | None] = ContextVar("gdtx_unheard", default=None)


def made(body: Callable[[], T], is_constant: bool, unheard: int) -> T:
    """What a factory returns. Of constants it computes at once, also where others are traced, so
    that the result may be kept longer than their trace."""
    around = _unheard.get()
    token = _unheard.set((around or 0) + unheard)
    try:
        if around is not None or not is_constant:
            return body()
        with jax.ensure_compile_time_eval():
            return body()
    finally:
        _unheard.reset(token)


def is_written_by_a_user() -> bool:
    """Whether the call whose factory is at work is no part of a formula of this library, and is
    made for the first time."""
    return (_unheard.get() or 0) <= 1
