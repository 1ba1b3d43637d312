"""The site: `python -m sphinx -W --keep-going -q -j auto docs docs/_build/html`.

Pages with code run at every build. The notebooks of the laboratory are shown as they were executed;
with `-t notebooks` they run as well. Nothing is fetched, here or by a reader.
"""

import os
import sys
import tomllib
from pathlib import Path

import gdtx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs on pages run once or twice: compiling them is what takes time.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.pop("MPLBACKEND", None)  # that of a notebook, which shows its pictures

project = "gdtx"
author = "the gdtx authors"
project_copyright = author
version = release = gdtx.__version__
html_title = f"gdtx {version}"

extensions = [
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "mathjax_here",
    "sphinx_copybutton",
    "sphinx_design",
    "myst_nb",
    "laboratory",
    "reference",
    "recipe",
]
exclude_patterns = ["_build", "_ext", "recipes/*"]  # these are parts of the page recipes
templates_path = []

# Of jax, those names that the pages mention: a list of facts, so that a build needs no network.
intersphinx_mapping = {"jax": ("https://docs.jax.dev/en/latest", str(HERE / "jax.inv"))}

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_excludepatterns = [] if tags.has("notebooks") else ["laboratory/*"]  # noqa: F821
nb_execution_timeout = 900
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_in_temp = True
nb_output_stderr = "remove"
nb_merge_streams = True
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

# The addresses of the project, where they are set: pages link to the repository below.
_addresses = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["tool"]["gdtx"]
_repository = {"name": "Repository", "html": "Repository", "class": ""}
html_baseurl = _addresses["documentation"]
html_theme = "furo"
html_theme_options = {
    "footer_icons": [_repository | {"url": url} for url in [_addresses["repository"]] if url]
}
html_static_path = ["_static"]
html_favicon = "_static/gdtx.svg"
html_css_files = ["gdtx.css"]
html_search_scorer = str(HERE / "_static" / "scorer.js")
html_copy_source = False
html_show_sourcelink = False
