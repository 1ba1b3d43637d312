"""The example with checkpoints is killed, and ends as if it had not been."""

import os
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import chex
import everything
import jax
import numpy as np
import pytest

import gdtx

ocp = pytest.importorskip("orbax.checkpoint", reason="orbax is installed by the extra 'frameworks'")

EXAMPLE = Path(__file__).parents[1] / "examples" / "checkpoint_resume.py"
STEPS, EVERY = 600, 20
ARGUMENTS = ["--steps", str(STEPS), "--every", str(EVERY)]


def test_the_states_of_all_transformations_come_back(tmp_path):
    """Each in its classes, dtypes and numbers: a checkpoint of a new one needs nothing more."""
    rows = everything.EVERY | {"stored": gdtx.stored(gdtx.adam(0.1), least=1)}
    states = {name: tx.init(everything.PARAMS) for name, tx in rows.items()}
    for i, x in enumerate(leaves := jax.tree.leaves(states)):
        leaves[i] = np.asarray(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x + 1
    states = jax.tree.structure(states).unflatten(leaves)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "states", states)
        checkpointer.wait_until_finished()
        like = jax.tree.map(jax.numpy.zeros_like, states)
        restored = checkpointer.restore(tmp_path / "states", like)
    assert jax.tree.structure(restored) == jax.tree.structure(states)
    chex.assert_trees_all_equal_shapes_and_dtypes(restored, states)
    chex.assert_trees_all_equal(restored, states)


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


@pytest.mark.slow
def test_killed_runs_end_the_same(tmp_path, uninterrupted):
    check(tmp_path, uninterrupted, kills=2, seed=0)
    assert float(uninterrupted.split()[-1].rstrip("%")) > 95


def here(capsys, directory, stops_at=None):
    """What a short run prints, in this process, that may be stopped between two checkpoints."""

    def until(first, steps, **_):
        yield from range(first, steps if stops_at is None else stops_at)
        if stops_at is not None:
            raise InterruptedError

    command = [str(EXAMPLE), "--directory", str(directory), "--steps", "30", "--every", "10"]
    with (
        mock.patch.object(sys, "argv", command),
        mock.patch("tqdm.trange", until),
        jax.numpy_rank_promotion("allow"),
    ):
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    return capsys.readouterr().out.splitlines()


@pytest.mark.slow
def test_a_stopped_run_ends_the_same(tmp_path, capsys):
    whole = here(capsys, tmp_path / "whole")
    for step in (17, 29):
        with pytest.raises(InterruptedError):
            here(capsys, tmp_path / "parts", step)
    capsys.readouterr()
    assert here(capsys, tmp_path / "parts") == ["going on from step 20", *whole]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
def test_killed_often(tmp_path, uninterrupted, seed):
    check(tmp_path, uninterrupted, kills=8, seed=seed)
    # One that has finished has nothing left to do, and says the same.
    last = finish(tmp_path).splitlines()
    assert last == [f"going on from step {STEPS}", *uninterrupted.splitlines()]
