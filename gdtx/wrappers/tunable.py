"""Hyperparameters kept in the state, for programs in which the transformation is static."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..core.calls.kinds import Kind, PathOfNumber, checked, rounded
from ..core.calls.signature import scalar_kinds
from ..core.calls.types import TransformationLike
from ..core.factory import transformation
from ..core.hyperparams import numbers, scalars
from ..core.transformation import GradientTransformation
from ..core.trees.layout import Held, holding
from ..core.trees.short import in_short
from ..core.trees.tree import PyTree, scalar_like
from ..formula import Expression, Reader, formula_of


@in_short
class TunableState(NamedTuple):
    """State of a transformation whose hyperparameters may be set: their values by path."""

    hyperparams: dict[str, jax.Array]
    inner: PyTree


@transformation
def tunable(inner: TransformationLike, *names: PathOfNumber) -> GradientTransformation:
    r"""Keep hyperparameters in the state, where :func:`set_hyperparams` changes them.

    For programs that hold the transformation as a constant, such as flax's `TrainState`. Elsewhere
    :func:`as_arrays` does the same without a wrapper.

    Args:
        inner: any transformation.
        *names: paths of hyperparameters, as in :func:`hyperparams`; all that are numbers by
            default. Integers and booleans that are no scalars, and functions, stay as they are.

    Returns:
        A transformation whose state holds the values, in float32 (float64 where that is enabled)
        whatever the dtype of the parameters, and the state of `inner`. Of a schedule it holds the
        arguments; what they give now is in `hyperparams(tx, state)`.

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
        _note_kinds(inner, values)
        held = {path: scalar_like(params, value, value.dtype) for path, value in values.items()}
        return TunableState(held, inner.replace(**held).init(params))

    def update(
        updates: PyTree, state: TunableState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, TunableState]:
        _note_kinds(inner, state.hyperparams)
        tx = inner.replace(**state.hyperparams)
        updates, inner_state = tx.update(updates, state.inner, params, **extra_args)
        return updates, TunableState(state.hyperparams, inner_state)

    held = Held(inner, lambda state: state.hyperparams)
    return GradientTransformation(init, update, holding(TunableState, inner=held))


@formula_of(tunable)
def _(u: Expression, reader: Reader, inner: GradientTransformation) -> Expression:
    return reader.read(inner, u)


def set_hyperparams(
    state: PyTree, changes: Mapping[str, Any] | None = None, /, **values: Any
) -> PyTree:
    """A state with new values of the hyperparameters that :func:`tunable` keeps in it.

    Args:
        state: any tree with a :class:`TunableState` in it: a transformation's state, a flax
            `TrainState`. `hyperparams(state)` reads what it keeps.
        changes: new values by path, numbers or scalar arrays.
        **values: the same, of paths that are names.

    Returns:
        The same tree with those values, in the dtype and on the devices of the old ones: a jitted
        step is not compiled again.

    Raises:
        TypeError: for a path that no part of the state keeps, the message lists those it does; for
            a value that is not a real number.
        ValueError: for a number that the hyperparameter may not be. (A state does not know its
            transformation. Where several that have run keep the same paths and differ in what they
            take, it may be any one's; where none has run, it may be what any argument of that name
            takes.)

    >>> import gdtx, jax.numpy as jnp
    >>> state = gdtx.tunable(gdtx.adam(0.1)).init(jnp.ones(1))
    >>> gdtx.set_hyperparams(state, b1=0.5).hyperparams["b1"]
    Array(0.5, dtype=float32)

    Paths with dots come in a dict, as in :func:`replace`:

    >>> state = gdtx.tunable(gdtx.chain(gdtx.sign(), gdtx.sgd(0.1))).init(jnp.ones(1))
    >>> gdtx.set_hyperparams(state, {"1.learning_rate": 0.2}).hyperparams
    {'1.learning_rate': Array(0.2, dtype=float32)}
    """
    values = {**(changes or {}), **values}
    parts, structure = jax.tree.flatten(state, is_leaf=_is_tunable)
    kept = [path for part in parts if _is_tunable(part) for path in part.hyperparams]
    for path in values:
        if path not in kept:
            raise TypeError(
                f"set_hyperparams: the state keeps no hyperparameter {path!r}; it keeps "
                f"{', '.join(kept) or 'none: wrap the transformation in tunable'}"
            )
    keepers = [part.hyperparams for part in parts if _is_tunable(part)]
    new = {path: _checked(path, value, keepers) for path, value in values.items()}
    return structure.unflatten([_set(part, new) if _is_tunable(part) else part for part in parts])


def _is_tunable(part: Any) -> bool:
    return isinstance(part, TunableState)


# By the paths that a state keeps: the kinds that the transformations take under each path.
_kinds: dict[frozenset[str], dict[str, dict[Kind, None]]] = {}


def _note_kinds(inner: GradientTransformation, paths: Iterable[str]) -> None:
    given, known = scalars(inner), _kinds.setdefault(frozenset(paths), {})
    for path in paths:
        if path in given:
            known.setdefault(path, {})[given[path][1]] = None


def _checked(path: str, value: Any, keepers: list[dict[str, Any]]) -> tuple[Any, Kind]:
    """The value as the transformation that has this path takes it, and the kind it takes."""
    label, error = f"set_hyperparams: {path}", None
    if np.shape(value) != ():
        raise ValueError(f"{label} must be a scalar, got shape {np.shape(value)}")
    for held in keepers:
        noted = _kinds.get(frozenset(held), {}).get(path) if path in held else ()
        for kind in scalar_kinds(path.rpartition(".")[2]) if noted is None else noted:
            try:
                return checked(label, value, kind, False, False), kind
            except (TypeError, ValueError) as refused:
                error = error or refused
    raise cast(Exception, error) from None


def _set(state: TunableState, values: dict[str, tuple[Any, Kind]]) -> TunableState:
    held = dict(state.hyperparams)
    for path in held.keys() & values.keys():
        # Mapped, because a framework may have put the array into a container of its own.
        held[path] = jax.tree.map(lambda old, new=values[path]: _like(old, *new), held[path])
    return TunableState(held, state.inner)


def _like(old: jax.Array, value: Any, kind: Kind) -> jax.Array:
    number = value if isinstance(value, jax.Array) else rounded(value, old.dtype, kind)
    new = jnp.asarray(number, old.dtype)
    if isinstance(old, Tracer) or isinstance(new, Tracer):
        return new
    return jax.device_put(new, old.sharding) if old.committed else new
