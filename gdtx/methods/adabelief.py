"""AdaBelief: steps as long as the gradient is near to its average."""

from __future__ import annotations

from ..core.calls.kinds import Decay, FloatDType, NonNegative
from ..core.combine import chain, divide, join, subtract
from ..core.factory import transformation
from ..core.let import let, value_of
from ..core.rules import identity
from ..core.transformation import GradientTransformation
from ..links.arithmetic import add, scale, scale_by_learning_rate, square
from ..links.correction import bias_correction
from ..links.fraction import root
from ..links.moments import ema, trace


@transformation
def scale_by_belief(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
    *,
    mu_dtype: FloatDType | None = None,
    nu_dtype: FloatDType | None = None,
) -> GradientTransformation:
    r"""First moment over root of the mean square distance to it.

    $$u_t = \frac{\hat m_t}{\sqrt{\hat s_t} + \epsilon}, \quad
    s_t = \beta_2 s_{t-1} + (1 - \beta_2) (g_t - m_t)^2 + \epsilon_{root},$$

    with $m$ the average of the gradients (:func:`ema`), which is kept once, and the biases
    corrected as in :func:`scale_by_adam`. As $\epsilon_{root}$ is added at every step, $\hat s$ is
    at least $\epsilon_{root} / (1 - \beta_2)$.

    Args:
        b1: $\beta_1$, decay of the first moment.
        b2: $\beta_2$, decay of the second.
        eps: $\epsilon$, outside the root.
        eps_root: $\epsilon_{root}$, inside the recurrence.
        mu_dtype, nu_dtype: in which the moments are kept; by default that of the parameter, at
            least float32. In fewer bits they are rounded by chance, see :func:`recur`.

    Returns:
        A transformation whose state holds two buffers per array. Complex updates: $|g - m|^2$.

    References:
        Zhuang et al. 2020, AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed
        Gradients, arXiv:2010.07468.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_belief(b1=0.5)
    >>> tx.update(jnp.array([-3.0, 1e-4]), tx.init(jnp.zeros(2)))[0].round(3)
    Array([-2.,  2.], dtype=float32)
    """
    mean = chain(value_of("mu"), bias_correction(b1))
    distance = chain(join(subtract, g=identity(), mu=value_of("mu")), square())
    power = chain(
        distance, scale(1 - b2), add(eps_root), trace(b2, dtype=nu_dtype), bias_correction(b2)
    )
    return let(join(divide, mu=mean, nu=chain(power, root(eps))), mu=ema(b1, dtype=mu_dtype))


@transformation
def adabelief(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
    *,
    mu_dtype: FloatDType | None = None,
    nu_dtype: FloatDType | None = None,
) -> GradientTransformation:
    r"""AdaBelief.

    $\theta_t = \theta_{t-1} - \eta\,\hat m_t / (\sqrt{\hat s_t} + \epsilon)$.

    :func:`scale_by_belief` and :func:`scale_by_learning_rate`.

    Args:
        learning_rate: $\eta$, the size of a step: a number, an array or a schedule.
        b1, b2, eps, eps_root, mu_dtype, nu_dtype: as in :func:`scale_by_belief`.

    Returns:
        A transformation whose state holds two buffers per array.

    References:
        Zhuang et al. 2020, see :func:`scale_by_belief`.

    >>> import gdtx
    >>> print(gdtx.adabelief(1e-3))
    adabelief(0.001)
    """
    return chain(
        scale_by_belief(b1, b2, eps, eps_root, mu_dtype=mu_dtype, nu_dtype=nu_dtype),
        scale_by_learning_rate(learning_rate),
    )
