"""Running bounds of squares, kept for each slice of an array."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...core.calls.kinds import Fraction
from ...core.errors import LeafError, foreign_state
from ...core.factory import transformation
from ...core.numbers.numerics import cast, compute_dtype
from ...core.numbers.values import is_array
from ...core.rules import checked_result, unzipped, walk
from ...core.transformation import GradientTransformation
from ...core.trees.boxes import refilled
from ...core.trees.copies import unlike_params
from ...core.trees.short import in_short
from ...core.trees.stacking import stacked_axes
from ...core.trees.tree import PyTree, check_params
from ...formula import MEMORY, Expression, Reader, apply, at_hand, formula_of


@in_short
class CoverState(NamedTuple):
    """State of a cover: for each parameter a tuple of bounds, an array along each of its axes."""

    bounds: PyTree


@transformation(whole=True, leafwise=True)
def running_cover(decay: Fraction = 1.0) -> GradientTransformation:
    r"""A bound on the sum so far, kept as one number for each index of each axis.

    $s_t = \beta \operatorname{cover}(s_{t-1}) + (1 - \beta)\,u_t$, or with $u_t$ as it is where
    $\beta = 1$, emitting $s_t$. Of a matrix, $\operatorname{cover}(s)_{ij}$ is the smaller of the
    largest in row $i$ and the largest in column $j$; of any array, the smallest over its axes of
    the largest in the slice across that axis. It is at least $s$, and equal to it for vectors and
    single numbers.

    Args:
        decay: $\beta$; 1 sums, less averages.

    Returns:
        A transformation of non-negative updates whose state holds for each array as many numbers
        as the sum of its dimensions.

    Raises:
        TypeError: from `update`, for complex updates.

    References:
        Anil et al. 2019, see :func:`scale_by_sm3`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.running_cover()
    >>> u, state = tx.update(jnp.array([[5.0, 1.0], [2.0, 0.0]]), tx.init(jnp.zeros((2, 2))))
    >>> tx.update(jnp.zeros((2, 2)), state)[0]
    Array([[5., 1.],
           [2., 1.]], dtype=float32)
    """
    if is_array(decay):
        weight = jnp.where(decay == 1, 1, 1 - decay)
    else:
        weight = 1 if decay == 1 else 1 - decay

    def init(params: PyTree) -> CoverState:
        def zero(p: jax.Array, n: int) -> tuple[jax.Array, ...]:
            return _bounds(jnp.zeros_like(p.real, dtype=compute_dtype(p.real.dtype)), n)

        both = jax.tree.leaves(params), stacked_axes(params)
        return CoverState(refilled(params, map(zero, *both)))

    def update(
        updates: PyTree, state: CoverState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, CoverState]:
        check_params(updates, params)
        leaves, structure = jax.tree.flatten(updates)

        def step(u: jax.Array, old: tuple[jax.Array, ...]) -> tuple[Any, tuple[jax.Array, ...]]:
            if jnp.iscomplexobj(u):
                raise LeafError(TypeError, "is complex, a cover needs real ones, as of square")
            if [a.shape for a in old] != [s.shape for s in jax.eval_shape(_bounds, u)]:
                raise LeafError(ValueError, f"has shape {u.shape}, its state is of another")
            dtype = compute_dtype(u.dtype, *(a.dtype for a in old))
            cover = functools.reduce(jnp.minimum, (cast(a, dtype) for a in old))
            total = checked_result(decay * cover + weight * cast(u, dtype), u, dtype)
            new = zip(_bounds(total), old, strict=True)
            return total, tuple(cast(bound, a.dtype) for bound, a in new)

        try:
            kept = jax.tree.structure(refilled(updates, leaves))
            bounds = kept.flatten_up_to(state.bounds)
        except ValueError:
            foreign_state("bounds of each leaf of the updates", state.bounds)
        out, new = unzipped(walk(step, structure, leaves, bounds), 2)
        return structure.unflatten(out), CoverState(kept.unflatten(new))

    return GradientTransformation(unlike_params(init), update, CoverState)


@formula_of(running_cover, decay=r"\beta")
def _(u: Expression, reader: Reader, decay: Any) -> Expression:
    cover = apply("cover", MEMORY)
    sums = at_hand(decay) == 1
    return reader.remember(("s",), cover + u if sums else decay * cover + (1 - decay) * u, 0)


def _bounds(s: jax.Array, first: int = 0) -> tuple[jax.Array, ...]:
    """The largest of the non-negative numbers across each axis from the first that counts no
    layers, shaped to broadcast."""
    if s.ndim == first:
        return (s,)
    axes = range(first, s.ndim)
    return tuple(
        jnp.max(s, tuple(j for j in axes if j != i), keepdims=True, initial=0) for i in axes
    )
