"""Natural gradient descent with the exact curvature of a small model."""

from __future__ import annotations

from ..core.calls.kinds import NonNegative
from ..core.combine import chain
from ..core.factory import transformation
from ..core.transformation import GradientTransformation
from ..curvature.natural_gradient import scale_by_natural_gradient
from ..links.arithmetic import scale_by_learning_rate


@transformation
def natural_gradient(
    learning_rate: NonNegative = 1.0, damping: NonNegative = 0.0
) -> GradientTransformation:
    r"""Natural gradient descent: $\theta_t = \theta_{t-1} - \eta\,(F + \lambda I)^{-1} g_t$.

    :func:`scale_by_natural_gradient` and :func:`scale_by_learning_rate`.

    Args:
        learning_rate: $\eta$, factor of the step; 1 leads to the minimum of the quadratic model.
        damping: $\lambda$, added to the curvature, in its units.

    Returns:
        A stateless transformation.

    References:
        Amari 1998, see :func:`scale_by_natural_gradient`.

    >>> import jax.numpy as jnp
    >>> from gdtx import kfac
    >>> tx = kfac.natural_gradient()
    >>> tx.update(jnp.array([2.0, 3.0]), ((), ()), curvature=jnp.diag(jnp.array([2.0, 1.0])))[0]
    Array([-1., -3.], dtype=float32)
    """
    return chain(scale_by_natural_gradient(damping), scale_by_learning_rate(learning_rate))
