"""Layers recognised by the equation in which a parameter meets data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .layers import Layer
from .origins import Origin
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
"""A layer, what is gathered there, and the output's axes of features if a bias may follow."""


def _dense(uses: Uses, eqn: Any, origin: Origin, which: int) -> Made | str:
    """A product: axes of the weight are summed over, or are a stack, or are left in the output."""
    sides = list(zip(*eqn.params["dimension_numbers"], strict=True))
    (summed, stacked), (x_summed, x_stacked) = sides[which], sides[1 - which]
    weight, x = eqn.invars[which].aval, eqn.invars[1 - which].aval
    left = [k for k in range(weight.ndim) if k not in (*summed, *stacked)]
    rows = [k for k in range(x.ndim) if k not in (*x_summed, *x_stacked)]
    used = [*summed, *stacked, *(k for k in left if weight.shape[k] != 1)]
    if any(origin.axes[k] is None for k in used):
        return " (some of it is repeated or merged)"
    axes = [-1 if axis is None else axis for axis in origin.axes]
    # In the order of the parameter's own axes.
    pairs = sorted(zip(summed, x_summed, strict=True), key=lambda pair: axes[pair[0]])
    features = sorted((k for k in left if axes[k] >= 0), key=axes.__getitem__)
    # The output has the stack first, then what is left of one operand, then of the other.
    n = len(stacked)
    at = {k: place + (0 if which == 0 else len(rows)) for place, k in enumerate(left, n)}
    at_rows = {k: place + (len(left) if which == 0 else 0) for place, k in enumerate(rows, n)}
    ones = tuple(at[k] for k in left if axes[k] < 0)
    outputs = tuple(at[k] for k in features)
    examples, shared = uses.split(x.shape, rows)
    layer = Layer(
        "dense",
        origin.path,
        inputs=tuple(axes[k] for k, _ in pairs),
        outputs=tuple(axes[k] for k in features),
        batch=(*origin.sliced, *(axes[k] for k in stacked)),
    )
    rule = DenseRule(
        Axes(tuple(x_stacked), examples, shared, tuple(k for _, k in pairs)),
        Axes(
            tuple(range(n)),
            tuple(at_rows[k] for k in examples),
            tuple(at_rows[k] for k in shared),
            (*ones, *outputs),
        ),
        bias=False,
        sharing=uses.sharing,
    )
    return layer, rule, outputs


def _convolution(uses: Uses, eqn: Any, origin: Origin, which: int) -> Made | str:
    """A convolution: a product with the patches that the window sees."""
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
    """What multiplies data, or is added to data, number by number."""

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
"""By the name of an equation's operation: the layer that a parameter, the operand with this number,
is there, or why it is none."""
