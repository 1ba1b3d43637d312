"""Executes the notebooks, and writes the table of claims from what they printed.

python notebooks/run.py                     all: renderings beside the sources, and README.md
python notebooks/run.py 02_momentum         one; README.md from it and the stored others
python notebooks/run.py --check             all, elsewhere; fails if a verdict is another one
python notebooks/run.py --table             README.md from the stored renderings alone
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from tqdm import tqdm

from gdtx.explore.claims import CLAIMS, CORRECTED, FAILS, HOLDS, MIME_TYPE, SHOWN

HERE = Path(__file__).parent
ABOUT = """# The laboratory

gdtx grew from a lecture, *Gradient-Based NN Optimization: An Overview* (N. Vadivelu, 2019), which
makes 56 claims. Here each one runs. The notebooks are kept as plain text (`.py`, for reading diffs
and editing) with their renderings (`.ipynb`, for reading) beside them. Two come first, for whoever
wants to use gdtx; the others follow the lecture.

```
pip install -e ".[docs]"
python notebooks/run.py
```

executes all of them in a few minutes on two cores and writes this page, so that no figure on
it was typed. They use real but small data, from packages that ship it; nothing is downloaded.

## Notebooks

{notebooks}

<!-- What follows, the site includes. -->

{verdicts}

{claims}
"""


def sources() -> list[Path]:
    return sorted(p for p in HERE.glob("*.py") if p.name != "run.py")


def execute(source: Path, into: Path) -> float:
    """Runs a notebook in a fresh kernel, in this folder, and returns the seconds that took."""
    began = time.perf_counter()
    notebook = jupytext.read(source)
    NotebookClient(
        notebook,
        timeout=900,
        kernel_name="python3",
        coalesce_streams=True,
        resources={"metadata": {"path": str(HERE)}},
    ).execute()
    for number, cell in enumerate(notebook.cells, 1):
        # Random names and clock times would make every rendering differ from the last.
        cell["id"] = f"cell-{number}"
        cell.metadata.pop("execution", None)
        # Sphinx finds the words for a picture at its cell, other readers at the picture.
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt")
        for output in cell.get("outputs", ()):
            if alt and "image/png" in output.get("data", {}):
                output.metadata["image/png"] = {"alt": alt}
    nbformat.write(notebook, into / f"{source.stem}.ipynb")
    return time.perf_counter() - began


def outcomes(notebook: nbformat.NotebookNode) -> list[tuple[int, dict]]:
    """What the cells of an executed notebook said, each with the number of its cell."""
    found = []
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", ()):
            if MIME_TYPE in output.get("data", {}):
                found.append((number, output["data"][MIME_TYPE]))
    return found


def title(source: Path) -> str:
    lines = source.read_text().splitlines()
    return next(line.removeprefix("# # ") for line in lines if line.startswith("# # "))


def page(renderings: Path) -> str:
    """README.md, from the executed notebooks in a folder."""
    chapters, tables, count = [], [], Counter()
    for source in sources():
        rendering = renderings / f"{source.stem}.ipynb"
        if not rendering.exists():  # a new one, while another is executed
            continue
        notebook = nbformat.read(rendering, as_version=4)
        link = f"[{title(source)}]({rendering.name})"
        said = sorted(outcomes(notebook), key=lambda found: found[1]["number"])
        numbers = ", ".join(str(data["number"]) for _, data in said)
        chapters.append(f"| {link} | {numbers} |")
        if said:
            rows = [row(cell, data) for cell, data in said]
            tables += [f"## {link}", "\n".join(["| | claimed | found |", "|--|---|---|", *rows])]
        count.update(data["verdict"] for _, data in said)
    return ABOUT.format(
        notebooks="\n".join(["| notebook | claims |", "|---|---|", *chapters]),
        verdicts=f"Of {len(CLAIMS)} claims {count[HOLDS]} hold as they stand and "
        f"{count[CORRECTED]} with a correction; {count[FAILS] or 'none'} failed.",
        claims="\n\n".join(tables),
    )


def row(cell: int, data: dict) -> str:
    """What was claimed, and what was found: figures, which lie folded below a correction."""
    mark, _ = SHOWN[data["verdict"]]
    found, figure = f"{mark} **{data['verdict']}**: ", f"{data['figure']} (cell {cell})"
    if data["correction"]:
        found += data["correction"]
        figure = f" <details><summary>figures</summary>{figure}</details>"
    columns = [str(data["number"]), CLAIMS[data["number"]], found + figure]
    return f"| {' | '.join(column.replace('|', chr(92) + '|') for column in columns)} |"


def verdicts(renderings: Path) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for source in sources():
        rendering = renderings / f"{source.stem}.ipynb"
        if not rendering.exists():  # a new one, while another is executed
            continue
        for _, data in outcomes(nbformat.read(rendering, as_version=4)):
            found.setdefault(data["number"], set()).add(data["verdict"])
    return found


def check(fresh: Path) -> list[str]:
    """What is stale or has changed, in words."""
    wrong = []
    if (HERE / "README.md").read_text() != page(HERE):
        wrong.append("README.md is not what `run.py --table` writes")
    for source in sources():
        stored = nbformat.read(HERE / f"{source.stem}.ipynb", as_version=4)
        if [c.source for c in stored.cells] != [c.source for c in jupytext.read(source).cells]:
            wrong.append(f"{source.stem}.ipynb renders another text than {source.name}")
    before, now = verdicts(HERE), verdicts(fresh)
    for number in CLAIMS:
        if before.get(number) != now.get(number):
            wrong.append(f"claim {number}: {before.get(number)} is now {now.get(number)}")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="notebooks, without their endings; default: all")
    parser.add_argument("--check", action="store_true", help="change nothing; fail on a difference")
    parser.add_argument("--table", action="store_true", help="execute nothing")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    wanted = [s for s in sources() if not given.names or s.stem in given.names]
    if unknown := set(given.names) - {s.stem for s in wanted}:
        parser.error(f"no notebook {', '.join(sorted(unknown))}; there are "
                     f"{', '.join(s.stem for s in sources())}")  # fmt: skip
    into = HERE
    if given.check:
        import tempfile

        into = Path(tempfile.mkdtemp())
    failed = []
    if not given.table:
        with ThreadPoolExecutor(given.jobs) as pool:
            runs = {pool.submit(execute, source, into): source for source in wanted}
            with tqdm(as_completed(runs), total=len(runs), unit="notebook") as bar:
                for run in bar:
                    try:
                        bar.write(f"{runs[run].stem}: {run.result():.0f} s")
                    except CellExecutionError as error:
                        failed.append(f"{runs[run].stem} failed: {error}")
    if failed:
        sys.exit("\n\n".join(failed))
    if given.check:
        if wrong := check(into):
            sys.exit("\n".join(wrong))
    else:
        (HERE / "README.md").write_text(page(HERE))


if __name__ == "__main__":
    main()
