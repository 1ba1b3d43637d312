"""Recipes that change the rate."""

from itertools import count

import numpy as np

from .problem import Peer, per_array

PEERS: list[Peer] = []


@per_array
def fromage(x, gradient):
    for t in count(1):
        g = gradient(x, t)
        x = (x - 0.01 * np.linalg.norm(x) / np.linalg.norm(g) * g) / np.sqrt(1 + 0.01**2)
        yield x
