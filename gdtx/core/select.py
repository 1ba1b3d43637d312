"""Choosing the parameters that a transformation is for."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import jax

from .calls.kinds import Kind
from .calls.types import TransformationLike
from .factory import transformation
from .transformation import TRANSFORMATION, GradientTransformation
from .trees.choice import chosen, labelled
from .trees.layout import holding
from .trees.short import in_short
from .trees.tree import PyTree, leaves_as, scalar_like


def _is_by_label(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    try:
        sorted(value)  # because JAX sorts the keys of the dict of their states
    except TypeError:
        return False
    return None not in value  # because None is not a leaf in a tree of labels


Groups = Annotated[
    Mapping[Any, TransformationLike],
    Kind("a dict of transformations by labels of one type", _is_by_label, each=TRANSFORMATION),
]


@in_short
class MaskedState(NamedTuple):
    """State of a transformation of some of the parameters only."""

    inner: PyTree


@in_short
class PartitionState(NamedTuple):
    """State of transformations of groups of parameters: the state of each, by label."""

    inner: dict[Any, PyTree]


@transformation(quiet=True)
def masked(inner: TransformationLike, mask: Any) -> GradientTransformation:
    r"""Transform only the leaves that a mask selects; the others pass as they are.

    A mask, here and wherever an argument is called so, is one of

    - a list of patterns of paths, of which one must match: `["**/kernel", "head/**"]`. The path of
      a leaf is its keys, indices and attributes, joined by `/`: `layers/0/kernel`; a container of
      one array, such as flax's `Param`, adds nothing to it. In a pattern `*` stands for any part
      of one component, and `**`, between slashes, for any number of components, none included:
      `**/bias` matches `bias` and `head/bias`, and `head/**` matches `head` and all below it. All
      other characters stand for themselves;
    - a tree of booleans, like the parameters or a prefix of them;
    - a function that returns True or False for a path and a leaf, or, if it has exactly one
      required argument, a tree of booleans for the parameters. Either sees shapes and dtypes, and
      no values. A callable tree, such as a module of booleans, is a tree.

    It is for the parameters, and where `update` gets none, for the updates.

    Args:
        inner: transformation of the selected leaves; the others are None to it and take no state.
        mask: which leaves are transformed, in one of the forms above.

    Returns:
        A transformation whose state is that of `inner` on the selected leaves.

    Raises:
        ValueError: if a tree does not fit the parameters, or a pattern matches no path.
        TypeError: if a tree or a function gives anything but True or False.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.masked(gdtx.scale(2.0), ["*/w"])
    >>> params = {"head": {"w": jnp.array([1.0]), "b": jnp.array([1.0])}}
    >>> tx.update(params, tx.init(params))[0]
    {'head': {'b': Array([1.], dtype=float32), 'w': Array([2.], dtype=float32)}}
    """

    def init(params: PyTree) -> MaskedState:
        return MaskedState(_first_state(inner, params, chosen(mask, params, "mask")))

    def update(
        updates: PyTree, state: MaskedState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, MaskedState]:
        selection = chosen(mask, _deciding(updates, params), "mask")
        given = _selected(updates, selection)
        if params is not None:
            extra_args = _of_selected(extra_args, params, selection)
            params = _selected(params, selection)
        new, inner_state = inner.update(given, state.inner, params, **extra_args)
        return _merged(updates, [(given, new, selection)]), MaskedState(inner_state)

    return GradientTransformation(init, update, holding(MaskedState, inner=inner))


@transformation(quiet=True)
def partition(transforms: Groups, labels: Any) -> GradientTransformation:
    r"""Transform groups of leaves, each by a transformation of its own.

    Args:
        transforms: transformations by label, which are strings, numbers or booleans. Leaves of
            other groups are None to each and take no state. One whose label no leaf has transforms
            nothing.
        labels: which leaf has which label. A list of pairs of a pattern, as in :func:`masked`, and
            a label, of which the first that matches a leaf decides; or, in place of the booleans
            of a mask, a tree of labels, or a function that returns a label or such a tree. A list
            of pairs of labels that fits the parameters is a tree.

    Returns:
        A transformation whose state is the dict of the groups' states.

    Raises:
        ValueError: if a leaf has no label, a label has no transformation, a pattern matches no
            path or decides none because of those before it (but for a last `**`), or a tree does
            not fit the parameters.
        TypeError: if `transforms` is not a dict of transformations by labels that can be sorted, or
            is empty.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.partition(
    ...     {"slow": gdtx.sgd(0.01), "rest": gdtx.sgd(gdtx.linear_schedule(1.0, 0.0, 10))},
    ...     [("encoder/**", "slow"), ("**", "rest")])
    >>> params = {"encoder": {"w": jnp.ones(1), "b": jnp.ones(1)}, "head": jnp.ones(1)}
    >>> updates, state = tx.update(params, tx.init(params))
    >>> updates["encoder"]["w"], updates["head"]
    (Array([-0.01], dtype=float32), Array([-1.], dtype=float32))

    Hyperparameters of a group have paths of their own:

    >>> tx = gdtx.replace(tx, {"transforms.slow.learning_rate": 0.001})
    >>> gdtx.hyperparams(tx)["transforms.slow.learning_rate"]
    0.001

    A learning rate for each layer, that decays from the last down, is a group for each:

    >>> n = 3
    >>> tx = gdtx.partition(
    ...     {f"layer{i}": gdtx.adam(0.1 * 0.5 ** (n - 1 - i)) for i in range(n)},
    ...     [(f"layers/{i}/**", f"layer{i}") for i in range(n)])
    >>> params = {"layers": [{"w": jnp.ones(1)} for _ in range(n)]}
    >>> updates, _ = tx.update(params, tx.init(params))
    >>> [round(float(layer["w"][0]), 3) for layer in updates["layers"]]
    [-0.025, -0.05, -0.1]
    """
    if not transforms:
        raise TypeError("partition: needs at least one transformation, as in {'rest': adam(1e-3)}")

    def groups(tree: PyTree) -> dict[Any, list[bool]]:
        given = labelled(labels, tree, transforms)
        return {label: [other == label for other in given] for label in transforms}

    def init(params: PyTree) -> PartitionState:
        return PartitionState({
            label: _first_state(transforms[label], params, selection)
            for label, selection in groups(params).items()
        })  # fmt: skip

    def update(
        updates: PyTree, state: PartitionState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, PartitionState]:
        parts, states = [], {}
        for label, selection in groups(_deciding(updates, params)).items():
            given = _selected(updates, selection)
            seen, more = None, extra_args
            if params is not None:
                seen = _selected(params, selection)
                more = _of_selected(extra_args, params, selection)
            tx, old = transforms[label], state.inner[label]
            new, states[label] = tx.update(given, old, seen, **more)
            parts.append((given, new, selection))
        return _merged(updates, parts), PartitionState(states)

    return GradientTransformation(init, update, holding(PartitionState, inner=dict(transforms)))


def _deciding(updates: PyTree, params: PyTree) -> PyTree:
    """The tree to select from: the parameters, or the updates where there are none."""
    if params is None:
        return updates
    leaves_as(jax.tree.structure(updates), params, "params", "updates")
    return params


def _first_state(tx: GradientTransformation, params: PyTree, selection: Sequence[bool]) -> PyTree:
    state = tx.init(_selected(params, selection))
    if any(selection):
        return state
    # It saw no array, and could not follow one to where the parameters are.
    return jax.tree.map(lambda x: scalar_like(params, x, x.dtype), state)


def _selected(tree: PyTree, selection: Sequence[bool]) -> PyTree:
    leaves, structure = jax.tree.flatten(tree)
    return structure.unflatten(
        [leaf if hit else None for leaf, hit in zip(leaves, selection, strict=True)]
    )


def _of_selected(
    extra_args: Mapping[str, Any], params: PyTree, selection: Sequence[bool]
) -> dict[str, Any]:
    """The extra arguments with gradients, and functions of the parameters, as those of the selected
    leaves, while the others stay."""
    leaves, structure = jax.tree.flatten(params)

    def whole(selected: PyTree) -> PyTree:
        given = structure.flatten_up_to(selected)
        rows = zip(given, leaves, selection, strict=True)
        return structure.unflatten(new if hit else old for new, old, hit in rows)

    def of_selected(f: Any) -> Any:
        # With its signature, by which a line search knows what else to call it with.
        return functools.wraps(f)(lambda params, *args, **more: f(whole(params), *args, **more))

    seen = dict(extra_args)
    if callable(seen.get("value_fn")):
        seen["value_fn"] = of_selected(seen["value_fn"])
    if callable(grad_fn := seen.get("grad_fn")):
        seen["grad_fn"] = lambda params: _selected(grad_fn(whole(params)), selection)
    if "grad" in seen and jax.tree.structure(seen["grad"]) == structure:
        seen["grad"] = _selected(seen["grad"], selection)
    return seen


def _merged(updates: PyTree, parts: Sequence[tuple[PyTree, PyTree, Sequence[bool]]]) -> PyTree:
    """The updates, with those of each part where its leaves are."""
    leaves, structure = jax.tree.flatten(updates)
    for given, new, selection in parts:
        try:
            results = structure.flatten_up_to(new)
        except ValueError:
            leaves_as(jax.tree.structure(given), new, "the result", "updates")
            raise
        leaves = [new if hit else old
                  for old, new, hit in zip(leaves, results, selection, strict=True)]  # fmt: skip
    return structure.unflatten(leaves)
