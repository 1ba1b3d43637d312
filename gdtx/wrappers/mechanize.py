"""A scale for the steps of any method, learned while training."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core.calls.kinds import NonNegative, Positive, PositiveCount
from ..core.calls.types import TransformationLike
from ..core.factory import transformation
from ..core.let import let
from ..core.numbers.norms import inner_product
from ..core.transformation import GradientTransformation
from ..core.tree_memory import recur_tree
from ..core.trees.tree import PyTree
from ..formula import PARAMETERS, Expression, Reader, Symbol, apply, formula_of, t
from ..links.clipping import global_norm


@transformation
def mechanize(
    inner: TransformationLike,
    weight_decay: NonNegative = 0.01,
    eps: Positive = 1e-8,
    s_init: Positive = 1e-6,
    num_betas: PositiveCount = 6,
) -> GradientTransformation:
    r"""Learn the scale of the steps of any method (Mechanic).

    $$\theta_t = \theta_0 + S_t \Delta_t, \quad \Delta_t = \Delta_{t-1} + u_t, \quad
    \Delta_{t-1} = (\theta_{t-1} - \theta_0) / (S_{t-1} + \epsilon),$$

    with $u$ the steps of `inner` and $S$ the sum of $n$ scales, one for each
    $\beta = 1 - 10^{-i}$. With $h_t = -\langle g_t + \lambda S_{t-1} \frac{\|g_t\|}
    {\|\theta_{t-1}\|}\,\theta_{t-1}, \Delta_{t-1}\rangle$ over all arrays, each is

    $$s_t = \frac{\tfrac{s_0}{n} m_t + \max(0, r_t)}{\sqrt{v_t} + \epsilon}, \quad
    m_t = \max(\beta m_{t-1}, |h_t| + \epsilon), \quad v_t = \beta^2 v_{t-1} + h_t^2, \quad
    r_t = \beta r_{t-1} + s_{t-1} \min(\max(h_t, -m_{t-1}), m_{t-1}).$$

    Args:
        inner: a method, whose rate and its schedule shape the steps that are scaled.
        weight_decay: $\lambda$, pull of the scale toward $\theta_0$ with the weights.
        eps: $\epsilon$, in the denominators.
        s_init: $s_0$, the first scale, less than any that is of use.
        num_betas: $n$, how many averages; the last has the decay $1 - 10^{-n}$.

    Returns:
        A transformation whose state holds the first parameters, $4 n$ numbers, a count and the
        state of `inner`.

    Raises:
        ValueError: from `update`, if it is called without the parameters.

    References:
        Cutkosky, Defazio & Mehta 2023, Mechanic: A Learning Rate Tuner, arXiv:2306.00144.

    >>> import gdtx, jax.numpy as jnp
    >>> tx, params = gdtx.mechanize(gdtx.sgd(1.0)), jnp.array([3.0])
    >>> bool(jnp.abs(tx.update(params, tx.init(params), params)[0])[0] < 1e-4)
    True
    """

    def rule(
        g: PyTree, u: PyTree, params: PyTree, start: PyTree, m: Any, v: Any, r: Any, s: Any
    ) -> tuple[PyTree, dict[str, Any]]:
        betas = jnp.asarray(1 - 0.1 ** np.arange(1.0, num_betas + 1), s.dtype)
        scale = jnp.sum(s)
        decay = weight_decay * scale * global_norm(g) / (global_norm(params) + eps)
        pulled = jax.tree.map(lambda g, p: g + decay * p, g, params)
        gone = jax.tree.map(lambda p, p0: (p - p0) / (scale + eps), params, start)
        h = -inner_product(jax.tree.leaves(pulled), jax.tree.leaves(gone))
        r = betas * r + jnp.clip(h, -m, m) * s
        m = jnp.maximum(betas * m, jnp.abs(h) + eps)
        v = betas**2 * v + h**2
        s = (s_init / num_betas * m + jnp.maximum(0, r)) / (jnp.sqrt(v) + eps)
        new = jax.tree.map(
            lambda p0, d, u, p: p0 + jnp.sum(s) * (d + u) - p, start, gone, u, params
        )
        return new, {"start": start, "m": m, "v": v, "r": r, "s": s}

    zeros = np.zeros(num_betas)
    body = recur_tree(
        rule, start=lambda params: params, m=zeros, v=zeros, r=zeros, s=zeros + s_init
    )
    return let(body, u=inner)


@formula_of(mechanize, weight_decay=r"\lambda", s_init="s_0", num_betas="n")
def _(u: Expression, reader: Reader, inner: GradientTransformation, eps: Any) -> Expression:
    u = reader.atom(u)
    step = reader.step(reader.read(inner, u))
    reader.downhill = True
    scale = Symbol("S", time=t)
    start = PARAMETERS.at(0)
    gone = reader.define(
        (Symbol(r"\Delta", time=t),), (PARAMETERS - start) / (scale.at(t - 1) + eps) + step
    )
    found = apply("Mechanic", u, step)
    return start + reader.define((scale,), found) * gone - PARAMETERS
