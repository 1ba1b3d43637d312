"""Recipes that change the clipping."""

from itertools import count

import numpy as np

from .problem import Adam, Peer, norm, per_array, standard_normal

PEERS = [
    Peer("stable_adamw", "StableAdamW", {"betas": (0.9, 0.95), "eps": 1e-6, "weight_decay": 0.01}),
    Peer(
        "adagc",
        "AdaGC",
        {"betas": (0.9, 0.999), "warmup_steps": 11, "weight_decay": 0.1},
        rtol=1e-6,
        because="they add eps to norms",
    ),
    Peer(
        "spam",
        "SPAM",
        {"warmup_epoch": 5, "threshold": 50, "grad_accu_steps": 5, "update_proj_gap": 25},
    ),
]


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


@per_array
def stable_adamw(x, gradient):
    m = v = 0.0
    for t in count(1):
        g = gradient(x, t)
        m = 0.9 * m + 0.1 * g
        v = 0.95 * v + 0.05 * g**2
        corrected = v / (1 - 0.95**t)
        rms = np.sqrt(np.mean(g**2 / np.maximum(corrected, 1e-6**2)))
        rate = 1e-3 / max(1.0, rms)
        x = x - rate * 0.01 * x - rate * (m / (1 - 0.9**t)) / (np.sqrt(corrected) + 1e-6)
        yield x


@per_array
def spam(x, gradient):
    m = v = 0.0
    for t in count(1):
        g = gradient(x, t)
        since = t % 25  # the last reset
        if since == 0:
            m = v = np.zeros_like(x)
        if since >= 5:
            g = np.where(g**2 > 50 * v, np.sign(g) * np.sqrt(50 * v), g)
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        warm = 1.0
        if t >= 25 and since < 5:
            warm = 1 - 0.99 * (1 + np.cos(np.pi * (since + 1) / 6)) / 2
        rate = 1e-3 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        x = x - rate * warm * m / (np.sqrt(v) + 1e-6)
        yield x


def dp_adamw(params, gradients):
    adam = {key: Adam() for key in params}
    for t in count(1):
        each, xi = gradients(params, t), standard_normal(params, t)
        many = len(each["w"])
        lengths = [norm({key: g[i] for key, g in each.items()}) for i in range(many)]
        new = {}
        for key, x in params.items():
            total = sum(each[key][i] * min(1.0, 1.0 / lengths[i]) for i in range(many))
            g = (total + 1.1 * 1.0 * xi[key]) / many
            new[key] = x - 1e-3 * (adam[key](g, t) + 0.01 * x)
        params = new
        yield params


def adagc(params, gradients):
    adams, past = {key: Adam() for key in params}, {}
    for t in count(1):
        g = gradients(params, t)
        if t <= 10:
            norm = np.sqrt(sum(np.sum(each**2) for each in g.values()))
            g = {key: each * min(1.0, 1.0 / norm) for key, each in g.items()}
            norms = {key: np.linalg.norm(each) for key, each in g.items()}
            past = {key: min(past.get(key, np.inf), norm) for key, norm in norms.items()}
        else:
            for key, each in g.items():
                g[key] = each * min(1.0, 1.05 * past[key] / np.linalg.norm(each))
                past[key] = 0.98 * past[key] + 0.02 * np.linalg.norm(g[key])
        params = {key: x - 1e-3 * (adams[key](g[key], t) + 0.1 * x) for key, x in params.items()}
        yield params


def zclip(params, gradients):
    adams, first = {key: Adam() for key in params}, []
    mean = variance = 0.0
    for t in count(1):
        g = gradients(params, t)
        norm = kept = np.sqrt(sum(np.sum(each**2) for each in g.values()))
        if t <= 10:
            first.append(norm)
            mean, variance = np.mean(first), np.var(first)
        else:
            z = (norm - mean) / np.sqrt(variance)
            if z > 1.5:
                kept = mean + 1.5 * np.sqrt(variance) / (z / 1.5)
            mean = 0.97 * mean + 0.03 * kept
            variance = 0.97 * variance + 0.03 * (kept - mean) ** 2
        params = {
            key: x - 1e-3 * (adams[key](g[key] * kept / norm, t) + 0.1 * x)
            for key, x in params.items()
        }
        yield params


def autoclip(params, gradients):
    adams, norms = {key: Adam() for key in params}, []
    for t in count(1):
        g = gradients(params, t)
        norms.append(np.sqrt(sum(np.sum(each**2) for each in g.values())))
        share = min(1.0, np.percentile(norms[-100:], 10) / norms[-1])
        params = {key: x - 1e-3 * adams[key](share * g[key], t) for key, x in params.items()}
        yield params
