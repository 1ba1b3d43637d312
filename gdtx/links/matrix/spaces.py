"""How the basis of a space is found in which matrices are projected."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from ...core.calls.functions import is_function
from ...core.calls.kinds import Kind
from ...core.errors import LeafError, calling
from ...core.trees.dealing import deal
from ...core.trees.tree import varying_like
from ...linalg.batches import apply_by_size, in_batches
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


def leading_of_all(
    matrices: Sequence[jax.Array], old: Sequence[jax.Array], names: Sequence[str]
) -> list[jax.Array]:
    """The bases `"svd"` of arrays of matrices that are dealt out, in place of these old ones."""
    ranks = {x.shape[-2:]: p.shape[-1] for x, p in zip(matrices, old, strict=True)}

    def of_stack(stack: jax.Array) -> tuple[jax.Array]:
        return (leading(stack, ranks[stack.shape[-2:]]),)

    flat = [x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:]) for x in matrices]
    # One at a time: all its singular vectors are as many numbers as a matrix, or more.
    results = apply_by_size(deal(in_batches(of_stack, 1)), flat, names=names)
    return [new.reshape(p.shape) for (new,), p in zip(results, old, strict=True)]


def found(x: jax.Array, old: jax.Array, key: jax.Array, basis: Any) -> tuple[jax.Array, jax.Array]:
    """The basis for these matrices, (..., m, n), and the one to keep, which is the old one,
    (..., m, r), where it is not finite. `basis` may be the new one."""
    rank = old.shape[-1]
    if isinstance(basis, jax.Array):
        new = basis
    elif isinstance(basis, str):
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
