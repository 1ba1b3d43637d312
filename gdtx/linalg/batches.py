"""Many matrices through one call: those of one size, some at a time, one after the other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..core.trees.dealing import after, dealer, first_number
from ..core.trees.sharding import map_shards, spread_sharding


def apply_by_size(
    f: Callable[..., tuple[Any, ...]],
    *columns: list[jax.Array],
    names: Sequence[str] | None = None,
) -> list[tuple[jax.Array, ...]]:
    """`f` of stacks of matrices, called once for all stacks of matrices of one size and dtype.

    It returns a tuple of arrays with one entry for each matrix. Stacks with a grid of blocks, which
    may be on several devices, have a call each; with `names`, those of matrices that are dealt
    (:func:`~gdtx.core.trees.dealing.alike`), so have those of each name, one after the other.
    """
    places: dict[Any, list[int]] = {}
    for i, stack in enumerate(columns[0]):
        is_cut = math.prod(stack.shape[1:-2]) > 1
        name = names and names[i]
        key = i if is_cut else None, name, stack.shape[-2:], stack.dtype
        places.setdefault(key, []).append(i)
    results: list[Any] = [None] * len(columns[0])
    last = None
    for members in places.values():
        stacks = [[column[i] for i in members] for column in columns]
        if names and last is not None:
            stacks = after(results[last][0], stacks)
        last = members[-1]
        if len(members) == 1:
            results[last] = f(*(each[0] for each in stacks))
            continue
        flat = [[x.reshape(-1, *x.shape[-2:]) for x in each] for each in stacks]
        joined = f(*map(jnp.concatenate, flat))
        leads = [columns[0][i].shape[:-2] for i in members]
        split = zip(*(_split(x, leads) for x in joined), strict=True)
        for i, parts in zip(members, split, strict=True):
            results[i] = parts
    return results


def in_batches(f: Callable[..., Any], batch_size: int | None) -> Callable[..., Any]:
    """`f` of stacks of matrices, about so many matrices at a time, all for None.

    What it needs beside its results is then that of as many, or of all blocks of one array if these
    are more.
    """

    def one(arrays: tuple[jax.Array, ...]) -> Any:
        return jax.tree.map(lambda x: x[0], f(*(x[None] for x in arrays)))

    def batched(*stacks: jax.Array) -> Any:
        n, blocks = len(stacks[0]), math.prod(stacks[0].shape[1:-2])
        at_once = n if batch_size is None else max(1, batch_size // blocks)
        if n <= at_once:
            return f(*stacks)
        # In equal batches if that makes them not much smaller: a rest is a program of its own.
        equal = max(size for size in range(1, at_once + 1) if n % size == 0)
        at_once = equal if 2 * equal >= at_once else at_once
        return jax.lax.map(one, stacks, batch_size=at_once)

    return batched


def recompute(
    f: Callable[..., tuple[Any, ...]], batch_size: int, failures: jax.Array, *columns: Any
) -> tuple[list[tuple[jax.Array, ...]], jax.Array]:
    """`f` of matrices, which decomposes them, and the number of failures with those of this call.

    It returns a tuple of arrays, the last of which says whether a matrix is good. A CPU's programs
    take one matrix after the other, see :mod:`gdtx.linalg.decompositions`: for single matrices all
    that `f` does is less to compile, and is the same code for every stack. Each device computes the
    blocks that it has; of stacks that are dealt, only these, and none but the number of failures
    goes from one to another.
    """

    def at_once(failures: jax.Array, *columns: Any) -> Any:
        found = apply_by_size(in_batches(f, batch_size), *columns)
        return found, failures + sum(jnp.sum(~each[-1], dtype=failures.dtype) for each in found)

    scanned = _scanned(f)

    def of_blocks(*stacks: jax.Array) -> Any:
        return scanned(None, *stacks)[1]

    def one_by_one(failures: jax.Array, *columns: Any) -> Any:
        found = []
        for stacks in zip(*columns, strict=True):
            where = spread_sharding(stacks[0], stacks[0].ndim - 2)
            if where is None:
                failures, results = scanned(failures, *stacks)
            else:
                results = map_shards(where, of_blocks, *stacks)
                failures = failures + jnp.sum(~results[-1], dtype=failures.dtype)
            found.append(results)
        return found, failures

    to = dealer(columns)
    if to is None:
        return jax.lax.platform_dependent(failures, *columns, cpu=one_by_one, default=at_once)

    def local(columns: Any) -> Any:
        return jax.lax.platform_dependent(
            *columns,
            cpu=lambda *columns: [
                scanned(None, *stacks)[1] for stacks in zip(*columns, strict=True)
            ],
            default=lambda *columns: apply_by_size(in_batches(f, batch_size), *columns),
        )

    found = to.work(local, columns)
    return found, failures + sum(jnp.sum(~each[-1], dtype=failures.dtype) for each in found)


def _scanned(f: Callable[..., tuple[Any, ...]]) -> Callable[..., Any]:
    """`f` of one matrix after the other: from failures, if they are to be counted, and stacks."""

    # One function for all stacks: those of one size are then traced and lowered once.
    def step(failures: jax.Array | None, matrices: tuple[jax.Array, ...]) -> Any:
        grid = matrices[0].shape[:-2]
        results = f(*(x.reshape(x.shape[-2:]) for x in matrices))
        if failures is not None:
            failures = failures + (~results[-1]).astype(failures.dtype)
        return failures, tuple(x.reshape(*grid, *x.shape) for x in results)

    def scanned(failures: jax.Array | None, *stacks: jax.Array) -> Any:
        lead = stacks[0].shape[:-2]
        if math.prod(lead[1:]) > 1:
            stacks = tuple(x.reshape(-1, *x.shape[-2:]) for x in stacks)
        failures, results = jax.lax.scan(step, failures, stacks)
        skipped = stacks[0].ndim - 2
        return failures, tuple(x.reshape(*lead, *x.shape[skipped:]) for x in results)

    return scanned


def _split(joined: jax.Array, leads: list[tuple[int, ...]]) -> list[jax.Array]:
    """The first so many, the next so many, and so on, each in the shape that it had."""
    starts = [0, *itertools.accumulate(lead[0] for lead in leads[:-1])]
    return [
        jax.lax.dynamic_slice_in_dim(joined, start, lead[0]).reshape(*lead, *joined.shape[1:])
        for start, lead in zip(runtime_places(starts, first_number(joined)), leads, strict=True)
    ]


def runtime_places(places: list[int], witness: jax.Array | None) -> list[Any]:
    """Places in a stack, kept from the compiler if they are many.

    On a CPU what is taken from a place that is known is a kernel of its own, 30 ms to compile;
    where places are data, one kernel takes all. Compilers fold every constant but what a branch
    returns, so there is one, of two that are the same, on the sign of `witness`, any number.
    """

    def known(*_: jax.Array) -> tuple[jax.Array, ...]:
        # Unsigned: a place that might be negative takes three operations more.
        return tuple(jnp.asarray(place, jnp.uint32) for place in places)

    def unknown(witness: jax.Array) -> tuple[jax.Array, ...]:
        return jax.lax.cond(witness >= 0, known, known)

    if witness is None or len(places) < _MANY:
        return list(places)
    return list(jax.lax.platform_dependent(witness, cpu=unknown, default=known))


_MANY = 8
