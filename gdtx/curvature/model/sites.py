"""The places in a traced program where parameters meet data, and what is gathered there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ...core.errors import fail
from .biases import bias_of
from .layers import Layer
from .origins import REARRANGED, Known, Origin
from .programs import Program, inner_program, operands_of_scan
from .recognition import KNOWN, Uses
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

    def plan(self, program: Program, known: Known) -> Plan:
        """The plan of a program, of some of whose variables something is known."""
        jaxpr, plan = program.jaxpr, Plan(program, {}, {})
        biases: set[int] = set()
        for i, eqn in enumerate(jaxpr.eqns):
            origin = next(filter(None, map(known.origin, eqn.invars)), None)
            if any(map(known.is_data, eqn.invars)):
                known.data.update(eqn.outvars)
            if origin is None:
                continue
            name = eqn.primitive.name
            if name in REARRANGED:
                if not known.rearrange(eqn, origin):
                    self.refuse(origin, name)
            elif name in INNER:
                plan.inner[i] = INNER[name](self, eqn, known)
            elif i not in biases and (site := self.site(jaxpr, i, known, biases)):
                plan.sites[i] = site
        for var in jaxpr.outvars:
            if origin := known.origin(var):
                self.refuse(origin, "the model's return")
        return plan

    def refuse(self, origin: Origin, operation: str, why: str = "") -> None:
        """Raise, unless the parameter may be left without a tap."""
        if origin.path not in self.fallback:
            fail(
                ValueError,
                f"the use of {origin.path} in {operation} is none of a layer that is known{why} "
                "(dense, convolution, scale or shift of data): name it in fallback, and it is left "
                "out of the curvature",
            )

    def site(self, jaxpr: Any, i: int, known: Known, biases: set[int]) -> Site | None:
        """The tap at an equation with a parameter among its operands.

        The equation that adds the bias of this layer joins `biases`, which need no tap.
        """
        eqn = jaxpr.eqns[i]
        name = eqn.primitive.name
        (which, origin), *others = (
            (k, origin) for k, var in enumerate(eqn.invars) if (origin := known.origin(var))
        )
        if origin.path in self.fallback:
            return None
        data = 1 - which
        if others or name not in KNOWN or not known.is_data(eqn.invars[data]):
            return self.refuse(origin, name)
        found = KNOWN[name](self.uses, eqn, origin, which)
        if isinstance(found, str):
            return self.refuse(origin, name, found)
        layer, rule, features = found
        bias = None if features is None else bias_of(jaxpr, i, features, known)
        if bias is not None and isinstance(rule, DenseRule) and bias.path not in self.fallback:
            biases.add(bias.equation)
            layer, rule = replace(layer, bias=bias.path), replace(rule, bias=True)
        self.add(layer)
        return Site(layer.weight, rule, data)

    def add(self, layer: Layer) -> None:
        """Remember a layer, which must be the same at all its uses."""
        for known in self.layers.values():
            if known != layer and set(known.paths) & set(layer.paths):
                fail(
                    ValueError,
                    f"{layer.weight} is used in two ways, {known} and {layer}: name it in "
                    "fallback, and it is left out of the curvature",
                )
        self.layers[layer.weight] = layer


def _same_program(planner: Planner, eqn: Any, known: Known) -> Plan:
    """A program that is called with these operands."""
    program = inner_program(eqn)
    pairs = list(zip(program.jaxpr.invars, eqn.invars, strict=True))
    origins = {var: origin for var, outer in pairs if (origin := known.origin(outer))}
    return planner.plan(program, Known(origins, [var for var, x in pairs if known.is_data(x)]))


def _scanned(planner: Planner, eqn: Any, known: Known) -> Plan:
    """The body of a scan: parameters are constants, or sliced along their first axis."""
    program = inner_program(eqn)
    inner, (consts, carry) = program.jaxpr.invars, operands_of_scan(eqn, program)
    # What is carried may become data in a later turn.
    data = set(inner[consts : consts + carry])
    origins, sliced = {}, set()
    for k, (var, outer) in enumerate(zip(inner, eqn.invars, strict=True)):
        if known.is_data(outer):
            data.add(var)
        origin = known.origin(outer)
        if origin is None:
            continue
        if consts <= k < consts + carry or (k >= consts and origin.axes[0] is None):
            planner.refuse(origin, "scan", " (it is carried, or not sliced along an axis of its)")
            continue
        if k >= consts:
            first, *rest = origin.axes
            origin = origin._replace(axes=tuple(rest), sliced=(*origin.sliced, first))
            sliced.add(origin.path)
        origins[var] = origin
    plan = planner.plan(program, Known(origins, data))
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
