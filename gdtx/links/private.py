"""One update of the gradients of many examples, with noise that hides each of them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from ..core.calls.kinds import NonNegative, Positive, Seed
from ..core.errors import fail
from ..core.factory import transformation
from ..core.memory import CountState
from ..core.numbers import norms as _norms
from ..core.numbers.numerics import cast, compute_dtype, increment
from ..core.random import keys
from ..core.rules import walk
from ..core.transformation import GradientTransformation
from ..core.trees.tree import PyTree, explicit_sharding, leaf_path, leaves_as, scalar_like
from ..formula import Definition, Expression, Reader, Symbol, apply, formula_of, t


@transformation
def differentially_private_aggregate(
    l2_norm_clip: Positive, noise_multiplier: NonNegative, seed: Seed
) -> GradientTransformation:
    r"""The mean of the examples' gradients, each shortened, with noise in their sum.

    $$u = \frac1B \sum_{i=1}^B g_i \min(1, C / \|g_i\|) + \frac{\sigma C}{B}\,\xi, \quad
    \xi \sim N(0, 1),$$

    with $\|g_i\|$ the norm over all arrays. The first link of a chain: its updates have an axis of
    $B$ examples before those of their parameter, as `jax.vmap(jax.grad(loss), (None, 0))(params,
    batch)` gives them, and what comes out has the parameter's shape, so that any method may follow:
    `chain(differentially_private_aggregate(1.0, 1.1, seed), adamw(1e-3))`. Real and imaginary part
    of a complex number have a noise each.

    How private training is depends on $\sigma$, on how batches are drawn and on how many there
    are: an accountant outside of gdtx computes it. An example that is all zeros counts in $B$ and
    for nothing else.

    Args:
        l2_norm_clip: $C$, largest norm of an example's gradient.
        noise_multiplier: $\sigma$, deviation of the noise in the sum, in units of $C$.
        seed: an integer or an integer array, see :func:`randomized`. Who knows it knows the noise.

    Returns:
        A transformation whose state is one count.

    Raises:
        ValueError: if a hyperparameter is out of its range; from `update`, if the updates have no
            axis of examples, or not the same.

    References:
        Abadi et al. 2016, Deep Learning with Differential Privacy, arXiv:1607.00133.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.differentially_private_aggregate(1.0, 0.0, seed=0)
    >>> each = jnp.array([[3.0, 4.0], [0.0, 0.5]])  # of two examples; the first is too long
    >>> tx.update(each, tx.init(jnp.zeros(2)), jnp.zeros(2))[0]
    Array([0.3 , 0.65], dtype=float32)
    """

    def init(params: PyTree) -> CountState:
        return CountState(scalar_like(params, 0, jnp.int32))

    def update(
        updates: PyTree, state: CountState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, CountState]:
        leaves, structure = jax.tree.flatten(updates)
        examples = _number(updates, params)
        count = increment(state.step)

        def share(each: list[jax.Array]) -> jax.Array:
            """What is left of an example. Of a gradient near the end of its dtype's range nothing
            may be: the share is subnormal then."""
            power, scaled = _norms.scaled_norm(each)
            within = scaled <= l2_norm_clip * power  # not the reverse: a NaN is neither
            return jnp.where(within, 1, power * (l2_norm_clip / jnp.where(within, 1, scaled)))

        shares = jax.vmap(share)(leaves) if leaves else jnp.ones(0)

        def noisy(g: jax.Array, key: jax.Array) -> jax.Array:
            place = explicit_sharding(g)
            if place is not None:
                place = NamedSharding(place.mesh, PartitionSpec(*place.spec[1:]))
            g = cast(g, compute_dtype(g.dtype))
            share = cast(shares, jnp.finfo(g.dtype).dtype)
            # A product, because a sum of what is shortened would need memory for it on some.
            total = jnp.einsum("i,i...->...", share, g, precision="highest", out_sharding=place)
            noise = jax.random.normal(key, total.shape, total.dtype, out_sharding=place)
            # A complex one has half of its variance in each part.
            parts = 2.0**0.5 if jnp.iscomplexobj(total) else 1.0
            deviation = jnp.asarray(parts * noise_multiplier * l2_norm_clip, noise.real.dtype)
            return (total + deviation * noise) / max(examples, 1)

        columns = leaves, keys(seed, count, len(leaves))
        noised = walk(noisy, structure, *columns, by_layer=False)
        return structure.unflatten(noised), CountState(count)

    return GradientTransformation(init, update, CountState)


@formula_of(differentially_private_aggregate, l2_norm_clip="C", noise_multiplier=r"\sigma")
def _(
    u: Expression, reader: Reader, l2_norm_clip: Any, noise_multiplier: Any, seed: Any
) -> Expression:
    u = reader.atom(u)
    each, examples = Symbol(u.letter, "i", u.above, u.accent, u.time), Symbol("B")
    noise = reader.claim((Symbol(r"\xi", time=t),), repr(seed))
    definition = Definition(noise, apply(r"\mathcal{N}", 0, 1))
    if definition not in reader.definitions:
        reader.definitions.append(definition)
    shortened = each * apply("\\min", 1, l2_norm_clip / apply("norm", each))
    mean = apply("mean", shortened, examples)
    return mean + noise_multiplier * l2_norm_clip / examples * noise


def _number(updates: PyTree, params: PyTree) -> int:
    """Of how many examples the updates are."""
    leaves, structure = jax.tree.flatten(updates)
    likes = [None] * len(leaves)
    if params is not None:
        likes = leaves_as(structure, params, "params", "updates")
    for i, (g, p) in enumerate(zip(leaves, likes, strict=True)):
        expected = f"({leaves[0].shape[0] if leaves[0].ndim else 'examples'}, ...)"
        fits = g.ndim and g.shape[0] == leaves[0].shape[0]
        if p is not None:
            expected = f"({', '.join(['examples', *map(str, p.shape)])})"
            fits = fits and g.shape[1:] == p.shape
        if not fits:
            path = leaf_path(updates, i)
            fail(
                ValueError,
                f"updates{path} has shape {g.shape}, expected {expected}: the gradient of each "
                "example, as jax.vmap(jax.grad(loss), (None, 0))(params, batch) gives it",
            )
    return leaves[0].shape[0] if leaves else 0
