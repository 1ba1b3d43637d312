"""The benchmark of states in eight bits runs, and its figures are within their bounds."""

import re

import pytest
from programs import refused
from test_sweep_benchmarks import FOLDER, printed, run


@pytest.mark.slow  # programs for every method and code
def test_stored():
    lines = printed(run("stored.py", "--smoke"))
    figures = [line for line in lines if re.search(r"(at most|\d to) [\d.]+$", line)]
    assert len(figures) == 22
    # Of the last places of a time nothing is known.
    late = [line for line in lines if "NOT KEPT" in line and "compile" not in line]
    assert not late
    table = lines[lines.index("") + 3 :]
    assert [re.split(r"\s{2,}", line)[:3] for line in table if " stored " in line] == [
        ["four decades", method, "stored"] for method in ("adam", "adamw", "lion")
    ]
    fails = [line for line in table if "linear" in line]
    assert len(fails) == 3
    assert all(float(re.search(r"\+([\d.]+) ±", line)[1]) > 20 for line in fails)


def test_bad_arguments():
    code, said = refused(FOLDER / "stored.py", "--seeds", "1")
    assert code == 2
    assert "--seeds must be at least 2, got 1" in said
