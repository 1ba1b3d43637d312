"""Recipes that change the matrix."""

from itertools import count

import numpy as np

from .problem import Adam, Peer, per_array

PEERS = [
    Peer(
        "splus",
        "SPlus",
        {"lr": 0.1, "weight_decay": 0.0},
        rtol=1e-5,
        because="their eigenvectors are in float32",
    ),
]


def _muon_of(x, gradient):
    v = 0.0
    for t in count(1):
        g = gradient(x, t)
        v = 0.95 * v + g
        x = x - 0.02 * max(1.0, x.shape[1] / x.shape[0]) ** 0.5 * _orthogonalized(g + 0.95 * v)
        yield x


def _adam_of(x, gradient, rate=1e-3, decay=0.0):
    adam = Adam()
    for t in count(1):
        x = x - rate * (adam(gradient(x, t), t) + decay * x)
        yield x


@per_array
def muon(x, gradient):
    return _muon_of(x, gradient) if x.ndim == 2 else _adam_of(x, gradient, decay=1e-4)


@per_array
def normuon(x, gradient):
    return _normuon_of(x, gradient) if x.ndim == 2 else _adam_of(x, gradient, decay=1e-4)


def _normuon_of(x, gradient):
    m, v = 0.0, 0.0
    for t in count(1):
        g = gradient(x, t)
        m = 0.95 * m + g
        o = _orthogonalized(g + 0.95 * m)
        v = 0.95 * v + 0.05 * np.mean(o**2, axis=0)  # outputs are columns here
        n = o / (np.sqrt(v) + 1e-10)
        n = n * np.linalg.norm(o) / (np.linalg.norm(n) + 1e-10 * np.sqrt(x.size))
        x = x - 0.02 * max(1.0, x.shape[1] / x.shape[0]) ** 0.5 * n
        yield x


@per_array
def scion(x, gradient):
    m = 0.0
    for t in count(1):
        m = 0.9 * m + 0.1 * gradient(x, t)
        if x.ndim == 2:
            step = (x.shape[1] / x.shape[0]) ** 0.5 * _orthogonalized(m)
        else:
            step = m / np.sqrt(np.mean(m**2))
        x = (1 - 2**-10) * x - 2**-10 * 50 * step
        yield x


@per_array
def adamuon(x, gradient):
    m = v = 0.0
    for t in count(1):
        m = 0.95 * m + gradient(x, t)
        o = _orthogonalized(np.sign(m))
        v = 0.95 * v + 0.05 * o**2
        o = o / (np.sqrt(v) + 1e-8)
        x = x - 1e-3 * (0.2 * np.sqrt(x.size) / np.linalg.norm(o) * o + 0.1 * x)
        yield x


@per_array
def soap_muon(x, gradient):
    soap = _Soap(x.shape)
    for t in count(1):
        step = soap.step(gradient(x, t), b1=0.95)
        x = x - 0.02 * max(1.0, x.shape[1] / x.shape[0]) ** 0.5 * _orthogonalized(step)
        yield x


@per_array
def soap(x, gradient):
    if x.ndim < 2:
        return _adam_of(x, gradient, 3e-3)
    return _soap_of(x, gradient)


def _soap_of(x, gradient):
    soap = _Soap(x.shape)
    for t in count(1):
        x = x - 3e-3 * (soap.step(gradient(x, t), b1=0.95) + 0.01 * x)
        yield x


@per_array
def soap_lion(x, gradient):
    """The momentum is kept as it is: turned with the basis, it is the same."""
    bases, m = _Bases(x.shape), np.zeros(x.shape)
    for t in count(1):
        g = gradient(x, t)
        step = bases.back(np.sign(bases.turned(0.9 * m + 0.1 * g)))
        m = 0.99 * m + 0.01 * g
        bases.see(g @ g.T, g.T @ g, 0.95)
        bases.turn(t, 10)
        x = x - 1e-3 * step
        yield x


