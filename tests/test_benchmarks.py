"""The benchmarks run, and what they print and write is well-formed."""

import json
import math
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "step.py"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Standard output and JSON of the shortest run."""
    path = tmp_path_factory.mktemp("benchmarks") / "step.json"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--smoke", "--json", path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(path.read_text())


def test_table_is_aligned_and_fits(smoke):
    lines = smoke[0].splitlines()
    assert max(map(len, lines)) <= 100
    rule = next(i for i, line in enumerate(lines) if line and set(line) == {"-"})
    header, *rows = [line for line in lines[rule - 1 :] if line and "-" not in line]
    assert header.split()[0] == "method"
    assert [row.split()[0] for row in rows] == ["sgd", "adam"]
    assert {len(line) for line in (header, *rows)} == {len(lines[rule])}
    for column in header.split()[1:]:
        assert any(line.split()[:1] == [column] for line in lines), f"{column} is not explained"


def test_json_holds_what_the_table_shows(smoke):
    printed, written = smoke
    assert set(written["setting"]) == {"gdtx", "optax", "jax", "device"}
    assert [row["method"] for row in written["rows"]] == ["sgd", "adam"]
    for row in written["rows"]:
        assert f"{row['leaves']} leaves, {row['parameters']} parameters" in printed
        for column in ("step", "update", "trace", "lower", "compile", "FLOPs", "bytes"):
            assert all(0 < row[column][key] < math.inf for key in ("ratio", "gdtx", "optax"))
            assert f"{row[column]['ratio']:.2f}"[:-1] in printed
        assert row["programs"]["gdtx"] == 1 < row["programs"]["optax"]
        assert row["step programs"] == {"gdtx": 1, "optax": 1}
    assert written["rows"][0]["state"] == {"gdtx": 0, "optax": 0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "adem"], "invalid choice: 'adem'"),
        (["--device", "quantum"], "invalid choice: 'quantum'"),
    ],
)
def test_a_bad_argument_is_named(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["step.py", *arguments])
    with pytest.raises(SystemExit):
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert message in capsys.readouterr().err
