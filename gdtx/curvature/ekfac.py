"""Gradients divided by curvature that is measured in K-FAC's eigenbasis."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core.copies import unlike_params
from ..core.errors import check_state, fail
from ..core.kinds import Decay, NonNegative, StepCount
from ..core.memory import RecurState
from ..core.rules import identity
from ..core.transformation import GradientTransformation, transformation
from ..core.tree import PyTree
from ..links.moments import ema
from .blocks import (
    BlocksState,
    Layout,
    advanced,
    layers_of,
    like,
    of_layers,
    preconditioned,
    unknown_blocks,
    without,
)
from .curvature import Curvature
from .factors import Eigenbasis, product_values, rotated
from .steps import in_place, rest_of


class EkfacState(NamedTuple):
    """State of EKFAC: that of K-FAC, and average squares along the axes of its bases."""

    blocks: BlocksState
    squares: RecurState
    fallback: PyTree


@transformation
def scale_by_ekfac(
    damping: NonNegative = 1e-3,
    decay: Decay = 0.95,
    inverse_every: StepCount = 10,
    layout: Layout = None,
    fallback: GradientTransformation | None = None,
) -> GradientTransformation:
    r"""Divide by curvature whose eigenvalues are measured in K-FAC's eigenbasis.

    :func:`scale_by_kfac` with $D = s + \lambda$, where $s$ is an average over steps of the squares
    of gradients in the basis, $E[(Q_A^T\, \bar x g^T Q_S)^2]$, the best diagonal there is; it
    starts anew from $a_i s_j$ with every new basis.

    Args:
        damping, decay, inverse_every, layout, fallback: as in :func:`scale_by_kfac`; the decay is
            that of $s$ too.

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
    other = identity() if fallback is None else fallback

    def init(params: PyTree) -> EkfacState:
        layers = layers_of(layout, params)
        blocks = unknown_blocks(layers, params, decay)
        start = {block: product_values(basis) for block, basis in blocks.bases.items()}
        # Not a number, as the bases are, and not 0.
        squares = RecurState({"value": start})
        return EkfacState(blocks, squares, other.init(without(params, layers)))

    def update(
        updates: PyTree,
        state: EkfacState,
        params: PyTree = None,
        *,
        curvature: Curvature | None,
        **extra_args: Any,
    ) -> tuple[PyTree, EkfacState]:
        check_state(state, EkfacState)
        layers = layers_of(layout, updates)

        def step(
            leaves: Any, blocks: BlocksState, squares: RecurState, curvature: Any, *numbers: Any
        ) -> Any:
            damping, decay, inverse_every = numbers
            blocks, fresh = advanced(blocks, curvature, layers, leaves, decay, inverse_every)
            if curvature is not None:
                _, averaged = ema(decay).update(_squares(curvature, blocks.bases), squares)
                start = {block: product_values(basis) for block, basis in blocks.bases.items()}
                squares = jax.tree.map(
                    lambda new, old: jnp.where(fresh, new, old),
                    RecurState({"value": start}),
                    averaged,
                )
            values = {block: s + damping for block, s in squares.buffers["value"].items()}
            return preconditioned(blocks, layers, leaves, damping, values), blocks, squares

        leaves, kept = of_layers(updates, layers), (state.blocks, state.squares)
        numbers = damping, decay, inverse_every
        found, blocks, squares = in_place(step, leaves, kept, curvature, *numbers)
        others, kept = rest_of(other, layers, updates, state.fallback, params, extra_args)
        return like(updates, {**found, **others}), EkfacState(blocks, squares, kept)

    return GradientTransformation(unlike_params(init), update)


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
        found[block] = jnp.square(rotated(basis, G)) / curvature.examples
    return found