@per_array
def splus(x, gradient):
    m, left, right = 0.0, np.zeros(2 * x.shape[:1]), np.zeros(2 * x.shape[1:])
    q = [np.eye(n) for n in x.shape]
    for t in count(1):
        g = gradient(x, t)
        m = 0.9 * m + 0.1 * g
        step = q[0] @ np.sign(q[0].T @ m @ q[1]) @ q[1].T
        left = 0.999 * left + 0.001 * g @ g.T
        right = 0.999 * right + 0.001 * g.T @ g
        if t % 100 == 1:
            q = [np.linalg.eigh(side)[1] for side in (left, right)]
        x = x - 0.1 * 2 / (x.shape[0] + x.shape[1]) * step
        yield x


@per_array
def kl_shampoo(x, gradient):
    sides, m = _KL(x.shape), 0.0
    for t in count(1):
        g = gradient(x, t)
        m = 0.9 * m + 0.1 * g
        step = sides.back(sides.turned(m) / np.sqrt(np.outer(*sides.values)))
        sides.see_both(g)
        sides.turn(t, 10, sides.values)
        x = x - 1e-3 * step
        yield x


@per_array
def kl_soap(x, gradient):
    sides, m, v = _KL(x.shape), 0.0, np.zeros(x.shape)
    for t in count(1):
        g = gradient(x, t)
        m = 0.9 * m + 0.1 * g
        v = 0.95 * v + 0.05 * sides.turned(g) ** 2
        size = np.sqrt(v / (1 - 0.95**t)) + 1e-8
        step = sides.back(sides.turned(m / (1 - 0.9**t)) / size)
        sides.see_both(g)
        v = sides.turn(t, 10, sides.values, v)
        x = x - 1e-3 * step
        yield x


@per_array
def shampoo(x, gradient):
    sums = [np.zeros((n, n)) for n in x.shape or (1,)]
    for t in count(1):
        g = gradient(x, t)
        step = g if g.ndim else g[None]
        k = step.ndim
        for axis in range(k):
            rows = np.moveaxis(step, axis, 0).reshape(len(sums[axis]), -1)
            sums[axis] = sums[axis] + rows @ rows.T
        for axis in range(k):
            values, vectors = np.linalg.eigh(sums[axis] + 1e-4 * np.eye(len(sums[axis])))
            root = vectors * values ** (-1 / (2 * k)) @ vectors.T
            step = np.moveaxis(np.tensordot(root, step, (1, axis)), 0, axis)
        x = x - 0.1 * step.reshape(x.shape)
        yield x


def psgd(params, gradients):
    """The two arrays share the scale of the first factors."""
    first = gradients(params, 1).values()
    scale = max(np.mean(g**4) for g in first) ** (-1 / 8)
    factors = {key: _Kron(p.shape, scale) for key, p in params.items()}
    means = {key: np.zeros(p.shape) for key, p in params.items()}
    for t in count(1):
        new = {}
        for key, g in gradients(params, t).items():
            factors[key].fit(g)
            means[key] = 0.9 * means[key] + 0.1 * g
            step = factors[key].whitened(means[key] / (1 - 0.9**t))
            step = step / max(1.0, np.sqrt(np.mean(step**2)) / 2)
            new[key] = params[key] - 1e-3 * step
        params = new
        yield params


def qk_clip(params, gradients, max_logits):
    """As if the matrix were of queries or of keys, each of which takes half of the share."""
    v = 0.0
    others = {key: Adam() for key in params if key != "w"}
    for t in count(1):
        g = gradients(params, t)
        v = 0.95 * v + g["w"]
        m = 0.2 * max(v.shape) ** 0.5 * _orthogonalized(v)
        share = min(1.0, 100 / max_logits(params, t))
        new = {"w": np.sqrt(share) * (params["w"] - 2e-3 * (m + 0.1 * params["w"]))}
        for key, adam in others.items():
            new[key] = params[key] - 2e-4 * (adam(g[key], t) + 1e-4 * params[key])
        params = new
        yield params


def _orthogonalized(m):
    """Five steps of Newton and Schulz with the coefficients of Keller Jordan."""
    x = m / np.linalg.norm(m)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


