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
# # 2. Momentum
#
# A heavy ball rolls on where a light one would stop: it gains speed along a slope that persists and
# averages out one that changes its sign. This chapter takes the lecture's statements about momentum
# one by one: most hold, several with a condition that the slide leaves out. Everything here is in double
# precision, so that "equal" can be told from "almost equal".

# %%
# In a clone of gdtx: pip install -e ".[docs]"
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import gdtx
from gdtx import explore
from gdtx.explore.claims import CORRECTED, claim

plt.style.use("gdtx.explore.gdtx")
jax.config.update("jax_enable_x64", True)
rng = np.random.default_rng(0)

# %% [markdown]
# ## Two ways to write it, or three
#
# The lecture has $v_{t+1} = \mu v_t - \eta_t \nabla L(\theta_t)$, $\theta_{t+1} = \theta_t + v_{t+1}$:
# scale by the learning rate, then accumulate. Libraries (and `gdtx.sgd`) accumulate gradients and
# scale by the rate last. Both are the same two links, in one order or the other.

# %%
rate = gdtx.cosine_decay_schedule(0.08, 60, alpha=0.05)
lecture = gdtx.chain(gdtx.scale_by_learning_rate(rate), gdtx.trace(0.9))
lecture

# %%
rate_last = gdtx.sgd(rate, momentum=0.9)
rate_last

# %% [markdown]
# Polyak (1964) wrote $\theta_{t+1} = \theta_t - \eta_t \nabla L(\theta_t) + \alpha_t (\theta_t -
# \theta_{t-1})$. In the lecture's form $\theta_t - \theta_{t-1}$ *is* $v_t$, so with $\alpha = \mu$
# the two are the same step, whatever $\eta_t$ does. With the rate last, the old velocity is rescaled
# with the new rate, and the same path has $\alpha_t = \mu\,\eta_t / \eta_{t-1}$: equal only while
# $\eta$ is constant.

# %%
valley = explore.valley()
paths = explore.trajectories({"lecture": lecture, "rate last": rate_last}, valley, 60).positions
gradient = jax.jit(jax.grad(valley.fun))
rates = np.array(gdtx.schedule_values(rate, 60))


def polyak(alphas):
    """Polyak's recursion, from rest."""
    path = [np.array(valley.start)] * 2
    for eta, alpha in zip(rates, alphas, strict=True):
        path.append(path[-1] - eta * gradient(path[-1]) + alpha * (path[-1] - path[-2]))
    return np.array(path[1:])


def distance(one, other):
    return np.abs(one - other).max()


constant = polyak(np.full(60, 0.9))
rescaled = polyak(0.9 * rates / np.append(rates[0], rates[:-1]))

# %% tags=["hide-input"]
assert distance(paths["lecture"], constant) < 1e-12
assert distance(paths["rate last"], rescaled) < 1e-12
assert distance(paths["rate last"], constant) > 0.1
claim(
    5,
    f"while η decays, at most {distance(paths['lecture'], constant):.0e} apart; with the rate "
    f"applied last, {distance(paths['rate last'], constant):.1f}",
)

# %% [markdown]
# ## Gradients that agree
#
# What does `trace` make of a sequence of gradients? To a constant one it answers $g (1 + \mu + \mu^2 +
# \dots) = g / (1 - \mu)$, the terminal velocity; to one that changes its sign with every step, $\pm g
# / (1 + \mu)$. In between lies its frequency response, $1 / |1 - \mu e^{-i\omega}|$.


# %%
def response(tx, inputs):
    """What a transformation makes of a sequence of gradients."""

    def step(state, g):
        u, state = tx.update(g, state)
        return state, u

    return np.array(jax.lax.scan(step, tx.init(inputs[0]), inputs)[1])


frequencies = np.linspace(0, np.pi, 41)
time = np.arange(600)
waves = jnp.cos(time[:, None] * frequencies)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Velocity over gradient against the frequency of the gradient, measured dots on predicted lines. At frequency 0 it is 2, 10 and 100 for μ = 0.5, 0.9 and 0.99; where the sign changes at every step all three are below 1."}}
fig, ax = plt.subplots(figsize=(5.5, 3.2))
for i, mu in enumerate((0.5, 0.9, 0.99)):
    late = response(gdtx.trace(mu), waves)[-200:]
    # A cosine and what is orthogonal to it, by least squares: the amplitude of the answer.
    parts = np.stack(
        [np.cos(time[-200:, None] * frequencies), np.sin(time[-200:, None] * frequencies)]
    )
    measured = [
        np.linalg.norm(np.linalg.lstsq(parts[:, :, k].T, late[:, k], rcond=1e-9)[0])
        for k in range(len(frequencies))
    ]
    ax.plot(frequencies, 1 / np.abs(1 - mu * np.exp(-1j * frequencies)), color=f"C{i}")
    ax.plot(frequencies, measured, "os^"[i], color=f"C{i}", markersize=4, label=f"μ = {mu}")
