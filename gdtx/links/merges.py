"""Merges with names: what two arrays are combined by, where it is more than arithmetic."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ..core.errors import LeafError
from ..core.numbers.norms import scaled_norms, unscaled
from ..core.numbers.shards import total, whole_size
from ..formula import Expression, Reader, Symbol, apply, formula_of, t


def arctan2(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    r"""The angle whose tangent is the quotient, for :func:`join`: bounded, and 0 for $0 / 0$.

    In place of :func:`divide` in Adam, with no epsilon: Everett et al. 2024, Scaling Exponents
    Across Parameterizations and Optimizers, arXiv:2407.05872. Its derivatives at two zeros are
    finite.

    Args:
        numerator, denominator: $u$ and $v$ of $\operatorname{arctan2}(u, v)$, real.

    >>> import gdtx, jax.numpy as jnp
    >>> root = gdtx.chain(gdtx.second_moment(0.999), gdtx.sqrt())
    >>> tx = gdtx.join(gdtx.arctan2, mu=gdtx.first_moment(0.9), nu=root)
    >>> tx.update(jnp.array([1e-10, -5.0, 0.0]), tx.init(jnp.zeros(3)))[0].round(3)
    Array([ 0.785, -0.785,  0.   ], dtype=float32)
    """
    _check_real("arctan2", numerator, denominator)
    both_zero = (numerator == 0) & (denominator == 0)
    return jnp.arctan2(numerator, jnp.where(both_zero, 1, denominator))


@formula_of(arctan2)
def _(numerator: Expression, denominator: Expression, reader: Reader) -> Expression:
    return apply(r"\operatorname{arctan2}", numerator, denominator)


def cautious(update: jax.Array, gradient: jax.Array) -> jax.Array:
    r"""The update where it has the gradient's sign, for :func:`join`: $u\,\phi / \bar\phi$.

    $\phi$ is 1 where $u g > 0$ and else 0, $\bar\phi$ its mean over the array, at least 0.001:
    what is left is made longer. So the authors' program has it; in their paper $\bar\phi$ is the
    number of ones, plus one, over the size of the array. Liang et al. 2024, Cautious Optimizers:
    Improving Training with One Line of Code, arXiv:2411.16085.

    Args:
        update: $u$, before its sign is turned.
        gradient: $g$; both are real.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.join(gdtx.cautious, u=gdtx.trace(0.9), g=gdtx.identity())
    >>> _, state = tx.update(jnp.array([1.0, 1.0]), tx.init(jnp.zeros(2)))
    >>> tx.update(jnp.array([1.0, -0.5]), state)[0]
    Array([3.8, 0. ], dtype=float32)
    """
    _check_real("cautious", update, gradient)
    # By their signs, because a product may be too small a number; and a NaN stays.
    differs = jnp.sign(update) * jnp.sign(gradient) <= 0
    alike = jnp.where(differs, 0, 1).astype(update.dtype)
    share = total(jnp.sum(alike), alike) / whole_size(update) if update.size else 1
    return jnp.where(differs, 0, update) / jnp.maximum(share, 1e-3)


@formula_of(cautious)
def _(update: Expression, gradient: Expression, reader: Reader) -> Expression:
    update = reader.atom(update)
    agrees = apply("cases", 1, apply("greater", update * gradient, 0), 0)
    agrees = reader.define((Symbol(r"\phi", time=t),), agrees)
    share = apply(r"\operatorname{mean}", agrees)
    return update * agrees / apply("\\max", share, 0.001)


def hyperball(update: jax.Array, parameter: jax.Array) -> jax.Array:
    r"""The update after which a parameter has the norm it had, for :func:`with_params`:
    $(\theta + u)\,\|\theta\| / \|\theta + u\| - \theta$.

    Hyperball is this after updates whose length is the learning rate's share of the parameter's, as
    :func:`scale_by_trust_ratio` makes them. Wen et al. 2026, Fantastic Pretraining Optimizers and
    Where to Find Them II: Hyperball Optimization, arXiv:2606.16899, with the norm as it was first;
    in their program it is the norm before the update, which differs by rounding.

    Args:
        update: $u$, what would be added.
        parameter: $\theta$, as it is before that.

    >>> import gdtx, jax.numpy as jnp
    >>> length = gdtx.scale_by_trust_ratio()
    >>> tx = gdtx.chain(length, gdtx.scale_by_learning_rate(0.75), gdtx.with_params(gdtx.hyperball))
    >>> p = jnp.array([0.0, 2.0])
    >>> p + tx.update(jnp.array([-7.0, 0.0]), tx.init(p), p)[0]
    Array([1.2, 1.6], dtype=float32)
    """
    new = parameter + update
    was, now = (unscaled(*scaled_norms(x)) for x in (parameter, new))
    return jnp.where(now == 0, new, new * (was / jnp.where(now == 0, 1, now))) - parameter


@formula_of(hyperball)
def _(update: Expression, parameter: Expression, reader: Reader) -> Expression:
    new = parameter + update
    return apply("norm", parameter) * (new / apply("norm", new)) - parameter


def _check_real(name: str, *arrays: jax.Array) -> None:
    if any(map(jnp.iscomplexobj, arrays)):
        raise LeafError(TypeError, f"is complex, {name} takes real arrays")
