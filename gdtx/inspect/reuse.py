"""Values and gradients that a line search has evaluated already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..core.trees.tree import PyTree
from ..links.search.backtracking import BacktrackingLinesearchState
from ..links.search.zoom import ZoomLinesearchState
from .find import states


def value_and_grad_from_state(
    value_fn: Callable[..., Any],
) -> Callable[..., tuple[jax.Array, PyTree]]:
    """A function and its gradient, from the state of the line search that has led here.

    Before the first update, where the last value is not finite, and where the search keeps no
    gradient (:func:`backtracking_linesearch`), they are evaluated. For functions without noise: of
    another batch the values are others.

    Args:
        value_fn: function of the parameters, and of what else it is called with, that returns a
            real scalar.

    Returns:
        A function of the same, and by keyword of the `state`, that returns value and gradient. Of
        complex parameters it is the direction in which the function grows fastest, conjugate to
        that of `jax.grad`.

    Raises:
        ValueError: if the state has none of a line search, or several.

    >>> import gdtx, jax.numpy as jnp
    >>> f = lambda x: jnp.sum(x**2)
    >>> x = jnp.array([3.0])
    >>> gdtx.value_and_grad_from_state(f)(x, state=gdtx.lbfgs().init(x))
    (Array(9., dtype=float32), Array([6.], dtype=float32))
    """

    def value_and_grad(
        params: PyTree, *args: Any, state: PyTree, **kwargs: Any
    ) -> tuple[jax.Array, PyTree]:
        kinds = (ZoomLinesearchState, BacktrackingLinesearchState)
        found = [part for _, part in states(state) if isinstance(part, kinds)]
        if len(found) != 1:
            raise ValueError(
                "value_and_grad_from_state: state must have that of one line search, as "
                f"lbfgs().init(params) has, got that of {len(found)}"
            )

        def evaluated() -> tuple[jax.Array, PyTree]:
            value, gradient = jax.value_and_grad(value_fn)(params, *args, **kwargs)
            return value, jax.tree.map(jnp.conj, gradient)

        last = found[0]
        if isinstance(last, BacktrackingLinesearchState):
            return evaluated()
        like = jax.eval_shape(evaluated)
        kept = jax.tree.map(lambda x, s: x.astype(s.dtype), (last.value, last.grad), like)
        return jax.lax.cond(jnp.isfinite(last.value), lambda: kept, evaluated)

    return value_and_grad
