"""Whether a rule runs on one layer of several, which are in one array."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import jax

_layer: ContextVar[jax.Array | None] = ContextVar("gdtx_layer", default=None)


@contextlib.contextmanager
def of_layer(number: jax.Array) -> Iterator[None]:
    """What is computed inside is for this layer of several, all of which are computed together."""
    token = _layer.set(number)
    try:
        yield
    finally:
        _layer.reset(token)


def number_of_layer() -> jax.Array | None:
    """The number of that layer; None if arrays are no layers."""
    return _layer.get()


def is_of_layer() -> bool:
    """Whether what is called is for one layer of several."""
    return _layer.get() is not None
