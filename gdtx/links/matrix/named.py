"""Methods of matrices that are named, and another method for all other arrays."""

from __future__ import annotations

from typing import Any

import jax

from ...core.errors import fail
from ...core.select import partition
from ...core.transformation import GradientTransformation
from ...core.trees.tree import PyTree, leaf_path
from .axes import axes_of, fail_without_matrices


def with_named_matrices(
    hidden: GradientTransformation, matrices: Any, others: Any
) -> GradientTransformation:
    """`hidden` of the arrays that `matrices` names, and `others` of all others.

    Args:
        hidden: transformation of the matrices.
        matrices: which arrays are matrices, and what their axes are, in any form of `axes` of
            :func:`orthogonalize`: patterns such as `["**/kernel"]`, or False in a tree where an
            array is none. A function of the parameters is also called with those that are no
            matrices left out, as None.
        others: transformation of all other parameters, its learning rate its own; needed if there
            are any.

    Raises:
        ValueError: from `init`, if `matrices` is None or another array has no method.
    """

    def labels(params: PyTree) -> PyTree:
        if matrices is None:
            fail_without_matrices(params, "matrices", "params")
        axes = axes_of(matrices, params, "matrices", "params")
        if others is None and None in axes:
            path = leaf_path(params, axes.index(None))
            fail(
                ValueError,
                f"params{path} is not among the matrices and has no other method: give one, as in "
                "others=adamw(...)",
            )
        return jax.tree.structure(params).unflatten(["matrices" if a else "others" for a in axes])

    rest = {} if others is None else {"others": others}
    return partition({"matrices": hidden, **rest}, labels)
