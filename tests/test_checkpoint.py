"""The example with checkpoints is killed, and ends as if it had not been."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("orbax.checkpoint", reason="orbax is installed by the extra 'frameworks'")

EXAMPLE = Path(__file__).parents[1] / "examples" / "checkpoint_resume.py"
STEPS, EVERY = 600, 20
ARGUMENTS = ["--steps", str(STEPS), "--every", str(EVERY)]


def start(directory, **pipes):
    # One device, as a user has it: the eight that are simulated would share this machine's cores.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, str(EXAMPLE), "--directory", str(directory), *ARGUMENTS]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **pipes
    )


def finish(directory):
    """What a run prints that is left alone."""
    process = start(directory)
    out, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors.decode()
    return out.decode()


def kill(directory, step, delay):
    """Kill a run when its progress bar shows that step, some milliseconds later."""
    process = start(directory)
    shown = b""
    while chunk := os.read(process.stderr.fileno(), 4096):
        shown += chunk
        steps = re.findall(rb"(\d+)/%d " % STEPS, shown)
        if steps and int(steps[-1]) >= step:
            break
    time.sleep(delay / 1000)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors.decode()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """What a run prints that is left alone: the parameters' digest, and the accuracy."""
    output = finish(tmp_path_factory.mktemp("uninterrupted"))
    assert re.fullmatch(r"parameters \w{16}\ntest accuracy [\d.]+%\n", output)
    return output


def check(directory, uninterrupted, kills, seed):
    rng = np.random.default_rng(seed)
    # Not among the last steps, after which the run may end before the signal comes.
    for step in np.sort(rng.integers(0, STEPS - 5 * EVERY, kills)):
        kill(directory, step, rng.uniform(0, 30))
    output = finish(directory)
    assert "going on from step" in output
    assert output.splitlines()[1:] == uninterrupted.splitlines()


def test_killed_runs_end_the_same(tmp_path, uninterrupted):
    check(tmp_path, uninterrupted, kills=2, seed=0)
    assert float(uninterrupted.split()[-1].rstrip("%")) > 95


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
def test_killed_often(tmp_path, uninterrupted, seed):
    check(tmp_path, uninterrupted, kills=8, seed=seed)
    # One that has finished has nothing left to do, and says the same.
    last = finish(tmp_path).splitlines()
    assert last == [f"going on from step {STEPS}", *uninterrupted.splitlines()]
