"""Noise on the updates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..core.calls.kinds import NonNegative, Seed
from ..core.factory import transformation
from ..core.numbers.numerics import sqrt
from ..core.numbers.values import is_zero
from ..core.random import randomized
from ..core.transformation import GradientTransformation
from ..core.trees.tree import explicit_sharding
from ..formula import Definition, Expression, Reader, Symbol, apply, formula_of, t


@transformation
def add_noise(eta: NonNegative, gamma: NonNegative, seed: Seed = 0) -> GradientTransformation:
    r"""Add annealed Gaussian noise: $u \leftarrow u + \sigma_t\,\xi_t$, $\xi_t \sim N(0, 1)$.

    $\sigma_t^2 = \eta_\xi / (1 + t)^\gamma$ with $t = 0$ on the first update, independent for all
    numbers and steps. Complex updates get complex noise with $E|\xi_t|^2 = 1$, half of it in the
    real part.

    Args:
        eta: $\eta_\xi$, the variance on the first update.
        gamma: $\gamma$, how fast it falls; 0.55 in the paper.
        seed: an integer or an integer array, see :func:`randomized`. (Optax's name is `key`; here
            no key is kept.)

    Returns:
        A transformation whose state is one count.

    Raises:
        ValueError: if `eta` or `gamma` is negative.

    References:
        Neelakantan et al. 2015, Adding Gradient Noise Improves Learning for Very Deep Networks,
        arXiv:1511.06807.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.add_noise(eta=0.01, gamma=0.55)
    >>> u, state = tx.update(jnp.ones(10000), tx.init(jnp.zeros(10000)))
    >>> u.mean().round(2), u.var().round(3)
    (Array(1., dtype=float32), Array(0.01, dtype=float32))
    """

    def at(t: jax.Array) -> Callable[[jax.Array, jax.Array], jax.Array]:
        deviation = sqrt(eta / t.astype(jnp.result_type(float)) ** gamma)

        def noisy(key: jax.Array, u: jax.Array) -> jax.Array:
            place = explicit_sharding(u)
            return u + deviation * jax.random.normal(key, u.shape, u.dtype, out_sharding=place)

        return noisy

    return randomized(at, seed)


@formula_of(add_noise, eta=r"\eta_\xi", gamma=r"\gamma")
def _(u: Expression, reader: Reader, eta: Any, gamma: Any, seed: Any) -> Expression:
    # Each has its own noise, unless the seeds are the same.
    noise = reader.claim((Symbol(r"\xi", time=t),), repr(seed))
    definition = Definition(noise, apply(r"\mathcal{N}", 0, 1))
    if definition not in reader.definitions:
        reader.definitions.append(definition)
    return u + apply("root", eta if is_zero(gamma) else eta / t**gamma) * noise
