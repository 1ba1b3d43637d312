"""Weight decay: a pull toward zero."""

from __future__ import annotations

from typing import Any

from ..core.calls.kinds import Scalar
from ..core.factory import transformation
from ..core.numbers.values import is_zero
from ..core.rules import identity, with_params
from ..core.select import masked
from ..core.transformation import GradientTransformation


@transformation
def add_decayed_weights(weight_decay: Scalar, mask: Any = None) -> GradientTransformation:
    r"""$u \leftarrow u + \lambda\,\theta$.

    Before the moments it is an L2 penalty; after them, and before the learning rate, it is the
    decoupled decay of AdamW. A negative one lets weights grow, as in Fromage.

    Args:
        weight_decay: $\lambda$, share of the weights that is taken off, times the learning rate.
        mask: which parameters decay, in any form of :func:`masked`; all by default.

    Returns:
        A stateless transformation.

    Raises:
        ValueError: from `update`, if it is called without the parameters (a constant 0 needs
            none).

    References:
        Loshchilov & Hutter 2019, Decoupled Weight Decay Regularization, arXiv:1711.05101.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.add_decayed_weights(0.1)
    >>> tx.update(jnp.array([1.0]), tx.init(jnp.zeros(1)), jnp.array([20.0]))[0]
    Array([3.], dtype=float32)
    """
    decay = with_params(lambda u, p: u + weight_decay * p)
    if is_zero(weight_decay):
        decay = identity()  # needs no parameters
    return decay if mask is None else masked(decay, mask)
