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
import jax.numpy as jnp
import numpy as np
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

gdtx.adam(learning_rate=1)
gdtx.adam(jnp.array(0.1), b1=np.float32(0.9), b2=np.array(0.99))
gdtx.adam(gdtx.cosine_decay_schedule(0.1, 100))
gdtx.adam(optax.cosine_decay_schedule(0.1, 100), b1=lambda step: 0.9)
gdtx.adam(0.5 * gdtx.linear_schedule(0.0, 0.1, 10))
gdtx.sgd(0.1, momentum=None)
gdtx.ema(0.9, dtype=jnp.bfloat16)
gdtx.ema(0.9, dtype="bfloat16")
gdtx.add_noise(0.1, 0.55, seed=jnp.array(0))
gdtx.chain(optax.clip(1.0), gdtx.scale(0.5), optax.add_noise(0.1, 0.5, 0))
gdtx.join(gdtx.divide, g=optax.identity(), size=gdtx.absolute())
gdtx.partition({"slow": optax.sgd(0.1), "fast": gdtx.sgd(1.0)}, {"w": "slow", "b": "fast"})
gdtx.accumulate_gradients(optax.adam(1e-3), every=lambda step: 2)
gdtx.shampoo(0.1, roots=gdtx.Roots(every=2 * gdtx.Roots().every, method="newton"))


@gdtx.transformation
def signed(rate: gdtx.Positive, decay: gdtx.Decay = 0.9) -> gdtx.GradientTransformation:
    rule = gdtx.accumulate(lambda u, m: decay * m + (1 - decay) * u)
    return gdtx.chain(rule, gdtx.elementwise(lambda u: rate * jnp.minimum(u, 1 - decay)))


@gdtx.transformation
def both(one: gdtx.Positive, other: gdtx.Positive) -> gdtx.GradientTransformation:
    return gdtx.chain(gdtx.scale(one / other), signed(one).replace(decay=other))


@gdtx.transformation(quiet=True)
def half(tx: gdtx.GradientTransformation, rate: gdtx.Decay = 0.5) -> gdtx.GradientTransformation:
    return gdtx.chain(tx, gdtx.scale(rate))


path = {"0.decay": 0.5}
half(tx).replace(rate=0.1)
tx.replace(b1=0.5).replace(learning_rate=lambda step: 0.1).replace(learning_rate=1.0, b1=0.5)
gdtx.chain(tx, gdtx.trace(0.9)).replace(**path)
gdtx.trace(0.9).replace(**{"decay": 0.5})
signed(0.1).replace(decay=jnp.array(0.1))
both(0.1, 0.2).replace(other=0.1).replace(one=0.2)
gdtx.linear_schedule(0.0, 1.0, 10).replace(end_value=2.0)
either = tx if state else gdtx.sgd(0.1)
either.replace(learning_rate=0.5).update({}, state)
several: list[gdtx.GradientTransformation] = [tx, gdtx.chain(tx), both(0.1, 0.2)]
"""
MISTAKES = """

tx.nothing  # reportAttributeAccessIssue
tx.update({})  # reportCallIssue
train(0.1)  # reportArgumentType
gdtx.adam("x")  # reportArgumentType
gdtx.adam(None)  # reportArgumentType
gdtx.adam(1e-3, lr=1)  # reportCallIssue
gdtx.sgd(0.1, momentum=[0.9])  # reportArgumentType
gdtx.lookahead(tx, sync_period="often")  # reportArgumentType
gdtx.accumulate_gradients(tx, every=0.5)  # reportArgumentType
gdtx.ema(0.9, dtype=1.0)  # reportArgumentType
gdtx.chain(gdtx.clip(1.0), 0.1)  # reportArgumentType
gdtx.chain([tx, tx])  # reportArgumentType
gdtx.chain(gdtx.adam)  # reportArgumentType
gdtx.join(gdtx.divide, g=jnp.sqrt)  # reportArgumentType
gdtx.elementwise(1.0)  # reportArgumentType
gdtx.Roots(evry=2)  # reportCallIssue
gdtx.Roots(method=2)  # reportArgumentType
gdtx.shampoo(0.1, roots=gdtx.Bases())  # reportArgumentType
gdtx.cosine_decay_schedule("x", 100)  # reportArgumentType
tx.replace(lr=1)  # reportCallIssue
tx.replace(b1="x")  # reportArgumentType
signed(0.1).replace(b1=0.1)  # reportCallIssue
half(tx).replace(ratio=0.1)  # reportCallIssue
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
