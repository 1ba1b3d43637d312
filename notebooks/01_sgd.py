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
# # 1. Stochastic gradient descent and its noise
#
# Descent along the gradient of a few examples, instead of all: what that gradient is, what its noise does
# to the end of training, and what the learning rate has to do about it. The noise is exactly what
# statistics says; that a rate "must" decay, and as $1/t$, is true of less than it sounds.

# %%
# In a clone of gdtx: pip install -e ".[docs]"
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import gdtx
from gdtx import explore
from gdtx.explore.claims import CORRECTED, HOLDS, claim

plt.style.use("gdtx.explore.gdtx")
gdtx.sgd(gdtx.inverse_time_decay(0.1, 100, 1.0))

# %% [markdown]
# ## The gradient of a mini-batch
#
# > **Claim 1**: a mini-batch gradient is a stochastic estimate of the true one.
#
# Let $g_i$ be the gradients of single examples, $G$ their mean and $\Sigma$ their covariance. The mean
# over a set $S$ drawn at random is $g_S$, with
#
# $$E[g_S] = G, \qquad E\,|g_S - G|^2 = \frac{\operatorname{tr} \Sigma}{|S|} \quad\text{or}\quad
# \frac{\operatorname{tr} \Sigma}{|S|} \cdot \frac{n - |S|}{n - 1}:$$
#
# the first where examples are drawn with replacement, the second without, which leaves no noise when all
# $n$ are drawn. On handwritten digits, with softmax regression:

# %%
images, digits = load_digits(return_X_y=True)
data = jnp.asarray(images / 16, jnp.float32), jnp.asarray(digits)
n = len(digits)


def loss(params, batch):
    pixels, labels = batch
    scores = jax.nn.log_softmax(pixels @ params["w"] + params["b"])
    return -jnp.mean(jnp.take_along_axis(scores, labels[:, None], axis=1))


params = {"w": jnp.zeros((64, 10)), "b": jnp.zeros(10)}
truth = jax.grad(loss)(params, data)
noise = explore.gradient_noise_scale(loss, params, data)
print(
    f"|G|² = {noise.squared_norm:.3f}, tr Σ = {noise.trace:.3f}, equal at {noise.scale:.1f} examples"
)

# %%
rng = np.random.default_rng(0)
gradients_of = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))


