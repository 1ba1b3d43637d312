"""What a process with one device does with matrices: there decompositions are one by one.

The other tests have eight devices, where stacks stay stacks. `test_matrix_one_device.py` runs this.
"""

import functools
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import oracles_matrix
from matrix_samples import gradients_and_params, near, trajectory
from test_shampoo import SETTINGS as SHAMPOO
from test_shampoo import shampoo
from test_soap import SETTINGS as SOAP
from test_soap import soap

import gdtx


def follows_the_papers():
    gradients, params = gradients_and_params(few=True)
    for make, oracle, settings in (
        (shampoo, oracles_matrix.shampoo, SHAMPOO["stale"]),
        (soap, oracles_matrix.soap, SOAP["usual"]),
    ):
        got, state = trajectory(make(**settings), gradients, params)
        assert gdtx.find(state, "failures") == 0
        for leaf, g in gradients.items():
            want = oracle(g, params[leaf], 0.1, **settings)
            near(got[leaf], want, atol=1e-8, err_msg=f"{make.__name__} {leaf}")


def blocks_are_parameters():
    g = np.random.default_rng(5).normal(size=(40, 5, 4))
    for make, oracle in ((shampoo, oracles_matrix.shampoo), (soap, oracles_matrix.soap)):
        settings = {"eps": 1e-3, "every": 7, "start": 8}
        got, _ = trajectory(make(**settings, blocks=gdtx.Blocks(2)), {"w": g}, {"w": g[0]})
        for i in (0, 2, 4):
            for j in (0, 2):
                here = (slice(None), slice(i, i + 2), slice(j, j + 2))
                near(got["w"][here], oracle(g[here], g[0][here[1:]], 0.1, **settings), atol=1e-8)


def failures_are_counted_and_the_last_good_stay():
    """In one of two arrays, of one size, and in one block of an array that is cut."""
    params = {"a": jnp.ones((3, 3)), "b": jnp.ones((3, 3)), "cut": jnp.ones((6, 3))}
    rng = np.random.default_rng(2)
    gradients = [{k: jnp.asarray(rng.normal(size=p.shape)) for k, p in params.items()}
                 for _ in range(5)]  # fmt: skip
    blocks = gdtx.Blocks(3)
    for tx, key in (
        (gdtx.scale_by_shampoo(eps=1e-6, roots=gdtx.Roots(3), blocks=blocks), "roots"),
        (gdtx.scale_by_soap(eps=1e-6, bases=gdtx.Bases(3), blocks=blocks), "basis"),
    ):
        update = jax.jit(tx.update)
        _, state = update(gradients[0], tx.init(params), params)
        good = gdtx.find(state, key)
        statistic = jax.tree.map(lambda x: x.at[0, 0].set(jnp.nan) if x.ndim else x,
                                 state.statistic)  # fmt: skip
        state = state._replace(statistic=statistic)
        for g in gradients[1:]:
            updates, state = update(g, state, params)
            assert all(jnp.isfinite(u).all() for u in jax.tree.leaves(updates))
        assert state.failures == 2 * 2, state.failures  # two axes of two blocks, at step 4
        for name, stacks in gdtx.find(state, key).items():
            for new, old in zip(stacks, good[name], strict=True):
                np.testing.assert_array_equal(new[0, 0], old[0, 0])
                assert not np.allclose(new[-1, -1], old[-1, -1])


def maps_and_derivatives():
    params = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)))}

    def loss(tx):
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(jax.tree.map(lambda p: p - 1, params), state, params)
            return (gdtx.apply_updates(params, updates), state), None

        (last, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=4)
        return jnp.sum(last["w"] ** 2)

    h = 1e-6
    rates = jnp.array([0.1 - h, 0.1, 0.1 + h])
    of_shampoo = functools.partial(gdtx.shampoo, roots=gdtx.Roots(2))
    for make in (of_shampoo, functools.partial(gdtx.soap, bases=gdtx.Bases(2))):
        mapped = jax.jit(jax.vmap(lambda rate, make=make: loss(make(rate, eps=rate))))(rates)
        tx = make(rates[1], eps=rates[1])
        if make is of_shampoo:
            value, slope = jax.jit(jax.value_and_grad(loss))(tx)
            slope = slope.arguments["learning_rate"] + slope.arguments["eps"]
            np.testing.assert_allclose(slope, (mapped[2] - mapped[0]) / (2 * h), rtol=1e-5)
        else:
            value = jax.jit(loss)(tx)
        np.testing.assert_allclose(mapped[1], value, rtol=1e-9, err_msg=str(make))


def kernels(tx, layers):
    """The different ones in a program of equal layers: what compiling it costs is by these."""
    layer = {"w": jax.ShapeDtypeStruct((16, 8), jnp.float32),
             "b": jax.ShapeDtypeStruct((8,), jnp.float32)}  # fmt: skip
    params = {f"layer{i:02}": layer for i in range(layers)}
    state = jax.eval_shape(tx.init, params)
    text = jax.jit(tx.update).lower(params, state, params).compile().as_text()
    text = re.sub(r", metadata=\{[^}]*\}|, backend_config=\{.*\}", "", text)
    bodies = re.findall(r"^%\S*(?:fused|wrapped)\S* \(.*?\) -> (.*?) \{\n(.*?)^\}", text,
                        re.MULTILINE | re.DOTALL)  # fmt: skip
    assert bodies
    # Names are numbered, and stacks are as long as there are layers.
    names = re.compile(r"%[\w.\-]+")
    return {re.sub(rf"\b{layers}\b", "n", names.sub("%", result + body)) for result, body in bodies}


def programs_have_as_many_kernels_for_any_number_of_layers():
    for make in (gdtx.shampoo, gdtx.soap):
        few, many = (kernels(make(0.1), layers) for layers in (11, 19))
        assert len(many) <= len(few), (make.__name__, len(few), len(many))


QUICK = follows_the_papers, failures_are_counted_and_the_last_good_stay
SLOW = blocks_are_parameters, maps_and_derivatives


if __name__ == "__main__":
    assert jax.device_count() == 1
    is_slow = sys.argv[1] == "slow"
    if is_slow:
        programs_have_as_many_kernels_for_any_number_of_layers()
    jax.config.update("jax_enable_x64", True)
    for check in SLOW if is_slow else QUICK:
        check()
    print("done")
