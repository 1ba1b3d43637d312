"""The main job, as a newcomer runs it, and the examples in every framework."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from programs import refused

EXAMPLES = Path(__file__).parents[1] / "examples"
DIGITS = EXAMPLES / "digits.py"
METHODS = {
    "sgd(": 3, "ema_sgd(": 1, "adagrad(": 1, "adadelta(": 1, "rmsprop(": 2, "rprop(": 1,
    "adam(": 1, "adamw(": 1, "adamax(": 1, "amsgrad(": 1, "nadam(": 1, "nadamw(": 1, "radam(": 1,
    "lion(": 1, "lars(": 1, "lamb(": 1, "adafactor(": 1, "sm3(": 1,
    "shampoo(": 1, "soap(": 1, "muon(": 1, "kfac(": 1,
}  # fmt: skip


def run(
    *arguments: str, timeout: float, program: Path = DIGITS
) -> subprocess.CompletedProcess[str]:
    return python(str(program), *arguments, timeout=timeout)


def python(*arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
    # The eight devices that the other tests simulate would share this machine's cores.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return subprocess.run(
        [sys.executable, *arguments],
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


@pytest.mark.slow  # `.ci/run` runs it too, without looking at what it prints
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
    code, said = refused(DIGITS, *arguments)
    assert code == 2
    assert message in said


# What each is for, and what it prints of that.
FRAMEWORKS = {
    "plain_jax": ("jax", r"1\.learning_rate +\d\S*\n.*update_norm "),
    "flax_linen": ("flax", r"the learning rate went from 0\.01 to 0"),
    "flax_nnx": ("flax", r"head/\*\* on all digits: 10,332 bytes of state\n"
                 r"the hidden layer has changed by 0\.0\n"),
    "equinox_mlp": ("equinox", r"learning rate 0\.01 +test"),
    "optimistix_solver": ("optimistix", r"after \d+ steps\nloss 0\.\d+\n"),
    "checkpoint_resume": ("orbax.checkpoint", r"parameters \w{16}\n"),
}  # fmt: skip
by_framework = pytest.mark.parametrize("name", FRAMEWORKS)

# One after the other in one process, because most of their time goes into imports.
ALL = """
import runpy, sys
directory, *programs = sys.argv[1:]
for program in programs:
    sys.argv = [program, "--smoke", *["--directory", directory] * ("checkpoint" in program)]
    print("==", program)
    runpy.run_path(program, run_name="__main__")
"""


def require(name: str) -> None:
    pytest.importorskip(FRAMEWORKS[name][0], reason="it is installed by the extra 'test'")


def accuracies(output: str) -> list[float]:
    return [float(found) for found in re.findall(r"test accuracy ([\d.]+)%\n", output)]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """What each of them prints in a few steps."""
    found = [
        str(EXAMPLES / f"{name}.py")
        for name, (package, _) in FRAMEWORKS.items()
        if importlib.util.find_spec(package.partition(".")[0])
    ]
    folder = tmp_path_factory.mktemp("checkpoints")
    finished = python("-W", "error", "-c", ALL, str(folder), *found, timeout=600)
    assert finished.returncode == 0, finished.stderr
    assert "step" in finished.stderr  # the progress bars
    outputs = finished.stdout.split("== ")[1:]
    return {Path(path).stem: text for path, text in (out.split("\n", 1) for out in outputs)}


@pytest.mark.slow  # as the first
@by_framework
def test_framework_smoke(name, smoke):
    require(name)
    assert re.search(FRAMEWORKS[name][1], smoke[name], re.DOTALL)
    assert accuracies(smoke[name])


@pytest.mark.slow
@by_framework
def test_framework_learns(name, tmp_path):
    require(name)
    options = ["--directory", str(tmp_path)] if name == "checkpoint_resume" else []
    finished = run(*options, program=EXAMPLES / f"{name}.py", timeout=600)
    assert finished.returncode == 0, finished.stderr
    found = accuracies(finished.stdout)
    # Of the four learning rates all are good; of the two trainings, the first lacks three digits.
    assert min(found if name == "equinox_mlp" else found[-1:]) >= 95, finished.stdout


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {
        "digits", "digits_report", "gpt", *FRAMEWORKS
    }  # fmt: skip


@pytest.mark.parametrize(
    "mesh", ["data", "data=8", "model=8", "data=four,model=2", "data=2,rows=2"]
)
def test_gpt_takes_meshes_of_two_axes(mesh):
    code, said = refused(EXAMPLES / "gpt.py", "--mesh", mesh)
    assert code == 2
    assert f"argument --mesh: {mesh!r} is not as in data=8,model=1" in said


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(jax, "set_mesh"), reason="orbax saves no sharded arrays with this old a jax"
)
def test_gpt(tmp_path):
    """It goes on from the end and from the middle of a training, between the two gradients of an
    update, to the same losses; the picture has all methods."""
    pytest.importorskip("orbax.checkpoint", reason="it is installed by the extra 'test'")
    gpt, checkpoints = EXAMPLES / "gpt.py", str(tmp_path / "checkpoints")
    first, second = (
        run("--smoke", "--directory", checkpoints, program=gpt, timeout=600) for _ in range(2)
    )
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert re.match(
        r"muon 0\.04: \d\.\d+ on held-out text, state [\d,]+ bytes a device", first.stdout
    )
    assert second.stdout == "going on from step 8\n" + first.stdout
    assert sorted(path.name for path in Path(checkpoints).iterdir()) == ["5", "8"]
    shutil.rmtree(Path(checkpoints) / "8")  # as if it had been killed before
    third = run("--smoke", "--directory", checkpoints, program=gpt, timeout=600)
    assert third.stdout == "going on from step 5\n" + first.stdout, third.stderr
    picture = tmp_path / "gpt.png"
    compared = run("--smoke", "--compare", "--out", str(picture), program=gpt, timeout=900)
    assert compared.returncode == 0, compared.stderr
    assert re.findall(r"^(\w+) ", compared.stdout, re.M) == [
        "adamw", "muon", "soap", "shampoo", "written"
    ]  # fmt: skip
    assert picture.read_bytes().startswith(b"\x89PNG")
