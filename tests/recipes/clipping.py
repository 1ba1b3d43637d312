"""Recipes that change the clipping."""

from itertools import count

import numpy as np

from .problem import Peer, per_array

PEERS: list[Peer] = []


def clipping_by_global_norm(params, gradients):
    velocity = dict.fromkeys(params, 0.0)
    for t in count(1):
        g = gradients(params, t)
        norm = np.sqrt(sum(np.sum(each**2) for each in g.values()))
        for key in g:
            velocity[key] = 0.9 * velocity[key] + g[key] * min(1.0, 1.0 / norm)
        params = {key: x - 0.1 * velocity[key] for key, x in params.items()}
        yield params


@per_array
def adaptive_gradient_clipping(x, gradient):
    v = 0.0
    units = 0 if x.ndim > 1 else None  # the weights of an output are a column
    for t in count(1):
        g = gradient(x, t)
        longest = 0.01 * np.maximum(np.sqrt(np.sum(x**2, axis=units)), 1e-3)
        g = g * np.minimum(1.0, longest / np.sqrt(np.sum(g**2, axis=units)))
        v = 0.9 * v + g
        x = x - 0.1 * (g + 0.9 * v)
        yield x


@per_array
def clippy(x, gradient):
    v = 0.1
    for t in count(1):
        g = gradient(x, t)
        v = v + g**2
        u = 0.1 * g / np.sqrt(v + 1e-7)
        x = x - min(1.0, np.min((0.1 * np.abs(x) + 1e-2) / np.abs(u))) * u
        yield x


@per_array
def acclip(x, gradient):
    m = bound = 0.0
    for t in count(1):
        g = gradient(x, t)
        m = 0.9 * m + 0.1 * g
        bound = 0.99 * bound + 0.01 * np.abs(g)
        x = x - 0.1 * np.minimum(bound / (np.abs(m) + 1e-8), 1.0) * m
        yield x
