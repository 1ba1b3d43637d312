"""Updates compared with the ones before them."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ..core.calls.kinds import Count, FloatDType
from ..core.combine import chain, join, previous, subtract
from ..core.factory import transformation
from ..core.memory import accumulate, counted, recur
from ..core.rules import identity
from ..core.transformation import GradientTransformation
from ..formula import Expression, Reader, apply, formula_of, shifted, t


@transformation(exact=True)
def latest(dtype: FloatDType | None = None) -> GradientTransformation:
    r"""Keep the update and leave it as it is: $a_t = u_t$, emitting $a_t$.

    With :func:`previous` around it, the update before this one, 0 on the first.

    Args:
        dtype: in which the buffer is kept; by default that of the parameter, at least float32.

    Returns:
        A transformation whose state holds one buffer per array.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.previous(gdtx.latest())
    >>> u, state = tx.update(jnp.array(5.0), tx.init(jnp.zeros(())))
    >>> tx.update(jnp.array(7.0), state)[0]
    Array(5., dtype=float32)
    """
    return accumulate(lambda u, a: u, dtype=dtype)


@transformation(exact=True)
def first(dtype: FloatDType | None = None) -> GradientTransformation:
    r"""Keep the first update, and emit it from then on: $u_1$.

    Args:
        dtype: in which the buffer is kept; by default that of the parameter, at least float32.

    Returns:
        A transformation whose state holds one buffer per array, and one count.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.first()
    >>> u, state = tx.update(jnp.array(5.0), tx.init(jnp.zeros(())))
    >>> tx.update(jnp.array(7.0), state)[0]
    Array(5., dtype=float32)
    """

    def rule(u: jax.Array, value: jax.Array, step: jax.Array):
        value = jnp.where(step == 1, u, value)
        return value, {"value": value}

    return recur(rule, dtype, value=0.0)


@formula_of(first)
def _(u: Expression, reader: Reader) -> Expression:
    return shifted(reader.atom(u), 1)


@transformation
def wait(steps: Count) -> GradientTransformation:
    r"""Zeros in place of the first updates: $u_t \leftarrow 0$ while $t \le n$.

    Args:
        steps: $n$, the number of updates whose place zeros take.

    Returns:
        A transformation whose state is one count.

    Raises:
        ValueError: if `steps` is negative.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.wait(1)
    >>> u, state = tx.update(jnp.array([5.0]), tx.init(jnp.zeros(1)))
    >>> u, tx.update(jnp.array([5.0]), state)[0]
    (Array([0.], dtype=float32), Array([5.], dtype=float32))
    """

    def at(t: jax.Array):
        return lambda u: jnp.where(t > steps, u, 0)

    return counted(at)


@formula_of(wait)
def _(u: Expression, steps: int) -> Expression:
    return apply("cases", u, apply("greater", t, steps), 0)


@transformation
def difference(dtype: FloatDType | None = None) -> GradientTransformation:
    r"""Change since the last update: $d_t = u_t - u_{t-1}$, with $d_1 = 0$.

    Args:
        dtype: in which the buffer is kept; by default that of the parameter, at least float32.

    Returns:
        A transformation whose state holds one buffer per array, and one count.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.difference()
    >>> u, state = tx.update(jnp.array(5.0), tx.init(jnp.zeros(())))
    >>> u, tx.update(jnp.array(7.0), state)[0]
    (Array(0., dtype=float32), Array(2., dtype=float32))
    """
    return chain(join(subtract, u=identity(), last=previous(latest(dtype))), wait(1))


@formula_of(difference)
def _(u: Expression, reader: Reader) -> Expression:
    u = reader.atom(u)
    return apply("cases", u - shifted(u, t - 1), apply("greater", t, 1), 0)
