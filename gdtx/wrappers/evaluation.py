"""Parameters to evaluate with, which are not always those that are trained."""

from __future__ import annotations

from typing import Any

import jax
from jax.tree_util import keystr, tree_flatten_with_path

from ..core.calls.signature import Signature
from ..core.errors import at_work, fail
from ..core.outermost import nested
from ..core.transformation import GradientTransformation
from ..core.trees.dispatch import one_program
from ..core.trees.tree import PyTree, check_arrays


def eval_params(tx: GradientTransformation, state: PyTree, params: PyTree) -> PyTree:
    """The parameters to evaluate with: averages, slow weights, or those that are trained.

    Some transformations train one set of parameters for the sake of another, which their state
    keeps: :func:`average`, :func:`lookahead`, :func:`schedule_free`, :func:`displaced`. This finds
    it anywhere in the state: in chains, groups and wrappers, gdtx's and Optax's, or a flax
    `TrainState`'s `opt_state`. Of one inside of another the outer one counts. flax's nnx keeps
    states in containers of its own:
    `eval_params(tx, nnx.as_pure(optimizer.opt_state), nnx.as_pure(params))`.

    A state class of your own takes part if it has a method `eval_params(self, params)` that returns
    a tree like the parameters. In a group or under a mask its transformation sees a part of them,
    and what the method returns is to be that part: the others None, or missing. The method is given
    all.

    Args:
        tx: the transformation that made the state.
        state: its state.
        params: the parameters that are trained.

    Returns:
        A tree like the parameters, in their dtypes: the parameters themselves where no state has
        others.

    Raises:
        ValueError: if `tx`, `state` and `params` do not fit each other, or are given in another
            order.

    >>> import gdtx, jax.numpy as jnp
    >>> tx, params = gdtx.average(gdtx.sgd(1.0)), jnp.array([4.0])
    >>> state = tx.init(params)
    >>> for _ in range(2):
    ...     updates, state = tx.update(jnp.array([1.0]), state, params)
    ...     params = gdtx.apply_updates(params, updates)
    >>> params, gdtx.eval_params(tx, state, params)
    (Array([2.], dtype=float32), Array([2.5], dtype=float32))
    """
    tx = Signature(eval_params, schedules=False).bind((tx, state, params), {})["tx"]
    with nested(), at_work("eval_params"):
        if not _fits(tx, state, params):
            swapped = _fits(tx, params, state)
            hint = ": they are swapped" if swapped else ""
            fail(
                ValueError,
                f"the transformation makes no such state of these parameters{hint}; "
                "call eval_params(tx, state, params)",
            )
        check_arrays(params, "params")
        return evaluated(state, params)


def evaluated(state: PyTree, params: PyTree) -> PyTree:
    """The parameters, with those in their places that a state keeps to evaluate with."""
    parts = jax.tree.leaves(state, is_leaf=_has_eval_params)
    parts = list(filter(_has_eval_params, parts))
    return _found(parts, params) if parts else params


@one_program
def _found(parts: list[Any], params: PyTree) -> PyTree:
    found: dict[str, jax.Array] = {}
    for part in parts:
        found = _by_path(part.eval_params(params)) | found
    return _merged(params, found)


def alongside(tree: PyTree, params: PyTree) -> list[jax.Array]:
    """For each leaf of `tree`, which may be that of some of the parameters, its parameter."""
    leaves = _by_path(params)
    return [leaves[path] for path in _by_path(tree)]


def _fits(tx: GradientTransformation, state: PyTree, params: PyTree) -> bool:
    """Whether this could be a state for these parameters.

    Not even looked at, a wrong one would give back the parameters, as one with nothing to say does.
    """
    try:
        expected = jax.eval_shape(tx.init, params)
    except Exception:  # every transformation refuses in its own way what are no parameters
        return False
    return jax.tree.structure(expected) == jax.tree.structure(state)


def _has_eval_params(value: Any) -> bool:
    return callable(getattr(type(value), "eval_params", None))


def _by_path(tree: PyTree) -> dict[str, jax.Array]:
    return {keystr(path): leaf for path, leaf in tree_flatten_with_path(tree)[0]}


def _merged(params: PyTree, found: dict[str, jax.Array]) -> PyTree:
    """The parameters, with those that were found in their places."""
    trained = _by_path(params)
    for path, new in found.items():
        if path not in trained:
            fail(ValueError, f"a state's eval_params has a leaf {path} that is not in params")
        if new.shape != trained[path].shape:
            shapes = f"shape {new.shape}, its parameter has {trained[path].shape}"
            fail(ValueError, f"a state's eval_params{path} has {shapes}")
    leaves = [found[path].astype(p.dtype) if path in found else p for path, p in trained.items()]
    return jax.tree.structure(params).unflatten(leaves)
