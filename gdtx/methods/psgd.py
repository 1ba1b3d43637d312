"""PSGD: gradients whitened by Kronecker factors that are fitted by descent."""

from __future__ import annotations

from typing import Any

from ..core.calls.kinds import Decay, NonNegative, Positive
from ..core.combine import chain
from ..core.factory import transformation
from ..core.numbers.values import is_zero
from ..core.rules import identity
from ..core.transformation import GradientTransformation
from ..links.arithmetic import scale_by_learning_rate
from ..links.clipping import clip_by_block_rms
from ..links.decay import add_decayed_weights
from ..links.fraction import first_moment
from ..links.matrix.blockwise import Blocks, blockwise
from ..links.matrix.whiten import Whitening, whiten


@transformation
def psgd(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    *,
    max_rms: Positive | None = 2.0,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
    whitening: Whitening = Whitening(),
    blocks: Blocks = Blocks(),
) -> GradientTransformation:
    r"""PSGD with Kronecker factors (Kron), for gradients that are whitened.

    $\theta_t = \theta_{t-1} - \eta\,(u_t + \lambda\,\theta_{t-1})$,
    $u_t = Q_L^\top Q_L\, \hat m_t\, Q_R^\top Q_R$ with the factors of :func:`whiten`.

    :func:`blockwise` of :func:`whiten`, :func:`clip_by_block_rms`, :func:`add_decayed_weights`,
    :func:`scale_by_learning_rate`.

    Args:
        learning_rate: $\eta$, a number, an array or a schedule. Steps have numbers of about that
            size, as Adam's have.
        b1: $\beta_1$, decay of the first moment; the constant 0 keeps none. (The authors' average
            is the plain mean until that forgets more slowly.)
        max_rms: largest root mean square of the whitened update of an array; None is no bound.
        weight_decay, mask: as in :func:`add_decayed_weights`.
        whitening: when and how factors are fitted, see :class:`Whitening`.
        blocks: how arrays are cut into blocks, see :class:`Blocks`.

    Returns:
        A transformation whose state holds one buffer per array, and what :func:`whiten` holds.

    Raises:
        TypeError: from `update`, for complex updates.

    References:
        Li 2018, see :func:`whiten`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.psgd(0.1, whitening=gdtx.Whitening(damping=0.0))
    >>> g = jnp.array([[100.0, -0.5], [0.5, 100.0]])
    >>> tx.update(g, tx.init(g))[0].round(2)
    Array([[-0.13,  0.  ],
           [-0.  , -0.13]], dtype=float32)
    """
    mean = identity() if is_zero(b1) else first_moment(b1)
    bound = [] if max_rms is None else [clip_by_block_rms(max_rms)]
    return chain(
        blockwise(whiten(mean, whitening), blocks),
        *bound,
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
