# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 4. AdaGrad
#
# One learning rate has to suit every direction. AdaGrad gives each number of the parameters its own:
# the rate over the root of the sum of its squared gradients (Duchi, Hazan & Singer 2011). This
# notebook asks what gradients tell about curvature, measures the regret that the method was derived
# from, and looks for where it is slow and where it is fast.

# %%
# In a clone of gdtx: pip install -e ".[docs]"
import functools
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits

import gdtx
from gdtx.explore.claims import CORRECTED, HOLDS, claim

plt.style.use("gdtx.explore.gdtx")

# %% [markdown]
# Everything here is an online game: in each round the parameters meet a loss, pay it, and move. An
# ordinary minimization is the game in which all rounds are alike.


# %% tags=["hide-input"]
def play(tx, loss, start, rounds):
    """Parameters before each round, what it costs, its gradient; and the parameters in the end."""

    def step(carry, example):
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params, example)
        updates, state = tx.update(gradient, state, params)
        return (gdtx.apply_updates(params, updates), state), (params, value, gradient)

    (end, _), (path, paid, gradients) = jax.lax.scan(step, (start, tx.init(start)), rounds)
    return path, paid, gradients, end


def slope(x, y):
    """Of the line through the logarithms: the exponent of a power law."""
    return np.polyfit(np.log(x), np.log(y), 1)[0]


def label_ticks(axis, values):
    """Plain numbers at these places of a logarithmic axis, and no others."""
    axis.set_ticks(values, labels=[f"{value:g}" for value in values])
    axis.set_ticks([], minor=True)


# %% [markdown]
# ## Ill-conditioning forces a low rate
#
# On $L(\theta) = \frac12 \sum_i h_i \theta_i^2$ gradient descent multiplies $\theta_i$ by
# $1 - \eta h_i$ in every step. It converges in all directions only if $\eta < 2 / h_{\max}$, and the
# best it can do is $\eta = 2 / (h_{\min} + h_{\max})$, where the flattest and the steepest direction
# both shrink by $(\kappa - 1)/(\kappa + 1)$ with $\kappa = h_{\max} / h_{\min}$: about
# $\frac{\kappa}{2} \ln 1000$ steps to come a thousand times closer.

# %%
kappas = np.array([2.0, 10.0, 100.0, 1000.0])


def distances(tx, kappa):
    """How far gradient descent still is, as a share of where it began, on a quadratic."""
    curvatures, start = jnp.stack([1 / kappa, 1.0]), jnp.ones(2)

    def loss(theta, _):
        return 0.5 * jnp.sum(curvatures * theta**2)

    path = play(tx, loss, start, jnp.arange(4000))[0]
    return jnp.linalg.norm(path, axis=1) / jnp.linalg.norm(start)


def over_rates(kappa, rates):
    return gdtx.sweep(lambda tx: distances(tx, kappa), gdtx.sgd(0.0), {"learning_rate": rates})


# %%
rates = np.linspace(0.02, 2.1, 105)
with_best = [np.append(rates, 2 / (1 + 1 / kappa)) for kappa in kappas]
distance = np.asarray(jax.vmap(over_rates)(jnp.asarray(kappas), jnp.asarray(with_best)))
after_100 = distance[:, :-1, 100]
is_close = distance <= 1e-3
steps_needed = np.where(is_close.any(2), is_close.argmax(2), np.inf)
measured = steps_needed[:, -1]
predicted = np.ceil(np.log(1e-3) / np.log((kappas - 1) / (kappas + 1)))

# %% tags=["hide-cell"]
np.testing.assert_allclose(measured, predicted, rtol=0.005, atol=1)
assert (after_100[:, rates < 1.99] < 1).all()
assert (after_100[:, rates > 2.01] > 1).all()
assert (measured <= 1.06 * steps_needed.min(1) + 1).all()

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left, distance after 100 steps against the rate for four condition numbers: whatever it is, all curves turn up at η h_max = 2. Right, steps to come 1000 times closer against the condition number, on the line κ/2 ln 1000."}}
fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.5))
for kappa, left in zip(kappas, after_100, strict=True):
    axes[0].semilogy(rates, left, label=rf"$\kappa = {kappa:g}$")
axes[0].axvline(2, color="black", linewidth=0.8)
axes[0].set(
    xlabel=r"$\eta\, h_{\max}$", ylabel="distance after 100 steps", ylim=(1e-8, 1e2),
    title=r"Beyond $2 / h_{\max}$ it diverges",
)  # fmt: skip
axes[0].legend(loc="lower left", bbox_to_anchor=(0.18, 0))
axes[1].loglog(kappas, measured, "o", label="measured, best rate")
axes[1].loglog(kappas, kappas / 2 * np.log(1000), "k:", label=r"$\frac{\kappa}{2} \ln 1000$")
axes[1].set(
    xlabel=r"condition number $\kappa$", ylabel="steps", title="Steps to come 1000 times closer"
)
axes[1].legend()
plt.show()

# %% [markdown]
# The rate that the steepest direction allows is the same for every $\kappa$; what the flat one
# needs is not.

# %% tags=["hide-input"]
claim(
    18,
    f"diverges beyond η h_max = 2 for every κ; {', '.join(f'{steps:.0f}' for steps in measured)} steps to come 1000 "
    f"times closer at κ = {', '.join(f'{kappa:g}' for kappa in kappas)} with the best rate",
    HOLDS,
)

