"""Hyperparameters read: as they were given, as they are now, and as a state keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from .calls.call import Call
from .calls.options import Options
from .errors import at_work, summarize
from .numbers.numerics import seen_by_rules
from .outermost import nested
from .states import check_fits, within
from .transformation import GradientTransformation
from .trees.layout import Part
from .trees.tree import PyTree


def hyperparams(tx: GradientTransformation | PyTree, state: PyTree = None) -> dict[str, Any]:
    """The hyperparameters of a transformation, by path, or those that a state keeps.

    Args:
        tx: any transformation; or, alone, a state in which :func:`tunable` keeps some, for what
            :func:`set_hyperparams` sets there.
        state: its state, if the current values of schedules are asked for.

    Returns:
        A flat dict. The path of an argument is its name; in a transformation given to another, that
        of the other and the name joined by a dot, with the number of a link in a chain:
        `"0.learning_rate"`. Schedules are shown as they are, or with a state, as the value that the
        next update will use. Of a state, what it keeps by path, and a tuple where several parts of
        it keep the same.

    Raises:
        TypeError: if `tx` is neither a transformation nor such a state.
        ValueError: if the state is that of another transformation.

    >>> import gdtx, jax.numpy as jnp
    >>> gdtx.hyperparams(gdtx.sgd(0.1, momentum=0.9))
    {'learning_rate': 0.1, 'momentum': 0.9, 'nesterov': False}
    >>> gdtx.hyperparams(gdtx.chain(gdtx.clip(1.0), gdtx.scale(-0.1)))
    {'0.max_delta': 1.0, '1.factor': -0.1}
    >>> gdtx.hyperparams(gdtx.tunable(gdtx.scale(-0.1)).init(jnp.ones(1)))
    {'factor': Array(-0.1, dtype=float32)}
    """
    if not isinstance(tx, GradientTransformation):
        return _kept(tx, state)
    with nested(), at_work("hyperparams"):
        return values_at(tx, state)


def values_at(tx: GradientTransformation, state: PyTree, ago: int = 0) -> dict[str, Any]:
    """Hyperparameters by path, schedules as of the next update or of one some updates `ago`."""
    if state is not None:
        check_fits(tx, state)
    return _values(tx, state, ago)


def _values(tx: GradientTransformation, state: PyTree, ago: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    current: dict[str, Any] = {}
    places: dict[int, list[Part]] = {}
    if state is not None:
        given = [value for _, _, value in tx.parts() if isinstance(value, GradientTransformation)]
        for part in within(tx, state, given):
            places.setdefault(id(part.tx), []).append(part)
        if schedules := tx.signature.scheduled(tx.arguments):
            step = seen_by_rules(jnp.maximum(state.step - ago, 0))
            current = {name: jnp.asarray(rule(step)) for name, rule in schedules.items()}
    for path, name, value in tx.parts():
        if isinstance(value, GradientTransformation):
            parts = places.get(id(value), [Part(value, {}, None)])
            # Of one that was given twice, each in its place.
            part = parts.pop(0) if len(parts) > 1 else parts[0]
            inner = _values(part.used, part.state, ago) | part.held
            found |= {f"{path}.{below}": item for below, item in inner.items()}
        elif isinstance(value, Options):
            found |= _given(value, f"{path}.")
        elif _is_shown(tx, name, value):
            found[path] = current.get(name, value)
    return found


def _given(options: Options, before: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, name, value in options.parts():
        if isinstance(value, Options):
            found |= _given(value, f"{before}{path}.")
        elif _is_shown(options, name, value):
            found[before + path] = value
    return found


def _is_shown(call: Call, name: str, value: Any) -> bool:
    """Whether this is a number: a scalar, an integer or a boolean."""
    kind = call.signature.kind(name)
    return kind is not None and (kind.scalar or isinstance(value, int))


def _kept(tree: PyTree, state: PyTree) -> dict[str, Any]:
    """The hyperparameters that parts of a tree keep by path."""

    def keeps(part: Any) -> bool:
        return isinstance(getattr(part, "hyperparams", None), dict)

    kept = [_unboxed(part.hyperparams) for part in jax.tree.leaves(tree, keeps) if keeps(part)]
    if state is not None or not kept:
        raise TypeError(
            "hyperparams: tx must be a transformation, or alone a state in which tunable keeps "
            f"hyperparameters, got {summarize(tree)} (of any other state: hyperparams(tx, state))"
        )
    found: dict[str, Any] = {}
    for path in {path: None for part in kept for path in part}:
        values = tuple(part[path] for part in kept if path in part)
        found[path] = values if len(values) > 1 else next(iter(values))
    return found


def _unboxed(held: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays by path, of which a framework may have put each into a container of its own."""
    return {path: jax.tree.leaves(value)[0] for path, value in held.items()}
