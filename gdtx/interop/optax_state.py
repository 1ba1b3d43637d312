"""What a state of Optax keeps, and what of it belongs where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from jax.core import Tracer

from ..core.errors import fail, summarize
from ..core.trees.tree import PyTree
from .buffers import buffer_like, copied, margins


class Kept(NamedTuple):
    """What Optax keeps, a buffer or a state that is taken as a whole: where, in a state of which
    class, under which name, and whether what keeps nothing is between it and the one before."""

    path: str
    owner: str
    field: str
    tree: PyTree
    after_link: bool

    def __str__(self) -> str:
        return f"{self.path} of class {self.owner}" if self.field == self.owner else self.path


class OptaxState:
    """What an Optax state keeps, taken out in order."""

    def __init__(self, state: PyTree, path: str = "optax_state", slow: PyTree = None):
        self.slow = slow  # weights that Optax keeps among the parameters
        self.counts: dict[str, Any] = {}
        self.hyperparams: dict[str, Any] = {}
        self.kept: list[Kept] = []
        self.taken = 0
        self.link = False  # whether one was passed since the last buffer, here and in tx
        self.link_in_tx = False
        self.read(state, path)
        values = {p: int(c) for p, c in self.counts.items() if not isinstance(c, Tracer)}
        if len(set(values.values())) > 1:
            fail(ValueError, f"the counts of Optax's state are not the same: {values}")

    def read(self, state: PyTree, path: str) -> None:
        name = type(state).__name__
        fields = getattr(state, "_fields", None)
        if isinstance(state, tuple) and fields is None:
            for i, link in enumerate(state):
                self.read(link, f"{path}[{i}]")
        elif name in _transparent and fields is not None:
            self.hyperparams |= getattr(state, "hyperparams", {})
            self.count(state, path)
            self.read(state[-1], f"{path}.{fields[-1]}")
        elif name == "PartitionState" and fields is not None:
            inner_states: Any = getattr(state, "inner_states", {})
            # Sorted, because what has been through a compiled step is.
            for label, inner in sorted(inner_states.items(), key=lambda item: str(item[0])):
                self.read(inner, f"{path}.inner_states[{label!r}]")
        elif set(_whole.get(name, ("no such class",))) <= set(fields or ()):
            if name == "FactoredState":
                self.count(state, path)
            self.keep(Kept(path, name, name, state, self.link))
        elif isinstance(state, tuple):
            self.count(state, path)
            buffers = [field for field in fields or () if field != "count"]
            for field in buffers:
                self.keep(Kept(f"{path}.{field}", name, field, getattr(state, field), self.link))
            self.link = self.link or not buffers
        else:
            fail(ValueError, f"{path} is {summarize(state)}, expected a state of Optax")

    def keep(self, kept: Kept) -> None:
        self.kept.append(kept)
        self.link = False

    def count(self, state: Any, path: str) -> None:
        if "count" in state._fields:
            self.counts[f"{path}.count"] = state.count

    def params(self) -> PyTree:
        """A tree like the parameters: the widest of the buffers that have no holes."""
        trees = list(self.trees())
        whole = [tree for tree in trees if not _has_holes(tree)]
        if trees and not whole:
            fail(
                TypeError,
                "params are needed, because Optax's state keeps no moment of every parameter: "
                "call load_optax_state(tx, optax_state, params)",
            )
        return max(whole, key=_nbytes, default=())

    def trees(self) -> Iterator[PyTree]:
        """What may be like the parameters."""
        for kept in self.kept:
            if kept.field == "MultiStepsState":
                yield kept.tree.acc_grads
            elif kept.field == "ApplyIfFiniteState":
                yield from OptaxState(kept.tree.inner_state, kept.path).trees()
            elif kept.field == "FactoredState" or kept.field not in _whole:
                yield kept.tree

    def buffer(self, names: tuple[str, ...], old: PyTree) -> PyTree:
        """The next buffer, for the one of `tx` that is reached by these names."""
        kept = self.take(_fields(names))
        owners = {_owners[name] for name in names if name in _owners}
        if owners and kept.owner not in owners:
            expected = f"looked for a {' or '.join(owners)} in Optax's state"
            fail(ValueError, f"{expected}, found {kept.path} of a {kept.owner}")
        if kept.field == "FactoredState":
            kept = kept._replace(tree=margins(old, kept.tree))
        return buffer_like(old, kept.tree, kept.path)

    def state(self, owner: str) -> Any:
        """The next state of Optax, of this class, taken as a whole; and where it is."""
        kept = self.take((owner,))
        return kept.tree, kept.path

    def take(self, fields: tuple[str, ...]) -> Kept:
        """What comes next, which must have one of these names."""
        looked_for = f"looked for {' or '.join(fields)} in Optax's state"
        if self.taken == len(self.kept):
            fail(ValueError, f"{looked_for}, which keeps {self.summary()}")
        kept = self.kept[self.taken]
        if kept.field not in fields:
            fail(ValueError, f"{looked_for}, found {kept}; it keeps {self.summary()}")
        if self.taken and kept.after_link != self.link_in_tx:
            last = self.kept[self.taken - 1].path
            sides = ("Optax's state", "tx") if kept.after_link else ("tx", "Optax's state")
            fail(
                ValueError,
                f"{looked_for}, found {kept.path}, but between it and {last} {sides[0]} has a link "
                f"that keeps nothing and {sides[1]} has none: if it scales, so does what is kept "
                "(optax.rmsprop with momentum is chain(scale_by_rms(...), "
                "scale_by_learning_rate(...), trace(...)))",
            )
        self.taken += 1
        self.link_in_tx = False
        return kept

    def step(self, old: jax.Array) -> jax.Array:
        """The count, as a copy: every one in a state is a buffer of its own."""
        if not self.counts:
            fail(
                ValueError,
                f"looked for a count in Optax's state, which keeps {self.summary()} and no count",
            )
        return copied(next(iter(self.counts.values())), old)

    def check_empty(self, tx: Any) -> None:
        if self.taken < len(self.kept):
            kept = self.kept[self.taken]
            fail(ValueError, f"{tx} keeps nothing like {kept.path} of Optax's state")

    def summary(self) -> str:
        return ", ".join(map(str, self.kept)) or "no moments"


def _fields(names: tuple[str, ...]) -> tuple[str, ...]:
    """The fields of Optax's states that hold what these names lead to in ours."""
    return next((fields for name, fields in _meaning.items() if name in names), names[-1:])