def drawn(size, replace, draws=1000, at_once=100):
    """The gradients of many mini-batches."""
    parts = []
    for _ in range(draws // at_once):
        rows = np.stack([rng.choice(n, size, replace) for _ in range(at_once)])
        parts.append(gradients_of(params, (data[0][rows], data[1][rows])))
    return jax.tree.map(lambda *g: jnp.concatenate(g), *parts)


def squared_distance(gradients):
    """From the true gradient, one number for each."""
    parts = jax.tree.map(
        lambda g, mean: jnp.sum((g - mean) ** 2, tuple(range(-mean.ndim, 0))), gradients, truth
    )
    return sum(jax.tree.leaves(parts))


sizes = np.array([1, 4, 16, 64, 256, 1024])
measured, offset = {}, {}
for replace in (True, False):
    gradients = [drawn(size, replace) for size in sizes]
    measured[replace] = np.array([squared_distance(g).mean() for g in gradients])
    # Of the mean of a thousand, whose own variance is a thousandth of one's.
    mean = [jax.tree.map(lambda g: g.mean(0), g) for g in gradients]
    offset[replace] = np.array([squared_distance(m) for m in mean]) * 1000 / measured[replace]

# %%
size = np.arange(1, n + 1)
predicted = {True: noise.trace / size, False: noise.trace / size * (n - size) / (n - 1)}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Mean squared distance of a batch's gradient from the true one against the batch size, measured on predicted lines. Both fall as 1/|S|; without replacement the line drops to zero at all 1797 examples. It crosses the squared length of the gradient near 70 examples."}}
fig, ax = plt.subplots(figsize=(5.5, 3.5))
for i, (replace, label) in enumerate([(True, "with"), (False, "without")]):
    ax.loglog(
        size, predicted[replace], f"C{i}" + "-:"[i == 1], label=f"predicted, {label} replacement"
    )
    # The circles are hollow, so that squares on them leave both to be seen.
    marker = {"marker": "os"[i], "markersize": (8, 4)[i], "fillstyle": ("none", "full")[i]}
    ax.loglog(
        sizes, measured[replace], color=f"C{i}", linestyle="", **marker, label=f"measured, {label}"
    )
ax.axhline(noise.squared_norm, color="0.5", linestyle="--", linewidth=1)
ax.annotate("$|G|^2$", (1, noise.squared_norm), (0, 4), textcoords="offset points")
ax.set(xlabel="examples in a batch, |S|", ylabel="$E\\,|g_S - G|^2$", ylim=(1e-5, None))
ax.legend()
plt.show()

# %% [markdown]
# Measured marks lie on the lines. Beyond the crossing with $|G|^2$ a batch tells more of the
# gradient than of the noise.

# %% tags=["hide-input"]
worst = max(abs(measured[r] / predicted[r][sizes - 1] - 1).max() for r in (True, False))
slope = np.polyfit(np.log(sizes), np.log(measured[True]), 1)[0]
assert worst < 0.1
assert abs(slope + 1) < 0.02
# Were there a bias, the mean of a thousand would be off by more than the noise that is left in it.
assert np.mean([offset[True], offset[False]]) < 1.6
epoch = jax.tree.map(lambda x: x[:1796].reshape(4, 449, *x.shape[1:]), data)
mean = jax.tree.map(lambda g: g.mean(0), jax.vmap(jax.grad(loss), (None, 0))(params, epoch))
whole = jax.grad(loss)(params, jax.tree.map(lambda x: x[:1796], data))
np.testing.assert_allclose(mean["w"], whole["w"], atol=1e-6)  # no noise is left by an epoch
claim(
    1,
    f"variance ∝ |S|^{slope:.2f}, within {worst:.0%} of tr Σ / |S| and of its share (n − |S|)/(n − 1) "
    f"without replacement; no bias",
    HOLDS,
)

# %% [markdown]
# ## A constant learning rate
#
# > **Claim 2**: $\eta$ must decay for convergence.
#
# On a quadratic $\frac12 h \theta^2$ with gradients of variance $c$, SGD is
# $\theta_{t+1} = (1 - \eta h)\,\theta_t - \eta\,\varepsilon_t$. Its second moment obeys
# $m_{t+1} = (1 - \eta h)^2 m_t + \eta^2 c$, which stops at $m = \eta c / (h (2 - \eta h))$. So the loss
# does not go below
#
# $$\frac12 \sum_i \frac{\eta\, c_i}{2 - \eta h_i}.$$

# %%
problem = explore.noisy_quadratic(20)  # curvatures 1, 1/2, 1/3, ..., variances alike
h, c = problem.curvatures, problem.noise
steps, rates = 4000, jnp.array([0.4, 0.1, 0.03])


def simulated(rate, key):
    return problem.simulate(gdtx.sgd(rate), steps, seeds=100, key=key).risk


runs = jax.vmap(simulated)(rates, jax.random.split(jax.random.key(0), 3))
floors = jnp.array([0.5 * jnp.sum(rate * c / (2 - rate * h)) for rate in rates])
late = runs[:, steps // 2 :].mean(1)
errors = abs(late / floors - 1)
decayed = problem.simulate(gdtx.sgd(gdtx.inverse_time_decay(0.8, 20, 1.0)), steps).risk

# %% tags=["hide-input"] mystnb={"image": {"alt": "Mean loss over 4000 steps for three constant rates and a decaying one. Each constant rate levels off on its dotted floor, the smaller the rate the lower; the decaying rate goes on falling below all three."}}
fig, ax = plt.subplots(figsize=(6, 3.6))
for i, (rate, run, floor) in enumerate(zip(rates, runs, floors, strict=True)):
    ax.loglog(run, f"C{i}", linewidth=1, label=f"η = {rate:.2f}")
    ax.axhline(floor, color="0.4", linewidth=0.8, linestyle=":", zorder=3)
ax.loglog(decayed, "k", linewidth=1, label="η = 0.8 / (1 + t/20)")
ax.set(
    xlabel="step",
    ylabel="mean loss of 100 trainings",
    title="Constant rates end on their floors (dotted)",
)
ax.legend()
plt.show()

# %% [markdown]
# Each constant rate ends where the formula says. A smaller one ends lower and takes longer; one
# that decays has no floor.

# %% tags=["hide-input"]
print("floors  ", floors.round(4))
print("measured", late.round(4))
assert errors.max() < 0.06
assert decayed[-1] < 0.5 * floors[-1]

# %% [markdown]
# "Must" says too much. The floor is one of $\eta^2 c / B$, and other factors can shrink: the batch may
# grow; the iterates, which move about the minimum, may be averaged; or there is no noise at the minimum,
# because a model with more parameters than examples fits all of them, and their gradients vanish together.

# %%
rate, steps = 0.4, 4000
fit = {
    "constant": problem.risk(rate, steps),
    "batch of 1 + t": problem.risk(rate, steps, lambda t: 1 + t),
    "mean of the iterates": problem.risk(rate, steps, averaging=lambda t: t / (1 + t)),
}
mean = problem.simulate(gdtx.average(gdtx.sgd(rate)), 400, seeds=200)
assert abs(mean.risk[-1] - fit["mean of the iterates"][400]) < 3 * mean.standard_error[-1]

x = jax.random.normal(jax.random.key(0), (20, 40))
y = x @ jax.random.normal(jax.random.key(1), (40,))


def step(carry, key):
    """SGD on one of 20 examples, with 40 parameters."""
    w, state = carry
    i = jax.random.randint(key, (), 0, 20)
    updates, state = tx.update((x[i] @ w - y[i]) * x[i], state)
    return (gdtx.apply_updates(w, updates), state), 0.5 * jnp.mean((x @ w - y) ** 2)


tx = gdtx.sgd(0.01)
start = jnp.zeros(40), tx.init(jnp.zeros(40))
fit["no noise at the minimum"] = jax.lax.scan(
    step, start, jax.random.split(jax.random.key(2), steps)
)[1]

# %% tags=["hide-input"] mystnb={"image": {"alt": "Loss over 4000 steps at the same constant rate: it levels off with constant batches, falls as 1/t with growing batches or averaged iterates, and falls fastest where there is no noise at the minimum."}}
fig, ax = plt.subplots(figsize=(6, 3.5))
for label, risk in fit.items():
    ax.loglog(risk, label=label)
ax.set(
    xlabel="step", ylabel="loss", ylim=(1e-7, None), title="A constant learning rate, four times"
)
ax.legend(loc="lower left")
plt.show()

# %% [markdown]
# Only the first of the four stops falling, and all four have the same constant $\eta$.

# %% tags=["hide-input"]
for label, risk in fit.items():
    print(f"{label}: {risk[2000]:.2g} after 2000 steps, {risk[4000]:.2g} after 4000")
assert abs(fit["constant"][4000] / fit["constant"][2000] - 1) < 0.01
assert 1.8 < fit["batch of 1 + t"][2000] / fit["batch of 1 + t"][4000] < 2.2
assert 1.8 < fit["mean of the iterates"][2000] / fit["mean of the iterates"][4000] < 2.2
assert fit["no noise at the minimum"][4000] < 1e-6 * fit["no noise at the minimum"][0]
claim(
    2,
    f"with a constant η the loss ends within {errors.max():.1%} of the computed floor; with batches of "
    f"1 + t, or averaged, it falls {fit['batch of 1 + t'][2000] / fit['batch of 1 + t'][4000]:.3g} and "
    f"{fit['mean of the iterates'][2000] / fit['mean of the iterates'][4000]:.3g} times while t doubles",
    CORRECTED,
    "where there is noise at the minimum, of iterates that are not averaged and batches that do not grow; "
    "a model that fits all its examples converges at a constant η",
)

# %% [markdown]
# ## Decaying as 1/t
#
# > **Claim 3**: the ideal decay for SGD is $O(1/t)$, but it works less well in practice.
#
# For one curvature it is exact. From $m_{t+1} = (1 - \eta_t h)^2 m_t + \eta_t^2 c$ the best rate of a
# step is $\eta_t = h m_t / (h^2 m_t + c)$, and what remains then is $1 / m_{t+1} = 1 / m_t + h^2 / c$.
# A smaller $m_t$ is better for all that follows, so the best step by step is the best of all:
#
# $$\eta_t = \frac{1}{h\,(t + t_0)}, \qquad t_0 = 1 + \frac{c}{h^2 m_0}.$$
#
# The recursion is differentiable, so the ideal decay can also be found without any insight: Adam descends on
# the logarithms of all rates at once.


# %%
def learned(problem, steps, batch_size, first, rounds=300):
    """The rates of a schedule that makes the last risk least."""
    outer = gdtx.adam(gdtx.cosine_decay_schedule(0.1, rounds))

    def final(log_rates):
        return jnp.log(problem.risk(jnp.exp(log_rates), steps, batch_size)[-1])

    def step(carry, _):
        log_rates, state = carry
        updates, state = outer.update(jax.grad(final)(log_rates), state)
        return (gdtx.apply_updates(log_rates, updates), state), None

    start = jnp.full(steps, jnp.log(first))
    return jnp.exp(jax.lax.scan(step, (start, outer.init(start)), length=rounds)[0][0])


h, c, theta = 0.5, 2.0, 1.5
one = explore.noisy_quadratic(curvatures=[h], noise=[c], start=[theta])
found = learned(one, 50, 1, 0.1)
ideal = 1 / (h * (np.arange(50) + 1 + c / (h * theta) ** 2))
departure = float(abs(found / ideal - 1).max())
print(f"rates found differ from the formula by at most {departure:.1e} of it")

# %% tags=["hide-cell"]
assert departure < 0.01

# %% [markdown]
# The price is that the constant counts, and it is the curvature. With $\eta_t = a / t$ the mean shrinks as
# $t^{-ah}$, so the loss falls as $1/t$ if $ah > 1/2$ and only as $t^{-2ah}$ if not, however long one waits
# (Nemirovski et al. 2009). With many curvatures, $a$ must suit the smallest, and the first
# rates are then too large for the largest.

# %%
unit, steps = explore.noisy_quadratic(curvatures=[1.0], noise=[1.0]), 20_000

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left, the ideal learning rate for one curvature over 50 steps, a falling curve on which lie the rates found by descent. Right, the loss with η = a/t for four values of a: straight lines, the flatter the smaller a is."}}
fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.5))
axes[0].plot(ideal, label="1 / (h (t + t₀))")
axes[0].plot(np.arange(0, 50, 3), found[::3], "C1o", markersize=4, label="found by descent")
axes[0].set(xlabel="step", ylabel="learning rate", title="The ideal decay for one curvature")
slopes = {}
for share in (1.0, 0.5, 0.25, 0.1):
    risk = unit.risk(lambda t, a=share: a / (t + 1), steps)
    slopes[share] = float(np.log2(risk[steps] / risk[steps // 2]))
    axes[1].loglog(risk, label=f"ah = {share}: $t^{{{slopes[share]:.2f}}}$")
axes[1].set(xlabel="step", ylabel="risk", title="What is left with η = a / t")
for ax in axes:
    ax.legend()
plt.show()

# %% [markdown]
# The marks lie on the curve. At the right, what a constant $a$ too small costs: a line less steep,
# for ever.

# %% tags=["hide-input"]
print(slopes)
assert abs(slopes[1.0] + 1) < 0.01
assert abs(slopes[0.25] + 0.5) < 0.02
assert abs(slopes[0.1] + 0.2) < 0.02

# %% [markdown]
# In practice there are many curvatures, unknown, and a number of steps that can be afforded. Four kinds
# of schedule for 300 steps, with all of their numbers tuned: constant, a straight line to zero,
# $\eta_0 / (1 + t)$, and $\eta_0 / (1 + t / \tau)$ with a choice of when to begin to fall. First on the
# model with 60 curvatures, computed; then on a small network, with mini-batches of 32 and three starts.

# %%
steps = 300
t = np.arange(steps)
first_rates, onsets = 2.0 ** np.arange(-4, 7), steps / 4.0 ** np.arange(5)
pairs = [(first, onset) for first in first_rates for onset in onsets]
tables = {
    "constant": np.stack([first + 0 * t for first in first_rates]),
    "straight line": np.stack([first * (1 - t / steps) for first in first_rates]),
    "η₀ / (1 + t)": np.stack([first / (1 + t) for first in first_rates]),
    "η₀ / (1 + t/τ)": np.stack([first / (1 + t / onset) for first, onset in pairs]),
}
problem = explore.noisy_quadratic(60)


def network_loss(params, batch):
    pixels, labels = batch
    scores = jax.nn.log_softmax(jnp.tanh(pixels @ params["in"]) @ params["out"])
    return -jnp.mean(jnp.take_along_axis(scores, labels[:, None], axis=1))


starts = {
    "in": jnp.asarray(rng.normal(size=(3, 64, 32)) / 8, jnp.float32),
    "out": jnp.asarray(rng.normal(size=(3, 32, 10)) / 32**0.5, jnp.float32),
}
rows = jnp.asarray(rng.integers(0, n, (3, steps, 32)))


def on_model(rates):
    return problem.risk(rates, steps, batch_size=64)[-1]


def on_network(rates):
    """The loss on all digits in the end, the mean of three trainings."""
    tx = gdtx.sgd(lambda count: rates[count])

    def train(params, rows):
        def step(carry, chosen):
            params, state = carry
            gradients = jax.grad(network_loss)(params, (data[0][chosen], data[1][chosen]))
            updates, state = tx.update(gradients, state)
            return (gdtx.apply_updates(params, updates), state), None

        params = jax.lax.scan(step, (params, tx.init(params)), rows)[0][0]
        return network_loss(params, data)

    return jax.vmap(train)(starts, rows).mean()


last = {
    (where, name): np.asarray(jax.lax.map(run, jnp.asarray(table, jnp.float32)))
    for where, run in (("model", jax.jit(on_model)), ("network", jax.jit(on_network)))
    for name, table in tables.items()
}
least = {key: float(np.nanmin(values)) for key, values in last.items()}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Loss in the end against the first learning rate, on the model and on the network, for four kinds of schedule. On the model the falling ones are best; on the network the rate that falls as 1/t from the first step on is worst by a factor of nine, and the others are alike."}}
fig, axes = plt.subplots(1, 2, figsize=(8.5, 4), sharey=True)
for ax, where in zip(axes, ("model", "network"), strict=True):
    for name, marker in zip(tables, "os^v", strict=True):
        by_rate = last[where, name].reshape(len(first_rates), -1)
        shown = np.where(np.isfinite(by_rate), by_rate, np.inf).min(1)
        ax.loglog(
            first_rates,
            shown,
            marker=marker,
            base=2,
            label=f"{name}: {least[where, name]:.2g}",
            markersize=4,
        )
    ax.set(xlabel="first learning rate", title=f"The {where}", yscale="log")
    ax.set_ylim(1.5e-3, 4)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, title="least loss")
axes[0].set_ylabel("loss in the end")
plt.show()

# %% [markdown]
# On the model the schedules that fall survive any first rate. On the network the curve of
# $\eta_0 / (1 + t)$ stays above the others.

# %% tags=["hide-input"]
for (where, name), values in last.items():  # the best first rate is inside of its grid
    best = int(np.nanargmin(values)) // (len(values) // len(first_rates))
    assert 0 < best < len(first_rates) - 1, (where, name)
worse = least["network", "η₀ / (1 + t)"] / least["network", "constant"]
onset = least["network", "η₀ / (1 + t/τ)"] / least["network", "constant"]
assert worse > 3
assert 0.8 < onset < 1.25
assert least["model", "η₀ / (1 + t)"] < 0.5 * least["model", "constant"]
claim(
    3,
    f"the best 50 rates for one curvature are 1 / (h (t + t₀)) to {departure:.0e}, but a/t with a tenth of the "
    f"right a falls as t^{slopes[0.1]:.2f}; after 300 steps of a network η₀/(1 + t) has {worse:.2g} times the "
    f"loss of the best constant rate, η₀/(1 + t/τ) {onset:.2g} times",
    CORRECTED,
    "it is ideal on quadratics, where any first rate is survived; on the network 1/t from the first step on "
    "is far worse, because its first rates are too large or its last ones too small, and with its onset "
    "tuned as well it is about as good as a constant",
)
