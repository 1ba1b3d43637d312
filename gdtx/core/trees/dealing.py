"""Whole matrices dealt to the devices along some mesh axes, for work that needs them whole.

Of a matrix that is cut over a mesh the compiler brings all parts together on every device, and each
does the same work on it. Here each device is sent some of the matrices instead, works on these
alone, and what it made goes back to where it is asked for.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ..errors import fail
from ..numbers.layers import is_of_layer
from .paths import leaf_paths


class Dealer(NamedTuple):
    """To which devices matrices are dealt: those along these axes of a mesh.

    For use where the axes are automatic, as they are inside of
    :func:`~gdtx.core.trees.sharding.shard_like` on explicit meshes too.
    """

    mesh: Any
    names: tuple[str, ...]

    @property
    def devices(self) -> int:
        """How many of them there are."""
        return math.prod(self.mesh.shape[name] for name in self.names)

    def padded(self, n: int) -> int:
        """The next number of matrices of which all devices have as many."""
        return -(-n // self.devices) * self.devices

    def sharding(self, ndim: int) -> NamedSharding:
        """Of arrays of so many axes that are dealt: along the first."""
        return NamedSharding(self.mesh, PartitionSpec(self.names, *[None] * (ndim - 1)))

    def place(self, stack: jax.Array) -> jax.Array:
        """The stack, of as many matrices for every device, where it is dealt."""
        return jax.lax.with_sharding_constraint(stack, self.sharding(stack.ndim))

    def deal(self, stack: jax.Array) -> jax.Array:
        """The stack, each matrix whole on its device, and after it as many of zeros as it takes.

        One mesh axis after the other: along those over which the stack is cut there is an
        all-to-all each, along the others a device takes of what it has.
        """
        rest = self.padded(len(stack)) - len(stack)
        if rest:
            stack = jnp.concatenate([stack, jnp.zeros((rest, *stack.shape[1:]), stack.dtype)])
        for some in range(len(self.names) + 1):
            stack = self._cut(stack, some)
        return self.place(stack)

    def work(self, f: Callable[..., Any], *dealt: Any) -> Any:
        """`f` of trees of stacks that are dealt, on each device of its own; so are its results."""
        # Where no other axis has devices, none is left to the compiler.
        rest = [name for name in self.mesh.axis_names if name not in self.names]
        alone = all(self.mesh.shape[name] == 1 for name in rest)
        names = self.mesh.axis_names if alone else self.names
        spec = PartitionSpec(self.names)
        return jax.shard_map(
            f, mesh=self.mesh, in_specs=spec, out_specs=spec, axis_names=frozenset(names)
        )(*dealt)

    def collect(self, stack: jax.Array, n: int) -> jax.Array:
        """The first `n` of a stack that is dealt, cut as what is made of them is asked for."""
        for some in reversed(range(len(self.names) + 1)):
            stack = self._cut(stack, some)
        return stack[:n]

    def _cut(self, stack: jax.Array, some: int) -> jax.Array:
        """The first axis over so many of the mesh axes, the others as the compiler finds best.

        Of two axes at once it would make whole stacks on every device.
        """
        free = [PartitionSpec.UNCONSTRAINED] * (stack.ndim - 1)
        spec = PartitionSpec(self.names[:some] or None, *free)
        return jax.lax.with_sharding_constraint(stack, NamedSharding(self.mesh, spec))


class _Said(NamedTuple):
    over: tuple[str, ...]
    mesh: Any


_said: ContextVar[_Said | None] = ContextVar("gdtx_dealing", default=None)


@contextlib.contextmanager
def dealing(over: tuple[str, ...], mesh: Any) -> Iterator[None]:
    """What is called inside deals out its matrices, on this mesh where no array says another."""
    token = _said.set(_Said(over, mesh))
    try:
        yield
    finally:
        _said.reset(token)


def dealer(tree: Any, strict: bool = False) -> Dealer | None:
    """To which devices the matrices in a tree of arrays are dealt; None if they stay.

    They stay where nothing says that they are dealt, on one device, along axes of one device,
    inside of `shard_map`, where each device has matrices of its own, and in a rule that is run on
    one layer of several. `strict` makes an error of it that no mesh is known.
    """
    said = _said.get()
    if said is None or is_of_layer():
        return None
    mesh = _mesh_of(tree, said.mesh)
    if mesh is None:
        if strict and jax.device_count() > 1:
            listed = ", ".join(map(repr, said.over))
            fail(
                ValueError,
                f"no mesh is known that has the axes {listed}: the updates are on none, "
                "jax.set_mesh has set none, and the argument mesh is None",
            )
        return None
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    if set(kinds.values()) == {AxisType.Manual}:
        return None
    for name in said.over:
        if name not in mesh.axis_names:
            has = ", ".join(map(repr, mesh.axis_names))
            fail(ValueError, f"over has {name!r}, which is no axis of the mesh: that has {has}")
    names = tuple(
        name for name in said.over if mesh.shape[name] > 1 and kinds[name] != AxisType.Manual
    )
    return Dealer(mesh, names) if names else None


def _mesh_of(tree: Any, otherwise: Any) -> Any:
    types = [jax.typeof(x).sharding.mesh for x in jax.tree.leaves(tree)]
    known = [mesh for mesh in (*types, jax.sharding.get_abstract_mesh()) if not mesh.empty]
    return known[0] if known else otherwise


def alike(tree: Any) -> list[str] | None:
    """A name for each leaf, the same for those that are most often cut alike: their paths without
    numbers, which are those of layers. None if nothing is dealt.

    Shardings on automatic meshes are known to the compiler only, and stacks of what is cut in
    different ways it makes whole on every device.
    """
    if dealer(tree) is None:
        return None
    return [re.sub(r"\d+", "", path) for path in leaf_paths(tree)]


def deal(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f` of stacks, which takes each matrix by itself, on the devices that they are dealt to."""

    def dealt(*stacks: jax.Array) -> Any:
        to = dealer(stacks)
        if to is None:
            return f(*stacks)
        results = to.work(f, *map(to.deal, stacks))
        return jax.tree.map(lambda x: to.collect(x, len(stacks[0])), results)

    return dealt


def after(done: jax.Array, tree: Any) -> Any:
    """The arrays of a tree, of which the compiler makes none before the array `done` is there.

    So that of several groups of matrices no two are moved and worked on at a time, each of which
    needs memory. It lets go of its own barriers before it orders a program: what holds here is a
    number, of which it does not know that it decides nothing.
    """
    number = first_number(done)
    never = (number > 0) & (number < 0)
    return jax.tree.map(lambda x: jnp.where(never, 0, x), tree)


def first_number(x: jax.Array) -> jax.Array:
    """The first number in an array, of which no more is moved, real."""
    return x[(0,) * x.ndim].real
