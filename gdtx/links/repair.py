"""Updates changed where they would break something."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..core.calls.kinds import ArrayFunction
from ..core.errors import LeafError
from ..core.factory import transformation
from ..core.numbers.numerics import square
from ..core.numbers.shards import total
from ..core.rules import elementwise, with_params
from ..core.transformation import GradientTransformation
from ..formula import PARAMETERS, Expression, Reader, apply, formula_of


@transformation
def zero_nans() -> GradientTransformation:
    r"""Replace NaN by 0, number by number.

    Infinite numbers stay: they still have a sign, which :func:`clip` keeps. Links that divide by a
    norm make NaN of them, and 0 of all that is finite; after those this link has work too. A
    complex number of which one part is NaN becomes 0.

    >>> import gdtx, jax.numpy as jnp
    >>> gdtx.zero_nans().update(jnp.array([jnp.nan, -jnp.inf, 2.0]), ())[0]
    Array([  0., -inf,   2.], dtype=float32)
    """
    return elementwise(lambda u: jnp.where(jnp.isnan(u), 0, u))


@formula_of(zero_nans)
def _(u: Expression, reader: Reader) -> Expression:
    u = reader.atom(u)
    return apply("cases", 0, apply("undefined", u), u)


@transformation(quiet=True)
def only_finite() -> GradientTransformation:
    """0 in place of arrays that have a number which is not finite."""
    return elementwise(lambda u: jnp.where(jnp.isfinite(total(jnp.sum(square(u)), u)), u, 0))


@formula_of(only_finite)
def _(u: Expression) -> Expression:
    return u


@transformation
def infinite_at_zero() -> GradientTransformation:
    r"""Replace 0 by infinity, number by number: what :func:`divide` divides by it is 0.

    The denominator of methods without an $\epsilon$, in which $0 / 0$ counts as 0. The derivative
    there is 0.

    >>> import gdtx, jax.numpy as jnp
    >>> root = gdtx.chain(gdtx.absolute(), gdtx.infinite_at_zero())
    >>> tx = gdtx.join(gdtx.divide, g=gdtx.identity(), size=root)
    >>> tx.update(jnp.array([-3.0, 0.0]), tx.init(jnp.zeros(2)))[0]
    Array([-1.,  0.], dtype=float32)
    """
    return elementwise(lambda u: jnp.where(u == 0, jnp.inf, u))


@formula_of(infinite_at_zero)
def _(u: Expression) -> Expression:
    return u  # a convention for 0 / 0, which is not part of a formula


@transformation
def project(f: ArrayFunction) -> GradientTransformation:
    r"""Go to a point of a set: $u \leftarrow f(\theta + u) - \theta$, for $f$ a projection onto it.

    It belongs last, where the updates are those that are added. The sum of the parameter and what
    is emitted is $f(\theta + u)$ up to rounding.

    Args:
        f: function of one array that returns one of the same shape, such as
            `lambda p: jnp.clip(p, 0, 1)`.

    Returns:
        A stateless transformation.

    Raises:
        ValueError: from `update`, if it is called without the parameters.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.chain(gdtx.sgd(1.0), gdtx.project(lambda p: jnp.clip(p, 0, 1)))
    >>> p = jnp.array([0.25, 0.5])
    >>> p + tx.update(jnp.array([-3.0, 0.25]), tx.init(p), p)[0]
    Array([1.  , 0.25], dtype=float32)
    """
    return with_params(lambda u, p: f(p + u) - p)


@formula_of(project)
def _(u: Expression, reader: Reader, f: Any) -> Expression:
    return reader.merged(f, f, PARAMETERS + u) - PARAMETERS


@transformation
def keep_nonnegative() -> GradientTransformation:
    r"""Shorten updates so that no parameter becomes negative: $u \leftarrow \max(u, -\theta)$.

    Of :func:`project` the case $f(\theta) = \max(\theta, 0)$, without its rounding:
    a parameter stops at 0 exactly; one that is negative goes there. It belongs last, where the
    updates are those that are added.

    Raises:
        ValueError: from `update`, if it is called without the parameters.
        TypeError: from `update`, for complex updates.

    >>> import gdtx, jax.numpy as jnp
    >>> gdtx.keep_nonnegative().update(jnp.array([-0.5, -2.0]), (), jnp.array([1.0, 1.0]))[0]
    Array([-0.5, -1. ], dtype=float32)
    """

    def rule(u: jax.Array, p: jax.Array) -> jax.Array:
        if jnp.iscomplexobj(u) or jnp.iscomplexobj(p):
            raise LeafError(TypeError, "is complex, keep_nonnegative orders real numbers")
        return jnp.maximum(u, -p)

    return with_params(rule)


@formula_of(keep_nonnegative)
def _(u: Expression) -> Expression:
    return apply("\\max", u, -PARAMETERS)
