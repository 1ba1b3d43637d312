"""Recipes that change the weight decay."""

from itertools import count

import numpy as np

from .problem import Peer, per_array

PEERS: list[Peer] = []


@per_array
def independent_decay(x, gradient):
    m = v = 0.0
    for t in count(1):
        g = gradient(x, t)
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        x = x - 1e-3 * step - 1e-4 * x
        yield x
