"""The first-order methods in float64 NumPy, each written from its paper.

Every oracle is `name(gradients, theta, **hyperparameters)`: `gradients`, of shape (T, ...), is what
one array parameter sees over T steps, and `theta` is where the parameter starts. The result, of the
same shape, is what is **added** to the parameter at each step: the learning rate and the minus sign
are in it. `learning_rate` is a number or a callable of the step, 0 on the first.

A trajectory of gradients is one array with time on its first axis, so that a formula holds for all
steps at once. Complex gradients are computed in complex128; their square is |g|^2.

In the formulas g_t is the gradient at step t = 1, 2, ..., eta the learning rate and u_t the update.
"""

from collections.abc import Callable, Iterable
from decimal import Decimal, localcontext
from itertools import accumulate

import numpy as np

Rate = float | Callable[[int], float]


def series(gradients) -> np.ndarray:
    dtype = np.complex128 if np.iscomplexobj(gradients) else np.float64
    return np.asarray(gradients).astype(dtype)


def column(values: Iterable[float], like: np.ndarray) -> np.ndarray:
    """One number a step, shaped to broadcast against a trajectory."""
    return np.array(list(values), np.float64).reshape(-1, *[1] * (like.ndim - 1))


def rates(learning_rate: Rate, like: np.ndarray) -> np.ndarray:
    schedule = learning_rate if callable(learning_rate) else lambda _: learning_rate
    return column(map(schedule, range(len(like))), like)


def square(x: np.ndarray) -> np.ndarray:
    return x.real**2 + x.imag**2


def recur(rule: Callable, start, xs: np.ndarray) -> np.ndarray:
    """a_t = rule(a_{t-1}, x_t) from a_0 = start, at every t >= 1."""
    return np.array(list(accumulate(xs, rule, initial=start))[1:])


def ema(xs: np.ndarray, decay: float, initial: float = 0.0) -> np.ndarray:
    return recur(lambda a, x: decay * a + (1 - decay) * x, initial, xs)


def trace(xs: np.ndarray, decay: float) -> np.ndarray:
    return recur(lambda a, x: decay * a + x, 0.0, xs)


def correction(decay: float, like: np.ndarray) -> np.ndarray:
    """1 - decay^t, as the moving average of ones: the total weight of the gradients so far."""
    return ema(column(np.ones(len(like)), like), decay)


def mean(xs: np.ndarray, decay: float) -> np.ndarray:
    """The bias-corrected moving average (Kingma and Ba, section 3)."""
    return ema(xs, decay) / correction(decay, xs)


def momentum_steps(xs: np.ndarray, momentum: float | None, nesterov: bool) -> np.ndarray:
    if momentum is None:
        return xs
    v = trace(xs, momentum)
    return xs + momentum * v if nesterov else v


def descend(directions, theta, learning_rate: Rate, weight_decay: float = 0.0) -> np.ndarray:
    """u_t = -eta_t (d_t + lambda theta_{t-1}): the decay is decoupled from the direction d_t."""
    eta = rates(learning_rate, directions)
    theta = np.asarray(theta).astype(directions.dtype)
    updates = np.empty_like(directions)
    for t, direction in enumerate(directions):
        updates[t] = -eta[t] * (direction + weight_decay * theta)
        theta = theta + updates[t]
    return updates


def sgd(gradients, theta, learning_rate, momentum=None, nesterov=False):
    """v_t = mu v_{t-1} + g_t; u_t = -eta v_t, with Nesterov -eta (g_t + mu v_t).

    Polyak 1964; Sutskever et al. 2013, On the importance of initialization and momentum in deep
    learning, in the form that takes its gradient at the current point.
    """
    return descend(momentum_steps(series(gradients), momentum, nesterov), theta, learning_rate)


def ema_sgd(gradients, theta, learning_rate, decay=0.9, bias_correction=False):
    """m_t = b m_{t-1} + (1 - b) g_t; u_t = -eta m_t, with the correction -eta m_t / (1 - b^t)."""
    average = mean if bias_correction else ema
    return descend(average(series(gradients), decay), theta, learning_rate)


def adagrad(gradients, theta, learning_rate, initial_accumulator_value=0.1, eps=1e-7):
    """u_t = -eta g_t / sqrt(a + sum_{i <= t} g_i^2 + eps).

    Duchi, Hazan and Singer 2011, Adaptive Subgradient Methods (the diagonal form, figure 1).
    """
    g = series(gradients)
    total = initial_accumulator_value + np.cumsum(square(g), axis=0)
    return descend(g / np.sqrt(total + eps), theta, learning_rate)


