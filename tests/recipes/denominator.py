"""Recipes that change the denominator."""

from itertools import count

import numpy as np

from .problem import Peer, per_array

_RATE = """chain(
    square(),
    ema(0.999),
    root(1e-8),
    counted(lambda t: lambda v: 1e-3 * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t) / v),
)"""

PEERS = [
    Peer(
        "adopt",
        "ADOPT",
        {"lr": 1e-3},
        "their bounds begin at the fourth root of 2, the paper's at 1",
        "adopt(1e-3, max_delta=lambda t: (t + 1) ** 0.25)",
    ),
    Peer("adamaxw", "AdaMax", {"lr": 2e-3, "weight_decay": 0.01, "weight_decouple": True}),
    Peer(
        "adamod",
        "AdaMod",
        {"betas": (0.9, 0.999, 0.999)},
        "they and the authors' program have the correction of m in the rate that is bounded",
        f"""chain(
            join(
                multiply,
                m=ema(0.9),
                rate=let(
                    join(jnp.minimum, n=value_of("n"), s=chain(value_of("n"), ema(0.999))),
                    n={_RATE},
                ),
            ),
            scale(-1.0),
        )""",
    ),
    Peer(
        "adabound",
        "AdaBound",
        {},
        "they and the authors' program correct biases, in the rate, and leave out the root of t",
        f"""chain(
            join(
                multiply,
                m=ema(0.9),
                rate=chain(
                    {_RATE},
                    counted(
                        lambda t: lambda u: jnp.clip(
                            u, 0.1 * (1 - 1 / (0.001 * t + 1)), 0.1 * (1 + 1 / (0.001 * t))
                        )
                    ),
                ),
            ),
            scale(-1.0),
        )""",
    ),
    Peer("came", "CAME", {"lr": 2e-4}),
    Peer("adahessian", "AdaHessian", {"lr": 0.15, "eps": 1e-4}),
    Peer("adashift", "AdaShift", {"reduce_func": None}),
]


@per_array
def sophia(x, gradient, hessian):
    m = h = 0.0
    for t in count(1):
        m = 0.965 * m + 0.035 * gradient(x, t)
        if t % 10 == 1:
            h = 0.99 * h + 0.01 * hessian(x, t)
        x = x - 1e-2 * 1e-4 * x - 1e-2 * np.clip(m / np.maximum(0.01 * h, 1e-8), -1, 1)
        yield x


@per_array
def adahessian(x, gradient, hessian):
    m = v = 0.0
    for t in count(1):
        m = 0.9 * m + 0.1 * gradient(x, t)
        v = 0.999 * v + 0.001 * hessian(x, t) ** 2
        x = x - 0.15 * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-4)
        yield x


@per_array
def adamaxw(x, gradient):
    m = n = 0.0
    for t in count(1):
        g = gradient(x, t)
        m = 0.9 * m + 0.1 * g
        n = np.maximum(0.999 * n, np.abs(g) + 1e-8)
        x = x - 2e-3 * (m / (1 - 0.9**t) / n + 0.01 * x)
        yield x


@per_array
def padam(x, gradient):
    m = v = largest = 0.0
    for t in count(1):
        g = gradient(x, t)
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        largest = np.maximum(largest, v)
        x = x - 0.1 * m / largest**0.125
        yield x


@per_array
def novograd(x, gradient):
    v = m = 0.0
    for t in count(1):
        g = gradient(x, t)
        v = np.sum(g**2) if t == 1 else 0.25 * v + 0.75 * np.sum(g**2)
        m = 0.9 * m + g / (np.sqrt(v) + 1e-6) + 1e-3 * x
        x = x - 0.01 * m
        yield x


@per_array
def adamod(x, gradient):
    m = v = s = 0.0
    for t in count(1):
        g = gradient(x, t)
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        rate = 1e-3 / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        s = 0.999 * s + 0.001 * rate
        x = x - np.minimum(rate, s) * m / (1 - 0.9**t)
        yield x


@per_array
def adabound(x, gradient):
    m = v = 0.0
    for t in count(1):
        g = gradient(x, t)
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        lower, upper = 0.1 - 0.1 / (0.001 * t + 1), 0.1 + 0.1 / (0.001 * t)
        x = x - np.clip(1e-3 / np.sqrt(v), lower, upper) / np.sqrt(t) * m
        yield x


@per_array
def adashift(x, gradient):
    v, seen = 0.0, []
    weights = 0.9 ** np.arange(10)
    for t in count(1):
        g = gradient(x, t)
        seen.append(g)
        if t > 10:
            v = 0.999 * v + 0.001 * seen[-11] ** 2
            recent = zip(weights, seen[::-1], strict=False)
            m = sum(weight * g for weight, g in recent) / weights.sum()
            x = x - 1e-3 * m / (np.sqrt(v / (1 - 0.999 ** (t - 10))) + 1e-10)
        yield x


@per_array
def came(x, gradient):
    rows = columns = surprise_rows = surprise_columns = m = 0.0
    for t in count(1):
        g = gradient(x, t)
        squares = g**2 + 1e-30
        rows = 0.999 * rows + 0.001 * squares.sum(axis=1)
        columns = 0.999 * columns + 0.001 * squares.sum(axis=0)
        u = g / np.sqrt(np.outer(rows, columns) / rows.sum())
        u = u / max(1.0, np.sqrt(np.mean(u**2)))
        m = 0.9 * m + 0.1 * u
        surprise = (u - m) ** 2 + 1e-16
        surprise_rows = 0.9999 * surprise_rows + 0.0001 * surprise.sum(axis=1)
        surprise_columns = 0.9999 * surprise_columns + 0.0001 * surprise.sum(axis=0)
        s = np.outer(surprise_rows, surprise_columns) / surprise_rows.sum()
        x = x - 2e-4 * m / np.sqrt(s)
        yield x


@per_array
def adopt(x, gradient):
    v, m = gradient(x, 1) ** 2, 0.0
    yield x
    for t in count(2):
        g = gradient(x, t)
        bound = (t - 1) ** 0.25
        m = 0.9 * m + 0.1 * np.clip(g / np.maximum(np.sqrt(v), 1e-6), -bound, bound)
        v = 0.9999 * v + 0.0001 * g**2
        x = x - 1e-3 * m
        yield x


@per_array
def adam_mini(x, gradient):
    m = v = 0.0
    for t in count(1):
        g = gradient(x, t)
        m = 0.9 * m + 0.1 * g
        v = 0.95 * v + 0.05 * (np.mean(g**2, axis=0) if g.ndim else g**2)
        step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8)
        x = x - 1e-3 * (step + 0.1 * x)
        yield x
