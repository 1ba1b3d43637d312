"""NorMuon: orthogonal updates whose outputs have one size."""

from __future__ import annotations

from typing import Any

import jax

from ..core.calls.kinds import Decay, NonNegative
from ..core.calls.types import TransformationLike
from ..core.combine import chain, divide, join
from ..core.factory import transformation
from ..core.let import let, value_of
from ..core.rules import identity
from ..core.transformation import GradientTransformation
from ..links.arithmetic import add, scale_by_learning_rate, sqrt, square
from ..links.decay import add_decayed_weights
from ..links.fraction import root
from ..links.matrix.axes import among_matrices
from ..links.matrix.named import with_named_matrices
from ..links.matrix.orthogonal import ShapeFactor, orthogonalize, scale_by_shape
from ..links.matrix.outputs import averaged_over
from ..links.matrix.polynomials import Polar
from ..links.moments import ema, trace


@transformation
def normuon(
    learning_rate: NonNegative,
    matrices: Any = None,
    others: TransformationLike | None = None,
    *,
    momentum: Decay = 0.95,
    b2: Decay = 0.95,
    eps: NonNegative = 1e-10,
    nesterov: bool = True,
    polar: Polar = Polar(),
    shape_factor: ShapeFactor = "keller",
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
) -> GradientTransformation:
    r"""NorMuon: Muon with a second moment for each output of a matrix.

    $u_t = s \frac{r(o_t)}{r(n_t) + \epsilon}\,n_t$, $n_t = o_t / (\sqrt{v_t} + \epsilon)$ with the
    orthogonal update $o_t$ of :func:`muon`, $v_t$ the average of $o_t^2$ over inputs and steps, and
    the root mean square $r$ of a matrix, both means by :func:`averaged_over`.

    Args:
        learning_rate: $\eta$ of the matrices, a number, an array or a schedule.
        matrices, others: as in :func:`with_named_matrices`.
        momentum, b2: $\mu$, $\beta_2$, decays of the sum of gradients and the second moments.
        eps: $\epsilon$, outside the root, and in the size that is divided by.
        nesterov, polar, shape_factor: of Muon's step, see :func:`muon`. The paper has no Nesterov
            momentum, and updates of a root mean square of 0.2, about those of `"moonshot"`.
        weight_decay, mask: $\lambda$ of the matrices, times the rate, and of which of them.

    Returns:
        A transformation whose state holds one buffer per matrix and one number per output.

    Raises:
        ValueError: as :func:`muon`.

    References:
        Li et al. 2025, NorMuon: Making Muon more efficient and scalable, arXiv:2510.05491.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.normuon(0.1, True)
    >>> g = jnp.array([[1.0, 2.0, 0.0], [0.0, 1.0, 9.0]])
    >>> jnp.linalg.norm(tx.update(g, tx.init(g), g)[0], axis=0).round(2)  # all outputs as far
    Array([0.07, 0.07, 0.07], dtype=float32)
    """
    axes = among_matrices(matrices, "matrices")
    size = chain(square(), averaged_over(identity(), "io", axes), sqrt())
    power = chain(square(), averaged_over(ema(b2), "i", axes), root(eps))
    even = join(divide, o=identity(), nu=power)
    same_size = join(_resized, n=identity(), own=chain(size, add(eps)), size=value_of("size"))
    hidden = chain(
        trace(momentum, nesterov),
        orthogonalize(polar, axes),
        let(chain(even, same_size), size=size),
        scale_by_shape(shape_factor, axes),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
    return with_named_matrices(hidden, matrices, others)


def _resized(n: jax.Array, own: jax.Array, size: jax.Array) -> jax.Array:
    """An update of this size in place of its own."""
    return n * size / own
