"""The part of few dimensions of a momentum, made orthogonal; the rest of it is kept."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...core.calls.kinds import Decay, NonNegative, PositiveCount, Seed
from ...core.errors import foreign_state
from ...core.factory import transformation
from ...core.numbers.norms import scaled_norms
from ...core.numbers.numerics import cast, compute_dtype
from ...core.random import keys
from ...core.rules import checked_result, identity, unzipped, walk
from ...core.transformation import GradientTransformation
from ...core.trees.boxes import refilled
from ...core.trees.copies import unlike_params
from ...core.trees.sharding import reshard, shard_like, sharding_of
from ...core.trees.short import in_short
from ...core.trees.tree import PyTree, check_params, leaves_as, varying_like
from ...formula import (
    MEMORY,
    Definition,
    Expression,
    Reader,
    Symbol,
    apply,
    expression,
    formula_of,
    t,
)
from ...linalg.products import adjoint, product
from ...linalg.subspaces import orthonormal
from .axes import among_matrices
from .image import Image, images_of
from .vectors import of_matrices


@in_short
class LowRankState(NamedTuple):
    """State of a momentum of which a part of few dimensions is used: the momentum, and of each
    matrix the vectors on the side of its inputs."""

    momentum: PyTree
    right: PyTree


@transformation(whole=True)
def scale_by_dion(
    rank: PositiveCount,
    momentum: Decay = 0.95,
    eps: NonNegative = 1e-8,
    seed: Seed = 0,
    axes: Any = "io",
) -> GradientTransformation:
    r"""The largest part of rank r of a momentum, made orthogonal by one step of power iteration.

    With outputs along the rows,

    $$B_t = M_{t-1} + G_t, \quad P_t = \mathrm{orthonormal}(B_t Q_{t-1}), \quad
    R_t = B_t^\top P_t,$$
    $$M_t = B_t - (1 - \mu)\,P_t R_t^\top, \quad Q_{t,j} = R_{t,j} / (\|R_{t,j}\| + \epsilon),
    \quad u_t = P_t Q_t^\top.$$

    Only what has been used decays, and the rest of the gradients waits in $M$ (error feedback). At
    full rank, once $Q$ has the singular vectors, it is the orthogonal factor of the momentum.

    Args:
        rank: $r$, at most the shorter side of each matrix counts.
        momentum: $\mu$, share of the part used that stays.
        eps: $\epsilon$, added to the lengths of columns.
        seed: of $Q_0$, normal numbers: those of the i-th array are drawn with the key $k_{0,i}$ of
            :func:`randomized`.
        axes: what each axis of an array is, as a letter, see :func:`orthogonalize`.

    Returns:
        A transformation of matrices whose state holds one buffer like each array and one of $r$
        numbers for each input.

    Raises:
        ValueError: if the axes of an array are not as many as it has; from `init` already.

    References:
        Ahn et al. 2025, Dion: Distributed Orthonormalized Updates, arXiv:2504.05295.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_dion(rank=1)
    >>> g = jnp.array([[3.0, 0.0], [4.0, 0.0]])  # of rank 1
    >>> tx.update(g, tx.init(g))[0].round(3) + 0.0
    Array([[0.6, 0. ],
           [0.8, 0. ]], dtype=float32)
    """

    def images(tree: PyTree) -> list[Image]:
        return images_of(tree, among_matrices(axes, "axes"), rank, "o")

    def init(params: PyTree) -> LowRankState:
        leaves = jax.tree.leaves(params)
        columns = images(params), leaves, keys(seed, 0, len(leaves))
        return LowRankState(
            jax.tree.map(lambda p: jnp.zeros_like(p, dtype=compute_dtype(p.dtype)), params),
            refilled(params, map(_normal, *columns)),
        )

    def rule(
        u: jax.Array, kept: jax.Array, right: jax.Array, image: Image, decay: Any, eps: Any
    ) -> tuple[jax.Array, ...]:
        if right.shape != image.small_shape:
            foreign_state(f"vectors of shape {image.small_shape}", right)
        total = image.matrices(u) + image.matrices(kept)
        left = orthonormal(product(total, adjoint(image.turned(right))))
        share = product(adjoint(left), total)
        kept_on = total - (1 - decay) * product(left, share)
        power, size = scaled_norms(share, -1)
        rows = share * power / (eps * power + size)
        out = checked_result(image.array(product(left, rows)), u, total.dtype)
        return out, cast(image.array(kept_on), kept.dtype), cast(image.turned(rows), right.dtype)

    def update(
        updates: PyTree, state: LowRankState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, LowRankState]:
        check_params(updates, params)
        leaves, structure = jax.tree.flatten(updates)
        # Only the momentum has the axes that a box may name.
        outside = jax.tree.structure(refilled(updates, leaves))
        momenta = leaves_as(structure, state.momentum, "state", "updates")
        rights = leaves_as(outside, state.right, "state", "updates")
        seen = iter(images(updates))

        def step(u: jax.Array, kept: jax.Array, right: jax.Array) -> tuple[jax.Array, ...]:
            arguments = u, kept, right, next(seen), momentum, eps
            return shard_like((u, kept, right), rule, *arguments)

        rows = walk(step, structure, leaves, momenta, rights, by_layer=False)
        out, momenta, rights = unzipped(rows, 3)
        new = LowRankState(structure.unflatten(momenta), outside.unflatten(rights))
        return structure.unflatten(out), new

    pair = GradientTransformation(unlike_params(init), update, LowRankState)
    return of_matrices(pair, identity(), axes)


@formula_of(scale_by_dion, rank="r", momentum=r"\mu", eps=r"\epsilon")
def _(u: Expression, reader: Reader, momentum: Any, eps: Any) -> Expression:
    left, share, right = (
        reader.claim((Symbol(letter, time=t),), (scale_by_dion, u)) for letter in "PRQ"
    )
    used = (1 - momentum) * left.at(t - 1) * share.at(t - 1).T
    total = reader.remember(("B",), MEMORY - used + u, 0)
    normal = apply(r"\mathcal{N}", 0, 1)
    reader.definitions += [
        Definition(left, apply("orthonormal", total * right.at(t - 1)), expression(0)),
        Definition(share, total.T * left, expression(0)),
        Definition(right, share / (apply("columnnorms", share) + eps), normal),
    ]
    return left * right.T


def _normal(image: Image, p: Any, key: jax.Array) -> jax.Array:
    """Normal numbers for the first vectors, where the inputs of the array are."""
    zero = image.zero(p)
    numbers = jax.random.normal(key, zero.shape, jnp.finfo(zero.dtype).dtype)
    return varying_like(p, reshard(numbers.astype(zero.dtype), sharding_of(zero)))
