"""First states for parameters that are shapes, dtypes and shardings without numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from .following import counterpart_in
from .sharding import MaybeSharding, sharding_of, with_spec
from .tree import PyTree


def has_structs(tree: PyTree) -> bool:
    """Whether a leaf is a `jax.ShapeDtypeStruct`."""
    return any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(tree))


def structs_of(init: Callable[[PyTree], PyTree], params: PyTree) -> PyTree:
    """What `init` would return, as structs.

    With parameters on one mesh their shardings are made a part of their types, and so of those of
    the state: what says nothing of the mesh is whole on every device. Other shardings are those of
    the state if all parameters have the same.
    """
    leaves, structure = jax.tree.flatten(params)
    wheres = [_where(leaf) for leaf in leaves]
    known = [where for where in wheres if where is not None]
    meshes = {where.mesh if isinstance(where, NamedSharding) else None for where in known}
    mesh = meshes.pop() if len(meshes) == 1 else None
    if mesh is None:
        common = known[0] if known and all(where == known[0] for where in known) else None
        return jax.tree.map(lambda x: _struct(x, common), jax.eval_shape(init, params))
    axis_types = (AxisType.Explicit,) * len(mesh.axis_names)
    types = AbstractMesh(mesh.axis_sizes, mesh.axis_names, axis_types=axis_types)
    typed = [
        _struct(x, where and NamedSharding(types, where.spec))
        for x, where in zip(leaves, wheres, strict=True)
    ]
    # New arrays have no mesh in their types without it, from jax 0.12 on.
    entered = getattr(jax.sharding, "use_abstract_mesh", contextlib.nullcontext)
    with entered(types):
        state = jax.eval_shape(init, structure.unflatten(typed))
    like = NamedSharding(mesh, PartitionSpec())
    find = counterpart_in(params)

    def placed(path: tuple[Any, ...], x: Any) -> jax.ShapeDtypeStruct:
        where = with_spec(like, x.sharding.spec if x.sharding else (), len(x.shape))
        # An array like a parameter is where that is, in the same words: in others, programs would
        # take it for another place, and be compiled again.
        param = find(path)
        its = _where(param) if getattr(param, "shape", None) == x.shape else None
        if its is not None:
            near = where.with_memory_kind(its.memory_kind)
            where = its if near.is_equivalent_to(its, len(x.shape)) else where
        return _struct(x, where)

    return jax.tree_util.tree_map_with_path(placed, state)


def placed_structs(init: Callable[[PyTree], PyTree], params: PyTree) -> PyTree:
    """What the public `init` of a transformation would return, as structs, with all shardings."""

    def struct(x: Any) -> Any:
        return x if isinstance(x, jax.ShapeDtypeStruct) else _struct(x, _where(x))

    wheres = [getattr(x, "sharding", None) for x in jax.tree.leaves(params)]
    first = wheres[0] if wheres and all(wheres) else None
    if isinstance(first, NamedSharding):
        first = NamedSharding(first.mesh, PartitionSpec())
    return jax.tree.map(
        lambda x: x if x.sharding is not None else _struct(x, first),
        init(jax.tree.map(struct, params)),
    )


def _where(x: Any) -> MaybeSharding:
    return x.sharding if isinstance(x, jax.ShapeDtypeStruct) else sharding_of(x)


def _struct(x: Any, where: MaybeSharding) -> jax.ShapeDtypeStruct:
    weak_type = getattr(x, "weak_type", False)
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where, weak_type=weak_type)
