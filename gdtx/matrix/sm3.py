"""SM3: AdaGrad with one number for each row and each column."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._boxes import refilled
from .._combine import chain, divide, join
from .._copies import unlike_params
from .._errors import LeafError, check_state, foreign_state
from .._kinds import Decay, Fraction, NonNegative, is_array
from .._numerics import cast, compute_dtype
from .._rules import checked_result, identity, walk
from .._transformation import GradientTransformation, transformation
from .._tree import PyTree, check_params
from ..links.arithmetic import scale_by_learning_rate, square
from ..links.fraction import root
from ..links.moments import ema


class CoverState(NamedTuple):
    """State of a cover: for each parameter a tuple of bounds, an array along each of its axes."""

    bounds: PyTree


@transformation
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
        def zero(p: jax.Array) -> tuple[jax.Array, ...]:
            return _bounds(jnp.zeros_like(p.real, dtype=compute_dtype(p.real.dtype)))

        return CoverState(refilled(params, map(zero, jax.tree.leaves(params))))

    def update(
        updates: PyTree, state: CoverState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, CoverState]:
        check_state(state, CoverState)
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
        results = walk(step, structure, leaves, bounds)
        out, new = zip(*results, strict=True) if results else ((), ())
        return structure.unflatten(out), CoverState(kept.unflatten(new))

    return GradientTransformation(unlike_params(init), update)


def _bounds(s: jax.Array) -> tuple[jax.Array, ...]:
    """The largest of the non-negative numbers across each axis, shaped to broadcast."""
    if s.ndim == 0:
        return (s,)
    axes = range(s.ndim)
    return tuple(
        jnp.max(s, tuple(j for j in axes if j != i), keepdims=True, initial=0) for i in axes
    )


@transformation
def scale_by_sm3(*, b2: Fraction = 1.0, eps: NonNegative = 1e-8) -> GradientTransformation:
    r"""Divide by the root of a bound on the sum of squares so far.

    $s_t = \operatorname{cover}(s_{t-1}) + g_t^2$, $u_t = g_t / \sqrt{s_t + \epsilon}$, with
    the bound of :func:`running_cover`.

    Args:
        b2: $\beta_2$, the decay of the sum; 1 is the paper's.
        eps: $\epsilon$, inside the root, where the paper lets 0 / 0 be 0.

    Returns:
        A transformation whose state holds for each array as many numbers as the sum of its
        dimensions. Complex updates: $|g|^2$.

    Raises:
        ValueError: if a hyperparameter is out of its range.

    References:
        Anil, Gupta, Koren & Singer 2019, Memory-Efficient Adaptive Optimization,
        arXiv:1901.11150, algorithm SM3-II.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_sm3(eps=0.0)
    >>> tx.update(jnp.array([-3.0]), tx.init(jnp.zeros(1)))[0]
    Array([-1.], dtype=float32)
    """
    accumulated = chain(square(), running_cover(b2), root(0.0, eps))
    return join(divide, g=identity(), nu=accumulated)


@transformation
def sm3(
    learning_rate: NonNegative,
    momentum: Decay | None = 0.9,
    b2: Fraction = 1.0,
    eps: NonNegative = 1e-8,
) -> GradientTransformation:
    r"""SM3, AdaGrad in little memory.

    $\theta_t = \theta_{t-1} - \eta\,m_t$ with $m_t$ the average of $g_t / \sqrt{s_t + \epsilon}$.

    :func:`scale_by_sm3`, :func:`ema` and :func:`scale_by_learning_rate`.

    Args:
        learning_rate: $\eta$, as in :func:`scale_by_learning_rate`.
        momentum: decay of the average, as in :func:`ema`; None keeps no buffer for it, and then
            all memory is that of :func:`scale_by_sm3`.
        b2, eps: as in :func:`scale_by_sm3`.

    Returns:
        A transformation whose state holds one buffer per array with momentum, and what
        :func:`scale_by_sm3` holds.

    Raises:
        ValueError: if a hyperparameter is out of its range.

    References:
        Anil et al. 2019, see :func:`scale_by_sm3`.

    >>> import gdtx, jax, jax.numpy as jnp
    >>> tx = gdtx.sm3(0.1, momentum=None)
    >>> sum(x.size for x in jax.tree.leaves(tx.init(jnp.zeros((300, 200)))))
    500
    """
    links = (
        [scale_by_sm3(b2=b2, eps=eps)]
        if momentum is None
        else [scale_by_sm3(b2=b2, eps=eps), ema(momentum)]
    )
    return chain(*links, scale_by_learning_rate(learning_rate))
