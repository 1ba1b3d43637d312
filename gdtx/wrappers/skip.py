"""Steps skipped, because their gradient would do harm."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..core.calls.kinds import Count, Positive, TreeFunction
from ..core.calls.types import TransformationLike
from ..core.errors import calling, fail, summarize
from ..core.factory import transformation
from ..core.numbers.norms import is_squarable
from ..core.numbers.numerics import increment
from ..core.numbers.shards import anywhere
from ..core.numbers.values import is_array
from ..core.transformation import GradientTransformation
from ..core.trees.layout import holding
from ..core.trees.short import in_short
from ..core.trees.tree import PyTree, statistic_like
from ..formula import Expression, Reader, apply, formula_of, opaque
from ..links.clipping import global_norm
from ._conditional import no_change, update_if


@in_short
class SkipState(NamedTuple):
    """State of a transformation that skips: all steps skipped, and how many the last in a row."""

    skipped: jax.Array
    consecutive: jax.Array
    inner: PyTree

    def describe(self) -> dict[str, jax.Array]:
        return {"skipped": self.skipped, "consecutive_skipped": self.consecutive}


@transformation(quiet=True)
def skip_when(
    inner: TransformationLike, is_bad: TreeFunction, max_consecutive: Count | None = None
) -> GradientTransformation:
    r"""Leave out the steps whose updates are bad.

    A step left out changes no bit of the parameters, and none of the state of `inner`, which is
    not even run: it emits -0.0, because x + -0.0 is x for every x.

    Args:
        inner: any transformation.
        is_bad: function of the incoming updates that returns a boolean scalar. Inside of
            :func:`sharded` it sees parts, and a step is bad if one part is.
        max_consecutive: how many steps in a row may be skipped. The next bad one emits NaN, so that
            a run which is broken for good is seen at once; the state stays the last good one. None
            skips for ever.

    Returns:
        A transformation whose state is two counts and the state of `inner`. Both stay at the
        largest int32.

    Raises:
        TypeError: from `update`, if `is_bad` returns anything but a boolean scalar.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.skip_when(gdtx.sgd(1.0), lambda u: jnp.any(u > 10))
    >>> updates, state = tx.update(jnp.array([99.0]), tx.init(jnp.zeros(1)))
    >>> updates, int(state.skipped)
    (Array([-0.], dtype=float32), 1)
    """

    def init(params: PyTree) -> SkipState:
        skipped, consecutive = (statistic_like(params, 0, jnp.int32) for _ in range(2))
        return SkipState(skipped, consecutive, inner.init(params))

    def update(
        updates: PyTree, state: SkipState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, SkipState]:
        with calling("is_bad"):
            bad = is_bad(updates)
        is_boolean = isinstance(bad, bool | np.bool_) or (is_array(bad) and bad.dtype == np.bool_)
        if not is_boolean or jnp.shape(bad) != ():
            fail(TypeError, f"is_bad must return a boolean scalar, got {summarize(bad)}")
        bad = anywhere(jnp.asarray(bad))
        consecutive = jnp.where(bad, increment(state.consecutive), 0)
        fill = None
        if max_consecutive is not None:
            fill = jnp.where(consecutive > max_consecutive, jnp.nan, 0.0)
        updates, inner_state = update_if(
            ~bad,
            lambda: inner.update(updates, state.inner, params, **extra_args),
            no_change(updates, fill),
            state.inner,
        )
        skipped = jnp.where(bad, increment(state.skipped), state.skipped)
        return updates, SkipState(skipped, consecutive, inner_state)

    return GradientTransformation(init, update, holding(SkipState, inner=inner))


@formula_of(skip_when)
def _(u: Expression, reader: Reader, inner: GradientTransformation, is_bad: Any) -> Expression:
    u = reader.atom(u)
    return apply("cases", reader.read(inner, u), apply("not", opaque(is_bad, u)), 0)


@transformation
def skip_nonfinite(
    inner: TransformationLike, max_consecutive: Count | None = None
) -> GradientTransformation:
    r"""Leave out the steps in whose updates is a NaN, an infinity or a number whose square is one.

    :func:`skip_when`. A second moment that is infinite once stays so, and what is divided by it is
    0, or NaN, for ever. Squares are finite up to $2^{64}$ in float32; numbers above $2^{61}$ are
    left out, because some methods square differences.

    Inside of :func:`accumulate_gradients` a bad batch spoils its mean, which is left out as a
    whole; outside, that batch alone is left out.

    Args:
        inner: the transformation that does not see the updates which are skipped.
        max_consecutive: how many steps in a row may be skipped; the next bad one emits NaN. None
            skips for ever.

    Returns:
        A transformation whose state is that of :func:`skip_when`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.skip_nonfinite(gdtx.adam(0.1))
    >>> updates, state = tx.update(jnp.array([jnp.nan, 1.0]), tx.init(jnp.zeros(2)))
    >>> updates, int(state.skipped)
    (Array([-0., -0.], dtype=float32), 1)
    """
    return skip_when(inner, _is_nonfinite, max_consecutive)


@formula_of(skip_nonfinite)
def _(u: Expression, reader: Reader, inner: GradientTransformation) -> Expression:
    u = reader.atom(u)
    return apply("cases", reader.read(inner, u), apply("finite", u**2), 0)


@transformation
def skip_large(
    inner: TransformationLike, max_norm: Positive, max_consecutive: Count | None = None
) -> GradientTransformation:
    r"""Leave out the steps whose updates are longer than a bound, or not finite.

    :func:`skip_when`. Where :func:`clip_by_global_norm` shortens an outlier, this drops it.

    Args:
        inner: the transformation that does not see the updates which are skipped.
        max_consecutive: how many steps in a row may be skipped; the next bad one emits NaN. None
            skips for ever.
        max_norm: largest :func:`global_norm` of a step that is taken, $c$.

    Returns:
        A transformation whose state is that of :func:`skip_when`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.skip_large(gdtx.sgd(1.0), max_norm=4.0)
    >>> tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))[0]
    Array([-0., -0.], dtype=float32)
    """

    def is_large(updates: PyTree) -> jax.Array:
        norm = global_norm(updates)
        return ~(jnp.isfinite(norm) & (norm <= max_norm))

    return skip_when(inner, is_large, max_consecutive)


@formula_of(skip_large, max_norm="c")
def _(u: Expression, reader: Reader, inner: GradientTransformation, max_norm: Any) -> Expression:
    u = reader.atom(u)
    return apply("cases", reader.read(inner, u), apply("at most", apply("norm", u), max_norm), 0)


def _is_nonfinite(updates: PyTree) -> jax.Array:
    return ~is_squarable(updates)
