"""Layers that are stacked in one array, trained as the layers they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import jax

from ..core.calls.kinds import Kind
from ..core.calls.types import TransformationLike
from ..core.errors import fail
from ..core.factory import transformation
from ..core.transformation import GradientTransformation
from ..core.trees.choice import is_rules
from ..core.trees.paths import first_matches, leaf_paths
from ..core.trees.stacking import layers_along
from ..core.trees.tree import PyTree
from ..formula import Expression, Reader, formula_of


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_axes(value: Any) -> bool:
    return _is_count(value) or (is_rules(value) and all(_is_count(n) for _, n in value))


_Axes = Annotated[
    int | Sequence[tuple[str, int]],
    Kind("a number of axes or a list of pairs of a pattern and such a number", _is_axes),
]


@transformation(quiet=True)
def stacked(inner: TransformationLike, axes: _Axes) -> GradientTransformation:
    r"""Transform arrays that are stacks of layers as those layers.

    For models whose layers are one array each, with a leading axis that counts them, as `jax.vmap`
    makes and `jax.lax.scan` takes them. What looks at a whole array in `inner` (norms and ratios of
    an array, clips, means, factored moments, matrices and their blocks) then looks at one layer:
    the result is that of each layer as an array of its own, to rounding, in a program that does not
    grow with their number. State has the sizes of the layers', with the same leading axes. What
    looks at the whole tree, as :func:`clip_by_global_norm` does, is the same as before, and so is
    what looks at each number.

    Masks, labels and `axes` of matrices that are functions see the shape of one layer, and letters
    of `axes` are those of a layer's axes. Functions of whole trees (:func:`treewise`,
    :func:`recur_tree`) see the arrays as they are. Layers of K-FAC are those of its model.

    Args:
        inner: any transformation.
        axes: how many leading axes count layers: a number for all arrays, or a list of pairs of a
            pattern, as in :func:`masked`, and a number; that of the first pattern that matches, and
            0 where none does.

    Returns:
        A transformation whose state is that of `inner`.

    Raises:
        ValueError: if an array has fewer axes, or a pattern matches no path.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.stacked(gdtx.clip_by_norm(1.0), [("layers/**", 1)])
    >>> updates = {"head": jnp.array([3.0, 4.0]), "layers": jnp.array([[3.0, 4.0], [0.3, 0.4]])}
    >>> tx.update(updates, tx.init(updates))[0]["layers"]
    Array([[0.6, 0.8],
           [0.3, 0.4]], dtype=float32)
    """

    def init(params: PyTree) -> PyTree:
        with layers_along(_numbers(axes, params, "params")):
            return inner.init(params)

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, PyTree]:
        with layers_along(_numbers(axes, updates, "updates")):
            return inner.update(updates, state, params, **extra_args)

    return GradientTransformation(init, update, inner)


@formula_of(stacked)
def _(u: Expression, reader: Reader, inner: GradientTransformation) -> Expression:
    return reader.read(inner, u)  # the formula is that of one array


def _numbers(axes: Any, tree: PyTree, what: str) -> dict[str, int]:
    """By path, how many leading axes of the arrays count layers."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    if _is_count(axes):
        counts = [axes] * len(leaves)
    else:
        firsts = first_matches(axes, leaf_paths(tree))
        counts = [0 if first is None else axes[first][1] for first in firsts]
    found = {}
    for (path, x), n in zip(leaves, counts, strict=True):
        name = jax.tree_util.keystr(path)
        if x.ndim < n:
            shape = f"has shape {tuple(x.shape)}"
            fail(ValueError, f"{what}{name} {shape}, where axes says that {n} axes count layers")
        found[name] = n
    return {name: n for name, n in found.items() if n}
