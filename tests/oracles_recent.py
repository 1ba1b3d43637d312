"""Methods of recent years in float64 NumPy, each written from its paper, as those of `oracles`.

Those that find their own rate take an inner product over the whole tree; here it has one array.
"""

import numpy as np
from oracles import column, descend, ema, mean, norm, rates, recur, series, square


def ademamix(
    gradients, theta, learning_rate, b1=0.9, b2=0.999, b3=0.9999, alpha=5.0, eps=1e-8,
    eps_root=0.0, weight_decay=0.0,
):  # fmt: skip
    """u_t = -eta ((mhat_t + alpha s_t) / (sqrt(vhat_t) + eps) + lambda theta_{t-1}), where s is an
    average of gradients with the decay b3 whose bias is not corrected.

    Pagliardini et al. 2024, arXiv:2409.03137, algorithm 1.
    """
    g = series(gradients)
    d = mean(g, b1) + alpha * ema(g, b3)
    d = d / (np.sqrt(mean(square(g), b2) + eps_root) + eps)
    return descend(d, theta, learning_rate, weight_decay)


def mars(
    gradients, theta, learning_rate, b1=0.95, b2=0.99, eps=1e-8, gamma=0.025, max_norm=1.0,
    weight_decay=0.0,
):  # fmt: skip
    """c_t = g_t + gamma b1 / (1 - b1) (g_t - g_{t-1}), shortened to the norm max_norm; then AdamW.

    Yuan et al. 2024, arXiv:2411.10438, algorithms 2 and 3 with x_1 = x_0: first c_1 = g_1.
    """
    g = series(gradients)
    c = g + gamma * b1 / (1 - b1) * np.diff(g, axis=0, prepend=g[:1])
    c = c * column([min(1.0, max_norm / norm(x)) if norm(x) else 1.0 for x in c], c)
    d = mean(c, b1) / (np.sqrt(mean(square(c), b2)) + eps)
    return descend(d, theta, learning_rate, weight_decay)


def from_first(xs: np.ndarray, decay: float) -> np.ndarray:
    """a_1 = x_1, a_t = decay a_{t-1} + (1 - decay) x_t."""
    return np.concatenate([xs[:1], recur(lambda a, x: decay * a + (1 - decay) * x, xs[0], xs[1:])])


def adopt(
    gradients, theta, learning_rate, b1=0.9, b2=0.9999, eps=1e-6, use_clipping=True,
    weight_decay=0.0,
):  # fmt: skip
    """v_0 = g_0^2 and no step; then m_t = b1 m_{t-1} + (1 - b1) clip(g_t / max(sqrt(v_{t-1}), eps),
    c_t), u_t = -eta m_t, v_t = b2 v_{t-1} + (1 - b2) g_t^2, c_t = t^(1/4).

    Taniguchi et al. 2024, arXiv:2411.02853, algorithm 2; algorithm 1 does not clip.
    """
    g = series(gradients)
    v = from_first(square(g), b2)
    d = np.zeros_like(g)
    d[1:] = g[1:] / np.maximum(np.sqrt(v[:-1]), eps)
    if use_clipping:
        bounds = column(np.arange(len(g)) ** 0.25, d)
        d = np.clip(d, -bounds, bounds)
    return descend(ema(d, b1), theta, learning_rate, weight_decay)


def novograd(
    gradients, theta, learning_rate, b1=0.9, b2=0.25, eps=1e-6, eps_root=0.0, weight_decay=0.0
):
    """v_1 = |g_1|^2, v_t = b2 v_{t-1} + (1 - b2) |g_t|^2, one number for an array;
    m_t = b1 m_{t-1} + g_t / (sqrt(v_t) + eps) + lambda theta_{t-1}; u_t = -eta m_t.

    Ginsburg et al. 2019, arXiv:1905.11286, algorithm 1.
    """
    g = series(gradients)
    v = from_first(column([norm(x) ** 2 for x in g], g), b2)
    d = g / (np.sqrt(v + eps_root) + eps)
    eta = rates(learning_rate, g)
    theta, m, updates = np.asarray(theta).astype(g.dtype), 0.0, np.empty_like(g)
    for t, direction in enumerate(d):
        m = b1 * m + direction + weight_decay * theta
        updates[t] = -eta[t] * m
        theta = theta + updates[t]
    return updates


def dog(gradients, theta, learning_rate=1.0, reps_rel=1e-6, eps=1e-8, weight_decay=0.0):
    """u_t = -eta r_t g_t / sqrt(sum_{i <= t} |g_i|^2 + eps), where r_t is the largest distance
    |theta_i - theta_0| so far, at least reps_rel (1 + |theta_0|).

    Ivgi, Hinder and Carmon 2023, arXiv:2302.12022; weight decay is an L2 penalty, as in the
    authors' program.
    """
    g = series(gradients)
    eta = rates(learning_rate, g).ravel()
    start = theta = np.asarray(theta).astype(g.dtype)
    farthest, total, updates = reps_rel * (1 + norm(start)), eps, np.empty_like(g)
    for t in range(len(g)):
        gradient = g[t] + weight_decay * theta
        farthest = max(farthest, norm(theta - start))
        total += norm(gradient) ** 2
        updates[t] = -eta[t] * farthest / np.sqrt(total) * gradient
        theta = theta + updates[t]
    return updates


def _inner(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.sum((np.conj(x) * y).real))


