"""Updates scaled to a size, or centered."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..core.calls.kinds import NonNegative
from ..core.errors import LeafError
from ..core.factory import transformation
from ..core.numbers import norms as _norms
from ..core.numbers import numerics as _numerics
from ..core.numbers.program import map_alike
from ..core.rules import elementwise, treewise, with_params
from ..core.transformation import GradientTransformation
from ..core.trees.tree import PyTree
from ..formula import PARAMETERS, Expression, Reader, apply, formula_of


@transformation
def normalize_by_global_norm() -> GradientTransformation:
    r"""Give the updates norm 1, all together: $u \leftarrow u / \|u\|$; zeros stay zeros.

    With an infinite number among them the norm is infinite: that one becomes NaN and the finite
    ones 0.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.normalize_by_global_norm()
    >>> tx.update({"a": jnp.array([3.0]), "b": jnp.array([4.0])}, ())[0]
    {'a': Array([0.6], dtype=float32), 'b': Array([0.8], dtype=float32)}
    """

    def normalize(updates: PyTree) -> PyTree:
        leaves, structure = jax.tree.flatten(updates)
        power, scaled = _norms.scaled_global_norm(leaves)
        length = jnp.where(scaled == 0, 1, scaled)

        def normalized(u: jax.Array) -> jax.Array:
            u = _numerics.cast(u, _numerics.compute_dtype(u.dtype))
            real = jnp.finfo(u.dtype).dtype
            return u * power.astype(real) / length.astype(real)

        return structure.unflatten(map_alike(normalized, leaves))

    return treewise(normalize)


@formula_of(normalize_by_global_norm)
def _(u: Expression, reader: Reader) -> Expression:
    u = reader.atom(u)
    return u / apply("norm", u)


@transformation(whole=True)
def centralize(axis: int = -1) -> GradientTransformation:
    r"""Subtract from each unit's update its mean: $u_i \leftarrow u_i - \mathrm{mean}(u_i)$.

    The units of an array lie along one axis, and the mean is over all others. Arrays with fewer
    than two axes pass as they are.

    Args:
        axis: of the units. The last is that of the outputs in kernels of (..., inputs, outputs);
            Optax takes the first.

    Returns:
        A stateless transformation.

    Raises:
        ValueError: from `update`, for arrays with two axes or more but not this one.

    References:
        Yong et al. 2020, Gradient Centralization: A New Optimization Technique for Deep Neural
        Networks, arXiv:2004.01461.

    >>> import gdtx, jax.numpy as jnp
    >>> gdtx.centralize().update(jnp.array([[1.0, 5.0], [3.0, 5.0]]), ())[0]
    Array([[-1.,  0.],
           [ 1.,  0.]], dtype=float32)
    """

    def rule(u: jax.Array) -> jax.Array:
        if u.ndim < 2 or u.size == 0:
            return u
        if not -u.ndim <= axis < u.ndim:
            raise LeafError(ValueError, f"has shape {u.shape}, expected one with an axis {axis}")
        others = tuple(i for i in range(u.ndim) if i != axis % u.ndim)
        return u - jnp.mean(u, others, keepdims=True)

    return elementwise(rule)


@formula_of(centralize)
def _(u: Expression, reader: Reader) -> Expression:
    u = reader.atom(u)
    return u - apply(r"\operatorname{mean}", u)


@transformation
def scale_by_param_block_rms(min_scale: NonNegative = 1e-3) -> GradientTransformation:
    r"""Make updates relative to each array: $u \leftarrow u \max(\mathrm{RMS}(\theta), \epsilon)$.

    Args:
        min_scale: $\epsilon$, root mean square that an array counts as having at least.

    Returns:
        A stateless transformation.

    Raises:
        ValueError: from `update`, if it is called without the parameters.

    References:
        Shazeer & Stern 2018, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost,
        arXiv:1804.04235, section 8.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_param_block_rms()
    >>> tx.update(jnp.array([0.5, 1.0]), (), jnp.array([-3.0, 3.0]))[0].round(5)
    Array([1.5, 3. ], dtype=float32)
    """
    return with_params(lambda u, p: u * jnp.maximum(_norms.root_mean_square(p), min_scale))


@formula_of(scale_by_param_block_rms, plain="min_scale")
def _(u: Expression, min_scale: Any) -> Expression:
    return apply("\\max", apply("RMS", PARAMETERS), min_scale) * u
