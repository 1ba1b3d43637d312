"""Sophia: steps divided by the Hessian's diagonal, and bounded."""

from __future__ import annotations

from typing import Any

from ..core.calls.kinds import Decay, FloatDType, NonNegative, Positive, PositiveCount
from ..core.combine import chain, divide, join
from ..core.factory import transformation
from ..core.let import value_of
from ..core.transformation import GradientTransformation
from ..formula import letters
from ..links.arithmetic import at_least, clip, scale, scale_by_learning_rate
from ..links.decay import add_decayed_weights
from ..links.moments import ema
from ..wrappers.sometimes import every


@transformation
def scale_by_sophia(
    b1: Decay = 0.965,
    b2: Decay = 0.99,
    eps: Positive = 1e-8,
    gamma: NonNegative = 0.01,
    clip_threshold: Positive | None = 1.0,
    update_interval: PositiveCount = 10,
    *,
    mu_dtype: FloatDType | None = None,
    nu_dtype: FloatDType | None = None,
) -> GradientTransformation:
    r"""Average gradient over the Hessian's diagonal, number by number no larger than a bound.

    $u_t = \mathrm{clip}(m_t / \max(\gamma h_t, \epsilon), \rho)$ with $m$ the average of the
    gradients and $h$ that of estimates $\hat h$ of the diagonal, which are taken in on every
    $k$-th step only, the first among them: $h_t = \beta_2 h_{t-1} + (1 - \beta_2) \hat h_t$.
    Neither average is corrected for its start at 0. Where $h$ is small or negative, the step is
    $\rho \operatorname{sign}(m_t)$.

    Args:
        b1: $\beta_1$, decay of the average of gradients.
        b2: $\beta_2$, decay of the average of estimates.
        eps: $\epsilon$, least denominator.
        gamma: $\gamma$, factor of the diagonal: the larger, the fewer numbers reach the bound.
        clip_threshold: $\rho$, the bound; None for none.
        update_interval: $k$, how many steps apart an estimate is taken in.
        mu_dtype, nu_dtype: in which the averages are kept; by default that of the parameter, at
            least float32. In fewer bits they are rounded by chance, see :func:`recur`.

    Returns:
        A transformation whose state holds two buffers per array. Its `update` takes `hessian=`: a
        tree like the parameters, or a function of them that returns one, which the other steps
        do not run.

    Raises:
        TypeError: from `update`, without `hessian=`, and for complex estimates.

    References:
        Liu et al. 2023, Sophia: A Scalable Stochastic Second-order Optimizer for Language Model
        Pre-training, arXiv:2305.14342, algorithm 3. Its authors' program adds an $\epsilon$ in
        place of the maximum, and takes its first estimate after $k$ steps; Optax corrects the bias
        of $m$ and uses $h$ from the step after.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_sophia(b1=0.0, b2=0.0, gamma=1.0)
    >>> state = tx.init(jnp.zeros(3))
    >>> tx.update(jnp.ones(3), state, hessian=jnp.array([4.0, 0.5, -1.0]))[0]
    Array([0.25, 1.  , 1.  ], dtype=float32)
    """
    estimates = chain(value_of("hessian"), ema(b2, dtype=nu_dtype))
    diagonal = every(update_interval, estimates, otherwise="last")
    step = join(divide, mu=ema(b1, dtype=mu_dtype), h=chain(diagonal, scale(gamma), at_least(eps)))
    return step if clip_threshold is None else chain(step, clip(clip_threshold))


letters(scale_by_sophia, gamma=r"\gamma", clip_threshold=r"\rho")


@transformation
def sophia(
    learning_rate: NonNegative,
    b1: Decay = 0.965,
    b2: Decay = 0.99,
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 1e-4,
    mask: Any = None,
    gamma: NonNegative = 0.01,
    clip_threshold: Positive | None = 1.0,
    update_interval: PositiveCount = 10,
    *,
    mu_dtype: FloatDType | None = None,
    nu_dtype: FloatDType | None = None,
) -> GradientTransformation:
    r"""Sophia.

    $\theta_t = \theta_{t-1} - \eta\,(\mathrm{clip}(m_t / \max(\gamma h_t, \epsilon), \rho) +
    \lambda\,\theta_{t-1})$.

    :func:`scale_by_sophia`, :func:`add_decayed_weights`, :func:`scale_by_learning_rate`. Estimates
    of the Hessian's diagonal come from :func:`hutchinson` or :func:`gauss_newton_bartlett`.

    Args:
        learning_rate: $\eta$, the size of a step: a number, an array or a schedule.
        b1, b2, eps, gamma, clip_threshold, update_interval: as in :func:`scale_by_sophia`.
        mu_dtype, nu_dtype: as in :func:`scale_by_sophia`.
        weight_decay, mask: as in :func:`add_decayed_weights`.

    Returns:
        A transformation whose state holds two buffers per array.

    References:
        Liu et al. 2023, see :func:`scale_by_sophia`.

    >>> import functools, gdtx, jax, jax.numpy as jnp
    >>> tx = gdtx.sophia(0.5, weight_decay=0.0)
    >>> loss = lambda params: jnp.sum(params**4)
    >>> @jax.jit
    ... def step(params, state, key):
    ...     estimate = functools.partial(gdtx.hutchinson, loss, key=key)  # run on every 10th step
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params, hessian=estimate)
    ...     return gdtx.apply_updates(params, updates), state
    >>> params = jnp.ones(2)
    >>> step(params, tx.init(params), jax.random.key(0))[0]
    Array([0.5, 0.5], dtype=float32)
    """
    return chain(
        scale_by_sophia(
            b1, b2, eps, gamma, clip_threshold, update_interval,
            mu_dtype=mu_dtype, nu_dtype=nu_dtype,
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )  # fmt: skip
