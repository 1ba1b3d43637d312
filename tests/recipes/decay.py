"""Recipes that change the weight decay."""

from itertools import count

import numpy as np

from .problem import EARLY_EPS, Adam, Peer, per_array

# With constant rates their AdamC is AdamW, in all ways to decay.
_ADAM = {"betas": (0.9, 0.999)}

PEERS = [
    Peer(
        "independent_decay",
        "AdamC",
        _ADAM | {"weight_decay": 1e-4, "fixed_decay": True},
        rtol=1e-6,
        because=EARLY_EPS,
    ),
    Peer(
        "adam_l2",
        "AdamC",
        _ADAM | {"weight_decay": 0.01, "weight_decouple": False},
        rtol=1e-6,
        because=EARLY_EPS,
    ),
    Peer("adams", "AdamS", _ADAM | {"weight_decay": 0.01}, rtol=1e-6, because=EARLY_EPS),
    Peer("adamp", "AdamP", {}, rtol=1e-6, because="they add eps to the norm of the weights"),
]


@per_array
def independent_decay(x, gradient):
    adam = Adam()
    for t in count(1):
        x = x - 1e-3 * adam(gradient(x, t), t) - 1e-4 * x
        yield x


@per_array
def adam_l2(x, gradient):
    adam = Adam()
    for t in count(1):
        x = x - 1e-3 * adam(gradient(x, t) + 0.01 * x, t)
        yield x


@per_array
def adamc(x, gradient):
    adam = Adam()
    for t in count(1):
        rate = 1e-3 * (1 + np.cos(np.pi * (t - 1) / 100)) / 2
        x = x - rate * adam(gradient(x, t), t) - rate**2 / 1e-3 * 0.1 * x
        yield x


@per_array
def cautious_weight_decay(x, gradient):
    adam = Adam()
    for t in count(1):
        u = adam(gradient(x, t), t)
        x = x - 1e-3 * (u + 0.1 * (u * x >= 0) * x)
        yield x


@per_array
def adamp(x, gradient):
    adam = Adam()
    for t in count(1):
        g = gradient(x, t)
        u = adam(g, t)
        cosine = np.abs(np.vdot(x, g)) / (np.linalg.norm(x) * np.linalg.norm(g))
        if cosine < 0.1 / np.sqrt(x.size):
            unit = x / np.linalg.norm(x)
            u = u - np.vdot(unit, u) * unit
        x = x - 1e-3 * u
        yield x


@per_array
def l2_sp(x, gradient):
    start, v = x, 0.0
    for t in count(1):
        v = 0.9 * v + gradient(x, t) + 0.1 * (x - start)
        x = x - 0.01 * v
        yield x


@per_array
def radial_brake(x, gradient):
    adam = Adam()
    for t in count(1):
        new = x - 1e-2 * adam(gradient(x, t), t)
        before, after = np.linalg.norm(x), np.linalg.norm(new)
        braked = before + (0.5 if after > before else 1.0) * (after - before)
        x = new * braked / after
        yield x


@per_array
def hyperball_adam(x, gradient):
    adam, radius = Adam(), np.linalg.norm(x)
    for t in count(1):
        u = adam(gradient(x, t), t)
        x = x - 0.01 * radius * u / np.linalg.norm(u)
        x = radius * x / np.linalg.norm(x)
        yield x


@per_array
def projected_adam(x, gradient):
    adam = Adam()
    for t in count(1):
        x = np.clip(x - 0.01 * adam(gradient(x, t), t), 0.2, 1.3)
        yield x


def adams(params, gradients):
    adams = {key: Adam() for key in params}
    for t in count(1):
        g = gradients(params, t)
        steps = {key: adam(g[key], t) for key, adam in adams.items()}
        squares = [adam.v / (1 - 0.999**t) for adam in adams.values()]
        size = sum(map(np.sum, squares)) / sum(map(np.size, squares))
        params = {
            key: x - 1e-3 * (steps[key] + 0.01 * x / np.sqrt(size)) for key, x in params.items()
        }
        yield params
