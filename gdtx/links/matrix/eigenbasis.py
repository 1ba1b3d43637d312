"""The link under SOAP: any elementwise transformation in the eigenbasis of second moments."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...core.calls.kinds import Patterns, TwoArraysFunction
from ...core.calls.types import TransformationLike
from ...core.emitted import emitted_last
from ...core.factory import transformation
from ...core.numbers.numerics import increment
from ...core.rules import identity
from ...core.transformation import GradientTransformation
from ...core.trees.layout import holding
from ...core.trees.paths import leaf_paths, matched
from ...core.trees.short import in_short
from ...core.trees.tree import PyTree, scalar_like, statistic_like
from ...formula import (
    Expression,
    Reader,
    Symbol,
    apply,
    formula_of,
    result,
    shifted,
    statistics_of_sides,
    t,
)
from ...linalg.batches import recompute
from ...linalg.eigenvectors import turned_basis
from ...linalg.roots import checked_dtype
from .bases import Bases
from .blocks import Stacks
from .statistics import (
    Factors,
    is_due,
    multiply_axes,
    second_moments,
    square_matrices,
    without_nonfinite,
)
from .turning import carried_over, diagonals, products, whitened_moments


@in_short
class EigenbasisState(NamedTuple):
    """State of a transformation in an eigenbasis: updates done, bases that failed, the states of
    the direction, of what acts in the basis (a magnitude, most often) and of the statistic, and
    the basis, eigenvectors as columns."""

    step: jax.Array
    failures: jax.Array
    direction: PyTree
    magnitude: PyTree
    statistic: PyTree
    basis: Factors


@transformation(exact=("statistic",))
def in_eigenbasis(
    inner: TransformationLike,
    statistic: TransformationLike,
    bases: Bases = Bases(),
    *,
    direction: TransformationLike | None = None,
    merge: TwoArraysFunction | None = None,
    values: TransformationLike | None = None,
    rotated: Patterns = (),
) -> GradientTransformation:
    r"""Any elementwise transformation in the eigenbasis of second moments, and back.

    $$u_t = Q\,\mathrm{inner}(Q^\top m_t), \quad \text{or with a merge} \quad
    u_t = Q\,\mathrm{merge}\bigl(Q^\top m_t,\ \mathrm{inner}(Q^\top g_t)\bigr),$$

    where $Q$ and $Q^\top$ act along every axis of a block, with the eigenvectors of the `statistic`
    of $G_{(i)} G_{(i)}^\top$, the gradient unfolded along axis $i$, and $m$ is the `direction` of
    the gradients, which is kept as they are, not turned. For what :func:`blockwise` hands on.

    Eigenvectors are found at the steps `bases.start`, `bases.start + bases.every`, ... in a
    conditional, the largest eigenvalue first: at the first of them by an eigendecomposition, later
    by a step of orthogonal iteration from the old ones, which are sorted before by what their
    eigenvalues are now. Every buffer of `inner` is sorted with them, which is right for magnitudes;
    what has signs, such as a momentum, belongs into `direction`, or is `rotated`. A basis that is
    not finite is not taken: the last good one stays, the identity at first, and is counted. Blocks
    of the gradient whose sum of squares is not finite count as zero. For derivatives the basis is
    a constant.

    With `values` each side's statistic sees the others' (Lin et al. 2025): of axis $i$ it is that
    of $G_{(i)} \bigl(\bigotimes_{j \ne i} S_j\bigr)^{-1} G_{(i)}^\top$ by the number of columns,
    with $S_j = Q_j D_j Q_j^\top$, where $D_j$ is what `values` makes of the diagonal of $Q_j^\top$
    times the same times $Q_j$. Eigenvalues far below the largest, by the precision of the dtype,
    count as that far below. The products of $D_j$ are what `inner` reads as
    `value_of("eigenvalues")`.

    Args:
        inner: transformation of the turned gradient, with every number by itself. It sees no
            parameters.
        statistic: transformation of second moments to what has the eigenvectors.
        bases: when and how eigenvectors are found, see :class:`Bases`.
        direction: transformation of the gradient to $m$; None is the gradient.
        merge: function of the turned direction and of what `inner` makes of the turned gradient,
            such as :func:`divide`; None lets `inner` see the turned direction instead.
        values: transformation of diagonals, whose last link emits its own buffer, such as
            `ema(0.95, initial=1.0)`; None lets each side's statistic see its own side only.
        rotated: patterns of paths in the state of `inner`, such as `["mu/**"]` for
            :func:`scale_by_adam`, of buffers that turn with the basis as gradients do.

    Returns:
        A transformation whose state holds two matrices for each axis of a block.

    Raises:
        ValueError: if float64 is asked for where 64-bit types are not enabled; from `init`, if a
            pattern matches no path.

    References:
        Lin et al. 2025, Understanding and Improving Shampoo and SOAP via Kullback-Leibler
        Minimization, arXiv:2509.03378.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.blockwise(gdtx.in_eigenbasis(gdtx.sign(), gdtx.ema(0.9)))
    >>> g = jnp.array([[1.0, 2.0], [2.0, 1.0]])
    >>> _, state = tx.update(g, tx.init(g))
    >>> u, _ = tx.update(jnp.array([[5.0, 1.0], [1.0, 5.0]]), state)  # the same eigenvectors
    >>> jnp.linalg.eigvalsh(u).round(2)
    Array([1., 1.], dtype=float32)
    """
    working = checked_dtype("in_eigenbasis", bases.dtype)
    means = identity() if direction is None else direction

    def init(params: Stacks) -> EigenbasisState:
        turned_state = inner.init(params)
        for pattern in rotated:
            matched(pattern, leaf_paths(turned_state))
        statistic_state = statistic.init(square_matrices(params, identity=False))
        if values is not None:
            statistic_state = {
                "moments": statistic_state,
                "values": values.init(diagonals(params)),
            }
        return EigenbasisState(
            scalar_like(params, 0, jnp.int32),
            statistic_like(params, 0, jnp.int32),
            means.init(params),
            turned_state,
            statistic_state,
            square_matrices(params, identity=True),
        )

    def refreshed(
        step: jax.Array, statistics: Factors, basis: Factors, kept: PyTree, failures: jax.Array
    ) -> tuple[Factors, PyTree, jax.Array]:
        matrices, structure = jax.tree.flatten(statistics)
        turn = functools.partial(turned_basis, step == bases.start, bases.method, working)
        found, failures = recompute(
            turn, bases.batch_size, failures, matrices, jax.tree.leaves(basis)
        )
        new, places, _ = (structure.unflatten([each[i] for each in found]) for i in range(3))
        moved = [
            carried_over(state, basis, new, places, each)
            for state, each in zip(kept, (rotated, ()), strict=True)
        ]
        return new, tuple(moved), failures

    def measured(updates: Stacks, basis: Factors, state: PyTree) -> tuple[Factors, PyTree, PyTree]:
        """The statistics, and the states of what made them and of the eigenvalues."""
        if values is None:
            return *statistic.update(second_moments(updates), state), ()
        last = emitted_last(values, state["values"])
        moments, squares = whitened_moments(updates, basis, last)
        statistics, moments_state = statistic.update(moments, state["moments"])
        return statistics, moments_state, values.update(squares, state["values"])[1]

    def update(
        updates: Stacks, state: EigenbasisState, params: PyTree = None, **extra_args: Any
    ) -> tuple[Stacks, EigenbasisState]:
        step = increment(state.step)
        updates = without_nonfinite(updates)
        statistics, statistic_state, new_values = measured(updates, state.basis, state.statistic)

        def refresh(turned_state: PyTree) -> tuple[Factors, PyTree, jax.Array]:
            return jax.lax.cond(
                is_due(step, bases.start, bases.every),
                refreshed,
                lambda step, statistics, *kept: kept,
                step,
                jax.lax.stop_gradient(statistics),
                state.basis,
                (turned_state, new_values),
                state.failures,
            )

        basis, turned_state, failures = state.basis, state.magnitude, state.failures
        known = state.statistic["values"] if values is not None else ()
        if not bases.stale:
            basis, (turned_state, new_values), failures = refresh(turned_state)
            known = new_values
        if values is not None:
            eigenvalues = products(emitted_last(values, known), updates)
            extra_args = {**extra_args, "eigenvalues": eigenvalues}
        means_now, means_state = means.update(updates, state.direction, params, **extra_args)
        if merge is None:
            turned = multiply_axes(basis, means_now, transposed=True)
            turned, turned_state = inner.update(turned, turned_state, **extra_args)
        else:
            turned = multiply_axes(basis, updates, transposed=True)
            sizes, turned_state = inner.update(turned, turned_state, **extra_args)
            turned_means = multiply_axes(basis, means_now, transposed=True)
            turned = {name: merge(turned_means[name], sizes[name]) for name in updates}
        updates = multiply_axes(basis, turned)
        if bases.stale:
            basis, (turned_state, new_values), failures = refresh(turned_state)
        if values is not None:
            statistic_state = {"moments": statistic_state, "values": new_values}
        return updates, EigenbasisState(
            step, failures, means_state, turned_state, statistic_state, basis
        )

    layout = holding(
        EigenbasisState,
        direction=means,
        magnitude=inner,
        statistic=statistic if values is None else {"moments": statistic, "values": values},
    )
    return GradientTransformation(init, update, layout)


@formula_of(in_eigenbasis)
def _(
    u: Expression, reader: Reader, inner: GradientTransformation, statistic: GradientTransformation,
    bases: Bases, direction: GradientTransformation | None, merge: Any,
    values: GradientTransformation | None,
) -> Expression:  # fmt: skip
    u = reader.atom(u)
    mean = u if direction is None else reader.read(direction, u)
    seconds = statistics_of_sides(reader, u, statistic, whitened=values is not None)
    sides = []
    for side, second in zip("LR", seconds, strict=True):
        second = shifted(second, t - 1) if bases.stale else second
        basis = Symbol("Q", side, time=t)
        sides.append(reader.define((basis,), apply("eigenvectors", second)))
    left, right = sides

    def turned(letter: str, value: Expression) -> Symbol:
        symbol = Symbol(letter, time=t).accented("tilde")
        return reader.define((symbol,), left.T * value * right)

    if merge is None:
        return left * reader.read(inner, turned("g" if mean == u else "m", mean)) * right.T
    gradient = turned("g", u)
    with reader.branch("nu"):
        size = reader.read(inner, gradient)
    return left * result(merge, merge, turned("m", mean), size) * right.T
