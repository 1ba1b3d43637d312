"""Recipes that change the point."""

from itertools import count

import numpy as np

from .problem import Adam, Peer, norm, per_array, standard_normal

_NORM = "they compute a norm in float32"

PEERS = [
    Peer(
        "sam",
        "SAM",
        {"base_optimizer": "SGD", "rho": 0.05, "lr": 0.1, "momentum": 0.9},
        rtol=1e-6,
        because=_NORM,
    ),
    Peer(
        "asam",
        "SAM",
        {"base_optimizer": "SGD", "rho": 0.5, "adaptive": True, "lr": 0.01, "momentum": 0.9},
        "they add nothing to the sizes of weights, to which the paper adds 0.01",
        """sharpness_aware(
            sgd(0.01, momentum=0.9),
            rho=0.5,
            perturbation=chain(
                with_params(lambda g, w: abs(w) * g),
                normalize_by_global_norm(),
                with_params(lambda g, w: abs(w) * g),
            ),
        )""",
        rtol=1e-6,
        because=_NORM,
    ),
    Peer("schedule_free_sgd", "ScheduleFreeSGD", {"lr": 1.0}),
    Peer("schedule_free_adamw", "ScheduleFreeAdamW", {"lr": 2.5e-3, "weight_decay": 0.1}),
]


@per_array
def nesterov(theta, gradient):
    v = np.zeros_like(theta)
    for t in count(1):
        v = 0.9 * v - 0.1 * gradient(theta + 0.9 * v, t)
        theta = theta + v
        yield theta + 0.9 * v


@per_array
def ema_nesterov(theta, gradient):
    adam, m = Adam(), np.zeros_like(theta)
    for t in count(1):
        point = theta + 2.0 * m
        new = point - 1e-3 * adam(gradient(point, t), t)
        m = 0.9 * m + 0.1 * (new - theta)
        theta = new
        yield theta + 2.0 * m


def _descents_from(params, slopes, rate):
    """SGD with momentum, of `slopes(params, t)`."""
    v = dict.fromkeys(params, 0.0)
    for t in count(1):
        g = slopes(params, t)
        v = {key: 0.9 * v[key] + g[key] for key in params}
        params = {key: x - rate * v[key] for key, x in params.items()}
        yield params


def sam(params, gradients, grad_fn):
    def worst(at, t):
        g = gradients(at, t)
        return gradients({key: x + 0.05 * g[key] / norm(g) for key, x in at.items()}, t)

    return _descents_from(params, worst, 0.1)


def asam(params, gradients, grad_fn):
    def worst(at, t):
        size = {key: np.abs(x) + 0.01 for key, x in at.items()}
        scaled = {key: size[key] * g for key, g in gradients(at, t).items()}
        away = {key: 0.5 * size[key] * g / norm(scaled) for key, g in scaled.items()}
        return gradients({key: x + away[key] for key, x in at.items()}, t)

    return _descents_from(params, worst, 0.01)


def msam(params, gradients):
    v = dict.fromkeys(params, 0.0)
    away = dict.fromkeys(params, 0.0)
    for t in count(1):
        g = gradients({key: w + away[key] for key, w in params.items()}, t)
        v = {key: 0.9 * v[key] + g[key] for key in params}
        params = {key: w - 0.1 * v[key] for key, w in params.items()}
        away = {key: -0.3 * v[key] / norm(v) for key in params}
        yield {key: w + away[key] for key, w in params.items()}


@per_array
def extragradient(x, gradient, grad_fn):
    for t in count(1):
        halfway = x - 0.1 * gradient(x, t)
        x = x - 0.1 * gradient(halfway, t)
        yield x


@per_array
def optimistic_gradient(x, gradient):
    last = np.zeros_like(x)
    for t in count(1):
        g = gradient(x, t)
        x, last = x - 2 * 0.1 * g + 0.1 * last, g
        yield x


@per_array
def optimistic_adam(x, gradient):
    adam, last = Adam(0.5, 0.9), np.zeros_like(x)
    for t in count(1):
        step = adam(gradient(x, t), t)
        x, last = x - 2e-3 * step + 1e-3 * last, step
        yield x


@per_array
def schedule_free_sgd(x, gradient):
    z = x
    for t in count(1):
        z = z - gradient(0.1 * z + 0.9 * x, t)
        x = (1 - 1 / t) * x + z / t
        yield x


@per_array
def schedule_free_adamw(x, gradient):
    z, v = x, 0.0
    for t in count(1):
        y = 0.1 * z + 0.9 * x
        g = gradient(y, t)
        v = 0.999 * v + 0.001 * g**2
        z = z - 2.5e-3 * (g / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + 0.1 * y)
        x = (1 - 1 / t) * x + z / t
        yield x


@per_array
def lookahead(fast, gradient):
    adam, slow = Adam(), fast
    for t in count(1):
        fast = fast - 1e-3 * adam(gradient(fast, t), t)
        if t % 5 == 0:
            fast = slow = slow + 0.5 * (fast - slow)
        yield fast


@per_array
def mean_of_parameters(x, gradient):
    total = np.zeros_like(x)
    for t in count(1):
        x = x - 0.1 * gradient(x, t)
        total = total + x
        yield total / t


@per_array
def power_average(x, gradient):
    adam, mean = Adam(), x
    for t in count(1):
        x = x - 1e-2 * adam(gradient(x, t), t)
        beta = (1 - 1 / t) ** 7.94
        mean = beta * mean + (1 - beta) * x
        yield mean


def noisy_sgd(params, gradients):
    for t in count(1):
        g, xi = gradients(params, t), standard_normal(params, t)
        deviation = np.sqrt(0.3 / t**0.55)
        params = {key: x - 0.1 * (g[key] + deviation * xi[key]) for key, x in params.items()}
        yield params


def sgld(params, gradients):
    for t in count(1):
        g, xi = gradients(params, t), standard_normal(params, t)
        params = {
            key: x - 0.5 * 1e-2 * g[key] + np.sqrt(1e-2) * xi[key] for key, x in params.items()
        }
        yield params
