"""A formula compiles to the work of a monolithic implementation: Optax's, where the rules agree.

The methods are those of the benchmark. Five of its rows are not the same rule to the letter, and
are compared all the same, because gdtx has to do no more than Optax for its own:

- `amsgrad`: Optax takes the maximum after the bias correction, gdtx before. The same operations.
- `rmsprop centered`: Optax subtracts averages, gdtx keeps the variance. The same count.
- `adagrad`: Optax also replaces the step by 0 where the sum is 0. gdtx has less to do.
- `radam`: gdtx computes the length of the average without cancellation, some 30 operations on one
  number. They count once per step, so the bound holds only if no array repeats them.
- `yogi`: gdtx takes an infinite square for the largest number, where the second one in Optax gives
  NaN. One operation more for every number.

Not compared: `rprop`, because Optax's is another rule, one step stale, with fewer operations; and
`ema_sgd`, because Optax does not have it.
"""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import gdtx

METHODS = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "cases.py"))["METHODS"]
TREES = {
    "few": {"a": (400, 300), "b": (300, 256), "c": (256,)},
    # What is computed again for every array shows only where arrays are many and small.
    "many": {f"layer{i}": {"w": (32, 16), "b": (16,)} for i in range(16)},
}


def abstract(tree):
    return jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
        TREES[tree],
        is_leaf=lambda node: isinstance(node, tuple),
    )


def cost(tx, params):
    state = jax.eval_shape(tx.init, params)
    analysis = jax.jit(tx.update).lower(params, state, params).compile().cost_analysis()
    return analysis["flops"], analysis["bytes accessed"]


@pytest.mark.diagonal
@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("method", METHODS)
def test_compiled_update_does_no_more_than_optax(method, tree):
    params = abstract(tree)
    flops, accessed = cost(METHODS[method].gdtx, params)
    their_flops, their_accessed = cost(METHODS[method].optax, params)
    numbers = sum(leaf.size for leaf in jax.tree.leaves(params))
    more = numbers if method == "yogi" else 0
    assert flops <= 1.001 * their_flops + more
    assert accessed <= 1.001 * their_accessed


@pytest.mark.parametrize("method", METHODS)
def test_state_holds_no_more_arrays_than_optax(method):
    params = abstract("few")

    def arrays(tx):
        state = jax.eval_shape(tx.init, params)
        return sorted(leaf.shape for leaf in jax.tree.leaves(state) if leaf.shape)

    assert arrays(METHODS[method].gdtx) == arrays(METHODS[method].optax)


def test_adadelta_keeps_exactly_two_buffers():
    params = abstract("few")
    state = jax.eval_shape(gdtx.adadelta().init, params)
    shapes = [leaf.shape for leaf in jax.tree.leaves(state)]
    assert shapes == 2 * [leaf.shape for leaf in jax.tree.leaves(params)]
