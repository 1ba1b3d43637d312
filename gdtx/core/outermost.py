"""Whether a call comes from a user, or from inside of a transformation.

Only what a user calls is looked at (arguments of factories, structures of trees) and compiled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_inside: ContextVar[bool] = ContextVar("gdtx_inside", default=False)


def is_outermost() -> bool:
    """Whether the caller is a user: no transformation, and no function that takes one apart."""
    return not _inside.get()


@contextlib.contextmanager
def nested() -> Iterator[None]:
    """What is called inside is not the outermost."""
    token = _inside.set(True)
    try:
        yield
    finally:
        _inside.reset(token)
