"""What leaves gdtx: updates in the dtypes of their parameters, but where exactness is the point."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .numerics import cast, stored_dtype


class _Outermost(NamedTuple):
    """An update that hands over what it emits: what it was given, and what is exact, by its id."""

    updates: Any
    state: Any
    exact: dict[int, jax.Array]


_outermost: ContextVar[_Outermost | None] = ContextVar("gdtx_outermost", default=None)
_leaves_gdtx: ContextVar[bool] = ContextVar("gdtx_leaves", default=True)


def leaves_gdtx() -> bool:
    """Whether what an update of now emits goes to others than a transformation of gdtx."""
    return _leaves_gdtx.get()


@contextlib.contextmanager
def inside(updates: Any, state: Any) -> Iterator[None]:
    """Of these, an update is under way, and what is emitted inside stays in gdtx."""
    around = _outermost.get()  # with others between it and this one
    outermost = _Outermost(updates, state, {} if around is None else around.exact)
    with _set(_outermost, outermost), _set(_leaves_gdtx, False):
        yield


@contextlib.contextmanager
def elsewhere() -> Iterator[None]:
    """Others are at work, and what gdtx emits meanwhile leaves it."""
    with _set(_leaves_gdtx, True):
        yield


@contextlib.contextmanager
def in_a_branch() -> Iterator[None]:
    """What is marked exact meanwhile is part of a program that ends before the update does."""
    outermost = _outermost.get()
    with _set(_outermost, outermost and outermost._replace(exact=dict(outermost.exact))):
        yield


def exact(tree: Any) -> Any:
    """The same arrays, which leave gdtx as they are if no other transformation touches them.

    For differences that a parameter needs in a wider dtype than its own.
    """
    outermost = _outermost.get()
    if outermost is not None:
        outermost.exact.update((id(x), x) for x in jax.tree.leaves(tree))
    return tree


def is_exact(x: Any) -> bool:
    outermost = _outermost.get()
    return outermost is not None and id(x) in outermost.exact


def handed_over(updates: Any, like: Any, keep_exact: bool = False) -> Any:
    """The updates, each in the dtype of the leaf of `like` in its place."""
    found, structure = jax.tree.flatten(updates)
    wanted, expected = jax.tree.flatten(like)
    if structure != expected:
        # Of some of the parameters, or of none of them: what has no counterpart stays.
        by_path = dict(jax.tree_util.tree_flatten_with_path(like)[0])
        paths = (path for path, _ in jax.tree_util.tree_flatten_with_path(updates)[0])
        wanted = [by_path.get(path, u) for path, u in zip(paths, found, strict=True)]

    def converted(u: Any, like: Any) -> Any:
        return u if keep_exact and is_exact(u) else _as_dtype_of(u, like)

    return structure.unflatten(map(converted, found, wanted))


def _as_dtype_of(u: Any, like: Any) -> Any:
    if not (hasattr(u, "dtype") and hasattr(like, "dtype")):
        return u
    dtype = stored_dtype(like.dtype)
    if jnp.iscomplexobj(u) and not jnp.issubdtype(dtype, jnp.complexfloating):
        return u  # which :func:`apply_updates` refuses, by leaf
    # Squares of complex numbers are real, and stay so.
    return cast(u, dtype if jnp.iscomplexobj(u) else jnp.finfo(dtype).dtype)


@dataclass(frozen=True)
class Elsewhere:
    """The `update` of a pair from elsewhere, whose states have the dtypes of their parameters."""

    update: Callable[..., Any]

    def __call__(self, updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        outermost = _outermost.get()
        first = updates if outermost is None else outermost.updates
        updates = handed_over(updates, first if params is None else params)
        with elsewhere():
            return self.update(updates, state, params, **extra_args)

    # For signatures and for readers, it is the function that it calls.

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return self.update

    @property
    def __name__(self) -> str:
        return self.update.__name__

    def __repr__(self) -> str:
        return repr(self.update)


def counts() -> list[jax.Array]:
    """What the state of the outermost update counts."""
    outermost = _outermost.get()
    return [] if outermost is None else counts_in(outermost.state)


def counts_in(state: Any) -> list[jax.Array]:
    """The integers in a state: what it counts, if it does."""
    return [
        x for x in jax.tree.leaves(state)
        if jnp.shape(x) == () and jnp.issubdtype(jnp.result_type(x), jnp.integer)
    ]  # fmt: skip


@contextlib.contextmanager
def _set(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)
