"""Dion: the largest part of a momentum, made orthogonal."""

from __future__ import annotations

from typing import Any

from ..core.calls.kinds import Decay, NonNegative, PositiveCount, Seed
from ..core.calls.types import TransformationLike
from ..core.combine import chain
from ..core.factory import transformation
from ..core.transformation import GradientTransformation
from ..links.arithmetic import scale_by_learning_rate
from ..links.decay import add_decayed_weights
from ..links.matrix.axes import among_matrices
from ..links.matrix.low_rank import scale_by_dion
from ..links.matrix.named import with_named_matrices
from ..links.matrix.orthogonal import scale_by_shape


@transformation
def dion(
    learning_rate: NonNegative,
    rank: PositiveCount,
    matrices: Any = None,
    others: TransformationLike | None = None,
    *,
    momentum: Decay = 0.95,
    weight_decay: NonNegative = 0.01,
    eps: NonNegative = 1e-8,
    seed: Seed = 0,
    mask: Any = None,
) -> GradientTransformation:
    r"""Dion for matrices, another method for all other parameters.

    $\theta_t = \theta_{t-1} - \eta\,(\sqrt{n_o / n_i}\,P_t Q_t^\top + \lambda\,\theta_{t-1})$ with
    $P_t Q_t^\top$ the part of rank r of the momentum made orthogonal, of :func:`scale_by_dion`, and
    $n_o$ outputs and $n_i$ inputs.

    :func:`scale_by_dion`, :func:`scale_by_shape`, :func:`add_decayed_weights`,
    :func:`scale_by_learning_rate`. As with :func:`muon`, matrices are those that are named.

    Args:
        learning_rate: $\eta$ of the matrices, a number, an array or a schedule.
        rank, momentum, eps: as in :func:`scale_by_dion`.
        matrices, others: as in :func:`with_named_matrices`.
        seed: of $Q_0$, see :func:`scale_by_dion`.
        weight_decay, mask: $\lambda$ of the matrices, times the rate, and of which of them.

    Returns:
        A transformation whose state holds for each matrix one buffer and $r$ numbers for each
        input, and what `others` keeps.

    Raises:
        ValueError: as :func:`muon`.

    References:
        Ahn et al. 2025, Dion: Distributed Orthonormalized Updates, arXiv:2504.05295.

    >>> import gdtx, jax.numpy as jnp
    >>> params = {"w": jnp.zeros((30, 10)), "b": jnp.zeros(10)}
    >>> tx = gdtx.dion(0.01, 4, ["w"], others=gdtx.adamw(1e-3))
    >>> state = tx.init(params)
    >>> gdtx.find(state, "momentum")["w"].shape, gdtx.find(state, "right")["w"].shape
    ((30, 10), (30, 4))
    """
    axes = among_matrices(matrices, "matrices")
    hidden = chain(
        scale_by_dion(rank, momentum, eps, seed, axes),
        scale_by_shape(root_of_ratio, axes),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
    return with_named_matrices(hidden, matrices, others)


def root_of_ratio(n_in: Any, n_out: Any) -> Any:
    return (n_out / n_in) ** 0.5