def adadelta(gradients, theta, learning_rate=1.0, rho=0.9, eps=1e-6, weight_decay=0.0):
    """d_t = RMS[d]_{t-1} / RMS[g]_t g_t; u_t = -eta d_t; RMS[x]_t = sqrt(E[x^2]_t + eps).

    Zeiler 2012, arXiv:1212.5701, algorithm 1. An L2 penalty adds lambda theta_{t-1} to g_t first.
    """
    gradients = series(gradients)
    eta = rates(learning_rate, gradients)
    theta = np.asarray(theta).astype(gradients.dtype)
    updates = np.empty_like(gradients)
    power_g = power_d = 0.0
    for t, gradient in enumerate(gradients):
        g = gradient + weight_decay * theta
        power_g = rho * power_g + (1 - rho) * square(g)
        d = np.sqrt(power_d + eps) / np.sqrt(power_g + eps) * g
        power_d = rho * power_d + (1 - rho) * square(d)
        updates[t] = -eta[t] * d
        theta = theta + updates[t]
    return updates


def variance(xs: np.ndarray, decay: float, initial: float = 0.0) -> np.ndarray:
    """E[x^2]_t - |E[x]_t|^2 without its cancellation: the mean square distance from E[x]_t.

    The averages weigh x_i by (1 - b) b^(t-i) and their start, zero, by the b^t that is left.
    """
    m = ema(xs, decay)
    out = np.empty(xs.shape)
    for t in range(len(xs)):
        weights = (1 - decay) * decay ** column(range(t, -1, -1), xs)
        left = decay ** (t + 1)
        spread = np.sum(weights * square(xs[: t + 1] - m[t]), axis=0)
        out[t] = spread + left * (square(m[t]) + initial)
    return out


def rmsprop(
    gradients, theta, learning_rate, decay=0.9, eps=1e-8, initial_scale=0.0, eps_in_sqrt=True,
    centered=False, momentum=None, nesterov=False,
):  # fmt: skip
    """s_t = E[g^2]_t, centered E[g^2]_t - E[g]_t^2; d_t = g_t / sqrt(s_t + eps).

    The other reading of eps is d_t = g_t / (sqrt(s_t) + eps). Momentum, as in `sgd`, acts on d_t.

    Tieleman and Hinton 2012, Lecture 6.5; centered: Graves 2013, arXiv:1308.0850, section 4.2.
    """
    g = series(gradients)
    s = variance(g, decay, initial_scale) if centered else ema(square(g), decay, initial_scale)
    d = g / (np.sqrt(s + eps) if eps_in_sqrt else np.sqrt(s) + eps)
    return descend(momentum_steps(d, momentum, nesterov), theta, learning_rate)


def rprop(
    gradients, theta, learning_rate, eta_minus=0.5, eta_plus=1.2, min_step_size=1e-6,
    max_step_size=50.0,
):  # fmt: skip
    """u_t = -s_t sign(g_t), where s_t grows by eta_plus while the sign stays and shrinks by
    eta_minus when it turns; a turned g_t counts as 0, for u_t and as the next step's g_{t-1}.

    s_0 is the learning rate, clipped to the range of the steps as every s_t. Real gradients only.

    Riedmiller and Braun 1993, A direct adaptive method for faster backpropagation learning, without
    weight backtracking: Igel and Hüsken 2000, Improving the Rprop learning algorithm (iRprop-).
    """
    signs = np.sign(series(gradients))
    step = np.full(signs.shape[1:], rates(learning_rate, signs)[0])
    before = np.zeros(signs.shape[1:])
    updates = np.empty_like(signs)
    for t, sign in enumerate(signs):
        agreement = sign * before
        factor = np.where(agreement > 0, eta_plus, np.where(agreement < 0, eta_minus, 1.0))
        step = np.clip(step * factor, min_step_size, max_step_size)
        before = np.where(agreement < 0, 0.0, sign)
        updates[t] = -step * before
    return updates


def adamw(
    gradients, theta, learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, weight_decay=1e-4
):
    """u_t = -eta (mhat_t / (sqrt(vhat_t + eps_root) + eps) + lambda theta_{t-1}).

    Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization, arXiv:1711.05101.
    """
    g = series(gradients)
    d = mean(g, b1) / (np.sqrt(mean(square(g), b2) + eps_root) + eps)
    return descend(d, theta, learning_rate, weight_decay)