# In this order, because the buffers of `mu` and `nu` belong to an `ema` most often. Optax keeps the
# mean of squares where `variance` keeps what it says.
_meaning = {
    "scale_by_factored_rms": ("FactoredState",),
    "variance": ("a variance",),
    "feedback": ("e_x",),
    "running_sum": ("sum_of_squares",),
    "mu": ("mu",),
    "nu": ("nu", "e_g"),
    "trace": ("trace",),
    "ema": ("ema",),
}

# Links whose buffers have names that others' have too, and the class of their state in Optax.
_owners = {
    **dict.fromkeys(
        ("scale_by_adam", "scale_by_adamax", "scale_by_nadam", "scale_by_radam", "scale_by_yogi"),
        "ScaleByAdamState",
    ),
    "scale_by_belief": "ScaleByBeliefState",
    "scale_by_lion": "ScaleByLionState",
}

# Taken as a whole: what they wrap is updated on some steps only and has counts of its own, or their
# fields belong together. With the fields that they are known by.
_whole = {
    "ApplyIfFiniteState": ("notfinite_count", "total_notfinite", "inner_state"),
    "FactoredState": ("count", "v_row", "v_col", "v"),
    "LookaheadState": ("fast_state", "steps_since_sync"),
    "MultiStepsState": ("mini_step", "gradient_step", "inner_opt_state", "acc_grads"),
    "ReduceLROnPlateauState": ("scale", "best_value", "plateau_count", "cooldown_count", "count"),
}

# Their last field is the state of what they wrap, which is updated whenever they are.
_transparent = ("InjectHyperparamsState", "InjectStatefulHyperparamsState", "MaskedState")


def _has_holes(tree: PyTree) -> bool:
    """Whether a mask left something out, for which Optax has a node without leaves, or the whole of
    some is not kept."""

    def is_hole(node: Any) -> bool:
        return type(node).__name__ in ("MaskedNode", "FactoredState")

    return any(map(is_hole, jax.tree.leaves(tree, is_leaf=is_hole)))


def _nbytes(tree: PyTree) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
