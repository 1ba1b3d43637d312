"""Float32 copies of parameters in half precision."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core.calls.types import TransformationLike
from ..core.errors import LeafError, foreign_state
from ..core.factory import transformation
from ..core.numbers.handover import exact
from ..core.numbers.narrow import change, rounded
from ..core.numbers.numerics import cast, is_narrow, total
from ..core.rules import needed, unzipped, walk
from ..core.transformation import GradientTransformation
from ..core.trees.layout import holding
from ..core.trees.short import in_short
from ..core.trees.tree import PyTree, check_shapes, leaves_as
from ..formula import Expression, Reader, formula_of


@in_short
class MasterState(NamedTuple):
    """State of master weights: float32 copies, None of parameters that need none."""

    params: PyTree
    inner: PyTree


@transformation
def master_weights(inner: TransformationLike) -> GradientTransformation:
    r"""Train float32 copies of bfloat16 and float16 parameters: $w \leftarrow w + u$.

    `inner` sees the copies in place of the parameters. What comes out is the float32 update with
    which :func:`apply_updates` gives the copy, rounded to the parameter's dtype, so this is the
    outermost transformation or the last of a chain. Parameters in other dtypes have no copy.

    A number that someone else changed, so that it is not its copy rounded, is followed: its copy
    starts again from it. Of one that has overflowed nothing is left to follow.

    Args:
        inner: any transformation.

    Returns:
        A transformation whose state holds 4 bytes for each bfloat16 or float16 number, and the
        state of `inner`.

    Raises:
        ValueError: from `update`, if it is called without the parameters.

    References:
        Micikevicius et al. 2018, Mixed Precision Training, arXiv:1710.03740.

    >>> import gdtx, jax.numpy as jnp
    >>> params = jnp.ones(1, jnp.bfloat16)
    >>> tx = gdtx.master_weights(gdtx.sgd(0.001))
    >>> state = tx.init(params)
    >>> for _ in range(4):  # the first two steps change the copy only
    ...     updates, state = tx.update(jnp.ones(1), state, params)
    ...     params = gdtx.apply_updates(params, updates)
    >>> print(params, state.params.round(4))
    [0.996094] [0.996]
    """

    def init(params: PyTree) -> MasterState:
        leaves, structure = jax.tree.flatten(params)
        copies = [jnp.asarray(p, jnp.float32) if is_narrow(p.dtype) else None for p in leaves]
        seen = structure.unflatten(map(_or_else, copies, leaves))
        return MasterState(structure.unflatten(copies), inner.init(seen))

    def update(
        updates: PyTree, state: MasterState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, MasterState]:
        structure = jax.tree.structure(updates)
        leaves = needed(params, structure)
        copies = _copies(state.params, structure, leaves)
        seen = structure.unflatten(map(_or_else, copies, leaves))
        updates, inner_state = inner.update(updates, state.inner, seen, **extra_args)
        new = leaves_as(structure, updates, "the inner update", "updates")
        check_shapes(updates, leaves, "parameter")
        updates, copies = unzipped(walk(_stepped, structure, new, leaves, copies), 2)
        return structure.unflatten(updates), MasterState(structure.unflatten(copies), inner_state)

    return GradientTransformation(init, update, holding(MasterState, inner=inner))


@formula_of(master_weights)
def _(u: Expression, reader: Reader, inner: GradientTransformation) -> Expression:
    return reader.read(inner, u)  # it changes how numbers are kept, and not the formula


def _copies(kept: PyTree, structure: Any, params: list[Any]) -> list[Any]:
    """The copies of these parameters; new ones of parameters that were changed from outside."""
    has_copy = [is_narrow(p.dtype) for p in params]
    copies = kept_of_some(kept, structure, has_copy, "copies of", "bfloat16 and float16")
    return list(map(_followed, copies, params))


def kept_of_some(
    kept: PyTree, structure: Any, are_those: list[bool], what: str, which: str
) -> list[Any]:
    """What a state keeps of some of the parameters, for each of them all; None of the others."""
    try:
        found = structure.flatten_up_to(kept)
    except ValueError:
        foreign_state(f"{what} these parameters", kept)
    if [each is not None for each in found] != are_those:
        foreign_state(f"{what} the {which} parameters", kept)
    return found


def _followed(copy: Any, p: jax.Array) -> Any:
    if copy is None:
        return None
    wide = p.astype(jnp.float32)
    # Both rounded: a compiler may have kept more of `p` than its dtype holds.
    return jnp.where(rounded(copy, p.dtype) == rounded(wide, p.dtype), copy, wide)


def _stepped(u: jax.Array, p: jax.Array, copy: Any) -> tuple[jax.Array, Any]:
    """The update of a parameter and its new copy."""
    if copy is None:
        return u, None
    if jnp.iscomplexobj(u):
        raise LeafError(TypeError, f"is complex, its parameter is {p.dtype}")
    copy = cast(total(copy, u), jnp.float32)
    return exact(change(p.astype(jnp.float32), rounded(copy, p.dtype))), copy


def _or_else(copy: Any, p: jax.Array) -> jax.Array:
    return p if copy is None else copy
