"""Makers without memory: a rule on arrays becomes a transformation of trees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from .calls.functions import accepts_arguments, is_function, named_by, with_arguments
from .calls.kinds import ArrayFunction, Kind, TwoArraysFunction
from .errors import LeafError, annotate, calling, fail, summarize
from .factory import transformation
from .numbers.numerics import cast, compute_dtype, narrow
from .transformation import GradientTransformation
from .trees.boxes import refilled
from .trees.stacking import of_layers, stacked_axes
from .trees.tree import PyTree, check_params, check_shapes, leaf_path, leaves_as, widened


@transformation(quiet=True, leafwise=True)
def elementwise(f: ArrayFunction) -> GradientTransformation:
    r"""Apply a function to every array of the updates: $u \leftarrow f(u)$.

    The function sees at least float32.

    Args:
        f: function of one array that returns one of the same shape.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.elementwise(jnp.tanh)
    >>> tx.update(jnp.array([0.0, 100.0]), tx.init(jnp.zeros(2)))
    (Array([0., 1.], dtype=float32), ())
    """
    return _stateless(lambda leaves, params, structure: each_leaf(f, structure, leaves))


@transformation(quiet=True, leafwise=True)
def with_params(f: TwoArraysFunction) -> GradientTransformation:
    r"""Apply a function of update and parameter to every array: $u \leftarrow f(u, \theta)$.

    Args:
        f: function of the update and the parameter, arrays of one shape, that returns the new
            update.

    Raises:
        ValueError: from `update`, if it is called without the parameters.

    >>> import gdtx, jax.numpy as jnp
    >>> decay = gdtx.with_params(lambda u, p: u + 0.1 * p)
    >>> decay.update(jnp.array([1.0]), (), jnp.array([20.0]))
    (Array([3.], dtype=float32), ())
    """

    def rule(leaves: list[Any], params: PyTree, structure: Any) -> list[Any]:
        return each_leaf(f, structure, leaves, beside(structure.unflatten(leaves), params))

    return _stateless(rule)


@transformation(quiet=True)
def treewise(
    f: Annotated[Callable[..., Any], Kind("a function of the updates", is_function)],
) -> GradientTransformation:
    r"""Apply a function to the whole tree of updates.

    Args:
        f: function of the updates that returns a tree of the same structure. If it names `params`,
            it is given the parameters too, both in at least float32.

    Raises:
        ValueError: from `update`, if what the function returns is no tree like the updates, or if
            it names `params` and there are none.

    >>> import gdtx, jax, jax.numpy as jnp
    >>> unit = gdtx.treewise(lambda u: jax.tree.map(lambda x: x / gdtx.global_norm(u), u))
    >>> unit.update({"a": jnp.array(3.0), "b": jnp.array(4.0)}, ())[0]["b"]
    Array(0.8, dtype=float32)
    """

    seen = named_by(f, "params")
    if not accepts_arguments(f, 1, *seen):
        raise TypeError(f"treewise: f must be a function of the updates, got {with_arguments(f)}")

    def rule(leaves: list[Any], params: PyTree, structure: Any) -> list[Any]:
        updates = structure.unflatten(leaves)
        given = {name: structure.unflatten(beside(updates, params)) for name in seen}
        with calling("f"):
            result = f(widened(updates), **widened(given)) if given else f(updates)
        return leaves_like(updates, result)

    return _stateless(rule)


@transformation(leafwise=True)
def identity() -> GradientTransformation:
    """Leave the updates as they are.

    >>> import gdtx, jax.numpy as jnp
    >>> gdtx.identity().update(jnp.array(2.0), ())
    (Array(2., dtype=float32, weak_type=True), ())
    """
    return _stateless(lambda leaves, params, structure: leaves)


@transformation(leafwise=True)
def set_to_zero() -> GradientTransformation:
    """Replace the updates by zeros.

    >>> import gdtx, jax.numpy as jnp
    >>> gdtx.set_to_zero().update(jnp.array([2.0]), ())
    (Array([0.], dtype=float32), ())
    """
    return _stateless(lambda leaves, params, structure: list(map(jnp.zeros_like, leaves)))


def _stateless(rule: Callable[[list[Any], PyTree, Any], list[Any]]) -> GradientTransformation:
    """A transformation of the leaves that remembers nothing: its first state is the empty tuple."""

    def update(
        updates: PyTree, state: tuple[()], params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, tuple[()]]:
        leaves, structure = jax.tree.flatten(updates)
        return structure.unflatten(rule(leaves, params, structure)), state

    return GradientTransformation(lambda params: (), update, ())


def leaves_like(updates: PyTree, result: PyTree) -> list[Any]:
    """The leaves of what a function of whole trees returned, which must be a tree like these."""
    results = leaves_as(jax.tree.structure(updates), result, "the result", "updates")
    check_shapes(updates, results, "result")
    return results


def needed(params: PyTree, structure: Any) -> list[Any]:
    """The leaves of the parameters, without which a rule cannot do."""
    if params is None and not structure.num_leaves:
        return []  # nothing to do, or all of it masked out
    if params is None:
        fail(ValueError, "needs the parameters: call update(updates, state, params)")
    return leaves_as(structure, params, "params", "updates")


def beside(updates: PyTree, params: PyTree) -> list[Any]:
    """The leaves of the parameters, which must have the shapes of the updates."""
    check_params(updates, params)
    return needed(params, jax.tree.structure(updates))


def each_leaf(
    f: Callable[..., Any], structure: Any, *columns: list[Any], what: str = "the rule"
) -> list[Any]:
    """`f` on the arrays of each leaf, in at least float32."""

    def wide(*arrays: Any) -> jax.Array:
        dtype = compute_dtype(*(x.dtype for x in arrays))
        return checked_result(f(*(cast(x, dtype) for x in arrays)), arrays[0], dtype)

    return walk(wide, structure, *columns, what=what)


def walk(
    f: Callable[..., Any],
    structure: Any,
    *columns: list[Any],
    what: str = "the rule",
    by_layer: bool = True,
) -> list[Any]:
    """`f` on the arrays of each leaf; what it finds wrong with a leaf is reported with its path.

    Where layers are stacked in one array, `f` sees one layer, unless it is told not to.
    """
    results = []
    axes = stacked_axes(structure.unflatten(columns[0])) if by_layer else [0] * len(columns[0])
    for i, (n, *arrays) in enumerate(zip(axes, *columns, strict=True)):
        try:
            results.append(of_layers(f, n)(*arrays))
        except Exception as error:
            path = leaf_path(structure.unflatten(columns[0]), i)
            if isinstance(error, LeafError):
                fail(error.kind, f"updates{path} {error}".replace(" :", ":"))
            annotate(error, f"raised by {what} at updates{path}, {summarize(arrays[0])}")
            raise
    return results


def remembered(rule: Callable[..., Any], updates: PyTree, *kept: PyTree) -> list[PyTree]:
    """`rule` on each leaf of the updates and of what is kept of it, which is out of boxes: the new
    updates, and the new of all that is kept."""
    leaves, structure = jax.tree.flatten(updates)
    outside = jax.tree.structure(refilled(updates, leaves))
    columns = [leaves_as(outside, tree, "state", "updates") for tree in kept]
    out, *new = unzipped(walk(rule, structure, leaves, *columns), 1 + len(kept))
    return [structure.unflatten(out), *map(outside.unflatten, new)]


def unzipped(rows: list[tuple[Any, ...]], width: int) -> list[tuple[Any, ...]]:
    """The columns of a table: of one without rows as many, all empty."""
    return list(zip(*rows, strict=True)) or [()] * width


def checked_result(result: Any, u: jax.Array, dtype: Any) -> jax.Array:
    """What a rule made of `u`, in no more than this precision; an array hyperparameter of another
    shape would have broadcast it."""
    if not hasattr(result, "dtype") and not isinstance(result, int | float | complex):
        raise LeafError(TypeError, f": the rule returned {summarize(result)}")
    if not isinstance(result, jax.Array):
        result = jnp.asarray(result)
    result = narrow(result, dtype)
    if result.shape != u.shape:
        raise LeafError(ValueError, f"has shape {u.shape}, the rule made it {result.shape}")
    return result
