"""Decompositions of stacks are of one matrix after the other, on a CPU, and wait for nobody."""

import math
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_sharding import PLACES

import gdtx
from gdtx import kfac

# Sides of 8 and 4, cut into blocks of 2: of some arrays several blocks are on each device.
METHODS = {
    "shampoo": lambda: gdtx.scale_by_shampoo(blocks=gdtx.Blocks(2)),
    "soap": lambda: gdtx.scale_by_soap(blocks=gdtx.Blocks(2)),
    "soap eigh": lambda: gdtx.scale_by_soap(blocks=gdtx.Blocks(2), bases=gdtx.Bases(method="eigh")),
    "full matrix": lambda: gdtx.scale_by_full_matrix(block_size=4),
    "window": lambda: gdtx.scale_by_window(3),
    "exact": lambda: gdtx.orthogonalize(gdtx.Polar("exact"), axes="io"),
}
PLACED = ["uncommitted", "automatic", "explicit"]


def decomposed(update, *args, **extra_args):
    """How many matrices each call of LAPACK is given, on one device."""
    text = jax.jit(update).lower(*args, **extra_args).compile().as_text()
    calls = re.findall(r"= \(?\w+\[([\d,]*)\].* custom-call\(.*custom_call_target=\"lapack", text)
    return [math.prod(map(int, dims.split(",")[:-2])) for dims in calls]


@pytest.mark.first(3)
@pytest.mark.diagonal
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("place", PLACED)
def test_no_call_is_given_a_stack(name, place):
    """It would hand its matrices to the threads that it and its like run on, and wait for them."""
    with PLACES[place]() as put:
        params = put(
            {k: np.ones(shape, np.float32) for k, shape in {"w": (8, 4), "v": (4, 8)}.items()}
        )
        tx = METHODS[name]()
        assert set(decomposed(tx.update, params, tx.init(params), params)) == {1}


def test_nor_is_one_of_kfac():
    params = {name: {"w": jnp.eye(3)} for name in "ab"}
    x = jnp.ones((2, 3))
    f = kfac.value_grad_and_curvature(
        lambda params, x: jnp.tanh(x @ params["a"]["w"]) @ params["b"]["w"],
        kfac.squared_error,
        gradient=True,
    )
    _, grads, curvature = jax.eval_shape(f, params, (x, x), jax.random.key(0))
    for tx in (gdtx.scale_by_kfac(), gdtx.scale_by_ekfac()):
        state = jax.eval_shape(tx.init, params)
        assert set(decomposed(tx.update, grads, state, params, curvature=curvature)) == {1}


ONE_DEVICE = """
import jax, jax.numpy as jnp, numpy as np
from gdtx.linalg.decompositions import eigh

assert jax.device_count() == 1
stacks = [jax.random.normal(jax.random.key(i), (6, 150 + i, 150 + i)) for i in range(8)]
stacks = [x + x.swapaxes(-1, -2) for x in stacks]
both = jax.jit(lambda stacks: [(eigh(x), jax.vmap(eigh)(x)) for x in stacks])
for _ in range(2):
    results = jax.block_until_ready(both(stacks))
for x, (one, other) in zip(stacks, results):
    values = np.linalg.eigvalsh(np.asarray(x, np.float64))
    for found, vectors in (one, other):
        np.testing.assert_allclose(found, values, atol=1e-3)
        back = (vectors * found[:, None, :]) @ vectors.swapaxes(-1, -2)
        np.testing.assert_allclose(back, x, atol=1e-3)
print("done")
"""


# On each device several matrices of every method, large enough to be worth a thread of their own.
MANY_DEVICES = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import gdtx

mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))
where = NamedSharding(mesh, P("data", "model"))
g = {k: jax.device_put(np.random.default_rng(k).normal(size=(512, 256)).astype("f4"), where)
     for k in range(2)}
small = {k: x[:16, :8] for k, x in g.items()}
for tx, g in (
    (gdtx.scale_by_soap(bases=gdtx.Bases(1), blocks=gdtx.Blocks(128)), g),
    (gdtx.scale_by_shampoo(roots=gdtx.Roots(1), blocks=gdtx.Blocks(128)), g),
    (gdtx.scale_by_full_matrix(block_size=64), small),
):
    state = tx.init(g)
    for _ in range(int(sys.argv[1])):
        updates, state = tx.update(g, state, g)
        assert all(jnp.isfinite(u).all() for u in jax.block_until_ready(updates).values())
print("done")
"""


def run(program, *args, devices, **environment):
    flags = f"--xla_force_host_platform_device_count={devices}"
    finished = subprocess.run(
        [sys.executable, "-c", program, *args],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"} | environment,
        timeout=400, capture_output=True, text=True,
    )  # fmt: skip
    assert finished.stdout.strip() == "done", finished.stderr


# What both would wait for is a call that is given a stack, which no program above has.
@pytest.mark.slow
def test_several_stacks_at_once_do_not_wait_for_each_other():
    """As calls of LAPACK on whole stacks do, for ever, on two cores."""
    run(ONE_DEVICE, devices=1)


# Eight programs at once, each of which would take all cores for one matrix, take minutes.
ALONE = {"OPENBLAS_NUM_THREADS": "1"}


@pytest.mark.slow
def test_devices_do_not_wait_for_each_other():
    run(MANY_DEVICES, "2", devices=8, **ALONE)


@pytest.mark.slow
def test_devices_do_not_wait_for_each_other_at_any_time():
    run(MANY_DEVICES, "10", devices=8, **ALONE)
