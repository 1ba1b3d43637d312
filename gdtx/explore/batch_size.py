"""Training to a target at many batch sizes, tuned at each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._hyperparams import replace
from .._transformation import GradientTransformation
from .._tree import PyTree, apply_updates
from ..wrappers.evaluation import eval_params
from .study import BatchSizeStudy, grid, tuned


def batch_size_study(
    loss_fn: Callable[[PyTree, Any], jax.Array],
    params: PyTree,
    data: Any,
    tx: GradientTransformation,
    settings: Mapping[str, Sequence[float]],
    batch_sizes: Sequence[int],
    target: float,
    *,
    metric: Callable[[PyTree], jax.Array] | None = None,
    max_steps: int | Callable[[int], int] = 1000,
    every: int | Callable[[int], int] = 1,
    seeds: int = 1,
    key: jax.Array | None = None,
) -> BatchSizeStudy:
    """How many steps training takes to a target, at the best setting for each batch size.

    All settings train side by side on the same batches, in one program for each batch size, until
    the first of them is at the target: so the time goes into steps that count. The examples of a
    batch are drawn independently, with replacement.

    Args:
        loss_fn: function of parameters and a batch, the gradient of which is used.
        params: parameters to start from.
        data: tree of arrays, examples along the first axis.
        tx: the transformation.
        settings: from paths of its hyperparameters, as in :func:`gdtx.hyperparams`, to values to
            choose from; all combinations are tried.
        batch_sizes: how many examples in a step.
        target: reached where the metric is at most this.
        metric: function of the parameters; the loss on all data by default. It is given those of
            :func:`gdtx.eval_params`.
        max_steps: where to give up, a number or a function of the batch size.
        every: how many steps between looks at the metric, a number or a function of the batch size:
            steps are counted in these.
        seeds: how many trainings with batches of their own each setting has. It took as many steps
            as the median of them (of two in the middle the larger).
        key: where batches come from.

    Returns:
        Steps and best settings for each batch size. It says where the target was not reached, and
        where the best setting is on the edge of its grid.

    Raises:
        ValueError: if the data have no common first axis.
        TypeError: for a path that `tx` does not have; the message lists those that it has.

    References:
        Shallue et al. 2019, Measuring the Effects of Data Parallelism on Neural Network Training,
        arXiv:1811.03600.

    >>> import gdtx, jax, jax.numpy as jnp
    >>> from gdtx import explore
    >>> x = 2.0 + jax.random.normal(jax.random.key(0), (100,))
    >>> study = explore.batch_size_study(
    ...     lambda w, batch: jnp.mean((w - batch) ** 2), jnp.array(20.0), x, gdtx.sgd(0.1),
    ...     {"learning_rate": [0.01, 0.1, 0.3, 0.5, 1.0]}, [50], target=2.0)
    >>> study
    <BatchSizeStudy
      50: 1 steps, learning_rate=0.5
    >
    """
    sizes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(data)}
    if len(sizes) != 1 or sizes & {(), (0,)}:
        raise ValueError(
            "batch_size_study: data must have the examples along the first axis of every array, "
            f"got first axes {sorted(sizes)}"
        )
    ((count,),) = sizes
    data = jax.tree.map(jnp.asarray, data)
    key = jax.random.key(0) if key is None else key
    values = {name: jnp.asarray(column) for name, column in grid(settings).items()}
    measure = (lambda params: loss_fn(params, data)) if metric is None else metric

    def train(batch: Any, setting: Any, run: Any) -> Any:
        params, state = run
        grads = jax.grad(loss_fn)(params, batch)
        updates, state = replace(tx, setting).update(grads, state, params)
        return apply_updates(params, updates), state

    def look(setting: Any, run: Any) -> jax.Array:
        params, state = run
        return measure(eval_params(replace(tx, setting), state, params)) <= target

    def round_of(size: int, steps: int, key: jax.Array, runs: Any) -> Any:
        """Some steps of all settings on batches in common, and which of them are there."""

        def step(runs: Any, key: jax.Array) -> Any:
            chosen = jax.random.randint(key, (size,), 0, count)
            batch = jax.tree.map(lambda x: x[chosen], data)
            return jax.vmap(partial(train, batch))(values, runs), None

        runs, _ = jax.lax.scan(step, runs, jax.random.split(key, steps))
        return runs, jax.vmap(look)(values, runs)

    def first_steps(size: int, steps: int, limit: int, keys: jax.Array) -> jax.Array:
        def is_open(carry: Any) -> jax.Array:
            t, _, first = carry
            return (t < limit) & jnp.all(jnp.isinf(_median(first)))

        def go_on(carry: Any) -> Any:
            t, runs, first = carry
            at = jax.vmap(lambda key: jax.random.fold_in(key, t))(keys)
            runs, there = jax.vmap(partial(round_of, size, steps))(at, runs)
            t = t + steps
            return t, runs, jnp.minimum(first, jnp.where(there, t, jnp.inf))

        def begin(setting: Any) -> Any:
            return params, replace(tx, setting).init(params)

        one = jax.vmap(begin)(values)
        runs = jax.tree.map(lambda x: jnp.broadcast_to(x, (seeds, *x.shape)), one)
        count = len(next(iter(values.values())))
        start = (0, runs, jnp.full((seeds, count), jnp.inf))
        return _median(jax.lax.while_loop(is_open, go_on, start)[2])

    params = jax.tree.map(jnp.asarray, params)
    keys = jax.random.split(key, seeds)
    columns, limits = [], []
    for size in batch_sizes:
        limits.append(max_steps(size) if callable(max_steps) else max_steps)
        steps = every(size) if callable(every) else every
        compiled = jax.jit(partial(first_steps, size, steps, limits[-1]))
        columns.append(np.asarray(compiled(keys)))
    return tuned(batch_sizes, np.stack(columns, axis=1), settings, limits)


def _median(first: jax.Array) -> jax.Array:
    """Over the seeds. Infinities have no mean, so of two in the middle it is the larger."""
    return jnp.sort(first, axis=0)[len(first) // 2]
