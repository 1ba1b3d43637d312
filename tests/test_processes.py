"""Two processes that share arrays: what is called outside of `jit` is one program, and ends.

Operation by operation it is many programs, which wait for each other where two processes come to
them in different orders, often enough in ten rounds.
"""

import os
import socket
import subprocess
import sys

import pytest

PROGRAM = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

jax.config.update("jax_cpu_collectives_implementation", "gloo")
port, process, rounds = map(int, sys.argv[1:])
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=process)

import gdtx
from gdtx import explore

mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
host = np.arange(64, dtype=np.float32).reshape(8, 8)

def tree(*spec):
    where = NamedSharding(mesh, P(*spec))
    return {i: jax.make_array_from_callback((8, 8), where, lambda at: host[at]) for i in range(4)}

def loss(params, x):
    return sum(jnp.mean((p[None] - x[:, None, None]) ** 2) for p in params.values())

params, elsewhere = tree("data"), tree(None, "data")
tx = gdtx.chain(gdtx.clip_by_global_norm(1.0), gdtx.schedule_free(gdtx.sgd(0.1), 0.1))
state = tx.init(params)
for _ in range(rounds):
    updates, state = tx.update(params, state, params)
    norms = [gdtx.global_norm(params), gdtx.global_norm(updates)]
    facts = gdtx.describe(tx, state, updates, params, grads=params)
    moved = gdtx.apply_updates(params, elsewhere)
    seen = gdtx.eval_params(tx, state, elsewhere)
    rates = explore.effective_learning_rates(updates, elsewhere)
    ratios = explore.update_ratios(updates, params)
    noise = explore.gradient_noise_scale(loss, params, host[0])
    jax.block_until_ready((norms, moved, seen, rates, ratios, noise))
    assert facts["grad_norm"] == norms[0] == np.float32(np.sqrt(4 * np.sum(host**2))), facts
print("done", flush=True)
"""


def run(rounds, seconds):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"
    }  # fmt: skip
    both = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(port), str(i), str(rounds)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        for process in both:
            out, err = process.communicate(timeout=seconds)
            assert out.splitlines()[-1:] == ["done"], err
    finally:
        for process in both:
            process.kill()  # one that waits heeds nothing less


@pytest.mark.slow
def test_two_processes_end():
    run(rounds=2, seconds=240)


@pytest.mark.slow
def test_two_processes_end_every_time():
    run(rounds=10, seconds=400)
