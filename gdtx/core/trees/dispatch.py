"""Functions that run as one compiled program where no array is traced."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import numpy as np
from jax.core import Tracer

from ..calls.call import merge, split
from ..numbers.values import is_array

P = ParamSpec("P")
R = TypeVar("R")


def one_program(f: Callable[P, R]) -> Callable[P, R]:
    """Compile `f` where no array is traced: once for each structure of its trees and constants.

    Run one by one, operations on arrays that several processes share are programs of their own,
    and processes that come to them in different orders wait for each other, for ever. Whatever is
    no array is a constant, of arguments and of results; an argument that is returned is not copied.
    """

    function: Callable[..., R] = f

    @functools.partial(jax.jit, static_argnames="layout")
    def compiled(leaves: list[Any], layout: Any) -> _Results:
        args, kwargs = merge(leaves, layout)
        results, structure = split(function(*args, **kwargs), is_array)
        place = {id(leaf): i for i, leaf in enumerate(leaves)}
        places = [place.get(id(x)) for x in results]
        new = [x for x, at in zip(results, places, strict=True) if at is None]
        return _Results(new, (structure, tuple(places) if len(new) < len(places) else None))

    @functools.wraps(f)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        leaves, layout = split((args, kwargs), _is_runtime)
        if any(issubclass(kind, Tracer) for kind in set(map(type, leaves))):
            return f(*args, **kwargs)
        found, (structure, places) = compiled(leaves, layout=layout)
        if places is not None:
            new = iter(found)
            found = [next(new) if at is None else leaves[at] for at in places]
        return merge(found, structure)

    return call


class _Results(NamedTuple):
    """New arrays, and of what else there is the constants, and the places among the arguments."""

    new: list[Any]
    layout: Any


jax.tree_util.register_pytree_node(
    _Results, lambda both: ((both.new,), both.layout), lambda layout, new: _Results(*new, layout)
)


def _is_runtime(value: Any) -> bool:
    return is_array(value) or isinstance(value, np.generic)
