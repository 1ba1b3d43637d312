"""Whether a state is that of a transformation, as far as can be told without the parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast, get_origin

import jax

from .errors import at_work, check_state, foreign_state
from .kinds import Kind
from .memory import RecurState
from .outermost import nested
from .transformation import GradientTransformation, ScheduledState
from .tree import PyTree
from .values import is_array


def check_fits(tx: GradientTransformation, state: PyTree) -> None:
    """Raise unless the state has the classes, lengths and names that `tx` gives its own.

    Raises:
        ValueError: naming the transformation inside of `tx` to which a state does not belong.
    """
    with nested(), at_work(tx.signature.name, tx.signature.voice):
        if tx.signature.scheduled(tx.arguments):
            check_state(state, ScheduledState)
            state = state.inner
        formula = tx
        if tx.factory is not GradientTransformation:
            try:
                formula = tx._formula(dict(_with_numbers(tx)))
            except (TypeError, ValueError):  # of a factory that asks more of a number than its kind
                return
        if formula.factory is not GradientTransformation:
            return check_fits(formula, state)
        # A maker, a combinator or a wrapper: nothing is below it but what it was given.
        parts = tx.parts() if formula is not tx else ()
        inner = {path: x for path, _, x in parts if isinstance(x, GradientTransformation)}
        update = formula.arguments["update"]
        whole = getattr(update, "__self__", None)
        if isinstance(whole, GradientTransformation):
            return check_fits(whole, state)
        _check_own(tx, _declared(update), state, inner)


def _with_numbers(tx: GradientTransformation) -> Iterator[tuple[str, Any]]:
    """Arguments with some number where an array or a schedule is: their values are not needed."""
    for name, value in tx.arguments.items():
        if tx.signature.is_scalar(name) and (is_array(value) or callable(value)):
            accepts = cast(Kind, tx.signature.kind(name)).accepts
            value = next((x for x in (0.5, 1.0, 2.0, 4.0) if accepts(x)), value)
        yield name, value


def _check_own(
    tx: GradientTransformation, declared: Any, state: PyTree, inner: dict[str, Any]
) -> None:
    """Raise unless the state is what an update function says that it takes."""
    kind = get_origin(declared) or declared
    if kind is tuple and not inner:
        if jax.tree.leaves(state) or isinstance(state, GradientTransformation):
            foreign_state("none", state)
    elif kind is tuple:
        if type(state) is not tuple or len(state) != len(inner):
            foreign_state(f"a tuple of {len(inner)}, one state per link", state)
        for part, below in zip(inner.values(), state, strict=True):
            check_fits(part, below)
    elif kind is dict:
        _check_group(inner, state)
    elif isinstance(kind, type) and kind is not Any:
        check_state(state, kind)
        if kind is RecurState:
            names = set(tx.arguments) - set(tx.signature.parameters)
            if set(state.buffers) != names:
                foreign_state(f"buffers {', '.join(names)}", state.buffers)
        _check_fields(inner, state)
    elif len(inner) == 1:  # whose state is its own
        check_fits(next(iter(inner.values())), state)


def _check_group(inner: dict[str, Any], states: Any) -> None:
    if not isinstance(states, dict) or set(states) != set(inner):
        foreign_state(f"a dict of {', '.join(inner)}", states)
    for name, part in inner.items():
        check_fits(part, states[name])


def _check_fields(inner: dict[str, Any], state: Any) -> None:
    """Of a wrapper, a field by the name of each argument; of groups, one for all."""
    groups = {path.rpartition(".")[2]: part for path, part in inner.items() if "." in path}
    if groups:
        _check_group(groups, state.inner)
    for name, part in inner.items():
        if name not in groups and hasattr(state, name):
            check_fits(_with_held(part, state), getattr(state, name))


def _with_held(tx: GradientTransformation, state: Any) -> GradientTransformation:
    """With the hyperparameters that :func:`gdtx.tunable` keeps in the state."""
    held = getattr(state, "hyperparams", {})
    try:
        return tx.replace(**held) if held else tx
    except (TypeError, ValueError):
        return foreign_state(f"hyperparameters of {tx.signature.name}", held)


def _declared(update: Any) -> Any:
    """What the annotation of its state says, None where there is none or it cannot be resolved."""
    declared = getattr(update, "__annotations__", {}).get("state")
    try:
        return eval(declared, update.__globals__) if isinstance(declared, str) else declared
    except Exception:  # of names that only a type checker resolves
        return None
