"""The sidebar, made once for each folder and not once for each of its hundreds of pages.

Of the pages of one folder only the marks of the current one differ, which are put in afterwards.
With the whole of it made for each page, that takes half of the time of a build.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from typing import Any

_made: dict[tuple[str, Any], str] = {}


def unmarked(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Give the theme a tree in which no page is the current one; it keeps what it makes of it."""
    from sphinx.environment.adapters.toctree import global_toctree_for_doc

    if "toctree" not in context:
        return

    def toctree(**options: Any) -> str:
        key = posixpath.dirname(page), tuple(sorted(options.items()))
        if key not in _made:
            nowhere = posixpath.join(key[0], "no page")
            tree = global_toctree_for_doc(
                app.env, nowhere, app.builder, tags=app.builder.tags, **options
            )
            _made[key] = app.builder.render_partial(tree)["fragment"]
        return _made[key]

    context["toctree"] = toctree


def marked(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Mark the current page in it, and open what it lies in."""
    tree = context.get("furo_navigation_tree")
    if not tree:
        return
    for document in _upward(app.env.toctree_includes, page):
        if document == app.config.root_doc != page:
            continue  # everything lies in it
        # In a tree of no page a link leads to the page itself by its name.
        uri = app.builder.get_relative_uri(posixpath.join(posixpath.dirname(page), "-"), document)
        tree = re.sub(
            rf'<li class="([^"]*)"><a class="([^"]*)" href="{re.escape(uri)}">(.*?)</a>'
            r'(<input (?=[^>]*type="checkbox"))?',
            lambda match, uri=uri, here=document == page: (
                f'<li class="{_with_current(match[1])}{" current-page" if here else ""}">'
                f'<a class="{"current " if here else ""}{match[2]}" href="{"#" if here else uri}">'
                f"{match[3]}</a>" + ('<input checked="" ' if match[4] else "")
            ),
            tree,
            count=1,
        )
    context["furo_navigation_tree"] = tree


def _with_current(classes: str) -> str:
    first, *others = classes.split()
    return " ".join([first, "current", *others])


def _upward(includes: dict[str, list[str]], page: str) -> Iterator[str]:
    """The page, and those whose lists of contents it is in."""
    seen: set[str] = set()
    above: str | None = page
    while above is not None and above not in seen:
        seen.add(above)
        yield above
        above = next((parent for parent, pages in includes.items() if above in pages), None)
