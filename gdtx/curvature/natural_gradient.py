"""The exact curvature of small models, and gradients divided by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from ..core.calls.kinds import NonNegative
from ..core.errors import fail, summarize
from ..core.factory import transformation
from ..core.numbers.numerics import cast, compute_dtype
from ..core.transformation import GradientTransformation
from ..core.trees.tree import PyTree
from ..formula import IDENTITY, Expression, Reader, Symbol, formula_of, t
from ..linalg.decompositions import eigh
from ..linalg.products import adjoint, matvec, of_eigenvalues
from .curvature import Curvature
from .losses import Loss


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


@transformation(whole=True)
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