# %% [markdown]
# ## Does the size of a gradient tell the curvature?
#
# On the same quadratic $g_i = h_i \theta_i$: curvature **times distance**. From equal distances the
# gradient ranks curvatures. But steep directions shrink first, $g_{t,i} = h_i (1 - \eta h_i)^t\,
# \theta_{0,i}$, and later the flat ones have the larger gradients.
#
# AdaGrad looks at sums over all steps, which along gradient descent are a geometric series,
#
# $$\sum_t g_{t,i}^2 = h_i^2 \theta_{0,i}^2 \sum_t (1 - \eta h_i)^{2t}
# = \frac{h_i\,\theta_{0,i}^2}{\eta\,(2 - \eta h_i)},$$
#
# so that their root goes as $\sqrt{h_i}$, not as $h_i$. And with mini-batch noise of variance
# $\sigma_i^2$, the stationary $\mathbb{E}[g_i^2] = 2 \sigma_i^2 / (2 - \eta h_i)$ tells the noise: it
# follows the curvature only where the noise does, as for a model that fits, whose Fisher matrix is
# its Hessian.

# %%
curvatures = jnp.geomspace(0.01, 1.0, 9)
eta = 0.5


jitter = jnp.asarray(np.random.default_rng(0).normal(size=(20_000, 9)))


def gradients_with(noise):
    """Of gradient descent, with noise of this deviation for each number."""

    def loss(theta, example):
        return jnp.sum(0.5 * curvatures * theta**2 + noise * example * theta)

    return play(gdtx.sgd(eta), loss, jnp.ones(9), jitter)[2]


# %%
h = np.asarray(curvatures, float)
deviations = jnp.stack([jnp.zeros(9), jnp.ones(9), jnp.sqrt(curvatures)])
exact, *noisy = np.abs(np.asarray(jax.jit(jax.vmap(gradients_with))(deviations), float))
noisy = dict(zip(("equal noise", "noise like curvature"), noisy, strict=True))
accumulated = np.sqrt((exact**2).sum(0))
rms = {name: np.sqrt((g[4_000:] ** 2).mean(0)) for name, g in noisy.items()}
limits = {"equal noise": 2 / (2 - eta * h), "noise like curvature": 2 * h / (2 - eta * h)}

# %% tags=["hide-cell"]
np.testing.assert_allclose(accumulated, np.sqrt(h / (eta * (2 - eta * h))), rtol=1e-3)
for name, value in rms.items():
    np.testing.assert_allclose(value, np.sqrt(limits[name]), rtol=0.05)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left, the size of a gradient against curvature after 0, 10, 30 and 100 steps: it first rises with the curvature, later it falls. Right, what AdaGrad accumulates: without noise, and with noise like the curvature, it rises as a root; with equal noise it is level."}}
fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.7))
for t, marker in ((0, "o"), (10, "s"), (30, "^"), (100, "v")):
    axes[0].loglog(h, exact[t], marker=marker, label=f"after {t} steps", markersize=4)
axes[0].set(
    xlabel="curvature", ylabel="gradient", ylim=(1e-6, 3), title="One gradient, without noise"
)
axes[0].legend(loc="lower left")
axes[1].loglog(
    h, accumulated, "C0o", markersize=9, fillstyle="none", label="without noise, root of sum"
)
axes[1].loglog(h, np.sqrt(h / (eta * (2 - eta * h))), "k:", linewidth=1, label="predicted")
for (name, value), marker in zip(rms.items(), ("C1s", "C2^"), strict=True):
    axes[1].loglog(h, value, marker, markersize=5, label=f"{name}, root mean square")
    axes[1].loglog(h, np.sqrt(limits[name]), "k:", linewidth=1)
axes[1].set(
    xlabel="curvature",
    ylabel="size of gradients",
    ylim=(0.03, 12),
    title="What AdaGrad accumulates",
)
axes[1].legend(loc="upper left")
plt.show()

# %% [markdown]
# Left: ten steps on, the steepest direction no longer has the largest gradient. Right: the level
# line is that of equal noise, which knows nothing of curvature.

# %% tags=["hide-input"]
slopes = [slope(h, exact[0]), slope(h, accumulated), slope(h, rms["equal noise"])]
np.testing.assert_allclose(slopes[0], 1.0, atol=1e-3)
assert 0.5 < slopes[1] < 0.57
assert 0 < slopes[2] < 0.08
assert np.argmax(exact[0]) == 8
assert np.argmax(exact[100]) <= 2
assert np.argmin(exact[100]) == 8
claim(
    19,
    f"|g| ∝ h^{slopes[0]:.2f} from equal distances, with the steepest smallest 100 steps later; "
    f"accumulated h^{slopes[1]:.2f}; under equal noise h^{slopes[2]:.2f}",
    CORRECTED,
    "a gradient is curvature times distance, so it ranks curvatures at equal distances only; "
    "accumulated along a descent it goes as their square root, and under noise it tells the noise",
)

# %% [markdown]
# ## Regret
#
# In round $t$ we choose $\theta_t$ and pay $L_t(\theta_t)$. Regret against the best fixed choice is
# $R(T) = \sum_{t \le T} L_t(\theta_t) - \min_\theta \sum_{t \le T} L_t(\theta)$. AdaGrad comes with a
# matrix for all pairs of numbers, or with its diagonal:

# %%
gdtx.full_matrix_adagrad(0.1)

# %%
gdtx.adagrad(0.1, 0.0)