class _Bases:
    """Eigenvectors of averages of second moments, the largest eigenvalue first."""

    def __init__(self, shape):
        self.q = [np.eye(n) for n in shape]
        self.sides = [np.zeros((n, n)) for n in shape]

    def turned(self, x):
        return self.q[0].T @ x @ self.q[1]

    def back(self, x):
        return self.q[0] @ x @ self.q[1].T

    def see(self, left, right, decay):
        self.sides = [
            decay * side + (1 - decay) * new
            for side, new in zip(self.sides, (left, right), strict=True)
        ]

    def turn(self, t, every, values=None, v=None):
        """At the steps 1, 1 + every, ...; what was measured in the basis is sorted with it."""
        if t % every != 1:
            return v
        for axis, side in enumerate(self.sides):
            order = np.argsort(-np.diag(self.q[axis].T @ side @ self.q[axis]), kind="stable")
            if t == 1:
                self.q[axis] = np.linalg.eigh(side)[1][:, ::-1]
            else:
                self.q[axis] = np.linalg.qr(side @ self.q[axis][:, order])[0]
            if values is not None:
                values[axis] = values[axis][order]
            if v is not None:
                v = np.take(v, order, axis)
        return v


class _Soap(_Bases):
    """Adam in the eigenbasis, with b2 = 0.95 for all averages of squares."""

    def __init__(self, shape):
        super().__init__(shape)
        self.m, self.v, self.t = 0.0, np.zeros(shape), 0

    def step(self, g, b1):
        self.t += 1
        self.m = b1 * self.m + (1 - b1) * g
        self.v = 0.95 * self.v + 0.05 * self.turned(g) ** 2
        size = np.sqrt(self.v / (1 - 0.95**self.t)) + 1e-8
        step = self.back(self.turned(self.m / (1 - b1**self.t)) / size)
        self.see(g @ g.T, g.T @ g, 0.95)
        self.v = self.turn(self.t, 10, v=self.v)
        return step


class _KL(_Bases):
    """Bases and eigenvalues of which each side sees the other's."""

    def __init__(self, shape):
        super().__init__(shape)
        self.values = [np.ones(n) for n in shape]

    def see_both(self, g):
        m, n = g.shape
        left, right = (
            q / d @ q.T for q, d in zip(self.q, self.values, strict=True)
        )  # the inverses
        rows, columns = g @ right @ g.T / n, g.T @ left @ g / m
        self.values = [
            0.95 * d + 0.05 * np.diag(q.T @ new @ q)
            for d, q, new in zip(self.values, self.q, (rows, columns), strict=True)
        ]
        self.see(rows, columns, 0.95)


class _Kron:
    """Factors Q of P = Q'Q for each axis, fitted so that gradients times all P are white."""

    def __init__(self, shape, scale):
        k, self.size = len(shape), np.prod(shape)
        self.q = [
            scale ** (1 / k) * (np.eye(n) if n * n <= self.size else np.ones(n)) for n in shape
        ]
        self.bounds = [0.0] * k

    def whitened(self, x):
        for axis, q in enumerate(self.q):
            p = q.T @ q if q.ndim == 2 else np.diag(q**2)
            x = np.moveaxis(np.tensordot(p, x, (1, axis)), 0, axis)
        return x

    def fit(self, g):
        h = self.whitened(g)
        for axis, q in enumerate(self.q):
            rows = np.moveaxis(h, axis, 0).reshape(len(q), -1)
            columns, moments = self.size / len(q), rows @ rows.T
            if q.ndim == 1:
                moments = np.diag(moments)
            size = columns + (np.max(moments) if q.ndim == 1 else _norm(moments))
            self.bounds[axis] = max(0.9 * self.bounds[axis] + 0.1 * size, size)
            share = 0.1 / self.bounds[axis]
            if q.ndim == 1:
                self.q[axis] = q * (1 - share * (moments - columns))
            else:
                self.q[axis] = _rotated(q - share * (moments @ q - columns * q))


def _norm(matrix):
    """From below: two products with the matrix, from its longest row."""
    row = matrix[np.argmax(np.sum(matrix**2, axis=1))] @ matrix
    return np.linalg.norm(row / np.linalg.norm(row) @ matrix)


def _rotated(q):
    """Toward a symmetric matrix, by the second order of a rotation of at most 1/8."""
    r = q.T - q
    if not r.any():
        return q
    r = r / _norm(r)
    slope, curvature = np.trace(r @ q), np.trace(r @ r @ q)
    a = min(-slope / curvature, 1 / 8) if curvature < 0 else 1 / 8
    return q + a * (r @ q + a / 2 * r @ r @ q)


