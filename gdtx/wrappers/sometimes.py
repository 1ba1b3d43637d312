"""Transformations that run on some steps only, and cost nothing on the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core.calls.kinds import PositiveCount, one_of
from ..core.calls.types import TransformationLike
from ..core.emitted import emitted_last
from ..core.errors import LeafError, call_with, fail, summarize
from ..core.factory import transformation
from ..core.numbers.numerics import cast, increment
from ..core.numbers.shards import one_for_all
from ..core.rules import walk
from ..core.transformation import GradientTransformation
from ..core.trees.layout import holding
from ..core.trees.short import in_short
from ..core.trees.tree import PyTree, leaves_as, scalar_like
from ..formula import MEMORY, Expression, Reader, Symbol, apply, contains, expression, formula_of, t
from ..formula.notation import escaped
from ._conditional import no_change, update_if


@in_short
class EveryState(NamedTuple):
    """State of what runs once in some steps: the number of all steps, and its state."""

    step: jax.Array
    inner: PyTree


@in_short
class WhenState(NamedTuple):
    """State of a transformation that runs when it is told to."""

    inner: PyTree


@transformation
def every(
    k: PositiveCount,
    inner: TransformationLike,
    *,
    start: PositiveCount = 1,
    otherwise: Annotated[str, one_of("update", "zero", "last")] = "update",
) -> GradientTransformation:
    r"""Run a transformation on every $k$-th step only, in a conditional of the program.

    It runs on the steps $s, s + k, s + 2k, \dots$, the first step being 1. On the others it costs
    nothing, and its state stays; its schedules and bias corrections count its own steps. Under
    `jax.vmap` over what decides, such as the state, both branches run; with the axes of
    :func:`member_axes` the count is shared and they do not.

    Args:
        k: how many steps apart it runs; at 1, and from the first step on, this is `inner` itself.
        inner: any transformation.
        start: $s$, the first step that runs it.
        otherwise: what the other steps emit: `"update"`, the update as it came; `"zero"`, no
            change (-0.0, which leaves every bit of the parameters); `"last"`, what a statistic
            emitted last, which takes no buffer beside its own: the last link of `inner` must be one
            that emits its buffer, such as :func:`ema`. Before `start` that is the first value of
            the buffer.

    Returns:
        A transformation whose state is one count and the state of `inner`.

    Raises:
        ValueError: if `k` or `start` is not positive.
        TypeError: from `update`, if `otherwise` is `"update"` and `inner` emits another shape or
            real numbers for complex ones, or `"last"` and it does not emit its buffer.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.every(2, gdtx.running_sum(), otherwise="last")
    >>> state = tx.init(jnp.zeros(()))
    >>> for gradient in (1.0, 10.0, 100.0):
    ...     updates, state = tx.update(jnp.array(gradient), state)
    ...     print(updates)
    1.0
    1.0
    101.0

    Muon that orthogonalizes its momentum on every fifth step only, and normalizes it on the others:

    >>> step = gdtx.chain(gdtx.trace(0.95), gdtx.normalize_by_global_norm(),
    ...                   gdtx.every(5, gdtx.orthogonalize()))
    """
    if k == 1 and start == 1:
        return inner

    def init(params: PyTree) -> EveryState:
        return EveryState(scalar_like(params, 0, jnp.int32), inner.init(params))

    def update(
        updates: PyTree, state: EveryState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, EveryState]:
        step = increment(state.step)
        updates, inner_state = update_if(
            (step >= start) & ((step - start) % k == 0),
            lambda: inner.update(updates, state.inner, params, **extra_args),
            _other(otherwise, inner, updates, state.inner),
            state.inner,
        )
        return updates, EveryState(step, inner_state)

    return GradientTransformation(init, update, holding(EveryState, inner=inner))


@formula_of(every)
def _(
    u: Expression, reader: Reader, k: int, inner: GradientTransformation, start: int, otherwise: str
) -> Expression:
    if k == 1 and start == 1:
        return reader.read(inner, u)
    values = reader.hyperparameters.values
    period = expression(k) if values else reader.claim((Symbol("k"), Symbol("K")), str(k))
    first = expression(start)
    if start > 1 and not values:
        first = reader.claim((Symbol("s"), Symbol("S")), str(start))
    runs = apply("divides", period, t - first)
    # Within the first steps differences may be multiples too.
    conditions = [apply("at most", first, t), runs] if start > k else [runs]
    return _read(u, reader, inner, otherwise, conditions, (t - first) / period + 1)


@transformation
def when(
    name: str,
    inner: TransformationLike,
    *,
    otherwise: Annotated[str, one_of("update", "zero", "last")] = "update",
) -> GradientTransformation:
    r"""Run a transformation where a condition holds only, in a conditional of the program.

    On the others it costs nothing, and its state stays; its schedules and bias corrections count
    its own steps. If the condition never holds this is :func:`identity`. Under `jax.vmap` over the
    condition both branches run.

    Args:
        name: of the condition: an extra argument of `update`, a boolean scalar that may be traced,
            or a value of the :func:`let` around it.
        inner: any transformation.
        otherwise: what the other steps emit: `"update"`, `"zero"` or `"last"`, as in
            :func:`every`.

    Returns:
        A transformation whose state is that of `inner`.

    Raises:
        TypeError: from `update`, if nothing has that name, or what has it is no boolean scalar; and
            as :func:`every`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.when("refresh", gdtx.running_sum(), otherwise="last")
    >>> updates, state = tx.update(jnp.array(1.0), tx.init(jnp.zeros(())), refresh=True)
    >>> updates, state = tx.update(jnp.array(10.0), state, refresh=False)
    >>> updates
    Array(1., dtype=float32)
    """

    def update(
        updates: PyTree, state: WhenState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, WhenState]:
        updates, inner_state = update_if(
            _condition(name, extra_args),
            lambda: inner.update(updates, state.inner, params, **extra_args),
            _other(otherwise, inner, updates, state.inner),
            state.inner,
        )
        return updates, WhenState(inner_state)

    return GradientTransformation(
        lambda params: WhenState(inner.init(params)), update, holding(WhenState, inner=inner)
    )


@formula_of(when)
def _(
    u: Expression, reader: Reader, name: str, inner: GradientTransformation, otherwise: str
) -> Expression:
    holds = Symbol(rf"\text{{if {escaped(name)}}}")
    with reader.sometimes([holds]):
        count = reader.remember(("n", "N"), MEMORY + 1, 0)
    place = len(reader.definitions)
    out = _read(u, reader, inner, otherwise, [holds], count)
    read = [out, *(definition.value for definition in reader.definitions[place:])]
    if not any(contains(value, lambda part: part == count) for value in read):
        del reader.definitions[place - 1]
    return out


def _read(
    u: Expression, reader: Reader, inner: GradientTransformation, otherwise: str,
    conditions: list[Expression], count: Expression,
) -> Expression:  # fmt: skip
    u = reader.atom(u) if otherwise == "update" else u
    with reader.sometimes(conditions, count):
        out = reader.counted(reader.read(inner, u))
    if otherwise == "last":
        return out  # which is what it remembers
    for condition in reversed(conditions):
        out = apply("cases", out, condition, u if otherwise == "update" else 0)
    return out


def _condition(name: str, extra_args: dict[str, Any]) -> jax.Array:
    if name not in extra_args:
        fail(
            TypeError,
            f"needs the condition {name!r}: {call_with(name)}, or name it in let(..., {name}=...)",
        )
    leaves = jax.tree.leaves(extra_args[name])
    value = leaves[0] if len(leaves) == 1 else extra_args[name]
    if jnp.result_type(value) != jnp.bool_ or jnp.shape(value) != ():
        fail(TypeError, f"{name} must be a boolean scalar, got {summarize(extra_args[name])}")
    return one_for_all(name, jnp.asarray(value))


def _other(
    otherwise: str, inner: GradientTransformation, updates: PyTree, state: PyTree
) -> Callable[[PyTree], PyTree]:
    """What steps emit that do not run `inner`, as a function of what it would emit."""
    if otherwise == "zero":
        return no_change(updates)
    leaves, structure = jax.tree.flatten(updates)
    kept = leaves
    if otherwise == "last":
        kept = leaves_as(structure, emitted_last(inner, state), "state", "updates")

    def one(u: jax.Array, kept: jax.Array, like: Any) -> jax.Array:
        is_real = not jnp.issubdtype(like.dtype, jnp.complexfloating)
        if otherwise == "last" and is_real:
            kept = kept.real
        if kept.shape != like.shape or (jnp.iscomplexobj(kept) and is_real):
            raise LeafError(
                TypeError,
                f"cannot pass as it is where inner emits {summarize(like)}, got {summarize(kept)}: "
                'choose otherwise="zero"',
            )
        return cast(kept, like.dtype)

    def other(emitted: PyTree) -> PyTree:
        likes = leaves_as(structure, emitted, "what inner emits", "updates")
        return structure.unflatten(walk(one, structure, leaves, kept, likes))

    return other
