"""Recipes that change the average."""

from itertools import count

import numpy as np
import oracles_recent

from .problem import EARLY_EPS, FLOAT32, Adam, Peer, fed_back, per_array

PEERS = [
    Peer("ademamix", "AdEMAMix", {}),
    Peer("ademamix_warmed_up", "AdEMAMix", {"t_alpha_beta3": 10_000}),
    # Their first change is the gradient itself, which the bound on the norm hides here.
    Peer("mars", "MARS", {"optimize_1d": True}, rtol=1e-6, because="their first change differs"),
    Peer("laprop", "LaProp", {}, rtol=1e-7, because=FLOAT32),
    Peer("qhm", "QHM", {"lr": 0.1, "momentum": 0.999, "nu": 0.7}),
    Peer(
        "qhadam",
        "QHAdam",
        {"betas": (0.995, 0.999), "nus": (0.7, 0.9)},
        rtol=1e-7,
        because=FLOAT32,
    ),
    Peer("aggmo", "AggMo", {"lr": 0.1}),
    Peer("pnm", "PNM", {"lr": 0.1}),
    Peer("adanorm", "AdaNorm", {"betas": (0.9, 0.999)}, rtol=1e-6, because=EARLY_EPS),
    Peer("grams", "Grams", {"eps": 1e-8}),
    Peer(
        "diffgrad",
        "DiffGrad",
        {},
        EARLY_EPS,
        """chain(
            join(
                multiply,
                step=join(
                    divide,
                    m=first_moment(0.9),
                    v=chain(
                        square(),
                        ema(0.999),
                        root(1e-8),
                        counted(lambda t: lambda v: v / (1 - 0.999**t) ** 0.5),
                    ),
                ),
                friction=chain(
                    join(subtract, last=previous(latest()), g=identity()),
                    absolute(),
                    elementwise(jax.nn.sigmoid),
                ),
            ),
            scale_by_learning_rate(1e-3),
        )""",
    ),
    Peer(
        "madgrad",
        "MADGRAD",
        {"lr": 0.01},
        "they and the authors' program add eps to the rate, of which the paper says nothing",
        """chain(
            counted(lambda t: lambda g: 0.010001 * t**0.5 * g),
            recur(
                lambda u, s, v, x, params, step: (
                    0.1 * (x - (s + u) / ((v + u**2 / (0.010001 * step**0.5)) ** (1 / 3) + 1e-6))
                    - 0.1 * params,
                    {"s": s + u, "v": v + u**2 / (0.010001 * step**0.5), "x": x},
                ),
                s=0.0,
                v=0.0,
                x=lambda p: p,
            ),
        )""",
    ),
    Peer(
        "cautious_lion",
        "Lion",
        {"lr": 1e-3, "betas": (0.9, 0.99), "weight_decay": 0.1, "cautious": True},
        "they count one number more than is left, as the paper does and the authors' program not",
        """chain(
            join(
                lambda u, g: u * (u * g > 0) * u.size / (jnp.sum(u * g > 0) + 1),
                u=scale_by_lion(),
                g=identity(),
            ),
            add_decayed_weights(0.1),
            scale_by_learning_rate(1e-3),
        )""",
    ),
    Peer(
        "grokfast",
        "GrokFastAdamW",
        {"lr": 1e-3, "betas": (0.9, 0.98), "normalize_lr": False},
        rtol=1e-6,
        because="their denominator is the larger of root and eps",
    ),
]


@per_array
def laprop(x, gradient):
    n = m = 0.0
    for t in count(1):
        g = gradient(x, t)
        n = 0.999 * n + 0.001 * g**2
        m = 0.9 * m + 0.1 * g / (np.sqrt(n / (1 - 0.999**t)) + 1e-15)
        x = x - 4e-4 * m / (1 - 0.9**t)
        yield x


@per_array
def qhm(x, gradient):
    m = 0.0
    for t in count(1):
        g = gradient(x, t)
        m = 0.999 * m + 0.001 * g
        x = x - 0.1 * (0.3 * g + 0.7 * m)
        yield x


@per_array
def qhadam(x, gradient):
    m = v = 0.0
    for t in count(1):
        g = gradient(x, t)
        m = 0.995 * m + 0.005 * g
        v = 0.999 * v + 0.001 * g**2
        above = 0.3 * g + 0.7 * m / (1 - 0.995**t)
        below = np.sqrt(0.1 * g**2 + 0.9 * v / (1 - 0.999**t)) + 1e-8
        x = x - 1e-3 * above / below
        yield x


@per_array
def aggmo(x, gradient):
    velocities = {0.0: 0.0, 0.9: 0.0, 0.99: 0.0}
    for t in count(1):
        g = gradient(x, t)
        velocities = {damping: damping * v - g for damping, v in velocities.items()}
        x = x + 0.1 / 3 * sum(velocities.values())
        yield x


