"""Rounding to the parameters' precision by chance, so that small updates count on average."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ..core.calls.kinds import Seed
from ..core.errors import LeafError
from ..core.factory import transformation
from ..core.numbers.handover import exact
from ..core.numbers.narrow import change, rounded_by_chance
from ..core.numbers.numerics import cast, is_narrow, total
from ..core.random import randomized
from ..core.transformation import GradientTransformation
from ..core.trees.tree import explicit_sharding
from ..formula import PARAMETERS, Expression, apply, formula_of


@transformation
def stochastic_rounding(seed: Seed = 0) -> GradientTransformation:
    r"""Round new parameters up or down by chance: $u \leftarrow \mathrm{SR}(\theta + u) - \theta$.

    $\mathrm{SR}(x)$ is one of the two neighbours of x in the parameter's dtype, such that
    $E[\mathrm{SR}(x)] = x$; a number of that dtype stays. So updates too small to change a
    bfloat16 or float16 parameter change it as often as they must, and no copy in float32 is
    needed (:func:`master_weights` keeps one). The last link of a chain: :func:`apply_updates` then
    gives that neighbour exactly. Other parameters' updates pass as they are.

    $\theta + u$ is first rounded to float32, as in training in float32. Rounding is to the nearest
    beyond the largest finite number, and as far as differences are so small (1e-38) that devices
    take them for 0; infinities and NaN stay. The derivative is that of the expectation, 1.

    Args:
        seed: an integer or an integer array, see :func:`randomized`.

    Returns:
        A transformation whose state is one count.

    Raises:
        ValueError: from `update`, if it is called without the parameters.
        TypeError: from `update`, for complex updates of real parameters.

    References:
        Gupta et al. 2015, Deep Learning with Limited Numerical Precision, arXiv:1502.02551;
        Zamirai et al. 2020, Revisiting BFloat16 Training, arXiv:2010.06192.

    >>> import gdtx, jax, jax.numpy as jnp
    >>> params = jnp.ones(10000, jnp.bfloat16)
    >>> tx = gdtx.chain(gdtx.scale(-0.001), gdtx.stochastic_rounding())
    >>> updates, _ = tx.update(jnp.ones(10000), tx.init(params), params)
    >>> new = gdtx.apply_updates(params, updates)
    >>> print(jnp.unique(new), f"{new.astype(jnp.float32).mean():.3f}")
    [0.996094 1] 0.999
    """

    def rule(key: jax.Array, u: jax.Array, p: jax.Array) -> jax.Array:
        if not is_narrow(p.dtype):
            return u
        if jnp.iscomplexobj(u):
            raise LeafError(TypeError, f"is complex, its parameter is {p.dtype}")
        wide = p.astype(jnp.float32)
        # Other numbers than those that another link with this seed draws.
        key = jax.random.fold_in(key, _ROUNDING)
        chance = jax.random.uniform(key, u.shape, jnp.float32, out_sharding=explicit_sharding(u))
        new = rounded_by_chance(cast(total(u, wide), jnp.float32), chance, p.dtype)
        return exact(change(wide, new))

    return randomized(lambda t: rule, seed, needs_params=True)


@formula_of(stochastic_rounding)
def _(u: Expression) -> Expression:
    return apply("SR", PARAMETERS + u) - PARAMETERS


_ROUNDING = 0x5EED
