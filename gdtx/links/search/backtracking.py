"""Along the update to where the function falls enough: Armijo's condition."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...core.calls.kinds import AtLeastOne, Count, InnerDecay, NonNegative, ParamsFunction, Positive
from ...core.factory import transformation
from ...core.transformation import GradientTransformation
from ...core.trees.short import in_short
from ...core.trees.tree import PyTree
from ...formula import Expression, Reader, formula_of
from ...linesearch.backtracking import Armijo, Backtracking, begun, goes_on, judged, proposed
from ...linesearch.conditions import SearchEnd
from .line import begun_state, line, line_formula


@in_short
class BacktrackingLinesearchState(NamedTuple):
    """State of a line search: the last step size, the value where it led, and how the search went:
    evaluations, by how much the condition was missed, and its `SearchEnd`."""

    learning_rate: jax.Array
    value: jax.Array
    num_linesearch_steps: jax.Array
    decrease_error: jax.Array
    end: jax.Array

    def describe(self) -> dict[str, jax.Array]:
        return {
            "step_size": self.learning_rate,
            "search_steps": self.num_linesearch_steps,
            "decrease_error": self.decrease_error,
            "search_end": self.end,
        }


@transformation
def backtracking_linesearch(
    max_backtracking_steps: Count = 20,
    slope_rtol: NonNegative = 1e-4,
    decrease_factor: InnerDecay = 0.8,
    increase_factor: AtLeastOne = 1.5,
    max_learning_rate: Positive = 1.0,
    atol: NonNegative = 0.0,
    rtol: NonNegative = 0.0,
    *,
    project: ParamsFunction | None = None,
) -> GradientTransformation:
    r"""Scale the update so that the function falls enough, by values alone.

    $u \leftarrow \eta u$ with $f(\theta + \eta u) \le f(\theta) + r\,|f(\theta)| + c_1 \eta
    \langle g, u \rangle + a$: $\eta$ is the last step size times a factor, and is made smaller
    until this holds.

    Every `update` needs what that of :func:`zoom_linesearch` does. Where the function is not finite
    the search goes back, and if it never falls enough there is no step: `end` in the state says so
    (:class:`gdtx.states.SearchEnd`).

    Args:
        max_backtracking_steps: how often the step is made smaller at most.
        slope_rtol: $c_1$, share of the first slope by which the function must fall.
        decrease_factor: of a step that does not do.
        increase_factor: of the last step size, for the first try.
        max_learning_rate: the largest $\eta$.
        atol, rtol: $a$ and $r$, by how much the function may rise.
        project: function of the parameters that brings each number between its bounds, for a search
            along the projected path as that of :func:`zoom_linesearch`.

    Returns:
        A transformation whose state is some numbers.

    Raises:
        TypeError: from `update`, if it is called without `value`, `grad` or `value_fn`.
        ValueError: if an argument is out of its range; from `update`, if it is called without the
            parameters.

    References:
        Armijo 1966, Minimization of functions having Lipschitz continuous first partial
        derivatives.

    >>> import gdtx, jax, jax.numpy as jnp
    >>> f = lambda x: jnp.sum(x**2)
    >>> tx = gdtx.chain(gdtx.scale(-1.0), gdtx.backtracking_linesearch(10, decrease_factor=0.5))
    >>> x, g = jnp.array([3.0]), jnp.array([6.0])
    >>> tx.update(g, tx.init(x), x, value=f(x), grad=g, value_fn=f)[0]
    Array([-3.], dtype=float32)
    """
    given = Armijo(slope_rtol, atol, rtol, decrease_factor, max_backtracking_steps)

    def init(params: PyTree) -> BacktrackingLinesearchState:
        return BacktrackingLinesearchState(**begun_state(params))

    def update(
        updates: PyTree,
        state: BacktrackingLinesearchState,
        params: PyTree = None,
        *,
        value: Any,
        grad: PyTree,
        value_fn: Any,
        **extra_args: Any,
    ) -> tuple[PyTree, BacktrackingLinesearchState]:
        along = line(updates, params, value, grad, value_fn, extra_args, project)
        start = along.start
        last = state.learning_rate
        longest = (max_learning_rate + 0 * last).astype(last.dtype)
        first = jnp.where(last > 0, jnp.minimum(increase_factor * last, longest), longest)

        def tried(search: Backtracking) -> Backtracking:
            step = proposed(search, given)
            new, gain = along.value_at(step)
            return judged(search, step, new, gain, start.value, given)

        first = first.astype(start.step.dtype)
        found = jax.lax.while_loop(goes_on, tried, begun(first, start.value, start.slope))
        has_step = found.end == SearchEnd.FOUND
        step = jnp.where(has_step, found.step, 0)
        new = along.moved(step, updates)
        there = jnp.where(has_step, found.value, start.value)
        return new, BacktrackingLinesearchState(
            learning_rate=step.astype(last.dtype),
            value=along.value_after(step, there, new).astype(state.value.dtype),
            num_linesearch_steps=found.tried,
            decrease_error=found.error.astype(state.decrease_error.dtype),
            end=found.end,
        )

    return GradientTransformation(init, update, BacktrackingLinesearchState)


@formula_of(backtracking_linesearch, slope_rtol="c_1")
def _(u: Expression, reader: Reader, project: Any) -> Expression:
    return line_formula(reader, u, "Armijo", project)