# %% [markdown]
# For convex losses and **any** comparator $\theta^*$, Duchi et al. (2011, theorems 5 and 7) prove
#
# $$R(T) \le \Big(\frac{D_\infty^2}{2\eta} + \eta\Big) \sum_i \lVert g_{1:T,i} \rVert_2
# \quad\text{(diagonal)}, \qquad
# R(T) \le \Big(\frac{D_2^2}{2\eta} + \eta\Big) \operatorname{tr} G_T^{1/2}
# \quad\text{(full matrix)},$$
#
# with $D = \max_{t \le T} \lVert \theta_t - \theta^* \rVert$. Nothing in the proof needs a bounded
# domain when $D$ is that of the path itself. It is three lines: with
# $H_t = G_t^{1/2}$, an update gives $g_t^\top (\theta_t - \theta^*) = \frac{1}{2\eta}
# \big(\lVert \theta_t - \theta^* \rVert_{H_t}^2 - \lVert \theta_{t+1} - \theta^* \rVert_{H_t}^2\big) +
# \frac{\eta}{2} \lVert g_t \rVert_{H_t^{-1}}^2$; the first part telescopes to at most
# $\frac{D^2}{2 \eta} \operatorname{tr} H_T$, because $H_t$ only grows; and $\sum_t \lVert g_t
# \rVert_{H_t^{-1}}^2 \le 2 \operatorname{tr} H_T$.
#
# The game: handwritten digits come by one at a time, and a logistic regression has to say whether
# each is odd. The comparator is the best one in hindsight, by Newton's method.

# %%
images, digits = load_digits(return_X_y=True)
pixels = images.reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16) / 16
x = jnp.asarray(np.concatenate([pixels, np.ones((len(pixels), 1))], 1), jnp.float32)
y = jnp.asarray(2.0 * (digits % 2) - 1, jnp.float32)


def logistic(theta, example):
    inputs, sign = example
    return jax.nn.softplus(-sign * (inputs @ theta))


def total(theta):
    return jnp.sum(jax.vmap(logistic, (None, 0))(theta, (x, y)))


hindsight = jnp.zeros(17)
newton_step = jax.jit(
    lambda theta: jnp.linalg.solve(jax.hessian(total)(theta), jax.grad(total)(theta))
)
for _ in range(12):
    hindsight -= newton_step(hindsight)

# %% tags=["hide-cell"]
assert jnp.linalg.norm(jax.grad(total)(hindsight)) < 0.05

# %%
etas = np.array([0.1, 0.3, 1.0, 3.0, 10.0])


def regrets(tx):
    """After every round for each rate, with the distances and gradients on the way."""
    path, paid, gradients, _ = gdtx.sweep(
        lambda tx: play(tx, logistic, jnp.zeros(17), (x, y)), tx, {"learning_rate": etas}
    )
    excess = np.asarray(paid, float) - np.asarray(jax.vmap(logistic, (None, 0))(hindsight, (x, y)))
    return np.cumsum(excess, 1), np.asarray(path - hindsight, float), np.asarray(gradients, float)


def bound(distance, size):
    farthest = np.maximum.accumulate(distance, 1)
    return (farthest**2 / (2 * etas[:, None]) + etas[:, None]) * size


# %%
diagonal, away, g = regrets(gdtx.adagrad(0.0, 0.0))
sizes = np.sqrt(np.cumsum(g**2, 1)).sum(2)
diagonal_bound = bound(np.abs(away).max(2), sizes)
assert (diagonal <= diagonal_bound).all()

full, away, g = regrets(gdtx.full_matrix_adagrad(0.0))
every_100 = slice(99, None, 100)
outer_products = np.cumsum(g[..., :, None] * g[..., None, :], 1)[:, every_100]
traces = np.sqrt(np.maximum(np.linalg.eigvalsh(outer_products), 0)).sum(2)
full_bound = bound(np.linalg.norm(away, axis=2)[:, every_100], traces)
assert (full[:, every_100] <= full_bound).all()

shares = (diagonal / diagonal_bound).max(1), (full[:, every_100] / full_bound).max(1)
assert max(shares[0]) > 0.25  # a bound four times lower would not hold
for name, share, regret in zip(("diagonal", "full"), shares, (diagonal, full), strict=True):
    print(f"{name:8}  final regret {regret[:, -1].round()}  largest share {share.round(3)}")

# %% tags=["hide-input"] mystnb={"image": {"alt": "Regret over 1800 rounds for three rates, and far above it its bounds, for the diagonal method and the full matrix. No curve crosses its bound."}}
fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.5), sharey=True)
rounds = np.arange(1, len(x) + 1)
kinds_of_line = zip(etas[1:4], plt.rcParams["axes.prop_cycle"], strict=False)
for i, (eta, style) in enumerate(kinds_of_line, 1):
    axes[0].loglog(rounds, np.maximum(diagonal[i], 0.1), **style, label=rf"$\eta={eta:g}$")
    axes[0].loglog(rounds, diagonal_bound[i], **style, alpha=0.4)
    axes[1].loglog(rounds, np.maximum(full[i], 0.1), **style, label=rf"$\eta={eta:g}$")
    axes[1].loglog(rounds[every_100], full_bound[i], **style, alpha=0.4, marker=".")
axes[0].set(xlabel="round", ylabel="regret, and its bound (pale)", title="Diagonal")
axes[1].set(xlabel="round", title="Full matrix")
axes[0].legend(loc="lower right")
plt.show()

# %% [markdown]
# The pale curves are the bounds. They are not tight, and they hold.

