"""States and results in short: a line of text, and a table in notebooks, without long numbers."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from ..calls.text import Printed, show
from ..numbers.values import at_hand

T = TypeVar("T")

_MOST = 12
"""As many items of a container as are shown."""


def short(value: Any) -> str:
    """A value in one line: of an array its dtype and shape, of a single number the number.

    >>> short({"w": jnp.ones((3, 4)), "step": jnp.array(7), "none": None})
    "{'w': float32[3,4], 'step': 7, 'none': None}"
    """
    if hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, type):
        return _array(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    names = getattr(value, "_fields", None)
    if isinstance(value, tuple) and names is not None:
        fields = ((f"{name}=", item) for name, item in zip(names, value, strict=True))
        return f"{type(value).__name__}({_listed(fields, len(value))})"
    if type(value) is dict:
        return f"{{{_listed(((f'{key!r}: ', item) for key, item in value.items()), len(value))}}}"
    if type(value) is list:
        return f"[{_listed((('', item) for item in value), len(value))}]"
    if type(value) is tuple:
        end = "," if len(value) == 1 else ""
        return f"({_listed((('', item) for item in value), len(value))}{end})"
    leaves = [] if isinstance(value, Printed) else _leaves(value)
    if any(name for name, _ in leaves):  # a container of some other library, as `nnx.State`
        items = ((f"{name}=", leaf) for name, leaf in leaves)
        return f"{type(value).__name__}({_listed(items, len(leaves))})"
    return show(value)


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    paths = tree_flatten_with_path(tree)[0]
    return [(keystr(path, simple=True, separator="/"), leaf) for path, leaf in paths]


def _listed(items: Iterator[tuple[str, Any]], number: int) -> str:
    # A reader looks at the first of many layers, and not at the last.
    texts = [name + short(item) for (name, item), _ in zip(items, range(_MOST), strict=False)]
    more = [f"... {number - _MOST} more"] if number > _MOST else []
    return ", ".join(texts + more)


def _array(value: Any) -> str:
    is_one = isinstance(value, jax.Array | np.ndarray | np.generic) and value.shape == ()
    if is_one and not jnp.issubdtype(value.dtype, jax.dtypes.extended):
        numbers = at_hand(value)  # none of a tracer, or of what is not in this process
        if numbers.size:
            number = numbers[()]
            return f"{number:.4g}" if jnp.issubdtype(value.dtype, jnp.floating) else str(number)
    return f"{value.dtype}[{','.join(map(str, value.shape))}]"


def table(title: str, rows: Mapping[str, str]) -> str:
    """A title and rows of names and texts, in HTML."""
    lines = "".join(
        f"<tr><td>{html.escape(name)}</td>"
        f'<td style="text-align:left"><code>{html.escape(text)}</code></td></tr>'
        for name, text in rows.items()
    )
    body = f'<table style="border-collapse:collapse">{lines}</table>' if rows else ""
    return f"<div><code>{html.escape(title)}</code>{body}</div>"


def in_short(cls: type[T]) -> type[T]:
    """Print the instances of a NamedTuple in short, and show them as a table in notebooks.

    The text has the fields and the table the arrays; of a class with a method `_facts`, that
    returns names and values, both have those.
    """

    def __repr__(self: Any) -> str:  # noqa: N807 (it becomes the method)
        facts = _facts(self)
        if facts is None:
            return short(self)
        return f"{cls.__name__}({', '.join(f'{name}={text}' for name, text in facts.items())})"

    cls.__repr__ = __repr__
    return in_table(cls)


def _facts(value: Any) -> dict[str, str] | None:
    # A tree like a result, as `jax.tree.map` returns, may hold anything.
    with contextlib.suppress(Exception):
        return {name: short(each) for name, each in value._facts().items()}
    return None


def in_table(cls: type[T]) -> type[T]:
    """The table of :func:`in_short` alone."""

    def _repr_html_(self: Any) -> str:
        facts = _facts(self)
        if facts is not None:
            return table(cls.__name__, facts)
        leaves = _leaves(self)
        shown = leaves[:_MOST] if len(leaves) > _MOST + 1 else leaves
        rows = {name: short(leaf) for name, leaf in shown}
        if len(leaves) > len(shown):
            rows["…"] = f"{len(leaves) - len(shown)} more"
        return table(cls.__name__, rows)

    cls._repr_html_ = _repr_html_  # pyright: ignore[reportAttributeAccessIssue]
    return cls
