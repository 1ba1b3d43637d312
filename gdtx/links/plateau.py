"""A factor that shrinks when a value stops improving."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core.calls.kinds import AtLeastOne, Decay, Fraction, InnerDecay, NonNegative, one_of
from ..core.factory import transformation
from ..core.numbers.numerics import increment
from ..core.rules import each_leaf
from ..core.transformation import GradientTransformation
from ..core.trees.short import in_short
from ..core.trees.tree import PyTree, real_scalar, scalar_like


@in_short
class PlateauState(NamedTuple):
    """State of a reduction on plateaus: its factor, and what it knows of the values."""

    scale: jax.Array
    best_value: jax.Array
    avg_value: jax.Array
    avg_count: jax.Array
    plateau_count: jax.Array
    cooldown_count: jax.Array

    def describe(self) -> dict[str, jax.Array]:
        return {"plateau_scale": self.scale}


_SIGNS = {"min": 1, "max": -1}


@transformation
def reduce_on_plateau(
    factor: InnerDecay = 0.1,
    patience: AtLeastOne = 10,
    rtol: Decay = 1e-4,
    atol: NonNegative = 0.0,
    cooldown: NonNegative = 0,
    accumulation_size: AtLeastOne = 1,
    min_scale: Fraction = 0.0,
    mode: Annotated[str, one_of(*_SIGNS)] = "min",
) -> GradientTransformation:
    r"""Scale the updates down when a value stops improving: $u \leftarrow c\,u$.

    $c$ is 1 at first. A value improves if it is below $v^* - r\,|v^*| - a$, with $v^*$ the last
    that did, or, where more is better, above $v^* + r\,|v^*| + a$; NaN never does. After as many
    values in a row without improvement as `patience` says, $c \leftarrow \max(f c, c_{\min})$.

    Every `update` needs `value=`: a validation loss, or the training loss averaged over
    `accumulation_size` updates. A link for the end of a chain; earlier, it scales what the links
    after it see.

    Args:
        factor: $f$, what the scale is multiplied by after a plateau.
        patience: number of values in a row without improvement at which to reduce, as in Optax;
            torch reduces at one more.
        rtol, atol: $r$ and $a$, by how much a value must be better.
        cooldown: number of values after a reduction that are not counted as without improvement.
        accumulation_size: number of values whose mean counts as one.
        min_scale: $c_{\min}$, the smallest scale.
        mode: "min" for a loss, "max" for an accuracy.

    Returns:
        A transformation whose state is six scalars; the values and $c$ are float32.

    Raises:
        ValueError: if an argument is out of its range.
        TypeError: from `update`, if it is called without `value`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.reduce_on_plateau(factor=0.5, patience=2)
    >>> state = tx.init(jnp.zeros(()))
    >>> for value in (3.0, 2.0, 2.0, 2.0, 1.0):
    ...     u, state = tx.update(jnp.array(1.0), state, value=value)
    ...     print(u)
    1.0
    1.0
    1.0
    0.5
    0.5
    """
    sign = _SIGNS[mode]

    def init(params: PyTree) -> PlateauState:
        return PlateauState(
            scale=scalar_like(params, 1, jnp.float32),
            best_value=scalar_like(params, sign * jnp.inf, jnp.float32),
            avg_value=scalar_like(params, 0, jnp.float32),
            avg_count=scalar_like(params, 0, jnp.int32),
            plateau_count=scalar_like(params, 0, jnp.int32),
            cooldown_count=scalar_like(params, 0, jnp.int32),
        )

    def judged(value: jax.Array, state: PlateauState) -> PlateauState:
        best = state.best_value
        # As a factor, because infinity minus a share of infinity is NaN.
        bound = jnp.where(sign * best > 0, 1 - rtol, 1 + rtol) * best - sign * atol
        improved = value < bound if sign == 1 else value > bound
        plateau = jnp.where(improved, 0, increment(state.plateau_count))
        cooling = state.cooldown_count > 0
        reduced = ~cooling & (plateau >= patience)
        return PlateauState(
            scale=jnp.where(reduced, jnp.maximum(factor * state.scale, min_scale), state.scale),
            best_value=jnp.where(improved, value, best),
            avg_value=jnp.zeros_like(state.avg_value),
            avg_count=jnp.zeros_like(state.avg_count),
            plateau_count=jnp.where(cooling | reduced, 0, plateau),
            cooldown_count=jnp.where(
                cooling, state.cooldown_count - 1, jnp.where(reduced, cooldown, 0)
            ),
        )

    def update(
        updates: PyTree,
        state: PlateauState,
        params: PyTree = None,
        *,
        value: Any,
        **extra_args: Any,
    ) -> tuple[PyTree, PlateauState]:
        count = increment(state.avg_count)
        new = real_scalar("value", value).astype(jnp.float32)
        mean = (state.avg_count * state.avg_value + new) / count
        pending = state._replace(avg_value=mean, avg_count=count)
        complete = count >= accumulation_size
        state = jax.tree.map(
            lambda old, new, kept: jnp.where(complete, new, kept).astype(old.dtype),
            state,
            judged(mean, state),
            pending,
        )
        leaves, structure = jax.tree.flatten(updates)
        return structure.unflatten(each_leaf(lambda u: state.scale * u, structure, leaves)), state

    return GradientTransformation(init, update, PlateauState)
