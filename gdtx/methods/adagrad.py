"""AdaGrad: every number scaled by the root of the sum of its squared gradients."""

from __future__ import annotations

from ..core.calls.kinds import NonNegative
from ..core.combine import chain, divide, join
from ..core.factory import transformation
from ..core.rules import identity
from ..core.transformation import GradientTransformation
from ..formula import letters
from ..links.arithmetic import scale_by_learning_rate, square
from ..links.fraction import root
from ..links.moments import running_sum


@transformation
def scale_by_rss(
    initial_accumulator_value: NonNegative = 0.1, eps: NonNegative = 1e-7
) -> GradientTransformation:
    r"""Divide by the root of the sum of squares so far.

    $s_t = s_{t-1} + g_t^2$, $u_t = g_t / \sqrt{s_t + \epsilon}$.

    Args:
        initial_accumulator_value: $s_0$, the sum of squares at first.
        eps: $\epsilon$, inside the root.

    Returns:
        A transformation whose state holds one buffer per array. Complex updates: $|g|^2$.

    Raises:
        ValueError: if a hyperparameter is negative.

    References:
        Duchi, Hazan & Singer 2011, Adaptive Subgradient Methods for Online Learning and
        Stochastic Optimization, JMLR 12.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_rss(0.0, eps=0.0)
    >>> tx.update(jnp.array([-3.0]), tx.init(jnp.zeros(1)))[0]
    Array([-1.], dtype=float32)
    """
    accumulated = chain(square(), running_sum(initial_accumulator_value), root(0.0, eps))
    return join(divide, g=identity(), nu=accumulated)


letters(scale_by_rss, plain="initial_accumulator_value")


@transformation
def adagrad(
    learning_rate: NonNegative,
    initial_accumulator_value: NonNegative = 0.1,
    eps: NonNegative = 1e-7,
) -> GradientTransformation:
    r"""AdaGrad, with a diagonal matrix.

    $\theta_t = \theta_{t-1} - \eta\,g_t / \sqrt{s_0 + \sum_{i \le t} g_i^2 + \epsilon}$.

    :func:`scale_by_rss` and :func:`scale_by_learning_rate`.

    Args:
        learning_rate: $\eta$, the size of a step: a number, an array or a schedule.
        initial_accumulator_value, eps: as in :func:`scale_by_rss`.

    Returns:
        A transformation whose state holds one buffer per array.

    Raises:
        ValueError: if a hyperparameter is negative.

    References:
        Duchi, Hazan & Singer 2011, see :func:`scale_by_rss`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.adagrad(0.1, 0.0)
    >>> tx.update(jnp.array([-3.0]), tx.init(jnp.zeros(1)))[0]
    Array([0.1], dtype=float32)
    """
    return chain(
        scale_by_rss(initial_accumulator_value, eps), scale_by_learning_rate(learning_rate)
    )