@per_array
def pnm(x, gradient):
    momenta = [0.0, 0.0]  # of odd and of even steps
    for t in count(1):
        g = gradient(x, t)
        momenta[t % 2] = 0.9**2 * momenta[t % 2] + (1 - 0.9**2) * g
        x = x - 0.1 / np.sqrt(2.0**2 + 1.0**2) * (2.0 * momenta[t % 2] - momenta[(t - 1) % 2])
        yield x


@per_array
def diffgrad(x, gradient):
    adam, last = Adam(), 0.0
    for t in count(1):
        g = gradient(x, t)
        friction = 1 / (1 + np.exp(-np.abs(last - g)))
        x = x - 1e-3 * friction * adam(g, t)
        last = g
        yield x


@per_array
def grams(x, gradient):
    adam = Adam()
    for t in count(1):
        g = gradient(x, t)
        x = x - 1e-3 * np.abs(adam(g, t)) * np.sign(g)
        yield x


@per_array
def gradient_centralization(x, gradient):
    v = 0.0
    for t in count(1):
        g = gradient(x, t)
        if g.ndim > 1:  # of each output, whose weights are a column
            g = g - g.mean(axis=0)
        v = 0.9 * v + g
        x = x - 0.1 * v
        yield x


@per_array
def adam_atan2(x, gradient):
    m = v = 0.0
    for t in count(1):
        g = gradient(x, t)
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        x = x - 1e-3 * np.arctan2(m / (1 - 0.9**t), np.sqrt(v / (1 - 0.999**t)))
        yield x


@per_array
def madgrad(x, gradient):
    start, s, v = x, 0.0, 0.0
    for t in count(1):
        g = gradient(x, t)
        weight = 0.01 * np.sqrt(t)
        s = s + weight * g
        v = v + weight * g**2
        z = start - s / (np.cbrt(v) + 1e-6)
        x = 0.9 * x + 0.1 * z
        yield x


@per_array
def cautious_adamw(x, gradient):
    adam = Adam()
    for t in count(1):
        g = gradient(x, t)
        u = adam(g, t)
        agrees = u * g > 0
        u = u * agrees / max(np.mean(agrees), 1e-3)
        x = x - 1e-3 * (u + 0.01 * x)
        yield x


@per_array
def cautious_lion(x, gradient):
    m = 0.0
    for t in count(1):
        g = gradient(x, t)
        u = np.sign(0.9 * m + 0.1 * g)
        m = 0.99 * m + 0.01 * g
        agrees = u * g > 0
        u = u * agrees / max(np.mean(agrees), 1e-3)
        x = x - 1e-3 * (u + 0.1 * x)
        yield x


@per_array
def grokfast(x, gradient):
    adam, slow = Adam(b2=0.98), None
    for t in count(1):
        g = gradient(x, t)
        # It begins with the first gradient, as in the authors' program.
        slow = g if slow is None else 0.98 * slow + 0.02 * g
        x = x - 1e-3 * adam(g + 2.0 * slow, t)
        yield x


@per_array
def grokfast_ma(x, gradient):
    adam, window = Adam(b2=0.98), []
    for t in count(1):
        g = gradient(x, t)
        window = [*window, g][-8:]
        slow = sum(window) / 8 if len(window) == 8 else 0.0
        x = x - 1e-3 * adam(g + 5.0 * slow, t)
        yield x


def ademamix(params, gradient):
    return fed_back(oracles_recent.ademamix, params, gradient, learning_rate=1e-3)


@per_array
def ademamix_warmed_up(x, gradient):
    m = s = v = 0.0
    for t in count(1):
        g = gradient(x, t)
        alpha = min(5.0 * t / 10_000, 5.0)
        length = (1 - t / 10_000) / np.log(0.9) + t / 10_000 / np.log(0.9999)
        b3 = min(np.exp(1 / length), 0.9999)
        m = 0.9 * m + 0.1 * g
        s = b3 * s + (1 - b3) * g
        v = 0.999 * v + 0.001 * g**2
        u = (m / (1 - 0.9**t) + alpha * s) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        x = x - 1e-3 * u
        yield x


@per_array
def mars(x, gradient):
    m = v = last = 0.0
    for t in count(1):
        g = gradient(x, t)
        c = g if t == 1 else g + 0.025 * 0.95 / (1 - 0.95) * (g - last)
        c = c / max(1.0, np.linalg.norm(c))
        m = 0.95 * m + 0.05 * c
        v = 0.99 * v + 0.01 * c**2
        x = x - 3e-3 * m / (1 - 0.95**t) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
        last = g
        yield x


@per_array
def adanorm(x, gradient):
    m = v = e = 0.0
    for t in count(1):
        g = gradient(x, t)
        norm = np.linalg.norm(g)
        e = 0.95 * e + 0.05 * norm
        m = 0.9 * m + 0.1 * (e / norm * g if e > norm else g)
        v = 0.999 * v + 0.001 * g**2
        x = x - 1e-3 * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        yield x
