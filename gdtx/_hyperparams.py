"""Hyperparameters by path: read, replaced, turned into arrays, swept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from ._call import Call
from ._errors import at_work, describe
from ._fits import check_fits
from ._kinds import is_array, rounded
from ._transformation import GradientTransformation, ScheduledState
from ._tree import PyTree

C = TypeVar("C", bound=Call)
R = TypeVar("R")


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
    with at_work("hyperparams"):
        return values_at(tx, state)


def values_at(tx: GradientTransformation, state: PyTree, ago: int = 0) -> dict[str, Any]:
    """Hyperparameters by path, schedules as of the next update or of one some updates `ago`."""
    if state is not None:
        check_fits(tx, state)
    return _values(tx, state, ago)


def _values(tx: GradientTransformation, state: PyTree, ago: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    current: dict[str, Any] = {}
    schedules = tx.signature.scheduled(tx.arguments)
    if schedules and isinstance(state, ScheduledState):
        step = jnp.maximum(state.step - ago, 0)
        current = {name: jnp.asarray(rule(step)) for name, rule in schedules.items()}
        state = state.inner
    for path, name, value in tx.parts():
        if isinstance(value, GradientTransformation):
            # What `tunable` holds in its state is what is used, not what it was made with.
            held = _unboxed(getattr(state, "hyperparams", {}))
            used = value.replace(**held) if held else value
            inner = _values(used, _state_of(tx, path, name, value, state), ago) | held
            found |= {f"{path}.{below}": item for below, item in inner.items()}
        elif tx.signature.is_scalar(name) or (
            tx.signature.kind(name) is not None and isinstance(value, int)
        ):
            found[path] = current.get(name, value)
    return found


def _kept(tree: PyTree, state: PyTree) -> dict[str, Any]:
    """The hyperparameters that parts of a tree keep by path."""

    def keeps(part: Any) -> bool:
        return isinstance(getattr(part, "hyperparams", None), dict)

    kept = [_unboxed(part.hyperparams) for part in jax.tree.leaves(tree, keeps) if keeps(part)]
    if state is not None or not kept:
        raise TypeError(
            "hyperparams: tx must be a transformation, or alone a state in which tunable keeps "
            f"hyperparameters, got {describe(tree)} (of any other state: hyperparams(tx, state))"
        )
    found: dict[str, Any] = {}
    for path in {path: None for part in kept for path in part}:
        values = tuple(part[path] for part in kept if path in part)
        found[path] = values if len(values) > 1 else next(iter(values))
    return found


def _unboxed(held: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays by path, of which a framework may have put each into a container of its own."""
    return {path: jax.tree.leaves(value)[0] for path, value in held.items()}


def replace(call: C, changes: Mapping[str, Any]) -> C:
    """The same transformation or schedule with some hyperparameters changed.

    Args:
        call: a transformation or a schedule.
        changes: from paths, as in :func:`hyperparams`, to new values. The arguments of a schedule
            are reached too: `"learning_rate.init_value"`.

    Returns:
        A new transformation or schedule, checked like one made by hand. A number in the place of an
        array is an array like it, so that nothing is compiled again. Of a path and one below it
        both count: the new call is changed in its turn.

    Raises:
        TypeError: for an unknown path; the message lists the known ones.

    >>> import gdtx
    >>> tx = gdtx.chain(gdtx.clip(1.0), gdtx.adamax(gdtx.constant_schedule(0.1)))
    >>> gdtx.replace(tx, {"0.max_delta": 2.0, "1.learning_rate.value": 0.5})
    ... # doctest: +NORMALIZE_WHITESPACE
    chain(clip(max_delta=2.0),
          adamax(learning_rate=constant_schedule(value=0.5), b1=0.9, b2=0.999, eps=1e-08))
    """
    return call.replace(**changes)


def as_arrays(tx: C, *names: str) -> C:
    """Turn constants into runtime values, so that changing them compiles nothing again.

    A value is set by :func:`replace` or the transformation's own `replace`: an array stays an
    array. The way back to a constant is to make the transformation anew.

    Args:
        tx: a transformation.
        *names: paths of hyperparameters, as in :func:`hyperparams`; all scalar ones by default,
            those of schedules included.

    Returns:
        The same transformation with arrays in place of numbers: float32, or float64 where that is
        enabled, whatever the dtype of the parameters.

    Raises:
        TypeError: for an unknown path, or for one that does not lead to a number.

    >>> import gdtx, jax
    >>> tx = gdtx.as_arrays(gdtx.adam(1e-3), "learning_rate")
    >>> tx
    adam(learning_rate=Array(0.001, dtype=float32), b1=0.9, b2=0.999, eps=1e-08, eps_root=0.0)
    >>> tx.replace(learning_rate=1e-4)
    adam(learning_rate=Array(0.0001, dtype=float32), b1=0.9, b2=0.999, eps=1e-08, eps_root=0.0)
    """
    return replace(tx, numbers(tx, *names))


