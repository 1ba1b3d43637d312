"""Functions of two numbers on which methods can be watched."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core.trees.short import in_short

Point = tuple[float, float]


@in_short
class Problem(NamedTuple):
    """A function of two numbers to minimize, with what a picture of it needs.

    Args:
        name: what it is called.
        fun: function of an array of shape (2,) that returns a scalar.
        start: where paths begin.
        minima: where the function is least; empty where there is no such place.
        bounds: what a picture shows, as ((left, right), (bottom, top)).
    """

    name: str
    fun: Callable[[jax.Array], jax.Array]
    start: Point
    minima: tuple[Point, ...]
    bounds: tuple[Point, Point]

    def _facts(self) -> dict[str, Any]:
        return {"name": self.name, "start": self.start, "minima": self.minima}


def quadratic(curvatures: tuple[float, float] = (1.0, 25.0), angle: float = 0.0) -> Problem:
    r"""An ill-conditioned bowl, $f(x) = \tfrac12 (h_1 z_1^2 + h_2 z_2^2)$.

    $z$ are the coordinates along the axes of the bowl, which is turned by an angle: then methods
    that scale each coordinate on its own no longer see the axes.

    Args:
        curvatures: $h_1, h_2$. With one of them negative it is a saddle without end.
        angle: of the first axis against the first coordinate, in radians.

    >>> from gdtx import explore
    >>> problem = explore.quadratic((1.0, 100.0))
    >>> import jax, jax.numpy as jnp
    >>> jax.grad(problem.fun)(jnp.array([1.0, 1.0]))
    Array([  1., 100.], dtype=float32)
    """
    cos, sin = math.cos(angle), math.sin(angle)

    def fun(x: jax.Array) -> jax.Array:
        along, across = cos * x[0] + sin * x[1], cos * x[1] - sin * x[0]
        return 0.5 * (curvatures[0] * along**2 + curvatures[1] * across**2)

    start = (-4.0 * cos - 1.5 * sin, -4.0 * sin + 1.5 * cos)
    minima = ((0.0, 0.0),) if min(curvatures) > 0 else ()
    width, height = 5 * abs(cos) + 2.5 * abs(sin), 5 * abs(sin) + 2.5 * abs(cos)
    return Problem("quadratic", fun, start, minima, ((-width, width), (-height, height)))


def rosenbrock() -> Problem:
    r"""A bent valley with a flat floor, $(1 - x)^2 + 100 (y - x^2)^2$, least at (1, 1).

    References:
        Rosenbrock 1960, An Automatic Method for Finding the Greatest or Least Value of a Function.

    >>> from gdtx import explore
    >>> explore.rosenbrock().minima
    ((1.0, 1.0),)
    """

    def fun(x: jax.Array) -> jax.Array:
        return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2

    return Problem("Rosenbrock", fun, (-1.2, 1.0), ((1.0, 1.0),), ((-2.0, 2.0), (-1.0, 3.0)))


def beale() -> Problem:
    r"""A plain with steep walls, $\sum_{k=1}^{3} (c_k - x + x y^k)^2$, least at (3, 1/2).

    $c = (1.5, 2.25, 2.625)$.

    References:
        Beale 1958, On an Iterative Method for Finding a Local Minimum of a Function of More than
        One Variable.

    >>> from gdtx import explore
    >>> explore.beale().minima
    ((3.0, 0.5),)
    """

    def fun(x: jax.Array) -> jax.Array:
        return sum(
            ((c - x[0] + x[0] * x[1] ** k) ** 2 for k, c in ((1, 1.5), (2, 2.25), (3, 2.625))),
            start=jnp.zeros((), x.dtype),
        )

    return Problem("Beale", fun, (1.0, 1.5), ((3.0, 0.5),), ((-0.5, 4.5), (-1.0, 2.0)))


def rastrigin() -> Problem:
    r"""A bowl full of dents, $20 + \sum_i (x_i^2 - 10 \cos 2 \pi x_i)$, least at the origin.

    Near every point of whole numbers there is a local minimum.

    References:
        Rastrigin 1974, Systems of Extremal Control.

    >>> from gdtx import explore
    >>> explore.rastrigin().minima
    ((0.0, 0.0),)
    """

    def fun(x: jax.Array) -> jax.Array:
        return 20 + jnp.sum(x**2 - 10 * jnp.cos(2 * jnp.pi * x))

    return Problem("Rastrigin", fun, (2.4, -1.6), ((0.0, 0.0),), ((-3.0, 3.0), (-3.0, 3.0)))


def saddle() -> Problem:
    r"""Two minima with a saddle between them, $\tfrac14 (x^2 - 1)^2 + \tfrac12 y^2$.

    The saddle is at the origin, of curvatures -1 and 1. The start is a thousandth off the line from
    which everything runs into it.

    >>> from gdtx import explore
    >>> import jax, jax.numpy as jnp
    >>> jax.hessian(explore.saddle().fun)(jnp.zeros(2))
    Array([[-1.,  0.],
           [ 0.,  1.]], dtype=float32)
    """

    def fun(x: jax.Array) -> jax.Array:
        return 0.25 * (x[0] ** 2 - 1) ** 2 + 0.5 * x[1] ** 2

    minima = ((-1.0, 0.0), (1.0, 0.0))
    return Problem("saddle", fun, (1e-3, 1.0), minima, ((-1.6, 1.6), (-1.2, 1.2)))


def valley(curvature: float = 20.0) -> Problem:
    r"""A long valley with steep sides, $\sqrt{1 + x^2} - 1 + \tfrac12 h y^2$.

    Far from the minimum, at the origin, the floor falls by almost the same slope, 1, everywhere;
    there its curvature grows to 1. Across it the curvature is $h$ everywhere, so that gradient
    descent needs a learning rate below $2 / h$.

    Args:
        curvature: $h$, the curvature across the valley.

    >>> from gdtx import explore
    >>> import jax, jax.numpy as jnp
    >>> jax.grad(explore.valley().fun)(jnp.array([-8.0, 1.0])).round()
    Array([-1., 20.], dtype=float32)
    """

    def fun(x: jax.Array) -> jax.Array:
        return jnp.sqrt(1 + x[0] ** 2) - 1 + 0.5 * curvature * x[1] ** 2

    return Problem("valley", fun, (-8.0, 1.5), ((0.0, 0.0),), ((-9.0, 3.0), (-2.0, 2.0)))


def values_on_grid(problem: Problem, points: int = 120) -> tuple[Any, Any, Any]:
    """The function on a grid over the bounds: abscissae, ordinates, and values by (row, column)."""
    (left, right), (bottom, top) = problem.bounds
    x, y = jnp.linspace(left, right, points), jnp.linspace(bottom, top, points)
    rows = jax.vmap(jax.vmap(lambda x, y: problem.fun(jnp.stack([x, y])), (0, None)), (None, 0))
    return x, y, jax.jit(rows)(x, y)
