"""Norms of what went in and what came out, for a logger."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core.calls.types import TransformationLike
from ..core.factory import transformation
from ..core.numbers.numerics import compute_dtype, increment
from ..core.transformation import GradientTransformation
from ..core.trees.layout import holding
from ..core.trees.short import in_short
from ..core.trees.tree import PyTree, scalar_like, statistic_like
from ..formula import Expression, Reader, formula_of
from ..links.clipping import global_norm


@in_short
class RememberState(NamedTuple):
    """What is remembered: updates done, how many came out shorter, the last norms in and out."""

    step: jax.Array
    shortened: jax.Array
    norm_in: jax.Array
    norm_out: jax.Array
    inner: PyTree

    def describe(self) -> dict[str, jax.Array]:
        rate = self.shortened / jnp.maximum(self.step, 1)
        return {"norm_in": self.norm_in, "norm_out": self.norm_out, "clip_rate": rate}


@transformation
def remember(inner: TransformationLike) -> GradientTransformation:
    r"""Record the norms of what goes into a transformation and what comes out of it.

    For :func:`describe`, which then reports `norm_in` and `norm_out` of the last update and
    `clip_rate`, the share of updates that came out shorter. Around a clipping link that is how
    often it clips, around a whole method the norms are those of gradient and update.

    Args:
        inner: any transformation.

    Returns:
        A transformation whose state is two counts, two norms (:func:`global_norm`, in the widest
        dtype of the parameters, at least float32) and the state of `inner`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.chain(gdtx.remember(gdtx.clip_by_global_norm(1.0)), gdtx.sgd(0.1))
    >>> updates, state = tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))
    >>> facts = gdtx.describe(tx, state)
    >>> facts["norm_in"], facts["norm_out"], facts["clip_rate"]
    (5.0, 1.0, 1.0)
    """

    def init(params: PyTree) -> RememberState:
        dtype = compute_dtype(*(jnp.finfo(p.dtype).dtype for p in jax.tree.leaves(params)))
        step = scalar_like(params, 0, jnp.int32)
        shortened = statistic_like(params, 0, jnp.int32)
        norm_in, norm_out = (statistic_like(params, 0, dtype) for _ in range(2))
        return RememberState(step, shortened, norm_in, norm_out, inner.init(params))

    def update(
        updates: PyTree, state: RememberState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, RememberState]:
        norm_in = global_norm(updates)
        updates, inner_state = inner.update(updates, state.inner, params, **extra_args)
        norm_out = global_norm(updates)
        # By more than two sums of the same squares may differ, if compilers order them otherwise.
        shorter = norm_out < (1 - 1e-5) * norm_in
        return updates, RememberState(
            step=increment(state.step),
            shortened=jnp.where(shorter, increment(state.shortened), state.shortened),
            norm_in=norm_in.astype(state.norm_in.dtype),
            norm_out=norm_out.astype(state.norm_out.dtype),
            inner=inner_state,
        )

    return GradientTransformation(init, update, holding(RememberState, inner=inner))


@formula_of(remember)
def _(u: Expression, reader: Reader, inner: GradientTransformation) -> Expression:
    return reader.read(inner, u)
