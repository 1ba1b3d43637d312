"""Makers: a rule on one array becomes a transformation of trees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ._errors import LeafError, fail
from ._kinds import FloatDType, Function
from ._numerics import cast, compute_dtype, increment, narrow
from ._transformation import GradientTransformation, check_state, foreign_state, transformation
from ._tree import PyTree, check_shapes, leaf_path, leaves_as, scalar_like


class RecurState(NamedTuple):
    """State of a rule that remembers: each buffer is a tree like the parameters."""

    buffers: dict[str, PyTree]


class CountState(NamedTuple):
    """State of a rule that depends on the step: the number of updates done."""

    step: jax.Array


@transformation
def elementwise(f: Function) -> GradientTransformation:
    r"""Apply a function to every array of the updates: $u \leftarrow f(u)$.

    The function sees at least float32.

    Args:
        f: function of one array that returns one of the same shape.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.elementwise(jnp.tanh)
    >>> tx.update(jnp.array([0.0, 100.0]), tx.init(jnp.zeros(2)))
    (Array([0., 1.], dtype=float32), ())
    """
    return _stateless(lambda leaves, params, structure: each_leaf(f, structure, leaves))


@transformation
def with_params(f: Function) -> GradientTransformation:
    r"""Apply a function of update and parameter to every array: $u \leftarrow f(u, \theta)$.

    Args:
        f: function of the update and the parameter, arrays of one shape, that returns the new
            update.

    Raises:
        ValueError: from `update`, if it is called without the parameters.

    >>> import gdtx, jax.numpy as jnp
    >>> decay = gdtx.with_params(lambda u, p: u + 0.1 * p)
    >>> decay.update(jnp.array([1.0]), (), jnp.array([20.0]))
    (Array([3.], dtype=float32), ())
    """

    def rule(leaves: list[Any], params: PyTree, structure: Any) -> list[Any]:
        if params is None:
            fail(ValueError, "needs the parameters: call update(updates, state, params)")
        return each_leaf(f, structure, leaves, leaves_as(structure, params, "params", "updates"))

    return _stateless(rule)


@transformation
def treewise(f: Function) -> GradientTransformation:
    r"""Apply a function to the whole tree of updates.

    Args:
        f: function of the updates that returns a tree of the same structure.

    >>> import gdtx, jax, jax.numpy as jnp
    >>> unit = gdtx.treewise(lambda u: jax.tree.map(lambda x: x / gdtx.global_norm(u), u))
    >>> unit.update({"a": jnp.array(3.0), "b": jnp.array(4.0)}, ())[0]["b"]
    Array(0.8, dtype=float32)
    """

    def rule(leaves: list[Any], params: PyTree, structure: Any) -> list[Any]:
        return leaves_as(structure, f(structure.unflatten(leaves)), "the result", "updates")

    return _stateless(rule)


@transformation
def recur(
    rule: Function, dtype: FloatDType | None = None, **initial: Any
) -> GradientTransformation:
    r"""A rule that remembers: $(u, a_1, a_2, \dots) \mapsto (u', \{a_1, a_2, \dots\})$.

    Buffers are at least float32, or `dtype`; the rule computes in at least float32.

    Args:
        rule: function of the update and, by name, its buffers; returns the new update and a dict
            of the new buffers.
        dtype: in which buffers are kept; by default the parameter's, at least float32.
        **initial: the buffers' names and first values, each a number or a scalar array.

    Returns:
        A transformation whose state holds one array per buffer and parameter.

    >>> import gdtx, jax.numpy as jnp
    >>> change = gdtx.recur(lambda u, last: (u - last, {"last": u}), last=0.0)
    >>> state = change.init(jnp.zeros(()))
    >>> _, state = change.update(jnp.array(5.0), state)
    >>> change.update(jnp.array(7.0), state)[0]
    Array(2., dtype=float32)
    """

    def init(params: PyTree) -> RecurState:
        def full(value: Any) -> PyTree:
            return jax.tree.map(
                lambda p: jnp.full_like(p, value, dtype=_buffer_dtype(p.dtype, dtype)), params
            )

        return RecurState({name: full(value) for name, value in initial.items()})

    def update(
        updates: PyTree, state: RecurState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, RecurState]:
        check_state(state, RecurState)
        if set(state.buffers) != set(initial):
            foreign_state(f"buffers {sorted(initial)}", state.buffers)
        leaves, structure = jax.tree.flatten(updates)
        buffers = {name: leaves_as(structure, tree, "state", "updates")
                   for name, tree in state.buffers.items()}  # fmt: skip
        for old in buffers.values():
            check_shapes(updates, old, "state")

        def step(u: jax.Array, *old: jax.Array) -> tuple[Any, ...]:
            wide = compute_dtype(u.dtype, *(a.dtype for a in old))
            named = dict(zip(buffers, (cast(a, wide) for a in old), strict=True))
            result, new = rule(cast(u, wide), **named)
            new = [
                jnp.asarray(new[name]).astype(a.dtype) for name, a in zip(buffers, old, strict=True)
            ]
            return narrow(result, wide), *new

        results = each_leaf(step, structure, leaves, *buffers.values(), raw=True)
        columns = list(zip(*results, strict=True)) or [()] * (1 + len(buffers))
        out, *new = map(structure.unflatten, columns)
        return out, RecurState(dict(zip(buffers, new, strict=True)))

    return GradientTransformation(init, update)


@transformation
def accumulate(
    f: Function, initial: Any = 0.0, dtype: FloatDType | None = None, nesterov: bool = False
) -> GradientTransformation:
    r"""Replace the update by a running value: $a_t = f(u_t, a_{t-1})$, emitting $a_t$.

    Args:
        f: function of the update and the buffer that returns the new buffer.
        initial: first value of the buffer, a number or a scalar array.
        dtype: in which the buffer is kept; by default the parameter's, at least float32.
        nesterov: emit $f(u_t, a_t)$ instead: the value after one more such update, looked ahead.

    Returns:
        A transformation whose state holds one buffer per array.

    >>> import gdtx, jax.numpy as jnp
    >>> total = gdtx.accumulate(lambda u, a: a + u)
    >>> u, state = total.update(jnp.array(2.0), total.init(jnp.zeros(())))
    >>> total.update(jnp.array(3.0), state)[0]
    Array(5., dtype=float32)
    """

    def rule(u: jax.Array, value: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        value = f(u, value)
        return f(u, value) if nesterov else value, {"value": value}

    return recur(rule, dtype, value=initial)


@transformation
def counted(f: Function) -> GradientTransformation:
    r"""A rule that changes with the step: $t \leftarrow t + 1$, then $u \leftarrow f(t)(u)$.

    `f` runs once per update, not once per array, so what depends on the step alone is computed
    once.

    Args:
        f: function of the step, an int32 scalar that is 1 on the first update, that returns a
            function of one array.

    Returns:
        A transformation whose state is one count. It stays at the largest int32.

    >>> import gdtx, jax.numpy as jnp
    >>> mean = gdtx.chain(gdtx.running_sum(), gdtx.counted(lambda t: lambda u: u / t))
    >>> u, state = mean.update(jnp.array(2.0), mean.init(jnp.zeros(())))
    >>> mean.update(jnp.array(4.0), state)[0]
    Array(3., dtype=float32)
    """

    def init(params: PyTree) -> CountState:
        return CountState(scalar_like(params, 0, jnp.int32))

    def update(
        updates: PyTree, state: CountState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, CountState]:
        check_state(state, CountState)
        count = increment(state.step)
        leaves, structure = jax.tree.flatten(updates)
        return structure.unflatten(each_leaf(f(count), structure, leaves)), CountState(count)

    return GradientTransformation(init, update)


@transformation
def identity() -> GradientTransformation:
    """Leave the updates as they are.

    >>> import gdtx, jax.numpy as jnp
    >>> gdtx.identity().update(jnp.array(2.0), ())
    (Array(2., dtype=float32, weak_type=True), ())
    """
    return _stateless(lambda leaves, params, structure: leaves)


@transformation
def set_to_zero() -> GradientTransformation:
    """Replace the updates by zeros.

    >>> import gdtx, jax.numpy as jnp
    >>> gdtx.set_to_zero().update(jnp.array([2.0]), ())
    (Array([0.], dtype=float32), ())
    """
    return _stateless(lambda leaves, params, structure: list(map(jnp.zeros_like, leaves)))


def _buffer_dtype(param: Any, asked: str | None) -> Any:
    if asked is None or jnp.issubdtype(param, jnp.complexfloating):
        # There is no narrow complex dtype to ask for.
        return compute_dtype(param)
    return jnp.dtype(asked)


def _stateless(rule: Callable[[list[Any], PyTree, Any], list[Any]]) -> GradientTransformation:
    """A transformation of the leaves that remembers nothing: its state is the empty tuple."""

    def update(
        updates: PyTree, state: tuple[()], params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, tuple[()]]:
        if state != ():
            foreign_state("an empty tuple", state)
        leaves, structure = jax.tree.flatten(updates)
        return structure.unflatten(rule(leaves, params, structure)), ()

    return GradientTransformation(lambda params: (), update)


def each_leaf(
    f: Callable[..., Any], structure: Any, *columns: list[Any], raw: bool = False
) -> list[Any]:
    """`f` on each leaf, in at least float32 unless `raw`; errors of leaves get their path."""
    results = []
    for i, arrays in enumerate(zip(*columns, strict=True)):
        try:
            if raw:
                results.append(f(*arrays))
                continue
            wide = compute_dtype(*(x.dtype for x in arrays))
            results.append(narrow(f(*(cast(x, wide) for x in arrays)), wide))
        except LeafError as error:
            path = leaf_path(structure.unflatten(columns[0]), i)
            fail(TypeError, f"updates{path} {error}")
    return results