ax.axhline(1, color="0.6", linewidth=0.8)
ax.set(yscale="log", xlabel="frequency of the gradient (π: its sign changes at every step)",
       ylabel="velocity / gradient")  # fmt: skip
ax.legend(title="dots measured, lines predicted")
plt.show()

# %% [markdown]
# The dots lie on the lines. A gradient that persists is raised up to $1 / (1 - \mu)$ times, one
# that alternates is damped.

# %% [markdown]
# On the floor of a valley whose slope is constant, heavy balls are therefore $1 / (1 - \mu)$ times as
# fast as gradient descent with the same $\eta$.

# %% tags=["hide-input"]
speed = {}
for mu in (0.0, 0.9):
    tx = gdtx.sgd(1e-3, momentum=mu)
    path = explore.minimize(jnp.sum, jnp.zeros(()), tx, 400, keep=True).path  # a slope of 1
    speed[mu] = float(path[-2] - path[-1]) / 1e-3
sign_changes = response(gdtx.trace(0.9), (-1.0) ** jnp.arange(200))[-1]
assert abs(speed[0.0] - 1) < 1e-9
assert abs(speed[0.9] - 10) < 1e-9
assert abs(abs(sign_changes) - 1 / 1.9) < 1e-6
claim(
    6,
    f"at μ = 0.9 the terminal velocity is {speed[0.9]:.1f} η against {speed[0.0]:.1f} η; a gradient "
    f"that alternates is damped to {abs(sign_changes):.2f}",
)

# %% [markdown]
# ## Is raising μ like raising η?
#
# If so, then through the effective rate $\eta / (1 - \mu)$. On $\tfrac12 h x^2$ gradient descent at
# this rate multiplies $x$ by $1 - e$ a step, $e = \eta h / (1 - \mu)$. Momentum multiplies it by a
# root of $r^2 - (1 + \mu - \eta h)\,r + \mu = 0$. Expanding the larger one,
#
# $$r = 1 - e - \frac{\mu}{1 - \mu} e^2 - O(e^3),$$
#
# so the two are alike while $e \ll 1 - \mu$. At $e = (1 - \sqrt\mu) / (1 + \sqrt\mu) \approx (1 - \mu)
# / 4$ the roots become complex. Beyond, the ball oscillates and $|r| = \sqrt\mu$, *whatever $\eta$*.
# Gradient descent diverges at $e = 2$, momentum at $e = 2 (1 + \mu) / (1 - \mu)$. A function with one
# curvature per coordinate measures all of that in one run.


# %%
def descend(curvatures, tx, steps):
    """The path on a quadratic, from 1 in every coordinate."""

    def fun(x):
        return 0.5 * jnp.sum(curvatures * x**2)

    return explore.minimize(fun, jnp.ones(len(curvatures)), tx, steps, keep=True).path


effective = np.geomspace(1e-4, 60, 120)


def energy(mu, eta=0.01):
    """Of position and velocity, by step and curvature: it does not go up and down as they do."""
    curvatures = jnp.asarray(effective) * (1 - mu) / eta
    path = descend(curvatures, gdtx.sgd(eta, momentum=mu), 6000)
    return jnp.hypot(jnp.sqrt(eta * curvatures) * path[1:], jnp.diff(path, axis=0))


def decay(size):
    """What its logarithm loses per step, over the second half of the steps that are in range."""
    last = np.sum(np.isfinite(size) & (size > 1e-250) & (size < 1e250), axis=0) - 1
    k, first = np.arange(len(last)), last // 2
    return np.log(size[first, k] / size[last, k]) / (last - first)


# %%
momenta = np.array([0.0, 0.5, 0.9, 0.99])
energies = np.array(jax.jit(jax.vmap(energy))(momenta))
slow = {mu: decay(size) for mu, size in zip(momenta, energies, strict=True)}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Gain per step against the effective rate ηh/(1 − μ). All four curves begin on one line; momentum leaves it the earlier the larger μ is and goes on level, where gradient descent, μ = 0, rises to its peak at 1 and falls off at 2."}}
fig, ax = plt.subplots(figsize=(6, 3.5))
for mu, lost in slow.items():
    ax.plot(effective, lost, label=f"μ = {mu}")
ax.set(title="How fast momentum descends a parabola", xscale="log", yscale="log", ylim=(5e-5, 8), xlabel="η h / (1 − μ)",
       ylabel="$-\\log|r|$, the gain per step")  # fmt: skip
ax.legend()
plt.show()

# %% [markdown]
# On the common line at the left the curves cannot be told apart: there $\mu$ acts as $\eta$ does.
# Each level stretch is a ball that oscillates, at $-\frac12 \log \mu$ whatever the rate. The drops
# are where the method diverges.

