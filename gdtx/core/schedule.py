"""Schedules: functions of the step, remembered as the call that made them."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Annotated, Any, ParamSpec

import jax
import jax.numpy as jnp

from .calls.call import Call
from .calls.functions import is_function
from .calls.kinds import Kind, Scalar, StepFunction, TwoArraysFunction
from .calls.recorded import recorded
from .calls.types import NumberOrSchedule
from .combine import divide, multiply, plus, subtract
from .errors import at_work, calling
from .numbers.numerics import promoting
from .numbers.values import Symbolic, at_hand, is_array, within_int32
from .outermost import nested

P = ParamSpec("P")
Rule = Callable[[jax.Array], Any]


def _is_term(value: Any) -> bool:
    if is_array(value):
        is_real = jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(
            value.dtype, jnp.integer
        )
        return is_real and all(map(math.isfinite, at_hand(value).flat))
    if isinstance(value, bool) or not isinstance(value, Real):
        return isinstance(value, Symbolic) or is_function(value)
    return math.isfinite(within_int32(value))


Term = Annotated[
    NumberOrSchedule,
    Kind(
        "a finite number, a real finite array or a function of the step",
        _is_term,
        convert=within_int32,
        takes=1,
    ),
]


@jax.tree_util.register_pytree_with_keys_class
class Schedule(Call):
    """A function of the number of updates done before, 0 on the first.

    Like a transformation it is data: it prints as its constructor call, compares, hashes,
    pickles, and is a pytree whose leaves are the arrays among its arguments.

    Sums, differences, products and quotients with other schedules, functions of the step, numbers
    and arrays are schedules too, made by :func:`merge_schedules`.

    >>> import gdtx
    >>> warmup = gdtx.linear_schedule(0.0, 1.0, 10)
    >>> warmup
    linear_schedule(init_value=0.0, end_value=1.0, transition_steps=10, transition_begin=0)
    >>> float(warmup(5)), float((1 - 0.5 * warmup)(5)), float(warmup.shift(5)(10))
    (0.5, 0.75, 0.5)
    """

    __slots__ = ("__weakref__",)  # by which `jax.jit` holds a function

    # NumPy's arrays would otherwise take `array * schedule` over, number by number.
    __array_ufunc__ = None

    def __call__(self, step: Any) -> jax.Array:
        with nested(), at_work(self.signature.name), promoting():
            return jnp.asarray(self.body(self.arguments)(jnp.asarray(within_int32(step))))

    def __add__(self, other: Term) -> Schedule:
        return merge_schedules(plus, self, other)

    def __radd__(self, other: Term) -> Schedule:
        return merge_schedules(plus, other, self)

    def __sub__(self, other: Term) -> Schedule:
        return merge_schedules(subtract, self, other)

    def __rsub__(self, other: Term) -> Schedule:
        return merge_schedules(subtract, other, self)

    def __mul__(self, other: Term) -> Schedule:
        return merge_schedules(multiply, self, other)

    def __rmul__(self, other: Term) -> Schedule:
        return merge_schedules(multiply, other, self)

    def __truediv__(self, other: Term) -> Schedule:
        return merge_schedules(divide, self, other)

    def __rtruediv__(self, other: Term) -> Schedule:
        return merge_schedules(divide, other, self)

    def __neg__(self) -> Schedule:
        return merge_schedules(multiply, -1.0, self)

    def shift(self, steps: int) -> Schedule:
        """This schedule, `steps` later; see :func:`shift_schedule`."""
        return shift_schedule(self, steps)

    def clip(self, low: Scalar | None = None, high: Scalar | None = None) -> Schedule:
        """This schedule, kept between two bounds; see :func:`clip_schedule`."""
        return clip_schedule(self, low, high)


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


@schedule
def merge_schedules(merge: TwoArraysFunction, one: Term, other: Term) -> Rule:
    r"""Two schedules, step by step: $s(t) = f(s_1(t), s_2(t))$.

    The operators of schedules with :func:`plus`, :func:`subtract`, :func:`multiply` and
    :func:`divide`.

    Args:
        merge: $f$, function of two scalars.
        one, other: $s_1$ and $s_2$, each a function of the step, or a number or an array, which
            are the same at every step.

    >>> import gdtx, jax.numpy as jnp
    >>> decay = gdtx.inverse_time_decay(1.0, 1, 1.0)
    >>> decay * 0.5 == gdtx.merge_schedules(gdtx.multiply, decay, 0.5)
    True
    >>> slower = gdtx.merge_schedules(jnp.maximum, decay, lambda t: 0.1 * t)
    >>> float(slower(0)), float(slower(10))
    (1.0, 1.0)
    """

    def at(step: jax.Array) -> Any:
        values = []
        for name, term in (("one", one), ("other", other)):
            with calling(name):
                values.append(term(step) if callable(term) else term)
        with calling("merge"):
            return merge(*values)

    return at


@schedule
def shift_schedule(schedule: StepFunction, steps: int) -> Rule:
    r"""A schedule some steps later: $s(t) = s_1(\max(t - n, 0))$.

    Args:
        schedule: $s_1$, a function of the step.
        steps: $n$. The value at step 0 is held until then; a negative one skips as many steps.

    >>> import gdtx
    >>> line = gdtx.linear_schedule(0.0, 1.0, 4)
    >>> later, earlier = line.shift(2), line.shift(-2)
    >>> [float(later(t)) for t in (0, 2, 4)], [float(earlier(t)) for t in (0, 2, 4)]
    ([0.0, 0.0, 0.5], [0.5, 1.0, 1.0])
    """

    def at(step: jax.Array) -> Any:
        if steps >= 0:
            return schedule(jnp.maximum(step - steps, 0))
        is_count = jnp.issubdtype(step.dtype, jnp.integer)
        # Steps beyond the last count that there is are the last: a wrapped one would be negative.
        last = jnp.iinfo(step.dtype).max if is_count else jnp.inf
        return schedule(jnp.minimum(step, last + steps) - steps)

    return at


@schedule
def clip_schedule(
    schedule: StepFunction, low: Scalar | None = None, high: Scalar | None = None
) -> Rule:
    r"""A schedule kept between two bounds: $s(t) = \min(\max(s_1(t), a), b)$.

    Args:
        schedule: $s_1$, a function of the step.
        low: $a$, the smallest value; None for no such bound.
        high: $b$, the largest value; None for no such bound.

    Raises:
        ValueError: if `low` is larger than `high`.

    >>> import gdtx
    >>> decay = gdtx.exponential_decay(1.0, 10, 0.5).clip(low=0.1)
    >>> float(decay(10)), round(float(decay(100)), 6)
    (0.5, 0.1)
    """
    if not (low is None or high is None or is_array(low) or is_array(high)) and low > high:
        raise ValueError(f"clip_schedule: low must not be larger than high, got {low} and {high}")
    return lambda step: jnp.clip(schedule(step), low, high)
