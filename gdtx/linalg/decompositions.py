"""Decompositions of stacks of matrices."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.sharding import PartitionSpec

from ..core.trees.tree import explicit_sharding


def _one_by_one(f: Callable[[jax.Array], Any]) -> Callable[..., Any]:
    """`f` of stacks of matrices, in a CPU's programs one matrix after the other.

    There some versions of jaxlib hand the matrices of a stack to threads of the pool that the call
    itself runs on, and wait for them: as many such calls at once as the pool has threads wait for
    ever. They come from one program, or from one on each of several devices. A stack of one
    matrix is not handed to anybody.
    """

    def of_stack(stack: jax.Array) -> tuple[jax.Array, ...]:
        if stack.ndim == 2:
            return tuple(f(stack))
        flat = stack.reshape(math.prod(stack.shape[:-2]), *stack.shape[-2:])
        results = jax.lax.platform_dependent(
            flat,
            cpu=lambda x: jax.lax.map(lambda one: tuple(f(one)), x),
            default=lambda x: tuple(f(x)),
        )
        return tuple(x.reshape(*stack.shape[:-2], *x.shape[1:]) for x in results)

    def on_its_devices(stack: jax.Array) -> Any:
        where = explicit_sharding(stack)
        if where is None or not any(where.spec):
            return of_stack(stack)
        # A loop over matrices that an explicit mesh has on several devices.
        lead = where.spec[: stack.ndim - 2]
        likes = jax.eval_shape(f, jax.ShapeDtypeStruct(stack.shape, stack.dtype))
        specs = [PartitionSpec(*lead, *[None] * (x.ndim - len(lead))) for x in likes]
        axes = where.mesh.explicit_axes
        return jax.sharding.auto_axes(of_stack, axes=axes, out_sharding=tuple(specs))(stack)

    # A batch of these is a larger stack, and not a call that has a stack in it after all.
    mapped = custom_vmap(on_its_devices)

    @mapped.def_vmap
    def _(size: int, batched: list[bool], stack: jax.Array) -> Any:
        results = mapped(stack)
        return results, jax.tree.map(lambda _: True, results)

    return mapped


eigh = _one_by_one(lambda x: jnp.linalg.eigh(x, UPLO="L", symmetrize_input=False))
"""Eigenvalues, the smallest first, and eigenvectors, as columns; of the lower triangle."""

svd = _one_by_one(lambda x: jnp.linalg.svd(x, full_matrices=False))

qr = _one_by_one(jnp.linalg.qr)
