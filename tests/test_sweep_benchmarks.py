"""The benchmarks of sweeps run, and their tables hold what they say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from programs import refused

FOLDER = Path(__file__).parents[1] / "benchmarks"


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    # The eight devices that the other tests simulate would share this machine's cores.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return subprocess.run(
        [sys.executable, str(FOLDER / script), *arguments],
        env=environment, timeout=600, capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip


def printed(finished: subprocess.CompletedProcess[str]) -> list[str]:
    assert finished.returncode == 0, finished.stderr
    lines = finished.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    return lines


def below_rule(lines: list[str]) -> list[str]:
    """The rows of the first table, which ends at an empty line."""
    rule = next(i for i, line in enumerate(lines) if set(line) == {"-"})
    rows = lines[rule + 1 :]
    rows = rows[: rows.index("")]
    assert {len(line) for line in (lines[rule - 1], *rows)} == {len(lines[rule])}
    return rows


@pytest.mark.slow  # six ways, each with programs of its own
def test_sweep():
    lines = printed(run("sweep.py", "--smoke"))
    rows = [re.split(r"\s{2,}", row) for row in below_rule(lines)]
    ways = [row[0] for row in rows]
    assert ways[0] == "gdtx.sweep"
    assert len(ways) == len(set(ways)) == 6
    errors = [float(row[-1]) for row in rows]
    assert 0 < max(errors) < 1e-4
    assert f"within {max(errors):.1e} of" in "\n".join(lines)
    programs = {row[0]: int(row[1]) for row in rows}
    # The steps that each of the 3 rates compiles, against one program for all of them.
    assert programs["optax rebuilt, loop"] > programs["gdtx.sweep"] + 2
    assert programs["gdtx.sweep"] <= 2


@pytest.mark.slow  # sixty trainings
def test_one_cycle(tmp_path):
    picture = tmp_path / "one_cycle.png"
    lines = printed(run("one_cycle.py", "--smoke", "--out", str(picture)))
    assert picture.read_bytes().startswith(b"\x89PNG")
    rows = [row for row in below_rule(lines) if set(row) != {"-"}]
    sides = [re.search(r"(\d+) (constant rates and momenta|one cycles)", row) for row in rows]
    trainings = {side[2]: side[1] for side in sides if side}
    # As many trainings on one side as on the other.
    assert trainings == {"constant rates and momenta": "10", "one cycles": "10"}
    verdict = re.search(r"One cycle needs (\w+) .* best constant (\w+)", " ".join(lines))
    medians = [re.search(r"(\w+) \(\w+ - \w+\)$", row) for row in rows]
    assert verdict
    assert set(verdict.groups()) <= {median[1] for median in medians if median}


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("sweep.py", ["--rates", "0"], "--rates must be positive, got 0"),
        ("one_cycle.py", ["--steps", "30"], "--steps must be a multiple of 50, got 30"),
    ],
)
def test_bad_arguments(script, arguments, message):
    code, said = refused(FOLDER / script, *arguments)
    assert code == 2
    assert message in said
