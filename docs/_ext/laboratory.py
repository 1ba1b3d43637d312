"""The notebooks, where Sphinx finds them: copied from beside their sources, if they are others."""

from pathlib import Path

import nbformat

from gdtx.explore.claims import MIME_TYPE

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def copy(app):
    into = Path(app.srcdir, "laboratory")
    for old in into.glob("*.ipynb"):
        if not (NOTEBOOKS / old.name).exists():
            old.unlink()
    for notebook in NOTEBOOKS.glob("*.ipynb"):
        target, text = into / notebook.name, for_readers(notebook)
        if not target.exists() or target.read_text() != text:
            target.write_text(text)


def for_readers(path):
    """A notebook without what programs read in it, of which Sphinx would say that it is unknown."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop(MIME_TYPE, None)
    return nbformat.writes(notebook)


def setup(app):
    app.connect("builder-inited", copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
