"""What a transformation does to gradients, as a matrix, and its eigenvalues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ..core.errors import at_work, fail
from ..core.trees.short import in_short
from ..core.trees.tree import PyTree, check_arrays
from ..links.matrix.full_matrix import LARGEST
from .plots import new_axes


@in_short
class PreconditionerSpectrum(NamedTuple):
    """The matrix by which a step multiplies the gradient, and what it does along its axes.

    `eigenvalues` are those of its symmetric part, `singular_values` its own, both from the largest
    down. They are the same of a matrix that is symmetric and turns no gradient around. Rows and
    columns of `matrix` are in the order of `jax.flatten_util.ravel_pytree`.
    """

    matrix: np.ndarray
    eigenvalues: np.ndarray
    singular_values: np.ndarray

    @property
    def condition(self) -> float:
        """The largest singular value over the smallest."""
        largest, smallest = self.singular_values[[0, -1]]
        return float(largest / smallest) if smallest else np.inf

    def _facts(self) -> dict[str, Any]:
        largest, smallest = self.singular_values[[0, -1]]
        of = {"parameters": len(self.matrix), "condition": self.condition}
        return {**of, "singular_values": (smallest, largest)}


def preconditioner_spectrum(
    tx: Any, state: PyTree, params: PyTree, gradients: PyTree = None, **extra_args: Any
) -> PreconditionerSpectrum:
    r"""The matrix $P$ of the step $\theta \leftarrow \theta - P g$ that a state stands for.

    $$P = -\left.\frac{\partial u(g, s, \theta)}{\partial g}\right|_{g = 0}$$

    for the update $u$ at a frozen state $s$. At a gradient of zero what is made of its squares and
    products does not change to first order. So this is the method with the denominator, the roots
    or the basis that its state holds, as one more step with decay leaves them: of AdaGrad it is
    $\eta\,\mathrm{diag}(s + \epsilon)^{-1/2}$, of its full matrix
    $\eta\,(G + \epsilon I)^{-1/2}$. Momentum and weight decay add a step that does not depend on
    $g$, and are not seen; of an average, $P$ has the share $1 - \beta_1$ that this step takes of
    $g$, with its bias corrected.

    With `gradients` the derivative is taken there, and has in it how the denominator answers to
    them: of normalized steps it is near 0 in the direction of $g$, in which they keep their length.
    Methods that take only the direction or the sign of a gradient have no such matrix; theirs is
    the derivative and no more, 0 of a sign.

    Args:
        tx: any transformation that descends. Of a link, whose updates have the sign of the
            gradient, $P$ has the other sign.
        state: its state, after some updates; a fresh one knows of no gradients.
        params: the parameters, few: the matrix has a row for each number.
        gradients: where to take the derivative; None is at 0.
        **extra_args: what `update` needs beside, such as `curvature=None` for K-FAC.

    Returns:
        The matrix, its eigenvalues and its singular values.

    Raises:
        ValueError: if the matrix would take more than 256 MiB.

    >>> import gdtx, jax.numpy as jnp
    >>> from gdtx import explore
    >>> tx, g = gdtx.adagrad(0.5, 0.0, eps=0.0), jnp.array([4.0, 1.0])
    >>> _, state = tx.update(g, tx.init(g), g)
    >>> explore.preconditioner_spectrum(tx, state, g).eigenvalues
    array([0.5  , 0.125], dtype=float32)
    """
    with at_work("preconditioner_spectrum"):
        check_arrays(params, "params")
        flat, unravel = ravel_pytree(params)
        if jnp.iscomplexobj(flat):
            fail(TypeError, "params must be real")
        if (size := flat.size**2 * flat.dtype.itemsize) > LARGEST:
            fail(ValueError, f"the matrix of {flat.size} parameters would take {size:,} bytes: "
                             "look at fewer of them")  # fmt: skip
    at = jnp.zeros_like(flat) if gradients is None else ravel_pytree(gradients)[0]

    def columns(state: PyTree, params: PyTree, extra_args: Any) -> jax.Array:
        def update(flat: jax.Array) -> jax.Array:
            updates, _ = tx.update(unravel(flat), state, params, **extra_args)
            return -ravel_pytree(updates)[0]

        _, along = jax.linearize(update, at)
        return jax.lax.map(along, jnp.eye(flat.size, dtype=flat.dtype), batch_size=64)

    matrix = np.asarray(jax.jit(columns)(state, params, extra_args)).T
    eigenvalues = np.linalg.eigvalsh((matrix + matrix.T) / 2)[::-1]
    return PreconditionerSpectrum(matrix, eigenvalues, np.linalg.svd(matrix, compute_uv=False))


def plot_preconditioner_spectrum(
    spectra: PreconditionerSpectrum | Mapping[str, PreconditionerSpectrum], ax: Any = None
) -> Any:
    """Draw singular values in order, on a logarithmic axis.

    Needs matplotlib, which the extra `viz` installs.

    Args:
        spectra: of :func:`preconditioner_spectrum`, one or several by name.
        ax: axes of matplotlib to draw on, new ones by default.

    Returns:
        The axes; nothing is shown or saved.

    Raises:
        ImportError: if matplotlib is not installed.

    >>> import gdtx, jax.numpy as jnp
    >>> from gdtx import explore
    >>> tx, params = gdtx.sgd(0.1), jnp.ones(3)
    >>> spectrum = explore.preconditioner_spectrum(tx, tx.init(params), params)
    >>> explore.plot_preconditioner_spectrum({"sgd": spectrum}).get_xlabel()
    'rank'
    """
    ax = new_axes("plot_preconditioner_spectrum") if ax is None else ax
    if isinstance(spectra, PreconditionerSpectrum):
        spectra = {"": spectra}
    for i, (name, spectrum) in enumerate(spectra.items()):
        condition = f"condition {spectrum.condition:.2g}"
        rank = np.arange(1, len(spectrum.singular_values) + 1)
        ax.plot(
            rank, spectrum.singular_values, label=f"{name}, {condition}" if name else condition,
            linestyle=("-", "--", ":", "-.")[i % 4], marker="." if len(rank) < 50 else None,
        )  # fmt: skip
    ax.set(yscale="log", xlabel="rank", ylabel="singular value of P")
    ax.legend()
    return ax
