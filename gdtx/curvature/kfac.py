"""Gradients divided by Kronecker-factored curvature."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from ..core.calls.kinds import Decay, NonNegative, StepCount, one_of
from ..core.calls.types import TransformationLike
from ..core.factory import transformation
from ..core.transformation import GradientTransformation
from ..core.trees.short import in_short
from ..core.trees.tree import PyTree
from ..formula import IDENTITY, Expression, Reader, Symbol, apply, formula_of, t
from .blocks import BlocksState, Layout, advance, blocks_layout, first_blocks, precondition
from .factors import DAMPINGS
from .formulas import SIDES, bases_of, divided, factors_of, in_use, is_due, products_of_values
from .preconditioner import preconditioner


@in_short
class KfacState(NamedTuple):
    """State of K-FAC: what is known of the blocks, and the state of the fallback."""

    blocks: BlocksState
    fallback: PyTree


@transformation(exact=("blocks",))
def scale_by_kfac(
    damping: NonNegative = 1e-3,
    decay: Decay = 0.95,
    inverse_every: StepCount = 10,
    split: Annotated[str, one_of(*DAMPINGS)] = "factored",
    layout: Layout = None,
    fallback: TransformationLike | None = None,
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
    factors and bases that there are: steps without are as cheap as a step of the chain around it.
    Before the first curvature, updates are not a number.

    Args:
        damping: $\lambda$, in the units of the curvature; it may change from step to step without a
            new basis.
        decay: $\beta$, of the averages of $A$, $S$ and $E[g^2]$, whose bias is corrected.
        inverse_every: $T$, steps between two new bases, at least: they are computed on updates that
            have a curvature, the first of them included.
        split: "factored" splits the damping over the factors, "eigen" adds it to their product.
        layout: the layers, as `layout(params, inputs)` of :func:`gdtx.kfac.capture` gives them;
            None for what names and shapes of the parameters let one expect.
        fallback: transformation of the parameters that no layer has; None leaves their gradients as
            they are, so that these train as by gradient descent.

    Returns:
        A transformation whose state holds for a layer of $m \times n$ numbers $2 (m^2 + n^2)$, and
        for each scale or shift two, all of them on every device that has the parameters. Factors of
        one size are decomposed together, inside of :func:`dealt` in parts; a basis that cannot be
        computed leaves the last one in use and is counted. Sums of the largest gradients that a
        dtype has may be infinite in the basis, and NaN out of it.

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
    damped = DAMPINGS[split]

    def first(layers: Any, leaves: Any) -> tuple[BlocksState]:
        return (first_blocks(layers, leaves, decay),)

    def step(
        layers: Any, leaves: Any, blocks: BlocksState, curvature: Any,
        damping: Any, decay: Any, inverse_every: Any,
    ) -> Any:  # fmt: skip
        blocks, _ = advance(blocks, curvature, layers, leaves, decay, inverse_every)
        values = {block: damped(basis, damping) for block, basis in blocks.bases.items()}
        return precondition(blocks, layers, leaves, damping, values), blocks

    numbers = damping, decay, inverse_every
    blocks = blocks_layout(decay)
    return preconditioner(KfacState, first, step, layout, fallback, numbers, blocks=blocks)


@formula_of(scale_by_kfac, damping=r"\lambda", decay=r"\beta", inverse_every="T")
def _(
    u: Expression, reader: Reader, damping: Any, decay: Any, inverse_every: Any, split: str
) -> Expression:
    due = is_due(inverse_every)
    if split == "eigen":
        bases, factors = bases_of(reader, decay, due)
        values = in_use(reader, Symbol("D", time=t), products_of_values(factors), due)
        return divided(bases, u, values + damping)
    used = [
        factor if due is None else
        in_use(reader, Symbol(side, accent="tilde", time=t), factor, due)
        for side, factor in zip(SIDES, factors_of(reader, decay), strict=True)
    ]  # fmt: skip
    traces, sizes = ([apply(head, x) for x in used] for head in ("tr", r"\dim"))
    ratio = traces[0] * sizes[1] / (sizes[0] * traces[1])
    pi = reader.define((Symbol(r"\pi", time=t),), apply("root", ratio))
    root = apply("root", damping)
    left, right = used[0] + pi * root * IDENTITY, used[1] + root / pi * IDENTITY
    return left**-1 * u * right**-1
