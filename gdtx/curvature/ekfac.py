"""Gradients divided by curvature that is measured in K-FAC's eigenbasis."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core.calls.kinds import Decay, NonNegative, StepCount
from ..core.calls.types import TransformationLike
from ..core.errors import fail
from ..core.factory import transformation
from ..core.memory import RecurState
from ..core.transformation import GradientTransformation
from ..core.trees.short import in_short
from ..core.trees.tree import PyTree
from ..formula import Expression, Reader, Symbol, apply, formula_of, t
from ..links.moments import ema
from .blocks import BlocksState, Layout, advance, blocks_layout, first_blocks, precondition
from .curvature import Curvature
from .factors import Eigenbasis, product_values, rotate
from .formulas import bases_of, divided, in_use, input_of, is_due, products_of_values, slope_of
from .preconditioner import preconditioner


@in_short
class EkfacState(NamedTuple):
    """State of EKFAC: that of K-FAC, and average squares along the axes of its bases."""

    blocks: BlocksState
    squares: RecurState
    fallback: PyTree


@transformation(exact=("blocks", "squares"))
def scale_by_ekfac(
    damping: NonNegative = 1e-3,
    decay: Decay = 0.95,
    inverse_every: StepCount = 10,
    layout: Layout = None,
    fallback: TransformationLike | None = None,
) -> GradientTransformation:
    r"""Divide by curvature whose eigenvalues are measured in K-FAC's eigenbasis.

    :func:`scale_by_kfac` with $D = s + \lambda$, where $s$ is an average over steps of the squares
    of gradients in the basis, $E[(Q_A^T\, \bar x g^T Q_S)^2]$, the best diagonal there is; it
    starts anew from $a_i s_j$ with every new basis.

    Args:
        damping: $\lambda$, in the units of the curvature.
        decay: $\beta$, of the averages of the factors, and of $s$.
        inverse_every: $T$, steps between two new bases, at least.
        layout: the layers, as `layout(params, inputs)` of :func:`gdtx.kfac.capture` gives them;
            None for what names and shapes of the parameters let one expect.
        fallback: transformation of the parameters that no layer has; None leaves their gradients as
            they are, so that these train as by gradient descent.

    Returns:
        A transformation whose state holds for a layer of $m \times n$ numbers
        $2 (m^2 + n^2) + m n$. Its `curvature` must hold "G": ask
        :func:`gdtx.kfac.value_grad_and_curvature` for the gradient.

    Raises:
        TypeError: from `update`, if it is called without `curvature`.
        ValueError: from `update`, for the curvature of another model, or one without "G".

    References:
        George et al. 2018, Fast Approximate Natural Gradient Descent in a Kronecker-factored
        Eigenbasis, arXiv:1806.03884.

    >>> import gdtx, jax, jax.numpy as jnp
    >>> from gdtx import kfac
    >>> f = kfac.value_grad_and_curvature(
    ...     lambda params, x: x @ params["w"], kfac.squared_error, gradient=True)
    >>> params = {"w": jnp.zeros((2, 1))}
    >>> batch = (jnp.array([[1.0, 0.0], [1.0, 2.0]]), jnp.array([[1.0], [5.0]]))
    >>> _, grads, curvature = f(params, batch, jax.random.key(0))
    >>> tx = gdtx.scale_by_ekfac()
    >>> updates, state = tx.update(grads, tx.init(params), params, curvature=curvature)
    >>> updates["w"].shape
    (2, 1)
    """

    def first(layers: Any, leaves: Any) -> tuple[BlocksState, RecurState]:
        blocks = first_blocks(layers, leaves, decay)
        # Not a number, as the bases are, and not 0.
        return blocks, _start(blocks)

    def step(
        layers: Any, leaves: Any, blocks: BlocksState, squares: RecurState, curvature: Any,
        damping: Any, decay: Any, inverse_every: Any,
    ) -> Any:  # fmt: skip
        blocks, fresh = advance(blocks, curvature, layers, leaves, decay, inverse_every)
        if curvature is not None:
            _, averaged = ema(decay).update(_squares(curvature, blocks.bases), squares)
            squares = jax.tree.map(
                lambda new, old: jnp.where(fresh, new, old), _start(blocks), averaged
            )
        values = {block: s + damping for block, s in squares.buffers["value"].items()}
        return precondition(blocks, layers, leaves, damping, values), blocks, squares

    numbers = damping, decay, inverse_every
    fields = {"blocks": blocks_layout(decay), "squares": ema(decay)}
    return preconditioner(EkfacState, first, step, layout, fallback, numbers, **fields)


def _start(blocks: BlocksState) -> RecurState:
    """What squares are in a new basis, before any is measured in it."""
    return RecurState({"value": {
        block: product_values(basis) for block, basis in blocks.bases.items()
    }})  # fmt: skip


@formula_of(scale_by_ekfac, damping=r"\lambda", decay=r"\beta", inverse_every="T")
def _(u: Expression, reader: Reader, damping: Any, decay: Any, inverse_every: Any) -> Expression:
    due = is_due(inverse_every)
    bases, factors = bases_of(reader, decay, due)
    left, right = bases
    each = left.T * input_of(reader) * slope_of(reader).T * right

    def averaged(last: Expression) -> Expression:
        return decay * last + (1 - decay) * apply("E", each**2)

    squares = in_use(reader, Symbol("v", time=t), products_of_values(factors), due, averaged)
    return divided(bases, u, squares + damping)


def _squares(curvature: Curvature, bases: dict[str, Eigenbasis]) -> dict[str, jax.Array]:
    found = {}
    for block, basis in bases.items():
        G = curvature.blocks[block].get("G")
        if G is None:
            fail(
                ValueError,
                f"curvature[{block!r}] holds no 'G': ask for it by "
                "value_grad_and_curvature(..., gradient=True)",
            )
        expected = (*basis.input_values.shape, basis.output_values.shape[-1])
        if G.shape != expected:
            fail(
                ValueError,
                f"curvature[{block!r}]['G'] has shape {G.shape}, the layer's has {expected}",
            )
        # The sum over examples of gradients that are independent and 0 in the mean.
        found[block] = jnp.square(rotate(basis, G)) / curvature.examples
    return found
