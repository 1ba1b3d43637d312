"""Statistics of the outputs of matrices, or of whole matrices, one number for each."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import jax

from ...core.calls.kinds import one_of
from ...core.calls.types import TransformationLike
from ...core.factory import transformation
from ...core.numbers.norms import mean_within_range
from ...core.numbers.numerics import cast, compute_dtype
from ...core.transformation import GradientTransformation
from ...core.trees.tree import PyTree
from ...formula import Expression, Reader, apply, formula_of
from ..reduced import of_images, spread_back
from .axes import axes_of, places_of


@transformation(whole=True)
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

    def mean(x: jax.Array, letters: str | None) -> jax.Array:
        x = cast(x, compute_dtype(x.dtype))
        if letters is None or not x.size:
            return x
        places = [place for each in over for place in places_of(letters, each)]
        return mean_within_range(x, tuple(places))

    def means(like: str, tree: PyTree) -> list[jax.Array]:
        return list(map(mean, jax.tree.leaves(tree), axes_of(axes, tree, "axes", like)))

    of_params, of_updates = (partial(means, like) for like in ("params", "updates"))
    return of_images(statistic, of_params, spread_back, of_updates)


@formula_of(averaged_over)
def _(u: Expression, reader: Reader, statistic: GradientTransformation, over: str) -> Expression:
    names = ", ".join({"i": r"\mathrm{in}", "o": r"\mathrm{out}"}[letter] for letter in over)
    return reader.read(statistic, apply(rf"\operatorname{{mean}}_{{{names}}}", u))
