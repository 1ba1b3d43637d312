"""A bound on how fast updates grow."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..core.calls.kinds import AtLeastOne
from ..core.factory import transformation
from ..core.memory import RecurState
from ..core.numbers import norms as _norms
from ..core.numbers.numerics import cast, compute_dtype
from ..core.rules import remembered
from ..core.transformation import GradientTransformation
from ..core.trees.boxes import refilled
from ..core.trees.copies import unlike_params
from ..core.trees.layout import holding
from ..core.trees.sharding import layered_zeros
from ..core.trees.stacking import stacked_axes
from ..core.trees.tree import PyTree, check_params
from ..formula import Definition, Expression, Reader, Symbol, apply, formula_of, t


@transformation
def clip_by_growth(max_growth: AtLeastOne = 1.01) -> GradientTransformation:
    r"""Shorten each array to little more than its last length.

    $y_t = u_t \min(1, \gamma\,\|y_{t-1}\| / \|u_t\|)$, and $y_t = u_t$ on the first update and
    where $y_{t-1}$ is 0. The norms are those of one array each.

    Args:
        max_growth: $\gamma$, longest of an update relative to the one emitted before it.

    Returns:
        A transformation whose state holds one number per array.

    Raises:
        ValueError: if `max_growth` is below 1.

    References:
        Chen et al. 2024, Fira: Can We Achieve Full-rank Training of LLMs Under Low-rank
        Constraint?, arXiv:2410.01390, equation 10.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.clip_by_growth(1.5)
    >>> u, state = tx.update(jnp.array([2.0]), tx.init(jnp.zeros(1)))
    >>> u, tx.update(jnp.array([8.0]), state)[0]
    (Array([2.], dtype=float32), Array([3.], dtype=float32))
    """

    def init(params: PyTree) -> RecurState:
        def zero(p: jax.Array, n: int) -> jax.Array:
            return layered_zeros(p, n, (), jnp.finfo(compute_dtype(p.dtype)).dtype)

        both = jax.tree.leaves(params), stacked_axes(params)
        return RecurState({"norm": refilled(params, map(zero, *both))})

    def rule(u: jax.Array, last: jax.Array) -> tuple[jax.Array, jax.Array]:
        power, scaled = _norms.scaled_norm([u])
        is_free = last == 0
        bound = max_growth * jnp.where(is_free, 1, last)
        shorter = _norms.shortened(u, power, scaled, bound)
        new = jnp.where(is_free, cast(u, shorter.dtype), shorter)
        norm = _norms.unscaled(power, scaled)
        norm = jnp.where(is_free, norm, jnp.minimum(norm, bound))
        return new, cast(norm, last.dtype)

    def update(
        updates: PyTree, state: RecurState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, RecurState]:
        check_params(updates, params)
        updates, norms = remembered(rule, updates, state.buffers["norm"])
        return updates, RecurState({"norm": norms})

    layout = holding(RecurState, buffers={"norm": None})
    return GradientTransformation(unlike_params(init), update, layout)


@formula_of(clip_by_growth, max_growth=r"\gamma")
def _(u: Expression, reader: Reader, max_growth: Any) -> Expression:
    u = reader.atom(u)
    out = reader.claim(tuple(Symbol(letter, time=t) for letter in "yxz"), (clip_by_growth, u))
    shorter = u * apply("\\min", 1, max_growth * apply("norm", out.at(t - 1)) / apply("norm", u))
    reader.definitions.append(Definition(out, apply("cases", shorter, apply("greater", t, 1), u)))
    return out