# %% [markdown]
# The noise they end in is alike too. With gradients $h x + \xi$, $\mathrm{Var}\,\xi = \sigma^2$, the
# variance of $x$ settles at
#
# $$\frac{\eta\,\sigma^2}{h (1 - \mu)} \cdot \frac{1 + \mu}{2 (1 + \mu) - \eta h},$$
#
# which for small $\eta h$ is $e \sigma^2 / 2 h^2$, for every $\mu$.

# %%
noise = rng.normal(size=(3000, 500))


def floor(mu, effective_rate=0.1):
    """The variance of x in the end, over 500 particles and the later half of the steps."""

    def fun(x, xi):
        return jnp.sum(0.5 * x**2 + xi * x)

    tx = gdtx.sgd(effective_rate * (1 - mu), momentum=mu)
    path = explore.minimize(fun, jnp.zeros(500), tx, 3000, batches=noise, keep=True).path
    return jnp.mean(path[1500:] ** 2)


measured = jax.jit(jax.vmap(floor))(momenta)
predicted = 0.1 * (1 + momenta) / (2 * (1 + momenta) - 0.1 * (1 - momenta))
print(f"measured  {measured.round(4)}\npredicted {predicted.round(4)}")

# %% tags=["hide-cell"]
np.testing.assert_allclose(measured, predicted, rtol=0.03)

# %% tags=["hide-input"]
# Until where their speeds differ by less than a tenth: by the expansion, until e = 0.1 (1 − μ) / μ.
alike = {mu: effective[np.argmax(slow[mu] / slow[0.0] > 1.1)] for mu in (0.5, 0.9, 0.99)}
for mu, until in alike.items():
    assert 0.6 < until / (0.1 * (1 - mu) / mu) < 1.6
    oscillating = (effective > (1 - mu**0.5) / (1 + mu**0.5) * 1.2) & (effective < 1.9)
    np.testing.assert_allclose(slow[mu][oscillating], -0.5 * np.log(mu), rtol=0.1)
assert slow[0.0][effective > 2.1].max() < 0 < slow[0.9][effective < 37].min()
assert slow[0.9][effective > 39].max() < 0
claim(
    7,
    f"speeds agree to 10 % up to ηh/(1 − μ) = {alike[0.9]:.2g} at μ = 0.9 and {alike[0.99]:.1g} at "
    f"0.99; from 2 on gradient descent diverges, where momentum 0.9 gains {slow[0.9][effective > 2][0]:.3f}",
    CORRECTED,
    "it does for directions with ηh/(1 − μ) ≪ 1 − μ, in speed and in noise; in steeper ones the ball "
    "oscillates and the speed depends on μ alone, where the same rise of η would diverge",
)

# %% [markdown]
# ## The valley
#
# The lecture's picture: gradient descent crawls along the floor of the valley; with a larger rate it
# jumps from side to side; momentum averages the jumps and adds up what is left.

# %%
h = 20.0
methods = {
    "GD, η = 0.02": gdtx.sgd(0.02),
    "GD, larger η = 0.096": gdtx.sgd(0.096),
    "momentum 0.8, η = 0.04": gdtx.sgd(0.04, momentum=0.8),
}
paths = explore.trajectories(methods, explore.valley(h), 60)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Paths in a valley and their losses. Gradient descent with a small rate stops half-way down the slope; with a larger one it jumps from side to side; momentum swings at first, goes along the floor and reaches a loss a hundred times lower than either."}}
explore.plot_trajectories(paths)
plt.show()

# %% [markdown]
# The shortest path is that of gradient descent with the small rate: down the side, and then hardly on. The loss of momentum, at the right, ends far below both.

# %% tags=["hide-cell"]
last = [losses[-1] for losses in paths.losses.values()]
assert last[2] < 0.02 * last[1] < 0.02 * last[0]

# %% [markdown]
# Across the valley the curvature is $h$, and the roots of $r^2 - (1 + \mu - \eta h)\,r + \mu$ lie
# within the unit circle for $\eta < 2 (1 + \mu) / h$: the limit is up to twice that of gradient
# descent, while the effective rate along the floor grows by $1 / (1 - \mu)$ besides. Where does a
# sweep put it?

# %%
grid = np.linspace(0.5, 2.5, 201) * 2 / h


def steep(tx):
    """Whether a ball that starts on the side of the valley stays in it."""
    result = explore.minimize(lambda y: 0.5 * h * y**2, jnp.ones(()), tx, 4000)
    return jnp.abs(result.params) < 1


stable = gdtx.sweep(
    steep,
    gdtx.sgd(0.1, momentum=0.9),
    {"learning_rate": np.tile(grid, 4), "momentum": np.repeat(momenta, len(grid))},
).reshape(4, -1)
limits = np.array([grid[np.array(row)].max() for row in stable])
predicted = 2 * (1 + momenta) / h
print(f"measured  {limits.round(3)}\npredicted {predicted.round(3)}")

