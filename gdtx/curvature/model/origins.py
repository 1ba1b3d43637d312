"""Where values of a traced program come from: parameters that were only rearranged, and data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from .programs import is_literal


class Origin(NamedTuple):
    """A value that is one parameter, rearranged.

    `axes` has for each axis of the value the parameter's, or None where there is none or where a
    single number was repeated. `sliced` are the parameter's axes that an outer scan took away.
    """

    path: str
    axes: tuple[int | None, ...]
    sliced: tuple[int, ...] = ()


def _transposed(origin: Origin, shape: tuple[int, ...], params: dict[str, Any]) -> Origin:
    return origin._replace(axes=tuple(origin.axes[axis] for axis in params["permutation"]))


def _broadcast(origin: Origin, shape: tuple[int, ...], params: dict[str, Any]) -> Origin:
    axes: list[int | None] = [None] * len(params["shape"])
    for axis, target in zip(origin.axes, params["broadcast_dimensions"], strict=True):
        axes[int(target)] = axis
    repeated = {
        int(target)
        for size, target in zip(shape, params["broadcast_dimensions"], strict=True)
        if size != params["shape"][int(target)]
    }
    return origin._replace(
        axes=tuple(None if i in repeated else axis for i, axis in enumerate(axes))
    )


def _reshaped(origin: Origin, shape: tuple[int, ...], params: dict[str, Any]) -> Origin | None:
    """Axes of size 1 come and go; others must stay."""
    old = [axis for axis, size in zip(origin.axes, shape, strict=True) if size != 1]
    new = params["new_sizes"]
    if [size for size in shape if size != 1] != [size for size in new if size != 1]:
        return None
    rest = iter(old)
    return origin._replace(axes=tuple(None if size == 1 else next(rest) for size in new))


def _squeezed(origin: Origin, shape: tuple[int, ...], params: dict[str, Any]) -> Origin:
    gone = {axis % len(shape) for axis in params["dimensions"]}
    return origin._replace(axes=tuple(axis for i, axis in enumerate(origin.axes) if i not in gone))


def _same(origin: Origin, shape: tuple[int, ...], params: dict[str, Any]) -> Origin:
    return origin


REARRANGED: dict[str, Callable[[Origin, tuple[int, ...], dict[str, Any]], Origin | None]] = {
    "transpose": _transposed,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshaped,
    "squeeze": _squeezed,
    "convert_element_type": _same,
    "copy": _same,
    "sharding_constraint": _same,
}


class Known:
    """What is known of the variables of one program.

    Args:
        origins: those that are parameters, rearranged.
        data: those that are data, or computed from data.
    """

    def __init__(self, origins: Mapping[Any, Origin], data: Iterable[Any]):
        self.origins = dict(origins)
        self.data = set(data)

    def origin(self, var: Any) -> Origin | None:
        """The parameter that a variable is; a literal is none."""
        return None if is_literal(var) else self.origins.get(var)

    def is_data(self, var: Any) -> bool:
        return not is_literal(var) and var in self.data

    def rearrange(self, eqn: Any, origin: Origin) -> bool:
        """Whether the result of an equation is known to be this parameter, its operand."""
        moved = rearranged(eqn, origin)
        if moved is not None:
            self.origins[eqn.outvars[0]] = moved
        return moved is not None


def rearranged(eqn: Any, origin: Origin) -> Origin | None:
    """The origin of an equation's result, from that of its operand; None if it is lost."""
    return REARRANGED[eqn.primitive.name](origin, eqn.invars[0].aval.shape, eqn.params)
