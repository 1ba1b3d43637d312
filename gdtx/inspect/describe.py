"""A transformation in training, as scalars for a logger."""

from __future__ import annotations

import collections
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from ..core.calls.signature import Signature
from ..core.errors import at_work
from ..core.numbers.values import is_array
from ..core.outermost import nested
from ..core.reading import values_at
from ..core.transformation import GradientTransformation
from ..core.trees.dispatch import one_program
from ..core.trees.tree import PyTree
from ..links.clipping import global_norm
from .find import states, steps_counted
from .ratios import leaf_ratios, ratio


def describe(
    tx: GradientTransformation,
    state: PyTree,
    updates: PyTree = None,
    params: PyTree = None,
    *,
    grads: PyTree = None,
) -> dict[str, Any]:
    """Step, hyperparameters and norms, as a flat dict that any logger takes.

    Args:
        tx: any transformation.
        state: its state.
        updates: what it returned, if their norm is asked for.
        params: the parameters, if their norm is asked for, and with `updates` the ratios.
        grads: the gradients, if their norm is asked for.

    Returns:
        Scalars by name: Python numbers, or arrays inside a traced function. They are

        - each hyperparameter that is one number, by its path in :func:`hyperparams`; schedules as
          the value that the update just done has used, or before any, the first will
          (`hyperparams(tx, state)` has those of the next one);
        - `step`, the number of updates done, as :func:`count_steps`, where the state counts them;
        - what states report of themselves: `skipped` and `consecutive_skipped` (:func:`skip_when`),
          `micro_step` (:func:`accumulate_gradients`), `norm_in`, `norm_out` and `clip_rate`
          (:func:`remember`), `plateau_scale` (:func:`reduce_on_plateau`), `step_size`,
          `search_steps`, `search_end` and the errors of a line search (:func:`zoom_linesearch`),
          `pairs` and `pairs_skipped` (:func:`scale_by_lbfgs`). Where several report the
          same, the path of each comes first: `"0.clip_rate"`;
        - `grad_norm`, `update_norm`, `param_norm`: see :func:`global_norm`. Without `grads`, the
          first is what came into the first :func:`remember`, if there is one;
        - `update_ratio`, `update_norm` over `param_norm`, and the same of each leaf as
          `update_ratio/path/of/leaf`. It is 0 where the update is 0, else infinite where the
          parameter is 0.

        A state class of your own reports what its method `describe(self)` returns, a dict of
        scalars.

    Raises:
        TypeError: if `tx` is not a transformation.
        ValueError: if updates and parameters have other structures, or the state is that of another
            transformation.

    >>> import gdtx, jax.numpy as jnp
    >>> params = {"w": jnp.array([3.0, 4.0])}
    >>> tx = gdtx.adam(gdtx.linear_schedule(0.5, 0.0, 10), b2=0.9)
    >>> updates, state = tx.update(params, tx.init(params), params)
    >>> facts = gdtx.describe(tx, state, updates, params)
    >>> facts["step"], round(facts["learning_rate"], 3), round(facts["update_ratio/w"], 3)
    (1, 0.5, 0.141)
    """
    tx = Signature(describe, schedules=False).bind((tx, state), {})["tx"]
    facts = _facts(tx, state, updates, params, grads)
    if any(isinstance(value, Tracer) for value in facts.values()):
        return facts
    return {name: np.asarray(value).item() for name, value in jax.device_get(facts).items()}


@one_program
def _facts(
    tx: GradientTransformation, state: PyTree, updates: PyTree, params: PyTree, grads: PyTree
) -> dict[str, Any]:
    with nested(), at_work("describe"):
        values = values_at(tx, state, ago=1)
    facts = {path: value for path, value in values.items() if _is_number(value)}
    if (steps := steps_counted(state)) is not None:
        facts["step"] = steps
    facts |= _reports(state)
    for name, tree in (("grad", grads), ("update", updates), ("param", params)):
        if tree is not None:
            facts[f"{name}_norm"] = global_norm(tree)
    if updates is not None and params is not None:
        facts["update_ratio"] = ratio(facts["update_norm"], facts["param_norm"])
        with at_work("describe"):
            ratios = leaf_ratios(updates, params)
        facts |= {f"update_ratio/{path}": each for path, each in ratios.items() if path}
    return facts


def _reports(state: PyTree) -> dict[str, Any]:
    """What states report, by name, or by path and name where the name is not enough."""
    reports = [
        (path, name, value)
        for path, part in states(state)
        if callable(getattr(type(part), "describe", None))
        for name, value in part.describe().items()
    ]
    names = collections.Counter(name for _, name, _ in reports)
    facts = {
        name if names[name] == 1 or not path else f"{path}.{name}": value
        for path, name, value in reports
    }
    first = [value for _, name, value in reports if name == "norm_in"][:1]
    return {**facts, **dict(zip(["grad_norm"], first, strict=False))}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or (is_array(value) and value.shape == ())
