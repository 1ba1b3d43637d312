"""Layers recognised by the equation in which a parameter meets data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .layers import Layer
from .origins import REARRANGED, Origin
from .patches import Window
from .statistics import Axes, DenseRule, DiagonalRule, Rule


class Uses(NamedTuple):
    """How often an example uses a layer: the number of examples, and what to make of others."""

    examples: int
    sharing: str

    def split(
        self, shape: tuple[int, ...], rows: Sequence[int]
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The axis of examples among the rows, the first of its size, and those of shared uses."""
        axis = next((k for k in rows if shape[k] == self.examples), None)
        if axis is None:
            return (), tuple(rows)
        return (axis,), tuple(k for k in rows if k != axis)


Made = tuple[Layer, Rule, tuple[int, ...] | None]
"""A layer, what is gathered there, and the features of its output if a bias may follow."""


def _dense(uses: Uses, eqn: Any, origin: Origin, which: int) -> Made | str:
    (lhs, rhs), batch = eqn.params["dimension_numbers"]
    ours, theirs = ((lhs, batch[0]), (rhs, batch[1]))[:: 1 if which == 0 else -1]
    weight, x = eqn.invars[which].aval, eqn.invars[1 - which].aval
    free = [k for k in range(weight.ndim) if k not in ours[0] and k not in ours[1]]
    rows = [k for k in range(x.ndim) if k not in theirs[0] and k not in theirs[1]]
    used = [*ours[0], *ours[1], *(k for k in free if weight.shape[k] != 1)]
    if any(origin.axes[k] is None for k in used):
        return " (some of it is repeated or merged)"
    axes = [-1 if axis is None else axis for axis in origin.axes]
    # In the order of the parameter's own axes.
    pairs = sorted(zip(ours[0], theirs[0], strict=True), key=lambda pair: axes[pair[0]])
    stack = len(ours[1])
    begin = stack if which == 0 else stack + len(rows)
    places = [begin + k for k in range(len(free))]
    features = sorted(
        (k for k in range(len(free)) if axes[free[k]] >= 0), key=lambda k: axes[free[k]]
    )
    ones = [places[k] for k in range(len(free)) if k not in features]
    rows_of_y = [stack + k + (len(free) if which == 0 else 0) for k in range(len(rows))]
    examples, shared = uses.split(x.shape, rows)
    layer = Layer(
        "dense",
        origin.path,
        inputs=tuple(axes[k] for k, _ in pairs),
        outputs=tuple(axes[free[k]] for k in features),
        batch=(*origin.sliced, *(axes[k] for k in ours[1])),
    )
    at = dict(zip(rows, rows_of_y, strict=True))
    outputs = tuple(places[k] for k in features)
    rule = DenseRule(
        Axes(tuple(theirs[1]), examples, shared, tuple(k for _, k in pairs)),
        Axes(
            tuple(range(stack)),
            tuple(at[k] for k in examples),
            tuple(at[k] for k in shared),
            (*ones, *outputs),
        ),
        bias=False,
        sharing=uses.sharing,
    )
    return layer, rule, outputs


def _convolution(uses: Uses, eqn: Any, origin: Origin, which: int) -> Made | str:
    params, axes = eqn.params, origin.axes
    groups = params["feature_group_count"] != 1 or params["batch_group_count"] != 1
    if which == 0 or groups or None in axes:
        return " (groups are not)"
    lhs, kernel, out = params["dimension_numbers"]
    window = [axes[k] for k in kernel[1:]]  # channels, then space
    order = tuple(sorted(range(len(window)), key=window.__getitem__))
    space = range(1, len(lhs) - 1)
    layer = Layer(
        "dense",
        origin.path,
        inputs=tuple(sorted(window)),
        outputs=(axes[kernel[0]],),
        batch=origin.sliced,
    )
    shape = eqn.invars[1].aval.shape
    rule = DenseRule(
        Axes((), (0,), tuple(space), (len(lhs) - 1,)),
        Axes((), (out[0],), tuple(out[2:]), (out[1],)),
        bias=False,
        sharing=uses.sharing,
        window=Window(
            shape=tuple(shape[k] for k in kernel[2:]),
            strides=tuple(params["window_strides"]),
            padding=tuple(tuple(pair) for pair in params["padding"]),
            lhs_dilation=tuple(params["lhs_dilation"]),
            rhs_dilation=tuple(params["rhs_dilation"]),
            to_front=tuple(lhs),
            order=order,
        ),
    )
    return layer, rule, (out[1],)


def _diagonal(scale: bool) -> Callable[[Uses, Any, Origin, int], Made | str]:
    def made(uses: Uses, eqn: Any, origin: Origin, which: int) -> Made | str:
        shape = eqn.outvars[0].aval.shape
        places = {axis: k for k, axis in enumerate(origin.axes) if axis is not None}
        rest = [k for k in range(len(shape)) if k not in places.values()]
        examples, _ = uses.split(shape, rest)
        if not examples:
            return " (it has no axis of examples)"
        axes = tuple(places[axis] for axis in sorted(places))
        rule = DiagonalRule(scale, axes, examples[0])
        return Layer("scale" if scale else "shift", origin.path), rule, None

    return made


KNOWN: dict[str, Callable[[Uses, Any, Origin, int], Made | str]] = {
    "dot_general": _dense,
    "conv_general_dilated": _convolution,
    "mul": _diagonal(scale=True),
    "add": _diagonal(scale=False),
    "sub": _diagonal(scale=False),
}


def bias_of(
    jaxpr: Any, i: int, features: tuple[int, ...], origins: dict[Any, Origin]
) -> tuple[int, str] | None:
    """The equation after this one that adds a parameter along just its features, if one does."""
    var, places = jaxpr.eqns[i].outvars[0], list(features)
    known = dict(origins)
    for k, eqn in enumerate(jaxpr.eqns[i + 1 :], start=i + 1):
        name = eqn.primitive.name
        sources = [get(known, v) for v in eqn.invars]
        if name in REARRANGED and sources[0]:
            origin = REARRANGED[name](sources[0], eqn.invars[0].aval.shape, eqn.params)
            if origin is not None:
                known[eqn.outvars[0]] = origin
        if var not in [v for v in eqn.invars if not hasattr(v, "val")]:
            continue
        if _uses(jaxpr, var) != 1:
            return None
        if name in REARRANGED:
            # Where the features are now: as if the output were a parameter with these axes.
            marks = tuple(range(eqn.invars[0].aval.ndim))
            moved = REARRANGED[name](Origin("", marks), eqn.invars[0].aval.shape, eqn.params)
            if moved is None or any(place not in moved.axes for place in places):
                return None
            places = [moved.axes.index(place) for place in places]
            var = eqn.outvars[0]
        elif name == "add" and (origin := sources[0] or sources[1]):
            found = [origin.axes[place] for place in places]
            shape = eqn.invars[0 if sources[0] else 1].aval.shape
            rest = [size for place, size in enumerate(shape) if place not in places]
            in_order = None not in found and found == sorted(found)
            return (k, origin.path) if in_order and set(rest) <= {1} else None
        else:
            return None
    return None


def _uses(jaxpr: Any, var: Any) -> int:
    inner = sum(v is var for eqn in jaxpr.eqns for v in eqn.invars)
    return inner + sum(v is var for v in jaxpr.outvars)


def get(known: Any, var: Any) -> Any:
    """What is known of a variable; of a literal nothing is."""
    if hasattr(var, "val"):
        return None
    return var in known if isinstance(known, set) else known.get(var)
