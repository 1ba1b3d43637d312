"""What an update may be called with: arguments that fit each other, and whether all are at hand."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from enum import Enum
from typing import (
    Any,
)

import jax
import numpy as np
from jax.core import Tracer

from .calls.call import Signature
from .errors import call_with, fail, summarize
from .numbers.values import is_array
from .trees.tree import PyTree, check_arrays, check_shapes, leaves_as


def check_call(updates: PyTree, state: PyTree, params: PyTree) -> None:
    check_arrays(updates, "updates")
    if params is None:
        return
    structure = jax.tree.structure(updates)
    if jax.tree.structure(params) != structure == jax.tree.structure(state):
        fail(
            ValueError,
            "state and params are swapped: call update(updates, state, params)",
        )
    check_arrays(params, "params")
    leaves = leaves_as(structure, params, "params", "updates")
    if not _per_example(updates, leaves):
        check_shapes(updates, leaves, "parameter")


def _per_example(updates: PyTree, params: list[Any]) -> bool:
    """Whether all updates have one axis before those of their parameters. A first link may make
    one of each; those that need the parameters' shapes look for themselves."""
    shapes = [u.shape for u in jax.tree.leaves(updates)]
    batches = {shape[:1] for shape in shapes}
    return len(batches) == 1 and all(
        shape[1:] == p.shape and shape for shape, p in zip(shapes, params, strict=True)
    )


def accepted(update: Callable[..., Any], extra_args: Mapping[str, Any]) -> dict[str, Any]:
    """The extra arguments that this function names, all if it takes any."""
    parameters = list(inspect.signature(update).parameters.values())[3:]
    for parameter in parameters:
        required = parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
        if required and parameter.name not in extra_args:
            fail(
                TypeError,
                f"needs the extra argument {parameter.name!r}: {call_with(parameter.name)}",
            )
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return dict(extra_args)
    names = {parameter.name for parameter in parameters}
    return {name: value for name, value in extra_args.items() if name in names}


def check_scalars(signature: Signature, arguments: Mapping[str, Any]) -> None:
    for name, value in arguments.items():
        # Only where it is used, because a batch of values is what `jax.vmap` is given.
        if signature.is_scalar(name) and is_array(value) and value.shape != ():
            came = f"{summarize(value)} (map over it with jax.vmap)"
            fail(ValueError, f"{name} must be a scalar, got {came}")


def _is_array_type(kind: type) -> bool:
    return issubclass(kind, jax.Array | np.ndarray | np.generic | Tracer)


def is_runtime(value: Any) -> bool:
    return is_array(value) or (
        isinstance(value, int | float | complex | np.generic) and not isinstance(value, bool)
    )


def _is_plain(value: Any) -> bool:
    return is_runtime(value) or isinstance(value, bool | str)


class Dispatch(Enum):
    """How a compiled function may be called."""

    NO = "not at all"
    TRACED = "as a part of another program"
    RUN = "with arrays that are at hand"


def dispatch(arrays: PyTree, others: PyTree) -> Dispatch:
    """With nothing but arrays where arrays belong; where some are traced, with nothing beside them
    in which there may be others, such as functions."""
    types = set(map(type, jax.tree.leaves(arrays)))
    others = jax.tree.leaves(others)
    is_traced = any(issubclass(kind, Tracer) for kind in {*types, *map(type, others)})
    if not all(map(_is_array_type, types)) or (is_traced and not all(map(_is_plain, others))):
        return Dispatch.NO
    return Dispatch.TRACED if is_traced else Dispatch.RUN
