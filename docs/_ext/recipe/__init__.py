"""A Sphinx extension with one directive, `{recipe} name`: an expression, and what it makes.

The expression is evaluated at every build, for its formula and its state; one that fails is an
error of the build. The tests run the same blocks.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def setup(app: Any) -> dict[str, Any]:
    from .directive import RecipeDirective  # the tests, which read recipes too, need no Sphinx

    app.add_directive("recipe", RecipeDirective)
    app.connect("builder-inited", _render)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _render(app: Any) -> None:
    # In a process of its own, as `reference` writes its pages.
    here = {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)]),
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-m", "recipe.rendering", str(Path(app.doctreedir, "recipes.json"))]
    subprocess.run(command, check=True, env=os.environ | here)
