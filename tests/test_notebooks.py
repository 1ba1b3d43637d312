"""The table of claims is made from the executed notebooks, which CI executes again."""

import ast
import re
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

from gdtx.explore.claims import CORRECTED, Outcome, claim

FOLDER = Path(__file__).parents[1] / "notebooks"


@pytest.fixture
def run(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import run

    yield run
    sys.modules.pop("run", None)


def test_nothing_is_stale(run):
    assert (FOLDER / "README.md").read_text() == run.page(FOLDER)
    for source in run.sources():
        rendering = nbformat.read(FOLDER / f"{source.stem}.ipynb", as_version=4)
        written = jupytext.read(source)
        assert [c.source for c in rendering.cells] == [c.source for c in written.cells], source.stem
        for cell in rendering.cells:
            for output in cell.get("outputs", ()):
                assert output.output_type != "error"
                assert output.get("name") != "stderr", (source.stem, output.text)


def test_every_claim_is_executed(run):
    found = run.verdicts(FOLDER)
    assert sorted(found) == list(run.CLAIMS) == list(range(1, 57))
    assert {number: said for number, said in found.items() if len(said) > 1} == {}


def test_a_claim_is_read_back_from_its_cell(run, tmp_path):
    (tmp_path / "01_try.py").write_text(
        "# %% [markdown]\n# # 1. A try\n\n# %%\n"
        "from gdtx.explore.claims import CORRECTED, claim\n\n"
        'claim(2, f"{1 / 3:.2f} | of it", CORRECTED, "a third")\nprint("more")\n'
    )
    run.execute(tmp_path / "01_try.py", tmp_path)
    ((cell, said),) = run.outcomes(nbformat.read(tmp_path / "01_try.ipynb", as_version=4))
    assert cell == 2
    assert said == {
        "number": 2, "figure": "0.33 | of it", "verdict": "holds with a correction",
        "correction": "a third",
    }  # fmt: skip


def test_the_words_for_a_picture_lie_beside_it(run, tmp_path):
    (tmp_path / "01_try.py").write_text(
        '# %% mystnb={"image": {"alt": "a β"}}\ndisplay({"image/png": "eA=="}, raw=True)\n'
    )
    run.execute(tmp_path / "01_try.py", tmp_path)
    (cell,) = nbformat.read(tmp_path / "01_try.ipynb", as_version=4).cells
    assert cell.metadata["mystnb"]["image"]["alt"] == "a β"
    (output,) = cell.outputs
    assert output.metadata["image/png"]["alt"] == "a β"


def pictures():
    for path in sorted(FOLDER.glob("*.ipynb")):
        for number, cell in enumerate(nbformat.read(path, as_version=4).cells, 1):
            for output in cell.get("outputs", ()):
                if "image/png" in output.get("data", {}):
                    yield f"{path.stem}, cell {number}", cell, output


def test_every_picture_has_its_words():
    found = list(pictures())
    assert len(found) > 50
    for where, cell, output in found:
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        assert len(alt) > 40, where
        assert output.metadata["image/png"]["alt"] == alt, where


def test_every_axis_is_named_where_it_is_drawn():
    """A picture of our functions names its own; another says in its cell what its axes are."""
    for where, cell, _ in pictures():
        ours = "plot_" in cell.source
        assert ours or ("label" in cell.source and "plt.show()" in cell.source), where


def test_notebooks_run_where_they_are_opened():
    """No import of a neighbour, the line that installs, and the one style."""
    neighbours = {path.stem for path in FOLDER.glob("*.py")}
    for path in FOLDER.glob("[0-9]*.py"):
        text = path.read_text()
        imported = set()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, path.stem
                imported.add(node.module.split(".")[0])
        assert not imported & neighbours, path.stem
        assert '# In a clone of gdtx: pip install -e ".[docs]"\n' in text, path.stem
        assert 'plt.style.use("gdtx.explore.gdtx")' in text, path.stem


def test_the_page_counts_and_links(run):
    page = run.page(FOLDER)
    numbers = re.findall(r"^\| (\d+) \|", page, flags=re.M)
    assert sorted(map(int, numbers)) == list(range(1, 57))
    for link in re.findall(r"\]\(([^)#]+)", page):
        assert (FOLDER / link).exists(), link
    hold, corrected = re.search(r"Of 56 claims (\d+) hold as they stand and (\d+)", page).groups()
    assert int(hold) + int(corrected) + page.count("**does not hold here**") == 56


def test_a_claim_shows_its_verdict_and_escapes():
    shown = Outcome(1, "a < b", CORRECTED, "x & y")._repr_mimebundle_()
    assert "It holds with a correction" in shown["text/html"]
    assert "a &lt; b" in shown["text/html"]
    assert "x &amp; y" in shown["text/html"]
    assert "a < b" in shown["text/plain"]


def test_a_failing_cell_is_an_error(run, tmp_path):
    (tmp_path / "01_try.py").write_text("# %%\nassert 1 == 2\n")
    with pytest.raises(Exception, match="AssertionError"):
        run.execute(tmp_path / "01_try.py", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((57, "x"), "number must be one of 1 to 56, got 57"),
        ((1, "x", "true"), "verdict must be HOLDS, CORRECTED or FAILS, got 'true'"),
        ((1, "x", "holds with a correction"), "a correction goes with the verdict CORRECTED"),
        ((1, "x", "holds", "but"), "a correction goes with the verdict CORRECTED"),
    ],
)
def test_bad_claims(arguments, message):
    with pytest.raises(ValueError, match=message):
        claim(*arguments)
