"""The benchmark of K-FAC runs, and its tables hold what they say."""

import re

import numpy as np
import pytest
from programs import refused
from test_sweep_benchmarks import FOLDER, printed, run


@pytest.fixture
def images(tmp_path):
    """A file like Keras's, of small images: bright squares on dark ground."""
    rng = np.random.default_rng(0)
    pixels = np.zeros((120, 8, 8), np.uint8)
    for image, (i, j) in zip(pixels, rng.integers(6, size=(120, 2)), strict=True):
        image[i : i + 3, j : j + 3] = 200
    path = tmp_path / "mnist.npz"
    np.savez(path, x_train=pixels)
    return str(path)


def rows_of(lines, first):
    """The rows of the table whose header begins with this word."""
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{first}  "))
    assert set(lines[start + 1]) == {"-"}
    return lines[start + 2 : lines.index("", start)]


@pytest.mark.slow  # a dozen trainings, each a program
def test_kfac(tmp_path, images):
    picture = tmp_path / "kfac.png"
    lines = printed(run("kfac.py", "--smoke", "--data", images, "--out", str(picture)))
    assert picture.read_bytes().startswith(b"\x89PNG")
    names = [re.split(r"\s{2,}", row)[0] for row in rows_of(lines, "method")]
    assert names[0] == "SGD, momentum"
    assert {"K-FAC", "Adam"} < set(names)
    rows = [row for row in rows_of(lines, "loss") if set(row) != {"-"}]
    # Three losses, and for each of them every method.
    assert len(rows) == 3 * len(names)
    losses = [float(row.split()[0]) for row in rows[:: len(names)]]
    assert losses == sorted(losses, reverse=True)
    last = {
        name: row[9:].removeprefix(name).split()
        for name, row in zip(names, rows[-len(names) :], strict=True)
    }
    assert last["SGD, momentum"][1::2] in (["1.0", "1.0"], ["-", "-"])
    verdict = re.search(
        r"takes (\S+) times fewer updates and (\S+) times (fewer|as)", " ".join(lines)
    )
    if "never" in last["K-FAC"] + last["SGD, momentum"]:
        assert verdict is None
    else:
        assert verdict[1] == last["K-FAC"][1]


def test_bad_arguments():
    code, said = refused(FOLDER / "kfac.py", "--steps", "7")
    assert code == 2
    assert "--steps must be a multiple of 5, got 7" in said


def test_another_file(tmp_path):
    path = tmp_path / "other.npz"
    np.savez(path, images=np.zeros((2, 8, 8)))
    code, said = refused(FOLDER / "kfac.py", "--data", str(path))
    assert code == 1
    assert said.endswith("must hold an array x_train, it holds images")
