"""Test functions of unconstrained minimization, each with its usual start and its least value.

    Moré, Garbow & Hillstrom 1981, Testing Unconstrained Optimization Software

has most, by these numbers of its list; they are sums of squares. The others are the problems of
`gdtx.explore`. Of the least values the paper has six digits; Gulf's is as corrected in later lists.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from gdtx import explore

Array = Any


class Problem(NamedTuple):
    """A function, where to begin, and the values of its known minima."""

    name: str
    fun: Callable[[Array], Array]
    start: tuple[float, ...]
    least: tuple[float, ...] = (0.0,)


def squares(
    name: str, residuals: Callable[[Array], list[Array]], start: Any, least: Any = (0.0,)
) -> Problem:
    def fun(x: Array) -> Array:
        return sum(jnp.sum(jnp.square(r)) for r in residuals(x))

    return Problem(name, fun, tuple(map(float, start)), least)


def _count(last: int) -> Array:
    return np.arange(1, last + 1)


def _powell_badly_scaled(x: Array) -> list[Array]:
    return [1e4 * x[0] * x[1] - 1, jnp.exp(-x[0]) + jnp.exp(-x[1]) - 1.0001]


def _helical_valley(x: Array) -> list[Array]:
    turns = jnp.arctan(x[1] / x[0]) / (2 * jnp.pi) + jnp.where(x[0] < 0, 0.5, 0)
    return [10 * (x[2] - 10 * turns), 10 * (jnp.hypot(x[0], x[1]) - 1), x[2]]


def _gaussian(x: Array) -> list[Array]:
    half = [0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521]
    y, t = np.array([*half, 0.3989, *half[::-1]]), (8 - _count(15)) / 2
    return [x[0] * jnp.exp(-x[1] * (t - x[2]) ** 2 / 2) - y]


def _gulf(x: Array) -> list[Array]:
    t = _count(99) / 100
    y = 25 + (-50 * np.log(t)) ** (2 / 3)
    return [jnp.exp(-(jnp.abs(y - x[1]) ** x[2]) / x[0]) - t]


def _box(x: Array) -> list[Array]:
    t = 0.1 * _count(10)
    return [jnp.exp(-t * x[0]) - jnp.exp(-t * x[1]) - x[2] * (np.exp(-t) - np.exp(-10 * t))]


def _powell_singular(x: Array) -> list[Array]:
    a, b, c, d = x.reshape(-1, 4).T
    return [a + 10 * b, 5**0.5 * (c - d), (b - 2 * c) ** 2, 10**0.5 * (a - d) ** 2]


def _wood(x: Array) -> list[Array]:
    return [
        10 * (x[1] - x[0] ** 2), 1 - x[0], 90**0.5 * (x[3] - x[2] ** 2), 1 - x[2],
        10**0.5 * (x[1] + x[3] - 2), (x[1] - x[3]) / 10**0.5,
    ]  # fmt: skip


def _brown_dennis(x: Array) -> list[Array]:
    t = _count(20) / 5
    one, other = x[0] + t * x[1] - np.exp(t), x[2] + x[3] * np.sin(t) - np.cos(t)
    return [one**2 + other**2]


def _biggs(x: Array) -> list[Array]:
    t = 0.1 * _count(13)
    y = np.exp(-t) - 5 * np.exp(-10 * t) + 3 * np.exp(-4 * t)
    falls = x[2] * jnp.exp(-t * x[0]) - x[3] * jnp.exp(-t * x[1]) + x[5] * jnp.exp(-t * x[4])
    return [falls - y]


def _watson(x: Array) -> list[Array]:
    powers = (_count(29)[:, None] / 29) ** np.arange(len(x))
    slopes = np.arange(1, len(x)) * powers[:, :-1]
    return [slopes @ x[1:] - (powers @ x) ** 2 - 1, x[0], x[1] - x[0] ** 2 - 1]


def _rosenbrock(x: Array) -> list[Array]:
    odd, even = x.reshape(-1, 2).T
    return [10 * (even - odd**2), 1 - odd]


def _penalty_1(x: Array) -> list[Array]:
    return [1e-5**0.5 * (x - 1), jnp.sum(x**2) - 0.25]


def _penalty_2(x: Array) -> list[Array]:
    n = len(x)
    y = np.exp(_count(n)[1:] / 10) + np.exp(_count(n)[:-1] / 10)
    steps = jnp.exp(x[1:] / 10) + jnp.exp(x[:-1] / 10) - y
    ends = jnp.exp(x[1:] / 10) - np.exp(-0.1)
    weighted = jnp.sum(np.arange(n, 0, -1) * x**2) - 1
    return [x[0] - 0.2, 1e-5**0.5 * steps, 1e-5**0.5 * ends, weighted]


def _variably_dimensioned(x: Array) -> list[Array]:
    total = jnp.sum(_count(len(x)) * (x - 1))
    return [x - 1, total, total**2]


def _trigonometric(x: Array) -> list[Array]:
    n = len(x)
    return [n - jnp.sum(jnp.cos(x)) + _count(n) * (1 - jnp.cos(x)) - jnp.sin(x)]


def _chebyquad(x: Array) -> list[Array]:
    last, this, found = jnp.ones_like(x), 2 * x - 1, []
    for i in range(1, len(x) + 1):
        integral = 0 if i % 2 else -1 / (i**2 - 1)
        found.append(jnp.mean(this) - integral)
        last, this = this, 2 * (2 * x - 1) * this - last
    return found


def _brown_badly_scaled(x: Array) -> list[Array]:
    return [x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2]


def _explored() -> list[Problem]:
    made = [explore.quadratic((1.0, 1000.0), 0.5), explore.beale(), explore.valley()]
    names = ["turned bowl", "Beale", "valley"]
    return [Problem(name, p.fun, p.start) for name, p in zip(names, made, strict=True)]


PROBLEMS = [
    *_explored(),
    squares("Rosenbrock", _rosenbrock, [-1.2, 1]),
    squares("Powell badly scaled", _powell_badly_scaled, [0, 1]),
    squares("Brown badly scaled", _brown_badly_scaled, [1, 1]),
    squares("Helical valley", _helical_valley, [-1, 0, 0]),
    squares("Gaussian", _gaussian, [0.4, 1, 0], (1.12793e-8,)),
    squares("Gulf", _gulf, [5, 2.5, 0.15]),
    squares("Box 3D", _box, [0, 10, 20]),
    squares("Powell singular", _powell_singular, [3, -1, 0, 1]),
    squares("Wood", _wood, [-3, -1, -3, -1]),
    squares("Brown-Dennis", _brown_dennis, [25, 5, -5, -1], (85822.2,)),
    squares("Biggs EXP6", _biggs, [1, 2, 1, 1, 1, 1], (0.0, 5.65565e-3)),
    squares("Watson", _watson, [0] * 6, (2.28767e-3,)),
    squares("extended Rosenbrock", _rosenbrock, [-1.2, 1] * 10),
    squares("extended Powell", _powell_singular, [3, -1, 0, 1] * 5),
    squares("Penalty I", _penalty_1, _count(10), (7.08765e-5,)),
    squares("Penalty II", _penalty_2, [0.5] * 10, (2.93660e-4,)),
    squares("Variably dimensioned", _variably_dimensioned, 1 - _count(10) / 10),
    squares("Trigonometric", _trigonometric, [0.1] * 10, (0.0, 2.79506e-5)),
    squares("Chebyquad", _chebyquad, _count(8) / 9, (3.51687e-3,)),
]
