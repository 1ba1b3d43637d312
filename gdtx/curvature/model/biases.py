"""The bias of a layer: a parameter that is added to all that the layer makes."""

from __future__ import annotations

from typing import Any, NamedTuple

from .origins import REARRANGED, Known, Origin, rearranged


class Bias(NamedTuple):
    """The number of the equation that adds a bias, and the bias's path."""

    equation: int
    path: str


def bias_of(jaxpr: Any, i: int, features: tuple[int, ...], known: Known) -> Bias | None:
    """The bias that a later equation adds along just the features of what this one makes."""
    var, places = jaxpr.eqns[i].outvars[0], list(features)
    # Parameters may be rearranged between the two.
    known = Known(known.origins, known.data)
    for k, eqn in enumerate(jaxpr.eqns[i + 1 :], start=i + 1):
        name = eqn.primitive.name
        sources = [known.origin(v) for v in eqn.invars]
        if name in REARRANGED and sources[0]:
            known.rearrange(eqn, sources[0])
        if not any(v is var for v in eqn.invars):
            continue
        if _uses(jaxpr, var) != 1:
            return None
        if name in REARRANGED:
            moved = _moved(eqn, places)
            if moved is None:
                return None
            var, places = eqn.outvars[0], moved
        elif name == "add" and (origin := sources[0] or sources[1]):
            found: list[Any] = [origin.axes[place] for place in places]
            shape = eqn.invars[0 if sources[0] else 1].aval.shape
            rest = [size for place, size in enumerate(shape) if place not in places]
            in_order = None not in found and found == sorted(found)
            return Bias(k, origin.path) if in_order and set(rest) <= {1} else None
        else:
            return None
    return None


def _moved(eqn: Any, places: list[int]) -> list[int] | None:
    """Where these axes are now: as if the operand were a parameter with axes of these numbers."""
    moved = rearranged(eqn, Origin("", tuple(range(eqn.invars[0].aval.ndim))))
    if moved is None or any(place not in moved.axes for place in places):
        return None
    return [moved.axes.index(place) for place in places]


def _uses(jaxpr: Any, var: Any) -> int:
    inner = sum(v is var for eqn in jaxpr.eqns for v in eqn.invars)
    return inner + sum(v is var for v in jaxpr.outvars)
