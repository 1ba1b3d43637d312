"""The link under SOAP: magnitudes in the eigenbasis of what gradients are along each axis."""

from __future__ import annotations

import functools
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from ...core.calls.kinds import FloatDType, PositiveCount, one_of
from ...core.calls.options import Options
from ...core.calls.types import TransformationLike
from ...core.factory import transformation
from ...core.numbers.numerics import increment
from ...core.transformation import GradientTransformation
from ...core.trees.layout import holding
from ...core.trees.short import in_short
from ...core.trees.tree import PyTree, scalar_like, statistic_like
from ...formula import (
    Expression,
    Reader,
    Symbol,
    apply,
    formula_of,
    shifted,
    statistics_of_sides,
    t,
)
from ...linalg.batches import recompute
from ...linalg.eigenvectors import turned_basis
from ...linalg.roots import checked_dtype
from .blocks import Stacks, order
from .statistics import (
    Factors,
    is_due,
    multiply_axes,
    second_moments,
    square_matrices,
    without_nonfinite,
)


@in_short
class EigenbasisState(NamedTuple):
    """State of a magnitude in an eigenbasis: updates done, bases that failed, the states of its
    direction, of its magnitude and of its statistic, and the basis, eigenvectors as columns."""

    step: jax.Array
    failures: jax.Array
    direction: PyTree
    magnitude: PyTree
    statistic: PyTree
    basis: Factors


class Bases(Options):
    """When and how eigenvectors of second moments are found.

    Args:
        every: how many steps apart the basis is turned.
        start: the first step that does, counted from 1. Before it the basis is the identity.
        stale: whether a step uses the basis as it was before it, as the paper of SOAP does: no
            gradient is then measured in a basis of its own.
        method: `"qr"`, an eigendecomposition at first and later a step of orthogonal iteration from
            the old basis; or `"eigh"`, an eigendecomposition every time.
        batch_size: about how many bases are computed at a time; on a CPU, one.
        dtype: in which bases are computed; None is that of the statistic.

    >>> import gdtx
    >>> gdtx.soap(0.1, bases=gdtx.Bases(every=20)) == gdtx.soap(0.1).replace(**{"bases.every": 20})
    True
    """

    every: PositiveCount = 10
    start: PositiveCount = 1
    stale: bool = True
    method: Annotated[str, one_of("qr", "eigh")] = "qr"
    batch_size: PositiveCount = 64
    dtype: FloatDType | None = None


