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


def psgd(
    gradients, theta, learning_rate, b1=0.9, max_rms=2.0, weight_decay=0.0, every=1, rate=0.1,
    decay=0.9, damping=1e-9, max_skew=1, initial_scale=1.0, noise=None,
):  # fmt: skip
    """Li 2018, arXiv:1512.04202, and Pooladzandi & Li 2024, arXiv:2402.11858, with the steps on
    the factors that the authors' program takes by default, dQ = Q^(1/2) E Q^(3/2).

    Of the gradient, with noise of size `damping`, h is what the last factors make: every fibre
    along axis i times Q_i^T Q_i. Then Q_i = Q_i - rate / l_i (H_i H_i^T - c_i I) Q_i, with H_i of
    c_i columns, turned by (I + a R + (a R)^2 / 2), R = Q_i^T - Q_i, toward a symmetric matrix.
    l_i is the larger of |H_i H_i^T| + c_i and its average. The norms are bounds from below: the
    longest row, twice times the matrix. A long axis has a diagonal. The update is what the new
    factors make of the average of gradients, at most `max_rms` in root mean square.
    """
    g = np.squeeze(series(gradients), tuple(1 + i for i, n in enumerate(np.shape(theta)) if n == 1))
    g = g if g.ndim > 1 else g[:, None]
    k = g.ndim - 1
    m = mean(g, b1) if b1 else g
    is_matrix = [n > 1 and (max_skew is None or n * n <= max_skew * g[0].size)
                 for n in g.shape[1:]]  # fmt: skip
    start = initial_scale ** (1 / k)
    q = [start * (np.eye(n) if full else np.ones(n))
         for n, full in zip(g.shape[1:], is_matrix, strict=True)]  # fmt: skip
    bounds = [0.0] * k
    out = np.empty_like(g)

    def whitened(tensor):
        for axis, factor in enumerate(q):
            whole = factor if factor.ndim == 2 else np.diag(factor)
            tensor = times(tensor, whole.T @ whole, axis)
        return tensor

    for t in range(1, len(g) + 1):
        if due(t, 1, every):
            h = whitened(g[t - 1] + (damping * noise[t - 1].reshape(g[0].shape) if damping else 0))
            for axis in range(k):
                columns = g[0].size / g.shape[1 + axis]
                moments = unfolded(h, axis) @ unfolded(h, axis).T
                diagonal = np.diag(moments)
                size = columns + (norm_from_below(moments) if is_matrix[axis] else diagonal.max())
                bounds[axis] = max(decay * bounds[axis] + (1 - decay) * size, size)
                share = rate / bounds[axis]
                if is_matrix[axis]:
                    step = share * (moments - columns * np.eye(len(moments))) @ q[axis]
                    q[axis] = turned_to_symmetric(q[axis] - step)
                else:
                    q[axis] = q[axis] * (1 - share * (diagonal - columns))
        out[t - 1] = whitened(m[t - 1])
        rms = np.sqrt(np.mean(out[t - 1] ** 2))
        out[t - 1] /= max(1.0, rms / max_rms)
    return descend(out.reshape(np.shape(gradients)), theta, learning_rate, weight_decay)


def norm_from_below(matrix):
    row = matrix[np.argmax(np.linalg.norm(matrix, axis=1))] @ matrix
    length = np.linalg.norm(row)
    return np.linalg.norm(row / length @ matrix) if length > 0 else 0.0


def turned_to_symmetric(q):
    r = q.T - q
    size = norm_from_below(r)
    if size == 0:
        return q
    r = r / size
    slope, curvature = np.trace(r @ q), np.trace(r @ r @ q)
    a = min(-slope / curvature, 1 / 8) if curvature < 0 else 1 / 8
    return (np.eye(len(q)) + a * r + a**2 / 2 * r @ r) @ q