def adam(gradients, theta, learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0):
    """u_t = -eta mhat_t / (sqrt(vhat_t + eps_root) + eps): mhat, vhat are the means of g and g^2.

    Kingma and Ba 2015, arXiv:1412.6980, algorithm 1.
    """
    return adamw(gradients, theta, learning_rate, b1, b2, eps, eps_root, weight_decay=0.0)


def adamax(gradients, theta, learning_rate, b1=0.9, b2=0.999, eps=1e-8):
    """n_t = max(b2 n_{t-1}, |g_t| + eps); u_t = -eta mhat_t / n_t.

    Kingma and Ba 2015, arXiv:1412.6980, algorithm 2.
    """
    g = series(gradients)
    largest = recur(lambda n, x: np.maximum(b2 * n, x), 0.0, np.abs(g) + eps)
    return descend(mean(g, b1) / largest, theta, learning_rate)


def nadamw(
    gradients, theta, learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, weight_decay=1e-4,
    momentum_decay=None,
):  # fmt: skip
    """As `adamw`, where mhat_t looks one step ahead:
    mu_{t+1} m_t / (1 - mu_1 ... mu_{t+1}) + (1 - mu_t) g_t / (1 - mu_1 ... mu_t).

    mu_t = b1, or b1 (1 - 0.96^(t psi) / 2) with a momentum decay psi. As in Adam, m_t averages with
    b1, where Dozat averages with mu_t.

    Dozat 2016, Incorporating Nesterov Momentum into Adam.
    """
    g = series(gradients)
    t = np.arange(1.0, len(g) + 2)
    half = 0.0 if momentum_decay is None else 0.5 * 0.96 ** (t * momentum_decay)
    mu = b1 * (np.ones_like(t) - half)
    one_minus_product = recur(lambda w, m: m * w + (1 - m), 0.0, mu)
    ahead = column((mu / one_minus_product)[1:], g)
    now = column(((1 - mu) / one_minus_product)[:-1], g)
    m_hat = ahead * ema(g, b1) + now * g
    d = m_hat / (np.sqrt(mean(square(g), b2) + eps_root) + eps)
    return descend(d, theta, learning_rate, weight_decay)


def nadam(
    gradients, theta, learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, momentum_decay=None
):
    """`nadamw` without weight decay."""
    return nadamw(gradients, theta, learning_rate, b1, b2, eps, eps_root, 0.0, momentum_decay)


def amsgrad(gradients, theta, learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0):
    """w_t = max(w_{t-1}, v_t); u_t = -eta mhat_t / (sqrt(w_t / (1 - b2^t) + eps_root) + eps).

    Reddi, Kale and Kumar 2018, On the Convergence of Adam and Beyond, arXiv:1904.09237. The paper
    corrects no bias; here the largest raw v_t is corrected.
    """
    g = series(gradients)
    largest = np.maximum.accumulate(ema(square(g), b2), axis=0) / correction(b2, g)
    return descend(mean(g, b1) / (np.sqrt(largest + eps_root) + eps), theta, learning_rate)


def rectification(b2: float, t: int, threshold: float) -> float | None:
    """r_t while rho_t > threshold, else None.

    In 60 digits, because rho_t - 4 is what is left of numbers as large as 2 / (1 - b2).
    """
    with localcontext(prec=60):
        b, power = Decimal(b2), Decimal(b2) ** t
        limit = 2 / (1 - b) - 1
        rho = limit - 2 * t * power / (1 - power)
        if rho <= Decimal(threshold):
            return None
        ratio = (rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)
        return float(ratio.sqrt())


def radam(gradients, theta, learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, threshold=4.0):
    """u_t = -eta r_t mhat_t / (sqrt(vhat_t + eps_root) + eps) while rho_t > 4, else -eta mhat_t.

    rho_t = rho_inf - 2 t b2^t / (1 - b2^t), rho_inf = 2 / (1 - b2) - 1, and
    r_t^2 = (rho_t - 4)(rho_t - 2) rho_inf / ((rho_inf - 4)(rho_inf - 2) rho_t).

    Liu et al. 2020, On the Variance of the Adaptive Learning Rate and Beyond, arXiv:1908.03265.
    """
    g = series(gradients)
    d = mean(g, b1)
    root = np.sqrt(mean(square(g), b2) + eps_root) + eps
    for t in range(len(g)):
        r = rectification(b2, t + 1, threshold)
        if r is not None:
            d[t] = r * d[t] / root[t]
    return descend(d, theta, learning_rate)


