"""Parameters moved by an update."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..errors import at_work, fail, summarize
from ..numbers.numerics import cast, stored_dtype, total
from .dispatch import one_program
from .tree import PyTree, check_arrays, is_none, structure_mismatch


def apply_updates(params: PyTree, updates: PyTree) -> PyTree:
    r"""Add updates to parameters: $\theta \leftarrow \theta + u$.

    The sum is taken in the wider dtype of the two and rounded once, to the parameter's. Leaves
    whose update is None stay as they are.

    Args:
        params: tree of arrays.
        updates: tree of arrays of the same shapes.

    Returns:
        The new parameters, in the parameters' dtypes.

    Raises:
        ValueError: if structures or shapes differ; the message names the leaf.
        TypeError: if a leaf to update is not a floating-point or complex array.

    >>> import gdtx, jax.numpy as jnp
    >>> gdtx.apply_updates({"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([0.5, -0.5])})
    {'w': Array([1.5, 1.5], dtype=float32)}
    """
    with at_work("apply_updates"):
        structure = jax.tree.structure(params, is_leaf=is_none)
        try:
            structure.flatten_up_to(updates)
        except ValueError:
            fail(ValueError, structure_mismatch(updates, params, "updates", "params"))
        return _sums(params, updates)


@one_program
def _sums(params: PyTree, updates: PyTree) -> PyTree:
    return jax.tree_util.tree_map_with_path(_added, params, updates, is_leaf=is_none)


def _added(path: Any, p: Any, u: Any) -> Any:
    if u is None:
        return p
    where = jax.tree_util.keystr(path)
    if p is None:
        fail(ValueError, f"params{where} is None, updates{where} is {summarize(u)}")
    check_arrays(p, f"params{where}")
    check_arrays(u, f"updates{where}")
    if u.shape != p.shape:
        fail(ValueError, f"updates{where} has shape {u.shape}, its parameter has {p.shape}")
    if jnp.iscomplexobj(u) and not jnp.iscomplexobj(p):
        fail(TypeError, f"updates{where} is complex, its parameter is {p.dtype}")
    return cast(total(jnp.asarray(p), jnp.asarray(u)), stored_dtype(p.dtype))
