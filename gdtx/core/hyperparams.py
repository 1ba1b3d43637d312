"""Hyperparameters by path: replaced, turned into arrays, swept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from .calls.call import Call
from .calls.kinds import rounded
from .numbers.values import is_array
from .transformation import GradientTransformation

C = TypeVar("C", bound=Call)
R = TypeVar("R")


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
    >>> print(gdtx.replace(tx, {"0.max_delta": 2.0, "1.learning_rate.value": 0.5}))
    chain(clip(2.0), adamax(constant_schedule(0.5)))
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
    >>> print(tx)
    adam(Array(0.001, dtype=float32))
    >>> print(tx.replace(learning_rate=1e-4))
    adam(Array(0.0001, dtype=float32))
    """
    return replace(tx, numbers(tx, *names))


def numbers(tx: Call, *names: str) -> dict[str, jax.Array]:
    """Scalar hyperparameters as arrays, by path: those named, or all that are numbers.

    Not weakly typed, so that any float of their dtype may take their place in a program.
    """
    found = {path: each for path, each in scalars(tx).items() if _is_number(each[0])}
    for name in names:
        if name not in found:
            raise TypeError(
                f"{tx.signature.name}: {name!r} is not the path of a number; those are "
                f"{', '.join(found)}"
            )
    dtype = jnp.result_type(float)
    return {
        path: jnp.asarray(value if is_array(value) else rounded(value, dtype, kind), dtype)
        for path, (value, kind) in found.items()
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
    replace(tx, values)  # errors are found now, because tracers have no values to check
    return jax.jit(jax.vmap(lambda one: train(replace(tx, one))))(values)


def scalars(call: Call) -> dict[str, tuple[Any, Any]]:
    """Scalar hyperparameters by path, each with its kind."""
    found = {}
    for path, name, value in call.parts():
        if isinstance(value, Call):
            found |= {f"{path}.{below}": each for below, each in scalars(value).items()}
        elif call.signature.is_scalar(name):
            found[path] = value, call.signature.kind(name)
    return found


def _is_number(value: Any) -> bool:
    return is_array(value) or (isinstance(value, int | float) and not isinstance(value, bool))
