"""Lengths measured by curvature, and the exact curvature of small models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from ..core.combine import chain
from ..core.errors import at_work, fail, summarize
from ..core.kinds import NonNegative, Positive
from ..core.norms import scaled_norm
from ..core.numerics import cast, compute_dtype, sqrt
from ..core.rules import each_leaf
from ..core.sharding import shard_like_if_explicit
from ..core.transformation import GradientTransformation, transformation
from ..core.tree import PyTree, statistic_like
from ..formula import IDENTITY, Expression, Reader, Symbol, apply, formula_of, t
from ..linalg.decompositions import eigh
from ..linalg.products import adjoint, matvec, of_eigenvalues, product
from ..links.arithmetic import scale_by_learning_rate
from .curvature import Curvature, checked
from .formulas import fisher_form
from .losses import Loss
from .model.layers import leaves_by_path


def fisher_square(curvature: Curvature, updates: PyTree) -> jax.Array:
    r"""$u^T F u$ with the Kronecker-factored $F$ of this batch: $\sum \mathrm{tr}(U^T A U S)$.

    Half of it is how far the model's distribution moves, as a Kullback-Leibler divergence and to
    second order. Parameters that no layer has do not count.

    Args:
        curvature: from :func:`gdtx.kfac.value_grad_and_curvature`.
        updates: tree like the parameters.

    >>> import jax.numpy as jnp
    >>> from gdtx import kfac
    >>> f = kfac.value_grad_and_curvature(
    ...     lambda params, x: x @ params["w"], kfac.squared_error, output="exact")
    >>> _, _, curvature = f({"w": jnp.ones((2, 1))}, (jnp.eye(2), jnp.zeros((2, 1))))
    >>> kfac.fisher_square(curvature, {"w": jnp.array([[1.0], [2.0]])})
    Array(2.5, dtype=float32)
    """

    leaves = leaves_by_path(updates)
    with at_work("fisher_square"):
        curvature = checked(curvature, getattr(curvature, "layout", ()), leaves)

    def summed(curvature: Curvature, leaves: dict[str, jax.Array]) -> jax.Array:
        total = jnp.zeros((), curvature.examples.dtype)
        for layer in curvature.layout:
            block = curvature.blocks[layer.weight]
            if layer.kind == "dense":
                matrix = layer.matrix(leaves)
                inner = product(product(block["A"], matrix), block["S"])
                inner = inner / block["n"][..., None, None]
                total = total + jnp.sum(matrix * inner) / curvature.examples
            else:
                x = leaves[layer.weight]
                square = block["D"] * jnp.square(cast(x, compute_dtype(x.dtype)))
                total = total + jnp.sum(square) / curvature.examples
        return total

    return shard_like_if_explicit(curvature.examples, summed, curvature, leaves)


def _small_if_large(updates: PyTree) -> jax.Array:
    """1, or of updates whose squares might overflow the power of two that brings them near 1."""
    power, _ = scaled_norm(jax.tree.leaves(updates))
    return jnp.where(power < 2.0**-32, power, 1)


def _times(power: jax.Array, updates: PyTree) -> PyTree:
    def product(u: jax.Array) -> jax.Array:
        wide = compute_dtype(u.dtype)
        return cast(u, wide) * power.astype(jnp.finfo(wide).dtype)

    return jax.tree.map(product, updates)


class FisherNormState(NamedTuple):
    """State of a bound on the Fisher norm: the factor last used."""

    factor: jax.Array


@transformation
def clip_by_fisher_norm(norm_constraint: Positive = 1e-3) -> GradientTransformation:
    r"""Shorten the updates in the norm of the curvature.

    $u \leftarrow u \min(1, \sqrt{c / u^T F u})$ with the factors of this batch, see
    :func:`gdtx.kfac.fisher_square`.

    `update` needs `curvature=`; where it is None, the last factor is used again.

    Args:
        norm_constraint: $c$, the largest $u^T F u$, in the units of the loss (where that is a log
            likelihood, nats): of a loss multiplied by 10 it must be 10 times as large to mean the
            same.

    Returns:
        A transformation whose state is one number.

    Raises:
        TypeError: from `update`, if it is called without `curvature`.

    References:
        Ba et al. 2017, Distributed Second-Order Optimization using Kronecker-Factored
        Approximations, ICLR.

    >>> import gdtx, jax.numpy as jnp
    >>> from gdtx import kfac
    >>> f = kfac.value_grad_and_curvature(
    ...     lambda params, x: x @ params["w"], kfac.squared_error, output="exact")
    >>> params = {"w": jnp.ones((2, 1))}
    >>> _, grads, curvature = f(params, (jnp.eye(2), jnp.zeros((2, 1))))
    >>> tx = gdtx.clip_by_fisher_norm(0.25)
    >>> updates, _ = tx.update(params, tx.init(params), params, curvature=curvature)
    >>> updates["w"]
    Array([[0.5],
           [0.5]], dtype=float32)
    """

    def init(params: PyTree) -> FisherNormState:
        return FisherNormState(statistic_like(params, 1, jnp.float32))

    def update(
        updates: PyTree,
        state: FisherNormState,
        params: PyTree = None,
        *,
        curvature: Curvature | None,
        **extra_args: Any,
    ) -> tuple[PyTree, FisherNormState]:
        ratio, power = state.factor, 1
        if curvature is not None:
            power = _small_if_large(updates)
            square = fisher_square(curvature, _times(power, updates))
            within = square <= norm_constraint * power * power
            ratio = sqrt(norm_constraint / jnp.where(within, norm_constraint, square))
            power = jnp.where(within, 1, power)
            # Before the other factor, because their product may be too small a number.
            updates = _times(power, updates)
        leaves, structure = jax.tree.flatten(updates)
        shortened = each_leaf(lambda u: ratio * u, structure, leaves)
        return structure.unflatten(shortened), FisherNormState((ratio * power).astype(jnp.float32))

    return GradientTransformation(init, update, FisherNormState)


@formula_of(clip_by_fisher_norm, norm_constraint="c")
def _(u: Expression, reader: Reader, norm_constraint: Any) -> Expression:
    u = reader.atom(u)
    return u * apply("\\min", 1, apply("root", norm_constraint / fisher_form(reader, u)))


def fisher_matrix(
    model: Callable[[PyTree, PyTree], jax.Array], loss: Loss
) -> Callable[[PyTree, tuple[PyTree, PyTree]], jax.Array]:
    r"""The exact Fisher information, or generalised Gauss-Newton, matrix, dense.

    $F = \frac1N \sum_n J_n^T H_n J_n$, a row for each parameter: for small models.

    Args:
        model: function of parameters and inputs that returns outputs `(examples, ..., d)`.
        loss: one whose curvature in the outputs is known, such as :func:`squared_error`.

    Returns:
        A function of parameters and `(inputs, targets)`; rows are in the order of
        `jax.flatten_util.ravel_pytree`.

    References:
        Amari 1998, Natural Gradient Works Efficiently in Learning.

    >>> import jax.numpy as jnp
    >>> from gdtx import kfac
    >>> fisher = kfac.fisher_matrix(lambda params, x: x @ params["w"], kfac.squared_error)
    >>> fisher({"w": jnp.ones((2, 1))}, (jnp.eye(2), jnp.zeros((2, 1))))
    Array([[0.5, 0. ],
           [0. , 0.5]], dtype=float32)
    """

    def evaluate(params: PyTree, batch: tuple[PyTree, PyTree]) -> jax.Array:
        flat, unravel = ravel_pytree(params)

        def twice(flat: jax.Array) -> tuple[jax.Array, jax.Array]:
            outputs = model(unravel(flat), batch[0])
            return outputs, outputs

        jacobian, outputs = jax.jacrev(twice, has_aux=True)(flat)
        size = outputs.shape[-1]
        jacobian = jacobian.reshape(-1, size, flat.size)
        columns = jnp.arange(size)
        roots = jax.vmap(lambda index: loss.root(outputs, index))(columns).reshape(size, -1, size)
        rows = jnp.einsum("cnd,ndp->ncp", roots, jacobian).reshape(-1, flat.size)
        return rows.T @ rows / len(jacobian)

    return evaluate


@transformation
def scale_by_natural_gradient(damping: NonNegative = 0.0) -> GradientTransformation:
    r"""Divide by the exact Fisher matrix: $u \leftarrow (F + \lambda I)^{-1} u$.

    For small models, and to see what approximations leave out. Directions without any curvature,
    damping included, are left out too. `update` needs `curvature=`, the matrix of
    :func:`gdtx.kfac.fisher_matrix`.

    Args:
        damping: $\lambda$, added to the diagonal of the Fisher matrix.

    Returns:
        A stateless transformation.

    Raises:
        TypeError: from `update`, if it is called without `curvature`.
        ValueError: from `update`, if the matrix does not have one row per parameter.

    References:
        Amari 1998, Natural Gradient Works Efficiently in Learning.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_natural_gradient()
    >>> tx.update(jnp.array([2.0, 3.0]), (), curvature=jnp.diag(jnp.array([2.0, 1.0])))[0]
    Array([1., 3.], dtype=float32)
    """

    def update(
        updates: PyTree, state: tuple[()], params: PyTree = None, *, curvature: jax.Array,
        **extra_args: Any,
    ) -> tuple[PyTree, tuple[()]]:  # fmt: skip
        wide = jax.tree.map(lambda u: cast(u, compute_dtype(u.dtype)), updates)
        flat, unravel = ravel_pytree(wide)
        if getattr(curvature, "shape", None) != (flat.size, flat.size):
            came = "a Curvature" if isinstance(curvature, Curvature) else summarize(curvature)
            fail(
                ValueError,
                f"curvature must be an array of shape {(flat.size, flat.size)}, as "
                f"kfac.fisher_matrix gives it, got {came}",
            )
        values, vectors = eigh(curvature)
        values = values + damping
        # Rounding makes small values of those that are 0.
        floor = flat.size * jnp.finfo(values.dtype).eps * jnp.max(values, initial=0)
        coordinates = matvec(adjoint(vectors), flat)
        along = of_eigenvalues(lambda some: coordinates / some, values, floor)
        return unravel(matvec(vectors, along)), ()

    return GradientTransformation(lambda params: (), update, ())


@formula_of(scale_by_natural_gradient, damping=r"\lambda")
def _(u: Expression, reader: Reader, damping: Any) -> Expression:
    fisher = reader.claim((Symbol("F", time=t),), "the exact Fisher matrix")
    return (fisher + damping * IDENTITY) ** -1 * u


@transformation
def natural_gradient(
    learning_rate: NonNegative = 1.0, damping: NonNegative = 0.0
) -> GradientTransformation:
    r"""Natural gradient descent: $\theta_t = \theta_{t-1} - \eta\,(F + \lambda I)^{-1} g_t$.

    :func:`scale_by_natural_gradient` and :func:`scale_by_learning_rate`.

    Args:
        learning_rate: $\eta$, factor of the step; 1 leads to the minimum of the quadratic model.
        damping: $\lambda$, added to the curvature, in its units.

    Returns:
        A stateless transformation.

    References:
        Amari 1998, see :func:`scale_by_natural_gradient`.

    >>> import jax.numpy as jnp
    >>> from gdtx import kfac
    >>> tx = kfac.natural_gradient()
    >>> tx.update(jnp.array([2.0, 3.0]), ((), ()), curvature=jnp.diag(jnp.array([2.0, 1.0])))[0]
    Array([-1., -3.], dtype=float32)
    """
    return chain(scale_by_natural_gradient(damping), scale_by_learning_rate(learning_rate))
