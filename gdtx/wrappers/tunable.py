"""Hyperparameters kept in the state, for programs in which the transformation is static."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from .._errors import check_state
from .._hyperparams import numbers
from .._transformation import GradientTransformation, transformation
from .._tree import PyTree, scalar_like


class TunableState(NamedTuple):
    """State of a transformation whose hyperparameters may be set: their values by path."""

    hyperparams: dict[str, jax.Array]
    inner: PyTree


@transformation
def tunable(inner: GradientTransformation, *names: str) -> GradientTransformation:
    r"""Keep hyperparameters in the state, where :func:`set_hyperparams` changes them.

    For programs that hold the transformation as a constant, such as flax's `TrainState`. Elsewhere
    :func:`as_arrays` does the same without a wrapper.

    Args:
        inner: any transformation.
        *names: paths of hyperparameters, as in :func:`hyperparams`; all that are numbers by
            default. Integers and booleans that are no scalars, and functions, stay as they are.

    Returns:
        A transformation whose state holds the values, in float32 (float64 where that is enabled)
        whatever the dtype of the parameters, and the state of `inner`.

    Raises:
        TypeError: from `init`, for a path that does not lead to a number.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.tunable(gdtx.sgd(0.5), "learning_rate")
    >>> state = tx.init(jnp.ones(1))
    >>> state = gdtx.set_hyperparams(state, learning_rate=0.25)
    >>> tx.update(jnp.ones(1), state)[0]
    Array([-0.25], dtype=float32)
    """

    def init(params: PyTree) -> TunableState:
        values = numbers(inner, *names)
        held = {path: scalar_like(params, value, value.dtype) for path, value in values.items()}
        return TunableState(held, inner.replace(**held).init(params))

    def update(
        updates: PyTree, state: TunableState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, TunableState]:
        check_state(state, TunableState)
        tx = inner.replace(**state.hyperparams)
        updates, inner_state = tx.update(updates, state.inner, params, **extra_args)
        return updates, TunableState(state.hyperparams, inner_state)

    return GradientTransformation(init, update)


def set_hyperparams(state: PyTree, **values: Any) -> PyTree:
    """A state with new values of the hyperparameters that :func:`tunable` keeps in it.

    Args:
        state: any tree with a :class:`TunableState` in it: a transformation's state, a flax
            `TrainState`.
        **values: new values by path, numbers or scalar arrays.

    Returns:
        The same tree with those values, in the dtype and on the devices of the old ones: a jitted
        step is not compiled again.

    Raises:
        TypeError: for a path that no part of the state keeps; the message lists those it does.

    >>> import gdtx, jax.numpy as jnp
    >>> state = gdtx.tunable(gdtx.adam(0.1)).init(jnp.ones(1))
    >>> gdtx.set_hyperparams(state, b1=0.5).hyperparams["b1"]
    Array(0.5, dtype=float32)
    """
    parts, structure = jax.tree.flatten(state, is_leaf=_is_tunable)
    kept = [path for part in parts if _is_tunable(part) for path in part.hyperparams]
    for path in values:
        if path not in kept:
            raise TypeError(
                f"set_hyperparams: the state keeps no hyperparameter {path!r}; it keeps "
                f"{', '.join(kept) or 'none: wrap the transformation in tunable'}"
            )
    return structure.unflatten(
        [_set(part, values) if _is_tunable(part) else part for part in parts]
    )


def _is_tunable(part: Any) -> bool:
    return isinstance(part, TunableState)


def _set(state: TunableState, values: dict[str, Any]) -> TunableState:
    held = dict(state.hyperparams)
    for path in held.keys() & values.keys():
        # Mapped, because a framework may have put the array into a container of its own.
        held[path] = jax.tree.map(lambda old, new=values[path]: _like(old, new), held[path])
    return TunableState(held, state.inner)


def _like(old: jax.Array, value: Any) -> jax.Array:
    new = jnp.asarray(value, old.dtype)
    if new.shape != old.shape:
        raise ValueError(f"set_hyperparams: a value must be a scalar, got shape {new.shape}")
    if isinstance(old, Tracer) or isinstance(new, Tracer):
        return new
    return jax.device_put(new, old.sharding) if old.committed else new
