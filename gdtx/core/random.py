"""A maker with randomness: a rule on one array and a key of its own."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .calls.kinds import Seed, StepFunction
from .errors import fail
from .factory import transformation
from .memory import CountState, rule_at
from .numbers.numerics import cast, compute_dtype, increment
from .numbers.shards import number_of_part
from .rules import beside, checked_result, walk
from .transformation import GradientTransformation
from .trees.stacking import stacked_axes
from .trees.tree import PyTree, scalar_like


@transformation(quiet=True)
def randomized(
    f: StepFunction, seed: Seed = 0, needs_params: bool = False
) -> GradientTransformation:
    r"""A rule with randomness: $t \leftarrow t + 1$, then $u_i \leftarrow f(t)(k_{t,i}, u_i)$.

    The key $k_{t,i}$ of the i-th array at step t is made of `seed`, t and i. No key is kept: a
    state saved and restored goes on with the same numbers, bit for bit, on any number of devices.
    Two such transformations with one seed draw from the same keys; give each its own.

    Args:
        f: function of the step, an integer scalar that is 1 on the first update, that runs once per
            update and returns a function of a key and an array, in at least float32.
        seed: an integer, or an integer array to change or to map over with `jax.vmap`.
        needs_params: whether that function takes the parameter as well, third, in its own dtype.

    Returns:
        A transformation whose state is one count. It stays at the largest int32.

    Raises:
        ValueError: from `update`, if it is called without the parameters it needs.

    >>> import gdtx, jax, jax.numpy as jnp
    >>> flips = gdtx.randomized(lambda t: lambda key, u: u * jax.random.rademacher(key, u.shape))
    >>> u, state = flips.update(jnp.ones(100), flips.init(jnp.ones(100)))
    >>> set(u.tolist()) == {-1.0, 1.0}, state.step
    (True, Array(1, dtype=int32))
    """

    def init(params: PyTree) -> CountState:
        return CountState(scalar_like(params, 0, jnp.int32))

    def update(
        updates: PyTree, state: CountState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, CountState]:
        count = increment(state.step)
        leaves, structure = jax.tree.flatten(updates)
        rule = rule_at(f, count)

        def drawn(u: jax.Array, key: jax.Array, *param: jax.Array) -> jax.Array:
            dtype = compute_dtype(*(x.dtype for x in (u, *param)))
            return checked_result(rule(key, cast(u, dtype), *param), u, dtype)

        own = map(key_of_shard, keys(seed, count, len(leaves)), leaves)
        each = zip(own, leaves, stacked_axes(updates), strict=True)
        columns = [leaves, [jax.random.split(k, u.shape[:n]) if n else k for k, u, n in each]]
        if needs_params:
            columns.append(beside(updates, params))
        return structure.unflatten(walk(drawn, structure, *columns)), CountState(count)

    return GradientTransformation(init, update, CountState)


def key_of_shard(key: jax.Array, x: jax.Array) -> jax.Array:
    """Inside of `shard_map` a key for each part of an array that is cut; else the key."""
    number = number_of_part(x)
    return key if number is None else jax.random.fold_in(key, number)


def keys(seed: Any, step: jax.Array | int, number: int) -> list[jax.Array]:
    """A key for each array at this step; the i-th is the same whatever the number of others."""
    if jnp.shape(seed) != ():
        fail(
            ValueError,
            f"seed must be a scalar, got an array of shape {jnp.shape(seed)} (map over it with "
            "jax.vmap)",
        )
    now = jax.random.fold_in(jax.random.key(seed), step)
    return [jax.random.fold_in(now, i) for i in range(number)]