# %% tags=["hide-input"]
np.testing.assert_allclose(limits, predicted, atol=1.01 * (grid[1] - grid[0]))
claim(
    8,
    f"largest stable η on a grid: {limits[0]:.3f} without (2/h = {2 / h:.2g}), {limits[2]:.3f} with μ = 0.9 "
    f"(2(1 + μ)/h = {predicted[2]:.2g}); the loss after 60 steps {last[0]:.1f}, {last[1]:.1f} and, with momentum, {last[2]:.2g}",
)

# %% [markdown]
# ## Guarantees
#
# On a quadratic with curvatures in $[m, L]$, $\kappa = L / m$, the best fixed rate of gradient descent
# gives the factor $(\kappa - 1) / (\kappa + 1)$ per step; Polyak's choice $\eta = 4 / (\sqrt L + \sqrt
# m)^2$, $\mu = \left(\frac{\sqrt\kappa - 1}{\sqrt\kappa + 1}\right)^2$ gives $(\sqrt\kappa - 1) /
# (\sqrt\kappa + 1)$. So steps to an accuracy grow as $\kappa$ and as $\sqrt\kappa$.

# %%
kappas = np.geomspace(10, 3000, 8)


def steps_needed(tx, kappa):
    """Until the distance is a millionth of that at the start; curvatures 1 to κ."""
    path = descend(kappa ** jnp.linspace(0, 1, 20), tx, 25_000)
    far = jnp.linalg.norm(path, axis=1) > 1e-6 * jnp.sqrt(20)
    return jnp.sum(jnp.flip(jnp.cumsum(jnp.flip(far))) > 0)  # the last time it is further


roots = np.sqrt(kappas)
count = jax.jit(jax.vmap(steps_needed))
descent = count(gdtx.sgd(jnp.array(2 / (kappas + 1))), kappas)
ball = count(
    gdtx.sgd(jnp.array(4 / (roots + 1) ** 2), momentum=jnp.array(((roots - 1) / (roots + 1)) ** 2)),
    kappas,
)
exponents = [np.polyfit(np.log(kappas), np.log(n), 1)[0] for n in (descent, ball)]
assert abs(exponents[0] - 1) < 0.05
assert abs(exponents[1] - 0.5) < 0.1
print(f"steps grow as κ^{exponents[0]:.2f} and κ^{exponents[1]:.2f}")

# %% [markdown]
# That is a guarantee for *exact* gradients. The S in SGD spoils it: speed in the slow directions and
# noise both depend on $\eta / (1 - \mu)$, so that whoever must lower the rate because of the noise
# gains nothing from $\mu$ (Kidambi et al. 2018, arXiv:1803.05591; Zhang et al. 2019,
# arXiv:1907.04164). Ten curvatures from 0.01 to 1, gradients with noise of deviation $\sigma$, and
# the best of 24 rates for each method and $\sigma$:

# %%
curvatures = jnp.geomspace(0.01, 1.0, 10)[:, None]
xi = jnp.asarray(rng.normal(size=(3000, 10, 16)))


def best_steps(sigma, mu):
    """Steps until the mean loss of 16 runs is a thousandth of that at the start, at the best rate."""

    def fun(x, xi):
        # The true loss, with a noisy gradient.
        loss = 0.5 * jnp.sum(curvatures * x**2) / 16
        return loss + sigma / 16 * jnp.sum(xi * (x - jax.lax.stop_gradient(x)))

    def run(tx):
        losses = explore.minimize(fun, 10 * jnp.ones((10, 16)), tx, 3000, batches=xi).losses
        below = losses < 1e-3 * losses[0]
        return jnp.where(below.any(), jnp.argmax(below), 10**6)

    # Gradients are of the mean over the runs, hence the 16.
    rates = 16 * (1 - mu) * jnp.geomspace(0.01, 40, 24)
    counts = jax.vmap(lambda rate: run(gdtx.sgd(rate, momentum=mu)))(rates)
    return jnp.min(counts), jnp.argmin(counts)


sigmas = np.array([0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5])
momenta = np.array([0.0, 0.5, 0.9])
search = jax.jit(jax.vmap(jax.vmap(best_steps, (0, None)), (None, 0)))
needed, best = map(np.array, search(sigmas, momenta))

# %% tags=["hide-cell"]
assert best.min() > 0
assert best.max() < 23

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left, steps against the condition number with exact gradients: a line of slope 1 for gradient descent, of slope 1/2 for momentum. Right, steps against the noise: momentum 0.5 needs a third of the steps without noise, and all three need the same from σ = 0.3 on."}}
fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.5))
axes[0].loglog(kappas, descent, "o-", label="gradient descent")
axes[0].loglog(kappas, ball, "s--", label="momentum (Polyak's)")
axes[0].set(xlabel="condition number κ", ylabel="steps to $10^{-6}$", title="Exact gradients")
for mu, steps, mark in zip(momenta, needed, ("o-", "^:", "s--"), strict=True):
    axes[1].semilogy(sigmas, steps, mark, label=f"μ = {mu}")
