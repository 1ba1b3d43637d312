"""Statistics of the outputs of matrices, or of whole matrices, one number for each."""

from __future__ import annotations

from typing import Annotated, Any

import jax

from ...core.calls.kinds import one_of
from ...core.calls.types import TransformationLike
from ...core.factory import transformation
from ...core.numbers.norms import mean_within_range
from ...core.numbers.numerics import cast, compute_dtype
from ...core.transformation import GradientTransformation
from ...core.trees.boxes import refilled
from ...core.trees.copies import unlike_params
from ...core.trees.spread import spread
from ...core.trees.tree import PyTree, leaves_as
from ...formula import Expression, Reader, apply, formula_of
from .axes import axes_of, places_of


@transformation
def averaged_over(
    statistic: TransformationLike,
    over: Annotated[str, one_of("i", "o", "io")] = "i",
    axes: Any = "io",
) -> GradientTransformation:
    r"""A statistic of the mean over some axes of each matrix, in the place of all that it is of.

    $u \leftarrow \mathrm{statistic}(\mathrm{mean}(u))$: with `"i"`, the inputs, one number for
    each output, with `"io"` one for each matrix. It is :func:`reduced` for arrays whose axes are
    told by letters.

    Args:
        statistic: of the means.
        over: the letters of the axes to average over, `"i"`, `"o"` or `"io"`.
        axes: what each axis of an array is, as a letter, see :func:`orthogonalize`. Of what is no
            matrix the statistic is of the array as it is.

    Returns:
        A transformation whose state is the statistic's, with axes of length 1 for those.

    Raises:
        ValueError: if the axes of an array are not as many as it has; from `init` already.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.averaged_over(gdtx.running_sum())
    >>> u, state = tx.update(jnp.array([[1.0, 2.0], [3.0, 6.0]]), tx.init(jnp.zeros((2, 2))))
    >>> u
    Array([[2., 4.],
           [2., 4.]], dtype=float32)
    >>> state.buffers["value"].shape
    (1, 2)
    """

    def means(tree: PyTree, like: str) -> PyTree:
        def mean(x: jax.Array, letters: str | None) -> jax.Array:
            x = cast(x, compute_dtype(x.dtype))
            if letters is None or not x.size:
                return x
            places = [place for each in over for place in places_of(letters, each)]
            return mean_within_range(x, tuple(places))

        letters = axes_of(axes, tree, "axes", like)
        return refilled(tree, map(mean, jax.tree.leaves(tree), letters))

    def init(params: PyTree) -> PyTree:
        return statistic.init(means(params, "params"))

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, PyTree]:
        inside = means(updates, "updates")
        found, state = statistic.update(inside, state, None, **extra_args)
        kept = leaves_as(jax.tree.structure(inside), found, "the statistic", "the means")
        leaves, structure = jax.tree.flatten(updates)
        return structure.unflatten(map(spread, kept, leaves)), state

    return GradientTransformation(unlike_params(init), update, statistic)


@formula_of(averaged_over)
def _(u: Expression, reader: Reader, statistic: GradientTransformation, over: str) -> Expression:
    names = ", ".join({"i": r"\mathrm{in}", "o": r"\mathrm{out}"}[letter] for letter in over)
    return reader.read(statistic, apply(rf"\operatorname{{mean}}_{{{names}}}", u))
