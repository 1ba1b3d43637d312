"""How the basis of a space is found in which matrices are projected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from ...core.calls.functions import is_function
from ...core.calls.kinds import Kind
from ...core.errors import LeafError, calling
from ...core.trees.tree import varying_like
from ...linalg.subspaces import leading


def _normal(x: jax.Array, rank: int, key: jax.Array) -> jax.Array:
    shape = (*x.shape[:-1], rank)
    return jax.random.normal(key, shape, jnp.finfo(x.dtype).dtype) / rank**0.5


_FINDERS: dict[Any, Callable[[jax.Array, int, jax.Array], jax.Array]] = {
    "svd": lambda x, rank, key: leading(x, rank),
    "gaussian": _normal,
}

Basis = Annotated[
    str | Callable[[jax.Array, int], Any],
    Kind(
        f"{', '.join(map(repr, _FINDERS))} or a function of a matrix and the rank",
        lambda value: is_function(value) or (isinstance(value, str) and value in _FINDERS),
        takes=2,
        text=True,
    ),
]


def found(basis: Any, x: jax.Array, old: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The basis for these matrices, (..., m, n), and the one to keep, which is the old one,
    (..., m, r), where it is not finite."""
    rank = old.shape[-1]
    if isinstance(basis, str):
        new = _FINDERS[basis](x, rank, key)
    else:
        with calling("basis"):
            new = jnp.asarray(basis(x, rank))
        if new.shape != old.shape:
            raise LeafError(
                ValueError, f": the basis must have the shape {old.shape}, got {new.shape}"
            )
    new = varying_like(x, new.astype(old.dtype))
    # No entry is large: their sum is finite if all of them are.
    is_good = jnp.isfinite(jnp.sum(jnp.abs(new), (-2, -1), keepdims=True))
    return new, jnp.where(is_good, new, old)
