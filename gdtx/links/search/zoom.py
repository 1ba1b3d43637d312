"""Along the update to where the function falls enough and is flat enough: Wolfe's conditions."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from ...core.calls.kinds import (
    AtLeastOne,
    Bound,
    NonNegative,
    ParamsFunction,
    Positive,
    PositiveCount,
    one_of,
)
from ...core.factory import transformation
from ...core.transformation import GradientTransformation
from ...core.trees.short import in_short
from ...core.trees.tree import PyTree, statistic_like
from ...formula import Expression, Reader, formula_of
from ...linesearch.conditions import Tolerances
from ...linesearch.zoom import Limits, Zoom, begun, goes_on, narrowed, proposed
from .line import Line, begun_state, line, line_formula, real_dtype


@in_short
class ZoomLinesearchState(NamedTuple):
    """State of a line search: the last step size, value and gradient where it led, and how the
    search went: evaluations, by how much the conditions were missed, and its `SearchEnd`."""

    learning_rate: jax.Array
    value: jax.Array
    grad: PyTree
    num_linesearch_steps: jax.Array
    decrease_error: jax.Array
    curvature_error: jax.Array
    end: jax.Array

    def describe(self) -> dict[str, jax.Array]:
        return {
            "step_size": self.learning_rate,
            "search_steps": self.num_linesearch_steps,
            "decrease_error": self.decrease_error,
            "curvature_error": self.curvature_error,
            "search_end": self.end,
        }


@transformation
def zoom_linesearch(
    max_linesearch_steps: PositiveCount = 20,
    max_learning_rate: Positive | None = None,
    tol: NonNegative = 0.0,
    increase_factor: AtLeastOne = 2.0,
    slope_rtol: NonNegative = 1e-4,
    curv_rtol: Bound = 0.9,
    approx_dec_rtol: NonNegative | None = 1e-6,
    stepsize_precision: NonNegative = 1e-5,
    initial_guess_strategy: Annotated[str, one_of("one", "keep")] = "keep",
    *,
    project: ParamsFunction | None = None,
) -> GradientTransformation:
    r"""Scale the update so that the function falls enough, and is flat enough there.

    $u \leftarrow \eta u$ with $f(\theta + \eta u) \le f(\theta) + c_1 \eta \langle g, u \rangle$
    and $|\langle \nabla f(\theta + \eta u), u \rangle| \le c_2 |\langle g, u \rangle|$. Near a
    minimum, where differences of values are rounding errors, slopes decide in place of the first:
    $\langle \nabla f(\theta + \eta u), u \rangle \le (2 c_1 - 1) \langle g, u \rangle$, if the
    value is not above $f(\theta) + c_3 |f(\theta)|$.

    Every `update` needs the parameters and `value=`, `grad=` and `value_fn=`: the function, its
    gradient here, and the function of the parameters. Other extra arguments that `value_fn` names
    are given to it. A link for the end of a chain, after the change of sign. Where the function is
    not finite the search goes back. Without a point at which it falls enough there is no step:
    `end` in the state says so (:class:`gdtx.states.SearchEnd`). `value` and `grad` there are those
    of the next point: :func:`value_and_grad_from_state` saves their evaluation. Call `update` in a
    jitted step: outside of one, a new function is a new program.

    Args:
        max_linesearch_steps: evaluations of value and gradient at most.
        max_learning_rate: the largest $\eta$.
        tol: what is added on the right of the conditions.
        increase_factor: from one try to the next while the function still falls.
        slope_rtol: $c_1$, share of the first slope by which the function must fall.
        curv_rtol: $c_2$, share of the first slope that may be left; infinite, it is not asked for.
        approx_dec_rtol: $c_3$, what counts as the same value; None never asks for slopes in place
            of values.
        stepsize_precision: an interval that is as short is not searched on, if the function falls
            enough at some point of it.
        initial_guess_strategy: `"one"` begins at $\eta = 1$, right for Newton's method and its
            kin; `"keep"` at the last step size.
        project: function of the parameters that brings each number between its bounds. What is
            searched then is $u \leftarrow P(\theta + \eta u) - \theta$, from a $\theta$ between
            its bounds.

    Returns:
        A transformation whose state holds one gradient, and some numbers.

    Raises:
        TypeError: from `update`, if it is called without `value`, `grad` or `value_fn`.
        ValueError: if an argument is out of its range; from `update`, if it is called without the
            parameters.

    References:
        Nocedal & Wright 2006, Numerical Optimization, algorithms 3.5 and 3.6; Hager & Zhang 2006,
        Algorithm 851: CG_DESCENT.

    >>> import gdtx, jax, jax.numpy as jnp
    >>> f = lambda x: jnp.sum(x**2)
    >>> tx, x = gdtx.chain(gdtx.scale(-1.0), gdtx.zoom_linesearch()), jnp.array([3.0])
    >>> g = jax.grad(f)(x)
    >>> u, state = tx.update(g, tx.init(x), x, value=f(x), grad=g, value_fn=f)
    >>> u, state[1].num_linesearch_steps
    (Array([-3.], dtype=float32), Array(2, dtype=int32))
    """
    given = Tolerances(slope_rtol, curv_rtol, approx_dec_rtol, tol)

    def init(params: PyTree) -> ZoomLinesearchState:
        return ZoomLinesearchState(
            grad=jax.tree.map(jnp.zeros_like, params),
            curvature_error=statistic_like(params, jnp.inf, real_dtype(params)),
            **begun_state(params),
        )

    def update(
        updates: PyTree,
        state: ZoomLinesearchState,
        params: PyTree = None,
        *,
        value: Any,
        grad: PyTree,
        value_fn: Any,
        **extra_args: Any,
    ) -> tuple[PyTree, ZoomLinesearchState]:
        along = line(updates, params, value, grad, value_fn, extra_args, project)
        last = state.learning_rate
        first = jnp.where(last > 0, last, 1) if initial_guess_strategy == "keep" else 1 + 0 * last
        limits = Limits(
            first, increase_factor, max_learning_rate, max_linesearch_steps, stepsize_precision
        )
        found, gradient = _searched(along, limits, given)
        step = found.best.step
        new = along.moved(step, updates)
        return new, ZoomLinesearchState(
            learning_rate=step.astype(last.dtype),
            value=along.value_after(step, found.best.value, new).astype(state.value.dtype),
            grad=jax.tree.map(lambda g, old: g.astype(old.dtype), gradient, state.grad),
            num_linesearch_steps=found.tried,
            decrease_error=found.decrease_error.astype(state.decrease_error.dtype),
            curvature_error=found.curvature_error.astype(state.curvature_error.dtype),
            end=found.end,
        )

    return GradientTransformation(init, update, ZoomLinesearchState)


@formula_of(zoom_linesearch, slope_rtol="c_1", curv_rtol="c_2", approx_dec_rtol="c_3")
def _(u: Expression, reader: Reader, project: Any) -> Expression:
    return line_formula(reader, u, "Wolfe", project)


def _searched(along: Line, limits: Limits, given: Tolerances) -> tuple[Zoom, PyTree]:
    """The end of the search, and the gradient at the best point."""

    def seen(carry: tuple[Zoom, PyTree]) -> tuple[Zoom, PyTree]:
        zoom, gradient = carry
        point, there = along.point_at(proposed(zoom, limits))
        zoom, is_best = narrowed(zoom, point, along.start, limits, given)
        return zoom, jax.tree.map(
            lambda new, old: jnp.where(is_best, new.astype(old.dtype), old), there, gradient
        )

    return jax.lax.while_loop(lambda carry: goes_on(carry[0]), seen, (begun(along.start),
                                                                     along.gradient))  # fmt: skip
