"""Members of an ensemble march in step: what of their states they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from ..core.calls.signature import Signature
from ..core.errors import summarize
from ..core.transformation import GradientTransformation
from ..core.trees.tree import PyTree


def member_axes(tx: GradientTransformation, params: PyTree, **extra_args: Any) -> PyTree:
    """Axes for `jax.vmap` of a state whose members share what is the same for all.

    Members of an ensemble take their steps together, so their counts are equal. With these axes
    there is one of each, and a conditional of the program that a count decides stays one:
    `jax.vmap(tx.init)` without them gives every member its own, and then both branches run on
    every step. What depends on a member's parameters, gradients or hyperparameters is its own, as
    are the counts and the conditional of :func:`skip_nonfinite`. Finds out by tracing; computes
    and allocates nothing.

    Args:
        tx: any transformation. Arrays in it are settings of the members along their first axis;
            those of no axes are for all.
        params: tree of arrays, or of `jax.ShapeDtypeStruct`, with the members along the first axis.
        extra_args: what `update` is given by name. Arrays are those of the members along their
            first axis; arrays of no axes, and what is no array, are for all.

    Returns:
        A tree like the state, with 0 where members have their own and `None` where they share.

    Raises:
        ValueError: if arrays have no axis of members, or differ in their number.

    >>> import gdtx, jax, jax.numpy as jnp
    >>> tx, params = gdtx.every(10, gdtx.ema(0.9)), jnp.zeros((5, 3))
    >>> axes = gdtx.member_axes(tx, params)
    >>> axes.step, axes.inner.buffers
    (None, {'value': 0})
    >>> state = jax.vmap(tx.init, out_axes=axes)(params)
    >>> state.step.shape, state.inner.buffers["value"].shape
    ((), (5, 3))
    >>> update = jax.vmap(tx.update, in_axes=(0, axes), out_axes=(0, axes))
    >>> update(params, state)[1].step
    Array(1, dtype=int32)
    """
    tx = Signature(_of_members, schedules=False).bind((tx, params), {})["tx"]
    arrays = _arrays(extra_args)
    _check(tx, params, arrays)
    given = jax.tree.map(_struct, (tx, params, arrays))
    axes = jax.tree.map(lambda x: 0 if x.ndim else None, given)

    def init(tx: Any, params: PyTree, arrays: Any) -> PyTree:
        return tx.init(params)

    def update(state: PyTree, tx: Any, params: PyTree, arrays: Any) -> PyTree:
        return tx.update(params, state, params, **_joined(arrays, extra_args))[1]

    if all(axis is None for axis in jax.tree.leaves(axes, is_leaf=lambda x: x is None)):
        return jax.tree.map(lambda _: None, jax.eval_shape(init, *given))
    state, own = _batched(init, axes, given)
    while True:
        state_axes = jax.tree.map(lambda mine: 0 if mine else None, own)
        some = jax.tree.map(lambda x, mine: x if mine else _struct(x, 1), state, own)
        new = _batched(update, (state_axes, *axes), (some, *given))[1]
        wider = jax.tree.map(lambda old, new: old or new, own, new)
        if wider == own:
            return state_axes
        own = wider


def _of_members(tx: GradientTransformation, params: PyTree) -> None:
    """What is checked of the arguments."""


_of_members.__name__ = "member_axes"


def _batched(f: Callable[..., PyTree], axes: Any, given: Any) -> tuple[PyTree, PyTree]:
    """What members get from `f`, and whether each array of it depends on the member: what
    `jax.vmap` says to the rule of a function that it maps."""
    own: list[bool] = []

    @custom_vmap
    def tell(leaves: list[jax.Array]) -> list[jax.Array]:
        return leaves

    @tell.def_vmap
    def _(size: int, batched: Any, leaves: list[jax.Array]) -> Any:
        own[:] = batched[0]
        return leaves, batched[0]

    def told(*given: Any) -> PyTree:
        leaves, structure = jax.tree.flatten(f(*given))
        own[:] = [False] * len(leaves)
        return structure.unflatten(tell(leaves))

    out = jax.eval_shape(jax.vmap(told, in_axes=axes), *given)
    return out, jax.tree.structure(out).unflatten(own)


def _arrays(extra_args: dict[str, Any]) -> PyTree:
    """The same with `None` for all that is no array."""
    return jax.tree.map(lambda x: x if hasattr(x, "shape") else None, extra_args)


def _joined(arrays: Any, others: Any) -> Any:
    leaves, structure = jax.tree.flatten(others)
    found = structure.flatten_up_to(arrays)
    return structure.unflatten(
        other if x is None else x for x, other in zip(found, leaves, strict=True)
    )


def _struct(x: Any, without: int = 0) -> jax.ShapeDtypeStruct:
    weak = getattr(x, "weak_type", False)
    return jax.ShapeDtypeStruct(jnp.shape(x)[without:], jnp.result_type(x), weak_type=weak)


def _check(tx: GradientTransformation, params: PyTree, arrays: Any) -> None:
    """Raise unless all have as many members."""
    first: tuple[str, int] | None = None
    for what, tree in (("tx", tx), ("params", params), ("", arrays)):
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            name = f"{what}{jax.tree_util.keystr(path)}" if what else path[0].key
            if not jnp.ndim(leaf):
                if what == "params":
                    raise ValueError(
                        f"member_axes: {name} must have the members along its first axis, got "
                        f"{summarize(leaf)}"
                    )
                continue
            n = jnp.shape(leaf)[0]
            first = first or (name, n)
            if n != first[1]:
                raise ValueError(
                    f"member_axes: {name} has {n} members along its first axis, where {first[0]} "
                    f"has {first[1]}"
                )
