"""Recipes that change the rate."""

from itertools import count

import numpy as np
import oracles_recent

from .problem import Adam, Peer, fed_back, per_array

PEERS = [
    Peer("fromage", "Fromage", {}),
    Peer(
        "lars_with_decay",
        "LARS",
        {"lr": 0.1, "weight_decay": 1e-2, "trust_coefficient": 0.01},
        "they have ratio and decay for arrays of two axes and more only",
        """lars(
            0.1, weight_decay=1e-2, mask=["w"], trust_coefficient=0.01, trust_mask=["w"]
        )""",
    ),
    Peer("sign_sgd", "SignSGD", {"lr": 1e-3, "momentum": 0.0}),
]


@per_array
def fromage(x, gradient):
    for t in count(1):
        g = gradient(x, t)
        x = (x - 0.01 * np.linalg.norm(x) / np.linalg.norm(g) * g) / np.sqrt(1 + 0.01**2)
        yield x


@per_array
def sign_sgd(x, gradient):
    for t in count(1):
        x = x - 1e-3 * np.sign(gradient(x, t))
        yield x


def normalized_sgd(params, gradients):
    m = dict.fromkeys(params, 0.0)
    for t in count(1):
        g = gradients(params, t)
        m = {key: 0.9 * m[key] + 0.1 * g[key] for key in g}
        norm = np.sqrt(sum(np.sum(each**2) for each in m.values()))
        params = {key: x - 0.01 * m[key] / norm for key, x in params.items()}
        yield params


@per_array
def update_floor(x, gradient):
    adam = Adam()
    for t in count(1):
        u = adam(gradient(x, t), t)
        if np.linalg.norm(u) < 0.35 * np.linalg.norm(x):
            u = u * 0.35 * np.linalg.norm(x) / np.linalg.norm(u)
        x = x - 0.01 * u
        yield x


def polyak_sgd(params, gradients, value):
    for t in count(1):
        g = gradients(params, t)
        slope = sum(np.sum(each**2) for each in g.values())
        rate = min((value(params, t) + 100.0) / slope, 0.1)
        params = {key: x - rate * g[key] for key, x in params.items()}
        yield params


@per_array
def lars_with_decay(x, gradient):
    v = 0.0
    for t in count(1):
        g = gradient(x, t)
        size = np.linalg.norm(x)
        ratio = 0.01 * size / (np.linalg.norm(g) + 1e-2 * size)
        v = 0.9 * v + 0.1 * ratio * (g + 1e-2 * x)
        x = x - v
        yield x


def nvlamb(params, gradients):
    adams = {key: Adam(eps=1e-6) for key in params}
    for t in count(1):
        g = gradients(params, t)
        norm = np.sqrt(sum(np.sum(each**2) for each in g.values()))
        new = {}
        for key, x in params.items():
            r = adams[key](g[key] / norm, t) + 0.01 * x
            new[key] = x - 0.01 * np.linalg.norm(x) / np.linalg.norm(r) * r
        params = new
        yield params


@per_array
def mup(x, gradient):
    adam = Adam()
    for t in count(1):
        rate = 1e-3 * 2 / len(x) if x.ndim == 2 else 1e-3
        x = x - rate * adam(gradient(x, t), t)
        yield x


def prodigy(params, gradient):
    return fed_back(oracles_recent.prodigy, params, gradient)


def dadapt_adamw(params, gradient):
    return fed_back(oracles_recent.dadapt_adamw, params, gradient)


def dog(params, gradient):
    return fed_back(oracles_recent.dog, params, gradient)


def ldog(params, gradient):
    alone = {
        key: fed_back(
            oracles_recent.dog, {key: x}, lambda p, t, key=key: {key: gradient(p, t)[key]}
        )
        for key, x in params.items()
    }
    for steps in zip(*alone.values(), strict=True):
        yield {key: step[key] for key, step in zip(alone, steps, strict=True)}


def dowg(params, gradients):
    start, farthest, v = params, 1e-14, 0.0
    for t in count(1):
        g = gradients(params, t)
        gone = np.sqrt(sum(np.sum((x - start[key]) ** 2) for key, x in params.items()))
        farthest = max(farthest, gone)
        v += farthest**2 * sum(np.sum(each**2) for each in g.values())
        params = {key: x - farthest**2 / np.sqrt(v) * g[key] for key, x in params.items()}
        yield params


def mechanic(params, gradient):
    return fed_back(oracles_recent.mechanize, params, gradient, inner=lambda g: -0.1 * g)


def hypergradient_descent(params, gradients):
    rate, last = 0.01, {key: np.zeros_like(x) for key, x in params.items()}
    for t in count(1):
        g = gradients(params, t)
        rate = rate + 1e-3 * sum(np.sum(g[key] * last[key]) for key in g)
        params = {key: x - rate * g[key] for key, x in params.items()}
        last = g
        yield params
