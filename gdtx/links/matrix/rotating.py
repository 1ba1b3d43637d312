"""What transformations remember of matrices, when the basis of these turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from ...core.memory import CountedRecurState, RecurState
from ...core.numbers.numerics import cast, compute_dtype, real_like, square
from ...core.states import with_parts
from ...core.transformation import GradientTransformation
from ...core.trees.layout import Part
from ...core.trees.tree import PyTree
from ...linalg.products import adjoint, product
from .. import arithmetic
from .image import Image


def rotated(
    tx: GradientTransformation,
    state: PyTree,
    turn: Callable[[PyTree, bool], PyTree],
    of_magnitudes: bool = False,
) -> PyTree:
    """The state of `tx`, with what `turn` makes of each buffer in its place.

    Args:
        tx: any transformation. Buffers are those of :func:`recur` and of what is made with it.
        state: that of `tx`.
        turn: function of a buffer, a tree like the updates of `tx`, and of whether it is made of
            magnitudes: whether, in the chain that it is in, squares or absolute values were taken
            before.
        of_magnitudes: whether the updates of `tx` are magnitudes.
    """
    if isinstance(state, CountedRecurState):
        return state._replace(inner=rotated(tx, state.inner, turn, of_magnitudes))
    if isinstance(state, RecurState):
        return RecurState({name: turn(x, of_magnitudes) for name, x in state.buffers.items()})
    links = _links(tx)
    are_magnitudes = of_magnitudes

    def below(part: Part) -> PyTree:
        nonlocal are_magnitudes
        new = rotated(part.used, part.state, turn, are_magnitudes)
        are_magnitudes = of_magnitudes or (links and (are_magnitudes or _takes_magnitudes(part.tx)))
        return new

    return with_parts(tx, state, below)


def _links(tx: GradientTransformation) -> bool:
    """Whether the parts of this pair follow one another, as those of :func:`chain` do."""
    return tx.factory is GradientTransformation and type(tx.arguments.get("layout")) is tuple


def _takes_magnitudes(tx: Any) -> bool:
    if tx.factory in (arithmetic.absolute, arithmetic.square):
        return True
    if _links(tx):
        return any(map(_takes_magnitudes, tx.arguments["layout"]))
    if tx.factory is GradientTransformation or tx.signature.scheduled(tx.arguments):
        return False
    return _takes_magnitudes(tx.expression)


def rotation(
    seen: Sequence[Image], old: Sequence[jax.Array], new: Sequence[jax.Array]
) -> Callable[[PyTree, bool], PyTree]:
    r"""For :func:`rotated`: a buffer of images times $C = P'^* P$, one of magnitudes times $|C|^2$.

    A buffer that is not like the images, such as means over one of their axes, stays as it is.
    """
    turns = [product(adjoint(p), q) for p, q in zip(new, old, strict=True)]

    def turn(kept: PyTree, are_magnitudes: bool) -> PyTree:
        leaves, structure = jax.tree.flatten(kept)
        if [x.shape for x in leaves] != [image.small_shape for image in seen]:
            return kept

        def of_one(x: jax.Array, image: Image, c: jax.Array) -> jax.Array:
            c = square(c) if are_magnitudes else c
            rows = image.turned(cast(x, compute_dtype(x.dtype)))
            return image.turned(product(real_like(c, rows), rows)).astype(x.dtype)

        return structure.unflatten(map(of_one, leaves, seen, turns))

    return turn
