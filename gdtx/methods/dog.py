"""DoG: the distance gone, over the root of all gradients."""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp

from ..core.calls.kinds import NonNegative, Positive, one_of
from ..core.combine import chain
from ..core.factory import transformation
from ..core.numbers.norms import scaled_norm, unscaled
from ..core.transformation import GradientTransformation
from ..core.tree_memory import recur_tree
from ..core.trees.tree import PyTree
from ..formula import PARAMETERS, Expression, Reader, Symbol, apply, formula_of, t
from ..links.arithmetic import scale_by_learning_rate
from ..links.decay import add_decayed_weights

_Per = Annotated[str, one_of("tree", "array")]


@transformation
def scale_by_dog(
    *, per: _Per = "tree", reps_rel: Positive = 1e-6, eps: NonNegative = 1e-8
) -> GradientTransformation:
    r"""$u_t = r_t\,g_t / \sqrt{G_t + \epsilon}$ with the largest distance so far,
    $r_t = \max(r_{t-1}, \|\theta_{t-1} - \theta_0\|)$, and $G_t = \sum_{i \le t} \|g_i\|^2$.

    Args:
        per: what has norms of its own: the whole `"tree"`, or each `"array"` (L-DoG).
        reps_rel: $r_\epsilon$: the first distance is $r_0 = r_\epsilon\,(1 + \|\theta_0\|)$.
        eps: $\epsilon$, inside the root.

    Returns:
        A transformation whose state holds the first parameters and two numbers, or two for each
        array.

    References:
        Ivgi, Hinder & Carmon 2023, DoG is SGD's Best Friend, arXiv:2302.12022.

    >>> import gdtx, jax.numpy as jnp
    >>> tx, params = gdtx.scale_by_dog(reps_rel=1.0), jnp.array([3.0, 4.0])
    >>> tx.update(jnp.array([0.0, 2.0]), tx.init(params), params)[0]
    Array([0., 6.], dtype=float32)
    """

    def norms(tree: PyTree) -> list[jax.Array]:
        leaves = jax.tree.leaves(tree)
        groups = [leaves] if per == "tree" else [[leaf] for leaf in leaves]
        return [unscaled(*scaled_norm(group)) for group in groups]

    def rule(g: PyTree, params: PyTree, start: PyTree, r: list[Any], G: list[Any]) -> Any:  # noqa: N803
        gone = norms(jax.tree.map(jnp.subtract, params, start))
        r = list(map(jnp.maximum, r, gone))
        total = [so_far + size**2 for so_far, size in zip(G, norms(g), strict=True)]
        rates = [far / jnp.sqrt(all + eps) for far, all in zip(r, total, strict=True)]
        leaves, structure = jax.tree.flatten(g)
        shared = rates * len(leaves) if per == "tree" else rates
        new = structure.unflatten(map(jnp.multiply, leaves, shared))
        return new, {"start": start, "r": r, "G": total}

    return recur_tree(
        rule,
        start=lambda params: params,
        r=lambda params: [reps_rel * (1 + size) for size in norms(params)],
        G=lambda params: list(map(jnp.zeros_like, norms(params))),
    )


@formula_of(scale_by_dog, reps_rel=r"r_\epsilon")
def _(u: Expression, reader: Reader, reps_rel: Any, eps: Any) -> Expression:
    u = reader.atom(u)
    r, total = (Symbol(rf"\bullet {name}", time=t - 1) for name in "rG")
    values = {
        r: apply("\\max", r, apply("norm", PARAMETERS - PARAMETERS.at(0))),
        total: total + apply("norm", u) ** 2,
    }
    first = {r: reps_rel * (1 + apply("norm", PARAMETERS.at(0))), total: 0}
    names, _ = reader.remember_all({r: ("r",), total: ("G",)}, values, first)
    return names[r] / apply("root", names[total] + eps) * u


@transformation
def dog(
    learning_rate: NonNegative = 1.0,
    *,
    per: _Per = "tree",
    reps_rel: Positive = 1e-6,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
) -> GradientTransformation:
    r"""SGD whose rate is the distance gone over the root of all squared gradients.

    $\theta_t = \theta_{t-1} - \eta\,r_t g_t / \sqrt{G_t + \epsilon}$ with $r$ and $G$ of
    :func:`scale_by_dog`. Evaluate with an :func:`average` of the parameters, as its authors do.

    Args:
        learning_rate: $\eta$, a factor that is meant to be 1.
        per: what has norms of its own: the whole `"tree"`, or each `"array"`.
        reps_rel: $r_\epsilon$, share of $1 + \|\theta_0\|$ that the first distance is.
        eps: $\epsilon$, inside the root.
        weight_decay: $\lambda$, an L2 penalty: $\lambda\,\theta_{t-1}$ is added to the gradient.
        mask: which parameters decay, in any form of :func:`masked`; all by default.

    Returns:
        A transformation with the state of :func:`scale_by_dog`.

    References:
        Ivgi, Hinder & Carmon 2023, see :func:`scale_by_dog`.

    >>> import gdtx
    >>> gdtx.dog(per="array").arguments["per"]
    'array'
    """
    return chain(
        add_decayed_weights(weight_decay, mask),
        scale_by_dog(per=per, reps_rel=reps_rel, eps=eps),
        scale_by_learning_rate(learning_rate),
    )
