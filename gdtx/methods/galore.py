"""GaLore: any method in a space of few dimensions."""

from __future__ import annotations

from typing import Annotated, Any

from ..core.calls.kinds import NonNegative, PositiveCount, one_of
from ..core.calls.types import TransformationLike
from ..core.combine import chain
from ..core.factory import transformation
from ..core.let import value_of
from ..core.transformation import GradientTransformation
from ..formula import letters
from ..links.arithmetic import scale as scaled
from ..links.matrix.projected import projected


@transformation
def galore(
    inner: TransformationLike,
    rank: PositiveCount,
    every: PositiveCount = 200,
    scale: NonNegative = 0.25,
    *,
    moments: Annotated[str, one_of("keep", "rotate", "reset")] = "keep",
    axes: Any = None,
) -> GradientTransformation:
    r"""GaLore: a method of the gradient's image in its leading singular vectors.

    $R_t = P_t^\top G_t$, $u_t = \alpha\,P_t\,\mathrm{inner}(R_t)$, where $P_t$ has the left
    singular vectors of the $r$ largest singular values of $G_s$, $s$ the last of the steps 1,
    $1 + k$, $1 + 2k$, ...; the shorter side of a matrix is the one that becomes smaller.

    :func:`projected` and :func:`scale`. Arrays that are no matrices are for `inner` as they are.
    The paper keeps the moments when the space turns.

    Decoupled weight decay goes outside, `chain(galore(scale_by_adam(), 128),
    add_decayed_weights(0.1), scale_by_learning_rate(1e-2))`: inside it would be that of the image.

    Args:
        inner: the method, such as :func:`adam`.
        rank, every, moments, axes: as in :func:`projected`.
        scale: $\alpha$, factor of the updates of matrices.

    Returns:
        A transformation whose state holds for each matrix of $m \times n$, $m \le n$, a basis of
        $m r$ numbers and what `inner` keeps of $r n$ numbers.

    References:
        Zhao et al. 2024, GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection,
        arXiv:2403.03507. The authors' program adds Adam's $\epsilon$ before the corrections of
        bias, and projects the other side of square matrices. Optax's function of this name takes a
        learning rate and makes the longer side smaller.

    >>> import gdtx, jax.numpy as jnp
    >>> params = {"w": jnp.zeros((100, 300)), "b": jnp.zeros(300)}
    >>> tx = gdtx.galore(gdtx.adam(0.01), rank=4)
    >>> print(gdtx.state_table(tx, params).bytes_per_parameter < 0.5)
    True
    """
    body = chain(value_of("inside"), scaled(scale))
    return projected(inner, rank, every, body=body, moments=moments, axes=axes)


letters(galore, scale=r"\alpha")
