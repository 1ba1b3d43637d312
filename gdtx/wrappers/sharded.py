"""Inside of `shard_map`, parts of arrays transformed as parts of whole ones."""

from __future__ import annotations

from typing import Any

import jax
from jax.core import Tracer
from jax.sharding import PartitionSpec

from ..core.calls.types import TransformationLike
from ..core.errors import fail
from ..core.factory import transformation
from ..core.numbers.shards import varying_axes
from ..core.transformation import GradientTransformation
from ..core.trees.gathering import Cuts, cut_so
from ..core.trees.tree import PyTree, broadcast_prefix
from ..formula import Expression, Reader, formula_of


@transformation(quiet=True)
def sharded(inner: TransformationLike, specs: Any) -> GradientTransformation:
    r"""Inside of `jax.shard_map`, transform parts of arrays as parts of the whole.

    There each device has its parts of the arrays that are cut over the mesh, and `inner` alone
    would take them for whole arrays. Inside of this, it computes what it would on the whole:

    - what looks at each number does so, and sends nothing;
    - norms, sums and inner products of arrays and of the tree, by :func:`global_norm` and by all
      links of gdtx, are added over the devices;
    - links that look at some axes of arrays (means along an axis, factored moments, blocks,
      matrices) are given whole arrays, and their state is that of whole arrays, on every device.

    A transformation of one's own that looks at more than one number, but for norms, says so:
    `@transformation(whole=True)`. Functions that are arguments, as that of :func:`skip_when`, see
    parts; a step that is bad on one device is left out on all. Values and conditions that are given
    must be the same on all devices. Chance differs from part to part. Gradients are to be averaged
    before, over axes over which the parameters are whole (`jax.lax.pmean`).

    Args:
        inner: any transformation.
        specs: how the parameters are cut, as for the `in_specs` of `shard_map`: a
            `jax.sharding.PartitionSpec`, or a tree of them like the parameters or a prefix of it.

    Returns:
        A transformation with the state of `inner`.

    Raises:
        ValueError: if an array varies over a mesh axis that its spec does not name, or the reverse;
            if a value or a condition that is given varies.

    >>> import functools, gdtx, jax, jax.numpy as jnp
    >>> from jax.sharding import AxisType, PartitionSpec as P
    >>> mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    >>> tx = gdtx.sharded(gdtx.clip_by_global_norm(1.0), P("data"))
    >>> @functools.partial(jax.shard_map, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    ... def clipped(gradient):
    ...     return tx.update(gradient, tx.init(gradient))[0]
    >>> clipped(jnp.array([3.0, 4.0]))
    Array([0.6, 0.8], dtype=float32)
    """

    def init(params: PyTree) -> PyTree:
        with cut_so(_cuts(specs, params, "params")):
            return inner.init(params)

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, PyTree]:
        with cut_so(_cuts(specs, updates, "updates")):
            return inner.update(updates, state, params, **extra_args)

    return GradientTransformation(init, update, inner)


@formula_of(sharded)
def _(u: Expression, reader: Reader, inner: GradientTransformation) -> Expression:
    return reader.read(inner, u)


def _cuts(specs: Any, tree: PyTree, what: str) -> Cuts:
    """By path, the mesh axes over which each axis of an array is cut."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    found = {}
    for (path, x), spec in zip(leaves, broadcast_prefix(specs, tree, "specs", what), strict=True):
        if not isinstance(spec, PartitionSpec):
            fail(TypeError, f"specs must be of jax.sharding.PartitionSpec, got {spec!r}")
        entries = [e if isinstance(e, tuple) else () if e is None else (e,) for e in spec]
        axes = [*entries, *[()] * (x.ndim - len(entries))]
        _check(f"{what}{jax.tree_util.keystr(path)}", x, {name for e in axes for name in e})
        found[jax.tree_util.keystr(path)] = tuple(axes)
    return {path: axes for path, axes in found.items() if any(axes)}


def _check(name: str, x: Any, named: set[str]) -> None:
    """Raise unless the type of an array says what its spec says."""
    varies = set(varying_axes(x)) if isinstance(x, Tracer) else set()
    if more := sorted(varies - named):
        fail(
            ValueError,
            f"{name} varies over {more[0]!r}, which its spec does not name: average gradients over "
            "the axes on which parameters are whole, by jax.lax.pmean",
        )
    if missing := sorted(named - varies):
        fail(
            ValueError,
            f"{name} does not vary over {missing[0]!r}, which its spec names: call it inside of a "
            "jax.shard_map with these in_specs, which checks what varies",
        )