# %% [markdown]
# ### Logarithm or root?
#
# Both bounds grow as $\sqrt T$ when gradients keep their size. The lecture has $O(\log T)$, "using
# $B = \sum g g^\top$", next to an update with $G^{-1/2}$. These are two methods. With the **root**,
# as printed, the losses need only be convex, and $\sqrt T$ is what one gets. With the **whole**
# inverse $G^{-1}$ it is the online Newton step (Hazan, Agarwal & Kale 2007), whose regret is
# $O(n \log T)$ if the losses curve: if they are strongly convex or at least exp-concave.
#
# In gdtx the two differ by one argument.


# %%
@gdtx.transformation
def metric(exponent: gdtx.Scalar):
    """Multiplies by a power of the sum of outer products, plus the identity; downhill."""
    power = gdtx.precondition(gdtx.identity(), gdtx.running_sum(), eps=1.0, exponent=exponent)
    return gdtx.chain(gdtx.blockwise(power), gdtx.scale(-1.0))


# %% [markdown]
# Two games. In the first the loss is $|\theta - z_t|$ with $z_t = \pm 1$ by the toss of a coin. Every
# $\theta$ pays at least 1 on average, and the better of $\pm 1$ in hindsight pays
# $T - |\sum_t z_t|$. So **no method whatever** has a lower expected regret than
# $\mathbb{E}|\sum_t z_t| \approx \sqrt{2 T / \pi}$. In the second the loss is a squared error,
# $\frac12 (x_t^\top \theta - y_t)^2$, with three features that are correlated.

# %%
T = 4096
marks = 2 ** np.arange(6, 13)
rng = np.random.default_rng(1)
coins = rng.choice((-1.0, 1.0), (64, T, 1))
mixing = np.array([[1.0, 0.9, 0.5], [0.0, 0.4, 0.5], [0.0, 0.0, 0.3]])
features = rng.normal(size=(32, T, 3)) @ mixing
targets = features @ np.array([1.0, -1.0, 0.5]) + 0.5 * rng.normal(size=(32, T))


def absolute_error(theta, z):
    return jnp.sum(jnp.abs(theta - z))


def squared_error(theta, example):
    return 0.5 * (example[0] @ theta - example[1]) ** 2


def least_squares(features, targets):
    theta = np.linalg.lstsq(features, targets, rcond=None)[0]
    return 0.5 * np.sum((features @ theta - targets) ** 2)


# %%
def mean_regrets(loss, start, games, best):
    """With the root and with the whole inverse, at the marks."""
    as_arrays = jax.tree.map(jnp.asarray, games)
    run = jax.vmap(lambda tx, rounds: play(tx, loss, start, rounds)[1], (None, 0))
    paid = gdtx.sweep(lambda tx: run(tx, as_arrays), metric(-0.5), {"exponent": [-0.5, -1.0]})
    regret = np.cumsum(np.asarray(paid, float), 2)[:, :, marks - 1] - best
    return dict(zip(("root", "whole"), regret.mean(1), strict=True))


best_coin = marks - np.abs(np.cumsum(coins[..., 0], 1))[:, marks - 1]
best_fit = np.array(
    [[least_squares(a[:m], b[:m]) for m in marks] for a, b in zip(features, targets, strict=True)]
)
on_coins = mean_regrets(absolute_error, jnp.zeros(1), coins, best_coin)
on_squares = mean_regrets(squared_error, jnp.zeros(3), (features, targets), best_fit)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Mean regret over rounds with the root and with the whole inverse. On coins both lie on the line below which no method comes; on squared errors the root's grows as a straight line and the whole inverse's flattens."}}
fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.5))
for ax, found in zip(axes, (on_coins, on_squares), strict=True):
    # The line below is the broad one: on coins the two lie on each other.
    ax.loglog(marks, found["root"], "C0o-", linewidth=3.5, label=r"root, $G^{-1/2}$ (AdaGrad)")
    ax.loglog(
        marks, found["whole"], "C1s--", markersize=4, label=r"whole, $G^{-1}$ (online Newton)"
    )
    ax.set(xlabel="rounds $T$")
axes[0].loglog(marks, np.sqrt(2 * marks / np.pi), "k:", label=r"no method below $\sqrt{2T/\pi}$")
axes[0].set(ylabel="mean regret", title="Coins: convex")
axes[1].set(title="Squared errors: exp-concave", ylim=(2.5, 70))
for ax in axes:
    label_ticks(ax.yaxis, (3, 5, 10, 20, 50))
    ax.legend(loc="upper left")
plt.show()

# %% [markdown]
# The dashed line at the left lies on the broad one: on losses that are only convex the two methods
# are alike, and as good as any. On losses that curve the whole inverse pays almost nothing more
# with each doubling.

# %% tags=["hide-input"]
as_power = {name: slope(marks, value) for name, value in on_coins.items()}
of_squares = slope(marks[-4:], on_squares["root"][-4:])
doubling = np.diff(on_squares["whole"])
for power in (*as_power.values(), of_squares):
    assert 0.4 < power < 0.6
np.testing.assert_allclose(on_coins["root"][-4:], np.sqrt(2 * marks[-4:] / np.pi), rtol=0.2)
np.testing.assert_allclose(doubling[-3:], doubling[-3:].mean(), rtol=0.35)
assert (np.diff(on_squares["root"])[-3:] > 5 * doubling[-3:]).all()
claim(
    20,
    f"regret within its bound in all 10 games on digits (at most {max(shares[0]):.2f} of it); with "
    f"the root it grows as T^{as_power['root']:.2f} on coins and "
    f"T^{of_squares:.2f} on squared errors; there with the whole inverse by "
    f"{doubling[-1]:.2f} for each doubling",
    CORRECTED,
    "AdaGrad's bound, with the root of G, is O(√T); O(log T) belongs to the whole inverse of G and "
    "to losses that are strongly convex or exp-concave; on convex ones no method beats √T",
)

