"""Decompositions of stacks, in a process with one device, as users have it."""

import os
import subprocess
import sys

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from gdtx._decompositions import eigh

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


def test_several_stacks_at_once_do_not_wait_for_each_other():
    """As calls of LAPACK on whole stacks do, for ever, on two cores."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**environment, "JAX_PLATFORMS": "cpu"},
        timeout=400, capture_output=True, text=True,
    )  # fmt: skip
    assert finished.stdout.strip() == "done", finished.stderr
