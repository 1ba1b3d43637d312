"""How long steps are beside the gradients they are from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core.numbers.numerics import cast, compute_dtype
from ..core.trees.dispatch import one_program
from ..core.trees.paths import leaf_paths
from ..core.trees.tree import PyTree
from .plots import new_axes


def effective_learning_rates(updates: PyTree, gradients: PyTree) -> PyTree:
    r"""$|u| / |g|$ for every number: the rate that gradient descent would need for this step.

    Args:
        updates: what a transformation returned.
        gradients: what it was given.

    Returns:
        A tree of arrays, in at least float32. A number is infinite where only the gradient is 0,
        as momentum moves on without one, and not a number where the update is 0 too.

    >>> import gdtx, jax.numpy as jnp
    >>> from gdtx import explore
    >>> tx, g = gdtx.rmsprop(0.1, decay=0.0, eps=0.0), jnp.array([2.0, -0.5])
    >>> explore.effective_learning_rates(tx.update(g, tx.init(g))[0], g)
    Array([0.05, 0.2 ], dtype=float32)
    """
    return _rates(updates, gradients)


@one_program
def _rates(updates: PyTree, gradients: PyTree) -> PyTree:
    def rate(u: Any, g: Any) -> jax.Array:
        dtype = compute_dtype(u.dtype, g.dtype)
        return jnp.abs(cast(u, dtype)) / jnp.abs(cast(g, dtype))

    return jax.tree.map(rate, updates, gradients)


def plot_effective_learning_rates(rates: PyTree, ax: Any = None, bins: int = 60) -> Any:
    """Draw how effective learning rates are distributed, on a logarithmic axis.

    Needs matplotlib, which the extra `viz` installs.

    Args:
        rates: of :func:`effective_learning_rates`; or several by name, in a dict, each a curve of
            its own: of methods, or of the layers of one. In another tree every array is one.
            Numbers that are not positive and finite are left out; the legend says how many.
        ax: axes of matplotlib to draw on, new ones by default.
        bins: how many intervals, the same for all.

    Returns:
        The axes; nothing is shown or saved.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if there is nothing to draw.

    >>> import jax.numpy as jnp
    >>> from gdtx import explore
    >>> explore.plot_effective_learning_rates({"adam": jnp.array([0.1, 0.2])}).get_xlabel()
    'effective learning rate |u| / |g|'
    """
    if not isinstance(rates, Mapping):
        rates = dict(zip(leaf_paths(rates), jax.tree.leaves(rates), strict=True))
    numbers = {str(name): _numbers(tree) for name, tree in rates.items()}
    shown = {name: x[np.isfinite(x) & (x > 0)] for name, x in numbers.items()}
    everything = np.concatenate([np.zeros(0), *shown.values()])
    if not everything.size:
        raise ValueError("plot_effective_learning_rates: no rate is positive and finite")
    ax = new_axes("plot_effective_learning_rates") if ax is None else ax
    # One rate for all, as gradient descent has, is a bar in the middle.
    low, high = everything.min(), everything.max()
    edges = np.geomspace(low / 1.5, high * 1.5, bins + 1)
    for i, (name, x) in enumerate(shown.items()):
        left_out = numbers[name].size - x.size
        label = f"{name or 'all'} ({left_out} left out)" if left_out else name or "all"
        share = np.histogram(x, edges)[0] / max(x.size, 1)
        ax.stairs(share, edges, label=label, linestyle=("-", "--", ":", "-.")[i // 10 % 4],
                  linewidth=1.5, fill=False)  # fmt: skip
    ax.set(xscale="log", xlabel="effective learning rate |u| / |g|", ylabel="share of parameters")
    ax.legend()
    return ax


def _numbers(tree: PyTree) -> np.ndarray:
    leaves = [np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)]
    return np.concatenate([np.zeros(0), *leaves])
