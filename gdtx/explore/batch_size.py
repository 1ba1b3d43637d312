"""Training to a target at many batch sizes, tuned at each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core.hyperparams import replace
from ..core.transformation import GradientTransformation
from ..core.trees.apply_updates import apply_updates
from ..core.trees.tree import PyTree
from ..wrappers.evaluation import eval_params
from .noise_scale import count_examples
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
    microbatch: int | None = None,
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
        microbatch: how many examples of a batch to work on at once, all by default. Larger batches
            are then the mean of several gradients, which needs a loss that is the mean of its
            examples', and the batch sizes share one program.
        key: where batches come from.

    Returns:
        Steps and best settings for each batch size. It says where the target was not reached, and
        where the best setting is on the edge of its grid.

    Raises:
        ValueError: if the data have no common first axis, or `microbatch` does not divide a batch
            size.
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
    count = count_examples("batch_size_study", data)
    data = jax.tree.map(jnp.asarray, data)
    key = jax.random.key(0) if key is None else key
    values = {name: jnp.asarray(column) for name, column in grid(settings).items()}
    measure = (lambda params: loss_fn(params, data)) if metric is None else metric

    def gradients(chunk: int, params: PyTree, key: jax.Array) -> PyTree:
        """Of all settings, on examples in common."""
        chosen = jax.random.randint(key, (chunk,), 0, count)
        examples = jax.tree.map(lambda x: x[chosen], data)
        return jax.vmap(jax.grad(loss_fn), (0, None))(params, examples)

    def update(setting: Any, run: Any, grads: PyTree) -> Any:
        params, state = run
        updates, state = replace(tx, setting).update(grads, state, params)
        return apply_updates(params, updates), state

    def look(setting: Any, run: Any) -> jax.Array:
        params, state = run
        return measure(eval_params(replace(tx, setting), state, params)) <= target

    def race(chunk: int, parts: Any, steps: Any, limit: Any, keys: jax.Array) -> jax.Array:
        """Steps that each setting took, infinite for those that came after the first."""

        def step(key: jax.Array, t: jax.Array, runs: Any) -> Any:
            def part(i: jax.Array, total: PyTree) -> PyTree:
                grads = gradients(chunk, runs[0], jax.random.fold_in(key, i))
                return jax.tree.map(jnp.add, total, grads)

            key = jax.random.fold_in(key, t)
            total = jax.lax.fori_loop(0, parts, part, jax.tree.map(jnp.zeros_like, runs[0]))
            return jax.vmap(update)(values, runs, jax.tree.map(lambda g: g / parts, total))

        def one_seed(t: jax.Array, key: jax.Array, runs: Any) -> Any:
            runs = jax.lax.fori_loop(t, t + steps, partial(step, key), runs)
            return runs, jax.vmap(look)(values, runs)

        def go_on(carry: Any) -> Any:
            t, runs, first = carry
            runs, there = jax.vmap(partial(one_seed, t))(keys, runs)
            return t + steps, runs, jnp.minimum(first, jnp.where(there, t + steps, jnp.inf))

        def is_open(carry: Any) -> jax.Array:
            t, _, first = carry
            return (t < limit) & jnp.all(jnp.isinf(_median(first)))

        one = jax.vmap(lambda setting: (params, replace(tx, setting).init(params)))(values)
        runs = jax.tree.map(lambda x: jnp.broadcast_to(x, (seeds, *x.shape)), one)
        first = jnp.full((seeds, len(next(iter(values.values())))), jnp.inf)
        return _median(jax.lax.while_loop(is_open, go_on, (0, runs, first))[2])

    params = jax.tree.map(jnp.asarray, params)
    keys = jax.random.split(key, seeds)
    compiled = jax.jit(race, static_argnums=0)
    columns, limits = [], []
    for size in batch_sizes:
        limits.append(max_steps(size) if callable(max_steps) else max_steps)
        steps = every(size) if callable(every) else every
        chunk = size if microbatch is None else min(microbatch, size)
        if size % chunk:
            raise ValueError(
                f"batch_size_study: microbatch must divide the batch sizes, got {chunk} for {size}"
            )
        columns.append(np.asarray(compiled(chunk, size // chunk, steps, limits[-1], keys)))
    return tuned(batch_sizes, np.stack(columns, axis=1), settings, limits)


def _median(first: jax.Array) -> jax.Array:
    """Over the seeds. Infinities have no mean, so of two in the middle it is the larger."""
    return jnp.sort(first, axis=0)[len(first) // 2]
