"""A rate for each layer, that falls from the last layer down."""

from __future__ import annotations

import re
from typing import Any

import jax
import numpy as np

from ..core.calls.kinds import Fraction
from ..core.errors import LeafError
from ..core.factory import transformation
from ..core.numbers.numerics import cast, compute_dtype
from ..core.rules import checked_result, walk
from ..core.transformation import GradientTransformation
from ..core.trees.choice import chosen
from ..core.trees.paths import leaf_paths
from ..core.trees.tree import PyTree
from ..formula import Expression, Reader, Symbol, formula_of


def matrices_only(path: str, leaf: Any) -> bool:
    """A mask: arrays of at least two axes, and so no biases and no scales of normalizations.

    For every argument that takes a mask, such as that of :func:`adamw` and of :func:`masked`.
    Where layers are stacked along a first axis, biases have two axes too: name them by patterns.

    Args:
        path: of a parameter.
        leaf: the parameter, or its shape and dtype.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.adamw(0.1, weight_decay=0.5, mask=gdtx.matrices_only)
    >>> params = {"kernel": jnp.ones((1, 1)), "bias": jnp.ones(1)}
    >>> zeros = {"kernel": jnp.zeros((1, 1)), "bias": jnp.zeros(1)}
    >>> updates, _ = tx.update(zeros, tx.init(params), params)
    >>> updates["kernel"], updates["bias"]
    (Array([[-0.05]], dtype=float32), Array([-0.], dtype=float32))
    """
    return len(leaf.shape) >= 2


@transformation
def scale_by_layer_decay(
    decay: Fraction, below: Any = (), stacked: Any = ()
) -> GradientTransformation:
    r"""Let layers move the less the lower they are: $u \leftarrow c^d\,u$, with $d$ layers above.

    The number of a layer is the first in the path of a parameter that ends a component of it:
    3 of `layers/3/kernel`, `layer_3/attention/dense_0/bias` and `h3/w`. What has none is above all
    layers, such as a head, and stays as it is. The topmost layer is one below.

    Behind a method that divides by the size of gradients, as Adam does; in front of it, it would do
    nothing. The numbers are those of the parameters that it sees: inside of :func:`freeze` the
    topmost that is trained counts as the topmost of all.

    Args:
        decay: $c$, share of its rate that each layer leaves to the one below; 1 is for all the
            same.
        below: what has no number and is below all layers, such as embeddings, in any form of a
            mask, see :func:`masked`.
        stacked: what has layers stacked along its first axis, as for `jax.lax.scan`, in any form of
            a mask.

    Returns:
        A stateless transformation.

    Raises:
        ValueError: if `decay` is not in [0, 1]; from `update`, if a pattern matches no path, or
            what is stacked has no axis.

    References:
        Clark et al. 2020, ELECTRA, arXiv:2003.10555; Bao et al. 2021, BEiT, arXiv:2106.08254.

    >>> import gdtx, jax, jax.numpy as jnp
    >>> tx = gdtx.chain(gdtx.adamw(0.1), gdtx.scale_by_layer_decay(0.5, below=["embed"]))
    >>> params = {"embed": jnp.ones(1), "layers": [jnp.ones(1), jnp.ones(1)], "head": jnp.ones(1)}
    >>> updates, _ = tx.update(params, tx.init(params), params)
    >>> [round(float(u[0]), 4) for u in jax.tree.leaves(updates)]  # embed, head, layers
    [-0.0125, -0.1, -0.025, -0.05]
    """

    def update(
        updates: PyTree, state: tuple[()], params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, tuple[()]]:
        leaves, structure = jax.tree.flatten(updates)

        def scaled(u: jax.Array, above: Any) -> jax.Array:
            if above is None:
                raise LeafError(ValueError, "is among the stacked, but has no axis")
            dtype = compute_dtype(u.dtype)
            return checked_result(cast(u, dtype) * decay**above, u, dtype)

        above = _layers_above(updates, below, stacked)
        return structure.unflatten(walk(scaled, structure, leaves, above)), state

    return GradientTransformation(lambda params: (), update, ())


@formula_of(scale_by_layer_decay, decay="c")
def _(u: Expression, reader: Reader, decay: Any) -> Expression:
    return decay ** reader.claim((Symbol("d"), Symbol("l")), "the number of layers above") * u


def _layers_above(tree: PyTree, below: Any, stacked: Any) -> list[Any]:
    """For each leaf how many layers are above: an integer, or one for each along its first axis;
    None where there is no such axis."""
    leaves = jax.tree.leaves(tree)
    is_below, is_stacked = (chosen(mask, tree, name) for mask, name in
                            ((below, "below"), (stacked, "stacked")))  # fmt: skip
    numbers = [None if lowest else _number(path)
               for path, lowest in zip(leaf_paths(tree), is_below, strict=True)]  # fmt: skip
    depths = [leaf.shape[0] for leaf, many in zip(leaves, is_stacked, strict=True)
              if many and leaf.ndim]  # fmt: skip
    found = [i for i in numbers if i is not None] + [i for n in depths for i in (0, n - 1)]
    bottom, top = (min(found), max(found)) if found else (0, -1)

    def above(leaf: jax.Array, number: int | None, lowest: bool, many: bool) -> Any:
        if many:
            if not leaf.ndim:
                return None
            layers = top + 1 - np.arange(leaf.shape[0])
            return layers.reshape(-1, *[1] * (leaf.ndim - 1))
        if lowest:
            return top - bottom + 2
        return 0 if number is None else top + 1 - number

    return list(map(above, leaves, numbers, is_below, is_stacked))


def _number(path: str) -> int | None:
    found = re.search(r"(\d+)(?:/|$)", path)
    return int(found[1]) if found else None