# %% [markdown]
# ## The price of the full matrix
#
# $n^2$ numbers, and in every step the eigenvectors of a matrix: $O(n^3)$ operations. In blocks of
# $b$ numbers it is $n b$ and $O(n b^2)$; the diagonal is the block of one number.

# %%
gdtx.state_table(gdtx.full_matrix_adagrad(0.1), jnp.zeros(512))


# %% tags=["hide-input"]
def seconds(tx, n):
    """Of one update of n numbers on one thread, the shortest of thirty."""
    g = jnp.asarray(np.random.default_rng(0).normal(size=n))
    update = jax.jit(tx.update)
    taken = []
    with threadpool_limits(1):
        _, state = update(g, tx.init(g))
        for _ in range(30):
            began = time.perf_counter()
            jax.block_until_ready(update(g, state))
            taken.append(time.perf_counter() - began)
    return min(taken)


# %%
numbers = np.array([16, 32, 64, 128, 256])
kinds = {
    "full": gdtx.full_matrix_adagrad(0.1),
    "blocks of 16": gdtx.full_matrix_adagrad(0.1, block_size=16),
    "diagonal": gdtx.adagrad(0.1, 0.0),
}
cost = {name: np.array([seconds(tx, n) for n in numbers]) for name, tx in kinds.items()}
memory = {
    name: [gdtx.state_table(tx, jnp.zeros(n)).bytes for n in numbers] for name, tx in kinds.items()
}
assert memory["full"] == (4 * numbers**2).tolist()
assert memory["blocks of 16"] == (4 * 16 * numbers).tolist()
assert memory["diagonal"] == (4 * numbers).tolist()
assert cost["full"][-1] > 5 * cost["diagonal"][-1]
assert cost["full"][-1] > 2 * max(cost["full"][0], cost["blocks of 16"][-1])
try:
    gdtx.full_matrix_adagrad(0.1).init(jnp.zeros(1_000_000))
except ValueError as error:
    print(error)

# %% [markdown]
# What the diagonal gives up: it sees the axes only. Turned by a rotation, the full matrix does the
# same as before. The diagonal finds numbers that all look alike, and is left with the condition
# number, as gradient descent is.

# %%
steep = jnp.geomspace(1e-3, 1.0, 8)
rotation, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(8, 8)))


def final_losses(basis, tx):
    """For each rate, of a quadratic with these axes."""

    def loss(theta, _):
        return 0.5 * jnp.sum(steep * (basis.T @ theta) ** 2)

    def final(tx):
        return play(tx, loss, basis @ jnp.ones(8), jnp.arange(51))[1][-1]

    return gdtx.sweep(final, tx, {"learning_rate": tried})


# %%
tried = 2.0 ** np.arange(-4, 3)
contestants = {name: kinds[name] for name in ("full", "diagonal")}
contestants["gradient descent"] = gdtx.sgd(0.0)
left = {}
for name, tx in contestants.items():
    both = jax.vmap(final_losses, (0, None))(jnp.stack([jnp.eye(8), rotation]), tx)
    left[name, "straight"], left[name, "turned"] = np.asarray(both)
lowest = {key: np.nanmin(value) for key, value in left.items()}

# %% tags=["hide-cell"]
np.testing.assert_allclose(left["full", "straight"], left["full", "turned"], rtol=0.01, atol=1e-6)
assert lowest["full", "turned"] < 1e-10
assert lowest["diagonal", "straight"] < 1e-10
assert 0.5 < lowest["diagonal", "turned"] / lowest["gradient descent", "turned"] < 1

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left, time of an update against the count of numbers: the full matrix grows fastest, blocks of 16 less, the diagonal hardly. Right, loss after 50 steps against the rate, with straight and with turned axes: those of the full matrix and of gradient descent are the same in both, the diagonal's falls to 1e-12 when straight and stays near 1e-2 when turned, like gradient descent's."}}
fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.8))
for (name, value), marker in zip(cost.items(), "os^", strict=True):
    axes[0].loglog(numbers, 1e3 * value, marker=marker, label=name)
axes[0].set(xlabel="numbers $n$", ylabel="milliseconds", title="Time of one update")
label_ticks(axes[0].xaxis, numbers)
# Wide and pale below narrow and dotted: where the two agree, both are seen.
looks = {
    "straight": {"linestyle": "-", "linewidth": 5, "alpha": 0.4, "marker": "o", "markersize": 9},
    "turned": {"linestyle": ":", "marker": "s", "markersize": 4},
}
for name, axis in left:
    color = {"full": "C0", "diagonal": "C2"}.get(name, "C1")
    value = np.where(left[name, axis] < 10, left[name, axis], np.nan)
    axes[1].loglog(
        tried, np.maximum(value, 1e-12), color=color, label=f"{name}, {axis}", **looks[axis]
    )
axes[1].set(
    xlabel="learning rate", ylabel="loss after 50 steps", ylim=(1e-13, 10),
    title=r"A quadratic, $\kappa = 1000$",
)  # fmt: skip
axes[0].legend(loc="upper left")
axes[1].legend(loc="upper center", bbox_to_anchor=(0.45, -0.18), ncols=2)
plt.show()

# %% [markdown]
# The dotted lines of the full matrix and of gradient descent lie on their solid ones: a rotation does
# not matter to them. To the diagonal it matters by ten powers of ten.

