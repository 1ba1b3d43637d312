"""Runs that began with Optax and go on with gdtx."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from .._combine import chain, feedback, join
from .._errors import at_work, describe, fail
from .._memory import CountState, RecurState, counted, recur
from .._select import MaskedState, masked
from .._transformation import GradientTransformation, ScheduledState
from .._tree import PyTree
from ..wrappers.tunable import TunableState, tunable


def load_optax_state(
    tx: GradientTransformation, optax_state: PyTree, params: PyTree = None
) -> PyTree:
    r"""The state of `tx` that continues a run of the same method in Optax.

    What the two states keep is paired by name and in order: Optax's `mu` and `nu` with the branches
    of that name, its `trace` with that of :func:`gdtx.trace`, its `sum_of_squares` with
    :func:`gdtx.running_sum`, and so on. Every count is Optax's. So methods, and chains of them with
    anything that keeps nothing, are all loaded in one way: SGD with its momenta, AdaGrad, AdaDelta,
    RMSProp, Adam, AdamW, AdaMax, NAdam, RAdam and Lion, with schedules or without, masked, or under
    `optax.inject_hyperparams` (whose values go to :func:`gdtx.tunable`).

    Hyperparameters are not in the states: give `tx` the ones that Optax had, with
    `radam(threshold=5.0)` for Optax's default.

    SGD, with momentum and Nesterov's too, and AdaGrad go on bit for bit. Others differ from Optax
    by rounding, in units in the last place of a float32 update that does not pass near zero:
    RMSProp and AdaDelta 8, AdaMax 16, Adam, AdamW and NAdam 256, RAdam 16384 from step 20. Those
    above 16 are Optax's: it subtracts powers of decays, rounded to float32, from 1. From Optax's
    own run in float64, all of them in float32 are within 32 units.

    Args:
        tx: the transformation to go on with.
        optax_state: what Optax's `init` or `update` returned.
        params: the parameters, needed where Optax keeps no moment of every one of them and `tx`
            must know: where all are masked.

    Returns:
        The state of `tx`. Arrays that need no other dtype are shared with `optax_state`: donate
        one of the two only.

    Raises:
        ValueError: if what `tx` keeps is not what `optax_state` keeps; the message says what was
            looked for and what was found.
        TypeError: if `tx` is not a transformation, or `params` are needed.

    >>> import gdtx, optax, jax.numpy as jnp
    >>> params = {"w": jnp.ones(2)}
    >>> optax_tx = optax.adam(0.1)
    >>> _, optax_state = optax_tx.update(params, optax_tx.init(params))
    >>> state = gdtx.interop.load_optax_state(gdtx.adam(0.1), optax_state)
    >>> gdtx.find(state, "mu"), gdtx.find(state, "step")["0.nu.0.2.step"]
    ({'w': Array([0.1, 0.1], dtype=float32)}, Array(1, dtype=int32))
    """
    with at_work("load_optax_state"):
        if not isinstance(tx, GradientTransformation):
            fail(TypeError, f"tx must be a transformation of gdtx, got {describe(tx)}")
        theirs = _Theirs(optax_state)
        state = _loaded(tx, tx.init(theirs.params() if params is None else params), (), theirs)
        theirs.check_empty(tx)
        return state


class _Kept(NamedTuple):
    """A buffer that Optax keeps: where, under which name, and whether what keeps nothing is between
    it and the one before."""

    path: str
    field: str
    tree: PyTree
    after_link: bool


class _Theirs:
    """What an Optax state keeps, taken out in order."""

    def __init__(self, state: PyTree):
        self.counts: dict[str, Any] = {}
        self.hyperparams: dict[str, Any] = {}
        self.kept: list[_Kept] = []
        self.taken = 0
        self.link = False  # whether one was passed since the last buffer, here and in tx
        self.link_in_tx = False
        self.read(state, "optax_state")
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
            for label, inner in inner_states.items():
                self.read(inner, f"{path}.inner_states[{label!r}]")
        elif isinstance(state, tuple):
            self.count(state, path)
            buffers = [field for field in fields or () if field != "count"]
            for field in buffers:
                kept = _Kept(f"{path}.{field}", field, getattr(state, field), self.link)
                self.kept.append(kept)
                self.link = False
            self.link = self.link or not buffers
        else:
            fail(ValueError, f"{path} is {describe(state)}, expected a state of Optax")

    def count(self, state: Any, path: str) -> None:
        if "count" in state._fields:
            self.counts[f"{path}.count"] = state.count

    def params(self) -> PyTree:
        """A tree like the parameters: the widest of the buffers that have no holes."""
        whole = [kept.tree for kept in self.kept if not _has_holes(kept.tree)]
        if self.kept and not whole:
            fail(
                TypeError,
                "params are needed, because Optax's state keeps no moment of every parameter: "
                "call load_optax_state(tx, optax_state, params)",
            )
        return max(whole, key=_nbytes, default=())

    def buffer(self, names: tuple[str, ...], old: PyTree) -> PyTree:
        """The next buffer, for the one of `tx` that is reached by these names."""
        fields = _fields(names)
        looked_for = f"looked for {' or '.join(fields)} in Optax's state"
        if self.taken == len(self.kept):
            fail(ValueError, f"{looked_for}, which keeps {self.summary()}")
        kept = self.kept[self.taken]
        if kept.field not in fields:
            fail(ValueError, f"{looked_for}, found {kept.path}; it keeps {self.summary()}")
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
        return _like(old, kept)

    def step(self, old: jax.Array) -> jax.Array:
        """The count, as a copy: every one in a state is a buffer of its own."""
        if not self.counts:
            fail(
                ValueError,
                f"looked for a count in Optax's state, which keeps {self.summary()} and no count",
            )
        return _placed(jnp.array(next(iter(self.counts.values())), old.dtype), old)

    def check_empty(self, tx: GradientTransformation) -> None:
        if self.taken < len(self.kept):
            kept = self.kept[self.taken]
            fail(ValueError, f"{tx} keeps nothing like {kept.path} of Optax's state")

    def summary(self) -> str:
        return ", ".join(kept.path for kept in self.kept) or "no moments"


def _fields(names: tuple[str, ...]) -> tuple[str, ...]:
    """The fields of Optax's states that hold what these names lead to in ours."""
    return next((fields for name, fields in _meaning.items() if name in names), names[-1:])


