"""The README's programs run, and say what it says they say."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

import gdtx

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_python_blocks_run(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    programs = [block for block in blocks if not block.startswith(">>>")]
    assert len(programs) >= 3
    names = {}
    for program in programs:
        # Steps that are unrolled into one program.
        exec(program.replace("def train(tx, steps=50)", "def train(tx, steps=3)"), names)
    assert capsys.readouterr().out == "[ 1.  -2.   0.5]\n"
    assert names["losses"].shape == (3,)
    moment = gdtx.find(names["state"], "mu")["w"]
    assert moment.addressable_shards[0].data.size * 8 == moment.size
    assert np.isfinite(names["hypergradient"].arguments["learning_rate"])
    with pytest.raises(ValueError, match=re.escape("sign_momentum: decay must be in [0, 1), got")):
        names["sign_momentum"](0.1, decay=1.5)


def test_shown_expansion_is_the_real_one():
    shown = re.search(r">>> print\((gdtx\.expand\([^\n]*\))\)\n(.*?)\n```", README, re.DOTALL)
    expression, text = shown.groups()
    assert str(eval(expression)) == text
    # Written as a reader would write it, it still evaluates to the same transformation.
    assert eval(text, vars(gdtx)) == gdtx.expand(gdtx.scale_by_adam())


def test_every_public_name_is_documented():
    names = [name for name in vars(gdtx) if not name.startswith("_")]
    public = {name for name in names if callable(getattr(gdtx, name))}
    missing = {name for name in public if not getattr(gdtx, name).__doc__}
    assert not missing


def test_links_lead_to_files_and_headings():
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert len(links) > 20
    for link in links:
        path, _, heading = link.partition("#")
        text = (ROOT / path).read_text() if heading else ""
        assert (ROOT / path).exists(), link
        headings = [line.lstrip("# ").lower() for line in text.splitlines() if line[:1] == "#"]
        assert not heading or heading in [line.replace(" ", "-") for line in headings], link


def test_names_that_it_says_gdtx_lacks():
    optax = pytest.importorskip("optax", reason="Optax is installed by the extra 'test'")
    section = README[README.index("## From Optax") : README.index("## Where to go")]
    missing = section[section.index("Others keep") : section.index("Each such name")]
    names = set(re.findall(r"`(\w+)`", missing)) - {"contrib"}
    assert len(names) > 4
    assert {name for name in names if hasattr(gdtx, name)} == set()
    assert names <= set(dir(optax))


def test_what_is_promised_is_what_is_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ci = (ROOT / ".ci" / "run").read_text()
    floor = re.search(r"jax>=([\d.]+)", project["dependencies"][0]).group(1)
    assert f"jax=={floor}" in ci
    design = (ROOT / "docs" / "design.md").read_text()
    assert f"jax {floor}" in README
    assert f"jax from {floor}" in design
    pythons = re.findall(r"Python :: (3\.\d+)", " ".join(project["classifiers"]))
    assert f"for version in {' '.join(pythons)}; do" in ci
    assert project["requires-python"] == f">={pythons[0]}"
    assert f"Python {pythons[0]} to {pythons[-1]}" in README
    assert f"Python {pythons[0]} to {pythons[-1]}" in design
