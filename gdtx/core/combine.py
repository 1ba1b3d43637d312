"""Combinators: transformations put together make transformations."""

from __future__ import annotations

from typing import Any

import jax

from .ascent import warn_of_ascent
from .calls.kinds import Function, TwoArraysFunction
from .calls.making import is_written_by_a_user
from .calls.types import TransformationLike
from .emitted import emitted_last
from .errors import fail, running
from .factory import transformation
from .joined import check_branches, joined, merged_leaves
from .numbers.numerics import cast, compute_dtype, real_like
from .outermost import is_outermost
from .transformation import GradientTransformation
from .trees.spread import spread_tree
from .trees.tree import PyTree


def divide(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """The quotient, for :func:`join`."""
    return numerator / denominator


def multiply(one: jax.Array, other: jax.Array) -> jax.Array:
    """The product, for :func:`join` and :func:`feedback`."""
    return one * other


def subtract(one: jax.Array, other: jax.Array) -> jax.Array:
    """The difference, for :func:`join`."""
    return one - other


def plus(one: jax.Array, other: jax.Array) -> jax.Array:
    """The sum, for :func:`join`."""
    return one + other


@transformation(quiet=True, leafwise=True)
def chain(*links: TransformationLike) -> GradientTransformation:
    r"""Apply transformations one after the other.

    Associative, with :func:`identity` as its unit.

    Args:
        *links: transformations; pairs of `init` and `update` from elsewhere are taken too.

    Returns:
        A transformation whose state is the tuple of the links' states.

    Warns:
        UserWarning: if a negative :func:`scale` follows a method, such as :func:`adam`, that
            changes the sign already. To maximize is `chain(scale(-1.0), adam(...))`.

    Raises:
        TypeError: if a link is not a transformation.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.chain(gdtx.clip(1.0), gdtx.scale(-0.5))
    >>> tx.update(jnp.array([0.5, 3.0]), tx.init(jnp.zeros(2)))[0]
    Array([-0.25, -0.5 ], dtype=float32)
    """

    if is_outermost() and is_written_by_a_user():
        warn_of_ascent(links)

    def init(params: PyTree) -> tuple[PyTree, ...]:
        states = []
        for i, link in enumerate(links):
            with running(f"links[{i}]"):
                states.append(link.init(params))
        return tuple(states)

    def update(
        updates: PyTree, state: tuple[PyTree, ...], params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, tuple[PyTree, ...]]:
        states = []
        for i, (link, link_state) in enumerate(zip(links, state, strict=True)):
            with running(f"links[{i}]"):
                updates, link_state = link.update(updates, link_state, params, **extra_args)
            states.append(link_state)
        return updates, tuple(states)

    return GradientTransformation(init, update, links)


@transformation(quiet=True, leafwise=True)
def join(merge: Function, **branches: TransformationLike) -> GradientTransformation:
    r"""Give the same updates to every branch and merge what they make of them, leaf by leaf.

    Args:
        merge: function of as many arrays as there are branches, in their order.
        **branches: transformations by name.

    Returns:
        A transformation whose state is the dict of the branches' states.

    Raises:
        TypeError: if `merge` is not a function or a branch is not a transformation.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.join(gdtx.divide, g=gdtx.identity(), size=gdtx.absolute())
    >>> tx.update(jnp.array([3.0, -4.0]), tx.init(jnp.zeros(2)))[0]
    Array([ 1., -1.], dtype=float32)
    """

    check_branches("join", merge, branches, "arrays")
    return joined(branches, lambda updates, *outputs: merged_leaves(merge, *outputs))


@transformation(leafwise=True)
def feedback(
    merge: TwoArraysFunction,
    statistic: TransformationLike,
    readout: TransformationLike | None = None,
    *,
    name: str | None = None,
    then: TransformationLike | None = None,
) -> GradientTransformation:
    r"""Merge the update with a statistic of the transformation's own past outputs.

    $y_t = \mathrm{merge}(u_t, \mathrm{readout}(s_{t-1}))$, $s_t = \mathrm{statistic}(y_t)$.

    Args:
        merge: function of the update and the statistic read out, two arrays.
        statistic: what to keep of the outputs; its last link must emit its own buffer, as
            :func:`ema` and the other links made by :func:`accumulate` do.
        readout: stateless transformation of that buffer, none by default.
        name: by which `then` reads $s_t$, with :func:`value_of`.
        then: transformation of the output $y_t$ that needs the statistic too, and so need not keep
            it again.

    Returns:
        A transformation whose state is the statistic's and nothing more; with `then` a dict of
        that and of the other's, by `name` and `"then"`.

    Raises:
        TypeError: if one of `name` and `then` is given and not the other.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.feedback(gdtx.subtract, gdtx.running_sum())
    >>> u, state = tx.update(jnp.array(2.0), tx.init(jnp.zeros(())))
    >>> tx.update(jnp.array(2.0), state)[0]
    Array(0., dtype=float32)
    """
    if (name is None) != (then is None) or name == "then":
        raise TypeError(f"feedback: needs name, of the statistic, with then, got name={name!r}")

    def update(
        updates: PyTree, state: Any, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, PyTree]:
        past = state if name is None else state[name]
        emitted = spread_tree(emitted_last(statistic, past), updates, "state")
        if readout is not None:
            emitted, memory = readout.update(emitted, readout.init(emitted), params, **extra_args)
            if jax.tree.leaves(memory):
                fail(TypeError, f"the readout must be stateless, got {readout!r}")
        updates = merged_leaves(merge, updates, emitted)
        emitted, kept = statistic.update(updates, past, params, **extra_args)
        if name is None or then is None:
            return updates, kept
        extra_args[name] = emitted
        with running("then"):
            updates, after = then.update(updates, state["then"], params, **extra_args)
        return updates, {name: kept, "then": after}

    if name is None:
        return GradientTransformation(statistic.init, update, statistic)
    parts = {name: statistic, "then": then}
    return GradientTransformation(
        lambda params: {key: tx.init(params) for key, tx in parts.items()}, update, parts
    )


@transformation(quiet=True, leafwise=True)
def previous(statistic: TransformationLike) -> GradientTransformation:
    r"""What a statistic was before this update: $y_t = s_{t-1}$, $s_t = \mathrm{statistic}(u_t)$.

    Args:
        statistic: what to keep of the updates; its last link must emit its own buffer, as
            :func:`ema` and the other links made by :func:`accumulate` do.

    Returns:
        A transformation whose state is the statistic's and nothing more.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.previous(gdtx.running_sum())
    >>> u, state = tx.update(jnp.array(2.0), tx.init(jnp.zeros(())))
    >>> u, state = tx.update(jnp.array(3.0), state)
    >>> u
    Array(2., dtype=float32)
    """

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, PyTree]:
        leaves, structure = jax.tree.flatten(updates)
        emitted = jax.tree.leaves(spread_tree(emitted_last(statistic, state), updates, "state"))
        _, state = statistic.update(updates, state, params, **extra_args)

        def past(u: jax.Array, a: jax.Array) -> jax.Array:
            a = real_like(a, u)
            return cast(a, compute_dtype(a.dtype))

        return structure.unflatten(map(past, leaves, emitted)), state

    return GradientTransformation(statistic.init, update, statistic)