def schedule_free(directions, theta, learning_rate, b1, weight_decay, weight_lr_power):
    """z_t = z_{t-1} - eta_t (d_t + lambda y_{t-1}); x_t = (1 - c_t) x_{t-1} + c_t z_t;
    y_t = (1 - b1) z_t + b1 x_t; c_t = eta_t^p / sum_{i <= t} eta_i^p; u_t = y_t - y_{t-1}.

    The parameter is y: there the gradients are taken, and it is what decays.

    Defazio et al. 2024, The Road Less Scheduled, arXiv:2405.15682, algorithm 1. In extended
    precision, because u is a small difference of large numbers.
    """
    wide = np.result_type(directions, np.longdouble)
    eta = rates(learning_rate, directions)
    x = y = z = np.asarray(theta).astype(wide)
    updates, total = np.empty_like(directions), 0.0
    for t, direction in enumerate(directions.astype(wide)):
        z = z - eta[t] * (direction + weight_decay * y)
        total = total + eta[t] ** weight_lr_power
        c = eta[t] ** weight_lr_power / total
        x = (1 - c) * x + c * z
        new = (1 - b1) * z + b1 * x
        updates[t], y = new - y, new
    return updates


def schedule_free_sgd(
    gradients, theta, learning_rate, b1=0.9, weight_decay=0.0, weight_lr_power=2.0
):
    """`schedule_free` along the gradient."""
    return schedule_free(series(gradients), theta, learning_rate, b1, weight_decay, weight_lr_power)


def schedule_free_adamw(
    gradients, theta, learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0,
    weight_lr_power=2.0,
):  # fmt: skip
    """`schedule_free` along g_t / (sqrt(vhat_t) + eps), as in Adam without its first moment."""
    g = series(gradients)
    d = g / (np.sqrt(mean(square(g), b2)) + eps)
    return schedule_free(d, theta, learning_rate, b1, weight_decay, weight_lr_power)


def sign(x: np.ndarray) -> np.ndarray:
    """x / |x|, and 0 of 0: for complex numbers the point of the unit circle in their direction."""
    return x / np.where(x == 0, 1.0, np.abs(x))


def before(xs: np.ndarray) -> np.ndarray:
    """x_{t-1} at every t, with x_0 = 0."""
    return np.concatenate([np.zeros_like(xs[:1]), xs[:-1]])


def lion(gradients, theta, learning_rate, b1=0.9, b2=0.99, weight_decay=1e-3):
    """c_t = b1 m_{t-1} + (1 - b1) g_t; u_t = -eta (sign(c_t) + lambda theta_{t-1}).

    m_t = b2 m_{t-1} + (1 - b2) g_t. Chen et al. 2023, arXiv:2302.06675, algorithm 2.
    """
    g = series(gradients)
    d = sign(b1 * before(ema(g, b2)) + (1 - b1) * g)
    return descend(d, theta, learning_rate, weight_decay)


def signum(gradients, theta, learning_rate, momentum=0.9):
    """m_t = b m_{t-1} + (1 - b) g_t; u_t = -eta sign(m_t); without momentum, -eta sign(g_t).

    Bernstein et al. 2018, arXiv:1802.04434, algorithms 2 and 1.
    """
    g = series(gradients)
    return descend(sign(g if momentum is None else ema(g, momentum)), theta, learning_rate)


def adabelief(gradients, theta, learning_rate, b1=0.9, b2=0.999, eps=1e-16, eps_root=1e-16):
    """u_t = -eta mhat_t / (sqrt(shat_t) + eps).

    s_t = b2 s_{t-1} + (1 - b2) (g_t - m_t)^2 + eps_root.

    Zhuang et al. 2020, arXiv:2010.07468, algorithm 2, where both constants are one.
    """
    g = series(gradients)
    squares = square(g - ema(g, b1))
    s = recur(lambda s, x: b2 * s + (1 - b2) * x + eps_root, 0.0, squares)
    d = mean(g, b1) / (np.sqrt(s / correction(b2, g)) + eps)
    return descend(d, theta, learning_rate)


