"""Updates made orthogonal, matrix by matrix."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Annotated, Any

import jax

from ...core.errors import calling
from ...core.functions import is_function
from ...core.kinds import Count, FloatDType, Kind, Period
from ...core.numerics import cast, compute_dtype
from ...core.sharding import kept_in_place
from ...core.transformation import GradientTransformation, transformation
from ...core.tree import PyTree, check_empty
from ...linalg.polar import Coefficients, newton_schulz, polar, polynomials
from ...linalg.together import bounded, together
from .axes import as_matrices, axes_of, fans, from_matrices

_FACTORS: dict[Any, Callable[[int, int], float]] = {
    None: lambda n_in, n_out: 1.0,
    "keller": lambda n_in, n_out: math.sqrt(max(1.0, n_out / n_in)),
    "moonshot": lambda n_in, n_out: 0.2 * math.sqrt(max(n_in, n_out)),
}


def _is_factor(value: Any) -> bool:
    return is_function(value) or (isinstance(value, str | None) and value in _FACTORS)


ShapeFactor = Annotated[
    Any,
    Kind(
        f"{', '.join(repr(name) for name in _FACTORS if name)}, None or a function of the numbers "
        "of inputs and outputs",
        _is_factor,
        takes=2,
        text=True,
    ),
]


@transformation
def orthogonalize(
    coefficients: Coefficients = "keller",
    steps: Count = 5,
    axes: Any = "io",
    dtype: FloatDType | None = None,
    batched: bool = True,
    batch_size: Period | None = None,
) -> GradientTransformation:
    r"""Replace each matrix by the nearest orthogonal one, or by one near that.

    $U \Sigma V^* \leftarrow U\,p(\Sigma / \|\Sigma\|)\,V^*$, where $p \approx 1$ is a composition
    of odd polynomials, one a step: $X \leftarrow a X + b (XX^*) X + c (XX^*)^2 X$ (Newton-Schulz).
    So no decomposition is needed. In norm it makes all matrices equal: only directions count.
    With $\sigma$ a singular value over the Frobenius norm, $p(\sigma)$ is

    - `"keller"`: in [0.68, 1.21] after 5 steps for $\sigma \ge 0.002$. It goes on moving there.
    - `"polar_express"`: in [0.84, 1.13] after 5 steps for $\sigma \ge 0.001$, $1 \pm 0.006$ after
      6, $1 \pm 10^{-5}$ after 7, and nowhere above these. Each step is best for what the steps
      before it leave.
    - `"convergent"`, $\frac18(15, -10, 3)$, and `"cubic"`, $\frac12(3, -1)$: below 1, and nearer
      to it with every step: $\sigma \ge 0.001$ is $1 \pm 10^{-6}$ after 15 and 22 steps.
    - `"exact"`: 1, by a singular value decomposition; directions that have none but for rounding
      stay 0. The steps do not matter.

    Smaller ones are less near to 1, by all but `"exact"`. Matrices that are 0 stay 0, and only
    they do: scale does not matter, and no magnitude overflows.

    Args:
        coefficients: one of these names, or the numbers $(a, b, c)$, or any other number of them,
            of all steps, or a sequence of such, one a step, the last for all that follow.
        steps: how many polynomials.
        axes: what each axis of an array is, as a letter: `i` for inputs, `o` for outputs, `b` for a
            batch of matrices. So `"io"` is a matrix, `"bio"` a stack of layers, `"ibo"` one matrix
            for each head, and `"iiio"` the kernel of a convolution; several axes of a letter count
            as one. True is `"io"`, and what is False passes as it is. Like the mask of
            :func:`masked`, these are in a tree like the parameters or a prefix of it, or what a
            function returns, of path and leaf or of the parameters. Or they are a list of patterns
            of paths, `["**/kernel"]` for `"io"`, or of pairs, `[("**/query/kernel", "ibo"),
            ("**/kernel", "io")]`, of which the first that matches decides; others are False.
        dtype: in which to iterate; by default that of the updates, at least float32. In bfloat16
            it is fast, and right to 3 percent.
        batched: whether matrices of one shape, or of its transpose, from different arrays go
            through one call, so that programs do not grow with the number of layers. The call
            copies them, and holds three squares of the shorter side for each.
        batch_size: how many matrices go through one call at a time; all by default.

    Returns:
        A stateless transformation. Complex matrices become unitary.

    Raises:
        ValueError: if the axes of an array are not as many as it has, or the coefficients more than
            the steps; from `init` already.
        TypeError: if axes or coefficients are none.

    References:
        Jordan et al. 2024, Muon: An optimizer for hidden layers in neural networks;
        Amsel et al. 2025, The Polar Express: Optimal Matrix Sign Methods and Their Application to
        the Muon Algorithm, arXiv:2505.16932;
        Björck & Bowie 1971, An Iterative Algorithm for Computing the Best Estimate of an
        Orthogonal Matrix.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.orthogonalize("exact")
    >>> tx.update(jnp.array([[3.0, 0.0], [0.0, -1e-3]]), ())[0] + 0.0
    Array([[ 1.,  0.],
           [ 0., -1.]], dtype=float32)
    """
    if isinstance(coefficients, str) and coefficients == "exact":
        factor = polar
    else:
        rows = polynomials(coefficients, steps)
        factor = functools.partial(newton_schulz, steps=rows, dtype=dtype)

    def on_arrays(*arrays: jax.Array, letters: list[Any]) -> list[jax.Array]:
        def factors(stack: jax.Array) -> tuple[jax.Array]:
            return (factor(stack),)

        in_batches = bounded(factors, batch_size)
        stacks = list(map(as_matrices, arrays, letters))
        results = together(in_batches, stacks) if batched else map(in_batches, stacks)
        shapes = [x.shape for x in arrays]
        return list(map(from_matrices, (x for (x,) in results), shapes, letters))

    def rule(leaves: list[Any], letters: list[str | None]) -> list[Any]:
        leaves = [
            x if a is None else cast(x, compute_dtype(x.dtype))
            for x, a in zip(leaves, letters, strict=True)
        ]
        some = [i for i, x in enumerate(leaves) if letters[i] is not None and x.size]
        if some:
            f = functools.partial(on_arrays, letters=[letters[i] for i in some])
            chosen = [leaves[i] for i in some]
            for i, x in zip(some, kept_in_place(chosen, f, *chosen), strict=True):
                leaves[i] = x
        return leaves

    return _of_matrices(rule, axes)


@transformation
def scale_by_shape(factor: ShapeFactor = "keller", axes: Any = "io") -> GradientTransformation:
    r"""Scale each matrix by a factor that depends on its shape only.

    With $n_i$ inputs and $n_o$ outputs:

    - `"keller"`: $\sqrt{\max(1, n_o / n_i)}$, so that outputs change by as much in all layers;
    - `"moonshot"`: $0.2 \sqrt{\max(n_i, n_o)}$, so that orthogonal updates have the size of
      Adam's, and learning rates of Adam's serve them.

    Args:
        factor: one of these names, or a function of $n_i$ and $n_o$; None is 1.
        axes: as in :func:`orthogonalize`.

    Returns:
        A stateless transformation.

    Raises:
        ValueError: if the axes of an array are not as many as it has; from `init` already.

    References:
        Jordan et al. 2024, see :func:`orthogonalize`;
        Liu et al. 2025, Muon is Scalable for LLM Training, arXiv:2502.16982.

    >>> import gdtx, jax.numpy as jnp
    >>> gdtx.scale_by_shape().update(jnp.ones((1, 4)), ())[0]
    Array([[2., 2., 2., 2.]], dtype=float32)
    """
    of_fans: Any = factor if is_function(factor) else _FACTORS[factor]

    def scaled(x: jax.Array, a: str) -> jax.Array:
        with calling("factor"):
            value = of_fans(*fans(x.shape, a))
        return value * cast(x, compute_dtype(x.dtype))

    def rule(leaves: list[Any], letters: list[str | None]) -> list[Any]:
        pairs = zip(leaves, letters, strict=True)
        return [x if a is None or not x.size else scaled(x, a) for x, a in pairs]

    return _of_matrices(rule, axes)


def _of_matrices(
    rule: Callable[[list[Any], list[str | None]], list[Any]], axes: Any
) -> GradientTransformation:
    """A transformation of leaves and their axes that remembers nothing."""

    def init(params: PyTree) -> tuple[()]:
        axes_of(axes, params, "axes", "params")
        return ()

    def update(
        updates: PyTree, state: tuple[()], params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, tuple[()]]:
        check_empty(state)
        leaves, structure = jax.tree.flatten(updates)
        return structure.unflatten(rule(leaves, axes_of(axes, updates, "axes", "updates"))), state

    return GradientTransformation(init, update)
