"""Recipes that change the average."""

from itertools import count

import numpy as np

from .problem import FLOAT32_STEP, Adam, Peer, per_array

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
