"""The maker of rules on the whole tree that remember."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .calls.functions import (
    accepts_arguments,
    is_function,
    names_after_first,
    with_arguments,
)
from .calls.kinds import Function
from .errors import call_with, calling, fail, summarize
from .factory import transformation
from .numbers.numerics import compute_dtype, increment, narrow, seen_by_rules
from .numbers.values import is_array
from .rules import needed
from .transformation import GradientTransformation
from .trees.layout import holding
from .trees.short import in_short
from .trees.tree import (
    PyTree,
    check_shapes,
    leaves_as,
    placed_as,
    scalar_like,
    statistic_like,
    widened,
)


@in_short
class TreeRecurState(NamedTuple):
    """State of a rule on the whole tree that remembers: updates done, and its buffers."""

    step: jax.Array
    buffers: dict[str, PyTree]


@transformation(quiet=True)
def recur_tree(rule: Function, **initial: Any) -> GradientTransformation:
    r"""A rule on the whole tree that remembers: $(u, a_1, a_2, \dots) \mapsto (u', \{a_1, a_2,
    \dots\})$, where a buffer may be one number for the tree.

    What :func:`recur` is to :func:`elementwise`, this is to :func:`treewise`: for rules that take
    a norm or an inner product over all arrays. The rule computes in at least float32.

    Args:
        rule: function of the updates and, by name, of what it needs: its buffers, `params`, `step`
            (the number of this update, 1 at first), values of the :func:`let` around it and extra
            arguments of `update`. It returns the new updates, a tree like them or one number that
            :func:`let` may name, and a dict of the new buffers.
        **initial: the buffers' names and first values, each a number or an array, which is kept
            once for the whole tree, or a function of the parameters that returns a tree.

    Returns:
        A transformation whose state is one count and the buffers.

    Raises:
        TypeError: from `update`, if the rule names what there is not.
        ValueError: from `update`, if the rule names `params` and there are none, or if it returns
            trees or arrays of another form.

    >>> import gdtx, jax, jax.numpy as jnp
    >>> def longest(u, norm):
    ...     norm = jnp.maximum(norm, gdtx.global_norm(u))
    ...     return jax.tree.map(lambda x: x / norm, u), {"norm": norm}
    >>> tx = gdtx.recur_tree(longest, norm=0.0)
    >>> state = tx.init({"a": jnp.zeros(()), "b": jnp.zeros(())})
    >>> tx.update({"a": jnp.array(3.0), "b": jnp.array(4.0)}, state)[0]["b"]
    Array(0.8, dtype=float32)
    """
    names = names_after_first(rule)
    if not set(initial) <= set(names) or not accepts_arguments(rule, 1, *names):
        raise TypeError(
            f"recur_tree: rule must be a function of the updates and its buffers by name, "
            f"{', '.join(initial) or 'none'}, got {with_arguments(rule)}"
        )
    given = [name for name in names if name not in initial]

    def init(params: PyTree) -> TreeRecurState:
        buffers = {name: _first(name, value, params) for name, value in initial.items()}
        return TreeRecurState(scalar_like(params, 0, jnp.int32), buffers)

    def update(
        updates: PyTree, state: TreeRecurState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, TreeRecurState]:
        step = increment(state.step)
        structure = jax.tree.structure(updates)
        beside: dict[str, Any] = {}
        for name in given:
            if name == "params":
                beside[name] = structure.unflatten(needed(params, structure))
            elif name == "step":
                beside[name] = seen_by_rules(step)
            elif name in extra_args:
                beside[name] = extra_args[name]
            else:
                fail(TypeError, f"the rule names {name!r}, and there is none: name it in "
                     f"let(..., {name}=...) or {call_with(name)}")  # fmt: skip
        with calling("the rule"):
            returned = rule(widened(updates), **widened(state.buffers), **widened(beside))
        out, new = _checked(returned, updates, state.buffers)
        return out, TreeRecurState(step, new)

    layout = holding(TreeRecurState, buffers=dict.fromkeys(initial))
    return GradientTransformation(init, update, layout)


def _first(name: str, value: Any, params: PyTree) -> PyTree:
    """A buffer of the state's own: parameters and state may both be donated."""
    if is_function(value):
        with calling(name):
            tree = value(widened(params))
        if jax.tree.structure(tree) == jax.tree.structure(params):
            return jax.tree.map(lambda p, x: placed_as(p, _own(x)), params, tree)
        return jax.tree.map(lambda x: statistic_like(params, x, _own(x).dtype), tree)
    if not (is_array(value) or isinstance(value, int | float | complex)):
        expected = "must be a number, an array or a function of the parameters"
        fail(TypeError, f"{name} {expected}, got {summarize(value)}")
    real = [jnp.finfo(p.dtype).dtype for p in jax.tree.leaves(params)]
    return statistic_like(params, value, compute_dtype(*real))


def _own(x: Any) -> jax.Array:
    return jnp.array(x, compute_dtype(jnp.result_type(x)), copy=True)


def _checked(returned: Any, updates: PyTree, buffers: dict[str, PyTree]) -> tuple[Any, Any]:
    """What a rule returned: updates or a number, and buffers like the old ones, in their dtypes."""
    if not (isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], dict)):
        expected = "the rule must return the new updates and a dict of buffers"
        fail(TypeError, f"{expected}, got {summarize(returned)}")
    out, new = returned
    if new.keys() != buffers.keys():
        names = [", ".join(map(repr, each)) for each in (buffers, new)]
        fail(TypeError, f"the rule must return the buffers {names[0]}, got {names[1]}")
    if not (jax.tree_util.all_leaves([out]) and jnp.shape(out) == ()):
        leaves = leaves_as(jax.tree.structure(updates), out, "the result", "updates")
        check_shapes(updates, leaves, "result")
        out = jax.tree.map(lambda x, u: narrow(x, compute_dtype(u.dtype)), out, updates)
    kept = {}
    for name, old in buffers.items():
        leaves, structure = jax.tree.flatten(old)
        found = leaves_as(structure, new[name], f"the buffer {name}", "the old one")
        check_shapes(old, found, f"new buffer {name}")
        pairs = zip(found, leaves, strict=True)
        kept[name] = structure.unflatten([jnp.asarray(x).astype(a.dtype) for x, a in pairs])
    return out, kept