axes[1].set(xlabel="noise of the gradient σ", ylabel="steps to $10^{-3}$ of the loss",
            title="κ = 100, each at its best rate", yticks=[20, 50, 100, 200, 500],
            yticklabels=[20, 50, 100, 200, 500])  # fmt: skip
axes[1].set_yticks([], minor=True)
for ax in axes:
    ax.legend()
plt.show()

# %% [markdown]
# Without noise momentum is the faster one. From $\sigma = 0.3$ on the three lines are one.

# %% tags=["hide-input"]
gains = needed[0] / needed[1:].min(0)
assert gains[0] > 2
assert np.all(np.abs(gains[-3:] - 1) < 0.2)
claim(
    9,
    f"exact gradients: steps ∝ κ^{exponents[0]:.2f} and κ^{exponents[1]:.2f}; best momentum against "
    f"SGD: {gains[0]:.1f} times fewer steps without noise, {gains[-1]:.2f} at σ = {sigmas[-1]}",
    CORRECTED,
    "√κ in place of κ is a guarantee for quadratics and exact gradients; where noise limits the rate, "
    "momentum gains nothing over SGD (and off quadratics it may not converge, see claim 17)",
)

# %% [markdown]
# ## Saddle points
#
# Along a direction of curvature $-h$ the distance from a saddle *grows*: by $1 + \eta h$ a step with
# gradient descent, by the larger root of $r^2 - (1 + \mu + \eta h)\,r + \mu = 0$ with momentum. From a
# distance $\delta$, escape takes $\log(1 / \delta) / \log r$ steps. That is finite for all starts but
# those on the line that leads into the saddle (Lee et al. 2016, arXiv:1602.04915), and on that line
# momentum is as stuck as gradient descent.

# %%
saddle = explore.saddle()
methods = {"GD": gdtx.sgd(0.05), "momentum": gdtx.sgd(0.05, momentum=0.9)}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Paths from above a saddle and their losses. Both go down to the saddle first, momentum past it and back, and then turn to the minimum on the right; gradient descent stays at the saddle far longer than momentum."}}
explore.plot_trajectories(explore.trajectories(methods, saddle, 250))
plt.show()

# %% [markdown]
# Both come down to the saddle, pause, and leave it to the same side; momentum sooner.

# %%
deltas = jnp.geomspace(1e-10, 1e-2, 9)


def escape(tx, delta):
    """Steps until x, at first δ, is a half; its largest |x| if δ is 0."""
    path = explore.minimize(saddle.fun, jnp.stack([delta, 1.0]), tx, 1000, keep=True).path
    x = jnp.abs(path[:, 0])
    return jnp.argmax(x > 0.5), jnp.max(x)


escapes = jax.jit(jax.vmap(escape, (None, 0)))
growth = {"GD": 1.05, "momentum": np.max(np.roots([1, -(1 + 0.9 + 0.05), 0.9]))}
per_decade = {}
for name, tx in methods.items():
    steps, _ = escapes(tx, deltas)
    per_decade[name] = -np.polyfit(np.log10(deltas), steps, 1)[0]
    np.testing.assert_allclose(per_decade[name], np.log(10) / np.log(growth[name]), rtol=0.02)
    assert escapes(tx, jnp.zeros(1))[1] == 0  # on the line itself, for ever
print({name: f"{steps:.1f} steps for every factor of 10" for name, steps in per_decade.items()})

# %% [markdown]
# Are saddles the *main* difficulty? A network whose weights are all 0 sits on one, so the scale of the
# first weights says how close to it training begins. Handwritten digits, one hidden layer, all
# gradients exact:

# %%
images, labels = load_digits(return_X_y=True)
images, labels = jnp.asarray(images[:300] / 16), jnp.asarray(labels[:300])


def network_loss(params):
    logits = jnp.tanh(images @ params["in"]) @ params["out"]
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(300), labels])


usual = {
    "in": jnp.asarray(rng.normal(size=(64, 24)) / 8),
    "out": jnp.asarray(rng.normal(size=(24, 10)) / 24**0.5),
}


def plateau(tx, scale):
    """The losses of 400 steps from weights of this scale; 1 is the usual one."""
    start = jax.tree.map(lambda w: scale * w, usual)
    return explore.minimize(network_loss, start, tx, 400).losses


scales = jnp.array([1.0, 0.1, 0.01, 0.001])
train = jax.jit(jax.vmap(plateau, (None, 0)))
curves = {name: train(tx, scales) for name, tx in {
    "GD": gdtx.sgd(0.2), "momentum": gdtx.sgd(0.2, momentum=0.9),
}.items()}  # fmt: skip