def yogi(
    gradients, theta, learning_rate, b1=0.9, b2=0.999, eps=1e-3, eps_root=0.0,
    initial_accumulator_value=1e-6, initial_mean=0.0,
):  # fmt: skip
    """u_t = -eta mhat_t / (sqrt(vhat_t) + eps).

    v_t = v_{t-1} - (1 - b2) sign(v_{t-1} - g_t^2) g_t^2.

    Zaheer et al. 2018, Adaptive Methods for Nonconvex Optimization, algorithm 2. It corrects no
    bias; here, as in the programs, the averages are corrected as Adam's, whatever they start from.
    """
    g = series(gradients)
    v = recur(lambda v, x: v - (1 - b2) * np.sign(v - x) * x, initial_accumulator_value, square(g))
    m = ema(g, b1, initial_mean)
    root = np.sqrt(v / correction(b2, g) + eps_root) + eps
    return descend(m / correction(b1, g) / root, theta, learning_rate)


def adan(
    gradients, theta, learning_rate, b1=0.98, b2=0.92, b3=0.99, eps=1e-8, eps_root=0.0,
    weight_decay=0.0, ahead=None, proximal=True,
):  # fmt: skip
    """d_t = g_t - g_{t-1}; u_t = (mhat_t + b2 vhat_t) / (sqrt(nhat_t + eps_root) + eps), where
    m, v and n average g, d and (g + b2 d)^2; theta_t = (theta_{t-1} - eta u_t) / (1 + eta lambda).

    Xie et al. 2022, arXiv:2208.06677, algorithm 1, with 1 - b for its b. g_0 = g_1, and the biases
    are corrected, as in the authors' program. `ahead` stands for the b2 that multiplies.
    """
    g = series(gradients)
    ahead = b2 if ahead is None else ahead
    d = g - before(g)
    d[:1] = 0
    u = mean(g, b1) + ahead * mean(d, b2)
    u = u / (np.sqrt(mean(square(g + ahead * d), b3) + eps_root) + eps)
    if not proximal:
        return descend(u, theta, learning_rate, weight_decay)
    # In more digits, because an update is the small difference of two parameters.
    u = u.astype(np.result_type(u, np.longdouble))
    eta = rates(learning_rate, u)
    updates = np.empty_like(u)
    for t in range(len(u)):
        updates[t] = (theta - eta[t] * u[t]) / (1 + eta[t] * np.longdouble(weight_decay)) - theta
        theta = theta + updates[t]
    return updates.astype(g.dtype)


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(square(x)))) if x.size else 0.0


def adafactor(
    gradients, theta, learning_rate=None, min_dim_size_to_factor=128, decay_rate=0.8,
    multiply_by_parameter_scale=True, clipping_threshold=1.0, momentum=None, weight_decay=0.0,
    eps=1e-30, factored=True,
):  # fmt: skip
    """Shazeer and Stern 2018, arXiv:1804.04235, algorithms 4 and 5: of matrices R and C average the
    rows' and columns' sums of g^2 + eps with b_t = 1 - t^-c, and V = R C / (the sum of R).

    u_t = g_t / sqrt(V_t), divided by max(1, RMS(u_t) / d); the step is
    -max(1e-3, RMS(theta)) eta_t u_t, eta_t = min(1e-2, 1 / sqrt(t)) if none is given. Momentum
    averages the steps. A weight decay takes lambda theta_{t-1} from each.
    """
    g = series(gradients)
    if learning_rate is None:
        learning_rate = lambda step: min(1e-2, (step + 1) ** -0.5)  # noqa: E731
    eta = rates(learning_rate, g)
    theta = np.asarray(theta).astype(g.dtype)
    sizes = sorted(theta.shape)
    is_factored = factored and len(sizes) > 1 and sizes[-2] >= min_dim_size_to_factor
    rows = columns = whole = average = 0.0
    updates = np.empty_like(g)
    for t in range(len(g)):
        decay = 1 - (t + 1.0) ** -decay_rate
        x = square(g[t]) + eps
        if is_factored:  # matrices only
            rows = decay * rows + (1 - decay) * x.sum(1)
            columns = decay * columns + (1 - decay) * x.sum(0)
            v = np.outer(rows, columns) / np.sum(rows)
        else:
            whole = decay * whole + (1 - decay) * x
            v = whole
        u = g[t] / np.sqrt(v)
        if clipping_threshold is not None:
            u = u / max(1.0, rms(u) / clipping_threshold)
        step = eta[t] * u
        if multiply_by_parameter_scale:
            step = step * max(1e-3, rms(theta))
        if momentum is not None:
            average = momentum * average + (1 - momentum) * step
            step = average
        updates[t] = -(step + weight_decay * theta)
        theta = theta + updates[t]
    return updates


