"""The benchmarks run, and what they print and write is well-formed."""

import json
import math
import runpy
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest
from programs import refused

import gdtx

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "step.py"
RATIOS = ["step", "update", "trace", "compile", "FLOPs", "bytes"]
METHODS = ["sgd", "adam"]


def run(*arguments, script=SCRIPT):
    return subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The lines printed and the JSON written by the shortest run."""
    path = tmp_path_factory.mktemp("benchmarks") / "step.json"
    done = run("--smoke", "--json", path)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), json.loads(path.read_text())


@pytest.mark.slow
def test_table_is_aligned_and_its_columns_are_explained(smoke):
    lines, _ = smoke
    assert max(map(len, lines)) <= 100
    rule = next(i for i, line in enumerate(lines) if set(line) == {"-"})
    header, rows = lines[rule - 1], lines[rule + 1 :]
    assert header.split() == ["method", *RATIOS, "state", "programs"]
    assert [row.split()[0] for row in rows] == METHODS
    assert {len(line) for line in (header, *rows)} == {len(lines[rule])}
    for column in header.split()[1:]:
        assert any(line.split()[:1] == [column] for line in lines[: rule - 1])


@pytest.mark.slow
def test_table_shows_what_the_json_holds(smoke):
    lines, written = smoke
    assert set(written["setting"]) == {"gdtx", "optax", "jax", "device"}
    (tree,) = written["trees"]
    assert [row["method"] for row in tree["methods"]] == METHODS
    for line, row in zip(lines[-len(METHODS) :], tree["methods"], strict=True):
        _, *shown = line.split()
        for text, column in zip(shown, RATIOS, strict=False):
            assert float(text) == pytest.approx(row[column]["ratio"], abs=0.005)
        ours, theirs = row["programs"].values()
        assert shown[-3:] == [str(ours), ":", str(theirs)]


@pytest.mark.slow
def test_json_is_complete(smoke):
    _, written = smoke
    (tree,) = written["trees"]
    assert (tree["tree"], tree["leaves"], tree["parameters"]) == ("tiny", 4, 544)
    for row in tree["methods"]:
        for column in RATIOS:
            assert all(0 < row[column][key] < math.inf for key in ("ratio", "gdtx", "optax"))
        assert row["programs"]["gdtx"] == 2 < row["programs"]["optax"]  # update and addition
        assert row["step programs"] == {"gdtx": 1, "optax": 1}
        assert set(row["state"]) == {"gdtx", "optax"}


@pytest.mark.slow
def test_bytes_that_a_step_must_move():
    done = run("--smoke", script=SCRIPT.with_name("bound.py"))
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    (header,) = (row for row in rows if row[:1] == ["method"])
    columns = header[1:]
    for method, numbers in (("sgd", 3), ("adam", 7)):  # of four bytes; a count is shared by 544
        (row,) = (dict(zip(columns, row[1:], strict=False)) for row in rows if row[:1] == [method])
        assert float(row["bytes"]) == pytest.approx(4 * numbers, abs=0.02)
        assert float(row["compiled"]) >= 0.99
        assert all(float(row[library]) > 0 for library in ("gdtx", "optax"))


def test_a_bad_argument_is_named():
    code, said = refused(SCRIPT, "--methods", "adem")
    assert code == 2
    assert "invalid choice: 'adem'" in said


def test_compared_programs_differ_where_they_do(capsys):
    script = runpy.run_path(str(SCRIPT.with_name("programs.py")))

    def facts(tx):
        return script["facts"](tx, {"w": jnp.ones(2)}, {})

    trace, other, scale = facts(gdtx.trace(0.5)), facts(gdtx.trace(0.25)), facts(gdtx.scale(0.5))
    assert script["compare"]({"one": trace, "two": scale}, {"one": facts(gdtx.trace(0.5))}) == 0
    assert script["compare"]({"one": trace}, {"one": other}) == 3, "how it prints, and two steps"
    told = capsys.readouterr().out
    assert all(f"one: {what}" in told for what in ("repr", "numbers of step 2"))
    assert "one: numbers of step 1\n" not in told
    assert script["compare"]({"one": trace}, {"one": scale}) > 3
    told = capsys.readouterr().out
    assert all(f"one: {what}" in told for what in ("aliases", "bytes accessed", "outputs", "state"))