# In this order, because the buffers of `mu` and `nu` belong to an `ema` most often. Optax keeps the
# mean of squares where `variance` keeps what it says.
_meaning = {
    "variance": ("a variance",),
    "feedback": ("e_x",),
    "running_sum": ("sum_of_squares",),
    "mu": ("mu",),
    "nu": ("nu", "e_g"),
    "trace": ("trace",),
    "ema": ("ema",),
}

# Their last field is the state of what they wrap, which is updated whenever they are.
_transparent = ("InjectHyperparamsState", "InjectStatefulHyperparamsState", "MaskedState")


def _loaded(
    tx: GradientTransformation, state: PyTree, names: tuple[str, ...], theirs: _Theirs
) -> PyTree:
    """The fresh `state` of `tx`, with what it keeps taken from theirs."""
    name, given = tx.signature.name, tx.arguments

    def loaded(part: GradientTransformation, state: PyTree, *below: str) -> PyTree:
        return _loaded(part, state, (*names, name, *below), theirs)

    with at_work(name):
        if tx.factory is GradientTransformation:
            if jax.tree.leaves(state):
                fail(ValueError, f"cannot tell what {describe(state)} keeps")
            if not {"join", "feedback"} & set(names):
                theirs.link_in_tx = True
            return state
        if schedules := tx.signature.scheduled(given):
            step = theirs.step(state.step)
            return ScheduledState(step, loaded(tx._at(step, schedules), state.inner))
        if tx.factory is chain:
            return tuple(map(loaded, given["links"], state))
        if tx.factory is join:
            parts = {}
            for branch, part in state.items():
                with at_work(branch):
                    parts[branch] = loaded(given[branch], part, branch)
            return parts
        if tx.factory is feedback:
            return loaded(given["statistic"], state)
        if tx.factory is masked:
            return MaskedState(loaded(given["inner"], state.inner))
        if tx.factory is tunable:
            held = {
                path: _placed(jnp.array(theirs.hyperparams.get(path, old), old.dtype), old)
                for path, old in state.hyperparams.items()
            }
            return TunableState(held, loaded(given["inner"].replace(**held), state.inner))
        if tx.factory is recur:
            return RecurState(
                {name: theirs.buffer((*names, name), old) for name, old in state.buffers.items()}
            )
        if tx.factory is counted:
            return CountState(theirs.step(state.step))
        return loaded(tx._formula(given), state)


def _like(old: PyTree, kept: _Kept) -> PyTree:
    """What Optax kept, in our container and dtype."""
    ours, structure = jax.tree_util.tree_flatten_with_path(old)
    theirs = jax.tree_util.tree_flatten_with_path(kept.tree)[0]
    for (our_path, x), (path, y) in zip(ours, theirs, strict=False):
        if our_path != path or x.shape != jnp.shape(y):
            where = f"{kept.path}{jax.tree_util.keystr(path)} is {describe(y)}"
            wanted = f"params{jax.tree_util.keystr(our_path)} of shape {x.shape}"
            fail(ValueError, f"{where}, expected what belongs to {wanted}")
    if len(ours) != len(theirs):
        fail(ValueError, f"{kept.path} has {len(theirs)} leaves, tx is for {len(ours)} parameters")
    return structure.unflatten([_cast(y, x) for (_, x), (_, y) in zip(ours, theirs, strict=True)])


def _cast(new: Any, old: jax.Array) -> jax.Array:
    # Theirs is where it is used; what a checkpoint gave is nowhere yet.
    is_placed = isinstance(new, jax.Array)
    new = jnp.asarray(new, old.dtype)
    return new if is_placed else _placed(new, old)


def _placed(new: jax.Array, old: jax.Array) -> jax.Array:
    if isinstance(old, Tracer) or isinstance(new, Tracer) or not old.committed:
        return new
    return jax.device_put(new, old.sharding)


def _has_holes(tree: PyTree) -> bool:
    """Whether a mask left something out, for which Optax has a node without leaves."""

    def is_hole(node: Any) -> bool:
        return type(node).__name__ == "MaskedNode"

    return any(map(is_hole, jax.tree.leaves(tree, is_leaf=is_hole)))


def _nbytes(tree: PyTree) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
