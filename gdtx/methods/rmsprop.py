"""RMSProp, plain and centered."""

from __future__ import annotations

from typing import Any

from ..core.calls.kinds import Decay, Fraction, InnerDecay, NonNegative
from ..core.combine import chain, divide, join
from ..core.factory import transformation
from ..core.rules import identity
from ..core.transformation import GradientTransformation
from ..formula import letters
from ..links.arithmetic import square
from ..links.fraction import root
from ..links.moments import ema, variance
from .sgd import sgd


def _root(eps: Any, eps_in_sqrt: bool) -> GradientTransformation:
    """The root with its one constant inside or outside."""
    return root(0.0, eps) if eps_in_sqrt else root(eps)


@transformation
def scale_by_rms(
    decay: Decay = 0.9,
    eps: NonNegative = 1e-8,
    initial_scale: NonNegative = 0.0,
    eps_in_sqrt: bool = True,
) -> GradientTransformation:
    r"""Divide by the root of the average square.

    $v_t = \rho v_{t-1} + (1 - \rho) g_t^2$, $u_t = g_t / \sqrt{v_t + \epsilon}$.

    Args:
        decay: $\rho$, of the average of squares.
        eps: $\epsilon$, added to the average of squares.
        initial_scale: $v_0$, the average at first.
        eps_in_sqrt: whether $\epsilon$ is inside the root; else $u_t = g_t/(\sqrt{v_t}+\epsilon)$.

    Returns:
        A transformation whose state holds one buffer per array. Complex updates: $|g|^2$.

    References:
        Tieleman & Hinton 2012, Neural Networks for Machine Learning, lecture 6.5.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_rms(decay=0.75, eps=0.0)
    >>> tx.update(jnp.array([-3.0]), tx.init(jnp.zeros(1)))[0]
    Array([-2.], dtype=float32)
    """
    mean_square = chain(square(), ema(decay, initial=initial_scale))
    return join(divide, g=identity(), nu=chain(mean_square, _root(eps, eps_in_sqrt)))


letters(scale_by_rms, decay=r"\rho", plain="initial_scale")


@transformation
def scale_by_stddev(
    decay: InnerDecay = 0.9,
    eps: NonNegative = 1e-8,
    initial_scale: NonNegative = 0.0,
    eps_in_sqrt: bool = True,
) -> GradientTransformation:
    r"""Divide by the standard deviation.

    $u_t = g_t / \sqrt{s_t + \epsilon}$ with $s_t$ the :func:`variance` of the updates.

    Args:
        decay: $\rho$, of the averages of gradients and of their variance.
        eps: $\epsilon$, added to the variance.
        eps_in_sqrt: whether $\epsilon$ is inside the root; else it is added to the root.
        initial_scale: $s_0$, the variance at first.

    Returns:
        A transformation whose state holds two buffers per array. Complex updates: $|g - m|^2$.

    Raises:
        ValueError: if a hyperparameter is out of its range; the decay must not be 0 either.

    References:
        Graves 2013, Generating Sequences With Recurrent Neural Networks, arXiv:1308.0850.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_stddev(decay=0.5, eps=0.0)
    >>> tx.update(jnp.array([-3.0]), tx.init(jnp.zeros(1)))[0]
    Array([-2.], dtype=float32)
    """
    spread = variance(decay, initial=initial_scale)
    return join(divide, g=identity(), nu=chain(spread, _root(eps, eps_in_sqrt)))


letters(scale_by_stddev, decay=r"\rho", plain="initial_scale")


@transformation
def rmsprop(
    learning_rate: NonNegative,
    decay: Decay = 0.9,
    eps: NonNegative = 1e-8,
    initial_scale: NonNegative = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Fraction | None = None,
    nesterov: bool = False,
) -> GradientTransformation:
    r"""RMSProp.

    $\theta_t = \theta_{t-1} - \eta\,g_t / \sqrt{v_t + \epsilon}$ with $v_t$ the average square of
    the gradients, or their variance if centered.

    :func:`scale_by_rms` or :func:`scale_by_stddev`, then :func:`sgd` with its momentum.

    Args:
        learning_rate: $\eta$, the size of a step: a number, an array or a schedule.
        decay, eps, initial_scale, eps_in_sqrt: as in :func:`scale_by_rms`.
        centered: whether to divide by the standard deviation instead.
        momentum, nesterov: as in :func:`sgd`.

    Returns:
        A transformation whose state holds one buffer per array, one more if centered, and one
        more with momentum.

    References:
        Tieleman & Hinton 2012, see :func:`scale_by_rms`; Graves 2013, see
        :func:`scale_by_stddev`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.rmsprop(0.1, decay=0.75)
    >>> tx.update(jnp.array([-3.0]), tx.init(jnp.zeros(1)))[0]
    Array([0.2], dtype=float32)
    """
    scaled = scale_by_stddev if centered else scale_by_rms
    return chain(
        scaled(decay, eps, initial_scale, eps_in_sqrt), sgd(learning_rate, momentum, nesterov)
    )


letters(rmsprop, decay=r"\rho")
