"""The places in a traced program where parameters meet data, and what is gathered there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .._errors import fail
from .layers import Layer
from .origins import REARRANGED, Origin
from .programs import inner_program
from .taps import Axes, DenseRule, DiagonalRule, Rule, Window


class Site(NamedTuple):
    """A tap to put in: the block, the rule, and which operand of the equation is the data."""

    block: str
    rule: Rule
    data: int


class Plan(NamedTuple):
    """What to do at the equations of a program: taps by their number, and plans of inner ones.

    `stacked` are the blocks whose parameters a scan slices, if the program is the body of one.
    """

    sites: dict[int, Site]
    inner: dict[int, Plan]
    stacked: frozenset[str] = frozenset()

    def blocks(self) -> set[str]:
        found = {site.block for site in self.sites.values()}
        return found.union(*(plan.blocks() for plan in self.inner.values()))


class Planner:
    """Walks a program and finds the layers of its parameters.

    Args:
        examples: the size of the axis of examples.
        sharing: of dense layers, see :func:`tap_dense`.
        fallback: paths of parameters that are left without a tap.
    """

    def __init__(self, examples: int, sharing: str, fallback: Sequence[str]):
        self.examples = examples
        self.sharing = sharing
        self.fallback = set(fallback)
        self.layers: dict[str, Layer] = {}

    def plan(self, jaxpr: Any, origins: dict[Any, Origin], data: set[Any]) -> Plan:
        """The plan of a program some of whose variables are parameters, and some data."""
        origins, data = dict(origins), set(data)
        biases: dict[int, str] = {}
        plan = Plan({}, {})
        for i, eqn in enumerate(jaxpr.eqns):
            found = [_get(origins, var) for var in eqn.invars]
            if any(_get(data, var) for var in eqn.invars):
                data |= set(eqn.outvars)
            if not any(found):
                continue
            name = eqn.primitive.name
            if name in REARRANGED:
                origin = REARRANGED[name](found[0], eqn.invars[0].aval.shape, eqn.params)
                if origin is not None:
                    origins[eqn.outvars[0]] = origin
                else:
                    self.unknown(found[0], name)
            elif name in INNER:
                plan.inner[i] = INNER[name](self, eqn, found, [_get(data, v) for v in eqn.invars])
            elif i not in biases:
                site = self.site(jaxpr, i, found, origins, data, biases)
                if site is not None:
                    plan.sites[i] = site
        for var in jaxpr.outvars:
            if origin := _get(origins, var):
                self.unknown(origin, "the model's return")
        return plan

    def unknown(self, origin: Origin, operation: str, why: str = "") -> None:
        """Raise, unless the parameter may be left without a tap."""
        if origin.path not in self.fallback:
            fail(
                ValueError,
                f"the use of {origin.path} in {operation} is none of a layer that is known{why} "
                "(dense, convolution, scale or shift of data): name it in fallback, and it is left "
                "out of the curvature",
            )

    def site(
        self, jaxpr: Any, i: int, found: list[Origin | None], origins: dict[Any, Origin],
        data: set[Any], biases: dict[int, str],
    ) -> Site | None:  # fmt: skip
        """The tap for an equation with a parameter among its operands."""
        eqn = jaxpr.eqns[i]
        name = eqn.primitive.name
        which = [k for k, origin in enumerate(found) if origin]
        origin = found[which[0]]
        assert origin is not None
        if origin.path in self.fallback:
            return None
        other = 1 - which[0]
        if len(which) > 1 or name not in KNOWN or not _get(data, eqn.invars[other]):
            return self.unknown(origin, name)
        made = KNOWN[name](self, eqn, origin, which[0])
        if made is None:
            return None
        layer, rule, features = made
        if isinstance(rule, DenseRule) and features is not None:
            bias = _bias_of(jaxpr, i, features, origins)
            if bias is not None and bias[1] not in self.fallback:
                biases[bias[0]] = bias[1]
                layer = Layer(**{**vars(layer), "bias": bias[1]})
                rule = DenseRule(**{**vars(rule), "bias": True})
        self.add(layer)
        return Site(layer.weight, rule, other)

    def split(
        self, shape: tuple[int, ...], rows: Sequence[int]
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The axis of examples among the rows, the first of its size, and those of shared uses."""
        axis = next((k for k in rows if shape[k] == self.examples), None)
        if axis is None:
            return (), tuple(rows)
        return (axis,), tuple(k for k in rows if k != axis)

    def add(self, layer: Layer) -> None:
        for known in self.layers.values():
            if known != layer and set(known.paths) & set(layer.paths):
                fail(
                    ValueError,
                    f"{layer.weight} is used in two ways, {known} and {layer}: name it in "
                    "fallback, and it is left out of the curvature",
                )
        self.layers[layer.weight] = layer


Made = tuple[Layer, Rule, tuple[int, ...] | None]


