"""Adan: Nesterov momentum from differences of gradients, adaptive."""

from __future__ import annotations

from typing import Any

from ..core.calls.kinds import Decay, FloatDType, NonNegative
from ..core.combine import chain, divide, join, plus
from ..core.factory import transformation
from ..core.let import let, value_of
from ..core.numbers.values import is_zero
from ..core.rules import identity
from ..core.select import masked
from ..core.transformation import GradientTransformation
from ..formula import letters
from ..links.arithmetic import scale, scale_by_learning_rate
from ..links.decay import add_decayed_weights
from ..links.differences import difference
from ..links.fraction import first_moment, root, second_moment


@transformation
def scale_by_adan(
    b1: Decay = 0.98,
    b2: Decay = 0.92,
    b3: Decay = 0.99,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    ahead: NonNegative | None = None,
    *,
    mu_dtype: FloatDType | None = None,
    nu_dtype: FloatDType | None = None,
) -> GradientTransformation:
    r"""Averages of gradients and of their differences, over root of a second moment.

    $$u_t = \frac{\hat m_t + \alpha \hat v_t}{\sqrt{\hat n_t + \epsilon_{root}} + \epsilon}, \quad
    d_t = g_t - g_{t-1}, \quad d_1 = 0,$$

    with $m$ the average of the gradients with decay $\beta_1$, $v$ that of their differences $d$
    with $\beta_2$, $n$ that of $(g + \alpha d)^2$ with $\beta_3$, and the biases of all corrected
    as in :func:`scale_by_adam`.

    Args:
        b1: $\beta_1$, decay of the average of gradients; the paper's is $1 - \beta_1$.
        b2: $\beta_2$, decay of the average of their differences, likewise.
        b3: $\beta_3$, decay of the average of squares, likewise.
        eps, eps_root: as in :func:`root`.
        ahead: $\alpha$, how far the gradient is continued along its difference. None for
            $\beta_2$, as in the paper; Optax takes $1 - \beta_2$.
        mu_dtype, nu_dtype: in which the averages of gradients and differences, and of squares, are
            kept, by default that of the parameter, at least float32; in fewer bits they are rounded
            by chance, see :func:`recur`. The last gradient is kept in at least float32.

    Returns:
        A transformation whose state holds four buffers per array: three averages and the last
        gradient. Complex updates: $|g + \alpha d|^2$. What is squared may be $1 + 2\alpha$ times
        the gradient, and is infinite accordingly earlier, see :func:`square`.

    References:
        Xie et al. 2022, Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep
        Models, arXiv:2208.06677; the correction of the biases and the first difference are those
        of the authors' program.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_adan()
    >>> tx.update(jnp.array([-3.0, 1e-4]), tx.init(jnp.zeros(2)))[0].round(3)
    Array([-1.,  1.], dtype=float32)
    """
    ahead = b2 if ahead is None else ahead
    mean = join(
        plus,
        mu=first_moment(b1, mu_dtype),
        d=chain(value_of("d"), first_moment(b2, mu_dtype), scale(ahead)),
    )
    continued = join(plus, g=identity(), d=chain(value_of("d"), scale(ahead)))
    power = chain(continued, second_moment(b3, nu_dtype))
    return let(join(divide, mu=mean, nu=chain(power, root(eps, eps_root))), d=difference())


letters(scale_by_adan, ahead=r"\alpha")


@transformation
def adan(
    learning_rate: NonNegative,
    b1: Decay = 0.98,
    b2: Decay = 0.92,
    b3: Decay = 0.99,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
    ahead: NonNegative | None = None,
    proximal: bool = True,
    *,
    mu_dtype: FloatDType | None = None,
    nu_dtype: FloatDType | None = None,
) -> GradientTransformation:
    r"""Adan, with weight decay as a proximal step.

    $\theta_t = (\theta_{t-1} - \eta\,u_t) / (1 + \eta \lambda)$ with $u$ of :func:`scale_by_adan`;
    not proximal, $\theta_{t-1} - \eta\,(u_t + \lambda\,\theta_{t-1})$, as in :func:`adamw`.

    :func:`scale_by_adan`, :func:`add_decayed_weights`, :func:`scale_by_learning_rate`; the proximal
    step divides what they give by $1 + \eta \lambda$.

    Args:
        learning_rate: $\eta$, the size of a step: a number, an array or a schedule.
        b1, b2, b3, eps, eps_root, ahead, mu_dtype, nu_dtype: as in :func:`scale_by_adan`.
        weight_decay, mask: as in :func:`add_decayed_weights`.
        proximal: whether weights decay in the paper's way; Optax has the other.

    Returns:
        A transformation whose state holds four buffers per array.

    References:
        Xie et al. 2022, see :func:`scale_by_adan`, algorithm 1.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.adan(1.0, weight_decay=0.25)
    >>> params = jnp.array([2.0])
    >>> tx.update(jnp.array([0.0]), tx.init(params), params)[0]
    Array([-0.4], dtype=float32)
    """
    step = chain(
        scale_by_adan(b1, b2, b3, eps, eps_root, ahead, mu_dtype=mu_dtype, nu_dtype=nu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
    if not proximal:
        return step
    shrink = scale(1 / (1 + learning_rate * weight_decay))
    if is_zero(weight_decay):
        shrink = identity()
    return chain(step, shrink if mask is None else masked(shrink, mask))