def prodigy(
    gradients, theta, learning_rate=1.0, b1=0.9, b2=0.999, b3=None, eps=1e-8, estim_lr0=1e-6,
    estim_lr_coef=1.0, weight_decay=0.0, bias_correction=True, safeguard_warmup=False,
):  # fmt: skip
    """m = b1 m + (1 - b1) d g, v = b2 v + (1 - b2) d^2 g^2, r = b3 r + a <g, theta_0 - theta>,
    s = b3 s + a g, d' = max(d, c r / |s|_1), a = d^2 gamma eta;
    u = -gamma d eta (m / (sqrt(v) + d eps) + lambda theta). gamma = 1 or Adam's correction of
    the biases; safeguarded, a = d^2 in s.

    Mishchenko and Defazio 2023, arXiv:2306.06101, algorithm 4, where gamma = 1.
    """
    g = series(gradients)
    eta = rates(learning_rate, g).ravel()
    b3 = np.sqrt(b2) if b3 is None else b3
    start = theta = np.asarray(theta).astype(g.dtype)
    d, m, v, r, s, updates = estim_lr0, 0.0, 0.0, 0.0, 0.0, np.empty_like(g)
    for t in range(len(g)):
        gamma = np.sqrt(1 - b2 ** (t + 1)) / (1 - b1 ** (t + 1)) if bias_correction else 1.0
        m = b1 * m + (1 - b1) * d * g[t]
        v = b2 * v + (1 - b2) * d**2 * square(g[t])
        r = b3 * r + d**2 * gamma * eta[t] * _inner(g[t], start - theta)
        s = b3 * s + d**2 * (1.0 if safeguard_warmup else gamma * eta[t]) * g[t]
        size = float(np.sum(np.abs(s)))
        new = max(d, estim_lr_coef * r / size) if size else d
        updates[t] = -gamma * d * eta[t] * (m / (np.sqrt(v) + d * eps) + weight_decay * theta)
        theta, d = theta + updates[t], new
    return updates


def dadapt_adamw(
    gradients, theta, learning_rate=1.0, b1=0.9, b2=0.999, eps=1e-8, estim_lr0=1e-6,
    weight_decay=0.0, bias_correction=True,
):  # fmt: skip
    """a = d eta gamma with Adam's correction of the biases gamma; r = sqrt(b2) r + (1 - sqrt(b2)) a
    <g, s / (sqrt(v) + eps)>, with s from before; m = b1 m + (1 - b1) a g, v = b2 v + (1 - b2)
    g^2, s = sqrt(b2) s + (1 - sqrt(b2)) a g; d = max(d, r / ((1 - sqrt(b2)) |s|_1));
    u = -m / (sqrt(v) + eps) - a lambda theta.

    Defazio and Mishchenko 2023, arXiv:2301.07733, algorithm 5, where gamma = 1.
    """
    g = series(gradients)
    eta = rates(learning_rate, g).ravel()
    b3 = np.sqrt(b2)
    theta = np.asarray(theta).astype(g.dtype)
    d, m, v, r, s, updates = estim_lr0, 0.0, 0.0, 0.0, np.zeros_like(theta), np.empty_like(g)
    for t in range(len(g)):
        gamma = np.sqrt(1 - b2 ** (t + 1)) / (1 - b1 ** (t + 1)) if bias_correction else 1.0
        a = d * eta[t] * gamma
        m = b1 * m + (1 - b1) * a * g[t]
        v = b2 * v + (1 - b2) * square(g[t])
        r = b3 * r + (1 - b3) * a * _inner(g[t], s / (np.sqrt(v) + eps))
        s = b3 * s + (1 - b3) * a * g[t]
        size = float(np.sum(np.abs(s)))
        d = max(d, r / ((1 - b3) * size)) if size else d
        updates[t] = -m / (np.sqrt(v) + eps) - a * weight_decay * theta
        theta = theta + updates[t]
    return updates


def mechanize(gradients, theta, inner, weight_decay=0.01, eps=1e-8, s_init=1e-6, num_betas=6):
    """u_t of `inner` are summed in Delta, and theta_t = theta_0 + sum_i s_i Delta_t, where s_i is
    (s_init / n m_i + max(0, r_i)) / (sqrt(v_i) + eps), m_i = max(b_i m_i, |h| + eps),
    v_i = b_i^2 v_i + h^2, r_i = b_i r_i + clip(h, -m_i, m_i) s_i, b_i = 1 - 10^-i, and
    h = <g + lambda sum_i s_i |g| / |theta| theta, -Delta_{t-1}>.

    Cutkosky, Defazio and Mehta 2023, arXiv:2306.00144, algorithms 1 and 2; Delta_{t-1} is
    (theta_{t-1} - theta_0) / (sum_i s_i + eps), as in the authors' program.
    """
    g = series(gradients)
    b = 1 - 0.1 ** np.arange(1.0, num_betas + 1)
    start = theta = np.asarray(theta).astype(g.dtype)
    m, v, r, s = (np.zeros(num_betas) for _ in range(4))
    s = s + s_init
    updates = np.empty_like(g)
    for t in range(len(g)):
        gone = (theta - start) / (s.sum() + eps)
        decay = weight_decay * s.sum() * norm(g[t]) / (norm(theta) + eps)
        h = -_inner(g[t] + decay * theta, gone)
        r = b * r + np.clip(h, -m, m) * s
        m = np.maximum(b * m, abs(h) + eps)
        v = b**2 * v + h**2
        s = (s_init / num_betas * m + np.maximum(0.0, r)) / (np.sqrt(v) + eps)
        updates[t] = start + s.sum() * (gone + inner(g[t])) - theta
        theta = theta + updates[t]
    return updates
