"""Corrections for the age of an average: its bias and its variance."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core.calls.kinds import Count, Decay, LengthThreshold, StepFunction
from ..core.errors import calling
from ..core.factory import transformation
from ..core.leafwise import of_step
from ..core.memory import counted
from ..core.numbers.numerics import (
    average_length,
    cast,
    compute_dtype,
    final_average_length,
    increment,
    one_minus_power,
    seen_by_rules,
    sqrt,
)
from ..core.rules import each_leaf
from ..core.transformation import GradientTransformation
from ..core.trees.short import in_short
from ..core.trees.tree import PyTree, scalar_like
from ..formula import Expression, Reader, Symbol, apply, formula_of, shifted, t


@transformation
def bias_correction(decay: Decay, ahead: Count = 0) -> GradientTransformation:
    r"""Undo the pull of an average's start at 0: $u_t \leftarrow u_t / (1 - \beta^{t})$.

    Args:
        decay: $\beta$ of the :func:`ema` before it.
        ahead: correct as if that many updates later, $1 - \beta^{t + \mathrm{ahead}}$.

    Returns:
        A transformation whose state is one count.

    Raises:
        ValueError: if `decay` is not in [0, 1).

    References:
        Kingma & Ba 2015, Adam: A Method for Stochastic Optimization, arXiv:1412.6980, section 3.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.bias_correction(0.9)
    >>> tx.update(jnp.array([0.5]), tx.init(jnp.zeros(1)))[0].round(5)
    Array([5.], dtype=float32)
    """

    def at(t: jax.Array) -> Callable[[jax.Array], jax.Array]:
        # As a float, because the largest int32 has no successor.
        remaining = one_minus_power(decay, 1.0 * t + ahead)
        return lambda u: u / remaining

    return counted(at)


@formula_of(bias_correction, decay=r"\beta")
def _(u: Expression, reader: Reader, decay: Any, ahead: int) -> Expression:
    return _corrected(u, reader, 1 - decay ** (t + ahead))


def _corrected(u: Expression, reader: Reader, remaining: Expression) -> Expression:
    if isinstance(u, Symbol) and not u.accent:
        return reader.define((u.accented("hat"),), u / remaining)
    return u / remaining


@in_short
class ProductState(NamedTuple):
    """State of a bias correction whose decay changes: updates done, product of their decays."""

    step: jax.Array
    product: jax.Array


@transformation(leafwise=True)
def scheduled_bias_correction(schedule: StepFunction, ahead: Count = 0) -> GradientTransformation:
    r"""Bias correction with a changing decay: $u_t \leftarrow u_t / (1 - \prod_{i \le t} \mu_i)$.

    Args:
        schedule: function of the number of updates done before that gives the decay, $\mu$.
        ahead: continue the product by that many decays.

    Returns:
        A transformation whose state is the count of steps and the product.

    References:
        Dozat 2016, Incorporating Nesterov Momentum into Adam, ICLR workshop.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scheduled_bias_correction(lambda t: 0.5)
    >>> u, state = tx.update(jnp.array(1.0), tx.init(jnp.zeros(())))
    >>> tx.update(jnp.array(0.75), state)[0]
    Array(1., dtype=float32)
    """

    def init(params: PyTree) -> ProductState:
        dtype = compute_dtype(*(jnp.finfo(p.dtype).dtype for p in jax.tree.leaves(params)))
        return ProductState(scalar_like(params, 0, jnp.int32), scalar_like(params, 1, dtype))

    def products(state: ProductState) -> tuple[ProductState, jax.Array]:
        with calling("schedule"):
            now = seen_by_rules(state.step)
            decay, *later = (schedule(now + i) for i in range(ahead + 1))
        product = cast(state.product * decay, state.product.dtype)
        return ProductState(increment(state.step), product), math.prod(later, start=product)

    def update(
        updates: PyTree, state: ProductState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, ProductState]:
        new, seen = of_step(lambda: products(state))
        leaves, structure = jax.tree.flatten(updates)
        corrected = each_leaf(lambda u: u / (1 - seen), structure, leaves)
        return structure.unflatten(corrected), new

    return GradientTransformation(init, update, ProductState)


@formula_of(scheduled_bias_correction)
def _(u: Expression, reader: Reader, schedule: Any, ahead: int) -> Expression:
    decay = reader.hyperparameters.scheduled((Symbol(r"\mu"),), schedule)
    each = shifted(decay, Symbol("i"))
    return _corrected(u, reader, 1 - apply("prod", each, t + ahead))


@transformation
def rectify(b2: Decay, threshold: LengthThreshold = 4.0) -> GradientTransformation:
    r"""Rectify the variance of an adaptive step, on its denominator.

    $d_t \leftarrow d_t / r_t$ while $\rho_t > \tau$, else 1, with

    $$r_t = \sqrt{\frac{(\rho_t - 4)(\rho_t - 2)\rho_\infty}
                     {(\rho_\infty - 4)(\rho_\infty - 2)\rho_t}}, \quad
    \rho_t = \rho_\infty - \frac{2 t \beta_2^t}{1 - \beta_2^t}, \quad
    \rho_\infty = \frac{2}{1 - \beta_2} - 1.$$

    Args:
        b2: $\beta_2$, the decay of the average in the denominator.
        threshold: $\tau$, shortest equivalent average, in steps, at which the variance counts as
            tractable; at least 4.

    Returns:
        A transformation whose state is one count.

    Raises:
        ValueError: if `b2` is not in [0, 1), or the threshold is below 4.

    References:
        Liu et al. 2020, On the Variance of the Adaptive Learning Rate and Beyond,
        arXiv:1908.03265.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.rectify(0.999)
    >>> tx.update(jnp.array([7.0]), tx.init(jnp.zeros(1)))[0]
    Array([1.], dtype=float32)
    """

    def at(t: jax.Array) -> Callable[[jax.Array], jax.Array]:
        final = final_average_length(b2)
        length = average_length(b2, t)
        tractable = ~(length <= threshold)  # so that a NaN stays visible
        # Below the threshold the root may be imaginary; its value and derivative must not be.
        length = jnp.where(tractable, length, 5.0)
        ratio = (length - 4) * (length - 2) * final / ((final - 4) * (final - 2) * length)
        # 0 where there is none, and asked for as such: compilers copy cheap scalar arithmetic, the
        # comparison above and all before it, into the loop over every array, but not a root.
        rectifier = sqrt(jnp.where(tractable, ratio, 0))
        safe = jnp.where(rectifier == 0, 1, rectifier)
        return lambda d: jnp.where(rectifier == 0, 1, d / safe)

    return counted(at)


@formula_of(rectify, b2=r"\beta_2", plain="threshold")
def _(u: Expression, reader: Reader, b2: Any, threshold: Any) -> Expression:
    rho, final = Symbol(r"\rho", time=t), Symbol(r"\rho", r"\infty")
    final = reader.define((final,), 2 / (1 - b2) - 1)
    rho = reader.define((rho,), final - 2 * t * b2**t / (1 - b2**t))
    ratio = (rho - 4) * (rho - 2) * final / ((final - 4) * (final - 2) * rho)
    rectifier = reader.define((Symbol("r", time=t),), apply("root", ratio))
    return apply("cases", u / rectifier, apply("greater", rho, threshold), 1)
