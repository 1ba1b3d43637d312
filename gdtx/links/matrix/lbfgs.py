"""The inverse curvature from the last steps: L-BFGS."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from ...core.calls.kinds import ParamsFunction, PositiveCount
from ...core.factory import transformation
from ...core.numbers.norms import scaled_norm
from ...core.numbers.numerics import cast, compute_dtype, real_like
from ...core.rules import beside
from ...core.transformation import GradientTransformation
from ...core.trees.copies import unlike_params
from ...core.trees.tree import PyTree, leaves_as
from ...formula import (
    IDENTITY,
    PARAMETERS,
    Definition,
    Expression,
    Reader,
    Symbol,
    apply,
    expression,
    formula_of,
    shifted,
    t,
)
from ...linalg.two_loop import restricted, scaled, two_loop
from .pairs import LbfgsState, first_state, kept, with_pair


@transformation
def scale_by_lbfgs(
    memory_size: PositiveCount = 10,
    scale_init_precond: bool = True,
    *,
    project: ParamsFunction | None = None,
) -> GradientTransformation:
    r"""Multiply by an inverse of the curvature that the last steps have seen.

    With $s_t = \theta_{t-1} - \theta_{t-2}$ and $y_t = g_t - g_{t-1}$, all numbers as one vector,
    $\rho_t = 1 / y_t^\top s_t$ and $V_t = I - \rho_t y_t s_t^\top$,

    $$u_t = H_{m,t} g_t, \quad H_{0,t} = \frac{s_t^\top y_t}{y_t^\top y_t} I, \quad H_{i,t} =
    V_j^\top H_{i-1,t} V_j + \rho_j s_j s_j^\top, \quad j = t - m + i,$$

    by the recursion of two loops. On the first update, and where no pair is kept,
    $H_{m,t} = \min(1, 1 / \|g_t\|) I$. A pair is left out unless
    $s^\top y > \varepsilon \|s\| \|y\|$, with the last place of numbers as $\varepsilon$: then $H$
    stays positive definite. If the parameters have not moved, as after a line search that failed,
    all pairs are forgotten.

    A link for the begin of a chain, in front of :func:`zoom_linesearch` or a rate. Complex
    parameters are pairs of real ones. Inside of `shard_map` vectors are the parts of a device.

    Args:
        memory_size: $m$, how many pairs are kept.
        scale_init_precond: whether $H_{0,t}$ is scaled so; else it is $I$, also on the first
            update.
        project: function of the parameters that brings each number between its bounds. Numbers
            that a step of the gradient would bring to theirs, or half way there and more, take that
            step, and $H$ is that of the others.

    Returns:
        A transformation whose state holds $2m + 2$ arrays for each, and some numbers.

    Raises:
        ValueError: if `memory_size` is not positive; from `update`, if it is called without the
            parameters.

    References:
        Nocedal 1980, Updating Quasi-Newton Matrices with Limited Storage; Nocedal & Wright 2006,
        Numerical Optimization, algorithms 7.4 and 7.5. Bounds: Bertsekas 1982, Projected Newton
        Methods for Optimization Problems with Simple Constraints.

    >>> import gdtx, jax, jax.numpy as jnp
    >>> gradient = jax.grad(lambda x: 2 * x[0] ** 2 + x[1] ** 2)
    >>> tx, params = gdtx.scale_by_lbfgs(), jnp.array([1.0, 1.0])
    >>> state = tx.init(params)
    >>> for _ in range(9):
    ...     u, state = tx.update(gradient(params), state, params)
    ...     params = gdtx.apply_updates(params, -u)
    >>> params.round(6)
    Array([0., 0.], dtype=float32)
    """

    def init(params: PyTree) -> LbfgsState:
        return first_state(params, memory_size)

    def update(
        updates: PyTree, state: LbfgsState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, LbfgsState]:
        structure = jax.tree.structure(updates)
        here = [cast(p, compute_dtype(p.dtype)) for p in beside(updates, params)]
        raw = jax.tree.leaves(updates)
        gradient = [cast(u, compute_dtype(u.dtype)) for u in raw]
        state = with_pair(state, structure, here, gradient, memory_size)
        pairs = kept(state, structure, here, memory_size)
        newest = (state.pairs - 1) % memory_size
        size, norm = scaled_norm(gradient)
        has_pair = state.pairs > 0
        # Divided by the gradient's unit: the reciprocal of the longest norm is too small a number.
        shortened = jnp.minimum(1 / size, 1 / jnp.where(norm > 0, norm, 1))
        start = shortened if scale_init_precond else 1 / size
        first = jnp.where(has_pair, state.scale / size, start) if scale_init_precond else start
        near = scaled(gradient, size)
        if project is None:
            new = two_loop(pairs, near, newest, first, size)
        else:
            rate = (first * size).astype(first.dtype)
            free, to_bound = _sides(project, structure, params, gradient, rate)
            there, scale, is_any = restricted(pairs, free, newest)
            if scale_init_precond:
                first = jnp.where(is_any, scale / size, start)
            zero = [jnp.where(f, g, 0) for f, g in zip(free, near, strict=True)]
            new = two_loop(there, zero, newest, first, size)
            new = [jnp.where(f, u, b) for f, u, b in zip(free, new, to_bound, strict=True)]
        new = [real_like(x, u) for x, u in zip(new, raw, strict=True)]
        return structure.unflatten(new), state

    return GradientTransformation(unlike_params(init), update, LbfgsState)


@formula_of(scale_by_lbfgs)
def _(
    u: Expression, reader: Reader, memory_size: int, scale_init_precond: bool, project: Any
) -> Expression:
    u = reader.atom(u)
    step = reader.define((Symbol("s", time=t),), PARAMETERS - shifted(PARAMETERS, t - 1))
    change = reader.define((Symbol("y", time=t),), u - u.at(t - 1))
    size = reader.define((Symbol(r"\rho", time=t),), 1 / (change.T * step))
    factor = reader.define((Symbol("V", time=t),), IDENTITY - size * change * step.T)
    inverse = reader.claim((Symbol("H", time=t),), (u, memory_size))
    first, last, new, whole = (
        replace(inverse, below=below) for below in ("0", "i-1", "i", str(memory_size))
    )
    start: Expression = expression(1)
    if scale_init_precond:
        shortened = apply("\\min", 1, 1 / apply("norm", u))
        curved = (step.T * change) / (change.T * change)
        start = apply("cases", curved, apply("greater", t, 1), shortened)
    reader.definitions.append(Definition(first, start * IDENTITY))
    j = t - memory_size + Symbol("i")
    factor, size, step = (symbol.at(j) for symbol in (factor, size, step))
    built = factor.T * last * factor + size * step * step.T
    reader.definitions.append(Definition(new, built))
    if project is None:
        return whole * u
    rate = reader.claim((Symbol(r"\gamma", time=t),), "the scale of the inverse curvature")
    inside = apply("call", Symbol("P"), PARAMETERS - rate * u)
    free = Symbol(r"\text{of free numbers}")
    return apply("cases", whole * u, free, PARAMETERS - inside)


def _sides(
    project: Any, structure: Any, params: PyTree, gradient: list[jax.Array], rate: jax.Array
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Which numbers are free, and the steps of the others, against the direction of descent."""
    now = jax.tree.leaves(params)
    there = [p - rate.astype(jnp.finfo(g.dtype).dtype) * g for p, g in zip(now, gradient,
                                                                          strict=True)]  # fmt: skip
    there = leaves_as(structure, project(structure.unflatten(there)), "project's result", "params")
    short = [p - x for p, x in zip(now, there, strict=True)]
    whole = [rate.astype(jnp.finfo(g.dtype).dtype) * g for g in gradient]
    free = [~(jnp.abs(s) < 0.5 * jnp.abs(w)) for s, w in zip(short, whole, strict=True)]
    return free, short
