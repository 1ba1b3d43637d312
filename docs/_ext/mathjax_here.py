"""MathJax from the site itself: of the copy in the package sphinx-mathjax-offline what pages need.

As an extension that package says nothing of parallel builds, and hinders them.
"""

import importlib.util
import shutil
from pathlib import Path


def copy(app, error):
    if error is None and app.builder.format == "html":
        spec = importlib.util.find_spec("sphinx-mathjax-offline")
        source = Path(spec.origin).parent / "static" / "mathjax"
        target = Path(app.outdir, "_static", "mathjax")
        fonts = "output/chtml/fonts/woff-v2"
        shutil.copytree(source / fonts, target / fonts, dirs_exist_ok=True)
        shutil.copy(source / "tex-chtml.js", target)


def setup(app):
    app.config.mathjax_path = "mathjax/tex-chtml.js"
    app.connect("build-finished", copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