def numbers(tx: Call, *names: str) -> dict[str, jax.Array]:
    """Scalar hyperparameters as arrays, by path: those named, or all that are numbers.

    Not weakly typed, so that any float of their dtype may take their place in a program.
    """
    scalars = {path: each for path, each in _scalars(tx).items() if _is_number(each[0])}
    for name in names:
        if name not in scalars:
            raise TypeError(
                f"{tx.signature.name}: {name!r} is not the path of a number; those are "
                f"{', '.join(scalars)}"
            )
    dtype = jnp.result_type(float)
    return {
        path: jnp.asarray(value if is_array(value) else rounded(value, dtype, kind), dtype)
        for path, (value, kind) in scalars.items()
        if not names or path in names
    }


def sweep(
    train: Callable[[GradientTransformation], R],
    tx: GradientTransformation,
    settings: Mapping[str, Any],
) -> R:
    """Train with many settings at once, as one program over a batch of transformations.

    Args:
        train: function of a transformation, that JAX can trace.
        tx: the transformation whose hyperparameters are swept.
        settings: from paths, as in :func:`hyperparams`, to as many values each; the i-th of all
            make the i-th setting.

    Returns:
        What `train` returns, with a leading axis over the settings.

    Raises:
        ValueError: if the numbers of values differ.

    >>> import gdtx, jax, jax.numpy as jnp
    >>> def train(tx):
    ...     theta, state = jnp.ones(()), tx.init(jnp.ones(()))
    ...     for _ in range(10):
    ...         updates, state = tx.update(theta, state)
    ...         theta = gdtx.apply_updates(theta, updates)
    ...     return theta
    >>> gdtx.sweep(train, gdtx.sgd(0.1), {"learning_rate": [0.0, 1.0]})
    Array([1., 0.], dtype=float32)
    """
    values = {path: jnp.asarray(column) for path, column in settings.items()}
    lengths = {path: len(column) for path, column in values.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"sweep: every setting needs as many values as the others, got {lengths}")
    replace(tx, values)  # what is wrong with them is known now, and not of tracers
    return jax.jit(jax.vmap(lambda one: train(replace(tx, one))))(values)


def _scalars(call: Call) -> dict[str, tuple[Any, Any]]:
    """Scalar hyperparameters by path, each with its kind."""
    found = {}
    for path, name, value in call.parts():
        if isinstance(value, Call):
            found |= {f"{path}.{below}": each for below, each in _scalars(value).items()}
        elif call.signature.is_scalar(name):
            found[path] = value, call.signature.kind(name)
    return found


def _is_number(value: Any) -> bool:
    return is_array(value) or (isinstance(value, int | float) and not isinstance(value, bool))


def _state_of(
    tx: GradientTransformation, path: str, name: str, value: Any, state: PyTree
) -> PyTree:
    """The part of a state of `tx` that belongs to the transformation given under this path.

    Chains keep a tuple in the order of the links, joins a dict by branch, groups a dict by label,
    and wrappers a field with the name of the argument. Of others it is looked for in the formula,
    and if that has no such part, the state is the inner transformation's own.
    """
    if state is None:
        return None
    if isinstance(state, tuple) and path.isdigit():
        return state[int(path)]
    if isinstance(state, dict) and name in state:
        return state[name]
    if hasattr(state, name) and not isinstance(state, ScheduledState):
        return getattr(state, name)
    groups = getattr(state, "inner", None)
    if path != name and isinstance(groups, dict):
        return {f"{name}.{label}": group for label, group in groups.items()}.get(path)
    try:
        formula = tx.body(tx.arguments)
    except (TypeError, ValueError):  # of a factory that needs numbers where schedules are
        return state
    return next(_states_within(formula, value, state), state)


def _states_within(formula: Any, wanted: GradientTransformation, state: PyTree) -> Iterator[PyTree]:
    """The states of a transformation that a formula is made of."""
    if formula == wanted:
        yield state
    elif isinstance(formula, GradientTransformation):
        state = state.inner if isinstance(state, ScheduledState) else state
        for path, name, value in formula.parts():
            if isinstance(value, GradientTransformation):
                below = _state_of(formula, path, name, value, state)
                yield from _states_within(value, wanted, below)
