"""The link under PSGD: gradients whitened by factors that are themselves fitted by descent."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...core.calls.kinds import Count, Decay, NonNegative, Positive, PositiveCount, Seed
from ...core.calls.options import Options
from ...core.calls.types import TransformationLike
from ...core.factory import transformation
from ...core.numbers.numerics import increment
from ...core.numbers.values import is_zero
from ...core.transformation import GradientTransformation
from ...core.trees.layout import holding
from ...core.trees.sharding import leading_sharding, sharded_zeros
from ...core.trees.short import in_short
from ...core.trees.tree import PyTree, explicit_sharding, scalar_like, statistic_like
from ...formula import IDENTITY, Definition, Expression, Reader, Symbol, apply, formula_of, t
from ...linalg.whitening import fitted_factor, size_of_moments
from .blocks import Stacks, order
from .kronecker import (
    balanced,
    factored_axes,
    first_factor,
    first_scale,
    moments_of,
    total_of_block,
    where_good,
    whitened,
)
from .statistics import Factors, is_due, without_nonfinite


@in_short
class WhitenState(NamedTuple):
    """State of a whitening: updates done, fits that failed, the state of its direction, and for
    each stack of blocks the factors of its axes and how steep their fit is."""

    step: jax.Array
    failures: jax.Array
    direction: PyTree
    factors: Factors
    smoothness: Factors


class Whitening(Options):
    r"""When and how the factors of a whitening are fitted.

    Args:
        every: how many steps apart they are.
        rate: $\mu$, the share of the longest stable step that is taken.
        decay: $\beta_\ell$, of the estimates of what is stable; nearer to 1, say 0.999, for sparse
            gradients.
        damping: $\delta$, the size of the noise that gradients get for the fit, so that $P$ is at
            most about $1 / \delta$; the constant 0 draws none.
        max_skew: an axis has a matrix if its length times itself is at most that many times the
            numbers of a block, and else a diagonal. 1 is a matrix for the shorter side only, of
            square blocks for both; None is a matrix for all axes, 0 a diagonal for all.
        initial_scale: of the first factors together; None is what whitens the first gradients, the
            largest of the blocks' fourth moments to the power $-1/8$.
        seed: of the noise, an integer or an integer array, see :func:`randomized`.

    >>> import gdtx
    >>> gdtx.psgd(0.1).replace(**{"whitening.every": 5}).arguments["whitening"].every
    5
    """

    every: PositiveCount = 1
    rate: Positive = 0.1
    decay: Decay = 0.9
    damping: NonNegative = 1e-9
    max_skew: Count | None = 1
    initial_scale: Positive | None = None
    seed: Seed = 0


@transformation
def whiten(
    direction: TransformationLike, whitening: Whitening = Whitening()
) -> GradientTransformation:
    r"""Multiply every axis of a block by a matrix under which gradients are white.

    $$u_t = m_t \times_1 P_1 \cdots \times_k P_k, \quad P_i = Q_i^\top Q_i, \quad
    Q_i \leftarrow Q_i - \frac{\mu}{\ell_i}\,(H_{(i)} H_{(i)}^\top - c_i I)\,Q_i,$$

    with $m$ the `direction` of the gradients, $H$ the gradient that the last $P$ have whitened,
    unfolded along axis $i$, and $c_i$ the number of its columns: where $P$ whitens, it is the
    inverse root of the mean of $g g^\top$ in the space of such products. After each such step
    $Q_i$ is rotated toward a symmetric matrix, which leaves $P_i$ as it is, and the factors are
    scaled to equal largest numbers, which leaves their product. $\ell_i$ is a bound on
    $\|H_{(i)} H_{(i)}^\top\| + c_i$ that decays as an average where that falls. For what
    :func:`blockwise` hands on.

    No matrix is inverted or decomposed. Factors are fitted at the steps 1, 1 + `every`, ... in a
    conditional, before they are used; one that is not finite is not taken, and is counted. Axes of
    length 1 have none, unless all are. Blocks of the gradient whose sum of squares is not finite
    count as zero. For derivatives the factors are constants.

    Args:
        direction: transformation of the gradient to what is whitened.
        whitening: when and how factors are fitted, see :class:`Whitening`.

    Returns:
        A transformation whose state holds a matrix or a diagonal, and a number, for each axis of a
        block.

    References:
        Li 2018, Preconditioned Stochastic Gradient Descent, arXiv:1512.04202; Pooladzandi & Li
        2024, Curvature-Informed SGD via General Purpose Lie-Group Preconditioners,
        arXiv:2402.11858. Of the authors' program (psgd_torch) it is `dQ="Q0.5EQ1.5"`, its default
        since 2025. That estimates the norms from one vector, as here, or later from some random
        ones, and balances the factors at one step of a hundred.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.blockwise(gdtx.whiten(gdtx.identity()))
    >>> g = jnp.array([[30.0, 1.0], [0.0, 0.01]])
    >>> state = tx.init(g)
    >>> for _ in range(200):
    ...     u, state = tx.update(g, state)
    >>> jnp.linalg.svd(u, compute_uv=False).round(2)  # numbers of 1 in root mean square
    Array([1.41, 1.41], dtype=float32)
    """
    every, rate, decay = whitening.every, whitening.rate, whitening.decay

    def init(params: Stacks) -> WhitenState:
        def each(f: Any) -> Factors:
            return {
                name: tuple(f(x, axis) for axis in factored_axes(x)) for name, x in params.items()
            }

        def size(x: jax.Array, axis: int) -> Any:
            k = order(x)
            return sharded_zeros(x.shape[: 1 + k], x.dtype, leading_sharding(x, 1 + k, 1 + k), x)

        return WhitenState(
            scalar_like(params, 0, jnp.int32),
            statistic_like(params, 0, jnp.int32),
            direction.init(params),
            each(lambda x, axis: first_factor(x, axis, whitening.max_skew)),
            each(size),
        )

    def noisy(blocks: Stacks, step: jax.Array) -> Stacks:
        if is_zero(whitening.damping):
            return blocks
        now = jax.random.fold_in(jax.random.key(whitening.seed), step)
        keys = {name: jax.random.fold_in(now, i) for i, name in enumerate(blocks)}

        def noise(name: str, x: jax.Array) -> jax.Array:
            place = explicit_sharding(x)
            return jax.random.normal(keys[name], x.shape, x.dtype, out_sharding=place)

        return {name: x + whitening.damping * noise(name, x) for name, x in blocks.items()}

    def fitted(
        step: jax.Array, blocks: Stacks, factors: Factors, sizes: Factors, failures: jax.Array
    ) -> tuple[Factors, Factors, jax.Array]:
        scale = first_scale(blocks, whitening.initial_scale, whitening.damping)
        scale = jnp.where(step == 1, scale, 1.0)
        new_factors, new_sizes = {}, {}
        seen = noisy(blocks, step)
        for name, x in seen.items():
            axes = factored_axes(x)
            old = tuple((q * scale ** (1 / len(axes))).astype(q.dtype) for q in factors[name])
            white = whitened(old, x)
            new, bounds = [], []
            for axis, q, last in zip(axes, old, sizes[name], strict=True):
                moments, columns, is_diagonal = moments_of(white, axis, q)
                size = size_of_moments(moments, is_diagonal) + columns
                bounds.append(jnp.maximum(decay * last + (1 - decay) * size, size))
                new.append(fitted_factor(q, moments, columns, bounds[-1], rate))
            new = balanced(new, order(x))
            is_good = jnp.isfinite(sum(total_of_block(part, 1 + order(x)) for part in new))
            keep = functools.partial(where_good, is_good)
            new_factors[name] = tuple(map(keep, new, old))
            new_sizes[name] = tuple(map(keep, bounds, sizes[name]))
            failures = failures + jnp.sum(~is_good, dtype=failures.dtype)
        return new_factors, new_sizes, failures

    def update(
        updates: Stacks, state: WhitenState, params: PyTree = None, **extra_args: Any
    ) -> tuple[Stacks, WhitenState]:
        step = increment(state.step)
        updates = without_nonfinite(updates)
        factors, sizes, failures = jax.lax.cond(
            is_due(step, 1, every),
            fitted,
            lambda step, blocks, *kept: kept,
            step,
            jax.lax.stop_gradient(updates),
            state.factors,
            state.smoothness,
            state.failures,
        )
        means, direction_state = direction.update(updates, state.direction, params, **extra_args)
        updates = {name: whitened(factors[name], x) for name, x in means.items()}
        return updates, WhitenState(step, failures, direction_state, factors, sizes)

    return GradientTransformation(init, update, holding(WhitenState, direction=direction))


@formula_of(whiten)
def _(
    u: Expression, reader: Reader, direction: GradientTransformation, whitening: Whitening
) -> Expression:
    u = reader.atom(u)
    mean = reader.read(direction, u)
    meaning = (u, whitening)
    q = [reader.claim((Symbol("Q", side, time=t),), (meaning, side)) for side in "LR"]
    size = [reader.claim((Symbol(r"\ell", side, time=t),), (meaning, side)) for side in "LR"]
    n_in, n_out = (Symbol("n", rf"\mathrm{{{side}}}") for side in ("in", "out"))
    p = [each.T * each for each in q]
    past = [each.at(t - 1).T * each.at(t - 1) for each in q]
    white = reader.define((Symbol("h", time=t), Symbol("w", time=t)), past[0] * u * past[1])
    rate, decay = Symbol(r"\mu"), Symbol(r"\beta", r"\ell")
    moments = (white * white.T, n_out), (white.T * white, n_in)
    start = apply("root", Symbol("s")) * IDENTITY
    for factor, bound, (moment, count) in zip(q, size, moments, strict=True):
        now = apply("norm", moment) + count
        last = bound.at(t - 1)
        value = apply("\\max", decay * last + (1 - decay) * now, now)
        reader.definitions.append(Definition(bound, value, 0 * IDENTITY))
        step = rate / bound * (moment - count * IDENTITY) * factor.at(t - 1)
        reader.definitions.append(Definition(factor, factor.at(t - 1) - step, start))
    return p[0] * mean * p[1]
