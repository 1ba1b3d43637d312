"""The paths of methods on a problem in the plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..core.hyperparams import sweep
from ..core.numbers.values import is_array
from ..core.reading import hyperparams
from ..core.transformation import GradientTransformation
from ..core.trees.short import in_short
from .minimize import as_transformation, minimize, moved, value_and_gradient
from .problems import Problem


@in_short
class Trajectories(NamedTuple):
    """Paths on a problem, by name of the method.

    Args:
        problem: what was minimized.
        positions: arrays of shape (steps + 1, 2), from the start on.
        losses: arrays of shape (steps + 1,), the function there.
        transformations: the methods.
    """

    problem: Problem
    positions: dict[str, np.ndarray]
    losses: dict[str, np.ndarray]
    transformations: dict[str, GradientTransformation]

    def _facts(self) -> dict[str, Any]:
        steps = max((len(losses) - 1 for losses in self.losses.values()), default=0)
        ends = {name: losses[-1] for name, losses in self.losses.items()}
        return {"problem": self.problem.name, "steps": steps, "last_losses": ends}


def trajectories(
    transformations: Mapping[str, GradientTransformation],
    problem: Problem,
    steps: int,
    start: Any = None,
) -> Trajectories:
    """Follow methods on a problem in the plane: one scan, one program for all of them.

    Args:
        transformations: by name.
        problem: such as :func:`rosenbrock` returns.
        steps: how many updates to do.
        start: where to begin, the problem's own start by default.

    Returns:
        The positions and losses of each, as NumPy arrays; those of methods that diverge are
        infinite or NaN from somewhere on.

    Raises:
        ValueError: if there is no transformation, `steps` is negative, or the start is not a point.
        TypeError: if one is not a transformation.

    >>> from gdtx import explore
    >>> import gdtx
    >>> paths = explore.trajectories({"slow": gdtx.sgd(0.01), "fast": gdtx.sgd(0.07)},
    ...                              explore.quadratic(), 50)
    >>> paths.positions["fast"].shape, bool(paths.losses["fast"][-1] < paths.losses["slow"][-1])
    ((51, 2), True)
    """
    methods = _checked("trajectories", transformations, steps)

    def run(start: jax.Array) -> Any:
        def step(runs: dict[str, Any], _: None) -> Any:
            after, seen = {}, {}
            for name, tx in methods.items():
                x, state = runs[name]
                value, gradient = value_and_gradient(problem.fun, x)
                after[name] = moved(problem.fun, tx, x, state, value, gradient)
                seen[name] = x, value
            return after, seen

        runs, seen = jax.lax.scan(
            step, {name: (start, tx.init(start)) for name, tx in methods.items()}, length=steps
        )
        return seen, {name: (end, problem.fun(end)) for name, (end, _) in runs.items()}

    before, after = jax.jit(run)(_start("trajectories", problem, start))
    whole = {
        name: [np.append(xs, x[None], 0) for xs, x in zip(before[name], after[name], strict=True)]
        for name in methods
    }
    positions = {name: path for name, (path, _) in whole.items()}
    losses = {name: values for name, (_, values) in whole.items()}
    return Trajectories(problem, positions, losses, methods)


def tuned(
    transformations: Mapping[str, GradientTransformation],
    problem: Problem,
    steps: int,
    learning_rates: Sequence[float] | np.ndarray,
    start: Any = None,
) -> dict[str, GradientTransformation]:
    """Each method at its best of some learning rates: that with the least loss in the end.

    Args:
        transformations: by name, each with one learning rate, a number.
        problem: such as :func:`rosenbrock` returns.
        steps: how many updates to do.
        learning_rates: those to try.
        start: where to begin, the problem's own start by default.

    Returns:
        The transformations by name, with other learning rates.

    Raises:
        ValueError: if a method diverges at every learning rate: no loss in the end is finite and
            at most that at the start.
        TypeError: if a method has no learning rate, or several, or a schedule in its place.

    >>> from gdtx import explore
    >>> import gdtx
    >>> explore.tuned({"descent": gdtx.sgd(0.0)}, explore.quadratic(), 50, [0.001, 0.0625, 1.0])
    {'descent': sgd(learning_rate=0.0625, momentum=None, nesterov=False, accumulator_dtype=None)}
    """
    methods = _checked("tuned", transformations, steps)
    rates = np.asarray(learning_rates, float)
    start = _start("tuned", problem, start)
    first = problem.fun(start)
    best = {}
    for name, tx in methods.items():
        path = _learning_rate(name, tx)
        last = sweep(lambda tx: minimize(problem.fun, start, tx, steps).value, tx, {path: rates})
        good = np.where(last <= first, last, np.inf)  # NaN is not
        if not np.isfinite(good).any():
            raise ValueError(
                f"tuned: {name!r} diverges at every learning rate from {rates.min():.3g} to "
                f"{rates.max():.3g}: its loss after {steps} steps is above that at the start"
            )
        best[name] = tx.replace(**{path: float(rates[np.argmin(good)])})
    return best


def learning_rates(tx: GradientTransformation) -> dict[str, Any]:
    """The learning rates of a transformation by path, those that are numbers."""
    return {
        path: value
        for path, value in hyperparams(tx).items()
        if path.split(".")[-1] == "learning_rate"
        and (isinstance(value, float | int) or is_array(value))
    }


def _learning_rate(name: str, tx: GradientTransformation) -> str:
    found = list(learning_rates(tx))
    if len(found) != 1:
        raise TypeError(
            f"tuned: {name!r} must have one learning rate that is a number, "
            f"got {', '.join(found) or 'none'} in {tx!r}"
        )
    return found[0]


def _checked(who: str, transformations: Mapping[str, Any], steps: int) -> dict[str, Any]:
    if not isinstance(transformations, Mapping) or not transformations:
        raise ValueError(f"{who}: needs a dict of transformations by name, got {transformations!r}")
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 0:
        raise ValueError(f"{who}: steps must be a non-negative integer, got {steps!r}")
    return {
        str(name): as_transformation(f"{who}: {name!r}", tx) for name, tx in transformations.items()
    }


def _start(who: str, problem: Problem, start: Any) -> jax.Array:
    point = jnp.asarray(problem.start if start is None else start, float)
    if point.shape != (2,):
        raise ValueError(f"{who}: start must be two numbers, got an array of shape {point.shape}")
    return point
