"""The recipes as they are written in `docs/recipes`, for the page and for the tests."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import gdtx

FOLDER = Path(__file__).parents[2] / "recipes"
# What the paths in a recipe's masks may name: a matrix, a vector and a number.
LEAVES = ("w", "b", "s")
OPTIONS = ("paper", "differs", "extra", "leaves", "evaluated", "examples", "quiet")

_block = re.compile(
    r"^### (?P<title>.+)\n+```\{recipe\} (?P<name>\w+)\n"
    r"(?P<options>(?::\w+:.*\n)*)\n?(?P<code>(?:(?!```).*\n)+)```$",
    re.M,
)


class Recipe(NamedTuple):
    """One method: its section is the name of its file."""

    section: str
    title: str
    name: str
    code: str
    paper: str
    differs: str = ""  # who differs from the paper, and how
    extra: tuple[str, ...] = ()  # further arguments of `update`
    leaves: tuple[str, ...] = LEAVES  # those of the tree that it is tried on
    evaluated: str = ""  # whether what counts are the parameters to evaluate with
    examples: str = ""  # whether its gradients are those of many examples
    quiet: str = ""  # whether it is for functions without noise

    def transformation(self) -> Any:
        """What the expression makes, with the public names and JAX's."""
        names = {name: getattr(gdtx, name) for name in gdtx.__all__}
        return eval(self.code, names | {"gdtx": gdtx, "jax": jax, "jnp": jnp})


@cache
def sections() -> dict[str, list[Recipe]]:
    """All recipes by section."""
    return {path.stem: list(_read(path)) for path in sorted(FOLDER.glob("*.md"))}


@cache
def recipes() -> dict[str, Recipe]:
    """All recipes by name."""
    found = [recipe for section in sections().values() for recipe in section]
    by_name = {recipe.name: recipe for recipe in found}
    if len(by_name) < len(found):
        names = [recipe.name for recipe in found]
        raise ValueError(f"recipes of one name: {sorted(x for x in by_name if names.count(x) > 1)}")
    return by_name


def _read(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    for block in _block.finditer(text):
        given = dict(re.findall(r"^:(\w+): *(.*?) *$", block["options"], re.M))
        if unknown := [*(given.keys() - OPTIONS), *({"paper"} - given.keys())]:
            raise ValueError(f"{path.name}: {block['name']}: unknown or missing: {unknown}")
        lists = {
            name: tuple(given.pop(name).split()) for name in ("extra", "leaves") & given.keys()
        }
        yield Recipe(path.stem, block["title"], block["name"], block["code"], **given, **lists)
    read, written = len(_block.findall(text)), text.count("{recipe}")
    if read < written:
        raise ValueError(f"{path.name}: {written - read} of {written} recipes cannot be read")