# %% tags=["hide-input"] mystnb={"image": {"alt": "Loss over 400 steps for four scales of the first weights. Each tenth of the scale makes a longer plateau, of up to 160 steps with gradient descent and up to 44 with momentum."}}
fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.2), sharey=True)
titles = {"GD": "Gradient descent", "momentum": "Momentum 0.9"}
for ax, (name, losses) in zip(axes, curves.items(), strict=True):
    for scale, run in zip(scales, losses, strict=True):
        ax.plot(run, label=f"weights × {scale:g}")
    ax.set(xlabel="step", title=titles[name])
axes[0].set_ylabel("loss")
axes[1].legend()
plt.show()

# %% [markdown]
# With the usual weights (the first line) there is no plateau at all.

# %% tags=["hide-input"]
waits = {name: np.argmax(losses < 0.8 * np.log(10), axis=1) for name, losses in curves.items()}
for name, wait in waits.items():
    print(
        f"{name}: {wait[0]} steps to the first fifth of the fall, and {np.diff(wait)} more for each 0.1"
    )
    assert wait[0] < 20
    assert np.all(np.diff(wait) > 2 * wait[0])
shorter = waits["GD"][-1] / waits["momentum"][-1]
ratio = per_decade["GD"] / per_decade["momentum"]
assert 2 < shorter < 10
claim(
    4,
    f"for a start ten times closer {per_decade['GD']:.0f} more steps of GD, {per_decade['momentum']:.0f} "
    f"with μ = 0.9; on digits a plateau of {waits['GD'][-1]} and {waits['momentum'][-1]} steps from weights "
    f"× 0.001, of {waits['GD'][0]} and {waits['momentum'][0]} from the usual ones",
    CORRECTED,
    "momentum makes the escape faster by a factor, but gradient descent escapes from almost every start "
    "too, and from the others neither does; with the usual first weights this network waits at no saddle",
)

# %% [markdown]
# ## Less variance?
#
# `ema(β)` of independent gradients of variance $\sigma^2$ has the variance $(1 - \beta)^2 \sum_k
# \beta^{2k} \sigma^2 = \frac{1 - \beta}{1 + \beta} \sigma^2$. But successive averages share most of
# their gradients: their correlation is $\beta$. What moves the parameters is the sum of many, and in
# that every gradient still counts with weight 1 in the end.

# %% tags=["hide-input"]
xi = jnp.asarray(rng.normal(size=(1000, 4000)))
betas = (0.5, 0.9, 0.99)
single, summed = {}, {}
for beta in betas:
    averages = response(gdtx.ema(beta), xi)
    single[beta] = averages[-1].var()
    summed[beta] = averages.sum(0).var() / 1000
    weights = 1 - beta ** np.arange(1, 1001)  # of each gradient in the sum
    print(f"β = {beta}: variance {single[beta]:.4f} of one average, {summed[beta]:.3f} of the sum")
    np.testing.assert_allclose(single[beta], (1 - beta) / (1 + beta), rtol=0.12)
    np.testing.assert_allclose(summed[beta], np.mean(weights**2), rtol=0.12)
claim(
    10,
    f"β = 0.9: variance of one average {single[0.9]:.4f} of a gradient's, (1 − β)/(1 + β) = "
    f"{0.1 / 1.9:.4f}; of the sum of a thousand {summed[0.9]:.2f}",
    CORRECTED,
    "the variance of a single average falls to (1 − β)/(1 + β), at a fixed θ; that of the displacement "
    "over many steps does not, nor does the noise in which the parameters end (see claim 7)",
)

# %% [markdown]
# ## Behind the truth
#
# An average looks back. Of a gradient that grows by 1 a step, `ema(β)` shows what it was $\beta / (1 -
# \beta)$ steps ago, and the ball overshoots.

# %%
ramp = jnp.arange(400.0)
lag = {beta: float((ramp - response(gdtx.ema(beta), ramp))[-1]) for beta in (0.5, 0.9)}
np.testing.assert_allclose(list(lag.values()), [1.0, 9.0], rtol=1e-6)


def ride(mu):
    """x on x²/2 from 1, at η = 0.1; and when it is within 0.01 for good."""
    x = explore.minimize(
        lambda x: 0.5 * x**2, jnp.ones(()), gdtx.sgd(0.1, momentum=mu), 1500, keep=True
    ).path
    outside = jnp.abs(x) > 0.01
    return x, jnp.max(jnp.where(outside, jnp.arange(1501), -1)) + 1


mus = np.linspace(0, 0.99, 100)
rides, settled = map(np.array, jax.jit(jax.vmap(ride))(mus))
overshoot = np.maximum(-rides.min(1), 0)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left, position over the steps for four values of μ: without momentum it decays, at 0.47 quickest, at 0.9 and 0.97 it swings for long. Right, steps until it settles against μ, with the least near critical damping and a thousand at 0.99."}}
fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.5))
for mu in (0.0, 0.47, 0.9, 0.97):
    axes[0].plot(rides[round(mu * 100)][:150], label=f"μ = {mu}")
