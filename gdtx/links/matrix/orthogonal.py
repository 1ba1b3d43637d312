"""Updates made orthogonal, matrix by matrix."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Annotated, Any

import jax

from ...core.calls.functions import is_function
from ...core.calls.kinds import Kind
from ...core.errors import calling
from ...core.factory import transformation
from ...core.numbers.numerics import cast, compute_dtype
from ...core.transformation import GradientTransformation
from ...core.trees.dealing import alike, deal
from ...core.trees.sharding import shard_like
from ...core.trees.tree import PyTree
from ...formula import Expression, Reader, Symbol, apply, formula_of, inverse_root, iterated, result
from ...linalg.batches import apply_by_size, in_batches
from ...linalg.polar import newton_schulz, polar_factor
from .axes import as_matrices, axes_of, fans, from_matrices
from .polynomials import Polar

_FACTORS: dict[Any, Callable[[int, int], float]] = {
    None: lambda n_in, n_out: 1.0,
    "keller": lambda n_in, n_out: math.sqrt(max(1.0, n_out / n_in)),
    "moonshot": lambda n_in, n_out: 0.2 * math.sqrt(max(n_in, n_out)),
}

# Of a device's matrices so many numbers go through one call, if they are dealt out: a product of
# that size leaves none of a device's units idle, and what it needs beside is little.
_AT_ONCE = 2**24


def _is_factor(value: Any) -> bool:
    return is_function(value) or (isinstance(value, str | None) and value in _FACTORS)


ShapeFactor = Annotated[
    str | Callable[[int, int], Any] | None,
    Kind(
        f"{', '.join(repr(name) for name in _FACTORS if name)}, None or a function of the numbers "
        "of inputs and outputs",
        _is_factor,
        takes=2,
        text=True,
    ),
]


@transformation(whole=True)
def orthogonalize(polar: Polar = Polar(), axes: Any = "io") -> GradientTransformation:
    r"""Replace each matrix by the nearest orthogonal one, or by one near that.

    $U \Sigma V^* \leftarrow U\,p(\Sigma / \|\Sigma\|)\,V^*$, where $p \approx 1$ is a composition
    of odd polynomials, see :class:`Polar`. In norm it makes all matrices equal: only directions
    count. Matrices that are 0 stay 0, and only they do: scale does not matter, and no magnitude
    overflows.

    Args:
        polar: how the nearest orthogonal matrix is computed, see :class:`Polar`.
        axes: what each axis of an array is, as a letter: `i` for inputs, `o` for outputs, `b` for a
            batch of matrices. So `"io"` is a matrix, `"bio"` a stack of layers, `"ibo"` one matrix
            for each head, and `"iiio"` the kernel of a convolution; several axes of a letter count
            as one. True is `"io"`, and what is False passes as it is. Like the mask of
            :func:`masked`, these are in a tree like the parameters or a prefix of it, or what a
            function returns, of path and leaf or of the parameters. Or they are a list of patterns
            of paths, `["**/kernel"]` for `"io"`, or of pairs, `[("**/query/kernel", "ibo"),
            ("**/kernel", "io")]`, of which the first that matches decides; others are False.

    Returns:
        A stateless transformation. Complex matrices become unitary.

    Raises:
        ValueError: if the axes of an array are not as many as it has, or the coefficients more than
            the steps; from `init` already.
        TypeError: if the axes are none.

    References:
        Jordan et al. 2024, Amsel et al. 2025, see :class:`Polar`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.orthogonalize(gdtx.Polar("exact"))
    >>> tx.update(jnp.array([[3.0, 0.0], [0.0, -1e-3]]), ())[0] + 0.0
    Array([[ 1.,  0.],
           [ 0., -1.]], dtype=float32)
    """
    if polar.is_exact:
        factor = polar_factor
    else:
        factor = functools.partial(newton_schulz, steps=polar.polynomials(), dtype=polar.dtype)

    def factors(stack: jax.Array) -> tuple[jax.Array]:
        return (factor(stack),)

    def on_one_device(stack: jax.Array) -> tuple[jax.Array]:
        some = max(1, _AT_ONCE // math.prod(stack.shape[1:]))
        return in_batches(factors, polar.batch_size or some)(stack)

    def on_arrays(
        *arrays: jax.Array, letters: list[Any], names: list[str] | None
    ) -> list[jax.Array]:
        stacks = list(map(as_matrices, arrays, letters))
        if names:
            results = apply_by_size(deal(on_one_device), stacks, names=names)
        else:
            f = in_batches(factors, polar.batch_size)
            results = apply_by_size(f, stacks) if polar.batched else map(f, stacks)
        shapes = [x.shape for x in arrays]
        return list(map(from_matrices, (x for (x,) in results), shapes, letters))

    def rule(updates: PyTree, letters: list[str | None]) -> list[Any]:
        leaves = [
            x if a is None else cast(x, compute_dtype(x.dtype))
            for x, a in zip(jax.tree.leaves(updates), letters, strict=True)
        ]
        some = [i for i, x in enumerate(leaves) if letters[i] is not None and x.size]
        if some:
            names = alike(updates)
            f = functools.partial(
                on_arrays,
                letters=[letters[i] for i in some],
                names=names and [names[i] for i in some],
            )
            chosen = [leaves[i] for i in some]
            for i, x in zip(some, shard_like(chosen, f, *chosen), strict=True):
                leaves[i] = x
        return leaves

    return _of_matrices(rule, axes)


@formula_of(orthogonalize)
def _(u: Expression, reader: Reader, polar: Polar) -> Expression:
    u = reader.atom(u)
    if polar.is_exact:
        return inverse_root(u * u.T, 0) * u
    return iterated(reader, u, polar.polynomials())


@transformation(whole=True)
def scale_by_shape(factor: ShapeFactor = "keller", axes: Any = "io") -> GradientTransformation:
    r"""Scale each matrix by a factor that depends on its shape only.

    With $n_i$ inputs and $n_o$ outputs:

    - `"keller"`: $\sqrt{\max(1, n_o / n_i)}$, so that outputs change by as much in all layers;
    - `"moonshot"`: $0.2 \sqrt{\max(n_i, n_o)}$, so that orthogonal updates have the size of
      Adam's, and learning rates of Adam's serve them.

    Args:
        factor: one of these names, or a function of $n_i$ and $n_o$; None is 1.
        axes: what each axis of an array is, as a letter, see :func:`orthogonalize`.

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

    def rule(updates: PyTree, letters: list[str | None]) -> list[Any]:
        pairs = zip(jax.tree.leaves(updates), letters, strict=True)
        return [x if a is None or not x.size else scaled(x, a) for x, a in pairs]

    return _of_matrices(rule, axes)


@formula_of(scale_by_shape)
def _(u: Expression, reader: Reader, factor: Any) -> Expression:
    if factor is None:
        return u
    n_in, n_out = (Symbol("n", rf"\mathrm{{{side}}}") for side in ("in", "out"))
    if factor == "keller":
        value = apply("root", apply("\\max", 1, n_out / n_in))
    elif factor == "moonshot":
        value = 0.2 * apply("root", apply("\\max", n_in, n_out))
    else:
        value = result(factor, factor, n_in, n_out)
    return reader.define((Symbol("s"), Symbol("c")), value) * u


def _of_matrices(
    rule: Callable[[PyTree, list[str | None]], list[Any]], axes: Any
) -> GradientTransformation:
    """A transformation of a tree and the axes of its leaves that remembers nothing."""

    def init(params: PyTree) -> tuple[()]:
        axes_of(axes, params, "axes", "params")
        return ()

    def update(
        updates: PyTree, state: tuple[()], params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, tuple[()]]:
        new = rule(updates, axes_of(axes, updates, "axes", "updates"))
        return jax.tree.unflatten(jax.tree.structure(updates), new), state

    return GradientTransformation(init, update, ())
