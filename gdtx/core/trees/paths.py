"""Paths of leaves as text, and patterns of paths."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
from jax.tree_util import FlattenedIndexKey, GetAttrKey, keystr

from ..errors import fail

_MOST = 20


def leaf_paths(tree: Any) -> list[str]:
    """The path of every leaf: keys, indices and attributes joined by `/`.

    A container of one array, such as flax's `Param`, adds nothing to the path of the array.
    """
    # None is a leaf here, so that a path is the same where others are masked out.
    entries = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: x is None)[0]
    keys = [path for path, _ in entries]
    texts = []
    for path, before, after in zip(keys, [None, *keys], [*keys[1:], None], strict=False):
        if path and _is_nameless(path[-1]) and not _is_below(path[:-1], before, after):
            path = path[:-1]
        texts.append("/".join(keystr((key,), simple=True) for key in path))
    return [text for text, (_, leaf) in zip(texts, entries, strict=True) if leaf is not None]


def _is_nameless(key: Any) -> bool:
    """Whether a key adds no name to a path: that of a container of one array."""
    return isinstance(key, FlattenedIndexKey) or (
        isinstance(key, GetAttrKey) and key.name == "value"
    )


def _is_below(node: tuple[Any, ...], *paths: tuple[Any, ...] | None) -> bool:
    return any(path is not None and path[: len(node)] == node for path in paths)


def matched(pattern: str, paths: Sequence[str]) -> list[bool]:
    """Whether the pattern matches, for each path; it must match one if there is any."""
    found = [matches(pattern, path) for path in paths]
    if paths and not any(found):
        fail(ValueError, f"pattern {pattern!r} matches no path; the paths are {listed(paths)}")
    return found


def first_matches(rules: Sequence[tuple[str, Any]], paths: Sequence[str]) -> list[int | None]:
    """For each path, the number of the rule whose pattern is the first to match it.

    A rule must decide something: that all its paths are decided otherwise before it is a mistake,
    but for a last `**`, which is for what is left.
    """
    columns = [matched(pattern, paths) for pattern, _ in rules]
    firsts = [next((i for i, column in enumerate(columns) if column[j]), None)
              for j in range(len(paths))]  # fmt: skip
    for i, (pattern, value) in enumerate(rules):
        here = zip(columns[i], firsts, paths, strict=True)
        decided = [(*rules[first], path) for hit, first, path in here if hit and first is not None]
        is_rest = pattern == "**" and i == len(rules) - 1
        if decided and not is_rest and all(other != value for _, other, _ in decided):
            earlier, other, path = decided[0]
            fail(
                ValueError,
                f"pattern {pattern!r} decides nothing, because the first that matches decides: "
                f"{path!r} is {other!r} by pattern {earlier!r}, which is before it",
            )
    return firsts


def matches(pattern: str, path: str) -> bool:
    names = path.split("/") if path else []
    # How many components may be matched by what was read of the pattern: a set, and no recursion,
    # because there are exponentially many ways to match a pattern with many wildcards.
    ends = {0}
    for part in _parts(pattern):
        if part == "**":
            ends = set(range(min(ends), len(names) + 1)) if ends else ends
        else:
            ends = {end + 1 for end in ends if end < len(names) and _fits(part, names[end])}
    return len(names) in ends


@functools.lru_cache
def _parts(pattern: str) -> tuple[str, ...]:
    parts = tuple(pattern.split("/")) if pattern else ()
    if any("**" in part and part != "**" for part in parts):
        fail(
            ValueError,
            f"pattern {pattern!r}: ** stands for whole components of a path, as in "
            f"'**/bias', and * for a part of one",
        )
    return parts


def _fits(part: str, name: str) -> bool:
    """Whether one component of a pattern matches one of a path."""
    first, *others = part.split("*")
    if not others:
        return name == part
    *middle, last = others
    if len(name) < len(first) + len(last) or not (name.startswith(first) and name.endswith(last)):
        return False
    begin, end = len(first), len(name) - len(last)
    for piece in middle:  # the first place is as good as any later one
        begin = name.find(piece, begin, end) + len(piece)
        if begin < len(piece):
            return False
    return True


def listed(paths: Iterable[Any]) -> str:
    """The first paths, for a message, and how many more there are."""
    shown = list(map(repr, paths))
    more = len(shown) - _MOST
    return ", ".join(shown[:_MOST]) + (f" and {more} more" if more > 0 else "")
