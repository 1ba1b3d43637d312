"""Walking trees: checks that name the leaf, and arrays that follow the parameters' sharding."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..errors import fail, summarize
from ..numbers.numerics import compute_dtype, is_computable
from ..numbers.shards import one_for_all, shared_axes, total
from ..numbers.values import is_array, within_int32

PyTree = Any


def check_arrays(tree: PyTree, what: str) -> None:
    """Raise unless every leaf is a floating-point or complex array."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            fail(
                TypeError,
                f"{what}{jax.tree_util.keystr(path)} is {summarize(leaf)}, expected an array",
            )
        if not is_computable(leaf.dtype):
            fail(
                TypeError,
                f"{what}{jax.tree_util.keystr(path)} has dtype {leaf.dtype}, expected a "
                "floating-point or complex array (leave out what is not trained: None is skipped)",
            )


def leaves_as(structure: Any, tree: PyTree, what: str, like: str) -> list[Any]:
    """The leaves of `tree`, which must have this structure, that of `like`."""
    leaves, found = jax.tree.flatten(tree)
    if found != structure:
        expected = structure.unflatten([object()] * structure.num_leaves)
        fail(ValueError, structure_mismatch(tree, expected, what, like))
    return leaves


def structure_mismatch(tree: PyTree, expected: PyTree, what: str, like: str) -> str:
    here, there = ({path for path, _ in _paths(side)} for side in (tree, expected))
    containers = _containers(tree, expected, "", what, like)
    if containers:
        return containers
    for path, _ in _paths(expected):
        if path not in here:
            return f"{what} has no leaf {what}{path}, which is in {like}"
    for path, _ in _paths(tree):
        if path not in there:
            return f"{what} has a leaf {what}{path} that is not in {like}"
    return f"{what} has the same paths as {like} but other containers: {jax.tree.structure(tree)}"


def _containers(one: PyTree, other: PyTree, path: str, what: str, like: str) -> str | None:
    """A message where one tree has a list and the other a tuple, or the like."""
    if any(tree is None or jax.tree_util.all_leaves([tree]) for tree in (one, other)):
        return None
    if type(one) is not type(other):
        names = type(one).__name__, type(other).__name__
        return f"{what}{path} is a {names[0]}, {like}{path} a {names[1]}"
    children = dict(_paths(other, deep=False))
    found = (
        _containers(part, children[key], path + key, what, like)
        for key, part in _paths(one, deep=False)
        if key in children
    )
    return next(filter(None, found), None)


def _paths(tree: PyTree, deep: bool = True) -> list[tuple[str, Any]]:
    """The leaves of a tree by their paths, or what is directly below its root."""
    is_leaf = None if deep else lambda node: node is not tree
    return [
        (jax.tree_util.keystr(path), leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)[0]
    ]


def check_shapes(updates: PyTree, leaves: list[Any], what: str) -> None:
    """Raise unless `leaves`, called `what`, have the shapes of the updates."""
    for i, (u, leaf) in enumerate(zip(jax.tree.leaves(updates), leaves, strict=True)):
        if u.shape != leaf.shape:
            path = leaf_path(updates, i)
            fail(ValueError, f"updates{path} has shape {u.shape}, its {what} has {leaf.shape}")


def check_params(updates: PyTree, params: PyTree) -> None:
    """Raise if there are parameters and their shapes differ from those of the updates."""
    if params is not None:
        leaves = leaves_as(jax.tree.structure(updates), params, "params", "updates")
        check_shapes(updates, leaves, "parameter")


def leaf_path(tree: PyTree, index: int) -> str:
    """The path of the leaf with this number, as Python would index it."""
    return _paths(tree)[index][0]


def broadcast_prefix(prefix: PyTree, tree: PyTree, what: str, like: str) -> list[Any]:
    """For each leaf of `tree`, the leaf of `prefix` at or above it."""
    if not is_prefix(prefix, tree):
        fail(ValueError, _prefix_mismatch(prefix, tree, what, like))
    spread = jax.tree.map(lambda value, below: jax.tree.map(lambda _: value, below), prefix, tree)
    return jax.tree.leaves(spread)


def is_prefix(prefix: PyTree, tree: PyTree) -> bool:
    """Whether `tree` has the nodes of `prefix`, and anything where that has leaves."""
    try:
        jax.tree.structure(prefix).flatten_up_to(tree)
    except ValueError:
        return False
    return True


def _prefix_mismatch(prefix: PyTree, tree: PyTree, what: str, like: str) -> str:
    containers = _containers(prefix, tree, "", what, like)
    if containers:
        return containers
    given, wanted = ([path for path, _ in _paths(side)] for side in (prefix, tree))
    for path in given:
        if not any(longer.startswith(path) for longer in wanted):
            return f"{what} has a leaf {what}{path} that is not in {like}"
    for path in wanted:
        if not any(path.startswith(shorter) for shorter in given):
            return f"{what} has no leaf {what}{path} or above it, where {like} has one"
    return f"{what} is no prefix of {like}: {jax.tree.structure(prefix)}"


