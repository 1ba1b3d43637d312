"""The function along the update: what a line search evaluates, in trees."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...core.errors import calling, fail, summarize
from ...core.numbers.handover import elsewhere, handed_over
from ...core.numbers.norms import finite_inner_product
from ...core.numbers.numerics import cast, compute_dtype, real_like
from ...core.numbers.shards import anywhere, one_for_all
from ...core.rules import beside
from ...core.trees.apply_updates import apply_updates
from ...core.trees.tree import PyTree, leaves_as, real_scalar, statistic_like
from ...formula import PARAMETERS, Expression, Reader, Symbol, apply, t
from ...linesearch.conditions import Point, SearchEnd


def begun_state(params: PyTree) -> dict[str, jax.Array]:
    """What the states of all line searches hold before the first one."""

    def number(value: float) -> jax.Array:
        return statistic_like(params, value, real_dtype(params))

    return {
        "learning_rate": number(1.0),
        "value": number(jnp.inf),
        "num_linesearch_steps": statistic_like(params, 0, jnp.int32),
        "decrease_error": number(jnp.inf),
        "end": statistic_like(params, SearchEnd.NOT_BEGUN, jnp.int32),
    }


class Line(NamedTuple):
    """A function along a direction, from where it and its gradient are known.

    To derivatives the points on it are constants: no derivative goes through a search.
    """

    value_fn: Callable[[PyTree], Any]
    params: PyTree
    direction: PyTree
    gradient: PyTree
    start: Point
    project: Callable[[PyTree], PyTree] | None

    def moved(self, step: jax.Array, direction: PyTree = None) -> PyTree:
        """The update of this step."""
        direction = self.direction if direction is None else direction
        leaves, structure = jax.tree.flatten(direction)
        params = jax.tree.leaves(self.params)
        wide = [cast(d, compute_dtype(d.dtype)) for d in leaves]
        wide = [step.astype(jnp.finfo(d.dtype).dtype) * d for d in wide]
        if self.project is not None:
            there = structure.unflatten(p + d for p, d in zip(params, wide, strict=True))
            there = projected(self.project, there, structure)
            wide = [x - p for x, p in zip(there, params, strict=True)]
        return structure.unflatten(real_like(x, d) for x, d in zip(wide, leaves, strict=True))

    def value_after(self, step: jax.Array, value: jax.Array, update: PyTree) -> jax.Array:
        """The value where the update leads; infinite, as before the first, if it is not known:
        without a step, from a start beyond its bounds to those."""
        if self.project is None:
            return value
        has_moved = [anywhere(jnp.any(u != 0)) for u in jax.tree.leaves(update)]
        is_known = (step > 0) | ~jnp.any(jnp.array(has_moved))
        return jnp.where(is_known, value, jnp.inf)

    def value_at(self, step: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The value there, and what a straight line of the first slope would have gained."""
        update = self.moved(step)
        with calling("value_fn"), elsewhere():
            value = self._checked(self.value_fn(self._there(update)))
        return self._like_start(value), self._gain(step, update)

    def point_at(self, step: jax.Array) -> tuple[Point, PyTree]:
        """The point there, and the gradient."""
        update = self.moved(step)
        with calling("value_fn"), elsewhere():
            value, gradient = jax.value_and_grad(lambda p: self._checked(self.value_fn(p)))(
                self._there(update)
            )
        # The direction in which it grows fastest is conjugate to JAX's gradient.
        gradient = jax.tree.map(jnp.conj, gradient)
        slope = _slope(gradient, self._velocity(step))
        point = Point(step, self._like_start(value), slope, self._gain(step, update))
        return point._replace(slope=self._like_start(slope)), gradient

    def _there(self, update: PyTree) -> PyTree:
        """The parameters as they will be: the update is rounded as what leaves gdtx is."""
        return apply_updates(self.params, handed_over(update, self.params))

    def _gain(self, step: jax.Array, update: PyTree) -> jax.Array:
        gain = step * self.start.slope if self.project is None else _slope(self.gradient, update)
        return self._like_start(gain)

    def _velocity(self, step: jax.Array) -> PyTree:
        """The direction without the numbers that are at their bounds there."""
        if self.project is None:
            return self.direction
        return _unbound(self.project, self.params, self.direction, step)

    def _checked(self, value: Any) -> jax.Array:
        if jnp.shape(value) != () or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
            fail(TypeError, f"value_fn must return a real scalar, got {summarize(value)}")
        return one_for_all("value_fn's result", jnp.asarray(value))

    def _like_start(self, x: jax.Array) -> jax.Array:
        # Varying as the start does, where a function of no parameters would be constant.
        return x.astype(self.start.value.dtype) + 0 * self.start.step


