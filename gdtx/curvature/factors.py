"""Kronecker factors: their eigenbases, and gradients divided by their product."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core.numbers.numerics import sqrt
from ..core.trees.dealing import deal
from ..core.trees.short import in_short
from ..linalg.batches import apply_by_size, in_batches
from ..linalg.decompositions import eigh
from ..linalg.products import adjoint, of_eigenvalues, product

Factors = dict[str, dict[str, jax.Array]]
"""Of each block, "A" of its inputs and "S" of its outputs: symmetric matrices, or stacks."""


@in_short
class Eigenbasis(NamedTuple):
    """Eigenvectors, as columns, and eigenvalues of both factors of a block."""

    inputs: jax.Array
    input_values: jax.Array
    outputs: jax.Array
    output_values: jax.Array


# Beside its results, a decomposition needs some three matrices.
_AT_ONCE = 64


def eigenbases(factors: Factors) -> dict[str, Eigenbasis]:
    """The eigenbases of all blocks, factors of one size together; no eigenvalue is negative.

    Inside of :func:`dealt` each device decomposes its part of those of one size.
    """
    sides = [factors[block][side] for block in factors for side in ("A", "S")]
    results = apply_by_size(deal(in_batches(eigh, _AT_ONCE)), [_flat(x) for x in sides])
    pairs = iter(zip(sides, results, strict=True))
    return {block: Eigenbasis(*_parts(*next(pairs)), *_parts(*next(pairs))) for block in factors}


def _flat(stack: jax.Array) -> jax.Array:
    return stack.reshape(math.prod(stack.shape[:-2]), *stack.shape[-2:])


def _parts(factor: jax.Array, decomposed: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
    values, vectors = decomposed
    return vectors.reshape(factor.shape), jnp.maximum(values, 0).reshape(factor.shape[:-1])


def rotate(basis: Eigenbasis, matrix: jax.Array) -> jax.Array:
    """A gradient's coordinates in the eigenbasis."""
    return product(product(adjoint(basis.inputs), matrix), basis.outputs)


def rotate_back(basis: Eigenbasis, matrix: jax.Array) -> jax.Array:
    """The gradient with these coordinates."""
    return product(product(basis.inputs, matrix), adjoint(basis.outputs))


def product_values(basis: Eigenbasis) -> jax.Array:
    """The eigenvalues of the product, in the shape of the gradient."""
    return basis.input_values[..., :, None] * basis.output_values[..., None, :]


def factored(basis: Eigenbasis, damping: Any) -> jax.Array:
    r"""Eigenvalues of $(A + \pi \sqrt\lambda I) \otimes (S + \sqrt\lambda / \pi\, I)$.

    With $\pi^2$ the ratio of the mean eigenvalues of $A$ and $S$, for which the product is, in the
    trace norm, nearest to $A \otimes S + \lambda I$.
    """
    means = [values.mean(-1) for values in (basis.input_values, basis.output_values)]
    usable = (means[0] > 0) & (means[1] > 0)
    ratio = jnp.where(usable, means[0], 1) / jnp.where(usable, means[1], 1)
    pi, root = sqrt(ratio)[..., None], sqrt(jnp.asarray(damping))
    damped = Eigenbasis(
        basis.inputs, basis.input_values + pi * root, basis.outputs,
        basis.output_values + root / pi,
    )  # fmt: skip
    return product_values(damped)


def exact(basis: Eigenbasis, damping: Any) -> jax.Array:
    r"""Eigenvalues of $A \otimes S + \lambda I$."""
    return product_values(basis) + damping


DAMPINGS = {"factored": factored, "eigen": exact}


def divide(basis: Eigenbasis, values: jax.Array, matrix: jax.Array) -> jax.Array:
    """A gradient divided by the matrix with these eigenvalues; where they are 0, it is 0 too."""
    coordinates = rotate(basis, matrix)
    return rotate_back(basis, of_eigenvalues(lambda some: coordinates / some, values))