axes[0].axhline(0, color="0.6", linewidth=0.8)
axes[0].set(xlabel="step", ylabel="x", title="Rides on x²/2, η = 0.1")
axes[0].legend(loc="upper right")
axes[1].semilogy(mus, settled, label="measured")
axes[1].semilogy(mus[47:], np.log(0.01) / np.log(np.sqrt(mus[47:])), ":", color="0.4",
                 label=r"$\log 0.01 / \log \sqrt{\mu}$")  # fmt: skip
axes[1].axvline((1 - 0.1**0.5) ** 2, color="0.6", linewidth=0.8)
axes[1].set(
    xlabel="μ (the line: critical damping)",
    ylabel="steps until |x| < 0.01 for good",
    title="When the ball settles",
)
axes[1].legend(loc="upper left")
plt.show()

# %% [markdown]
# Below critical damping the ball creeps, above it swings; the best $\mu$ is just at the line.

# %% tags=["hide-input"]
critical = (1 - 0.1**0.5) ** 2
assert abs(mus[np.argmin(settled)] - critical) < 0.15
assert np.all(overshoot[mus < critical - 0.02] < 1e-9)
assert np.all(np.diff(overshoot[60:]) > 0)
assert settled[99] > 10 * settled[0] > 20 * settled.min()
claim(
    12,
    f"a lag of β/(1 − β) = {lag[0.9]:.1f} steps at 0.9; settles in {settled[0]} steps without, "
    f"{settled.min()} at μ = {mus[np.argmin(settled)]:.2f}, {settled[90]} at 0.9 and {settled[99]} at 0.99, "
    f"where it overshoots by {100 * overshoot[99]:.0f} %",
)

# %% [markdown]
# ## The average form
#
# $g_{t+1} = \beta g_t + (1 - \beta) \nabla L(\theta_t)$, $\theta_{t+1} = \theta_t - \eta_t g_{t+1}$ is
# `ema_sgd`. With $v_{t+1} = -\eta_t g_{t+1}$, the step itself,
#
# $$v_{t+1} = \beta \frac{\eta_t}{\eta_{t-1}} v_t - \eta_t (1 - \beta) \nabla L(\theta_t),$$
#
# so it is the lecture's momentum with $\mu_t = \beta\,\eta_t / \eta_{t-1}$ and learning rate
# $\eta_t (1 - \beta)$. The slide has $\mu = \eta_t \beta$, which cannot be: $\mu$ is a number, $\eta$
# has units. For constant $\eta$ it is just $\mu = \beta$. (With the rate applied last, `sgd`, it is
# $\mu = \beta$ always.)

# %%
gdtx.ema_sgd(0.1, decay=0.9)

# %%
rate = gdtx.warmup_cosine_decay_schedule(0.02, 0.4, 15, 60, end_value=0.02)
lowered = 0.1 * rate  # η_t (1 − β)
forms = {
    "average": gdtx.ema_sgd(rate, decay=0.9),
    "μ = β η_t / η_{t-1}": gdtx.chain(
        gdtx.scale_by_learning_rate(lowered), gdtx.trace(lambda t: 0.9 * rate(t) / rate(t - 1))
    ),
    "rate last, μ = β": gdtx.sgd(lowered, momentum=0.9),
    "μ = β": gdtx.chain(gdtx.scale_by_learning_rate(lowered), gdtx.trace(0.9)),
    "μ = β η_t (the slide)": gdtx.chain(
        gdtx.scale_by_learning_rate(lowered), gdtx.trace(lambda t: 0.9 * rate(t))
    ),
}
paths = explore.trajectories(forms, valley, 60).positions
apart = {name: distance(path, paths["average"]) for name, path in paths.items()}
print({name: f"{d:.0e}" for name, d in apart.items()})

# %% tags=["hide-cell"]
assert max(apart["μ = β η_t / η_{t-1}"], apart["rate last, μ = β"]) < 1e-11
assert min(apart["μ = β"], apart["μ = β η_t (the slide)"]) > 0.05

# %% tags=["hide-input"]
steady = {
    name: explore.trajectories({"": tx}, valley, 60).positions[""]
    for name, tx in {
        "average": gdtx.ema_sgd(0.4, decay=0.9),
        "μ = β": gdtx.chain(gdtx.scale_by_learning_rate(0.04), gdtx.trace(0.9)),
        "slide": gdtx.chain(gdtx.scale_by_learning_rate(0.04), gdtx.trace(0.4 * 0.9)),
    }.items()
}
assert distance(steady["average"], steady["μ = β"]) < 1e-11
assert distance(steady["average"], steady["slide"]) > 1
claim(
    13,
    f"η constant: μ = β gives the same path (to {distance(steady['average'], steady['μ = β']):.0e}), μ = ηβ "
    f"one {distance(steady['average'], steady['slide']):.1f} away; η varying: β η_t/η_{{t−1}} the same (to "
    f"{apart['μ = β η_t / η_{t-1}']:.0e}), η_t β one {apart['μ = β η_t (the slide)']:.1f} away",
    CORRECTED,
    "the learning rate is η_t(1 − β), but μ_t = β η_t/η_{t−1}, which for constant η is β",
)

