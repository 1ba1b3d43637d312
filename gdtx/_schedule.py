"""Schedules: functions of the step, remembered as the call that made them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp

from ._call import Call, recorded

P = ParamSpec("P")


@jax.tree_util.register_pytree_with_keys_class
class Schedule(Call):
    """A function of the number of updates done before, 0 on the first.

    Like a transformation it is data: it prints as its constructor call, compares, hashes,
    pickles, and is a pytree whose leaves are the arrays among its arguments.

    >>> import gdtx
    >>> warmup = gdtx.linear_schedule(0.0, 1.0, 10)
    >>> warmup
    linear_schedule(init_value=0.0, end_value=1.0, transition_steps=10, transition_begin=0)
    >>> float(warmup(5))
    0.5
    """

    __slots__ = ()

    def __call__(self, step: Any) -> jax.Array:
        return jnp.asarray(self.body(self.arguments)(jnp.asarray(step)))


def schedule(factory: Callable[P, Callable[[jax.Array], Any]]) -> Callable[P, Schedule]:
    """Make a factory of functions of the step return them as data.

    Args:
        factory: function that returns a function of the step, an integer or float scalar array.

    Returns:
        The factory, with the same signature; its arguments are checked by their annotations.

    >>> import gdtx
    >>> @gdtx.schedule
    ... def inverse_square(init_value: gdtx.NonNegative):
    ...     return lambda step: init_value / (1 + step) ** 2
    >>> inverse_square(4.0), float(inverse_square(4.0)(1))
    (inverse_square(init_value=4.0), 1.0)
    """
    return recorded(Schedule, factory, schedules=False)
