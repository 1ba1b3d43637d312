"""Strips of arrays in pieces, and tables of which piece belongs to which device's blocks.

A strip is what a device has of an array that is cut along one axis, and a piece is what of it is in
one block. All is known when a program is made.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from .blocks import Part

Layout = dict[str, list[Part]]


class Tables(NamedTuple):
    """For a stack of blocks and each device, the places of pieces; what is past the end is zeros.

    With the pieces of its strips in one array, `sent` are those for each other device; in what came
    from all of them, and after it those of arrays that are whole on every device, `arrived` are
    those of its blocks. On the way back `returned` are those of its blocks for each other device,
    `received` those of its strips, and `shared` those of arrays that are whole.
    """

    piece: tuple[int, ...]
    sent: np.ndarray
    arrived: np.ndarray
    returned: np.ndarray
    received: np.ndarray
    shared: np.ndarray


def strip_axis(dims: tuple[int, ...]) -> int:
    """Along which axis an array is cut into strips, on any mesh.

    The one that most powers of two divide, up to 512; of several the shortest: then most blocks
    have a piece on each device.
    """
    return min(range(len(dims)), key=lambda i: (-math.gcd(dims[i], 512), dims[i]))


def cut_leaves(layout: Layout, devices: int) -> frozenset[int]:
    """Which arrays come in strips.

    The others, which do not divide or only into many small pieces, are whole on every device.
    """
    parts = [part for members in layout.values() for part in members]

    def is_even(part: Part) -> bool:
        a = strip_axis(part.dims)
        rows, rest = divmod(part.dims[a], devices)
        u = math.gcd(rows, part.starts[a], part.sizes[a])
        return rest == 0 and part.sizes[a] // u <= _MOST * devices

    return frozenset(part.leaf for part in parts) - {p.leaf for p in parts if not is_even(p)}


def count(part: Part, is_cut: bool, piece: tuple[int, ...], devices: int) -> int:
    """How many pieces a device has of what comes to it of an array, in a strip or whole."""
    a = strip_axis(part.dims)
    along = part.dims[a] // devices if is_cut else part.counts[a] * part.sizes[a]
    return along // piece[a] * math.prod(part.counts[i] for i in range(len(part.dims)) if i != a)


@functools.lru_cache(maxsize=1024)
def tables(members: tuple[Part, ...], cut: frozenset[int], devices: int) -> Tables:
    """Of a stack of these blocks, of arrays of which these are cut."""
    a, sizes = strip_axis(members[0].dims), members[0].sizes
    rows = [p.dims[a] // devices for p in members if p.leaf in cut]
    starts = [p.starts[a] for p in members if p.leaf in cut]
    u = math.gcd(sizes[a], *rows, *starts)
    piece = (*sizes[:a], u, *sizes[a + 1 :])
    # For each piece of each block: whose strip it is from, and its place there.
    source, place, strips, wholes = [], [], 0, 0
    for part in members:
        is_cut = part.leaf in cut
        grid = np.indices(part.counts).reshape(len(sizes), -1)
        others = [i for i in range(len(sizes)) if i != a]
        width = math.prod(part.counts[i] for i in others)
        other = np.zeros_like(grid[a])
        for i in others:
            other = other * part.counts[i] + grid[i]
        row = grid[a][:, None] * (sizes[a] // u) + np.arange(sizes[a] // u)
        if is_cut:
            row = row + part.starts[a] // u
            per_device = part.dims[a] // devices // u
            source.append(row // per_device)
            place.append(strips + row % per_device * width + other[:, None])
            strips += count(part, True, piece, devices)
        else:
            source.append(np.full_like(row, -1))
            place.append(wholes + row * width + other[:, None])
            wholes += count(part, False, piece, devices)
    return Tables(
        piece, *_places(np.concatenate(source), np.concatenate(place), strips, wholes, devices)
    )


def _places(
    source: np.ndarray, place: np.ndarray, strips: int, wholes: int, devices: int
) -> list[np.ndarray]:
    n, parts = source.shape
    own = -(-n // devices)
    to = np.broadcast_to(np.arange(n)[:, None] // own, source.shape)
    at = np.arange(n)[:, None] % own * parts + np.arange(parts)
    is_cut = source >= 0
    # In which place a piece is of all that go from one device to another.
    s, d = source[is_cut], to[is_cut]
    key = s * devices + d
    order = np.argsort(key, kind="stable")
    counts = np.bincount(key, minlength=devices * devices)
    most = int(counts.max(initial=0))
    rank = np.empty_like(key)
    rank[order] = np.arange(len(key)) - np.repeat(np.cumsum(counts) - counts, counts)
    sent = np.full((devices, devices, most), strips)
    sent[s, d, rank] = place[is_cut]
    returned = np.full((devices, devices, most), own * parts)
    returned[d, s, rank] = at[is_cut]
    received = np.full((devices, strips), devices * most)
    received[s, place[is_cut]] = d * most + rank
    arrived = np.full((devices, own * parts), devices * most + wholes)
    arrived[d, at[is_cut]] = s * most + rank
    arrived[to[~is_cut], at[~is_cut]] = devices * most + place[~is_cut]
    shared = np.full((devices, wholes), own * parts)
    shared[to[~is_cut], place[~is_cut]] = at[~is_cut]
    tables = sent, arrived.reshape(devices, own, parts), returned, received, shared
    return [table.astype(np.int32) for table in tables]


_MOST = 16
"""Pieces of a block, for each device: a table has a place for every piece."""