# %% tags=["hide-input"]
claim(
    21,
    f"n = {numbers[-1]}: {memory['full'][-1] / 1024:.0f} KiB and {cost['full'][-1] / cost['diagonal'][-1]:.0f} "
    f"times the diagonal's time, in blocks of 16 {memory['blocks of 16'][-1] / 1024:.0f} KiB and "
    f"{cost['blocks of 16'][-1] / cost['diagonal'][-1]:.0f} times; n = 10⁶: {4e12 / 2**40:.1f} TiB",
    HOLDS,
)

# %% [markdown]
# ## The update as printed
#
# The slide has $s_{t+1} = s_t + g_t \odot g_t$ and
# $\theta_{t+1} = \theta_t \mathbf{+} \eta\, g_t / \sqrt{s_{t+1} + \epsilon}$. Here it is word
# for word, with the printed sign and with the other one, on the quadratic $\frac12 \lVert \theta
# \rVert^2$.


# %%
def as_printed(sign, steps=50, eta=0.1, eps=1e-7):
    theta, s, path = np.ones(3), np.zeros(3), []
    for _ in range(steps):
        path.append(theta)
        g = theta
        s = s + g * g
        theta = theta + sign * eta / np.sqrt(s + eps) * g
    return np.array(path)


tx = gdtx.adagrad(0.1, initial_accumulator_value=0.0)
ours = play(tx, lambda theta, _: 0.5 * jnp.sum(theta**2), jnp.ones(3), jnp.arange(50))[0]
climbing, descending = as_printed(+1), as_printed(-1)

# %% tags=["hide-input"]
np.testing.assert_allclose(ours, descending, rtol=1e-5)
assert (np.diff(climbing, axis=0) > 0).all()
assert (np.diff(descending, axis=0) < 0).all()
claim(
    22,
    f"with the printed plus, 50 steps take θ from 1 to {climbing[-1, 0]:.2f}; with a minus to "
    f"{descending[-1, 0]:.2f}, which is gdtx's",
    CORRECTED,
    "the step is subtracted: with the printed plus sign it climbs",
)

# %% [markdown]
# ## The norm of all past partials
#
# Without $\epsilon$ and with an empty accumulator, AdaGrad divides each component by the Euclidean
# norm of the history of that component, **the present one included**. So no step is longer than
# $\eta$, and the first is exactly $\pm \eta$.


# %%
def respond(tx, gradients):
    """What a transformation makes of given gradients."""
    start = tx.init(gradients[0])
    return jax.lax.scan(lambda state, g: tx.update(g, state)[::-1], start, gradients)[1]


tx = gdtx.scale_by_rss(initial_accumulator_value=0.0, eps=0.0)
history = np.random.default_rng(4).normal(size=(200, 5)) ** 5  # at times a huge one
norms = np.stack([np.linalg.norm(history[: t + 1], axis=0) for t in range(200)])
scaled = np.asarray(respond(tx, jnp.asarray(history)))
error = np.abs(scaled / (history / norms) - 1).max()

# %% tags=["hide-input"]
assert error < 3e-6
assert np.abs(scaled).max() < 1 + 1e-6
np.testing.assert_allclose(scaled[0], np.sign(history[0]), rtol=1e-6)
claim(25, f"g_t / ‖g_1…g_t‖₂ to {error:.0e} of each number, over 200 steps of heavy tails", HOLDS)

# %% [markdown]
# ## Does it stop too early?
#
# Gradients of constant size $\sigma$ make steps of $\eta/\sqrt t$: they shrink, but their sum
# $2 \eta \sqrt T$ has no limit, so no distance is out of reach. RMSProp's steps stay at $\eta$.
# What is never forgotten is a **burst**: after $n$ gradients $K$ times as large the step is
# $\eta / \sqrt{n K^2 + t}$, and takes $n K^2$ more rounds to be what it would have been to within
# $\sqrt 2$. RMSProp with decay $\rho$ forgets in about $\ln K^2 / (1 - \rho)$.

# %%
steps = np.arange(1, 100_001)
even = jnp.ones(len(steps))
burst = jnp.where(jnp.arange(len(steps)) < 10, 30.0, 1.0)
adagrad, rmsprop = gdtx.adagrad(1.0, 0.0), gdtx.rmsprop(1.0)
lengths = {
    name: np.abs(np.asarray(jax.jit(respond)(tx, gradients), float))
    for name, tx, gradients in (
        ("AdaGrad", adagrad, even), ("AdaGrad, burst", adagrad, burst),
        ("RMSProp", rmsprop, even), ("RMSProp, burst", rmsprop, burst),
    )
}  # fmt: skip
np.testing.assert_allclose(lengths["AdaGrad"], 1 / np.sqrt(steps), rtol=1e-4)
np.testing.assert_allclose(lengths["AdaGrad"].sum(), 2 * np.sqrt(len(steps)), rtol=0.01)
held = {}
for name in ("AdaGrad", "RMSProp"):
    is_short = lengths[f"{name}, burst"][10:] < lengths[name][10:] / np.sqrt(2)
    held[name] = int(is_short.argmin())

# %% tags=["hide-cell"]
assert abs(held["AdaGrad"] / (10 * 30**2) - 1) < 0.05
assert held["RMSProp"] < 100

# %% [markdown]
# On a function without noise gradients vanish, the sum converges, and so does AdaGrad: linearly,
# with a rate of its own for each number. With noise the shrinking is what is wanted: RMSProp at a
# constant rate stays on a floor.

# %%
start = jnp.ones(100)