def _dense(planner: Planner, eqn: Any, origin: Origin, which: int) -> Made | None:
    (lhs, rhs), batch = eqn.params["dimension_numbers"]
    ours, theirs = ((lhs, batch[0]), (rhs, batch[1]))[:: 1 if which == 0 else -1]
    weight, x = eqn.invars[which].aval, eqn.invars[1 - which].aval
    free = [k for k in range(weight.ndim) if k not in ours[0] and k not in ours[1]]
    rows = [k for k in range(x.ndim) if k not in theirs[0] and k not in theirs[1]]
    used = [*ours[0], *ours[1], *(k for k in free if weight.shape[k] != 1)]
    if any(origin.axes[k] is None for k in used):
        return planner.unknown(origin, "dot_general", " (some of it is repeated or merged)")
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
    examples, shared = planner.split(x.shape, rows)
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
        sharing=planner.sharing,
    )
    return layer, rule, outputs


def _convolution(planner: Planner, eqn: Any, origin: Origin, which: int) -> Made | None:
    params, axes = eqn.params, origin.axes
    groups = params["feature_group_count"] != 1 or params["batch_group_count"] != 1
    if which == 0 or groups or None in axes:
        return planner.unknown(origin, "conv_general_dilated", " (groups are not)")
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
        sharing=planner.sharing,
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


def _diagonal(scale: bool) -> Any:
    def made(planner: Planner, eqn: Any, origin: Origin, which: int) -> Made | None:
        shape = eqn.outvars[0].aval.shape
        places = {axis: k for k, axis in enumerate(origin.axes) if axis is not None}
        rest = [k for k in range(len(shape)) if k not in places.values()]
        examples, _ = planner.split(shape, rest)
        if not examples:
            return planner.unknown(origin, eqn.primitive.name, " (it has no axis of examples)")
        axes = tuple(places[axis] for axis in sorted(places))
        rule = DiagonalRule(scale, axes, examples[0])
        return Layer("scale" if scale else "shift", origin.path), rule, None

    return made


KNOWN: dict[str, Any] = {
    "dot_general": _dense,
    "conv_general_dilated": _convolution,
    "mul": _diagonal(scale=True),
    "add": _diagonal(scale=False),
    "sub": _diagonal(scale=False),
}


def _bias_of(
    jaxpr: Any, i: int, features: tuple[int, ...], origins: dict[Any, Origin]
) -> tuple[int, str] | None:
    """The equation after this one that adds a parameter along just its features, if one does."""
    var, places = jaxpr.eqns[i].outvars[0], list(features)
    known = dict(origins)
    for k, eqn in enumerate(jaxpr.eqns[i + 1 :], start=i + 1):
        name = eqn.primitive.name
        sources = [_get(known, v) for v in eqn.invars]
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


def _get(known: Any, var: Any) -> Any:
    """What is known of a variable; of a literal nothing is."""
    if hasattr(var, "val"):
        return None
    return var in known if isinstance(known, set) else known.get(var)


def _same_program(planner: Planner, eqn: Any, found: list[Any], data: list[Any]) -> Plan:
    """A program that is called with these operands."""
    jaxpr = inner_program(eqn).jaxpr
    return planner.plan(
        jaxpr,
        {var: origin for var, origin in zip(jaxpr.invars, found, strict=True) if origin},
        {var for var, is_data in zip(jaxpr.invars, data, strict=True) if is_data},
    )


def _scanned(planner: Planner, eqn: Any, found: list[Any], data: list[Any]) -> Plan:
    """The body of a scan: parameters are constants, or sliced along their first axis."""
    jaxpr = inner_program(eqn).jaxpr
    consts, carry = eqn.params["num_consts"], eqn.params["num_carry"]
    origins, sliced = {}, set()
    for k, (var, origin) in enumerate(zip(jaxpr.invars, found, strict=True)):
        if origin is None:
            continue
        if consts <= k < consts + carry or (k >= consts and origin.axes[0] is None):
            planner.unknown(origin, "scan", " (it is carried, or not sliced along an axis of its)")
            continue
        if k >= consts:
            first, *rest = origin.axes
            origin = origin._replace(axes=tuple(rest), sliced=(*origin.sliced, first))
            sliced.add(origin.path)
        origins[var] = origin
    # What is carried may become data in a later turn.
    carried = set(jaxpr.invars[consts : consts + carry])
    inputs = {var for var, is_data in zip(jaxpr.invars, data, strict=True) if is_data}
    plan = planner.plan(jaxpr, origins, inputs | carried)
    return plan._replace(stacked=frozenset(plan.blocks() & sliced))


INNER = {
    "scan": _scanned,
    "remat2": _same_program,
    "checkpoint": _same_program,
    "remat": _same_program,
    "custom_jvp_call": _same_program,
    "custom_vjp_call": _same_program,
    "custom_vjp_call_jaxpr": _same_program,
}
