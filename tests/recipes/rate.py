"""Recipes that change the rate."""

from itertools import count

import numpy as np

from .problem import Adam, Peer, per_array

PEERS = [
    Peer("fromage", "Fromage", {}),
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
