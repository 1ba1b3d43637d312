"""The link under Shampoo: every axis of a block times a root of what gradients are along it."""

from __future__ import annotations

import functools
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from ...core.calls.kinds import FloatDType, NonNegative, PositiveCount, Scalar, one_of
from ...core.calls.options import Options
from ...core.calls.types import TransformationLike
from ...core.factory import transformation
from ...core.numbers.numerics import increment
from ...core.numbers.values import is_array, is_zero
from ...core.transformation import GradientTransformation
from ...core.trees.layout import holding
from ...core.trees.short import in_short
from ...core.trees.tree import PyTree, scalar_like, statistic_like
from ...formula import IDENTITY, Expression, Reader, Symbol, apply, formula_of, statistics_of_sides
from ...linalg.batches import recompute
from ...linalg.roots import check_method, checked_dtype, inverse_root
from .blocks import Stacks
from .statistics import (
    Factors,
    is_due,
    multiply_axes,
    second_moments,
    square_matrices,
    without_nonfinite,
)


@in_short
class PreconditionState(NamedTuple):
    """State of a preconditioner: updates done, roots that failed, the states of its direction and
    of its statistic, and the last good roots."""

    step: jax.Array
    failures: jax.Array
    direction: PyTree
    statistic: PyTree
    roots: Factors


class Roots(Options):
    """When and how roots of second moments are computed.

    Args:
        every: how many steps apart roots are computed.
        start: the first step that computes them, counted from 1. Before it the roots are the
            identity: the direction passes as it is.
        stale: whether a step uses the roots as they were before it, so that they need not be waited
            for.
        method: how roots are computed, `"eigh"` or `"newton"`, see
            :func:`~gdtx.linalg.roots.inverse_root`.
        tolerance: largest error of a root, as that function reports it: a number or an array.
        batch_size: about how many roots are computed at a time; on a CPU, one. What that needs,
            some three matrices each, comes on top of the state, one copy of the statistics and the
            blocks.
        dtype: in which roots are computed; None is that of the statistic.

    >>> import gdtx
    >>> gdtx.shampoo(0.1).replace(**{"roots.every": 20}).arguments["roots"].every
    20
    """

    every: PositiveCount = 10
    start: PositiveCount = 1
    stale: bool = False
    method: Annotated[str, one_of("eigh", "newton")] = "eigh"
    tolerance: NonNegative = 0.1
    batch_size: PositiveCount = 64
    dtype: FloatDType | None = None


@transformation(exact=("statistic",))
def precondition(
    direction: TransformationLike,
    statistic: TransformationLike,
    eps: NonNegative = 1e-12,
    relative_eps: NonNegative = 0.0,
    exponent: Scalar | None = None,
    roots: Roots = Roots(every=1),
) -> GradientTransformation:
    r"""Multiply every axis of a block by an inverse root of its second moments.

    $$u_t = m_t \times_1 P_1 \cdots \times_k P_k, \quad
    P_i = (S_i + d_i I)^{\alpha}, \quad d_i = \epsilon + \rho\,\lambda_{max}(S_i),$$

    with $m$ the `direction` of the gradients and $S_i$ the `statistic` of $G_{(i)} G_{(i)}^\top$,
    the gradient unfolded along axis $i$. For what :func:`blockwise` hands on.

    Roots are computed at the steps `roots.start`, `roots.start + roots.every`, ... in a
    conditional: other steps cost the statistics and the products. A root that is not finite, or
    whose error is above `roots.tolerance`, is not taken: the last good one stays, the identity at
    first, and is counted. Blocks of the gradient whose sum of squares is not finite count as zero.

    Args:
        direction: transformation of the gradient to what is preconditioned.
        statistic: transformation of second moments to the statistic, such as a sum or an average.
        eps: $\epsilon$, in the units of squared gradients.
        relative_eps: $\rho$, a share of the largest eigenvalue of each matrix.
        exponent: $\alpha$, negative; None is $-1/(2k)$ for blocks of order $k$.
        roots: when and how roots are computed, see :class:`Roots`.

    Returns:
        A transformation whose state holds two matrices for each axis of a block, $S_i$ and $P_i$.

    Raises:
        ValueError: if the exponent is not negative, if the method cannot take the root, or if
            float64 is asked for where 64-bit types are not enabled.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.blockwise(gdtx.precondition(gdtx.identity(), gdtx.running_sum()))
    >>> tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))[0].round(3)
    Array([0.6, 0.8], dtype=float32)
    """
    if exponent is not None and not is_array(exponent):
        if exponent >= 0:
            raise ValueError(f"precondition: exponent must be negative, got {exponent}")
        check_method(roots.method, -1 / exponent)
    checked_dtype("precondition", roots.dtype)

    def init(params: Stacks) -> PreconditionState:
        return PreconditionState(
            scalar_like(params, 0, jnp.int32),
            statistic_like(params, 0, jnp.int32),
            direction.init(params),
            statistic.init(square_matrices(params, identity=False)),
            square_matrices(params, identity=True),
        )

    def root(p: Any, matrix: jax.Array, old: jax.Array) -> tuple[jax.Array, jax.Array]:
        value, error = inverse_root(matrix, p, eps, relative_eps, roots.method, dtype=roots.dtype)
        is_good = error <= roots.tolerance
        return jnp.where(is_good[..., None, None], value.astype(old.dtype), old), is_good

    def refreshed(
        statistics: Factors, last: Factors, failures: jax.Array
    ) -> tuple[Factors, jax.Array]:
        new = {}
        for k in sorted({len(matrices) for matrices in statistics.values()}):
            p = 2 * k if exponent is None else -1 / exponent
            names = [name for name, matrices in statistics.items() if len(matrices) == k]
            old, structure = jax.tree.flatten({name: last[name] for name in names})
            matrices = jax.tree.leaves({name: statistics[name] for name in names})
            f = functools.partial(root, p)
            found, failures = recompute(f, roots.batch_size, failures, matrices, old)
            new.update(structure.unflatten([value for value, _ in found]))
        return new, failures

    def update(
        updates: Stacks, state: PreconditionState, params: PyTree = None, **extra_args: Any
    ) -> tuple[Stacks, PreconditionState]:
        step = increment(state.step)
        updates = without_nonfinite(updates)
        statistics, statistic_state = statistic.update(second_moments(updates), state.statistic)
        found, failures = jax.lax.cond(
            is_due(step, roots.start, roots.every),
            refreshed,
            lambda statistics, *last: last,
            statistics,
            state.roots,
            state.failures,
        )
        updates, direction_state = direction.update(updates, state.direction, params, **extra_args)
        updates = multiply_axes(state.roots if roots.stale else found, updates)
        return updates, PreconditionState(step, failures, direction_state, statistic_state, found)

    layout = holding(PreconditionState, direction=direction, statistic=statistic)
    return GradientTransformation(init, update, layout)


@formula_of(precondition, eps=r"\epsilon", relative_eps=r"\rho", exponent=r"\alpha")
def _(
    u: Expression, reader: Reader, direction: GradientTransformation,
    statistic: GradientTransformation, eps: Any, relative_eps: Any, exponent: Any,
) -> Expression:  # fmt: skip
    u = reader.atom(u)
    mean = reader.read(direction, u)

    def damped(second: Expression) -> Expression:
        if is_zero(relative_eps):
            return second + eps * IDENTITY
        return second + (eps + relative_eps * apply(r"\lambda_{\max}", second)) * IDENTITY

    power = Symbol("-1/4") if exponent is None else exponent
    seconds = statistics_of_sides(reader, u, statistic)
    left, right = (damped(each) ** power for each in seconds)
    return left * mean * right
