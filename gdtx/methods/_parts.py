"""Expressions that several methods share."""

from __future__ import annotations

from typing import Any

import jax

from ..core.combine import chain, join, plus
from ..core.errors import fail
from ..core.select import partition
from ..core.transformation import GradientTransformation
from ..core.trees.tree import PyTree, leaf_path
from ..links.arithmetic import scale
from ..links.correction import bias_correction
from ..links.matrix.axes import axes_of, fail_without_matrices
from ..links.moments import ema


def nesterov_mean(b1: Any, dtype: Any = None) -> GradientTransformation:
    r"""$\beta_1 m_t / (1 - \beta_1^{t+1}) + (1 - \beta_1) g_t / (1 - \beta_1^t)$."""
    return join(
        plus,
        ahead=chain(ema(b1, dtype=dtype), bias_correction(b1, ahead=1), scale(b1)),
        now=chain(bias_correction(b1), scale(1 - b1)),
    )


def with_named_matrices(
    hidden: GradientTransformation, matrices: Any, others: Any
) -> GradientTransformation:
    """`hidden` of the arrays that `matrices` names, and `others` of all others.

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
