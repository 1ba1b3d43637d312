"""Which leaves are chosen, and what they are called: by trees, functions and patterns."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Any

import jax
import numpy as np

from ..calls.functions import accepts_arguments, with_arguments
from ..errors import calling, fail, summarize
from .paths import first_matches, leaf_paths, listed, matched
from .stacking import layer_structs, layers_along
from .tree import PyTree, broadcast_prefix, is_prefix

_VALUELESS = "it sees shapes and dtypes, and no values"


def is_patterns(what: Any) -> bool:
    """Whether these are patterns of paths. No pattern at all chooses nothing."""
    return type(what) in (list, tuple) and all(isinstance(item, str) for item in what)


def chosen(what: Any, tree: PyTree, name: str) -> list[bool]:
    """For each leaf, whether it is chosen by the argument of this name."""
    if is_patterns(what):
        paths = leaf_paths(tree)
        columns = [matched(pattern, paths) for pattern in what]
        return [any(column[i] for column in columns) for i in range(len(paths))]

    def check(value: Any, where: str) -> None:
        if isinstance(value, bool | np.bool_):
            return
        hint = f" (patterns come in a list: [{value!r}])" if isinstance(value, str) else ""
        fail(TypeError, f"{where} is {summarize(value)}, expected True or False{hint}")

    return given(what, tree, name, check)


def labelled(labels: Any, tree: PyTree, known: Collection[Hashable]) -> list[Any]:
    """For each leaf, its label, one of those that are known."""

    def check(value: Any, where: str) -> None:
        if not (isinstance(value, Hashable) and value in known):
            expected = listed(known) if len(known) == 1 else f"one of {listed(known)}"
            fail(ValueError, f"{where} is {summarize(value)}, expected {expected}")

    # Where the parameters are a list of pairs, a tree of labels is one too.
    if is_rules(labels) and not (
        all(first in known for first, _ in labels) and is_prefix(labels, tree)
    ):
        return _first_match(labels, tree, check)
    return given(labels, tree, "labels", check)


def labels_of(what: Any, **label: str) -> Any:
    """The labels of leaves that are `chosen` by the argument `what`, and of each `other`."""
    if is_patterns(what):
        return [*((pattern, label["chosen"]) for pattern in what), ("**", label["other"])]

    def label_of_each(tree: PyTree) -> PyTree:
        names = [label["chosen" if hit else "other"] for hit in chosen(what, tree, "what")]
        return jax.tree.structure(tree).unflatten(names)

    return label_of_each


def is_rules(labels: Any) -> bool:
    """Whether these are pairs of a pattern and a label. No pair at all labels nothing."""
    return type(labels) in (list, tuple) and all(
        type(item) in (list, tuple) and len(item) == 2 and isinstance(item[0], str)
        for item in labels
    )


def _first_match(
    rules: Sequence[tuple[str, Any]], tree: PyTree, check: Callable[[Any, str], None]
) -> list[str]:
    paths = leaf_paths(tree)
    for pattern, label in rules:
        check(label, f"the label of pattern {pattern!r}")
    firsts = first_matches(rules, paths)
    missed = [path for path, first in zip(paths, firsts, strict=True) if first is None]
    if missed:
        fail(
            ValueError,
            f"no pattern matches {listed(missed)}; the patterns are "
            f"{listed(pattern for pattern, _ in rules) or 'none at all'} "
            "(a last one, '**', matches all others)",
        )
    return [rules[first][1] for first in firsts if first is not None]


def given(spec: Any, tree: PyTree, name: str, check: Callable[[Any, str], None]) -> list[Any]:
    """For each leaf, what a function returns or the leaf of a tree at or above it."""
    if not jax.tree.leaves(tree):
        # Without leaves nothing is chosen: `optax.tree_map_params` puts a node of its own there.
        return []
    # A callable tree, such as a module, is a tree and not a function.
    if callable(spec) and jax.tree_util.all_leaves([spec]):
        if not _is_of_the_tree(spec, name):
            return _returned(spec, tree, name, check)
        with calling(name, _VALUELESS):
            spec = _without_values(spec, layer_structs(tree))
    for path, value in jax.tree_util.tree_flatten_with_path(spec)[0]:
        check(value, name + jax.tree_util.keystr(path))
    return broadcast_prefix(spec, tree, name, "params")


def _is_of_the_tree(f: Callable[..., Any], name: str) -> bool:
    """Whether a function has one required argument, and so takes the whole tree."""
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):  # of a function that is not written in Python
        return True
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [p for p in parameters if p.kind in positional and p.default is p.empty]
    if len(required) != 1 and not accepts_arguments(f, 2):
        fail(
            TypeError,
            f"{name} must be a function of the parameters, or of a path and a leaf, got "
            f"{with_arguments(f)}",
        )
    return len(required) == 1


def _returned(
    f: Callable[..., Any], tree: PyTree, name: str, check: Callable[[Any, str], None]
) -> list[Any]:
    paths = leaf_paths(tree)

    def of_each(leaves: list[Any]) -> list[Any]:
        values = []
        for path, leaf in zip(paths, leaves, strict=True):
            with calling(f"{name}, of {path!r}", _VALUELESS):
                values.append(f(path, leaf))
        return values

    values = _without_values(of_each, jax.tree.leaves(layer_structs(tree)))
    for path, value in zip(paths, values, strict=True):
        check(value, f"{name} of {path!r}")
    return values


def _without_values(f: Callable[[PyTree], Any], tree: PyTree) -> Any:
    """What a function makes of a tree whose arrays have shapes and dtypes only.

    An update is traced and has no more; so `init` shows no more, and both choose the same.
    """
    results = []
    with layers_along({}):  # it sees one layer where several are stacked
        jax.eval_shape(lambda tree: results.append(f(tree)), tree)
    return results[0]
