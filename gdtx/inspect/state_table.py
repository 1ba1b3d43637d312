"""What a transformation keeps, as a table: every buffer with its shape and its bytes."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import jax
from jax.sharding import NamedSharding, Sharding

from ..core.calls.signature import Signature
from ..core.errors import summarize
from ..core.transformation import GradientTransformation
from ..core.trees.structs import placed_structs
from ..core.trees.tree import PyTree
from .find import Buffer, buffers, holds_states

_HEADER = ("buffer", "leaf", "shape", "dtype", "bytes", "sharding")
_RIGHT = {"bytes"}


class StateRow(NamedTuple):
    """One array of a state.

    `buffer` is the path that :func:`gdtx.find` takes, `leaf` the path of the parameter below it,
    and `path` what Python writes after `state` to reach the array. `sharding` is None where it is
    not known.
    """

    buffer: str
    leaf: str
    path: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    sharding: Sharding | None

    @property
    def device_bytes(self) -> int:
        """Bytes on one device."""
        if self.sharding is None or not self.shape:
            return self.bytes
        local = math.prod(self.sharding.shard_shape(self.shape))
        return self.bytes * local // max(math.prod(self.shape), 1)


@dataclass(frozen=True, repr=False)
class StateTable:
    """The arrays of a state, as data in `rows`, and as a table for terminals and notebooks.

    Args:
        title: what the state belongs to.
        rows: one for each array.
        parameters: how many numbers are trained.
        max_rows: how many rows to show, the largest; None shows all.
    """

    title: str
    rows: tuple[StateRow, ...]
    parameters: int
    max_rows: int | None = None

    @property
    def bytes(self) -> int:
        """Of the whole state."""
        return sum(row.bytes for row in self.rows)

    @property
    def bytes_per_parameter(self) -> float:
        """Of the whole state, for each number trained; 0 where there is none."""
        return self.bytes / self.parameters if self.parameters else 0.0

    @property
    def branches(self) -> dict[str, int]:
        """Bytes by named branch: by path up to its first name."""
        totals: dict[str, int] = {}
        for row in self.rows:
            branch = _branch(row.buffer)
            totals[branch] = totals.get(branch, 0) + row.bytes
        return totals

    def __repr__(self) -> str:
        title = textwrap.fill(self.title, 100, subsequent_indent="    ")
        if not self.rows:
            return f"{title}\n\n{self._summary()}"
        cells = [_HEADER, *map(_cells, self._shown()), *self._totals()]
        kept = [i for i, name in enumerate(_HEADER) if any(line[i] for line in cells[1:])]
        lines = _aligned([[line[i] for i in kept] for line in cells], [_HEADER[i] for i in kept])
        end = len(lines) - len(self.branches)
        omitted = [self._omitted()] if self._omitted() else []
        return "\n".join([title, "", *lines[:end], *omitted, "", *lines[end:], "", self._summary()])

    def _repr_html_(self) -> str:
        head = _html_row("th", _HEADER)
        body = "".join(_html_row("td", _cells(row)) for row in self._shown())
        if self._omitted():
            body += f'<tr><td colspan="{len(_HEADER)}">{self._omitted()}</td></tr>'
        foot = "".join(_html_row("td", line) for line in self._totals())
        table = (
            '<table style="border-collapse:collapse;white-space:nowrap">'
            f"<thead>{head}</thead><tbody>{body}</tbody>"
            f'<tbody style="border-top:1px solid">{foot}</tbody></table>'
        )
        title = f"<code>{html.escape(self.title)}</code>"
        return f"<div>{title}{table if self.rows else ''}<div>{self._summary()}</div></div>"

    def _shown(self) -> list[StateRow]:
        if self.max_rows is None or len(self.rows) <= self.max_rows:
            return list(self.rows)
        order = sorted(range(len(self.rows)), key=lambda i: -self.rows[i].bytes)
        return [self.rows[i] for i in sorted(order[: self.max_rows])]

    def _omitted(self) -> str:
        more = len(self.rows) - len(self._shown())
        return f"and {more} more, none of them larger" if more else ""

    def _totals(self) -> list[tuple[str, ...]]:
        return [(name, "", "", "", f"{size:,}", "") for name, size in self.branches.items()]

    def _summary(self) -> str:
        line = (
            f"{self.bytes:,} bytes, {self.bytes_per_parameter:.2f} for each of "
            f"{self.parameters:,} parameters"
        )
        on_device = sum(row.device_bytes for row in self.rows)
        return line if on_device == self.bytes else f"{line}; {on_device:,} on each device"


def state_table(
    tx: GradientTransformation, params: PyTree, max_rows: int | None = None
) -> StateTable:
    """Every array that a transformation would keep for these parameters; allocates nothing.

    Args:
        tx: any transformation.
        params: tree of arrays or of `jax.ShapeDtypeStruct`, such as `jax.eval_shape` returns.
        max_rows: how many rows to show, the largest; all by default. Totals are always of all.

    Returns:
        A table that prints in a terminal, shows in a notebook, and holds its `rows`, `bytes`,
        `bytes_per_parameter` and bytes by `branches`. Shardings are those that `init` gives the
        state of parameters sharded so.

    Raises:
        TypeError: if `tx` is not a transformation, or a state comes in place of the parameters.

    >>> import gdtx, jax.numpy as jnp
    >>> table = gdtx.state_table(gdtx.adam(1e-3), {"w": jnp.zeros((8, 4)), "b": jnp.zeros(4)})
    >>> table.bytes_per_parameter.__round__(2), table.branches
    (8.22, {'0.mu': 148, '0.nu': 148})
    """
    tx = Signature(state_table, schedules=False).bind((tx, params), {})["tx"]
    if holds_states(params):
        raise TypeError(f"state_table: params must be the parameters, got {summarize(params)}")
    state = placed_structs(tx.init, params)
    rows = tuple(row for buffer in buffers(state) for row in _rows(buffer))
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    return StateTable(repr(tx), rows, parameters, max_rows)


def _rows(buffer: Buffer) -> Iterator[StateRow]:
    for path, array in jax.tree_util.tree_flatten_with_path(buffer.tree)[0]:
        leaf = jax.tree_util.keystr(path)
        size = math.prod(array.shape) * array.dtype.itemsize
        code = buffer.code + leaf
        dtype = array.dtype.name
        yield StateRow(buffer.path, leaf, code, array.shape, dtype, size, array.sharding)


def _branch(path: str) -> str:
    parts = path.split(".")
    names = [i for i, part in enumerate(parts) if not part.isdigit()]
    return ".".join(parts[: names[0] + 1] if names else parts)


def _cells(row: StateRow) -> tuple[str, ...]:
    placed = "" if row.sharding is None else _sharding_text(row.sharding)
    return row.buffer, row.leaf, str(row.shape), row.dtype, f"{row.bytes:,}", placed


def _sharding_text(sharding: Sharding) -> str:
    if isinstance(sharding, NamedSharding):
        return f"P({', '.join(map(repr, sharding.spec))})"
    devices = sorted(sharding.device_set, key=lambda device: device.id)
    return ", ".join(f"{device.platform}:{device.id}" for device in devices)


def _aligned(lines: Iterable[Iterable[str]], header: Iterable[str]) -> list[str]:
    table, header = [list(line) for line in lines], list(header)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if name in _RIGHT else cell.ljust(width)
            for cell, width, name in zip(line, widths, header, strict=True)
        ).rstrip()
        for line in table
    ]


def _html_row(tag: str, cells: Iterable[str]) -> str:
    written = []
    for cell, name in zip(cells, _HEADER, strict=True):
        side = "right" if name in _RIGHT else "left"
        written.append(
            f'<{tag} style="text-align:{side};padding:2px 8px">{html.escape(cell)}</{tag}>'
        )
    return f"<tr>{''.join(written)}</tr>"
