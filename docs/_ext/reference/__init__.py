"""A Sphinx extension that writes the reference from the code.

`docs/reference` is made at the start of a build: a page for each public name, a page for each group
of them, a page of all, of kinds and of errors. Files that would not change are left as they are, so
that a second build reads only what has changed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from . import sidebar
from .inventory import by_path


def setup(app: Any) -> dict[str, Any]:
    app.setup_extension("sphinx.ext.viewcode")
    # With `-D reference_redraw=0` pictures stay as they were drawn, if they were.
    app.add_config_value("reference_redraw", True, "", bool)
    app.connect("config-inited", _configure)
    app.connect("builder-inited", _write)
    app.connect("builder-inited", _style)
    app.connect("html-page-context", sidebar.unmarked, priority=100)  # before and after the theme
    app.connect("html-page-context", sidebar.marked, priority=900)
    app.connect("viewcode-follow-imported", _origin)
    app.connect("html-page-context", _back)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _configure(app: Any, config: Any) -> None:
    """What the pages are written for."""
    config.python_use_unqualified_type_names = True
    config.maximum_signature_line_length = 88
    config.viewcode_follow_imported_members = True
    config.myst_enable_extensions = {*config.myst_enable_extensions, "dollarmath", "fieldlist"}


def _write(app: Any) -> None:
    # In a process of its own: Sphinx forks for `-j`, and a process that has run JAX has threads.
    # On the CPU, whatever device is there, so that the pages say the same everywhere.
    here = {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    }
    quick = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "MPLBACKEND": "agg"}
    command = [sys.executable, "-m", "reference.writing", app.srcdir]
    command += [] if app.config.reference_redraw else ["--as-drawn"]
    subprocess.run(command, check=True, env=os.environ | here | quick)


def _style(app: Any) -> None:
    app.config.html_static_path.append(str(Path(__file__).with_name("reference.css")))
    app.add_css_file("reference.css")


def _origin(app: Any, module: str, name: str) -> str | None:
    """Where the source of a public name stands."""
    entry = by_path().get(f"{module}.{name.partition('.')[0]}")
    return entry.origin if entry else None


def _back(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Let sources link back to the pages of their names, whatever place these are published in.

    Viewcode knows one such place for each file, and would name the others' headings wrongly.
    """
    if page.startswith("_modules/"):
        link = r'(<a class="viewcode-back" href="[^"#]*)#[^"]*'
        context["body"] = re.sub(link, r"\1", context["body"])