def _flat(tree):
    return np.concatenate([np.ravel(tree[key]) for key in sorted(tree)])


def _like(tree, flat):
    ends = np.cumsum([np.size(tree[key]) for key in sorted(tree)])
    parts = np.split(flat, ends[:-1])
    return {
        key: part.reshape(np.shape(tree[key]))
        for key, part in zip(sorted(tree), parts, strict=True)
    }


def _curved(pairs, g):
    """Nocedal & Wright's algorithm 7.4."""
    if not pairs:
        return min(1, 1 / np.linalg.norm(g)) * g
    q, shares = g.copy(), []
    for s, y in reversed(pairs):
        shares.append(s @ q / (s @ y))
        q -= shares[-1] * y
    s, y = pairs[-1]
    r = s @ y / (y @ y) * q
    for (s, y), share in zip(pairs, reversed(shares), strict=True):
        r += (share - y @ r / (s @ y)) * s
    return r


def _least_of_cubic(a, fa, ga, b, fb, c, fc):
    """Through three values and a slope."""
    rows = [[(x - a) ** 3, (x - a) ** 2] for x in (b, c)]
    third, second = np.linalg.solve(rows, [f - fa - ga * (x - a) for x, f in ((b, fb), (c, fc))])
    return a + (-second + np.sqrt(second**2 - 3 * third * ga)) / (3 * third)


def _wolfe(phi, f0, g0):
    """Algorithms 3.5 and 3.6, with the approximate condition of Hager & Zhang."""

    def falls(a, f, g):
        near = g <= (2e-4 - 1) * g0 and f <= f0 + 1e-6 * abs(f0)
        return f <= f0 + 1e-4 * a * g0 or near

    low, a = (0.0, f0, g0), 1.0
    for i in range(20):
        f, g = phi(a)
        if not falls(a, f, g) or (i and f >= low[1]):
            high = (a, f, g)
            break
        if abs(g) <= 0.9 * abs(g0):
            return a
        if g >= 0:
            low, high = (a, f, g), low
            break
        low, a = (a, f, g), 2 * a
    reference = low
    for _ in range(20):
        width, left = abs(high[0] - low[0]), min(low[0], high[0])
        a = (low[0] + high[0]) / 2
        bend = (high[1] - low[1] - low[2] * (high[0] - low[0])) / (high[0] - low[0]) ** 2
        vertex = low[0] - low[2] / (2 * bend)
        if 0.1 * width < vertex - left < 0.9 * width:
            a = vertex
        if reference[0] not in (low[0], high[0]):
            with np.errstate(invalid="ignore"):
                least = _least_of_cubic(*low, *high[:2], *reference[:2])
            if 0.2 * width < least - left < 0.8 * width:
                a = least
        f, g = phi(a)
        if not falls(a, f, g) or f >= low[1]:
            reference, high = high, (a, f, g)
            continue
        if abs(g) <= 0.9 * abs(g0):
            return a
        if g * (high[0] - low[0]) >= 0:
            reference, high = high, low
        else:
            reference = low
        low = (a, f, g)
    return 0.0  # the function falls by less than its rounding errors


def lbfgs(params, gradient, value, grad, value_fn):
    pairs, last, x = [], None, _flat(params)
    for t in count(1):
        g = _flat(gradient(_like(params, x), t))
        if last is not None:
            s, y = x - last[0], g - last[1]
            if s @ y > np.finfo(float).eps * np.linalg.norm(s) * np.linalg.norm(y):
                pairs = [*pairs, (s, y)][-10:]
        if np.linalg.norm(g) < 1e-14:  # it is there, and more is rounding
            yield _like(params, x)
            continue
        last, d = (x, g), -_curved(pairs, g)
        f = value_fn(params, t)

        def phi(a, x=x, d=d, f=f, t=t):
            there = _like(params, x + a * d)
            return f(there), _flat(gradient(there, t)) @ d

        x = x + _wolfe(phi, f(_like(params, x)), g @ d) * d
        yield _like(params, x)
