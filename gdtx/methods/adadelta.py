"""AdaDelta: steps in the units of the parameters."""

from __future__ import annotations

from ..core.calls.kinds import Decay, NonNegative
from ..core.combine import chain, divide, feedback, join, multiply
from ..core.factory import transformation
from ..core.rules import identity
from ..core.transformation import GradientTransformation
from ..links.arithmetic import add, scale_by_learning_rate, sqrt, square
from ..links.decay import add_decayed_weights
from ..links.fraction import root
from ..links.moments import ema


@transformation
def scale_by_adadelta(rho: Decay = 0.9, eps: NonNegative = 1e-6) -> GradientTransformation:
    r"""Scale by the ratio of the root mean squares of past steps and of gradients.

    $$u_t = \frac{\sqrt{d_{t-1} + \epsilon}}{\sqrt{v_t + \epsilon}}\,g_t, \quad
    v_t = \rho v_{t-1} + (1 - \rho) g_t^2, \quad d_t = \rho d_{t-1} + (1 - \rho) u_t^2.$$

    Args:
        rho: $\rho$, decay of the averages of squared gradients and of squared steps.
        eps: $\epsilon$, inside both roots. It sets the length of the first steps.

    Returns:
        A transformation whose state holds two buffers per array. Complex updates: $|g|^2$.

    References:
        Zeiler 2012, ADADELTA: An Adaptive Learning Rate Method, arXiv:1212.5701.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_adadelta(rho=0.0, eps=1.0)
    >>> tx.update(jnp.array([0.0, 1.0]), tx.init(jnp.zeros(2)))[0]
    Array([0.        , 0.70710677], dtype=float32)
    """
    mean_square = chain(square(), ema(rho))
    rms = chain(add(eps), sqrt())
    normalized = join(divide, g=identity(), nu=chain(mean_square, root(0.0, eps)))
    return chain(normalized, feedback(multiply, mean_square, rms))


@transformation
def adadelta(
    learning_rate: NonNegative = 1.0,
    rho: Decay = 0.9,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegative = 0.0,
) -> GradientTransformation:
    r"""AdaDelta.

    $\theta_t = \theta_{t-1} - \eta\,\mathrm{RMS}[\Delta\theta]_{t-1} / \mathrm{RMS}[g]_t\;g_t$.

    :func:`add_decayed_weights`, :func:`scale_by_adadelta`, :func:`scale_by_learning_rate`.

    Args:
        learning_rate: $\eta$, the size of a step, 1 in the paper: a number, an array or a schedule.
        rho, eps: as in :func:`scale_by_adadelta`.
        weight_decay: factor of the weights that are added to the gradient, as by an L2 penalty.

    Returns:
        A transformation whose state holds two buffers per array.

    References:
        Zeiler 2012, see :func:`scale_by_adadelta`.

    >>> import gdtx
    >>> gdtx.adadelta()
    adadelta(learning_rate=1.0, rho=0.9, eps=1e-06, weight_decay=0.0)
    """
    return chain(
        add_decayed_weights(weight_decay),
        scale_by_adadelta(rho, eps),
        scale_by_learning_rate(learning_rate),
    )
