"""A training over two processes is killed, and goes on there, and on other devices."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

pytest.importorskip("orbax.checkpoint", reason="orbax is installed by the extra 'frameworks'")
if not hasattr(jax, "set_mesh"):
    pytest.skip("orbax saves what several devices hold by a later JAX", allow_module_level=True)

PROGRAM = Path(__file__).parent / "processes" / "train.py"
METHODS = ["adamw", "adafactor", "shampoo", "muon", "kfac"]
ELEMENTWISE = "['adamw']"
STEPS, EVERY = 12, 4


class Training:
    """Processes that train together, and what each prints, in files."""

    def __init__(self, directory, processes, mesh, methods, out=None):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        self.out, self.logs, self.running = out, [], []
        command = [sys.executable, str(PROGRAM), "--processes", str(processes), "--port", str(port)]
        command += ["--mesh", *map(str, mesh), "--methods", *methods, "--steps", str(STEPS)]
        command += ["--every", str(EVERY), "--directory", str(directory)]
        command += ["--out", str(out)] if out else []
        environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
        for i in range(processes):
            self.logs.append(directory.with_name(f"{directory.name} {port} {i}.txt"))
            with self.logs[-1].open("w") as log:
                self.running.append(
                    subprocess.Popen(
                        [*command, "--process", str(i)], env=environment, stdout=log, stderr=log
                    )
                )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.running:
            process.kill()  # one that waits for another heeds nothing less
            process.wait()

    def printed(self):
        return "\n".join(log.read_text() for log in self.logs)

    def until_step(self, number, seconds=300):
        """Wait until a process prints this step."""
        end = time.monotonic() + seconds
        while not re.search(rf"^step {number} ", self.printed(), re.MULTILINE):
            assert time.monotonic() < end, self.printed()
            assert all(process.poll() is None for process in self.running), self.printed()
            time.sleep(0.02)

    def parameters(self, seconds=300):
        """Those of the end; every process ends well, and has read the same of the training."""
        for process in self.running:
            assert process.wait(seconds) == 0, self.printed()
        told = [re.findall(r"^step .*", log.read_text(), re.MULTILINE) for log in self.logs]
        assert told[0]
        assert all(each == told[0] for each in told)
        return dict(np.load(self.out))


def train(directory, processes, mesh, methods):
    out = directory.with_name(f"{directory.name}.npz")
    with Training(directory, processes, mesh, methods, out) as training:
        parameters = training.parameters()
        return parameters, re.findall(r"^from (\d+)$", training.printed(), re.MULTILINE)


def kill_one(directory, methods, which, at):
    """Kill one of two with SIGKILL, and the other if it has not ended soon after.

    JAX's coordination service ends that one: at once where the first process was killed, which is
    the service, else when it has heard nothing for a minute and more. Who starts processes waits
    no longer than for one.
    """
    with Training(directory, 2, (2, 2), methods) as training:
        training.until_step(at)
        killed = training.running.pop(which)
        killed.send_signal(signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL, training.printed()
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert training.running[0].wait(1) != 0, training.printed()


def equal(some, other):
    assert some.keys() == other.keys()
    for name in some:
        np.testing.assert_array_equal(some[name], other[name], err_msg=name)


def check_killed(directory, whole, methods, kills):
    """Kill this one of two at this step, start both again, and so on: they end as if left alone."""
    for which, at in kills:
        kill_one(directory, methods, which, at)
    parameters, first = train(directory, 2, (2, 2), methods)
    assert first[0] == first[1], first
    assert 0 < int(first[0]) < STEPS
    equal(parameters, whole)


def from_the_middle(checkpoints, directory):
    """A copy of the checkpoints without those of the second half."""
    shutil.copytree(checkpoints / str(EVERY), directory / str(EVERY))
    return directory


@pytest.mark.slow
def test_two_methods_are_killed_and_go_on(tmp_path):
    """The short one, which CI runs by name."""
    methods = ["adamw", "muon"]
    whole, _ = train(tmp_path / "one process", 1, (2, 2), methods)
    check_killed(tmp_path / "killed", whole, methods, [(1, STEPS - EVERY + 1)])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The parameters of a training over two processes that nothing interrupts, and where."""
    directory = tmp_path_factory.mktemp("whole") / "checkpoints"
    parameters, first = train(directory, 2, (2, 2), METHODS)
    assert first == ["0", "0"]
    return parameters, directory


@pytest.mark.slow
def test_each_of_two_is_killed_once_and_both_go_on(whole, tmp_path):
    check_killed(tmp_path / "killed", whole[0], METHODS, [(1, EVERY + 2), (0, STEPS - EVERY + 1)])


@pytest.mark.slow
def test_one_process_of_four_devices_goes_on(whole, tmp_path):
    parameters, checkpoints = whole
    directory = from_the_middle(checkpoints, tmp_path / "one")
    resumed, first = train(directory, 1, (2, 2), METHODS)
    assert first == [str(EVERY)]
    equal(resumed, parameters)


@pytest.mark.slow
def test_eight_devices_go_on(whole, tmp_path):
    parameters, checkpoints = whole
    directory = from_the_middle(checkpoints, tmp_path / "eight")
    resumed, first = train(directory, 1, (4, 2), METHODS)
    assert first == [str(EVERY)]
    for name, expected in parameters.items():
        if name.startswith(ELEMENTWISE):
            np.testing.assert_array_equal(resumed[name], expected, err_msg=name)
        np.testing.assert_allclose(resumed[name], expected, rtol=0, atol=1.5e-6, err_msg=name)
