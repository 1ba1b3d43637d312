"""Statistics of something smaller than an array: a mean, a block, a norm, the whole tree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from ..core.calls.functions import accepts_arguments, is_function, with_arguments
from ..core.calls.kinds import Kind
from ..core.calls.types import TransformationLike
from ..core.errors import LeafError, calling, fail, summarize
from ..core.factory import transformation
from ..core.numbers.norms import mean_within_range
from ..core.numbers.numerics import cast, compute_dtype, narrow
from ..core.rules import checked_result, walk
from ..core.transformation import GradientTransformation
from ..core.trees.boxes import refilled
from ..core.trees.copies import unlike_params
from ..core.trees.spread import spread, spreads
from ..core.trees.tree import PyTree, check_params, full_like, is_scalar, leaves_as, placed_like
from ..formula import Expression, Reader, apply, formula_of


def _is_reduction(value: Any) -> bool:
    return is_function(value) or all(map(_is_axis, value if type(value) is tuple else (value,)))


def _is_axis(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_Reduction = Annotated[
    Any, Kind("a function of one array, an axis, or a tuple of axes", _is_reduction)
]


@transformation(whole=True)
def reduced(
    statistic: TransformationLike, reduce: _Reduction, whole: bool = False
) -> GradientTransformation:
    r"""A statistic of something smaller than each array, in the place of all that it stands for:
    $u_t \leftarrow s_t$ with $s_t = \mathrm{statistic}(\mathrm{reduce}(u_t))$.

    Args:
        statistic: of what is reduced. It is run once, on a tree of that, without the parameters.
        reduce: an axis or a tuple of axes: the mean over them, of which an array without axes has
            none. Or a function of one array that returns a single number, or an array with as many
            axes, each as long as it was or shorter by a factor: of such blocks, and of axes of
            length 1, each number is emitted for all that lie in it side by side.
        whole: reduce the tree of updates to one number. Then `reduce` is a function of that, such
            as :func:`global_norm`.

    Returns:
        A transformation whose state is the statistic's, of the reduced shapes.

    Raises:
        ValueError: by leaf, if an array has no such axis, or `reduce` returns what is no smaller
            array; with `whole`, if it returns no single number.

    >>> import gdtx, jax.numpy as jnp
    >>> rows = gdtx.chain(gdtx.square(), gdtx.reduced(gdtx.running_sum(), -1))
    >>> rows.update(jnp.array([[1.0, 3.0], [2.0, 2.0]]), rows.init(jnp.zeros((2, 2))))[0]
    Array([[5., 5.],
           [4., 4.]], dtype=float32)

    The largest norm so far of all updates together:

    >>> largest = gdtx.reduced(gdtx.running_max(), gdtx.global_norm, whole=True)
    >>> u, state = largest.update(jnp.array([3.0, 4.0]), largest.init(jnp.zeros(2)))
    >>> largest.update(jnp.array([1.0, 1.0]), state)[0]
    Array([5., 5.], dtype=float32)
    """
    if whole:
        if not (is_function(reduce) and accepts_arguments(reduce, 1)):
            came = with_arguments(reduce) if is_function(reduce) else summarize(reduce)
            raise TypeError(f"reduced: with whole, reduce must be a function of a tree, got {came}")
        return _of_the_whole(statistic, reduce)
    if is_function(reduce) and not accepts_arguments(reduce, 1):
        raise TypeError(
            f"reduced: reduce must be a function of one array, got {with_arguments(reduce)}"
        )

    def image(u: jax.Array) -> jax.Array:
        u = cast(u, compute_dtype(u.dtype))
        value = reduce(u) if is_function(reduce) else _mean(u, reduce)
        if not hasattr(value, "shape") or not spreads(value.shape, u.shape):
            expected = "an array with axes as long or shorter by a factor"
            came = f"reduce must return {expected}, got {summarize(value)}"
            raise LeafError(ValueError, f"has shape {u.shape}, {came}")
        return narrow(jnp.asarray(value), u.dtype)

    return of_images(statistic, by_array(image), spread_back)


def by_array(image: Callable[[jax.Array], Any]) -> Callable[[PyTree], list[Any]]:
    """What a function makes of each array of a tree."""

    def images(tree: PyTree) -> list[Any]:
        leaves, structure = jax.tree.flatten(tree)
        return walk(image, structure, leaves)

    return images


def spread_back(u: jax.Array, kept: jax.Array) -> jax.Array:
    """What is emitted for an array where its image is smaller: each number for all it is of."""
    return spread(kept, u)


def of_images(
    statistic: Any,
    images: Callable[[PyTree], list[Any]],
    back: Callable[[jax.Array, Any], jax.Array],
    of_updates: Callable[[PyTree], list[Any]] | None = None,
) -> GradientTransformation:
    """A statistic of an image of each array.

    Args:
        images: function of a tree that returns for each of its arrays an array or a tree of some.
        back: what is emitted for an array, of that and of what the statistic emits for its image.
        of_updates: the images of the updates, where they are found otherwise.
    """

    def boxed(tree: PyTree, values: list[Any]) -> PyTree:
        # Names of a box are those of the axes of the array in it.
        alike = {id(x) for x, u in zip(values, jax.tree.leaves(tree), strict=True)
                 if getattr(x, "shape", None) == u.shape}  # fmt: skip
        return refilled(tree, values, lambda value: id(value) in alike)

    def init(params: PyTree) -> PyTree:
        return statistic.init(boxed(params, images(params)))

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, PyTree]:
        check_params(updates, params)
        leaves, structure = jax.tree.flatten(updates)
        values = (of_updates or images)(updates)
        inside = boxed(updates, values)
        emitted, state = statistic.update(inside, state, None, **extra_args)
        found = leaves_as(jax.tree.structure(inside), emitted, "the statistic", "what is reduced")
        kept = jax.tree.structure(values).unflatten(found)

        def whole(u: jax.Array, kept: Any) -> jax.Array:
            return checked_result(back(u, kept), u, compute_dtype(u.dtype))

        return structure.unflatten(walk(whole, structure, leaves, kept)), state

    return GradientTransformation(unlike_params(init), update, statistic)


def _of_the_whole(statistic: Any, reduce: Callable[[PyTree], Any]) -> GradientTransformation:
    def one(tree: PyTree) -> jax.Array:
        with calling("reduce"):
            value = reduce(tree)
        if not is_scalar(value):
            fail(ValueError, f"reduce must return a single real number, got {summarize(value)}")
        wide = compute_dtype(*(x.dtype for x in jax.tree.leaves(tree)))
        return jnp.asarray(value, jnp.finfo(wide).dtype)

    def init(params: PyTree) -> PyTree:
        return statistic.init(placed_like(params, one(params)))

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, PyTree]:
        kept, state = statistic.update(one(updates), state, None, **extra_args)
        if not is_scalar(kept):
            fail(ValueError, f"the statistic must emit a single number, got {summarize(kept)}")
        return jax.tree.map(lambda u: full_like(u, kept), updates), state

    return GradientTransformation(unlike_params(init), update, statistic)


def _mean(u: jax.Array, axes: Any) -> jax.Array:
    axes = axes if isinstance(axes, tuple) else (axes,)
    if not u.ndim or not axes:
        return u
    if missing := [axis for axis in axes if not -u.ndim <= axis < u.ndim]:
        raise LeafError(ValueError, f"has shape {u.shape}, expected one with an axis {missing[0]}")
    return mean_within_range(u, axes)


@formula_of(reduced)
def _(u: Expression, reader: Reader, statistic: GradientTransformation, reduce: Any) -> Expression:
    if not is_function(reduce):
        axes = ",".join(map(str, reduce if isinstance(reduce, tuple) else (reduce,)))
        image = apply(rf"\operatorname{{mean}}_{{{axes}}}", u) if axes else u
    else:
        image = reader.merged(reduce, reduce, u)
    return reader.read(statistic, image)
