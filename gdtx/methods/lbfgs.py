"""L-BFGS: a quasi-Newton method with a line search."""

from __future__ import annotations

from ..core.calls.kinds import NonNegative, ParamsFunction, PositiveCount
from ..core.calls.types import TransformationLike
from ..core.combine import chain
from ..core.errors import summarize
from ..core.factory import transformation
from ..core.transformation import GradientTransformation
from ..links.arithmetic import scale, scale_by_learning_rate
from ..links.matrix.lbfgs import scale_by_lbfgs
from ..links.search.zoom import zoom_linesearch

_zoom = zoom_linesearch(20, initial_guess_strategy="one")


@transformation
def lbfgs(
    learning_rate: NonNegative | None = None,
    memory_size: PositiveCount = 10,
    scale_init_precond: bool = True,
    linesearch: TransformationLike | None = _zoom,
    *,
    project: ParamsFunction | None = None,
) -> GradientTransformation:
    r"""L-BFGS: $\theta_t = \theta_{t-1} - \eta_t H_t g_t$, where $H_t$ is of the last steps.

    :func:`scale_by_lbfgs`, :func:`scale` by -1 or :func:`scale_by_learning_rate`, and
    :func:`zoom_linesearch`. For functions without noise: gradients of all the data. Every `update`
    needs the parameters and `value=`, `grad=` and `value_fn=`.

    Args:
        learning_rate: $\eta$, factor of the steps before the line search, 1 if None.
        memory_size: $m$, how many pairs of differences are kept.
        scale_init_precond: whether $H_t$ is built from the curvature of the newest pair.
        linesearch: such as :func:`zoom_linesearch` or :func:`backtracking_linesearch`; None goes
            by the learning rate, and asks for no `value_fn`.
        project: function of the parameters that brings each number between its bounds, as
            `lambda p: jnp.clip(p, 0, 1)` does; begin between them. For the link and the search.

    Returns:
        A transformation whose state holds $2m + 2$ arrays for each and one gradient.

    Raises:
        TypeError: from `update`, if it is called without `value`, `grad` or `value_fn`; if there is
            a `project` and a `linesearch` that takes none.

    References:
        Liu & Nocedal 1989, On the Limited Memory BFGS Method for Large Scale Optimization.

    >>> import gdtx, jax.numpy as jnp
    >>> f = lambda x: (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
    >>> tx, x = gdtx.lbfgs(), jnp.array([-1.2, 1.0])
    >>> state, value_and_grad = tx.init(x), gdtx.value_and_grad_from_state(f)
    >>> for _ in range(40):
    ...     value, grad = value_and_grad(x, state=state)
    ...     u, state = tx.update(grad, state, x, value=value, grad=grad, value_fn=f)
    ...     x = gdtx.apply_updates(x, u)
    >>> x.round(4)
    Array([1., 1.], dtype=float32)
    """
    factor = scale(-1.0) if learning_rate is None else scale_by_learning_rate(learning_rate)
    direction = scale_by_lbfgs(memory_size, scale_init_precond, project=project)
    if linesearch is None:
        return chain(direction, factor)
    if project is not None:
        if "project" not in getattr(linesearch, "arguments", {}):
            raise TypeError(
                "lbfgs: with project, linesearch must take it too, as zoom_linesearch does, got "
                f"{summarize(linesearch)}"
            )
        linesearch = linesearch.replace(project=project)
    return chain(direction, factor, linesearch)
