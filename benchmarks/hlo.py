"""What a compiled program moves between devices and computes on each, read from its text.

Everything is of one device. What is within a loop counts as often as the loop runs, where the
compiler knows how often; what is within a conditional is kept apart, as the most of its branches.
"""

from __future__ import annotations

import collections
import functools
import math
import re
from typing import Any, NamedTuple

COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")
DECOMPOSITIONS = ("syevd", "heevd", "gesdd", "geqrf", "potrf")
PRODUCTS, DECOMPOSED, UNKNOWN = "products", "decompositions", "loops of unknown length"
NUMBER = "collectives"

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_SHAPE = re.compile(r"\b([a-z]+)(\d*)\w*\[([\d,]*)\]")


class Counts(NamedTuple):
    """By kind: bytes that a device receives, operations of products, and numbers of the rest."""

    always: collections.Counter[str]
    sometimes: collections.Counter[str]


class _Instruction(NamedTuple):
    name: str
    result: str
    kind: str
    rest: str


def counts(text: str, devices: int) -> Counts:
    """Of the text of a program compiled for so many devices."""
    computations: dict[str, list[_Instruction]] = {}
    entry = current = ""
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            current = head[1]
            computations[current] = []
            entry = current if line.startswith("ENTRY") else entry
        elif instruction := _INSTRUCTION.match(line):
            computations[current].append(_Instruction(*instruction.groups()))

    @functools.cache
    def of(name: str) -> Counts:
        total = Counts(collections.Counter(), collections.Counter())
        shapes = {each.name: each.result for each in computations[name]}
        for each in computations[name]:
            total.always.update(_own(each, shapes, devices))
            if each.kind == "while":
                trips = re.search(r'known_trip_count":\{"n":"(\d+)"', each.rest)
                _add(total, of(_called(each, "body")), int(trips[1]) if trips else 1)
                total.always[UNKNOWN] += not trips
            elif each.kind == "conditional":
                for kind, most in _most([of(name) for name in _branches(each)]).items():
                    total.sometimes[kind] += most
            elif each.kind in ("fusion", "call", "async-start"):
                _add(total, of(_called(each, "calls|to_apply|called_computation")), 1)
        return total

    return of(entry)


def _add(total: Counts, more: Counts, times: int) -> None:
    for mine, theirs in zip(total, more, strict=True):
        for kind, count in theirs.items():
            mine[kind] += times * count


def _most(branches: list[Counts]) -> collections.Counter[str]:
    most: collections.Counter[str] = collections.Counter()
    for branch in branches:
        most |= branch.always + branch.sometimes
    return most


def _called(instruction: _Instruction, attribute: str) -> str:
    found = re.search(rf"\b(?:{attribute})=%?([\w.\-]+)", instruction.rest)
    assert found, instruction
    return found[1]


def _branches(instruction: _Instruction) -> list[str]:
    many = re.search(r"branch_computations=\{([^}]*)\}", instruction.rest)
    if many:
        return re.findall(r"[\w.\-]+", many[1])
    return [_called(instruction, f"{which}_computation") for which in ("true", "false")]


def _own(each: _Instruction, shapes: dict[str, str], devices: int) -> dict[str, float]:
    """What an instruction does itself."""
    kind = each.kind.removesuffix("-start")
    if kind in COLLECTIVES:
        n = _group(each.rest, devices)
        share = {
            "all-reduce": 2 * (1 - 1 / n), "collective-permute": 1.0, "reduce-scatter": n - 1.0
        }.get(kind, 1 - 1 / n)  # fmt: skip
        return {kind: round(_bytes(each.result) * share), NUMBER: 1}
    if kind == "dot":
        operand = re.match(r"%?([\w.\-]+)", each.rest)
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", each.rest)
        assert operand
        assert contracted
        sizes = _sizes(shapes[operand[1]])
        inner = math.prod(sizes[int(i)] for i in contracted[1].split(",") if i)
        return {PRODUCTS: 2 * math.prod(_sizes(each.result)) * inner}
    if kind == "custom-call" and any(f"{name}_ffi" in each.rest for name in DECOMPOSITIONS):
        return {DECOMPOSED: math.prod(_sizes(each.result)[:-2])}
    return {}


def _group(rest: str, devices: int) -> int:
    """How many devices take part in each group of a collective."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
        return listed[1].count(",") + 1
    if tiled := re.search(r"replica_groups=\[\d+,(\d+)\]<=", rest):
        return int(tiled[1])
    # mesh['a'=4,'b'=2], then perhaps an order of the devices, {'a'}
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\].*?\{([^}]*)\}", rest):
        sizes = dict(re.findall(r"('\w+')=(\d+)", named[1]))
        return math.prod(
            int(part or sizes[axis])
            for axis, part in re.findall(r"('\w+')(?::\(\d+\)(\d+))?", named[2])
        )
    return devices


def _sizes(shape: str) -> list[int]:
    """Of the first array of a type."""
    found = _SHAPE.search(shape)
    assert found, shape
    return [int(n) for n in found[3].split(",") if n]


def _bytes(shape: str) -> int:
    """Of all arrays of a type."""
    total = 0
    for kind, bits, sizes in _SHAPE.findall(shape):
        size = {"pred": 8}.get(kind) or int(bits)
        total += size // 8 * math.prod(int(n) for n in sizes.split(",") if n)
    return total


def moved(count: Any) -> float:
    """Bytes of all collectives."""
    return sum(count[kind] for kind in COLLECTIVES)