def norm(x: np.ndarray) -> float:
    return float(np.sqrt(np.sum(square(x))))


def lars(
    gradients, theta, learning_rate, weight_decay=0.0, trust_coefficient=0.001, eps=0.0,
    momentum=0.9, nesterov=False,
):  # fmt: skip
    """v_t = mu v_{t-1} + eta r_t (g_t + lambda theta_{t-1}); u_t = -v_t, where
    r_t = c |theta_{t-1}| / (|g_t| + lambda |theta_{t-1}| + eps), 1 where a norm of the two is 0.

    Nesterov's form, not in the paper, is u_t = -(mu v_t + eta r_t (g_t + lambda theta_{t-1})).

    You, Gitman and Ginsburg 2017, arXiv:1708.03888, algorithm 1.
    """
    gradients = series(gradients)
    eta = rates(learning_rate, gradients).ravel()
    theta = np.asarray(theta).astype(gradients.dtype)
    updates = np.empty_like(gradients)
    v = np.zeros_like(theta)
    for t, g in enumerate(gradients):
        w = norm(theta)
        has_ratio = w > 0 and norm(g) > 0
        ratio = trust_coefficient * w / (norm(g) + weight_decay * w + eps) if has_ratio else 1.0
        step = eta[t] * ratio * (g + weight_decay * theta)
        v = momentum * v + step
        updates[t] = -(momentum * v + step) if nesterov else -v
        theta = theta + updates[t]
    return updates


def lamb(
    gradients, theta, learning_rate, b1=0.9, b2=0.999, eps=1e-6, eps_root=0.0, weight_decay=0.0
):
    """d_t = mhat_t / (sqrt(vhat_t + eps_root) + eps) + lambda theta_{t-1};
    u_t = -eta |theta_{t-1}| / |d_t| d_t, or -eta d_t where a norm of the two is 0.

    You et al. 2020, arXiv:1904.00962, algorithm 2, its phi the identity.
    """
    g = series(gradients)
    eta = rates(learning_rate, g).ravel()
    adam = mean(g, b1) / (np.sqrt(mean(square(g), b2) + eps_root) + eps)
    theta = np.asarray(theta).astype(g.dtype)
    updates = np.empty_like(g)
    for t, direction in enumerate(adam):
        d = direction + weight_decay * theta
        ratio = norm(theta) / norm(d) if norm(theta) > 0 and norm(d) > 0 else 1.0
        updates[t] = -eta[t] * ratio * d
        theta = theta + updates[t]
    return updates


def sm3(gradients, theta, learning_rate, momentum=0.9, b2=1.0, eps=1e-8):
    """nu_t(i) = min over the slices r with i of mu_{t-1}(r), + g_t(i)^2; mu_t(r) = the maximum of
    nu_t over r; u_t = -eta times the moving average of g_t / sqrt(nu_t + eps).

    The slices are those across each axis; a single number is its own. With b2 < 1 nu_t is
    b2 min + (1 - b2) g_t^2. The paper lets 0 / 0 be 0 in place of the eps.

    Anil, Gupta, Koren and Singer 2019, arXiv:1901.11150, algorithm SM3-II.
    """
    g = series(gradients)
    shape = g.shape[1:]
    mu = {(axis, k): 0.0 for axis, n in enumerate(shape) for k in range(n)} or {(): 0.0}
    d = np.empty_like(g)
    for t, each in enumerate(square(g)):
        nu = np.empty(shape)
        for i in np.ndindex(shape):
            least = min(mu[r] for r in (enumerate(i) if shape else [()]))
            nu[i] = b2 * least + (1.0 if b2 == 1.0 else 1 - b2) * each[i]
        for r in mu:
            mu[r] = np.max(np.take(nu, r[1], axis=r[0]) if shape else nu, initial=0.0)
        d[t] = g[t] / np.sqrt(nu + eps)
    return descend(d if momentum is None else ema(d, momentum), theta, learning_rate)


