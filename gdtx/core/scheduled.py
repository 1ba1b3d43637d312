"""Schedules as hyperparameters: the state that counts the steps, and the values at a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .calls.kinds import below_one
from .calls.signature import Signature
from .errors import calling, fail, summarize
from .numbers.numerics import seen_by_rules
from .numbers.values import is_array, within_int32
from .trees.short import in_short
from .trees.tree import PyTree

Schedules = Mapping[str, Callable[[Any], Any]]
"""Functions of the step, by the names of the hyperparameters that they are given for."""


@in_short
class ScheduledState(NamedTuple):
    """State of a transformation some of whose hyperparameters are schedules."""

    step: jax.Array
    inner: PyTree


def values_at(step: jax.Array, schedules: Schedules, signature: Signature) -> dict[str, jax.Array]:
    """The hyperparameters with schedules, as scalars, at this step."""
    values, step = {}, seen_by_rules(step)
    for name, schedule in schedules.items():
        with calling(f"the schedule of {name}"):
            value = within_int32(schedule(step))
        expected = f"the schedule of {name} must return a scalar"
        if not (is_array(value) or isinstance(value, int | float | np.generic)):
            fail(TypeError, f"{expected}, got {summarize(value)}")
        if jnp.iscomplexobj(value):
            fail(TypeError, f"{expected.replace('scalar', 'real')}, got {summarize(value)}")
        if jnp.shape(value) != ():
            fail(ValueError, f"{expected}, got {summarize(value)}")
        values[name] = below_one(jnp.asarray(value), signature.kind(name))
    return values
