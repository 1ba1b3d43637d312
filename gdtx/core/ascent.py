"""A warning where a method is made to ascend: a second change of sign."""

from __future__ import annotations

import warnings
from typing import Any

from .outermost import nested
from .transformation import GradientTransformation


def warn_of_ascent(links: tuple[Any, ...]) -> None:
    """Methods change the sign already, unlike their links: one more change leads uphill."""
    last = max((i for i, link in enumerate(links) if _flips(link)), default=0)
    with nested():  # what formulas are made of is not looked at again
        turns = [i for i, link in enumerate(links[:last]) if _changes_sign(link)]
    while turns and links[turns[0]].signature.name == "scale":
        turns.pop(0)
    if len(turns) % 2:
        method = links[turns[0]].signature.name
        warnings.warn(
            f"chain: links[{last}], {links[last]!r}, turns the steps of links[{turns[0]}] uphill, "
            f"because {method} changes the sign already. To maximize, change that of the gradients "
            f"instead, which leaves decay as it is: chain(scale(-1.0), {method}(...))",
            stacklevel=7,  # where chain is called
        )


def _flips(tx: Any) -> bool:
    """Whether this is a change of sign and no more; links above this module are asked by name."""
    arguments = tx.arguments
    if tx.signature.name == "scale":
        return isinstance(arguments["factor"], int | float) and arguments["factor"] < 0
    return tx.signature.name == "scale_by_learning_rate" and arguments["flip_sign"]


def _changes_sign(tx: Any) -> bool:
    """Whether it does, as far as its formula says."""
    if _flips(tx):
        return True
    if tx.signature.name == "chain":
        return sum(map(_changes_sign, tx.arguments["links"])) % 2 == 1
    if tx.factory is GradientTransformation or tx.signature.name == "scale_by_learning_rate":
        return False
    try:
        formula = tx.result()
    except (TypeError, ValueError):  # of a factory that needs numbers where schedules are
        return False
    return isinstance(formula, GradientTransformation) and _changes_sign(formula)
