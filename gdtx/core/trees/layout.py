"""Where in a state the states of other transformations lie.

A combinator of one's own, with a layout:

>>> import gdtx
>>> @gdtx.transformation
... def after_each_other(**links: gdtx.GradientTransformation):
...     def init(params):
...         return {name: link.init(params) for name, link in links.items()}
...     def update(updates, state, params=None, **extra_args):
...         new = {}
...         for name, link in links.items():
...             updates, new[name] = link.update(updates, state[name], params, **extra_args)
...         return updates, new
...     return gdtx.GradientTransformation(init, update, layout=links)
>>> rate = gdtx.linear_schedule(1.0, 0.0, 4)
>>> tx = after_each_other(bound=gdtx.clip(1.0), step=gdtx.sgd(rate))
>>> _, state = tx.update({}, tx.init({}))
>>> float(gdtx.hyperparams(tx, state)["step.learning_rate"])
0.75
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from ..calls.call import Call
from ..errors import check_state, foreign_state
from .tree import PyTree


class Held(NamedTuple):
    """In a layout: a transformation of which the whole state holds hyperparameters, by path."""

    tx: Call
    values: Callable[[PyTree], Mapping[str, Any]]


def holding(state: type, **fields: PyTree) -> Any:
    """The layout of a state of this class, with these in its fields, and its own in the others."""
    return state(**{name: fields.get(name) for name in state._fields})  # pyright: ignore[reportAttributeAccessIssue]


class Part(NamedTuple):
    """What a state consists of: a transformation as it was given, the hyperparameters that are
    held for it, its state, and the keys by which that is reached."""

    tx: Any
    held: dict[str, Any]
    state: PyTree
    keys: tuple[Any, ...] = ()

    @property
    def used(self) -> Any:
        """The transformation with what is held for it."""
        try:
            return self.tx.replace(**self.held) if self.held else self.tx
        except (TypeError, ValueError):
            return foreign_state(f"hyperparameters of {self.tx.signature.name}", self.held)


def mapped(layout: PyTree, state: PyTree, f: Callable[[Part], PyTree]) -> PyTree:
    """The state, with what `f` makes of each part in the place of its state.

    Raises:
        ValueError: if the containers of the state are not those of the layout.
    """

    def below(layout: PyTree, within: PyTree, keys: tuple[Any, ...]) -> PyTree:
        if layout is None:
            return within
        if isinstance(layout, Held):
            # Arrays, of which a framework may have put each into a container of its own.
            held = {path: jax.tree.leaves(x)[0] for path, x in layout.values(state).items()}
            return f(Part(layout.tx, held, within, keys))
        if isinstance(layout, Call):
            return f(Part(layout, {}, within, keys))
        _check(layout, within)
        if isinstance(layout, type) or not layout:
            return within
        if isinstance(layout, dict):
            return {key: below(layout[key], x, (*keys, key)) for key, x in within.items()}
        names = getattr(layout, "_fields", range(len(layout)))
        both = zip(layout, within, names, strict=True)
        new = [below(each, x, (*keys, key)) for each, x, key in both]
        return type(layout)(*new) if hasattr(layout, "_fields") else tuple(new)

    return below(layout, state, ())


def _check(layout: PyTree, state: PyTree) -> None:
    """Raise unless the state is such a container."""
    if isinstance(layout, type):
        check_state(state, layout)
    elif hasattr(layout, "_fields"):
        check_state(state, type(layout))
    elif isinstance(layout, dict):
        if not isinstance(state, dict) or set(state) != set(layout):
            foreign_state(f"a dict of {', '.join(map(str, layout))}", state)
    elif not layout:
        # None, {} and Optax's EmptyState hold no more than (), and stay, so that `scan` carries
        # them.
        if jax.tree.leaves(state) or isinstance(state, Call):
            foreign_state("an empty tuple", state)
    elif not isinstance(state, tuple) or hasattr(state, "_fields") or len(state) != len(layout):
        foreign_state(f"a tuple of {len(layout)}, one state per link", state)