def full_matrix_adagrad(gradients, theta, learning_rate, eps=1e-7, block_size=None, window=None):
    """u_t = -eta (G_t + eps I)^(-1/2) g_t, G_t = sum over i <= t of g_i g_i^T, all numbers of g_i
    as one vector, or those of each block; with a window the sum is over t - window < i <= t.

    From the singular values of the matrix with rows g_i, without G_t: as g_t is one of the rows, it
    is where these act. Blocks are of ceil(n / count) numbers in order, of as few as can be.

    Duchi, Hazan and Singer 2011, Adaptive Subgradient Methods (the full form), eps in the root.
    """
    g = series(gradients)
    rows = g.reshape(len(g), -1)
    d = np.zeros_like(rows)
    n = rows.shape[1]
    width = -(-n // -(-n // (block_size or n))) if n else 1
    for start in range(0, n, width):
        for t in range(len(g)):
            seen = rows[: t + 1] if window is None else rows[max(0, t + 1 - window) : t + 1]
            seen = seen[:, start : start + width]
            _, s, v = np.linalg.svd(seen, full_matrices=False)
            inside = s > 1e-13 * s.max(initial=0)
            v, s = v[inside], s[inside]
            d[t, start : start + width] = (v.conj() @ seen[-1] / np.sqrt(s**2 + eps)) @ v
    return descend(d.reshape(g.shape), theta, learning_rate)


def orthogonal(x, coefficients, steps):
    """X_0 = X / |X|_F; X_{k+1} = (a + b X_k X_k^* + c (X_k X_k^*)^2) X_k; or U V^*, exactly.

    `coefficients` is (a, b, c) for all steps, a list of them one a step, or "exact".

    Jordan et al. 2024, Muon: An optimizer for hidden layers in neural networks.
    """
    if isinstance(coefficients, str) and coefficients == "exact":
        u, _, v = np.linalg.svd(x, full_matrices=False)
        return u @ v
    rows = np.broadcast_to(np.array(coefficients, np.float64), (steps, 3))
    x = x / np.linalg.norm(x)
    for a, b, c in rows:
        square = x @ x.conj().T
        x = (a * np.eye(len(x)) + b * square + c * square @ square) @ x
    return x


def muon(
    gradients, theta, learning_rate, momentum=0.95, nesterov=True,
    coefficients=(3.4445, -4.7750, 2.0315), steps=5, shape_factor="keller", weight_decay=0.0,
):  # fmt: skip
    """v_t = mu v_{t-1} + g_t; u_t = -eta (s orthogonal(v_t) + lambda theta_{t-1}), with Nesterov
    of g_t + mu v_t.

    For one matrix, of n_i rows that are inputs and n_o columns that are outputs:
    s = max(1, n_o / n_i)^(1/2) as Keller Jordan has it (whose matrices have outputs for rows), or
    0.2 max(n_i, n_o)^(1/2): Liu et al. 2025, Muon is Scalable for LLM Training, arXiv:2502.16982.
    """
    v = momentum_steps(series(gradients), momentum, nesterov)
    n_in, n_out = v.shape[1:]
    s = {"keller": max(1, n_out / n_in) ** 0.5, "moonshot": 0.2 * max(n_in, n_out) ** 0.5}
    d = s[shape_factor] * np.array([orthogonal(x, coefficients, steps) for x in v])
    return descend(d, theta, learning_rate, weight_decay)


def normuon(
    gradients, theta, learning_rate, momentum=0.95, b2=0.95, eps=1e-10, nesterov=True,
    coefficients=(3.4445, -4.7750, 2.0315), steps=5, shape_factor="keller", weight_decay=0.0,
):  # fmt: skip
    """Li et al. 2025, arXiv:2510.05491: the orthogonal matrix O of Muon, its columns, which are
    outputs here, by the root of averages v_t = b2 v_{t-1} + (1 - b2) mean(O^2), and brought back to
    the length that O had (the authors' program).
    """
    o = momentum_steps(series(gradients), momentum, nesterov)
    o = np.array([orthogonal(x, coefficients, steps) for x in o])
    n = o / (np.sqrt(ema(np.mean(o**2, axis=1, keepdims=True), b2)) + eps)
    rms = [np.sqrt(np.mean(x**2, axis=(1, 2), keepdims=True)) for x in (o, n)]
    n_in, n_out = o.shape[1:]
    s = {"keller": max(1, n_out / n_in) ** 0.5, "moonshot": 0.2 * max(n_in, n_out) ** 0.5}
    d = s[shape_factor] * n * rms[0] / (rms[1] + eps)
    return descend(d, theta, learning_rate, weight_decay)
