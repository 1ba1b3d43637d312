"""Full-matrix AdaGrad on the last gradients, by way of their inner products."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...core.calls.kinds import NonNegative, PositiveCount
from ...core.errors import foreign_state
from ...core.factory import transformation
from ...core.numbers.numerics import cast, compute_dtype, real_like
from ...core.rules import checked_result, remembered
from ...core.transformation import GradientTransformation
from ...core.trees.boxes import refilled
from ...core.trees.copies import unlike_params
from ...core.trees.sharding import layered_zeros, replicate
from ...core.trees.short import in_short
from ...core.trees.stacking import stacked_axes
from ...core.trees.tree import PyTree, check_params, scalar_like
from ...formula import MEMORY, Expression, Reader, apply, formula_of, inverse_root, shifted, t
from ...linalg.inverse import inverse_root_times, within_range


@in_short
class WindowState(NamedTuple):
    """State of full-matrix AdaGrad on a window: for each parameter the last gradients and their
    inner products, and which of them is the oldest."""

    gradients: PyTree
    products: PyTree
    oldest: jax.Array


@transformation(whole=True)
def scale_by_window(window: PositiveCount, eps: NonNegative = 1e-7) -> GradientTransformation:
    r"""Multiply by the inverse root of the sum of the last outer products.

    With the last $k$ gradients, all numbers of an array as one vector each, in the columns of
    $M_t$,

    $$u_t = (M_t M_t^\top + \epsilon I)^{-1/2} g_t = M_t (M_t^\top M_t + \epsilon I)^{-1/2} e_t,$$

    where $e_t$ chooses the column of $g_t$: no more than a matrix of $k$ rows has its root taken.
    While $t \le k$ it is :func:`scale_by_full_matrix`, which also says what becomes of gradients
    that are too long; a NaN is forgotten with its gradient.

    Args:
        window: $k$, how many gradients are kept.
        eps: $\epsilon$, inside the root.

    Returns:
        A transformation whose state holds for each array its last gradients and their inner
        products, and one count.

    Raises:
        ValueError: if a hyperparameter is out of its range.

    References:
        Agarwal et al. 2018, Efficient Full-Matrix Adaptive Regularization, arXiv:1806.02958 (GGT,
        which lets gradients fade inside of the window and adds $\epsilon$ to the root).

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_window(10)
    >>> tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))[0].round(3)
    Array([0.6, 0.8], dtype=float32)
    """

    def init(params: PyTree) -> WindowState:
        def zeros(p: jax.Array, n: int) -> jax.Array:
            zero = jnp.zeros_like(p, dtype=compute_dtype(p.dtype))
            return jnp.stack([zero] * window, n)

        def products(p: jax.Array, n: int) -> jax.Array:
            return layered_zeros(p, n, (window, window), compute_dtype(p.dtype))

        both = jax.tree.leaves(params), stacked_axes(params)
        return WindowState(
            refilled(params, map(zeros, *both)),
            refilled(params, map(products, *both)),
            scalar_like(params, 0, jnp.int32),
        )

    def update(
        updates: PyTree, state: WindowState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, WindowState]:
        check_params(updates, params)
        is_new = jnp.arange(window) == state.oldest

        def step(u: jax.Array, gradients: jax.Array, products: jax.Array) -> tuple[jax.Array, ...]:
            if gradients.shape != (window, *u.shape):
                foreign_state(f"{window} gradients of shape {u.shape}", gradients)
            dtype = compute_dtype(u.dtype, gradients.dtype)
            here = is_new.reshape(-1, *[1] * u.ndim)
            latest = within_range(cast(u, dtype), None)
            new = jnp.where(here, latest[None], cast(gradients, dtype))
            # Sums of products, not a matrix product: its axes may be sharded.
            within = tuple(range(1, new.ndim))
            column = jnp.sum(new.conj() * latest[None], within)
            gram = jnp.where(is_new[None, :], column[:, None], cast(products, dtype))
            gram = replicate(jnp.where(is_new[:, None], column.conj()[None, :], gram))
            damped = gram + eps * jnp.eye(window, dtype=dtype)
            weights = inverse_root_times(damped, is_new.astype(dtype))
            out = jnp.sum(new * weights.reshape(here.shape), 0)
            return (
                checked_result(real_like(out, u), u, dtype),
                cast(new, gradients.dtype),
                cast(gram, products.dtype),
            )

        updates, gradients, products = remembered(step, updates, state.gradients, state.products)
        return updates, WindowState(gradients, products, (state.oldest + 1) % window)

    return GradientTransformation(unlike_params(init), update, WindowState)


@formula_of(scale_by_window, eps=r"\epsilon")
def _(u: Expression, reader: Reader, window: int, eps: Any) -> Expression:
    u = reader.atom(u)
    outer = u * u.T
    longer = MEMORY + outer
    recent = longer - shifted(outer, t - window)
    second = apply("cases", recent, apply("greater", t, window), longer)
    return inverse_root(reader.remember(("G",), second, 0), eps) * u
