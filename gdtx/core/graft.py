"""The direction of one transformation with the length of another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from .calls.kinds import Count, one_of
from .calls.types import TransformationLike
from .combine import join
from .factory import transformation
from .memory import counted
from .numbers.norms import scaled_norms
from .transformation import GradientTransformation
from .trees.sharding import shard_like_if_explicit


@transformation
def graft(
    direction: TransformationLike,
    magnitude: TransformationLike,
    per: Annotated[str, one_of("leaf", "block")] = "leaf",
    block_size: Count | None = None,
    start: Count = 1,
) -> GradientTransformation:
    r"""The direction of one transformation with the length of another, array by array.

    $u_t = \|m_t\|\,d_t / \|d_t\|$, where $d_t$ and $m_t$ are what `direction` and `magnitude` make
    of the same updates; 0 where $d_t$ is 0. So the rates known from one method serve another.

    Args:
        direction: transformation that gives $d_t$.
        magnitude: transformation that gives $m_t$.
        per: what has a length of its own, `"leaf"`, every array, or `"block"`, every block of it.
        block_size: each axis is cut into pieces of that many indices, the last of what is left,
            and a block is what a piece of each axis spans.
        start: the update, counted from 1, that is the first to be grafted. Those before are
            exactly $m_t$, while `direction` gathers its statistics.

    Returns:
        A transformation whose state is the dict of the states of both, and of one count if it
        starts later than at the first update.

    Raises:
        ValueError: if `per` is neither of the two, or `block_size` is missing or of no use.
        TypeError: if one of the two is not a transformation.

    References:
        Agarwal et al. 2020, Disentangling Adaptive Gradient Methods from Learning Rates,
        arXiv:2002.11803; by blocks and with a start, Shi et al. 2023, arXiv:2309.06497.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.graft(direction=gdtx.sign(), magnitude=gdtx.identity())
    >>> tx.update(jnp.array([1.0, 1.0, -3.0, 5.0]), tx.init(jnp.zeros(4)))[0]
    Array([ 3.,  3., -3.,  3.], dtype=float32)
    """
    if (per == "block") != (block_size is not None):
        raise ValueError(
            f"graft: per='block' and a block_size need each other, got per={per!r} and "
            f"block_size={block_size}"
        )
    if block_size == 0:
        raise ValueError("graft: block_size must be at least 1, got 0")
    resized = _resized if block_size is None else _by_blocks(_resized, block_size)
    branches = {"direction": direction, "magnitude": magnitude}
    if start > 1:
        branches["started"] = counted(lambda t: lambda u: jnp.full_like(u, t >= start))

    def merge(d: jax.Array, m: jax.Array, started: Any = None) -> jax.Array:
        grafted = resized(d, m)
        return grafted if started is None else jnp.where(started == 1, grafted, m)

    # A pair of its own, because expressions show it by its name and not by that of its merge.
    return GradientTransformation(*join(merge, **branches))


def _resized(d: jax.Array, m: jax.Array, axes: Any = None) -> jax.Array:
    r"""$\|m\|\,d / \|d\|$ over these axes, 0 where $d$ is; what it can hold does not overflow."""
    power, size = scaled_norms(d, axes)
    length_power, length = scaled_norms(m, axes)
    ratio = jnp.where(size == 0, 0, length) / jnp.where(size == 0, 1, size)
    return d * power * ratio / length_power


def _by_blocks(f: Callable[..., jax.Array], size: int) -> Callable[..., jax.Array]:
    """A function of two arrays and of axes that span a block, on all blocks of the arrays."""

    def on_blocks(d: jax.Array, m: jax.Array) -> jax.Array:
        # An axis of n becomes two: which piece, and where in it.
        pieces = [(-(-n // size), min(n, size)) for n in d.shape]
        missing = [count * width - n for (count, width), n in zip(pieces, d.shape, strict=True)]
        padding = [(0, end, 0) for end in missing]
        cut = [length for piece in pieces for length in piece]
        within = tuple(range(1, 2 * d.ndim, 2))
        blocks = (jax.lax.pad(x, jnp.zeros((), x.dtype), padding).reshape(cut) for x in (d, m))
        padded = f(*blocks, within).reshape([count * width for count, width in pieces])
        return padded[tuple(slice(n) for n in d.shape)]

    return lambda d, m: shard_like_if_explicit(d, on_blocks, d, m)
