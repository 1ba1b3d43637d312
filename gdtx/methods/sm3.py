"""SM3: AdaGrad with one number for each row and each column."""

from __future__ import annotations

from ..core.calls.kinds import Decay, Fraction, NonNegative
from ..core.combine import chain, divide, join
from ..core.factory import transformation
from ..core.rules import identity
from ..core.transformation import GradientTransformation
from ..links.arithmetic import scale_by_learning_rate, square
from ..links.fraction import root
from ..links.matrix.cover import running_cover
from ..links.moments import ema


@transformation
def scale_by_sm3(*, b2: Fraction = 1.0, eps: NonNegative = 1e-8) -> GradientTransformation:
    r"""Divide by the root of a bound on the sum of squares so far.

    $s_t = \operatorname{cover}(s_{t-1}) + g_t^2$, $u_t = g_t / \sqrt{s_t + \epsilon}$, with
    the bound of :func:`running_cover`.

    Args:
        b2: $\beta_2$, the decay of the sum; 1 is the paper's.
        eps: $\epsilon$, inside the root, where the paper lets 0 / 0 be 0.

    Returns:
        A transformation whose state holds for each array as many numbers as the sum of its
        dimensions. Complex updates: $|g|^2$.

    References:
        Anil, Gupta, Koren & Singer 2019, Memory-Efficient Adaptive Optimization,
        arXiv:1901.11150, algorithm SM3-II.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_sm3(eps=0.0)
    >>> tx.update(jnp.array([-3.0]), tx.init(jnp.zeros(1)))[0]
    Array([-1.], dtype=float32)
    """
    accumulated = chain(square(), running_cover(b2), root(0.0, eps))
    return join(divide, g=identity(), nu=accumulated)


@transformation
def sm3(
    learning_rate: NonNegative,
    momentum: Decay | None = 0.9,
    b2: Fraction = 1.0,
    eps: NonNegative = 1e-8,
) -> GradientTransformation:
    r"""SM3, AdaGrad in little memory.

    $\theta_t = \theta_{t-1} - \eta\,m_t$ with $m_t$ the average of $g_t / \sqrt{s_t + \epsilon}$.

    :func:`scale_by_sm3`, :func:`ema` and :func:`scale_by_learning_rate`.

    Args:
        learning_rate: $\eta$, a number, an array or a schedule.
        momentum: decay of the average; None keeps no buffer for it, and then all memory is that of
            :func:`scale_by_sm3`.
        b2, eps: as in :func:`scale_by_sm3`.

    Returns:
        A transformation whose state holds one buffer per array with momentum, and what
        :func:`scale_by_sm3` holds.

    References:
        Anil et al. 2019, see :func:`scale_by_sm3`.

    >>> import gdtx, jax, jax.numpy as jnp
    >>> tx = gdtx.sm3(0.1, momentum=None)
    >>> sum(x.size for x in jax.tree.leaves(tx.init(jnp.zeros((300, 200)))))
    500
    """
    average = [] if momentum is None else [ema(momentum)]
    return chain(scale_by_sm3(b2=b2, eps=eps), *average, scale_by_learning_rate(learning_rate))
