"""Methods of matrices in a process with one device, as most users have it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("matrix_one_device.py")


@pytest.mark.slow
@pytest.mark.parametrize("which", ["quick", "slow"])
def test_decompositions_one_by_one(which):
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    finished = subprocess.run(
        [sys.executable, SCRIPT, which], env={**environment, "JAX_PLATFORMS": "cpu"}, timeout=500,
        capture_output=True, text=True,
    )  # fmt: skip
    assert finished.stdout.strip() == "done", finished.stderr
