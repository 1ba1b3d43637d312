"""Bounds on the length of updates."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from .. import _numerics
from .._errors import at_work
from .._kinds import Positive
from .._rules import treewise
from .._transformation import GradientTransformation, transformation
from .._tree import PyTree, check_arrays


def global_norm(updates: PyTree) -> jax.Array:
    r"""The Euclidean norm of all numbers of a tree together.

    $\|u\| = \sqrt{\sum_i |s u_i|^2} / s$ with $s$ a power of two near $1 / \max_i |u_i|$, in at
    least float32. Finite numbers never give an infinite norm: one beyond the dtype's range is its
    largest finite number. The derivative at 0 is 0.

    Args:
        updates: tree of floating-point or complex arrays; empty ones have norm 0.

    Returns:
        A real scalar.

    >>> import gdtx, jax.numpy as jnp
    >>> gdtx.global_norm({"a": jnp.array([3e30]), "b": jnp.array(4e30)})
    Array(5.e+30, dtype=float32)
    """
    with at_work("global_norm"):
        check_arrays(updates, "updates")
    power, scaled = _numerics.scaled_norm(jax.tree.leaves(updates))
    norm = scaled / power
    return jnp.where(jnp.isfinite(scaled), jnp.minimum(norm, jnp.finfo(norm.dtype).max), norm)


@transformation
def clip_by_global_norm(max_norm: Positive) -> GradientTransformation:
    r"""Shorten the updates to a global norm: $u \leftarrow u \min(1, c / \|u\|)$.

    Args:
        max_norm: largest norm of all updates together, $c$.

    References:
        Pascanu et al. 2013, On the difficulty of training recurrent neural networks,
        arXiv:1211.5063.

    >>> import gdtx, jax.numpy as jnp
    >>> gdtx.clip_by_global_norm(1.0).update({"a": jnp.array([3.0]), "b": jnp.array([4.0])}, ())[0]
    {'a': Array([0.6], dtype=float32), 'b': Array([0.8], dtype=float32)}
    """

    def shorten(updates: PyTree) -> PyTree:
        power, scaled = _numerics.scaled_norm(jax.tree.leaves(updates))
        # Both sides times the power: the norm itself may be beyond the range of the dtype.
        too_long = scaled > max_norm * power
        ratio = max_norm / jnp.where(too_long, scaled, 1)

        def shortened(u: jax.Array) -> jax.Array:
            wide = _numerics.compute_dtype(u.dtype)
            real = jnp.finfo(wide).dtype
            u = u.astype(wide)
            return jnp.where(too_long, u * power.astype(real) * ratio.astype(real), u)

        return jax.tree.map(shortened, updates)

    return treewise(shorten)
