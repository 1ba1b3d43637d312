"""Formulas, taken apart level by level."""

from __future__ import annotations

from typing import Any

import jax

from ._call import Call
from ._transformation import GradientTransformation


def expand(tx: GradientTransformation) -> GradientTransformation:
    """The formula of a transformation, one level down.

    Args:
        tx: any transformation.

    Returns:
        The expression that its factory returns. A bare pair of functions, and a link whose rule
        itself depends on a schedule, are not made of others: they are returned as they are.

    >>> import gdtx
    >>> gdtx.expand(gdtx.adamax(0.1, eps=0.0))  # doctest: +NORMALIZE_WHITESPACE
    chain(scale_by_adamax(b1=0.9, b2=0.999, eps=0.0),
          scale_by_learning_rate(learning_rate=0.1, flip_sign=True))
    """
    if tx.factory is GradientTransformation:
        return tx
    schedules = tx.signature.scheduled(tx.arguments)
    try:
        expression = tx.body(tx.arguments)
    except TypeError:
        if schedules:
            return tx
        raise
    handed_on = all(_contains(expression, schedule) for schedule in schedules.values())
    return expression if handed_on else tx


def _contains(tree: Any, value: Any) -> bool:
    def is_value(leaf: Any) -> bool:
        return type(leaf) is type(value) and leaf == value

    arguments = tree.arguments.values() if isinstance(tree, Call) else [tree]
    return any(
        is_value(leaf) or (isinstance(leaf, Call) and _contains(leaf, value))
        for leaf in jax.tree.leaves(list(arguments), is_leaf=lambda x: isinstance(x, Call))
    )
