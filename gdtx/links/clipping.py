"""Bounds on the length of updates."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from ..core.calls.kinds import Bound, NonNegative
from ..core.errors import LeafError, at_work
from ..core.factory import transformation
from ..core.numbers import norms as _norms
from ..core.numbers.program import map_alike
from ..core.numbers.shards import whole_size
from ..core.rules import elementwise, treewise, with_params
from ..core.transformation import GradientTransformation
from ..core.trees.dispatch import one_program
from ..core.trees.tree import PyTree, check_arrays
from ..formula import PARAMETERS, Expression, Reader, apply, formula_of


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
    return _norm(updates)


@formula_of(global_norm)
def _(updates: Expression, reader: Reader) -> Expression:
    return apply("norm", updates)


@one_program
def _norm(updates: PyTree) -> jax.Array:
    return _norms.unscaled(*_norms.scaled_global_norm(jax.tree.leaves(updates)))


@transformation
def clip_by_global_norm(max_norm: Bound) -> GradientTransformation:
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
        leaves, structure = jax.tree.flatten(updates)
        power, scaled = _norms.scaled_global_norm(leaves)
        return structure.unflatten(
            map_alike(lambda u: _norms.shortened(u, power, scaled, max_norm), leaves)
        )

    return treewise(shorten)


@formula_of(clip_by_global_norm, max_norm="c")
def _(u: Expression, reader: Reader, max_norm: Any) -> Expression:
    u = reader.atom(u)
    return u * apply("\\min", 1, max_norm / apply("norm", u))


@transformation
def clip_by_norm(max_norm: Bound) -> GradientTransformation:
    r"""Shorten each array to a norm of its own: $u \leftarrow u \min(1, c / \|u\|)$.

    Args:
        max_norm: largest norm of an array, $c$. Finite numbers never give an infinite norm.

    >>> import gdtx, jax.numpy as jnp
    >>> gdtx.clip_by_norm(1.0).update({"a": jnp.array([3.0, 4.0]), "b": jnp.array([0.5])}, ())[0]
    {'a': Array([0.6, 0.8], dtype=float32), 'b': Array([0.5], dtype=float32)}
    """
    return elementwise(lambda u: _norms.shortened(u, *_norms.scaled_norm([u]), max_norm))


@formula_of(clip_by_norm, max_norm="c")
def _(u: Expression, reader: Reader, max_norm: Any) -> Expression:
    u = reader.atom(u)
    return u * apply("\\min", 1, max_norm / apply("norm", u))


@transformation
def clip_by_block_rms(threshold: Bound) -> GradientTransformation:
    r"""Shorten arrays to a root mean square: $u \leftarrow u / \max(1, \mathrm{RMS}(u) / \tau)$.

    :func:`clip_by_norm` with $\tau \sqrt n$ for an array of $n$ numbers.

    Args:
        threshold: largest root mean square of an array, $\tau$.

    References:
        Shazeer & Stern 2018, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost,
        arXiv:1804.04235, section 6.

    >>> import gdtx, jax.numpy as jnp
    >>> gdtx.clip_by_block_rms(1.0).update(jnp.array([2.0, -2.0, 2.0, 2.0]), ())[0]
    Array([ 1., -1.,  1.,  1.], dtype=float32)
    """

    def rule(u: jax.Array) -> jax.Array:
        return _norms.shortened(u, *_norms.scaled_norm([u]), threshold * math.sqrt(whole_size(u)))

    return elementwise(rule)


@formula_of(clip_by_block_rms, plain="threshold")
def _(u: Expression, reader: Reader, threshold: Any) -> Expression:
    u = reader.atom(u)
    return u / apply("\\max", 1, apply("RMS", u) / threshold)


@transformation(whole=True)
def adaptive_grad_clip(clipping: Bound, eps: NonNegative = 1e-3) -> GradientTransformation:
    r"""Shorten the update of each unit to a share of the unit's weights:
    $u_i \leftarrow u_i \min(1, \lambda \max(\|\theta_i\|, \epsilon) / \|u_i\|)$.

    What a unit is, a weight array has to tell by its shape, as in Optax. A number, and an array
    whose size is that of one axis, is one unit. A matrix of (inputs, outputs) has one unit per
    output, and an array with three axes likewise one for each place on the last two. A kernel of
    (..., inputs, outputs) with four or five axes has one unit per output.

    Args:
        clipping: $\lambda$, largest ratio of the norms.
        eps: $\epsilon$, norm that weights count as having at least, so that zeros can learn.

    Returns:
        A stateless transformation. Complex updates: $|u|^2$ in the norms.

    Raises:
        ValueError: from `update`, if it is called without the parameters, or for arrays with more
            than five axes.

    References:
        Brock et al. 2021, High-Performance Large-Scale Image Recognition Without Normalization,
        arXiv:2102.06171.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.adaptive_grad_clip(0.1)
    >>> weights = jnp.array([[3.0, 0.3], [4.0, 0.4]])
    >>> tx.update(jnp.array([[0.3, 0.3], [0.4, 0.4]]), (), weights)[0]
    Array([[0.3 , 0.03],
           [0.4 , 0.04]], dtype=float32)
    """

    def rule(u: jax.Array, p: jax.Array) -> jax.Array:
        axes = _unit_axes(u.shape)
        norm = _norms.unscaled(*_norms.scaled_norms(p, axes))
        longest = clipping * jnp.maximum(norm, eps)
        return _norms.shortened(u, *_norms.scaled_norms(u, axes), longest)

    return with_params(rule)


@formula_of(adaptive_grad_clip, clipping=r"\lambda", eps=r"\epsilon")
def _(u: Expression, reader: Reader, clipping: Any, eps: Any) -> Expression:
    u = reader.atom(u)
    longest = clipping * apply("\\max", apply("norm", PARAMETERS), eps)
    return u * apply("\\min", 1, longest / apply("norm", u))


def _unit_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes over which a unit extends."""
    if sum(size != 1 for size in shape) <= 1:
        return tuple(range(len(shape)))
    if len(shape) > 5:
        raise LeafError(
            ValueError,
            f"has shape {shape}, adaptive_grad_clip knows the units of arrays with at most 5 axes",
        )
    return (0,) if len(shape) < 4 else tuple(range(len(shape) - 1))
