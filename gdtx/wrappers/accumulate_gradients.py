"""Several small batches for one update."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..core.calls.functions import is_function
from ..core.calls.kinds import Kind
from ..core.calls.types import NumPyValue, ScheduleLike, TransformationLike
from ..core.errors import calling, fail, summarize
from ..core.factory import transformation
from ..core.memory import RecurState
from ..core.numbers.numerics import increment, seen_by_rules
from ..core.numbers.values import at_hand, is_array, within_int32
from ..core.transformation import GradientTransformation
from ..core.trees.layout import holding
from ..core.trees.short import in_short
from ..core.trees.tree import PyTree, scalar_like
from ..formula import Expression, Reader, Symbol, apply, expression, formula_of, t
from ..links.moments import running_sum
from ._conditional import no_change, update_if


def _is_every(value: Any) -> bool:
    if is_array(value):
        return jnp.issubdtype(value.dtype, jnp.integer) and bool(np.all(at_hand(value) >= 1))
    return is_function(value) or (
        isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**31
    )


Every = Annotated[
    int | jax.Array | NumPyValue | ScheduleLike,
    Kind(
        "a positive integer, an integer array or a function of the updates done",
        _is_every,
        integer=True,
        int32=True,
        takes=1,
    ),
]


@in_short
class AccumulateState(NamedTuple):
    """State of an accumulation: updates done, gradients since the last one, and their sum."""

    step: jax.Array
    micro_step: jax.Array
    gradients: PyTree
    inner: PyTree

    def describe(self) -> dict[str, jax.Array]:
        return {"micro_step": self.micro_step}


@transformation
def accumulate_gradients(inner: TransformationLike, every: Every) -> GradientTransformation:
    r"""Update with the mean of several gradients: $\bar g_t = \frac1k \sum_{i=1}^k g_{i,t}$.

    `inner` runs once in $k$ calls, in a conditional of the program. The other calls cost an
    addition and give updates of zero (-0.0, which leaves every bit of the parameters). For losses
    that are means over batches of one size, it is the update of the batch $k$ times as large.

    Extra arguments reach `inner` as they are at the call that completes the mean: of `value`, for
    example, the last one only. Of :func:`kfac`, whose curvatures add up, that should be their sum
    over the batches.

    Args:
        inner: any transformation. It sees the mean in the dtype of the sum, and its schedules
            count its own updates.
        every: $k$. A function is called with the number of updates of `inner` done, so that it
            changes between two means and never within one. At the constant 1 this is `inner`
            itself.

    Returns:
        A transformation whose state holds two counts, the sum of the gradients (one buffer per
        array, at least float32), and the state of `inner`. The sum may be infinite where its mean
        would not be.

    Raises:
        ValueError: if `every` is not positive, or an array of it no scalar.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.accumulate_gradients(gdtx.sgd(0.5), every=2)
    >>> state = tx.init(jnp.zeros(1))
    >>> for gradient in (1.0, 3.0):
    ...     updates, state = tx.update(jnp.array([gradient]), state)
    ...     print(updates)
    [-0.]
    [-1.]
    """
    if isinstance(every, int) and every == 1:
        return inner
    sums = running_sum()

    def init(params: PyTree) -> AccumulateState:
        step, micro_step = (scalar_like(params, 0, jnp.int32) for _ in range(2))
        return AccumulateState(step, micro_step, sums.init(params), inner.init(params))

    def update(
        updates: PyTree, state: AccumulateState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, AccumulateState]:
        total, kept = sums.update(updates, state.gradients, params)
        count = increment(state.micro_step)
        emits = count >= _at(every, state.step)

        def emit() -> tuple[PyTree, tuple[PyTree, PyTree]]:
            mean = jax.tree.map(lambda s: s / count, total)
            emitted, inner_state = inner.update(mean, state.inner, params, **extra_args)
            return emitted, (jax.tree.map(jnp.zeros_like, kept), inner_state)

        updates, (kept, inner_state) = update_if(emits, emit, no_change(total), (kept, state.inner))
        return updates, AccumulateState(
            step=jnp.where(emits, increment(state.step), state.step),
            micro_step=jnp.where(emits, 0, count),
            gradients=kept,
            inner=inner_state,
        )

    return GradientTransformation(
        init, update, holding(AccumulateState, gradients=RecurState, inner=inner)
    )


@formula_of(accumulate_gradients)
def _(u: Expression, reader: Reader, inner: GradientTransformation, every: Any) -> Expression:
    if isinstance(every, int) and every == 1:
        return reader.read(inner, u)
    gradient = reader.atom(u)
    is_number = isinstance(every, int) or (is_array(every) and not isinstance(every, Tracer))
    if reader.hyperparameters.values and is_number:
        count = expression(every)
    else:
        time = t if callable(every) else None
        count = reader.claim((Symbol("k", time=time), Symbol("K", time=time)), str(every))
    below = ",".join(filter(None, (gradient.below, "i")))
    each = replace(gradient, below=below)
    mean = reader.define((gradient.accented("bar"),), apply("mean", each, count))
    return reader.read(inner, mean)


def _at(every: Any, step: jax.Array) -> Any:
    if is_array(every) or isinstance(every, int):
        value = every
    else:
        with calling("every"):
            value = within_int32(every(seen_by_rules(step)))
    if jnp.shape(value) != ():
        fail(ValueError, f"every must be a scalar, got {summarize(value)}")
    return value
