"""The curvature that a link keeps: averages of factors, and the eigenbases computed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from ..core.errors import fail, summarize
from ..core.numbers.norms import is_finite
from ..core.numbers.numerics import cast, compute_dtype, increment
from ..core.trees.layout import holding
from ..core.trees.sharding import sharded_zeros, sharding_of, with_spec
from ..core.trees.short import in_short
from ..core.trees.tree import PyTree, scalar_like, statistic_like, varying_like
from ..links.fraction import first_moment
from .curvature import Curvature, means_of
from .factors import Eigenbasis, Factors, divide, eigenbases
from .model.infer import infer_layers
from .model.layers import Layer
from .model.statistics import zeros

Layout = Sequence[Layer] | None
"""The layers of a model; None for what the parameters let one expect."""


@in_short
class BlocksState(NamedTuple):
    """What is known of all blocks.

    Updates done, and those since the bases were computed; the averages of statistics, and those of
    scales and shifts as they came out last; the eigenbases in use; how often one could not be
    computed.
    """

    step: jax.Array
    age: jax.Array
    statistics: PyTree
    diagonals: dict[str, jax.Array]
    bases: dict[str, Eigenbasis]
    failures: jax.Array


def layers_of(layout: Layout, leaves: Mapping[str, Any]) -> tuple[Layer, ...]:
    """The layers given, checked to be of these parameters, or those that they let one expect."""
    if layout is None:
        return infer_layers(leaves)
    if not (isinstance(layout, tuple | list) and all(isinstance(x, Layer) for x in layout)):
        fail(
            TypeError,
            "layout must be a tuple of layers, as model.layout(params, inputs) of "
            f"model = kfac.capture(...) gives it, got {summarize(layout)}",
        )
    for layer in layout:
        for path in layer.paths:
            if path not in leaves:
                fail(ValueError, f"layout has {layer}, there is no parameter {path!r}")
        axes, ndim = layer.batch + layer.inputs + layer.outputs, leaves[layer.weight].ndim
        if layer.kind == "dense" and sorted(axes) != list(range(ndim)):
            fail(ValueError, f"layout has {layer}, the parameter has {ndim} axes")
    return tuple(layout)


def blocks_layout(decay: Any) -> Any:
    """Where in the state of the blocks that of the averages lies."""
    return holding(BlocksState, statistics=first_moment(decay))


def first_blocks(layers: tuple[Layer, ...], leaves: Mapping[str, Any], decay: Any) -> BlocksState:
    """The state before the first curvature."""
    params = list(leaves.values())
    factors, diagonals = {}, {}
    for layer in layers:
        empty = zeros(layer, leaves)
        empty = {name: _on_devices_of(leaves[layer.weight], x) for name, x in empty.items()}
        if layer.kind == "dense":
            factors[layer.weight] = {name: empty[name] for name in ("A", "S")}
        else:
            diagonals[layer.weight] = empty["D"]
    empty = {"factors": factors, "diagonals": diagonals}
    return BlocksState(
        scalar_like(params, 0, jnp.int32),
        # Longer ago than any cadence: the first curvature that comes gives bases.
        scalar_like(params, jnp.iinfo(jnp.int32).max, jnp.int32),
        # All of it, its count too: what is not finite is not counted.
        jax.tree.map(lambda x: varying_like(params, x), first_moment(decay).init(empty)),
        {block: _unknown(D) for block, D in diagonals.items()},
        {
            block: Eigenbasis(
                _unknown(pair["A"]), _unknown(pair["A"].sum(-1)),
                _unknown(pair["S"]), _unknown(pair["S"].sum(-1)),
            )
            for block, pair in factors.items()
        },
        statistic_like(params, 0, jnp.int32),
    )  # fmt: skip


def _on_devices_of(weight: jax.Array, zeros: jax.Array) -> jax.Array:
    """The same zeros where a weight is, all of them on each of its devices.

    A factor is decomposed as a whole, and its rows are more than the weight's where that has a
    bias.
    """
    where = sharding_of(weight)
    if isinstance(where, NamedSharding):
        where = with_spec(where, [], zeros.ndim)
    return sharded_zeros(zeros.shape, zeros.dtype, where, weight)


def _unknown(zeros: jax.Array) -> jax.Array:
    """Nothing that could be taken for a result."""
    return jnp.full_like(zeros, jnp.nan)


def advance(
    state: BlocksState,
    curvature: Curvature | None,
    layers: tuple[Layer, ...],
    leaves: Mapping[str, Any],
    decay: Any,
    inverse_every: Any,
) -> tuple[BlocksState, jax.Array]:
    """The next state, and whether its bases are new."""
    # By their age and not by the step, because curvature may come on some steps only.
    due = state.age >= inverse_every
    step, age = increment(state.step), increment(state.age)
    if curvature is None:
        return state._replace(step=step, age=age), jnp.zeros_like(due)
    means = means_of(curvature, layers, leaves)
    averaged, statistics = first_moment(decay).update(means, state.statistics)
    # What is not finite would stay in the averages for ever.
    usable = is_finite(means)

    def kept(new: Any, old: Any) -> Any:
        return jax.tree.map(lambda x, y: jnp.where(usable, x, y), new, old)

    bases, failed = jax.lax.cond(
        due,
        lambda: _refreshed(averaged["factors"], state.bases, jnp.zeros_like(state.failures)),
        lambda: (state.bases, jnp.zeros_like(state.failures)),
    )
    return BlocksState(
        step,
        jnp.where(due, 1, age),
        kept(statistics, state.statistics),
        kept(averaged["diagonals"], state.diagonals),
        bases,
        state.failures + failed,
    ), due


def precondition(
    state: BlocksState,
    layers: tuple[Layer, ...],
    leaves: Mapping[str, jax.Array],
    damping: Any,
    values: Mapping[str, jax.Array],
) -> dict[str, jax.Array]:
    """The updates of all layers divided by their curvature, of which `values` are eigenvalues."""
    found = {}
    for layer in layers:
        if layer.kind == "dense":
            matrix = layer.matrix(leaves)
            new = divide(state.bases[layer.weight], values[layer.weight], matrix)
            found |= layer.leaves(new, leaves)
        else:
            u = leaves[layer.weight]
            diagonal = state.diagonals[layer.weight]
            found[layer.weight] = cast(u, compute_dtype(u.dtype)) / (diagonal + damping)
    return found


def _refreshed(
    factors: Factors, old: dict[str, Eigenbasis], failed: jax.Array
) -> tuple[dict[str, Eigenbasis], jax.Array]:
    """New bases, and how many more could not be computed: there the old one stays."""
    bases = {}
    for block, new in eigenbases(factors).items():
        good = is_finite(new)
        bases[block] = jax.tree.map(lambda x, y, good=good: jnp.where(good, x, y), new, old[block])
        failed = failed + (~good).astype(jnp.int32)
    return bases, failed
