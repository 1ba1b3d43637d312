"""The noisy quadratic model, on which what batch size does can be computed."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..core.transformation import GradientTransformation
from ..core.trees.short import in_short
from ..links.arithmetic import elementwise
from ..wrappers.average import decays
from .simulation import Simulation, simulated


class Moments(NamedTuple):
    """Mean and covariance of the iterate θ, the velocity v and the average a, of each number."""

    theta: jax.Array
    v: jax.Array
    a: jax.Array
    theta_theta: jax.Array
    theta_v: jax.Array
    v_v: jax.Array
    a_theta: jax.Array
    a_v: jax.Array
    a_a: jax.Array


@in_short
class NoisyQuadratic(NamedTuple):
    r"""The loss $\frac12 \sum_i h_i \theta_i^2$ with gradients $h_i \theta_i + \varepsilon_i$.

    The noise of a batch of $B$ examples is normal, independent from step to step, with the variance
    $c_i / B$. Made by :func:`noisy_quadratic`.

    `curvatures` are $h$, `noise` the variances $c$, `start` the parameters to begin with.
    """

    curvatures: jax.Array
    noise: jax.Array
    start: jax.Array

    def loss(self, theta: jax.Array) -> jax.Array:
        return 0.5 * jnp.sum(self.curvatures * theta**2)

    def gradient(self, theta: jax.Array, key: jax.Array, batch_size: Any = 1) -> jax.Array:
        """The gradient of one batch, drawn by a key."""
        deviation = jnp.sqrt(self.noise / batch_size)
        return self.curvatures * theta + deviation * jax.random.normal(key, theta.shape)

    def preconditioner(self, power: Any) -> GradientTransformation:
        """The link $u_i \\leftarrow h_i^{-p} u_i$, for :meth:`simulate`."""
        return elementwise(lambda u: self.curvatures**-power * u)

    def risk(
        self,
        learning_rate: Any,
        steps: int,
        batch_size: Any = 1,
        *,
        momentum: Any = 0.0,
        preconditioning: Any = 0.0,
        averaging: Any = 0.0,
    ) -> jax.Array:
        r"""The expected loss at each step, by exact recursion of means and covariances.

        $$v_t = \mu v_{t-1} + h \theta_{t-1} + \varepsilon_t, \quad
        \theta_t = \theta_{t-1} - \eta h^{-p} v_t, \quad a_t = \beta_t a_{t-1} + (1 - \beta_t)
        \theta_t,$$

        which is linear, so the moments at $t$ follow from those at $t - 1$; the risk is
        $\frac12 \sum_i h_i E[a_i^2]$. Each of the arguments is a number, an array of one value per
        step, or a schedule. With an infinite batch size the risk is that of the mean path, and the
        rest, $E[\ell]$ less that, is proportional to $1 / B$.

        Args:
            learning_rate: $\eta$.
            steps: how many.
            batch_size: $B$.
            momentum: $\mu$.
            preconditioning: $p$, a number only; 1 is Newton's method.
            averaging: $\beta$ of an exponential average of the iterates, as :func:`gdtx.average`
                takes it, without the bias of its start; 0 is the iterate itself. An array or a
                schedule are the $\beta_t$.

        Returns:
            An array of `steps + 1` values, the first that of the start; infinite where they exceed
            what a float can hold.

        References:
            Zhang et al. 2019, Which Algorithmic Choices Matter at Which Batch Sizes?,
            arXiv:1907.04164.

        >>> import gdtx
        >>> from gdtx import explore
        >>> problem = explore.noisy_quadratic(curvatures=[1.0], noise=[1.0])
        >>> problem.risk(0.5, 2, batch_size=4)  # 1/4 of it, and η²c/(2B) more
        Array([0.5      , 0.15625  , 0.0703125], dtype=float32)
        """
        beta = averaging
        if not callable(averaging) and jnp.ndim(averaging) == 0:
            beta = decays(averaging, 0)
        given = (learning_rate, momentum, beta, batch_size)
        return _risk(self, preconditioning, tuple(_per_step(value, steps) for value in given))

    def simulate(
        self,
        tx: GradientTransformation,
        steps: int,
        batch_size: Any = 1,
        *,
        seeds: int = 100,
        key: jax.Array | None = None,
    ) -> Simulation:
        """Train with any transformation, many times at once, as one scan.

        Losses are those of :func:`gdtx.eval_params`, so that of an average is the average's.

        Args:
            tx: the transformation; one with arrays in it may be mapped over.
            steps: how many.
            batch_size: a number or an array.
            seeds: how many runs.
            key: where their noise comes from.

        Returns:
            The mean of the losses at each step and the standard error of that mean.

        >>> import gdtx
        >>> from gdtx import explore
        >>> problem = explore.noisy_quadratic(10)
        >>> problem.simulate(gdtx.sgd(0.1), 20).risk.shape
        (21,)
        """
        key = jax.random.key(0) if key is None else key
        return simulated(self, tx, batch_size, jax.random.split(key, seeds), steps)


def noisy_quadratic(
    dimension: int = 1000, *, curvatures: Any = None, noise: Any = None, start: Any = None
) -> NoisyQuadratic:
    r"""A noisy quadratic problem, the paper's by default: $h_i = 1/i$, $c_i = h_i$, $\theta_i = 1$.

    Args:
        dimension: of the default curvatures; the paper has 10,000.
        curvatures: $h$, an array.
        noise: $c$, the variance of one example's gradient; the curvatures by default, as it is for
            the Fisher matrix of a model near its optimum.
        start: the parameters to begin with; ones by default.

    References:
        Zhang et al. 2019, Which Algorithmic Choices Matter at Which Batch Sizes?, arXiv:1907.04164.

    >>> from gdtx import explore
    >>> problem = explore.noisy_quadratic(4)
    >>> problem.loss(problem.start)  # half of 1 + 1/2 + 1/3 + 1/4
    Array(1.0416667, dtype=float32)
    """
    dtype = jnp.result_type(float)
    h = 1 / np.arange(1, dimension + 1) if curvatures is None else curvatures
    h = jnp.asarray(h, dtype)
    c = h if noise is None else jnp.asarray(noise, dtype)
    theta = jnp.ones_like(h) if start is None else jnp.asarray(start, dtype)
    for name, value in {"noise": c, "start": theta}.items():
        if value.shape != h.shape:
            raise ValueError(
                f"noisy_quadratic: {name} must have the shape of curvatures, {h.shape}, got "
                f"{value.shape}"
            )
    return NoisyQuadratic(h, c, theta)


def _per_step(value: Any, steps: int) -> jax.Array:
    at = jax.vmap(lambda t: jnp.asarray(value(t)))(jnp.arange(steps)) if callable(value) else value
    return jnp.broadcast_to(jnp.asarray(at, jnp.result_type(float)), (steps,))


def start_moments(problem: NoisyQuadratic) -> Moments:
    zero = jnp.zeros_like(problem.start)
    return Moments(problem.start, zero, problem.start, *[zero] * 6)


def next_moments(now: Moments, h: Any, noise: Any, rate: Any, momentum: Any, decay: Any) -> Moments:
    """The moments one step later. Three substitutions: v, then θ with the new v, then a."""
    theta, v, a, theta_theta, theta_v, v_v, a_theta, a_v, a_a = now
    v = momentum * v + h * theta
    v_v = momentum**2 * v_v + 2 * momentum * h * theta_v + h**2 * theta_theta + noise
    theta_v = momentum * theta_v + h * theta_theta
    a_v = momentum * a_v + h * a_theta

    theta = theta - rate * v
    theta_theta = theta_theta - 2 * rate * theta_v + rate**2 * v_v
    theta_v = theta_v - rate * v_v
    a_theta = a_theta - rate * a_v

    a = decay * a + (1 - decay) * theta
    a_a = decay**2 * a_a + 2 * decay * (1 - decay) * a_theta + (1 - decay) ** 2 * theta_theta
    a_theta = decay * a_theta + (1 - decay) * theta_theta
    a_v = decay * a_v + (1 - decay) * theta_v
    return Moments(theta, v, a, theta_theta, theta_v, v_v, a_theta, a_v, a_a)


def expected_loss(problem: NoisyQuadratic, now: Moments, batch_size: Any = 1) -> jax.Array:
    """Of the average; the covariance is that of batches of one, if a batch size is given."""
    risk = problem.loss(now.a) + 0.5 * jnp.sum(problem.curvatures * now.a_a) / batch_size
    # Where moments overflow, differences of infinities may have any sign, or none.
    return jnp.where(risk >= 0, risk, jnp.inf)


@jax.jit
def _risk(problem: NoisyQuadratic, power: Any, per_step: tuple[jax.Array, ...]) -> jax.Array:
    h = problem.curvatures

    def step(now: Moments, given: Any) -> tuple[Moments, jax.Array]:
        rate, momentum, decay, batch_size = given
        new = next_moments(now, h, problem.noise / batch_size, rate * h**-power, momentum, decay)
        return new, expected_loss(problem, new)

    _, risks = jax.lax.scan(step, start_moments(problem), per_step)
    return jnp.append(problem.loss(problem.start), risks)
