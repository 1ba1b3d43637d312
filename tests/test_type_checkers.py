"""What type checkers make of programs that hand gdtx to libraries that name Optax's class."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import gdtx

ROOT = Path(gdtx.__file__).parents[1]
PROGRAM = """\
import flax.linen as nn
import optax
from flax import nnx
from flax.core import FrozenDict
from flax.training.train_state import TrainState

import gdtx


def train(tx: optax.GradientTransformation) -> None: ...
def train_with_values(tx: optax.GradientTransformationExtraArgs) -> None: ...


@gdtx.transformation
def halved(learning_rate: gdtx.NonNegative) -> gdtx.GradientTransformation:
    return gdtx.chain(gdtx.sgd(learning_rate), gdtx.scale(0.5))


tx = gdtx.adam(1e-3)
train(tx)
train(halved(1e-3))
train_with_values(gdtx.chain(gdtx.clip(1.0), gdtx.interop.from_optax(optax.scale(-0.1))))
optax.chain(tx, optax.scale(0.5))
optax.MultiSteps(tx, every_k_schedule=2)

apply = nn.Dense(2).apply
TrainState.create(apply_fn=apply, params=FrozenDict(), tx=tx)
TrainState(step=0, apply_fn=apply, params=FrozenDict(), tx=tx, opt_state=())

model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
nnx.Optimizer(model, tx, wrt=nnx.Param)
nnx.ModelAndOptimizer(model, tx, wrt=nnx.Param)

state = tx.init({})
updates, state = tx.update({}, state, {}, value=1.0)
reveal_type(tx.update({}, state))  # tuple[Any, Any]
"""
MISTAKES = """

tx.nothing  # reportAttributeAccessIssue
tx.update({})  # reportCallIssue
train(0.1)  # reportArgumentType
"""


def errors(program: str, folder: Path, python: str) -> list[tuple[int, str]]:
    """The lines that pyright objects to, from 1, and the rules they break."""
    file = folder / "program.py"
    file.write_text(program)
    settings = {"extraPaths": [str(ROOT)], "pythonVersion": "3.11", "include": ["program.py"]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--pythonpath", python, "--outputjson"]
    ran = subprocess.run(
        [*command, "--project", str(folder)], capture_output=True, text=True, timeout=300
    )
    report = json.loads(ran.stdout)
    assert report["summary"]["filesAnalyzed"] == 1
    return [
        (found["range"]["start"]["line"] + 1, found.get("rule", found["message"]))
        for found in report["generalDiagnostics"]
        if found["severity"] == "error"
    ]


def test_ours_go_where_theirs_are_named(tmp_path):
    """And what is wrong is still found, in the lines that say so."""
    pytest.importorskip("pyright", reason="pyright is installed by the extra 'test'")
    pytest.importorskip("flax")
    program = PROGRAM + MISTAKES
    expected = [
        (i, line.rpartition("# ")[2])
        for i, line in enumerate(program.splitlines(), 1)
        if "# report" in line
    ]
    assert errors(program, tmp_path, sys.executable) == expected


@pytest.mark.slow
def test_without_optax(tmp_path):
    """Our class has a base that the checker does not know then; all else is as before."""
    pytest.importorskip("pyright", reason="pyright is installed by the extra 'test'")
    bare = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    packages = next((bare / "lib").glob("python*/site-packages"))
    for name in ("jax", "jaxlib", "numpy", "ml_dtypes", "scipy", "opt_einsum"):
        module = pytest.importorskip(name)
        (packages / name).symlink_to(Path(module.__file__).parent)
    program = """
import gdtx

tx: gdtx.GradientTransformation = gdtx.chain(gdtx.clip(1.0), gdtx.adam(1e-3))
updates, state = tx.update({}, tx.init({}), {}, value=1.0)
tx.replace(learning_rate=0.1).arguments
gdtx.chain(1.0)  # no transformation
"""
    assert errors(program, tmp_path, str(bare / "bin" / "python")) == [(7, "reportArgumentType")]
    command = [sys.executable, "-m", "pyright", "--pythonpath", str(bare / "bin" / "python")]
    ran = subprocess.run([*command, "gdtx"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    missing = {line for line in ran.stdout.splitlines() if "matplotlib" in line}
    found = {line for line in ran.stdout.splitlines() if " error: " in line}
    assert found == missing, ran.stdout
