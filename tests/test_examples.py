"""The main job, as a newcomer runs it."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

DIGITS = Path(__file__).parents[1] / "examples" / "digits.py"
METHODS = {
    "sgd(": 3, "ema_sgd(": 1, "adagrad(": 1, "adadelta(": 1, "rmsprop(": 2, "rprop(": 1,
    "adam(": 1, "adamw(": 1, "adamax(": 1, "amsgrad(": 1, "nadam(": 1, "nadamw(": 1, "radam(": 1,
}  # fmt: skip


def run(*arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
    # The eight devices that the other tests simulate would share this machine's cores.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return subprocess.run(
        [sys.executable, str(DIGITS), *arguments],
        env=environment, timeout=timeout, capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip


def rows(output: str) -> list[str]:
    return [line for line in output.splitlines() if " ms " in line]


def check(finished: subprocess.CompletedProcess[str], picture: Path) -> list[str]:
    assert finished.returncode == 0, finished.stderr
    table = rows(finished.stdout)
    found = [re.match(r"\w+\(", line)[0] for line in table]  # pyright: ignore[reportOptionalSubscript]
    assert {name: found.count(name) for name in found} == METHODS
    assert all(len(line) <= 100 for line in finished.stdout.splitlines())
    assert picture.read_bytes().startswith(b"\x89PNG")
    return table


def test_smoke(tmp_path):
    picture = tmp_path / "digits.png"
    check(run("--smoke", "--out", str(picture), timeout=600), picture)


@pytest.mark.slow
def test_every_method_learns_within_the_time(tmp_path):
    picture = tmp_path / "digits.png"
    start = time.perf_counter()
    table = check(run("--out", str(picture), timeout=600), picture)
    assert time.perf_counter() - start < 120
    accuracies = {line: float(re.findall(r"([\d.]+) %", line)[0]) for line in table}
    assert min(accuracies.values()) >= 95, accuracies


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "7"], "--steps must be a multiple of 10, got 7"),
        (["--methods", "adan"], "invalid choice: 'adan'"),
        (["--out", "nowhere/digits.png"], "--out: there is no folder nowhere"),
    ],
)
def test_bad_arguments(arguments, message):
    finished = run(*arguments, timeout=120)
    assert finished.returncode == 2
    assert message in finished.stderr
