"""Patterns of paths against regular expressions, and how long they take."""

import itertools
import re
import time

import pytest

from gdtx.core.trees.paths import matches


def by_regex(pattern, path):
    """The same language, in the words of `re`: each component of a path ends with a slash."""
    parts = pattern.split("/") if pattern else ()
    regex = "".join(
        "(?:[^/]*/)*" if part == "**" else re.escape(part).replace(r"\*", "[^/]*") + "/"
        for part in parts
    )
    return re.fullmatch(regex, f"{path}/" if path else "") is not None


def joined(parts, most):
    return ["/".join(some) for n in range(most + 1) for some in itertools.product(parts, repeat=n)]


def test_components_of_a_pattern():
    patterns = joined(["**", "a", "*", "a*"], 4)
    paths = joined(["a", "b", "ab"], 4)
    for pattern, path in itertools.product(patterns, paths):
        assert matches(pattern, path) == by_regex(pattern, path), (pattern, path)


def test_parts_of_a_component():
    parts = {"".join(some) for n in range(6) for some in itertools.product("ab*", repeat=n)}
    names = ["".join(some) for n in range(1, 6) for some in itertools.product("ab", repeat=n)]
    for part, name in itertools.product(sorted(parts), names):
        if "**" not in part:
            assert matches(part, name) == by_regex(part, name), (part, name)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/".join(["**"] * 30) + "/z", "/".join("a" * 40)),
        ("/".join(["**", "a"] * 30) + "/z", "/".join("a" * 40)),
        ("*a" * 30 + "z", "a" * 60),
    ],
    ids=["30 **", "30 ** between components", "30 * in one"],
)
def test_time_does_not_explode_with_wildcards(pattern, path):
    began = time.perf_counter()
    assert not matches(pattern, path)
    assert matches(pattern.removesuffix("z").removesuffix("/"), path)
    assert time.perf_counter() - began < 1  # some tenths of a millisecond; by backtracking, years
