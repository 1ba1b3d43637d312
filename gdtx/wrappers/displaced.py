"""Gradients taken elsewhere than at the parameters that are meant."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core.calls.types import TransformationLike
from ..core.combine import chain
from ..core.factory import transformation
from ..core.memory import RecurState, accumulate
from ..core.numbers.numerics import cast, stored_dtype
from ..core.rules import each_leaf
from ..core.transformation import GradientTransformation
from ..core.trees.layout import holding
from ..core.trees.short import in_short
from ..core.trees.tree import PyTree, check_shapes, leaves_as
from ..formula import MEMORY, PARAMETERS, Expression, Reader, Symbol, formula_of, t
from ..links.differences import latest
from .evaluation import alongside, evaluated


@in_short
class DisplacedState(NamedTuple):
    """State of displaced training: how far from the parameters that are meant, and of `inner`."""

    displacement: PyTree
    inner: PyTree

    def eval_params(self, params: PyTree) -> PyTree:
        leaves, structure = jax.tree.flatten(_kept(self.displacement))
        meant = each_leaf(
            lambda d, y: y - d, structure, leaves, alongside(_kept(self.displacement), params)
        )
        return evaluated(self.inner, structure.unflatten(meant))


@transformation(exact=("displacement",))
def displaced(
    inner: TransformationLike, displacement: TransformationLike, from_point: bool = False
) -> GradientTransformation:
    r"""Take the gradient at a point beside the parameters that are meant.

    $$z_t = z_{t-1} + u_t, \quad d_t = \mathrm{displacement}(z_t - z_{t-1}), \quad
    y_t = z_t + d_t,$$

    with $u_t$ what `inner` makes of the gradient at $y_{t-1}$. The parameters are $y$, those of
    :func:`eval_params` are $z$, and both start as one. $z$ takes no memory: it is $y - d$. With
    `from_point`, the step too is from where the gradient is, $z_t = y_{t-1} + u_t$: Nesterov's own
    form. Of methods that differ in this alone:

    - `displaced(sgd(lr), scale(0.9), from_point=True)`: Nesterov's momentum;
    - `displaced(sgd(lr, 0.9), chain(normalize_by_global_norm(), scale(rho)))`: momentum-SAM;
    - `displaced(sgd(lr), identity())`: the optimistic gradient, or past extragradient.

    :func:`schedule_free` is the case in which $d$ leads towards the average of $z$; there the state
    has $z$ in place of $d$.

    `inner` and `displacement` see the parameters that the step is from. Where `inner` itself keeps
    parameters to evaluate with, as :func:`average` does, they are those of :func:`eval_params`.
    What keeps or rounds parameters, as :func:`master_weights`, goes around.

    Args:
        inner: any transformation.
        displacement: a transformation of the steps of $z$.
        from_point: whether steps are from $y$ in place of $z$.

    Returns:
        A transformation whose state is that of `inner` and that of `displacement`; and $d$, one
        buffer per array, unless `displacement` ends in a link that emits its own buffer, such as
        :func:`ema` or :func:`trace`.

    References:
        Nesterov 1983, A method for solving the convex programming problem with convergence rate
        $O(1/k^2)$; Yau et al. 2026, EMA-Nesterov, arXiv:2605.25395; Becker et al. 2024,
        Momentum-SAM, arXiv:2401.12033; Popov 1980, A modification of the Arrow-Hurwicz method.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.displaced(gdtx.sgd(0.25), gdtx.scale(0.5), from_point=True)
    >>> params = jnp.array([8.0])
    >>> updates, state = tx.update(params, tx.init(params), params)
    >>> params = gdtx.apply_updates(params, updates)
    >>> params, gdtx.eval_params(tx, state, params)
    (Array([5.], dtype=float32), Array([6.], dtype=float32))
    """
    link = displacement if _ends_in_its_buffer(displacement) else chain(displacement, latest())

    def init(params: PyTree) -> DisplacedState:
        return DisplacedState(link.init(params), inner.init(params))

    def update(
        updates: PyTree, state: DisplacedState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, DisplacedState]:
        if params is not None and not from_point:
            params = _meant(params, state)
        updates, inner_state = inner.update(updates, state.inner, params, **extra_args)
        leaves, structure = jax.tree.flatten(updates)
        before = leaves_as(structure, _kept(state.displacement), "state", "updates")
        check_shapes(updates, before, "state")
        step = each_leaf(jnp.add, structure, leaves, before) if from_point else leaves
        _, moved = link.update(structure.unflatten(step), state.displacement, params, **extra_args)
        after = leaves_as(structure, _kept(moved), "state", "updates")
        if from_point:
            leaves = each_leaf(lambda u, new: u + new, structure, leaves, after)
        else:
            leaves = each_leaf(lambda u, new, d: u + (new - d), structure, leaves, after, before)
        return structure.unflatten(leaves), DisplacedState(moved, inner_state)

    return GradientTransformation(
        init, update, holding(DisplacedState, displacement=link, inner=inner)
    )


@formula_of(displaced)
def _(
    u: Expression, reader: Reader, inner: GradientTransformation,
    displacement: GradientTransformation, from_point: bool,
) -> Expression:  # fmt: skip
    out = reader.read(inner, u)
    if not isinstance(out, Symbol):
        out = reader.define(tuple(Symbol(letter, time=t) for letter in "shqy"), out)
    moved = (PARAMETERS if from_point else MEMORY) + out
    z = reader.remember(("z",), moved, PARAMETERS.at(0))
    d = reader.read(displacement, z - z.at(t - 1) if from_point else out)
    if not (isinstance(d, Symbol) and _ends_in_its_buffer(displacement)):
        d = reader.remember(("d",), d, 0)
    return z + d - PARAMETERS


def _ends_in_its_buffer(tx: GradientTransformation) -> bool:
    """Whether what it emits is the buffer of its last link, so that it need not be kept again."""
    if tx.factory is accumulate:
        return not tx.arguments["nesterov"]
    if tx.factory is chain:
        links = tx.arguments["links"]
        return bool(links) and _ends_in_its_buffer(links[-1])
    if tx.factory is GradientTransformation or tx.signature.scheduled(tx.arguments):
        return False
    return _ends_in_its_buffer(tx.expression)


def _kept(state: PyTree) -> PyTree:
    """The buffer of the last link; found without it, because a state alone is evaluated."""
    while not isinstance(state, RecurState):
        state = state[-1]
    return state.buffers["value"]


def _meant(params: PyTree, state: DisplacedState) -> PyTree:
    """The parameters that are meant, in the dtypes of those that there are."""
    leaves, structure = jax.tree.flatten(params)
    kept = leaves_as(structure, _kept(state.displacement), "state", "params")
    meant = each_leaf(lambda p, d: p - d, structure, leaves, kept)
    return structure.unflatten(
        [cast(z, stored_dtype(p.dtype)) for z, p in zip(meant, leaves, strict=True)]
    )
