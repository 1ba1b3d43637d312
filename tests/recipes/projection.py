"""Recipes that change the projection.

Of the parameters `w` is the matrix, of 4 x 3: its shorter side is the second, so that images are
`g @ p` and what papers call columns are rows. What they draw at random is drawn with the keys that
gdtx documents.
"""

from itertools import count

import jax
import numpy as np

from .problem import Peer, per_array

_EPS = "theirs adds epsilon before the corrections of bias"
_TURNS = "theirs turns the space at steps k, 2k, ... after the first"
_ADAM = {"lr": 1e-2, "eps": 1e-8, "rank": 2, "update_proj_gap": 20, "projection_type": "std"}
PEERS = [
    Peer("galore", "GaLore", _ADAM | {"scale": 0.25}, differs=f"{_TURNS}; {_EPS}"),
    Peer(
        "apollo",
        "APOLLO",
        _ADAM | {"scale": 1.0, "scale_type": "channel"},
        differs="theirs scales the image and brings it back, and draws other numbers",
    ),
    Peer(
        "fira",
        "Fira",
        _ADAM | {"scale": 1.0},
        differs=f"{_TURNS}; {_EPS}, which are made after the limiter",
    ),
]


class _Adam:
    def __init__(self):
        self.m = self.v = 0.0

    def step(self, g, t):
        self.m = 0.9 * self.m + 0.1 * g
        self.v = 0.999 * self.v + 0.001 * g**2
        mean, square = self.m / (1 - 0.9**t), self.v / (1 - 0.999**t)
        return mean / (np.sqrt(square) + 1e-8)


def _right_vectors(g, rank):
    """Those of the largest singular values, the largest entry of each positive."""
    p = np.linalg.svd(g, full_matrices=False)[2][:rank].T
    return p * np.sign(p[np.abs(p).argmax(0), range(rank)])


def _normal(t, shape):
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), t), 0)
    return np.asarray(jax.random.normal(key, shape, "float64"))


def _limited(u, last):
    """The update and its norm, which is at most 1.01 times the last."""
    norm = np.linalg.norm(u)
    if last is not None and norm > 1.01 * last:
        return u * 1.01 * last / norm, 1.01 * last
    return u, norm


def _rows(x):
    return np.linalg.norm(x, axis=1, keepdims=True)


def _with_adam(params, gradients, matrix, rate):
    """`matrix(g, t)` is the step of the matrix; of the others it is Adam's."""
    adams = {key: _Adam() for key in params}
    for t in count(1):
        g = gradients(params, t)
        steps = {key: adams[key].step(g[key], t) for key in params if key != "w"}
        steps["w"] = matrix(params["w"], g["w"], t)
        params = {key: params[key] - rate * steps[key] for key in params}
        yield params


def galore(params, gradients):
    adam, p = _Adam(), None

    def matrix(x, g, t):
        nonlocal p
        if (t - 1) % 20 == 0:
            p = _right_vectors(g, 2)
        return 0.25 * adam.step(g @ p, t) @ p.T

    return _with_adam(params, gradients, matrix, 1e-2)


def apollo(params, gradients):
    adam, p, last = _Adam(), None, None

    def matrix(x, g, t):
        nonlocal p, last
        if (t - 1) % 20 == 0:
            p = _normal(t, (3, 2)) / np.sqrt(2)
        image = g @ p
        u, last = _limited(g * _rows(adam.step(image, t)) / _rows(image), last)
        return u

    return _with_adam(params, gradients, matrix, 1e-2)


def apollo_mini(params, gradients):
    adam, p, last = _Adam(), None, None

    def matrix(x, g, t):
        nonlocal p, last
        if (t - 1) % 20 == 0:
            p = _normal(t, (3, 1))
        image = g @ p
        ratio = np.linalg.norm(adam.step(image, t)) / np.linalg.norm(image)
        u, last = _limited(np.sqrt(128) * g * ratio, last)
        return u

    return _with_adam(params, gradients, matrix, 1e-3)


def fira(params, gradients):
    adam, p, last = _Adam(), None, None

    def matrix(x, g, t):
        nonlocal p, last
        if (t - 1) % 20 == 0:
            p = _right_vectors(g, 2)
        image = g @ p
        n = adam.step(image, t)
        outside, last = _limited(_rows(n) / _rows(image) * (g - image @ p.T), last)
        return n @ p.T + outside

    return _with_adam(params, gradients, matrix, 1e-2)


def dion(params, gradients):
    momentum, q = 0.0, _normal(0, (4, 2))

    def matrix(x, g, t):
        nonlocal momentum, q
        # Inputs are the rows here, and outputs in the paper.
        b = momentum + g.T
        p = np.linalg.qr(b @ q)[0]
        r = b.T @ p
        momentum = b - (1 - 0.95) * p @ r.T
        q = r / (np.linalg.norm(r, axis=0) + 1e-8)
        return np.sqrt(3 / 4) * (p @ q.T).T + 0.01 * x

    return _with_adam(params, gradients, matrix, 1e-2)


def riemannian_lora(params, gradients):
    adams = {key: _Adam() for key in params}
    for t in count(1):
        g, a, b = gradients(params, t), params["A"], params["B"]
        damping = 1e-6 * np.eye(2)
        scaled = {
            "A": np.linalg.inv(b.T @ b + damping) @ g["A"],
            "B": g["B"] @ np.linalg.inv(a @ a.T + damping),
        }
        params = {
            key: x - 1e-3 * (adams[key].step(scaled[key], t) + 1e-4 * x)
            for key, x in params.items()
        }
        yield params


def lora_plus(params, gradients):
    adams = {key: _Adam() for key in params}
    for t in count(1):
        g = gradients(params, t)
        rates = {"A": 1e-3, "B": 16e-3}
        params = {key: x - rates[key] * adams[key].step(g[key], t) for key, x in params.items()}
        yield params


@per_array
def stiefel_sgd(x, gradient):
    m = 0.0
    for t in count(1):
        z = 0.9 * m + gradient(x, t)
        symmetric = (x.T @ z + z.T @ x) / 2
        m = z - x @ symmetric
        u, _, v = np.linalg.svd(x - 0.1 * m, full_matrices=False)
        x = u @ v
        yield x
