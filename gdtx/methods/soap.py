"""SOAP: Adam in the eigenbasis of Shampoo."""

from __future__ import annotations

from typing import Any

from ..core.calls.kinds import Decay, FloatDType, NonNegative
from ..core.calls.types import TransformationLike
from ..core.combine import chain, divide
from ..core.factory import transformation
from ..core.transformation import GradientTransformation
from ..links.arithmetic import scale_by_learning_rate
from ..links.decay import add_decayed_weights
from ..links.fraction import first_moment, root, second_moment
from ..links.matrix.bases import Bases
from ..links.matrix.blockwise import Blocks, blockwise
from ..links.matrix.eigenbasis import in_eigenbasis
from ..links.matrix.vectors import with_others
from ..links.moments import ema


@transformation
def scale_by_soap(
    b1: Decay = 0.95,
    b2: Decay = 0.95,
    eps: NonNegative = 1e-8,
    *,
    b3: Decay | None = None,
    bases: Bases = Bases(),
    blocks: Blocks = Blocks(),
    statistic_dtype: FloatDType | None = None,
) -> GradientTransformation:
    r"""Adam's step, taken in the eigenbasis of the second moments along each axis.

    Of a matrix $G_t$, with $\hat m_t$ the average of gradients without its bias,

    $$u_t = Q_L\,\frac{Q_L^\top \hat m_t\, Q_R}{\sqrt{\hat v_t} + \epsilon}\,Q_R^\top, \quad
    v_t = \beta_2 v_{t-1} + (1 - \beta_2)\,(Q_L^\top G_t\, Q_R)^2,$$

    where $Q_L$ and $Q_R$ are eigenvectors of the averages $L$ and $R$ of $G G^\top$ and
    $G^\top G$, with the decay $\beta_3$. $v$ is updated on every step, whatever the age of the
    basis, and sorted with it when it is turned. With the identity as basis it is Adam, which is
    what the first step, before any basis is known, takes. It is :func:`blockwise` of
    :func:`in_eigenbasis`.

    Args:
        b1: $\beta_1$, decay of the first moment.
        b2: $\beta_2$, decay of the second moment.
        eps: $\epsilon$, outside the root.
        b3: $\beta_3$, decay of $L$ and $R$; None is $\beta_2$.
        bases: when and how the basis is turned, see :class:`Bases`.
        blocks: how arrays are cut into blocks, each a parameter of its own, see :class:`Blocks`.
        statistic_dtype: in which $L$ and $R$ are kept, see :func:`scale_by_shampoo`.

    Returns:
        A transformation whose state holds two buffers for each array, for each axis of each block
        two matrices, average and basis, and the number of bases that failed.

    Raises:
        TypeError: from `update`, for complex updates.

    References:
        Vyas et al. 2024, SOAP: Improving and Stabilizing Shampoo using Adam, arXiv:2409.11321.
        (The authors' program takes no step at the first gradient; here that step is Adam's.)

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_soap()
    >>> g = jnp.array([[1.0, 1.0], [-1.0, 3.0]])
    >>> tx.update(g, tx.init(g))[0].round(3)
    Array([[ 1.,  1.],
           [-1.,  1.]], dtype=float32)
    """
    statistic = ema(b2 if b3 is None else b3, dtype=statistic_dtype)
    magnitude = chain(second_moment(b2), root(eps))
    turned = in_eigenbasis(magnitude, statistic, bases, direction=first_moment(b1), merge=divide)
    return blockwise(turned, blocks)


@transformation
def soap(
    learning_rate: NonNegative,
    b1: Decay = 0.95,
    b2: Decay = 0.95,
    eps: NonNegative = 1e-8,
    *,
    b3: Decay | None = None,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
    bases: Bases = Bases(),
    blocks: Blocks = Blocks(),
    statistic_dtype: FloatDType | None = None,
    others: TransformationLike | None = None,
) -> GradientTransformation:
    r"""SOAP, with decoupled weight decay if asked for.

    $\theta_t = \theta_{t-1} - \eta\,(u_t + \lambda\,\theta_{t-1})$ with $u_t$ that of
    :func:`scale_by_soap`.

    :func:`scale_by_soap`, :func:`add_decayed_weights`, :func:`scale_by_learning_rate`.

    Args:
        learning_rate: $\eta$, a number, an array or a schedule.
        b1, b2, eps, bases, blocks: as in :func:`scale_by_soap`.
        b3: $\beta_3$, decay of the matrices whose eigenvectors are taken; None is $\beta_2$.
        weight_decay, mask: as in :func:`add_decayed_weights`.
        statistic_dtype: in which second moments are kept, see :func:`scale_by_shampoo`.
        others: as in :func:`with_others`.

    Returns:
        A transformation with the state of :func:`scale_by_soap`, and what `others` keeps.

    Raises:
        TypeError: from `update`, for complex updates.

    References:
        Vyas et al. 2024, see :func:`scale_by_soap`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.soap(0.1)
    >>> g = jnp.array([[3.0, -0.5], [1.0, 2.0]])
    >>> tx.update(g, tx.init(g))[0].round(3)
    Array([[-0.1,  0.1],
           [-0.1, -0.1]], dtype=float32)
    """
    method_of_matrices = chain(
        scale_by_soap(
            b1, b2, eps, b3=b3, bases=bases, blocks=blocks, statistic_dtype=statistic_dtype
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
    return with_others(method_of_matrices, others)
