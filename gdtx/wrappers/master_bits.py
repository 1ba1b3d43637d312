"""Eight more bits beside parameters in bfloat16."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core.calls.kinds import Seed
from ..core.calls.types import TransformationLike
from ..core.errors import LeafError, fail
from ..core.factory import transformation
from ..core.numbers.handover import exact
from ..core.numbers.longer import lengthened, shortened_by_chance
from ..core.numbers.narrow import change, drawn_bits, of_shard, salted
from ..core.numbers.numerics import cast, increment, is_narrow, total
from ..core.rules import needed, unzipped, walk
from ..core.transformation import GradientTransformation
from ..core.trees.layout import holding
from ..core.trees.short import in_short
from ..core.trees.tree import (
    PyTree,
    check_shapes,
    explicit_sharding,
    leaf_path,
    leaves_as,
    scalar_like,
)
from ..formula import Expression, Reader, formula_of
from .master_weights import kept_of_some


@in_short
class MasterBitsState(NamedTuple):
    """State of master bits: updates done, and the int8 beside each bfloat16 number, None of
    parameters in other dtypes."""

    step: jax.Array
    extra: PyTree
    inner: PyTree


@transformation
def master_bits(inner: TransformationLike, seed: Seed = 0) -> GradientTransformation:
    r"""Train bfloat16 parameters with eight more bits beside them: $w \leftarrow w + u$.

    What :func:`master_weights` does, with 1 byte a parameter in place of 4. $w$ has the bits of a
    float32 but for the last eight, which are rounded up or down by chance, right on average; its
    first sixteen, rounded, are the parameter. `inner` sees $w$ in place of the parameters, in
    float32. What comes out is the float32 update with which :func:`apply_updates` gives the new
    parameter, so this is the outermost transformation or the last of a chain. Parameters in
    float32 and float64 pass as they are.

    A number that someone else changed keeps its bits, which are worth half of its unit in the last
    place at most.

    Args:
        inner: any transformation.
        seed: of the chance, which depends on it, on the number of updates done and on the place.

    Returns:
        A transformation whose state holds a count, 1 byte for each bfloat16 number, and the state
        of `inner`.

    Raises:
        TypeError: from `init`, for parameters in float16 or a float8.
        ValueError: from `update`, if it is called without the parameters.

    References:
        Kalamkar et al. 2019, A Study of BFLOAT16 for Deep Learning Training, arXiv:1905.12322, for
        bits kept beside bfloat16.

    >>> import gdtx, jax.numpy as jnp
    >>> params = jnp.ones(1, jnp.bfloat16)
    >>> tx = gdtx.master_bits(gdtx.sgd(0.001))
    >>> state = tx.init(params)
    >>> for _ in range(4):  # the first two steps change the bits only
    ...     updates, state = tx.update(jnp.ones(1), state, params)
    ...     params = gdtx.apply_updates(params, updates)
    >>> print(params, state.extra)
    [0.996094] [-7]
    """

    def init(params: PyTree) -> MasterBitsState:
        leaves, structure = jax.tree.flatten(params)
        for i, p in enumerate(leaves):
            if is_narrow(p.dtype) and not _is_short(p):
                fail(
                    TypeError,
                    f"params{leaf_path(params, i)} is {p.dtype}, expected bfloat16, float32 or "
                    "float64 (master_weights takes any)",
                )
        extra = [jnp.zeros_like(p, jnp.int8) if _is_short(p) else None for p in leaves]
        seen = structure.unflatten(map(_long, leaves, extra))
        step = scalar_like(params, 0, jnp.int32)
        return MasterBitsState(step, structure.unflatten(extra), inner.init(seen))

    def update(
        updates: PyTree, state: MasterBitsState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, MasterBitsState]:
        step = increment(state.step)
        structure = jax.tree.structure(updates)
        leaves = needed(params, structure)
        are_short = list(map(_is_short, leaves))
        extra = kept_of_some(state.extra, structure, are_short, "bits beside", "bfloat16")
        long = list(map(_long, leaves, extra))
        seen = structure.unflatten(long)
        updates, inner_state = inner.update(updates, state.inner, seen, **extra_args)
        new = leaves_as(structure, updates, "the inner update", "updates")
        check_shapes(updates, leaves, "parameter")
        salts = [salted(seed, i, step) for i in range(len(leaves))]
        rows = walk(_stepped, structure, new, leaves, long, extra, salts)
        updates, extra = map(structure.unflatten, unzipped(rows, 2))
        return updates, MasterBitsState(step, extra, inner_state)

    return GradientTransformation(init, update, holding(MasterBitsState, inner=inner))


@formula_of(master_bits)
def _(u: Expression, reader: Reader, inner: GradientTransformation) -> Expression:
    return reader.read(inner, u)  # it changes how numbers are kept, and not the formula


def _is_short(p: Any) -> bool:
    return p.dtype == jnp.bfloat16


def _long(p: jax.Array, extra: Any) -> jax.Array:
    return p if extra is None else lengthened(p, extra)


def _stepped(
    u: jax.Array, p: jax.Array, long: jax.Array, extra: Any, salt: jax.Array
) -> tuple[jax.Array, Any]:
    """The update of a parameter, and the new bits beside it."""
    if extra is None:
        return u, None
    if jnp.iscomplexobj(u):
        raise LeafError(TypeError, f"is complex, its parameter is {p.dtype}")
    bits = drawn_bits(p.shape, of_shard(salt, p), explicit_sharding(p))
    short, extra = shortened_by_chance(cast(total(long, u), jnp.float32), bits)
    return exact(change(cast(p, jnp.float32), cast(short, jnp.float32))), extra