def noisy(theta, noise):
    return jnp.sum(0.5 * theta**2 + noise * theta)


shaken = jnp.asarray(np.random.default_rng(5).normal(size=(20_000, 100)))


def away_from_minimum(tx, noise, steps):
    path = jax.jit(lambda start: play(tx, noisy, start, noise * shaken[:steps])[0])(start)
    return np.sqrt(np.mean(np.asarray(path, float) ** 2, 1))


floors = {
    name: away_from_minimum(tx.replace(learning_rate=0.1), 0.3, 20_000)
    for name, tx in (("AdaGrad", adagrad), ("RMSProp", rmsprop))
}
quiet = away_from_minimum(adagrad.replace(learning_rate=0.5), 0.0, 60)
assert floors["AdaGrad"][-5000:].mean() < 0.3 * floors["RMSProp"][-5000:].mean()
ratios = quiet[20:60] / quiet[19:59]

# %% tags=["hide-cell"]
np.testing.assert_allclose(ratios, ratios[-1], rtol=0.01)

# %% [markdown]
# And in practice: a small network on the digits, which it can fit, so that there is little noise in
# the end. Five rates for each method, two seeds, and for each length of training the rate that was
# best for it.

# %%
inputs = jnp.asarray(images.reshape(-1, 64) / 16, jnp.float32)
labels = jax.nn.one_hot(digits, 10)


def network_loss(params, batch):
    pixels, label = batch
    scores = jnp.tanh(pixels @ params["in"]) @ params["out"]
    return -jnp.sum(jax.nn.log_softmax(scores) * label) / len(label)


# %%
rng = np.random.default_rng(6)
starts = {
    "in": jnp.asarray(rng.normal(size=(2, 64, 32)) / 8),
    "out": jnp.asarray(rng.normal(size=(2, 32, 10)) / 32**0.5),
}
orders = jnp.asarray(rng.integers(0, len(inputs), (2, 3000, 32)))


@jax.jit
def losses_of(tx, rates):
    """On the way, by seed and rate, one after the other: small matrices are quicker so."""

    def each_rate(seed):
        start, order = seed
        batches = inputs[order], labels[order]
        return jax.lax.map(
            lambda rate: play(tx.replace(learning_rate=rate), network_loss, start, batches)[1],
            rates,
        )

    return jax.lax.map(each_rate, (starts, orders))


# %%
network_rates = {"AdaGrad": 2.0 ** jnp.arange(-4, 1), "RMSProp": 2.0 ** jnp.arange(-8, -3)}
curves = {
    name: np.asarray(losses_of(tx, network_rates[name]))
    for name, tx in (("AdaGrad", adagrad), ("RMSProp", rmsprop))
}

# %%
trained = np.array([300, 1000, 3000])
recent = {
    name: np.stack([curve[:, :, t - 200 : t].mean(2) for t in trained], 2)
    for name, curve in curves.items()
}
chosen = {name: value.mean(0).argmin(0) for name, value in recent.items()}
assert all((i > 0).all() and (i < 4).all() for i in chosen.values())
reached = {name: value.mean(0).min(0) for name, value in recent.items()}

# %% tags=["hide-cell"]
assert 0.8 < reached["AdaGrad"][0] / reached["RMSProp"][0] < 1.25
assert reached["AdaGrad"][2] > 4 * reached["RMSProp"][2]

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left, length of steps for constant gradients: AdaGrad's falls as one over the root of t, RMSProp's stays; after a burst AdaGrad's is held down for thousands of steps, RMSProp's for tens. Middle, on a quadratic with noise AdaGrad comes ten times closer. Right, on digits both losses fall alike for 1000 steps, then RMSProp's falls far below."}}
fig, axes = plt.subplots(1, 3, figsize=(9, 3.3))
for (name, value), style in zip(lengths.items(), ("-", "--", "-", "--"), strict=True):
    color = "C0" if name.startswith("AdaGrad") else "C1"
    axes[0].loglog(steps, value, style, color=color, label=name)
axes[0].set(
    xlabel="step", ylabel=r"step length over $\eta$", ylim=(1e-4, 5),
    title="Constant gradients",
)  # fmt: skip
for name, value in floors.items():
    axes[1].loglog(value, "-", linewidth=1, label=name)
axes[1].set(xlabel="step", ylabel="distance from the minimum", title="A quadratic with noise")
for name, curve in curves.items():
    mean = curve[:, chosen[name][2]].mean(0).reshape(-1, 50).mean(1)
    axes[2].loglog(np.arange(25, 3000, 50), mean, label=name)
axes[2].set(xlabel="step", ylabel="training loss", title="A network on digits")
axes[0].legend(loc="lower left")
axes[1].legend()
axes[2].legend()
plt.show()

# %% [markdown]
# The three panels are the three cases: a burst that is never forgotten, noise for which shrinking
# is right, and a network that could go on.

# %% tags=["hide-input"]
claim(
    23,
    f"steps η/√t; 10 gradients 30 times as large hold it down for {held['AdaGrad']} steps, RMSProp for "
    f"{held['RMSProp']}; on digits, at the best rates, the loss after 300 steps is "
    f"{reached['AdaGrad'][0]:.3f} against {reached['RMSProp'][0]:.3f}, after 3000 "
    f"{reached['AdaGrad'][2]:.1e} against {reached['RMSProp'][2]:.1e}",
    CORRECTED,
    "it slows down and never stops, as steps of η/√t have no finite sum; that is too much where "
    "early gradients were large or noise is gone in the end, and right where noise stays",
)