@transformation
def in_eigenbasis(
    direction: TransformationLike,
    magnitude: TransformationLike,
    statistic: TransformationLike,
    bases: Bases = Bases(),
) -> GradientTransformation:
    r"""Divide by a magnitude in the eigenbasis of second moments, and turn back.

    $$u_t = Q\,\frac{Q^\top m_t}{\mathrm{magnitude}(Q^\top g_t)},$$

    where $Q$ and $Q^\top$ act along every axis of a block, with the eigenvectors of the `statistic`
    of $G_{(i)} G_{(i)}^\top$, the gradient unfolded along axis $i$, and $m$ is the `direction` of
    the gradients, which is kept as they are, not turned. For what :func:`blockwise` hands on.

    Eigenvectors are found at the steps `bases.start`, `bases.start + bases.every`, ... in a
    conditional, the largest eigenvalue first: at the first of them by an eigendecomposition, later
    by a step of orthogonal iteration from the old ones, which are sorted before by what their
    eigenvalues are now; every buffer of the magnitude is sorted with them. A basis that is not
    finite is not taken: the last good one stays, the identity at first, and is counted. Blocks of
    the gradient whose sum of squares is not finite count as zero. For derivatives the basis is a
    constant.

    Args:
        direction: transformation of the gradient to what is divided.
        magnitude: transformation of the turned gradient to what divides, with every number by
            itself, such as the root of an average of squares.
        statistic: transformation of second moments to what has the eigenvectors.
        bases: when and how eigenvectors are found, see :class:`Bases`.

    Returns:
        A transformation whose state holds two matrices for each axis of a block.

    Raises:
        ValueError: if float64 is asked for where 64-bit types are not enabled.

    >>> import gdtx, jax.numpy as jnp
    >>> size = gdtx.chain(gdtx.square(), gdtx.ema(0.0), gdtx.sqrt(), gdtx.add(1e-3))
    >>> tx = gdtx.blockwise(gdtx.in_eigenbasis(gdtx.identity(), size, gdtx.ema(0.9)))
    >>> g = jnp.array([[1.0, 2.0], [2.0, 1.0]])
    >>> _, state = tx.update(g, tx.init(g))
    >>> u, _ = tx.update(jnp.array([[5.0, 1.0], [1.0, 5.0]]), state)  # the same eigenvectors
    >>> jnp.linalg.eigvalsh(u).round(2)
    Array([1., 1.], dtype=float32)
    """
    working = checked_dtype("in_eigenbasis", bases.dtype)

    def init(params: Stacks) -> EigenbasisState:
        return EigenbasisState(
            scalar_like(params, 0, jnp.int32),
            statistic_like(params, 0, jnp.int32),
            direction.init(params),
            magnitude.init(params),
            statistic.init(square_matrices(params, identity=False)),
            square_matrices(params, identity=True),
        )

    def refreshed(
        step: jax.Array, statistics: Factors, basis: Factors, state: PyTree, failures: jax.Array
    ) -> tuple[Factors, PyTree, jax.Array]:
        matrices, structure = jax.tree.flatten(statistics)
        turn = functools.partial(turned_basis, step == bases.start, bases.method, working)
        found, failures = recompute(
            turn, bases.batch_size, failures, matrices, jax.tree.leaves(basis)
        )
        new, places, _ = ([each[i] for each in found] for i in range(3))
        return structure.unflatten(new), _sorted(state, structure.unflatten(places)), failures

    def update(
        updates: Stacks, state: EigenbasisState, params: PyTree = None, **extra_args: Any
    ) -> tuple[Stacks, EigenbasisState]:
        step = increment(state.step)
        updates = without_nonfinite(updates)
        statistics, statistic_state = statistic.update(second_moments(updates), state.statistic)

        def refresh(sizes_state: PyTree) -> tuple[Factors, PyTree, jax.Array]:
            return jax.lax.cond(
                is_due(step, bases.start, bases.every),
                refreshed,
                lambda step, statistics, *kept: kept,
                step,
                jax.lax.stop_gradient(statistics),
                state.basis,
                sizes_state,
                state.failures,
            )

        basis, sizes_state, failures = state.basis, state.magnitude, state.failures
        if not bases.stale:
            basis, sizes_state, failures = refresh(sizes_state)
        means, direction_state = direction.update(updates, state.direction, params, **extra_args)
        turned_updates = multiply_axes(basis, updates, transposed=True)
        sizes, sizes_state = magnitude.update(turned_updates, sizes_state)
        turned_means = multiply_axes(basis, means, transposed=True)
        quotients = {name: turned_means[name] / sizes[name] for name in updates}
        updates = multiply_axes(basis, quotients)
        if bases.stale:
            basis, sizes_state, failures = refresh(sizes_state)
        return updates, EigenbasisState(
            step, failures, direction_state, sizes_state, statistic_state, basis
        )

    parts = {"direction": direction, "magnitude": magnitude, "statistic": statistic}
    return GradientTransformation(init, update, holding(EigenbasisState, **parts))


@formula_of(in_eigenbasis)
def _(
    u: Expression, reader: Reader, direction: GradientTransformation,
    magnitude: GradientTransformation, statistic: GradientTransformation, bases: Bases,
) -> Expression:  # fmt: skip
    u = reader.atom(u)
    mean = reader.read(direction, u)
    sides = []
    for side, second in zip("LR", statistics_of_sides(reader, u, statistic), strict=True):
        second = shifted(second, t - 1) if bases.stale else second
        basis = Symbol("Q", side, time=t)
        sides.append(reader.define((basis,), apply("eigenvectors", second)))
    left, right = sides

    def turned(letter: str, value: Expression) -> Symbol:
        symbol = Symbol(letter, time=t).accented("tilde")
        return reader.define((symbol,), left.T * value * right)

    gradient = turned("g", u)
    with reader.branch("nu"):
        size = reader.read(magnitude, gradient)
    return left * (turned("m", mean) / size) * right.T


def _sorted(state: PyTree, places: dict[str, tuple[jax.Array, ...]]) -> PyTree:
    """Every buffer of blocks in a state, each of its axes in a new order."""

    def take(x: jax.Array, *places: jax.Array) -> jax.Array:
        return x.at[jnp.ix_(*places)].get(mode="promise_in_bounds")

    def sort(path: Any, x: jax.Array) -> jax.Array:
        name = getattr(path[-1], "key", None) if path else None
        if name not in places or x.ndim == 0:
            return x
        of_stack = take
        for _ in range(1 + order(x)):
            of_stack = jax.vmap(of_stack)
        return of_stack(x, *places[name])

    return jax.tree_util.tree_map_with_path(sort, state)
