"""The benchmark of matrix methods runs, and its tables are well-formed."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # thirty programs to compile, so that times of it can be compared

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "matrix.py"


@pytest.fixture(scope="module")
def tables():
    done = subprocess.run([sys.executable, SCRIPT, "--smoke"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [table.splitlines() for table in done.stdout.split("\n\n")[1:]]


def test_costs_are_of_every_method(tables):
    header, rule, *rows = tables[1]
    assert header.split()[:3] == ["method", "work", "all"]
    assert set(rule) == {"-"}
    assert {len(row) for row in rows} == {len(header)}
    by_name = {row[:12].strip(): row[12:].split() for row in rows}
    assert list(by_name) == ["adam", "shampoo", "soap", "muon", "optax muon"]
    for work, everything, *_, few in by_name.values():
        assert int(few) <= int(work) < int(everything)
    # Theirs has products of its own for every matrix.
    work, *_, few = by_name["optax muon"]
    assert int(work) == 4 * int(few)


def test_gains_are_of_as_many_trainings(tables):
    *_, header, _, adam, shampoo, soap = tables[-2]
    assert header.split()[:2] == ["method", "trainings"]
    assert {row.split()[1] for row in (adam, shampoo, soap)} == {"1"}
    # In 20 steps at the smallest rate none is there.
    assert tables[-1] == [f"{name} did not reach this loss" for name in ("shampoo", "soap")]
