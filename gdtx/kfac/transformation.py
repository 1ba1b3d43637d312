"""Gradients divided by Kronecker-factored curvature, as links."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._errors import check_state, fail
from .._kinds import Decay, NonNegative, StepCount, is_array
from .._memory import RecurState
from .._placement import placed_like, whole
from .._rules import identity
from .._transformation import GradientTransformation, transformation
from .._tree import PyTree
from ..links.moments import ema
from ..schedules.basic import choice
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
from .factors import DAMPINGS, Eigenbasis, product_values, rotated
from .layers import leaves_by_path


class KfacState(NamedTuple):
    """State of K-FAC: what is known of the blocks, and the state of the fallback."""

    blocks: BlocksState
    fallback: PyTree


@transformation
def scale_by_kfac(
    damping: NonNegative = 1e-3,
    decay: Decay = 0.95,
    inverse_every: StepCount = 10,
    split: str = "factored",
    layout: Layout = None,
    fallback: GradientTransformation | None = None,
) -> GradientTransformation:
    r"""Divide by Kronecker-factored approximate curvature.

    For the gradient $V$ of a dense layer or convolution, bias in the last row, in the eigenbases
    $Q_A, Q_S$ of the averages of $A = E[\bar x \bar x^T]$ and $S = E[g g^T]$,

    $$U = Q_A \left(\frac{Q_A^T V Q_S}{D}\right) Q_S^T$$

    with $D_{ij} = (a_i + \pi \sqrt\lambda)(s_j + \sqrt\lambda / \pi)$, which is
    $(A + \pi \sqrt\lambda I)^{-1}\, V\, (S + \tfrac{\sqrt\lambda}{\pi} I)^{-1}$, if the damping is
    split over the factors, or with $D_{ij} = a_i s_j + \lambda$, which is
    $(A \otimes S + \lambda I)^{-1}$ of it, if not. Scales and shifts are divided by
    $E[g^2] + \lambda$.

    `update` needs `curvature=` from :func:`gdtx.kfac.value_grad_and_curvature`, or None for the
    factors and bases there are: steps without are as cheap as a step of the chain around it. Until
    the first curvature came, updates are not a number.

    Args:
        damping: $\lambda$, in the units of the curvature; it may change from step to step without a
            new basis.
        decay: of the averages of $A$, $S$ and $E[g^2]$, whose bias is corrected.
        inverse_every: steps between two new bases, at least: they are computed on updates that have
            a curvature, the first of them included.
        split: "factored" or "eigen", see above.
        layout: the layers, as `layout(params, inputs)` of :func:`gdtx.kfac.capture` gives them;
            None for what names and shapes of the parameters let one expect.
        fallback: transformation of the parameters that no layer has; None leaves them as they are.

    Returns:
        A transformation whose state holds for a layer of $m \times n$ numbers $2 (m^2 + n^2)$, and
        for each scale or shift two. A basis that cannot be computed leaves the last one in use
        and is counted.

    Raises:
        TypeError: from `update`, if it is called without `curvature`.
        ValueError: for another `split`; from `update`, for the curvature of another model.

    References:
        Martens & Grosse 2015, Optimizing Neural Networks with Kronecker-factored Approximate
        Curvature, arXiv:1503.05671; Grosse & Martens 2016, A Kronecker-factored Approximate Fisher
        Matrix for Convolution Layers, arXiv:1602.01407.

    >>> import gdtx, jax.numpy as jnp
    >>> from gdtx import kfac
    >>> f = kfac.value_grad_and_curvature(
    ...     lambda params, x: x @ params["w"], kfac.squared_error, output="exact")
    >>> params = {"w": jnp.zeros((2, 1))}
    >>> batch = (jnp.array([[1.0, 0.0], [1.0, 2.0]]), jnp.array([[1.0], [5.0]]))
    >>> _, grads, curvature = f(params, batch)
    >>> tx = gdtx.chain(gdtx.scale_by_kfac(damping=0.0), gdtx.scale(-1.0))
    >>> updates, state = tx.update(grads, tx.init(params), params, curvature=curvature)
    >>> gdtx.apply_updates(params, updates)["w"].round(3)  # least squares, in one step
    Array([[1.],
           [2.]], dtype=float32)
    """
    damped = choice("scale_by_kfac: split", DAMPINGS, split)
    rest = identity() if fallback is None else fallback

    def init(params: PyTree) -> KfacState:
        layers = layers_of(layout, params)
        return KfacState(unknown_blocks(layers, params, decay), rest.init(without(params, layers)))

    def update(
        updates: PyTree,
        state: KfacState,
        params: PyTree = None,
        *,
        curvature: Curvature | None,
        **extra_args: Any,
    ) -> tuple[PyTree, KfacState]:
        check_state(state, KfacState)
        layers = layers_of(layout, updates)

        def step(leaves: Any, blocks: BlocksState, curvature: Any, *numbers: Any) -> Any:
            damping, decay, inverse_every = numbers
            blocks, _ = advanced(blocks, curvature, layers, leaves, decay, inverse_every)
            values = {block: damped(basis, damping) for block, basis in blocks.bases.items()}
            return preconditioned(blocks, layers, leaves, damping, values), blocks

        leaves = of_layers(updates, layers)
        numbers = damping, decay, inverse_every
        found, blocks = _kept(step, leaves, (state.blocks,), curvature, *numbers)
        others, kept = _rest(rest, layers, updates, state.fallback, params, extra_args)
        return like(updates, {**found, **others}), KfacState(blocks, kept)

    return GradientTransformation(init, update)


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
    rest = identity() if fallback is None else fallback

    def init(params: PyTree) -> EkfacState:
        layers = layers_of(layout, params)
        blocks = unknown_blocks(layers, params, decay)
        start = {block: product_values(basis) for block, basis in blocks.bases.items()}
        # Not a number, as the bases are, and not 0.
        squares = RecurState({"value": start})
        return EkfacState(blocks, squares, rest.init(without(params, layers)))

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
        found, blocks, squares = _kept(step, leaves, kept, curvature, *numbers)
        others, kept = _rest(rest, layers, updates, state.fallback, params, extra_args)
        return like(updates, {**found, **others}), EkfacState(blocks, squares, kept)

    return GradientTransformation(init, update)


def _kept(
    step: Callable[..., Any],
    leaves: dict[str, jax.Array],
    state: tuple[Any, ...],
    curvature: Curvature | None,
    *numbers: Any,
) -> Any:
    """What a step makes of leaves and state, which stays on every device, where it was made.

    Left to the compiler, it would move at the first update to where the parameters are that it
    meets, and the second would be compiled anew.
    """
    likes, structure = jax.tree.flatten((leaves, *state))
    arrays = {str(i): x for i, x in enumerate(numbers) if is_array(x)}

    # Arrays as arguments: those of an explicit mesh are not to be used inside otherwise.
    def flat(leaves: Any, state: Any, curvature: Any, arrays: dict[str, jax.Array]) -> Any:
        given = [arrays.get(str(i), x) for i, x in enumerate(numbers)]
        return tuple(jax.tree.leaves(step(leaves, *state, curvature, *given)))

    results = placed_like(flat, tuple(likes))(leaves, state, curvature, arrays)
    new, *kept = structure.unflatten(results)
    return new, *jax.tree.map(whole, kept)


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


def _rest(
    fallback: GradientTransformation,
    layers: Any,
    updates: PyTree,
    state: PyTree,
    params: PyTree,
    extra_args: dict[str, Any],
) -> tuple[dict[str, Any], PyTree]:
    """What the fallback makes of the parameters that no layer has."""
    if params is not None:
        params = without(params, layers)
    new, state = fallback.update(without(updates, layers), state, params, **extra_args)
    return leaves_by_path(new), state
