"""Lengths measured by curvature, and updates that are no longer than they may be."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core.calls.kinds import Positive
from ..core.errors import at_work
from ..core.factory import transformation
from ..core.numbers.norms import scaled_norm
from ..core.numbers.numerics import cast, compute_dtype, sqrt
from ..core.rules import each_leaf
from ..core.transformation import GradientTransformation
from ..core.trees.sharding import shard_like_if_explicit
from ..core.trees.short import in_short
from ..core.trees.tree import PyTree, statistic_like
from ..formula import Expression, Reader, apply, formula_of
from ..linalg.products import product
from .curvature import Curvature, checked
from .formulas import fisher_form
from .model.layers import leaves_by_path


def fisher_square(curvature: Curvature, updates: PyTree) -> jax.Array:
    r"""$u^T F u$ with the Kronecker-factored $F$ of this batch: $\sum \mathrm{tr}(U^T A U S)$.

    Half of it is how far the model's distribution moves, as a Kullback-Leibler divergence and to
    second order. Parameters that no layer has do not count.

    Args:
        curvature: from :func:`gdtx.kfac.value_grad_and_curvature`.
        updates: tree like the parameters.

    >>> import jax.numpy as jnp
    >>> from gdtx import kfac
    >>> f = kfac.value_grad_and_curvature(
    ...     lambda params, x: x @ params["w"], kfac.squared_error, output="exact")
    >>> _, _, curvature = f({"w": jnp.ones((2, 1))}, (jnp.eye(2), jnp.zeros((2, 1))))
    >>> kfac.fisher_square(curvature, {"w": jnp.array([[1.0], [2.0]])})
    Array(2.5, dtype=float32)
    """

    leaves = leaves_by_path(updates)
    with at_work("fisher_square"):
        curvature = checked(curvature, getattr(curvature, "layout", ()), leaves)

    def summed(curvature: Curvature, leaves: dict[str, jax.Array]) -> jax.Array:
        total = jnp.zeros((), curvature.examples.dtype)
        for layer in curvature.layout:
            block = curvature.blocks[layer.weight]
            if layer.kind == "dense":
                matrix = layer.matrix(leaves)
                inner = product(product(block["A"], matrix), block["S"])
                inner = inner / block["n"][..., None, None]
                total = total + jnp.sum(matrix * inner) / curvature.examples
            else:
                x = leaves[layer.weight]
                square = block["D"] * jnp.square(cast(x, compute_dtype(x.dtype)))
                total = total + jnp.sum(square) / curvature.examples
        return total

    return shard_like_if_explicit(curvature.examples, summed, curvature, leaves)


def _small_if_large(updates: PyTree) -> jax.Array:
    """1, or of updates whose squares might overflow the power of two that brings them near 1."""
    power, _ = scaled_norm(jax.tree.leaves(updates))
    return jnp.where(power < 2.0**-32, power, 1)


def _times(power: jax.Array, updates: PyTree) -> PyTree:
    def product(u: jax.Array) -> jax.Array:
        wide = compute_dtype(u.dtype)
        return cast(u, wide) * power.astype(jnp.finfo(wide).dtype)

    return jax.tree.map(product, updates)


@in_short
class FisherNormState(NamedTuple):
    """State of a bound on the Fisher norm: the factor last used."""

    factor: jax.Array


@transformation
def clip_by_fisher_norm(norm_constraint: Positive = 1e-3) -> GradientTransformation:
    r"""Shorten the updates in the norm of the curvature.

    $u \leftarrow u \min(1, \sqrt{c / u^T F u})$ with the factors of this batch, see
    :func:`gdtx.kfac.fisher_square`.

    `update` needs `curvature=`; where it is None, the last factor is used again.

    Args:
        norm_constraint: $c$, the largest $u^T F u$, in the units of the loss (where that is a log
            likelihood, nats): of a loss multiplied by 10 it must be 10 times as large to mean the
            same.

    Returns:
        A transformation whose state is one number.

    Raises:
        TypeError: from `update`, if it is called without `curvature`.

    References:
        Ba et al. 2017, Distributed Second-Order Optimization using Kronecker-Factored
        Approximations, ICLR.

    >>> import gdtx, jax.numpy as jnp
    >>> from gdtx import kfac
    >>> f = kfac.value_grad_and_curvature(
    ...     lambda params, x: x @ params["w"], kfac.squared_error, output="exact")
    >>> params = {"w": jnp.ones((2, 1))}
    >>> _, grads, curvature = f(params, (jnp.eye(2), jnp.zeros((2, 1))))
    >>> tx = gdtx.clip_by_fisher_norm(0.25)
    >>> updates, _ = tx.update(params, tx.init(params), params, curvature=curvature)
    >>> updates["w"]
    Array([[0.5],
           [0.5]], dtype=float32)
    """

    def init(params: PyTree) -> FisherNormState:
        return FisherNormState(statistic_like(params, 1, jnp.float32))

    def update(
        updates: PyTree,
        state: FisherNormState,
        params: PyTree = None,
        *,
        curvature: Curvature | None,
        **extra_args: Any,
    ) -> tuple[PyTree, FisherNormState]:
        ratio, power = state.factor, 1
        if curvature is not None:
            power = _small_if_large(updates)
            square = fisher_square(curvature, _times(power, updates))
            within = square <= norm_constraint * power * power
            ratio = sqrt(norm_constraint / jnp.where(within, norm_constraint, square))
            power = jnp.where(within, 1, power)
            # Before the other factor, because their product may be too small a number.
            updates = _times(power, updates)
        leaves, structure = jax.tree.flatten(updates)
        shortened = each_leaf(lambda u: ratio * u, structure, leaves)
        return structure.unflatten(shortened), FisherNormState((ratio * power).astype(jnp.float32))

    return GradientTransformation(init, update, FisherNormState)


@formula_of(clip_by_fisher_norm, norm_constraint="c")
def _(u: Expression, reader: Reader, norm_constraint: Any) -> Expression:
    u = reader.atom(u)
    return u * apply("\\min", 1, apply("root", norm_constraint / fisher_form(reader, u)))
