"""What a transformation emitted last, if it keeps that."""

from __future__ import annotations

from .errors import fail, summarize
from .memory import CountedRecurState, RecurState, accumulate
from .states import parts
from .transformation import GradientTransformation
from .trees.tree import PyTree


def emitted_last(tx: GradientTransformation, state: PyTree) -> PyTree:
    """What the transformation with this state emitted last: the buffer of its last link.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.chain(gdtx.square(), gdtx.running_sum(1.0))
    >>> emitted_last(tx, tx.init(jnp.zeros(2)))
    Array([1., 1.], dtype=float32)
    """
    while isinstance(state, tuple):
        if tx.factory is accumulate and tx.arguments["nesterov"]:
            fail(TypeError, "a statistic that looks ahead (nesterov=True) keeps not what it emits")
        last = next(iter(parts(tx, state)[::-1]), None)
        if last is None or not (last.state is state or last.state is state[-1]):
            break
        tx, state = last.used, last.state
    if isinstance(state, CountedRecurState):
        state = state.inner
    if not isinstance(state, RecurState) or list(state.buffers) != ["value"]:
        fail(
            TypeError,
            "the last link of the statistic must emit its buffer (ema, running_sum, ...), "
            f"its state is {summarize(state)}",
        )
    return state.buffers["value"]