# %% [markdown]
# ## Sparse gradients
#
# A feature that is seen $k$ times has met a denominator of about $\sqrt k$ times its gradients: its
# rate falls with its own appearances and not with the calendar. In the bound, the sum of norms
# $\sum_i \lVert g_{1:T,i} \rVert$ is up to $\sqrt n$ times smaller than the $\sqrt{n}\,
# \lVert g_{1:T} \rVert$ of equal frequencies.
#
# Logistic regression on 200 features: the $i$-th is $\pm 1$ with probability $\min(1/2, 1/i)$, else 0,
# and all have weights of the same size. For comparison, 200 features that are all equally frequent,
# with as many numbers other than 0 per example. Each method has eight rates, the same five data
# sets, and one pass.

# %%
count, examples = 200, 2000
frequencies = {"rare and frequent": np.minimum(0.5, 1 / np.arange(1, count + 1))}
frequencies["equally frequent"] = np.full(count, frequencies["rare and frequent"].mean())


def draw(frequency, seed):
    """Features, labels, and the signs of the weights that the labels come from."""
    rng = np.random.default_rng(seed)
    signs = rng.choice((-1.0, 1.0), count)
    seen = rng.random((examples, count)) < frequency
    features = seen * rng.choice((-1.0, 1.0), (examples, count))
    is_one = rng.random(examples) < 1 / (1 + np.exp(-2 * features @ signs))
    return features, 2.0 * is_one - 1, signs


# %%
contest = {
    "SGD": (gdtx.sgd(0.0), "learning_rate", 2.0 ** np.arange(-5, 3)),
    "decaying SGD": (
        gdtx.sgd(gdtx.inverse_power_schedule(0.0, power=0.5)),
        "learning_rate.init_value",
        2.0 ** np.arange(-1, 7),
    ),
    "AdaGrad": (gdtx.adagrad(0.0, 0.0), "learning_rate", 2.0 ** np.arange(-4, 4)),
}


def stacked(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


*rounds, signs = stacked(
    [stacked([draw(frequency, seed) for seed in range(5)]) for frequency in frequencies.values()]
)


# %% tags=["hide-input"]
@functools.partial(jax.jit, static_argnames="path")
def passes(tx, path, rates, rounds):
    """By rate, kind of data, and data set: the mean cost of the rounds, and the weights in the end."""

    def one(rate, rounds):
        _, paid, _, end = play(gdtx.replace(tx, {path: rate}), logistic, jnp.zeros(count), rounds)
        return jnp.mean(paid), end

    each = jax.vmap(jax.vmap(one, (None, 0)), (None, 0))
    return jax.vmap(each, (0, None))(rates, rounds)


# %%
costs, weights = {}, {}
for name, (tx, path, rates) in contest.items():
    paid, ends = passes(tx, path, rates, rounds)
    for i, kind in enumerate(frequencies):
        best = int(paid[:, i].mean(1).argmin())
        assert 0 < best < len(rates) - 1
        costs[kind, name] = np.asarray(paid[best, i], float)
        weights[kind, name] = np.asarray(ends[best, i] * signs[i])

# %%
gain = {
    kind: 1 - costs[kind, "AdaGrad"] / np.minimum(costs[kind, "SGD"], costs[kind, "decaying SGD"])
    for kind in frequencies
}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left, mean loss of SGD, decaying SGD and AdaGrad: AdaGrad's is lowest where frequencies differ, SGD's where they are equal. Right, mean weights against appearances of the feature: AdaGrad's are nearest to the truth where features are rare."}}
fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.6))
for i, (name, marker) in enumerate(zip(contest, "os^", strict=True)):
    values = np.array([costs[kind, name] for kind in frequencies])
    places = np.arange(2) + 0.15 * (i - 1)
    axes[0].errorbar(
        places, values.mean(1), values.std(1), fmt=f"C{i}{marker}", label=name, capsize=4
    )
axes[0].set(xticks=[0, 1], ylabel="mean loss over one pass", xlim=(-0.5, 1.5), ylim=(0.36, 0.52),
            xlabel="features", title="Loss, and its spread over data sets")  # fmt: skip
axes[0].set_xticklabels(frequencies)
axes[0].legend(loc="upper left", ncols=3)
groups = np.array_split(np.arange(count), 10)
shown = frequencies["rare and frequent"] * examples
for name, marker in zip(contest, "os^", strict=True):
    means = [weights["rare and frequent", name][:, group].mean() for group in groups]
    seen = [shown[group].mean() for group in groups]
    axes[1].semilogx(seen, means, marker=marker, markersize=4, label=name)
axes[1].axhline(2, color="black", linewidth=0.8)
axes[1].set(
    xlabel="appearances of the feature", ylabel="mean weight, in its direction",
    title="Learned in one pass (the truth is 2)", ylim=(0, 2.2),
)  # fmt: skip
label_ticks(axes[1].xaxis, (10, 20, 50, 100, 200, 400))
axes[1].legend(loc="lower right")
plt.show()

# %% [markdown]
# Where features are rare AdaGrad has learned twice as much of their weights.

# %% tags=["hide-input"]
rare, even_out = gain["rare and frequent"], gain["equally frequent"]
assert (rare > 0.03).all()
assert abs(even_out.mean()) < 0.025
assert rare.mean() > even_out.mean() + 0.04
claim(
    24,
    f"loss {rare.mean():.1%} lower than that of the better SGD where frequencies differ "
    f"({rare.min():.1%} to {rare.max():.1%} over five data sets), {even_out.mean():+.1%} where they "
    f"are equal",
    HOLDS,
)
