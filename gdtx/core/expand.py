"""Formulas, taken apart level by level."""

from __future__ import annotations

from typing import Any

import jax

from .calls.call import Call
from .calls.kinds import PATH_OF_NUMBER
from .calls.signature import Signature
from .calls.text import text
from .memory import accumulate, counted, recur
from .outermost import nested
from .random import randomized
from .rules import elementwise, treewise, with_params
from .transformation import GradientTransformation
from .tree_memory import recur_tree

_makers = (
    elementwise, with_params, treewise, accumulate, recur, recur_tree, counted, randomized
)  # fmt: skip


def expand(tx: GradientTransformation, depth: int | None = 1) -> GradientTransformation:
    """The formula of a transformation, one level down or several.

    Args:
        tx: any transformation.
        depth: how many levels, None for all. Below the first, links stay that are made of no
            others, such as :func:`ema`: what their makers are given has no name. Combinators are
            no level of their own.

    Returns:
        An expression of the same transformation: the one that its factory returns, with the
        transformations in it expanded likewise. A bare pair of functions, and a link whose rule
        itself depends on a schedule, are not made of others: they are returned as they are, and so
        is :func:`tunable`, which keeps the hyperparameters of what it was given.

    Raises:
        TypeError: if `tx` is not a transformation.
        ValueError: if the depth is negative.

    >>> import gdtx
    >>> gdtx.expand(gdtx.adamax(0.1, eps=0.0))  # doctest: +NORMALIZE_WHITESPACE
    chain(scale_by_adamax(b1=0.9, b2=0.999, eps=0.0, mu_dtype=None, nu_dtype=None),
          scale_by_learning_rate(learning_rate=0.1, flip_sign=True))
    >>> gdtx.expand(gdtx.sgd(0.1, momentum=0.9), depth=None)
    chain(trace(decay=0.9, nesterov=False, dtype=None), scale(factor=-0.1))
    """
    arguments = Signature(expand, schedules=False).bind((tx, depth), {})
    tx = arguments["tx"]
    if depth is not None and depth < 0:
        raise ValueError(f"expand: depth must be a non-negative integer or None, got {depth}")
    if depth is None:
        return _expanded(tx, -1)
    formula = _formula(tx)
    if depth and formula.factory in _makers:
        return formula
    return _expanded(tx, depth)


def tree(tx: GradientTransformation, depth: int | None = None) -> str:
    """A transformation as the expression a reader would write, a line for each part.

    What fits in a line stays in one. Arguments that have their default are left out, those
    without a default are not named.

    Args:
        tx: any transformation.
        depth: how many levels to :func:`expand` first, None for all, 0 for none.

    Raises:
        TypeError: if `tx` is not a transformation.

    >>> import gdtx
    >>> print(gdtx.tree(gdtx.adam(0.001)))
    chain(
        join(
            divide,
            mu=chain(ema(0.9), bias_correction(0.9)),
            nu=chain(chain(square(), ema(0.999), bias_correction(0.999)), root(1e-08)),
        ),
        scale(-0.001),
    )
    """
    return text(expand(tx, depth))


def _expanded(tx: GradientTransformation, depth: int) -> GradientTransformation:
    """`depth` counts down to 0; from below it never comes there."""
    if depth == 0:
        return tx
    formula = _formula(tx)
    if formula.factory is GradientTransformation:
        # A combinator, most likely: what it combines may be made of others.
        return _inside(tx, depth)
    return tx if formula is tx or _is_made(formula) else _expanded(formula, depth - 1)


def _inside(tx: GradientTransformation, depth: int) -> GradientTransformation:
    """The same call of transformations expanded."""

    def expanded(value: Any) -> Any:
        if isinstance(value, GradientTransformation):
            return _expanded(value, depth)
        if type(value) in (tuple, list):
            return type(value)(map(expanded, value))
        if type(value) is dict:
            return {key: expanded(item) for key, item in value.items()}
        return value

    if tx.factory is GradientTransformation or any(
        # They name hyperparameters of what is inside, which are not in its formula.
        tx.signature.kind(name) is PATH_OF_NUMBER
        for name in tx.arguments
    ):
        return tx
    arguments = {name: expanded(value) for name, value in tx.arguments.items()}
    return GradientTransformation.of(tx.factory, arguments)


def _is_made(expression: GradientTransformation) -> bool:
    """Whether makers are all that an expression is made of."""
    nested = [x for _, _, x in expression.parts() if isinstance(x, GradientTransformation)]
    return expression.factory in _makers or (bool(nested) and all(map(_is_made, nested)))


def _formula(tx: GradientTransformation) -> GradientTransformation:
    """What the factory returns, if it is the whole transformation."""
    if tx.factory is GradientTransformation:
        return tx
    schedules = tx.signature.scheduled(tx.arguments)
    try:
        with nested():  # arguments have been looked at where they were given
            expression = tx.result()
    except TypeError:
        if schedules:
            return tx
        raise
    if not isinstance(expression, GradientTransformation):
        return tx
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
