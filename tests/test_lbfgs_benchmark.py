"""The benchmark of L-BFGS runs, and its test functions are those of the literature."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import refused

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from unconstrained import PROBLEMS

FOLDER = Path(__file__).parents[1] / "benchmarks"
# At the usual starts: from lists of these functions, or by hand.
STARTS = {
    "Rosenbrock": 24.2,
    "Beale": 14.203125,
    "Helical valley": 2500.0,
    "Powell singular": 215.0,
    "Wood": 19192.0,
    "Brown badly scaled": (1 - 1e6) ** 2 + (1 - 2e-6) ** 2 + 1,
    "Brown-Dennis": 7926693.33699,
    "extended Rosenbrock": 242.0,
    "extended Powell": 1075.0,
    "Watson": 30.0,
    "Penalty I": 148032.56535,
    "Variably dimensioned": 2198551.1625,
}


@jax.jit
def at_starts():
    at = {p.name: (p.fun, jnp.array(p.start)) for p in PROBLEMS}
    # Where Beale's function begins in the paper.
    at["Beale"] = (at["Beale"][0], jnp.array([1.0, 1.0]))
    return {name: f(x) for name, (f, x) in at.items()}


def test_values_at_the_starts(x64):
    values = at_starts()
    assert len(values) >= 20
    for name, value in values.items():
        assert np.isfinite(value), name
    for name, value in STARTS.items():
        np.testing.assert_allclose(values[name], value, rtol=1e-9, err_msg=name)


@pytest.mark.slow  # programs of three libraries
def test_smoke(tmp_path):
    pytest.importorskip("jaxopt", reason="jaxopt is installed by the extra 'test'")
    path = tmp_path / "found.json"
    # The eight devices that the other tests simulate would share this machine's cores.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, str(FOLDER / "lbfgs.py"), "--smoke", "--json", str(path)],
        env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    found = json.loads(path.read_text())["problems"]
    assert list(found) == ["valley", "Rosenbrock", "Powell badly scaled"]
    steps = found["Rosenbrock"]["gdtx"]["steps"], found["Rosenbrock"]["gdtx"]["evaluations"]
    assert f"{steps[0]}/{steps[1]}" in next(line for line in lines if line.startswith("Rosenbrock"))
    assert found["Rosenbrock"]["gdtx"] == pytest.approx(found["Rosenbrock"]["Optax"], abs=1e-6)


def test_bad_arguments():
    pytest.importorskip("jaxopt", reason="jaxopt is installed by the extra 'test'")
    code, said = refused(FOLDER / "lbfgs.py", "--tolerance", "2")
    assert (code, "--tolerance must be in (0, 1), got 2.0" in said) == (2, True)
