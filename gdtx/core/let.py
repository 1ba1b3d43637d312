"""Quantities with names: computed once, read where a formula has their symbol."""

from __future__ import annotations

from typing import Any

import jax

from .calls.functions import is_function
from .calls.types import TransformationLike
from .errors import call_with, calling, fail
from .factory import transformation
from .transformation import GradientTransformation
from .trees.spread import spread_tree
from .trees.tree import PyTree, check_shapes, is_scalar, leaves_as


@transformation(quiet=True, leafwise=True)
def let(body: TransformationLike, **values: TransformationLike) -> GradientTransformation:
    r"""A formula with "where": `let(body, m=ema(0.9))` is the body, where $m$ is the average.

    Every value is a transformation of the same updates as the body's. What it emits is read with
    :func:`value_of` in the body, any number of times, and in the values after it; it is computed
    once and kept once.

    Args:
        body: the formula, a transformation that reads the values.
        **values: transformations by name. The body gets what they emit as extra arguments.

    Returns:
        A transformation whose state is the dict of the values' states and the body's.

    Raises:
        TypeError: if a value or the body is not a transformation.

    >>> import gdtx, jax.numpy as jnp
    >>> deviation = gdtx.join(gdtx.subtract, u=gdtx.identity(), m=gdtx.value_of("m"))
    >>> tx = gdtx.let(gdtx.join(gdtx.divide, m=gdtx.value_of("m"), s=deviation), m=gdtx.ema(0.5))
    >>> tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))[0]
    Array([1., 1.], dtype=float32)
    """
    parts = {**values, "body": body}

    def init(params: PyTree) -> dict[str, PyTree]:
        return {name: tx.init(params) for name, tx in parts.items()}

    def update(
        updates: PyTree, state: dict[str, PyTree], params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, dict[str, PyTree]]:
        states = {}
        for name, tx in values.items():
            out, states[name] = tx.update(updates, state[name], params, **extra_args)
            extra_args[name] = out
        updates, states["body"] = body.update(updates, state["body"], params, **extra_args)
        return updates, states

    return GradientTransformation(init, update, parts)


@transformation(leafwise=True)
def value_of(name: str) -> GradientTransformation:
    """Replace the updates by a value that has a name.

    Args:
        name: of a value of the :func:`let` around it, or of an extra argument of `update`: a tree
            like the updates, or a real scalar, which is that number everywhere, or a function of
            the parameters that returns one of these. That runs where it is read: inside of
            :func:`every`, on some steps only.

    Returns:
        A stateless transformation.

    Raises:
        TypeError: from `update`, if nothing has that name.
        ValueError: from `update`, if it is neither a scalar nor a tree like the updates.

    >>> import gdtx, jax.numpy as jnp
    >>> gdtx.value_of("noise").update(jnp.zeros(2), (), noise=jnp.array([0.5, -0.5]))[0]
    Array([ 0.5, -0.5], dtype=float32)
    >>> gdtx.value_of("value").update(jnp.zeros(2), (), value=3.0)[0]
    Array([3., 3.], dtype=float32)
    """

    def update(
        updates: PyTree, state: tuple[()], params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, tuple[()]]:
        if name not in extra_args:
            fail(
                TypeError,
                f"nothing is called {name!r}: name it in let(..., {name}=...) or {call_with(name)}",
            )
        value = extra_args[name]
        if is_function(value) and jax.tree_util.all_leaves([value]):
            with calling(name):
                value = value(params)
        if is_scalar(value):
            return spread_tree(value, updates, name), state
        structure = jax.tree.structure(updates)
        values = leaves_as(structure, value, name, "updates")
        check_shapes(updates, values, name)
        return structure.unflatten(values), state

    return GradientTransformation(lambda params: (), update, ())