def scalar_like(params: PyTree, value: Any, dtype: Any) -> jax.Array:
    """A scalar where the parameters are."""
    return placed_like(params, jnp.asarray(value, dtype))


def statistic_like(params: PyTree, value: Any, dtype: Any) -> jax.Array:
    """A scalar where the parameters are, the first of those that are computed from updates.

    Of what is computed from all parts of arrays together, there is one for all.
    """
    parts = [x for x in jax.tree.leaves(params) if isinstance(x, Tracer)]
    alike = [total(jnp.zeros_like(x, dtype, shape=()), x) if shared_axes(x) else x for x in parts]
    return varying_like(alike, scalar_like(params, value, dtype))


def varying_like(params: PyTree, x: jax.Array) -> jax.Array:
    """`x`, inside of `shard_map` of a type that varies over the axes over which a parameter does.

    For first states of what updates are in later: in a loop or a conditional the types must agree.
    """
    traced = [leaf for leaf in jax.tree.leaves(params) if isinstance(leaf, Tracer)]
    zeros = [jnp.zeros_like(leaf, x.dtype, shape=()) for leaf in traced]
    kinds = {jax.typeof(zero): zero for zero in zeros}
    if kinds:
        own = jnp.zeros_like(x, shape=()) if isinstance(x, Tracer) else jnp.zeros((), x.dtype)
        kinds.pop(jax.typeof(own), None)
    return sum(kinds.values(), start=x)


def placed_like(params: PyTree, array: jax.Array) -> jax.Array:
    """An array where the parameters are: on their device, or replicated over their mesh.

    Left where it is made by default, it would move at the first update and compile it twice.
    """
    leaf = next((x for x in jax.tree.leaves(params) if isinstance(x, jax.Array)), None)
    if leaf is None or isinstance(leaf, Tracer) or not leaf.committed:
        return array
    sharding = leaf.sharding
    if isinstance(sharding, jax.sharding.NamedSharding):
        # In the words that programs use of their results.
        axes = [None] * array.ndim if explicit_sharding(leaf) else []
        sharding = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec(*axes))
    return jax.device_put(array, sharding)


def placed_as(param: Any, x: jax.Array) -> jax.Array:
    """An array of a parameter's shape where that is, cut as that is."""
    if isinstance(x, Tracer):
        return varying_like(param, x)
    return jax.device_put(x, param.sharding) if getattr(param, "committed", False) else x


def explicit_sharding(x: Any) -> Any:
    """The sharding in an array's type, which it has on an explicit mesh, else None.

    New arrays are given theirs there; by default every device would make all of one.
    """
    sharding = jax.typeof(x).sharding
    return sharding if sharding.mesh.explicit_axes else None


def real_scalar(name: str, value: Any) -> jax.Array:
    """The value of the argument of this name as a real scalar, or an error."""
    try:
        value = jnp.asarray(within_int32(value))
    except (TypeError, ValueError):
        fail(TypeError, f"{name} must be a number, got {summarize(value)}")
    if value.shape != () or jnp.iscomplexobj(value):
        fail(ValueError, f"{name} must be a real scalar, got {summarize(value)}")
    return one_for_all(name, value)


def is_scalar(value: Any) -> bool:
    """Whether this is a single real number, or an array of one."""
    if isinstance(value, bool | np.bool_ | complex):
        return False
    return isinstance(value, int | float | np.number) or (
        is_array(value) and value.shape == () and not jnp.iscomplexobj(value)
    )


def full_like(u: jax.Array, value: Any) -> jax.Array:
    """A scalar in the shape of an array, cut as that, in the real numbers that its rules see."""
    # Not by `full_like`, which in jax 0.7 takes no value that varies over devices.
    zeros = jnp.zeros_like(u, dtype=jnp.finfo(compute_dtype(u.dtype)).dtype)
    return zeros + jnp.asarray(value).astype(zeros.dtype)


def in_jax(tree: PyTree) -> PyTree:
    """The tree with NumPy's arrays as JAX's, which have `.at`, and 64 bits if they are enabled."""
    return jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, tree)


def widened(tree: PyTree) -> PyTree:
    """The tree with its floating-point and complex arrays in at least float32."""

    def wide(x: Any) -> Any:
        is_inexact = is_array(x) and jnp.issubdtype(x.dtype, jnp.inexact)
        return jnp.asarray(x, compute_dtype(x.dtype)) if is_inexact else x

    return jax.tree.map(wide, tree)


def wide_copy(params: PyTree) -> PyTree:
    """The parameters again in at least float32, in buffers of their own: both may be donated."""
    return jax.tree.map(lambda p: jnp.array(p, compute_dtype(p.dtype), copy=True), params)


def is_none(value: Any) -> bool:
    return value is None
