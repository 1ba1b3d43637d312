"""The distance gone from the first parameters, over the root of all gradients."""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jax.tree_util import keystr

from ..core.calls.kinds import NonNegative, Positive, one_of
from ..core.factory import transformation
from ..core.transformation import GradientTransformation
from ..core.tree_memory import recur_tree
from ..core.trees.copies import unlike_params
from ..core.trees.stacking import of_layers, stacked_axes
from ..core.trees.tree import PyTree
from ..formula import PARAMETERS, Expression, Reader, Symbol, apply, formula_of, t
from .clipping import global_norm


@transformation
def scale_by_dog(
    *,
    per: Annotated[str, one_of("tree", "array")] = "tree",
    reps_rel: Positive = 1e-6,
    eps: NonNegative = 1e-8,
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

    def norms(tree: PyTree) -> Any:
        """The norm of all, or those of the arrays by path."""
        if per == "tree":
            return global_norm(tree)
        both = zip(jax.tree_util.tree_leaves_with_path(tree), stacked_axes(tree), strict=True)
        return {keystr(path): of_layers(global_norm, n)(leaf) for (path, leaf), n in both}

    def rule(g: PyTree, params: PyTree, start: PyTree, r: Any, G: Any) -> Any:  # noqa: N803
        r = jax.tree.map(jnp.maximum, r, norms(jax.tree.map(jnp.subtract, params, start)))
        total = jax.tree.map(lambda so_far, size: so_far + size**2, G, norms(g))
        rates = jax.tree.map(lambda far, all: far / jnp.sqrt(all + eps), r, total)
        leaves, structure = jax.tree.flatten(g)
        if per == "tree":
            new = [rates * u for u in leaves]
        else:
            rows = zip(stacked_axes(g), leaves, rates.values(), strict=True)
            new = [of_layers(jnp.multiply, n)(u, rate) for n, u, rate in rows]
        return structure.unflatten(new), {"start": start, "r": r, "G": total}

    def first(f: Any) -> Any:
        return unlike_params(lambda params: jax.tree.map(f, norms(params)))

    r, total = first(lambda size: reps_rel * (1 + size)), first(jnp.zeros_like)
    return recur_tree(rule, start=lambda params: params, r=r, G=total)


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
