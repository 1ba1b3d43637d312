"""The notebooks, where Sphinx finds them: copied from beside their sources, if they are others."""

import shutil
from pathlib import Path

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def copy(app):
    into = Path(app.srcdir, "laboratory")
    for old in into.glob("*.ipynb"):
        if not (NOTEBOOKS / old.name).exists():
            old.unlink()
    for notebook in NOTEBOOKS.glob("*.ipynb"):
        target = into / notebook.name
        if not target.exists() or target.read_bytes() != notebook.read_bytes():
            shutil.copy(notebook, target)


def setup(app):
    app.connect("builder-inited", copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
