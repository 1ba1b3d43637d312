"""What is in the package that is built, and what it says of itself."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import gdtx

ROOT = Path(__file__).parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text()


def built(root, target, folder):
    pytest.importorskip("hatchling", reason="hatchling is installed by the extra 'test'")
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "-d", str(folder)]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    (file,) = folder.iterdir()
    return file


def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def test_wheel(tmp_path):
    wheel = built(ROOT, "wheel", tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"gdtx/py.typed", "gdtx/explore/gdtx.mplstyle", "gdtx/core/combine.py"} <= names
    assert all(name.startswith(("gdtx/", "gdtx-")) for name in names)
    found = metadata(wheel)
    assert found["Version"] == gdtx.__version__
    # None are made up.
    urls = [url for url in tomllib.loads(PYPROJECT)["tool"]["gdtx"].values() if url]
    assert [entry.split(", ")[1] for entry in found.get_all("Project-URL", [])] == urls


def test_addresses_that_are_set_are_in_the_package(tmp_path):
    root = tmp_path / "root"
    (root / "gdtx").mkdir(parents=True)
    for name in ("README.md", "LICENSE", "hatch_build.py", "gdtx/__init__.py"):
        shutil.copy(ROOT / name, root / name)
    address = "https://example.org/gdtx"
    with_one = re.sub(r'(?m)^repository = ".*"$', f'repository = "{address}"', PYPROJECT)
    (root / "pyproject.toml").write_text(with_one)
    found = metadata(built(root, "wheel", tmp_path / "dist"))
    assert f"Repository, {address}" in found.get_all("Project-URL")


def test_source_distribution(tmp_path):
    with tarfile.open(built(ROOT, "sdist", tmp_path)) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    assert {
        "gdtx/py.typed",
        "tests/everything.py",
        "notebooks/01_sgd.py",
        "hatch_build.py",
    } <= names
    assert not [name for name in names if name.endswith(".ipynb") or "_build/" in name]
    assert max(path.stat().st_size for path in tmp_path.iterdir()) < 2_000_000


def test_messages_advise_packages_that_an_index_has():
    """Not gdtx, which is installed from a clone: its extras are named beside the package."""
    extras = tomllib.loads(PYPROJECT)["project"]["optional-dependencies"]
    found = 0
    for file in sorted((ROOT / "gdtx").rglob("*.py")):
        for package, extra in re.findall(
            r"pip install ([^\s\")`]+)(?: \(the extra `(\w+)`\))?", file.read_text()
        ):
            found += 1
            assert package in {re.split(r"\W", r)[0] for names in extras.values() for r in names}
            assert package != "gdtx", file
            if extra:
                wanted, names = set(), [extra]
                for name in names:
                    wanted |= set(extras[name])
                    names += re.findall(r"gdtx\[(\w+)\]", " ".join(extras[name]))
                assert package in {re.split(r"\W", requirement)[0] for requirement in wanted}, file
    assert found >= 3
