"""Recipes that change the average."""

from itertools import count

import numpy as np

from .problem import FLOAT32_STEP, Peer, per_array

PEERS = [
    Peer("laprop", "LaProp", {}, rtol=1e-7, because=FLOAT32_STEP),
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
