"""Statistics of matrices kept as their margins: rows + columns numbers for rows x columns."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..core.calls.kinds import Count
from ..core.calls.types import TransformationLike
from ..core.errors import LeafError
from ..core.factory import transformation
from ..core.numbers.norms import quotient, saturated
from ..core.numbers.numerics import cast, compute_dtype
from ..core.transformation import GradientTransformation
from ..core.trees.sharding import replicate
from ..core.trees.short import in_short
from ..formula import Expression, Reader, Symbol, apply, formula_of, t
from .reduced import by_array, of_images


@in_short
class Margins(NamedTuple):
    """Means of an array over its largest axis, and over its second largest."""

    row: Any
    col: Any


@transformation(whole=True, leafwise=True)
def rank_one(
    statistic: TransformationLike, min_dim_size_to_factor: Count = 128
) -> GradientTransformation:
    r"""Keep a statistic of the rows' and columns' means only, and emit what they tell of the whole.

    $$r_t = \mathrm{statistic}(\mathrm{mean}_{cols}\,u_t), \quad
    c_t = \mathrm{statistic}(\mathrm{mean}_{rows}\,u_t), \quad
    u_t \leftarrow r_t\,c_t^\top / \mathrm{mean}(r_t).$$

    Of all matrices of rank one it is the nearest to the whole, measured by the I-divergence; one of
    rank one is emitted as it is. Of an array with more axes, the two largest are those of the
    matrix, the later ones where sizes are equal, and the others count matrices. Arrays with fewer
    than two axes of the size given are kept whole.

    Args:
        statistic: of the means, linear in them, such as :func:`ema`. It is run once, on a tree
            whose leaves are the two means of each array that is factored.
        min_dim_size_to_factor: size that both axes need for an array to be factored.

    Returns:
        A transformation of non-negative updates whose state is the statistic's: with one buffer
        per array, $rows + columns$ numbers where it would be $rows \cdot columns$.

    Raises:
        TypeError: from `update`, for complex updates.

    References:
        Shazeer & Stern 2018, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost,
        arXiv:1804.04235, section 3.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.rank_one(gdtx.running_sum(), min_dim_size_to_factor=2)
    >>> state = tx.init(jnp.zeros((2, 3)))
    >>> tx.update(jnp.array([[1.0, 2.0, 4.0], [2.0, 4.0, 8.0]]), state)[0]
    Array([[1., 2., 4.],
           [2., 4., 8.]], dtype=float32)
    """

    def mean(u: jax.Array) -> Any:
        axes = _factored_axes(u.shape, min_dim_size_to_factor)
        if axes is None:
            return u
        u = cast(u, compute_dtype(u.dtype))
        return Margins(*(saturated(jnp.mean(u, axis)) for axis in axes))

    def real_mean(u: jax.Array) -> Any:
        if jnp.iscomplexobj(u):
            raise LeafError(TypeError, "is complex, rank_one needs real ones, as of square")
        return mean(u)

    def estimate(u: jax.Array, kept: Any) -> jax.Array:
        axes = _factored_axes(u.shape, min_dim_size_to_factor)
        if axes is None:
            return kept
        # Of those kept in parts (ZeRO-1) the compiler would make parts of the whole array too, and
        # move these.
        whole = map(replicate, kept)
        # Keeps the places of both axes, so that those of the others stay.
        row, col = (jnp.expand_dims(x, axis) for x, axis in zip(whole, axes, strict=True))
        tiny = jnp.finfo(row.dtype).tiny
        total = saturated(jnp.mean(row, axes[1], keepdims=True))
        # Divided first, because the product of two small numbers may be too small a number; and
        # where it is all the same, it is not 0 unless one of the two is.
        share = quotient(row, jnp.where(total == 0, 1, total))
        least = jnp.minimum(jnp.minimum(row, tiny), jnp.minimum(col, tiny))
        return jnp.maximum(share * col, least)

    return of_images(statistic, by_array(mean), estimate, of_updates=by_array(real_mean))


@formula_of(rank_one)
def _(u: Expression, reader: Reader, statistic: GradientTransformation) -> Expression:
    u = reader.atom(u)
    kept = []
    for branch, mean in (("row", "rowmean"), ("col", "colmean")):
        with reader.branch(branch):
            kept.append(reader.atom(reader.read(statistic, apply(mean, u))))
    row, col = kept
    mean = row * col.T / apply(r"\operatorname{mean}", row)
    return reader.define(tuple(Symbol(letter, time=t) for letter in "vwz"), mean)


def _factored_axes(shape: tuple[int, ...], min_size: int) -> tuple[int, int] | None:
    """The largest axis and the second largest, if both are large enough."""
    if len(shape) < 2:
        return None
    *_, second, first = np.argsort(shape, kind="stable").tolist()
    return (first, second) if shape[second] >= max(min_size, 1) else None