# %% [markdown]
# ## A window in disguise
#
# A simple mean of the last $N$ gradients has the variance $\sigma^2 / N$, and its gradients are
# $(N - 1) / 2$ steps old on average. With $N = 2 / (1 - \beta) - 1$ those are
# $\frac{1 - \beta}{1 + \beta} \sigma^2$ and $\beta / (1 - \beta)$: both what the exponential average
# has. The weights themselves are less alike.

# %%
impulse = jnp.zeros(400).at[0].set(1.0)
inside, columns = {}, {}
for beta in (0.8, 0.9, 0.96):
    weights = response(gdtx.ema(beta), impulse)  # of a gradient, by its age
    n = 2 / (1 - beta) - 1
    age, variance = np.sum(weights * np.arange(400)), np.sum(weights**2)
    np.testing.assert_allclose([age, variance], [(n - 1) / 2, 1 / n], rtol=1e-5)
    inside[beta] = weights[: round(n)].sum()
    columns[beta] = weights[:80], n

# %% tags=["hide-input"] mystnb={"image": {"alt": "Weight of a gradient by its age: three exponential averages, falling curves, and the rectangular windows of the same variance and mean age."}}
fig, ax = plt.subplots(figsize=(6, 3.2))
for i, (beta, (weights, n)) in enumerate(columns.items()):
    ax.plot(weights, color=f"C{i}", linestyle="-", label=f"β = {beta}, N = {n:.0f}")
    ax.step([0, n, n, 80], [1 / n, 1 / n, 0, 0], color=f"C{i}", linestyle="--", where="post")
ax.set(xlabel="age of the gradient, in steps", ylabel="weight",
       title="An exponential average (lines) and its window (dashed)")  # fmt: skip
ax.legend()
plt.show()

# %% tags=["hide-input"]
assert all(0.85 < share < 0.9 for share in inside.values())  # 1 − e⁻² in the limit
claim(
    14,
    f"β = 0.9: N = {2 / 0.1 - 1:.0f} has the same variance and the same mean age, exactly; "
    f"{100 * inside[0.9]:.0f} % of the weight is on the last N gradients",
)

# %% [markdown]
# ## Starting from zero
#
# An average that starts at 0 is short of weights: $\sum_{i \le t} (1 - \beta) \beta^{t - i} = 1 -
# \beta^t$. If all gradients have the same expectation, then $E[g_t] = (1 - \beta^t)\,E[\nabla L]$.
# Mini-batches of a regression at a fixed $\theta$ show it. In training $\theta$ moves, and
#
# $$E[g_t] = (1 - \beta^t)\,E[\nabla L(\theta_t)] + (1 - \beta) \sum_{i \le t} \beta^{t - i} \left(
# E[\nabla L(\theta_i)] - E[\nabla L(\theta_t)] \right).$$

# %%
x = rng.normal(size=200)
gradients = (2 * x - (1 + rng.normal(size=200))) * x  # of the examples, at θ = 2
batches = gradients[rng.integers(200, size=(60, 2000, 8))].mean(-1)  # steps, runs
resting = response(gdtx.ema(0.9), jnp.asarray(batches)).mean(1) / gradients.mean()
filled = 1 - 0.9 ** np.arange(1, 61)
error = np.abs(resting / filled - 1).max()
assert error < 5 * float(batches[0].std() / abs(gradients.mean())) / 2000**0.5

# The same average, of the gradients that gradient descent meets on θ²/2 at η = 0.1.
theta = 0.9 ** jnp.arange(60)
moving = response(gdtx.ema(0.9), theta) / theta

# %% tags=["hide-input"] mystnb={"image": {"alt": "Average over gradient, by step. At rest it follows 1 − β^t up to 1; with θ moving it grows to 6."}}
fig, ax = plt.subplots(figsize=(5.5, 3.2))
ax.plot(filled, "k-", linewidth=1, label=r"$1 - \beta^t$")
ax.plot(resting, "o", markersize=3, label="θ at rest, mean of 2000 runs")
ax.plot(moving, "s--", markersize=3, label="θ moving")
ax.set(xlabel="step", ylabel="average / gradient now", title="ema(0.9), started at 0")
ax.legend()
plt.show()

# %% [markdown]
# At rest it is as the formula says. While $\theta$ moves the average is far above the present
# gradient: it remembers larger ones.

# %% tags=["hide-input"]
assert moving[-1] > 5
claim(
    15,
    f"at a fixed θ within {100 * error:.1g} % of 1 − β^t at each of 60 steps; along gradient descent "
    f"g_t is {moving[-1]:.1f} times the gradient after 60",
    CORRECTED,
    "exact where E[∇L] stays the same over the steps; while θ moves, the average of the changes since "
    "is added",
)