def line(
    updates: PyTree,
    params: PyTree,
    value: Any,
    grad: PyTree,
    value_fn: Any,
    extra_args: Mapping[str, Any],
    project: Callable[[PyTree], PyTree] | None,
) -> Line:
    """The line of these arguments of an update."""
    structure = jax.tree.structure(updates)
    beside(updates, params)
    leaves_as(structure, grad, "grad", "updates")
    if not callable(value_fn):
        fail(TypeError, f"value_fn must be a function of the parameters, got {summarize(value_fn)}")
    updates, params, grad, value = jax.lax.stop_gradient(
        (updates, params, grad, real_scalar("value", value))
    )
    zero = statistic_like(params, 0, real_dtype(params))
    direction = updates
    if project is not None:
        direction = _unbound(project, params, updates, zero + 1, moved=True)
    slope = _slope(grad, direction).astype(zero.dtype) + zero
    start = Point(zero, value.astype(zero.dtype) + zero, slope, zero)
    return Line(_with_arguments(value_fn, extra_args), params, updates, grad, start, project)


def real_dtype(params: PyTree) -> Any:
    """That of values and steps: real, of all parameters the widest, and at least float32."""
    return jnp.finfo(compute_dtype(*(p.dtype for p in jax.tree.leaves(params)))).dtype


def projected(project: Callable[[PyTree], PyTree], params: PyTree, structure: Any) -> list[Any]:
    with calling("project"), elsewhere():
        return leaves_as(structure, project(params), "project's result", "params")


def _with_arguments(value_fn: Any, extra_args: Mapping[str, Any]) -> Callable[[PyTree], Any]:
    """The function of the parameters alone, given what it names of the extra arguments."""
    names = list(inspect.signature(value_fn).parameters)[1:]
    known = {name: extra_args[name] for name in names if name in extra_args}
    return lambda params: value_fn(params, **known)


def _slope(gradient: PyTree, direction: PyTree) -> jax.Array:
    return finite_inner_product(jax.tree.leaves(gradient), jax.tree.leaves(direction))


def _unbound(
    project: Callable[[PyTree], PyTree],
    params: PyTree,
    direction: PyTree,
    step: jax.Array,
    moved: bool = False,
) -> PyTree:
    """The direction, 0 where a number is beyond its bound at this step; with `moved`, where it does
    not move on the way to it."""
    leaves, structure = jax.tree.flatten(direction)
    start = jax.tree.leaves(params)
    there = [p + step.astype(jnp.finfo(d.dtype).dtype) * d for p, d in zip(start, leaves,
                                                                          strict=True)]  # fmt: skip
    inside = projected(project, structure.unflatten(there), structure)
    kept = [x != p for x, p in zip(inside, start, strict=True)] if moved else [
        x == y for x, y in zip(inside, there, strict=True)
    ]  # fmt: skip
    return structure.unflatten(jnp.where(k, d, 0) for k, d in zip(kept, leaves, strict=True))


def line_formula(reader: Reader, u: Expression, condition: str, project: Any) -> Expression:
    """The update as far as the search for this condition goes, whose step size has no formula."""
    u = reader.step(u)
    found = apply(condition, Symbol("f"), PARAMETERS, u)
    size = reader.define((Symbol(r"\eta", time=t), Symbol(r"\alpha", time=t)), found)
    if project is None:
        return size * u
    return apply("call", Symbol("P"), PARAMETERS + size * u) - PARAMETERS
