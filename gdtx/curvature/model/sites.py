"""The places in a traced program where parameters meet data, and what is gathered there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ...core.errors import fail
from .layers import Layer
from .origins import REARRANGED, Origin
from .programs import Program, inner_program, operands_of_scan
from .recognition import KNOWN, Uses, bias_of, get
from .statistics import DenseRule, Rule


class Site(NamedTuple):
    """A tap to put in: the block, the rule, and which operand of the equation is the data."""

    block: str
    rule: Rule
    data: int


class Plan(NamedTuple):
    """A program and what to do at its equations: taps by their number, and plans of inner programs.

    `stacked` are the blocks whose parameters a scan slices, if the program is the body of one.
    """

    program: Program
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
        self.uses = Uses(examples, sharing)
        self.fallback = set(fallback)
        self.layers: dict[str, Layer] = {}

    def plan(self, program: Program, origins: dict[Any, Origin], data: set[Any]) -> Plan:
        """The plan of a program some of whose variables are parameters, and some data."""
        jaxpr = program.jaxpr
        origins, data = dict(origins), set(data)
        biases: dict[int, str] = {}
        plan = Plan(program, {}, {})
        for i, eqn in enumerate(jaxpr.eqns):
            found = [get(origins, var) for var in eqn.invars]
            if any(get(data, var) for var in eqn.invars):
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
                plan.inner[i] = INNER[name](self, eqn, found, [get(data, v) for v in eqn.invars])
            elif i not in biases:
                site = self.site(jaxpr, i, found, origins, data, biases)
                if site is not None:
                    plan.sites[i] = site
        for var in jaxpr.outvars:
            if origin := get(origins, var):
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
        if len(which) > 1 or name not in KNOWN or not get(data, eqn.invars[other]):
            return self.unknown(origin, name)
        made = KNOWN[name](self.uses, eqn, origin, which[0])
        if isinstance(made, str):
            return self.unknown(origin, name, made)
        layer, rule, features = made
        if isinstance(rule, DenseRule) and features is not None:
            bias = bias_of(jaxpr, i, features, origins)
            if bias is not None and bias[1] not in self.fallback:
                biases[bias[0]] = bias[1]
                layer = Layer(**{**vars(layer), "bias": bias[1]})
                rule = DenseRule(**{**vars(rule), "bias": True})
        self.add(layer)
        return Site(layer.weight, rule, other)

    def add(self, layer: Layer) -> None:
        for known in self.layers.values():
            if known != layer and set(known.paths) & set(layer.paths):
                fail(
                    ValueError,
                    f"{layer.weight} is used in two ways, {known} and {layer}: name it in "
                    "fallback, and it is left out of the curvature",
                )
        self.layers[layer.weight] = layer


def _same_program(planner: Planner, eqn: Any, found: list[Any], data: list[Any]) -> Plan:
    """A program that is called with these operands."""
    program = inner_program(eqn)
    inputs = program.jaxpr.invars
    return planner.plan(
        program,
        {var: origin for var, origin in zip(inputs, found, strict=True) if origin},
        {var for var, is_data in zip(inputs, data, strict=True) if is_data},
    )


def _scanned(planner: Planner, eqn: Any, found: list[Any], data: list[Any]) -> Plan:
    """The body of a scan: parameters are constants, or sliced along their first axis."""
    program = inner_program(eqn)
    jaxpr, (consts, carry) = program.jaxpr, operands_of_scan(eqn, program)
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
    plan = planner.plan(program, origins, inputs | carried)
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
