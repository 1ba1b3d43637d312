"""Makers with memory: a rule on one array and its buffers, or on the step."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .buffers import first_buffer, stored
from .calls.functions import accepts_arguments, named_by, with_arguments
from .calls.kinds import FloatDType, Function, Scalar, StepFunction, TwoArraysFunction
from .errors import LeafError, calling, fail, summarize
from .factory import transformation
from .leafwise import of_step
from .numbers.numerics import cast, compute_dtype, increment, real_like, seen_by_rules
from .rules import beside, checked_result, each_leaf, unzipped, walk
from .transformation import GradientTransformation
from .trees.layout import holding
from .trees.short import in_short
from .trees.tree import PyTree, check_shapes, leaves_as, scalar_like


@in_short
class RecurState(NamedTuple):
    """State of a rule that remembers: each buffer is a tree like the parameters."""

    buffers: dict[str, PyTree]


@in_short
class CountedRecurState(NamedTuple):
    """State of a rule that remembers and sees the step: updates done, and its buffers."""

    step: jax.Array
    inner: RecurState


@in_short
class CountState(NamedTuple):
    """State of a rule that depends on the step: the number of updates done."""

    step: jax.Array


@transformation(quiet=True, leafwise=True)
def recur(
    rule: Function, dtype: FloatDType | None = None, **initial: Any
) -> GradientTransformation:
    r"""A rule that remembers: $(u, a_1, a_2, \dots) \mapsto (u', \{a_1, a_2, \dots\})$.

    Buffers are at least float32, or `dtype`; the rule computes in at least float32. In a dtype of
    fewer bits they are rounded up or down by chance, right on average: to the nearest, an average
    that moves by less than half a unit would stand still. The chance depends on the counts in the
    state of the outermost update, or where nothing counts, on the bits of update and buffer, and
    needs no key.

    Args:
        rule: function of the update and, by name, its buffers; returns the new update and a dict
            of the new buffers. If it names `params`, it is given the parameter too, and if it
            names `step`, the number of this update, 1 at first, unless buffers have these names.
        dtype: in which buffers are kept; by default the parameter's, at least float32.
        **initial: the buffers' names and first values, each a number, a scalar array, or a
            function of the parameter that returns an array of its shape.

    Returns:
        A transformation whose state holds one array per buffer and parameter, and one count if
        the rule names `step`.

    Raises:
        ValueError: from `update`, if the rule names `params` and there are none.

    >>> import gdtx, jax.numpy as jnp
    >>> change = gdtx.recur(lambda u, last: (u - last, {"last": u}), last=0.0)
    >>> state = change.init(jnp.zeros(()))
    >>> _, state = change.update(jnp.array(5.0), state)
    >>> change.update(jnp.array(7.0), state)[0]
    Array(2., dtype=float32)

    A pull to where training began:

    >>> def pulled(u, start, params):
    ...     return u + 0.1 * (params - start), {"start": start}
    >>> anchored = gdtx.recur(pulled, start=lambda p: p)
    >>> anchored.update(jnp.array(0.0), anchored.init(jnp.array(5.0)), jnp.array(7.0))[0]
    Array(0.2, dtype=float32)
    """

    seen = [name for name in named_by(rule, "params", "step") if name not in initial]
    if not accepts_arguments(rule, 1, *initial, *seen):
        raise TypeError(
            f"recur: rule must be a function of an array and its buffers by name, "
            f"{', '.join(initial) or 'none'}, got {with_arguments(rule)}"
        )
    is_counted = "step" in seen

    def init(params: PyTree) -> RecurState | CountedRecurState:
        first = {name: first_buffer(name, x, params, dtype) for name, x in initial.items()}
        state = RecurState(first)
        return CountedRecurState(scalar_like(params, 0, jnp.int32), state) if is_counted else state

    def update(
        updates: PyTree, state: Any, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, RecurState | CountedRecurState]:
        count = of_step(lambda: increment(state.step)) if is_counted else None
        leaves, structure = jax.tree.flatten(updates)
        trees = (state.inner if is_counted else state).buffers
        buffers = {name: leaves_as(structure, tree, "state", "updates")
                   for name, tree in trees.items()}  # fmt: skip
        for old in buffers.values():
            check_shapes(updates, old, "state")
        beside_them = [beside(updates, params)] if "params" in seen else []
        names = [*buffers, *(["params"] if beside_them else [])]
        now = {} if count is None else {"step": of_step(lambda: seen_by_rules(count))}

        def step(u: jax.Array, *arrays: jax.Array) -> tuple[Any, ...]:
            kept, param = arrays[: len(buffers)], arrays[len(buffers) :]
            old = [real_like(a, u) for a in kept]
            widths = (a.dtype for a in (*old, *(p.real for p in param)))
            wide = compute_dtype(u.dtype, *widths)
            wider = [*(cast(a, wide) for a in old),
                     *(cast(p, compute_dtype(wide, p.dtype)) for p in param)]  # fmt: skip
            named = now | dict(zip(names, wider, strict=True))
            result, new = _returned(rule(cast(u, wide), **named), buffers)
            return checked_result(result, u, wide), *(
                stored(checked_result(new[name], u, wide), a, u)
                for name, a in zip(buffers, kept, strict=True)
            )

        rows = walk(step, structure, leaves, *buffers.values(), *beside_them)
        out, *new = map(structure.unflatten, unzipped(rows, 1 + len(buffers)))
        kept = RecurState(dict(zip(buffers, new, strict=True)))
        return out, kept if count is None else CountedRecurState(count, kept)

    layout = holding(RecurState, buffers=dict.fromkeys(initial))
    return GradientTransformation(
        init, update, holding(CountedRecurState, inner=layout) if is_counted else layout
    )


@transformation(quiet=True, leafwise=True)
def accumulate(
    f: TwoArraysFunction,
    initial: Scalar = 0.0,
    dtype: FloatDType | None = None,
    nesterov: bool = False,
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


@transformation(quiet=True, leafwise=True)
def counted(f: StepFunction) -> GradientTransformation:
    r"""A rule that changes with the step: $t \leftarrow t + 1$, then $u \leftarrow f(t)(u)$.

    `f` runs once per update, not once per array, so what depends on the step alone is computed
    once.

    Args:
        f: function of the step, an integer scalar that is 1 on the first update, that returns a
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
        count = of_step(lambda: increment(state.step))
        leaves, structure = jax.tree.flatten(updates)
        rule = of_step(lambda: rule_at(f, count))
        return structure.unflatten(each_leaf(rule, structure, leaves)), CountState(count)

    return GradientTransformation(init, update, CountState)


def rule_at(f: Any, count: jax.Array) -> Any:
    """The rule on one array at this step, which `f` must return."""
    with calling("f, of the step"):
        rule = f(seen_by_rules(count))
    if not callable(rule):
        fail(TypeError, f"f must return a function of one array, got {summarize(rule)}")
    return rule


def _returned(returned: Any, buffers: Any) -> tuple[Any, Any]:
    """What a rule returned, which must be the new update and a dict of its buffers."""
    if not (isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], dict)):
        expected = "the rule must return the new update and a dict of buffers"
        raise LeafError(TypeError, f": {expected}, got {summarize(returned)}")
    if returned[1].keys() != buffers.keys():
        names = [", ".join(map(repr, tree)) for tree in (buffers, returned[1])]
        raise LeafError(TypeError, f": the rule must return the buffers {names[0]}, got {names[1]}")
    return returned
