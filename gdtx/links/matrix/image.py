"""An array as matrices, and their images in fewer rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from ...core.numbers.norms import scaled_norms
from ...core.numbers.numerics import cast, compute_dtype
from ...core.trees.sharding import (
    MaybeSharding,
    reshard,
    sharded_zeros,
    sharding_of,
    spec_of,
    with_spec,
)
from ...core.trees.tree import PyTree
from ...linalg.products import product
from .axes import axes_of, axis_order, fans, in_order_of


class Image(NamedTuple):
    """How an array is seen: as matrices whose rows are those of the side that becomes smaller.

    Its image has the axes of the batch, the inputs and the outputs, with `rank` in place of the
    number of rows.
    """

    shape: tuple[int, ...]
    axes: str
    rank: int
    of_outputs: bool

    @classmethod
    def of(cls, x: Any, axes: str, rank: int, side: str) -> Image:
        n_in, n_out = fans(x.shape, axes)
        of_outputs = {"shorter": n_out < n_in, "longer": n_out > n_in}.get(side, side == "o")
        return cls(x.shape, axes, min(rank, n_in, n_out), of_outputs)

    @property
    def batch(self) -> tuple[int, ...]:
        return tuple(n for n, letter in zip(self.shape, self.axes, strict=True) if letter == "b")

    @property
    def sides(self) -> tuple[int, int]:
        """How many rows and columns the matrices have."""
        n_in, n_out = fans(self.shape, self.axes)
        return (n_out, n_in) if self.of_outputs else (n_in, n_out)

    @property
    def small_shape(self) -> tuple[int, ...]:
        sides = self.rank, self.sides[1]
        return (*self.batch, *(sides[::-1] if self.of_outputs else sides))

    def matrices(self, x: jax.Array) -> jax.Array:
        x = jnp.transpose(cast(x, compute_dtype(x.dtype)), axis_order(self.axes))
        return self.turned(x.reshape(*self.batch, *fans(self.shape, self.axes)))

    def array(self, matrices: jax.Array) -> jax.Array:
        """What :func:`matrices` took apart."""
        return in_order_of(self.axes, self.turned(matrices), self.shape)

    def turned(self, x: jax.Array) -> jax.Array:
        """From rows and columns to inputs and outputs, or from these to those."""
        return jnp.swapaxes(x, -1, -2) if self.of_outputs else x

    def zero(self, p: Any) -> jax.Array:
        """The image of an array of zeros, where this array is."""
        _, columns = self._sharded_sides(p)
        where = self._sharding(p, (columns, None) if self.of_outputs else (None, columns))
        return sharded_zeros(self.small_shape, compute_dtype(p.dtype), where, p)

    def first_basis(self, p: Any) -> jax.Array:
        """The first columns of the identity, its rows where those of the array are."""
        rows, _ = self._sharded_sides(p)
        where = self._sharding(p, (rows, None))
        shape = (*self.batch, self.sides[0], self.rank)
        zero = sharded_zeros(shape, compute_dtype(p.dtype), where, p)
        eye = jnp.eye(*shape[-2:], dtype=zero.dtype)
        return reshard(zero + eye.reshape(*[1] * len(self.batch), *eye.shape), where)

    def _sharded_sides(self, p: Any) -> tuple[Any, Any]:
        """The mesh axes of rows and columns; of a side of several axes none."""
        found = []
        for letter in "io":
            spec = self._spec(p, letter)
            found.append(spec[0] if len(spec) == 1 else None)
        return (found[1], found[0]) if self.of_outputs else (found[0], found[1])

    def _sharding(self, p: Any, sides: tuple[Any, ...]) -> MaybeSharding:
        where = sharding_of(p)
        if not isinstance(where, NamedSharding):
            return where
        spec = [*self._spec(p, "b"), *sides]
        return with_spec(where, spec, len(spec))

    def _spec(self, p: Any, letter: str) -> list[Any]:
        entries = spec_of(sharding_of(p), len(self.axes))
        return [entry for entry, each in zip(entries, self.axes, strict=True) if each == letter]


def images_of(tree: PyTree, axes: Any, rank: int, side: str) -> list[Image]:
    """How each array of a tree is seen, all of which are matrices."""
    both = zip(jax.tree.leaves(tree), axes_of(axes, tree, "axes", "params"), strict=True)
    return [Image.of(x, letters or "", rank, side) for x, letters in both]


READ = ("inside", "outside", "gain", "gains")
"""What the body of a projected transformation may read, by name."""


def read_by_bodies(
    image: Image, p: jax.Array, x: jax.Array, r: jax.Array, n: jax.Array
) -> dict[str, jax.Array]:
    """What the body may read of a matrix, of its image and of what became of that."""
    r, n = map(image.turned, (r, n))
    arrays = [product(p, n), x - product(p, r), _gain(n, r, (-2, -1)), _gain(n, r, -2)]
    return {
        name: image.array(jnp.broadcast_to(array, x.shape))
        for name, array in zip(READ, arrays, strict=True)
    }


def _gain(n: jax.Array, r: jax.Array, axes: Any) -> jax.Array:
    """The norm of one over that of the other, 0 where this is 0."""
    (power, size), (power_before, before) = scaled_norms(n, axes), scaled_norms(r, axes)
    ratio = size / jnp.where(before == 0, 1, before) * (power_before / power)
    return jnp.where(before == 0, 0, ratio)
