"""Damping that adapts itself to how well the curvature predicts the loss."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core.calls.kinds import InnerDecay, NonNegative, Positive, StepCount
from ..core.calls.types import TransformationLike
from ..core.errors import fail, summarize
from ..core.factory import transformation
from ..core.numbers.norms import inner_product
from ..core.numbers.numerics import cast, compute_dtype, increment
from ..core.transformation import GradientTransformation
from ..core.trees.apply_updates import apply_updates
from ..core.trees.layout import Held, holding
from ..core.trees.short import in_short
from ..core.trees.tree import PyTree, scalar_like, statistic_like
from ..formula import (
    PARAMETERS,
    Definition,
    Expression,
    Number,
    Reader,
    Symbol,
    apply,
    expression,
    formula_of,
    quotient,
    t,
)
from .curvature import Curvature
from .fisher import fisher_square
from .formulas import fisher_form


@in_short
class LevenbergMarquardtState(NamedTuple):
    """State of adaptive damping: updates done, the damping, the last ratio, and inner's state."""

    step: jax.Array
    damping: jax.Array
    ratio: jax.Array
    inner: PyTree


@transformation
def levenberg_marquardt(
    inner: TransformationLike,
    damping: Positive = 1.0,
    path: str = "damping",
    every: StepCount = 5,
    factor: InnerDecay = 0.95,
    min_damping: NonNegative = 1e-8,
    max_damping: Positive = 1e8,
) -> GradientTransformation:
    r"""Adapt the damping to how well the quadratic model predicts the loss.

    Every $k$ updates, with $u$ the update and $g$ the gradient,

    $$\rho = \frac{f(\theta + u) - f(\theta)}{g^T u + \tfrac12 u^T (F + \lambda I) u}, \quad
    \lambda \leftarrow \begin{cases} \lambda\, \omega^k & \rho > 3/4 \\
    \lambda\, \omega^{-k} & \rho < 1/4 \\ \lambda & \text{else.} \end{cases}$$

    `update` needs the parameters, `curvature=` and `value_fn=`, the loss of this batch as a
    function of the parameters.

    Args:
        inner: transformation of the gradients that has a damping, such as :func:`gdtx.kfac.kfac`.
        damping: $\lambda_0$, the damping at first.
        path: where the damping is in `inner`, such as `"1.damping"`; :func:`hyperparams` shows
            them.
        every: $k$, updates from one comparison to the next.
        factor: $\omega$, what one update counts for in the damping.
        min_damping: the smallest $\lambda$.
        max_damping: the largest $\lambda$.

    Returns:
        A transformation whose state is that of `inner` and three numbers.

    Raises:
        TypeError: if `inner` has no such hyperparameter; from `update`, if an extra argument is
            missing.

    References:
        Martens & Grosse 2015, see :func:`scale_by_kfac`, section 6.5.

    >>> from gdtx import kfac
    >>> tx = kfac.levenberg_marquardt(kfac.kfac(1.0), damping=0.1)
    >>> tx.init({"w": jnp.ones((2, 1))}).damping
    Array(0.1, dtype=float32)
    """

    if path not in inner.paths():
        raise TypeError(
            f"levenberg_marquardt: path must be one of inner, {', '.join(inner.paths())}, got "
            f"{path!r}"
        )

    def init(params: PyTree) -> LevenbergMarquardtState:
        first, ratio = (statistic_like(params, value, jnp.float32) for value in (damping, jnp.nan))
        return LevenbergMarquardtState(
            scalar_like(params, 0, jnp.int32),
            first,
            ratio,
            inner.replace(**{path: first}).init(params),
        )

    def update(
        updates: PyTree,
        state: LevenbergMarquardtState,
        params: PyTree = None,
        *,
        curvature: Curvature | None,
        value_fn: Any,
        **extra_args: Any,
    ) -> tuple[PyTree, LevenbergMarquardtState]:
        if curvature is not None:
            _check_function(value_fn)
        extra_args |= {"curvature": curvature, "value_fn": value_fn}
        tx = inner.replace(**{path: state.damping})
        new, inner_state = tx.update(updates, state.inner, params, **extra_args)
        count = increment(state.step)

        def value_of(params: PyTree) -> jax.Array:
            value = jnp.asarray(value_fn(params))
            return cast(value, compute_dtype(value.dtype))

        def measured(curvature: Curvature) -> tuple[jax.Array, jax.Array]:
            change = value_of(apply_updates(params, new)) - value_of(params)
            square = fisher_square(curvature, new) + state.damping * _dot(new, new)
            ratio = change / (_dot(updates, new) + 0.5 * square)
            power = jnp.where(ratio > 0.75, every, jnp.where(ratio < 0.25, -every, 0))
            # Not a number: the step led where there is no loss.
            power = jnp.where(jnp.isfinite(ratio), power, -every)
            adapted = jnp.clip(state.damping * factor**power, min_damping, max_damping)
            return adapted.astype(jnp.float32), ratio.astype(jnp.float32)

        adapted, ratio = state.damping, state.ratio
        if curvature is not None:
            adapted, ratio = jax.lax.cond(
                count % every == 0, measured, lambda _: (state.damping, state.ratio), curvature
            )
        return new, LevenbergMarquardtState(count, adapted, ratio, inner_state)

    held = Held(inner, lambda state: {path: state.damping})
    return GradientTransformation(init, update, holding(LevenbergMarquardtState, inner=held))


@formula_of(
    levenberg_marquardt, damping=r"\lambda_0", every="k", factor=r"\omega",
    min_damping=r"\lambda_{min}", max_damping=r"\lambda_{max}",
)  # fmt: skip
def _(
    u: Expression, reader: Reader, inner: GradientTransformation, damping: Any, path: str,
    every: Any, factor: Any, min_damping: Any, max_damping: Any,
) -> Expression:  # fmt: skip
    u = reader.atom(u)
    adapted = reader.claim((Symbol(r"\lambda"),), "adapted").at(t)
    last = adapted.at(t - 1)
    step = reader.atom(reader.read(inner.replace(**{path: last}), u))

    def loss(params: Expression) -> Expression:
        return apply("call", Symbol("f"), params)

    change = loss(PARAMETERS + step) - loss(PARAMETERS)
    square = fisher_form(reader, step) + last * apply("norm", step) ** 2
    ratio = reader.define(
        (Symbol(r"\rho", time=t),), change / (apply("inner", u, step) + square / 2)
    )
    good, bad = apply("greater", ratio, quotient(3, 4)), apply("less", ratio, quotient(1, 4))
    power, back = factor ** expression(every), factor ** -expression(every)
    scale = reader.define((Symbol("q", time=t),), apply("cases", power, good, back, bad, 1))
    moved = apply("\\min", apply("\\max", scale * last, min_damping), max_damping)
    moved = apply("cases", moved, apply("divides", every, t), last)
    # Where no number is shown, the first damping is the one at time 0.
    start = expression(damping)
    start = start if isinstance(start, Number) else None
    reader.definitions.append(Definition(adapted, moved, start))
    return step


def _check_function(value_fn: Any) -> None:
    if not callable(value_fn):
        what = "a function of the parameters"
        fail(TypeError, f"value_fn must be {what}, got {summarize(value_fn)}")


def _dot(one: PyTree, other: PyTree) -> jax.Array:
    return inner_product(jax.tree.leaves(one), jax.tree.leaves(other))
