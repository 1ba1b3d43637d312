"""What links that divide by curvature have in common beside it: placement, and a fallback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from ..core.sharding import placed_as, whole
from ..core.transformation import GradientTransformation
from ..core.tree import PyTree
from .blocks import without
from .curvature import Curvature
from .model.layers import Layer, leaves_by_path


def in_place(
    step: Callable[..., Any],
    leaves: dict[str, jax.Array],
    state: tuple[Any, ...],
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

    results = placed_as(tuple(likes), flat, leaves, state, curvature, *numbers)
    new, *kept = structure.unflatten(results)
    return new, *jax.tree.map(whole, kept)


def rest_of(
    fallback: GradientTransformation,
    layers: tuple[Layer, ...],
    updates: PyTree,
    state: PyTree,
    params: PyTree,
    extra_args: dict[str, Any],
) -> tuple[dict[str, Any], PyTree]:
    """What the fallback makes of the parameters that no layer has."""
    if params is not None:
        params = without(params, layers)
    new, state = fallback.update(without(updates, layers), state, params, **extra_args)
    return leaves_by_path(new), state
