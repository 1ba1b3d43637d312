"""The gradient where the loss is worst nearby."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core.calls.kinds import NonNegative
from ..core.calls.types import TransformationLike
from ..core.errors import calling
from ..core.factory import transformation
from ..core.numbers import norms as _norms
from ..core.numbers import numerics as _numerics
from ..core.numbers.handover import elsewhere
from ..core.rules import each_leaf, needed
from ..core.transformation import GradientTransformation
from ..core.trees.apply_updates import apply_updates
from ..core.trees.layout import holding
from ..core.trees.short import in_short
from ..core.trees.tree import PyTree, check_shapes, leaves_as
from ..formula import PARAMETERS, Expression, Reader, apply, formula_of


@in_short
class PerturbedState(NamedTuple):
    """State of sharpness-aware training: of the transformation that says where, and of `inner`."""

    perturbation: PyTree
    inner: PyTree


@transformation
def sharpness_aware(
    inner: TransformationLike,
    rho: NonNegative = 0.05,
    perturbation: TransformationLike | None = None,
) -> GradientTransformation:
    r"""Use the gradient a short way uphill: $\nabla f(\theta + \rho\,g / \|g\|)$.

    With a perturbation it is $\nabla f(\theta + \rho\,p)$, where $p$ is what that makes of $g$, for
    instance `scale(-1.0)` for extragradient, whose first step is downhill.

    Every `update` needs `grad_fn=`, a function of the parameters that returns the gradient, of the
    batch that $g$ is of. It is called once, and `inner` sees what it returns. Call `update` in a
    jitted step: outside of one, a new function is a new program.

    Args:
        inner: any transformation.
        rho: $\rho$, how far; at a gradient of 0 it stays where it is.
        perturbation: a transformation of the gradient in place of :func:`normalize_by_global_norm`.

    Returns:
        A transformation whose state is that of `inner`, or with a perturbation, that of both.

    Raises:
        TypeError: from `update`, if it is called without `grad_fn`.
        ValueError: from `update`, if it is called without the parameters, or the gradient is no
            tree like them.

    References:
        Foret et al. 2021, Sharpness-Aware Minimization for Efficiently Improving Generalization,
        arXiv:2010.01412; Kwon et al. 2021, ASAM, arXiv:2102.11600, has another perturbation.

    >>> import gdtx, jax, jax.numpy as jnp
    >>> gradient = jax.grad(lambda x: jnp.sum(x**2))
    >>> tx, params = gdtx.sharpness_aware(gdtx.sgd(0.5), rho=1.0), jnp.array([3.0, 4.0])
    >>> tx.update(gradient(params), tx.init(params), params, grad_fn=gradient)[0]
    Array([-3.6, -4.8], dtype=float32)
    """

    def init(params: PyTree) -> PyTree:
        if perturbation is None:
            return inner.init(params)
        return PerturbedState(perturbation.init(params), inner.init(params))

    def update(
        updates: PyTree,
        state: PyTree,
        params: PyTree = None,
        *,
        grad_fn: Callable[[PyTree], PyTree],
        **extra_args: Any,
    ) -> tuple[PyTree, PyTree]:
        structure = jax.tree.structure(updates)
        needed(params, structure)
        extra_args["grad_fn"] = grad_fn
        if perturbation is None:
            step, moved = _uphill(updates, rho), None
        else:
            step, moved = perturbation.update(updates, state.perturbation, params, **extra_args)
            state, leaves = state.inner, leaves_as(structure, step, "the perturbation", "updates")
            step = structure.unflatten(each_leaf(lambda p: rho * p, structure, leaves))
        uphill = apply_updates(params, step)
        with calling("grad_fn"), elsewhere():
            worst = grad_fn(uphill)
        check_shapes(updates, leaves_as(structure, worst, "grad_fn's result", "updates"), "grad_fn")
        updates, state = inner.update(worst, state, params, **extra_args)
        return updates, state if perturbation is None else PerturbedState(moved, state)

    both = holding(PerturbedState, perturbation=perturbation, inner=inner)
    return GradientTransformation(init, update, inner if perturbation is None else both)


@formula_of(sharpness_aware, rho=r"\rho")
def _(
    u: Expression, reader: Reader, inner: GradientTransformation, rho: Any, perturbation: Any
) -> Expression:
    u = reader.atom(u)
    if perturbation is None:
        step = rho * u / apply("norm", u)
    else:
        step = rho * reader.read(perturbation, u)
    worst = apply(r"\nabla f", PARAMETERS + step)
    return reader.read(inner, reader.define((u.accented("tilde"),), worst))


def _uphill(updates: PyTree, rho: Any) -> PyTree:
    """The updates brought to this global norm; 0 stays 0."""
    power, scaled = _norms.scaled_global_norm(jax.tree.leaves(updates))
    ratio = rho / jnp.where(scaled == 0, 1, scaled)

    def step(u: jax.Array) -> jax.Array:
        wide = _numerics.compute_dtype(u.dtype)
        real = jnp.finfo(wide).dtype
        return u.astype(wide) * power.astype(real) * ratio.astype(real)

    return jax.tree.map(step, updates)
