"""Shampoo and SOAP in float64 NumPy, each written from its paper.

As in `oracles.py`, every oracle takes the gradients of one array over time, the array's start and
the hyperparameters, and returns what is added to the array at each step. Blocks, merged dimensions
and several arrays are not here: those are arrays of their own, to be given to an oracle each.
"""

import numpy as np
from oracles import correction, descend, ema, mean, series


def unfolded(tensor, axis):
    """The matrix whose columns are the fibres along an axis."""
    n = tensor.shape[axis]
    return np.moveaxis(tensor, axis, 0).reshape(n, tensor.size // max(n, 1))


def times(tensor, matrix, axis):
    """The mode product: every fibre along an axis times the matrix."""
    shape = np.moveaxis(tensor, axis, 0).shape
    return np.moveaxis((matrix @ unfolded(tensor, axis)).reshape(shape), 0, axis)


def second_moments(gradients, axis):
    return np.array([unfolded(g, axis) @ unfolded(g, axis).T for g in gradients])


def power(matrix, exponent):
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(np.maximum(values, 0) ** exponent) @ vectors.T


def as_tensors(gradients):
    """Numbers are vectors of one."""
    return gradients if gradients.ndim > 1 else gradients[:, None]


def due(t, start, every):
    return t >= start and (t - start) % every == 0


def shampoo_directions(
    gradients, b1=0.9, b2=0.999, eps=1e-12, every=10, start=1, exponent=None, stale=False
):
    """X_t = m_t x_1 P_1 ... x_k P_k with P_i = (eps I + H_i)^(-1/2k), H_i = sum G_(i) G_(i)^T.

    Gupta, Koren and Singer 2018, arXiv:1802.09568, algorithms 1 and 2 (b1 = 0, b2 = 1). With
    averages: Shi et al. 2023, arXiv:2309.06497: H_i and m_t are averages without their bias, and
    the powers are taken every so many steps.
    """
    g = as_tensors(series(gradients))
    m = mean(g, b1) if b1 else g
    k = g.ndim - 1
    statistics = []
    for axis in range(k):
        moments = second_moments(g, axis)
        averages = np.cumsum(moments, axis=0) if b2 == 1 else mean(moments, b2)
        statistics.append(averages)
    roots = [np.eye(n) for n in g.shape[1:]]
    out = np.empty_like(g)
    for t in range(1, len(g) + 1):
        used = roots
        if due(t, start, every):
            alpha = -1 / (2 * k) if exponent is None else exponent
            roots = [power(h[t - 1] + eps * np.eye(len(h[0])), alpha) for h in statistics]
        used = used if stale else roots
        direction = m[t - 1]
        for axis, root in enumerate(used):
            direction = times(direction, root, axis)
        out[t - 1] = direction
    return out.reshape(np.shape(gradients))


def shampoo(gradients, theta, learning_rate, weight_decay=0.0, **settings):
    return descend(shampoo_directions(gradients, **settings), theta, learning_rate, weight_decay)


def grafted_shampoo(
    gradients, theta, learning_rate, magnitude, start=1, weight_decay=0.0, **settings
):
    """From `start` on Shampoo's direction with the norm of another method's step, before it that.

    Anil et al. 2020, arXiv:2002.09018.
    """
    directions = shampoo_directions(gradients, start=start, **settings)
    steps = -magnitude
    for t in range(start - 1, len(steps)):
        norm = np.linalg.norm(directions[t])
        length = np.linalg.norm(steps[t])
        steps[t] = directions[t] * length / norm if norm > 0 else 0 * steps[t]
    return descend(steps, theta, learning_rate, weight_decay)


def soap(
    gradients, theta, learning_rate, b1=0.95, b2=0.95, eps=1e-8, every=10, start=1, b3=None,
    stale=True, weight_decay=0.0,
):  # fmt: skip
    """Vyas et al. 2024, arXiv:2409.11321, algorithms 3 and 4, with Adam's bias corrections.

    Of the gradient, turned by the bases Q_i along each axis i, Adam's v_t is the average of
    squares; the average m_t of gradients is turned, divided by the root of v_t, and turned back.
    Then each H_i = b3 H_i + (1 - b3) G_(i) G_(i)^T, and at refreshes Q_i: at first its
    eigenvectors, later the Q of the QR decomposition of H_i Q_i. The columns come in the order of
    the eigenvalues, largest first; where that has changed, v_t changes with it (the authors'
    program).
    """
    g = as_tensors(series(gradients))
    k = g.ndim - 1
    m = mean(g, b1)
    statistics = [ema(second_moments(g, axis), b2 if b3 is None else b3) for axis in range(k)]
    bases = [np.eye(n) for n in g.shape[1:]]
    v = np.zeros(g.shape[1:])
    weights = correction(b2, g).reshape(-1)
    out = np.empty_like(g)

    def turned(tensor, back=False):
        for axis, basis in enumerate(bases):
            tensor = times(tensor, basis if back else basis.T, axis)
        return tensor

    def refresh(t, v):
        for axis, h in enumerate(statistics):
            estimates = np.diag(bases[axis].T @ h[t - 1] @ bases[axis])
            order = np.argsort(-estimates, kind="stable")
            v = np.take(v, order, axis)
            if t == start:
                bases[axis] = np.linalg.eigh(h[t - 1])[1][:, ::-1]
            else:
                bases[axis] = np.linalg.qr(h[t - 1] @ bases[axis][:, order])[0]
        return v

    for t in range(1, len(g) + 1):
        if not stale and due(t, start, every):
            v = refresh(t, v)
        v = b2 * v + (1 - b2) * turned(g[t - 1]) ** 2
        step = turned(m[t - 1]) / (np.sqrt(v / weights[t - 1]) + eps)
        out[t - 1] = turned(step, back=True)
        if stale and due(t, start, every):
            v = refresh(t, v)
    return descend(out.reshape(np.shape(gradients)), theta, learning_rate, weight_decay)
