"""What the page says of each recipe, from its expression: run in a process of its own."""

from __future__ import annotations

import json
import math
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import jax

import gdtx
from gdtx.core.calls.call import Call

from .blocks import Recipe, recipes

# Large, so that counts of steps do not count.
TREE = {"w": (1024, 1024), "b": (1024,), "s": (), "A": (16, 1024), "B": (1024, 16)}
# Expressions, of which the page shows the code. Of any other call, what it is made of.
_SHOWN = ("chain", "join", "let", "feedback", "previous", "recur", "accumulate", "elementwise")


def rendered(recipe: Recipe) -> str:
    """MyST."""
    tx = recipe.transformation()
    if not isinstance(tx, gdtx.GradientTransformation):
        raise TypeError(f"a recipe is a transformation, this one is {tx!r}")
    parts = [f"```{{code-block}} python\n{recipe.code}```", f"$$\n{_formula(tx)}\n$$"]
    if isinstance(tx, Call) and tx.signature.name not in _SHOWN:
        made = gdtx.tree(tx)
        if made != gdtx.tree(tx, 0):
            parts += [f"````{{dropdown}} Made of\n```{{code-block}} python\n{made}\n```\n````"]
    said = [f"**State:** {_state(recipe, tx)}.", f"**Source:** {_linked(recipe.paper)}."]
    said += ["**Evaluate** at {any}`gdtx.eval_params`."] if recipe.evaluated else []
    said += ["**Gradients** of each example."] if recipe.examples else []
    said += ["**For** functions without noise."] if recipe.quiet else []
    said += [f"**Differs:** {_linked(recipe.differs)}."] if recipe.differs else []
    return "\n\n".join([*parts, "\\\n".join(said)])


def _formula(tx: Any) -> str:
    return (tx._repr_latex_() or "").strip().strip("$").strip()


def _state(recipe: Recipe, tx: Any) -> str:
    structs = {key: jax.ShapeDtypeStruct(TREE[key], "float32") for key in recipe.leaves}
    with warnings.catch_warnings(action="ignore"):  # of sizes
        rows = gdtx.state_table(tx, structs).rows
    numbers = sum(math.prod(row.shape) for row in rows)
    share = numbers / sum(math.prod(struct.shape) for struct in structs.values())
    return f"{share:.2f} numbers a parameter"


def _linked(text: str) -> str:
    text = text.rstrip(".")
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def write(target: Path) -> None:
    """All of them by name; of those that fail, why."""
    pages = {}
    for name, recipe in recipes().items():
        try:
            pages[name] = {"text": rendered(recipe)}
        except Exception as error:
            pages[name] = {"error": f"{type(error).__name__}: {error}"}
    text = json.dumps(pages, indent=1)
    if not target.exists() or target.read_text() != text:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
