"""The frame of links that divide by curvature: layers, where state is kept, and a fallback."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from ..core.rules import identity
from ..core.transformation import GradientTransformation
from ..core.trees.copies import unlike_params
from ..core.trees.layout import holding
from ..core.trees.sharding import replicate, shard_like_if_explicit
from ..core.trees.tree import PyTree, leaves_as
from .blocks import Layout, layers_of
from .curvature import Curvature
from .model.layers import Layer, leaves_by_path


def preconditioner(
    state_type: type[Any],
    first: Callable[..., tuple[Any, ...]],
    step: Callable[..., tuple[Any, ...]],
    layout: Layout,
    fallback: GradientTransformation | None,
    numbers: tuple[Any, ...],
    **fields: Any,
) -> GradientTransformation:
    """A transformation of the parameters that layers have; a fallback transforms the others.

    Args:
        state_type: a NamedTuple, whose last field is the state of the fallback.
        first: function of the layers and all parameters by path, that returns the other fields.
        step: function of the layers, their updates by path, those fields, the curvature and the
            numbers, that returns the new updates by path and the new fields.
        layout: the layers, or None for what names and shapes let one expect.
        fallback: transformation of what no layer has, or None to leave it as it is.
        numbers: hyperparameters, which may be arrays.
        **fields: the layouts of those fields that hold states of other transformations.
    """
    other = identity() if fallback is None else fallback

    def init(params: PyTree) -> PyTree:
        leaves = leaves_by_path(params)
        layers = layers_of(layout, leaves)
        rest = _without(layers, leaves, jax.tree.structure(params))
        return state_type(*first(layers, leaves), other.init(rest))

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree = None,
        *,
        curvature: Curvature | None,
        **extra_args: Any,
    ) -> tuple[PyTree, PyTree]:
        *own_fields, kept = state
        leaves, structure = leaves_by_path(updates), jax.tree.structure(updates)
        layers = layers_of(layout, leaves)
        own = {path: leaves[path] for layer in layers for path in layer.paths}
        divide = functools.partial(step, layers)
        new, *own_fields = _in_place(divide, own, own_fields, curvature, *numbers)
        rest = _without(layers, leaves, structure)
        if params is not None:
            values = leaves_as(structure, params, "params", "updates")
            params = _without(layers, dict(zip(leaves, values, strict=True)), structure)
        others, kept = other.update(rest, kept, params, **extra_args)
        others = leaves_as(jax.tree.structure(rest), others, "the fallback's result", "updates")
        paths = (path for path in leaves if path not in own)
        new |= zip(paths, others, strict=True)
        return structure.unflatten([new[path] for path in leaves]), state_type(*own_fields, kept)

    state_layout = holding(state_type, **fields, fallback=other)
    return GradientTransformation(unlike_params(init), update, state_layout)


def _without(layers: Sequence[Layer], leaves: Mapping[str, Any], structure: Any) -> PyTree:
    """The tree with None in place of what the layers have."""
    taken = {path for layer in layers for path in layer.paths}
    return structure.unflatten([None if path in taken else x for path, x in leaves.items()])


def _in_place(
    step: Callable[..., Any],
    leaves: dict[str, jax.Array],
    state: Sequence[Any],
    curvature: Curvature | None,
    *numbers: Any,
) -> Any:
    """What a step makes of leaves and state, which stays on every device, where it was made.

    Left to the compiler, it would move at the first update to where the parameters are that it
    meets, and the second would be compiled anew.
    """
    likes, structure = jax.tree.flatten((leaves, *state))

    def flat(leaves: Any, state: Any, *others: Any) -> Any:
        return tuple(jax.tree.leaves(step(leaves, *state, *others)))

    results = shard_like_if_explicit(tuple(likes), flat, leaves, state, curvature, *numbers)
    new, *kept = structure.unflatten(results)
    return new, *jax.tree.map(replicate, kept)
