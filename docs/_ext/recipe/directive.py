"""The directive, which shows what was rendered of the block of its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from docutils.nodes import Node, container
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

from .blocks import OPTIONS


class RecipeDirective(SphinxDirective):
    required_arguments = 1
    has_content = True
    option_spec: ClassVar[Any] = dict.fromkeys(OPTIONS, directives.unchanged)

    def run(self) -> list[Node]:
        rendered = Path(self.env.doctreedir, "recipes.json")
        self.env.note_dependency(str(rendered))
        name = self.arguments[0]
        found = json.loads(rendered.read_text()).get(name, {"error": "it was not found"})
        if "error" in found:
            raise self.error(f"recipe {name}: {found['error']}")
        return [container("", *self.parse_text_to_nodes(found["text"]), classes=["recipe"])]
