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
# # 7. Adam
#
# Adam (Kingma & Ba 2015) divides an average of the gradients by the root of an average of their
# squares. Its paper promises three things of that fraction: a bound on every step, a signal-to-noise
# ratio, a diagonal of the Fisher information. The lecture repeats the first, and doubts the other
# two. All of it can be worked out exactly, and the bound turns out to be another one. Of the rest
# (corrections, decay, ε, and the variants AdaMax, NAdam and AMSGrad) each claim has a small
# experiment.

# %%
# In a clone of gdtx: pip install -e ".[docs]"
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.flatten_util import ravel_pytree
from sklearn.datasets import load_digits

import gdtx
from gdtx import kfac
from gdtx.explore.claims import CORRECTED, claim

plt.style.use("gdtx.explore.gdtx")
# Identities are checked in double precision.
jax.config.update("jax_enable_x64", True)


# %% tags=["hide-input"]
@jax.jit
def outputs(tx, gradients):
    """What a transformation makes of a sequence of gradients, whatever the parameters are."""

    def step(state, gradient):
        update, state = tx.update(gradient, state)
        return state, update

    return jax.lax.scan(step, tx.init(gradients[0]), gradients)[1]


# %% [markdown]
# ## Claim 33: RMSProp with momentum and bias correction
#
# Is Adam the method before it, with two additions? Here are both as links. RMSProp is a gradient
# over the root of an average square. Adam has an average in place of the gradient, and a correction
# after each average.

# %%
b1, b2, eps = 0.9, 0.999, 1e-8
root = gdtx.chain(gdtx.sqrt(), gdtx.add(eps))
rmsprop = gdtx.join(
    gdtx.divide, g=gdtx.identity(), nu=gdtx.chain(gdtx.square(), gdtx.ema(b2), root)
)
adam = gdtx.join(
    gdtx.divide,
    mu=gdtx.chain(gdtx.ema(b1), gdtx.bias_correction(b1)),
    nu=gdtx.chain(gdtx.square(), gdtx.ema(b2), gdtx.bias_correction(b2), root),
)
gdtx.adam(1e-3)

# %% tags=["hide-cell"]
noise = jax.random.normal(jax.random.key(0), (500, 4))
deviation = 0.0
for ours, theirs in [
    (rmsprop, gdtx.scale_by_rms(b2, eps, eps_in_sqrt=False)),
    (adam, gdtx.scale_by_adam(b1, b2, eps)),
]:
    ratio = outputs(ours, noise) / outputs(theirs, noise)
    deviation = max(deviation, float(jnp.max(jnp.abs(ratio - 1))))
assert deviation < 1e-12

# %% [markdown]
# So much for the parts; what about their order? "RMSProp with momentum" was a method before Adam: Graves (2013) and the usual implementations put
# the momentum *behind* the division. Adam puts it before. Let one gradient come, and then none, and
# leave the corrections out. The step of what was averaged before the division falls as
# $\beta_1^k / \sqrt{\beta_2^k}$ over the next $k$ steps, for the denominator forgets as well; of what
# was averaged behind, as $\beta_1^k$.

# %%
b2 = 0.9
power = gdtx.chain(gdtx.square(), gdtx.ema(b2), gdtx.sqrt(), gdtx.add(1e-30))
before = gdtx.join(gdtx.divide, mu=gdtx.ema(b1), nu=power)
behind = gdtx.chain(gdtx.join(gdtx.divide, g=gdtx.identity(), nu=power), gdtx.ema(b1))
spike = jnp.zeros(20).at[0].set(1.0)
after = {name: outputs(tx, spike) for name, tx in [("before", before), ("behind", behind)]}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Step after a single gradient, over 20 steps. Both start at the same length; averaged before the division it falls the more slowly."}}
k = np.arange(20)
fig, ax = plt.subplots(figsize=(5.5, 3))
for (name, u), marker in zip(after.items(), "os", strict=True):
    ax.plot(k, u, marker=marker, markersize=3.5, label=f"averaged {name} the division")
ax.set(xlabel="steps after the one gradient", ylabel="step / η", ylim=(0, None), xticks=k[::2])
ax.set_title(rf"One gradient, then none ($\beta_1 = \beta_2 = {b2}$)")
ax.legend()
plt.show()

# %% [markdown]
# Both curves begin at the same step. The one averaged before the division, Adam's, falls the more
# slowly: a large gradient moves Adam for longer than its momentum alone says.

# %% tags=["hide-input"]
decay = {name: float((u[10] / u[0]) ** 0.1) for name, u in after.items()}
np.testing.assert_allclose(after["before"] / after["before"][0], (b1 / b2**0.5) ** k, rtol=1e-6)
np.testing.assert_allclose(after["behind"] / after["behind"][0], b1**k, rtol=1e-6)
claim(
    33,
    f"as links equal up to {deviation:.0e}; after one gradient Adam's step falls by a factor of "
    f"{decay['before']:.3g} each step, that of RMSProp with momentum of {decay['behind']:.3g} "
    f"(β₁ = β₂ = {b2})",
    CORRECTED,
    "Adam averages gradients and then divides, RMSProp with momentum averages what was divided: "
    "after a large gradient the first falls as (β₁/√β₂)ᵏ, the second as β₁ᵏ",
)

# %% [markdown]
# ## Claim 34: bias correction matters only early
#
# How early is early, and what happens before? Both averages start at 0. Without corrections the
# step would be
#
# $$\frac{m_t}{\sqrt{v_t}} = \frac{\hat m_t}{\sqrt{\hat v_t}} \cdot
# \frac{1 - \beta_1^t}{\sqrt{1 - \beta_2^t}},$$
#
# whatever the gradients are. With the usual $\beta_2$ the denominator is further from its end than
# the numerator, so these steps are not too short but too *long*. They are within 5% once
# $1 - \beta_2^t \geq 1/1.05^2$, which is from $t \approx 2.4 / (1 - \beta_2)$ on. Five decays, on a
# gradient that stays the same:

# %%
decays = np.array([0.9, 0.99, 0.999, 0.9999, 0.99999])
uncorrected = gdtx.join(
    gdtx.divide,
    mu=gdtx.ema(0.9),
    nu=gdtx.chain(gdtx.square(), gdtx.ema(0.0), gdtx.sqrt(), gdtx.add(1e-12)),
)
constant = jnp.ones(250_000)
length = gdtx.sweep(lambda tx: outputs(tx, constant), uncorrected, {"nu.1.decay": decays})

# %% tags=["hide-input"] mystnb={"image": {"alt": "How much longer steps are without bias corrections, against the step, for five decays. At β₂ = 0.99999 they are up to 66 times too long and come near 1 only after 200,000 steps; at β₂ = 0.9 they are too short."}}
t = np.arange(1, len(constant) + 1)
some = np.unique(np.geomspace(1, len(t), 300).astype(int)) - 1
fig, ax = plt.subplots(figsize=(6, 3.2))
ax.axhline(1.0, color="0.5", linewidth=0.8)
for decay, curve in zip(decays, length, strict=True):
    ax.loglog(t[some], curve[some], label=f"β₂ = {decay}")
ax.set(xlabel="step", ylabel="length of a step,\nwithout corrections / with", title="β₁ = 0.9")
ax.legend()
plt.show()

# %% tags=["hide-cell"]
np.testing.assert_allclose(outputs(gdtx.scale_by_adam(eps=0.0), constant), 1.0, rtol=1e-9)
factor = (1 - 0.9**t) / np.sqrt(-np.expm1(t * np.log(decays)[:, None]))
np.testing.assert_allclose(length, factor, rtol=1e-8)
last_off = len(t) - np.argmax(np.abs(length - 1)[:, ::-1] > 0.05, axis=1)
longest = np.asarray(length.max(axis=1))
np.testing.assert_allclose(last_off[1:] * (1 - decays[1:]), 2.4, rtol=0.02)

# %% [markdown]
# All curves come to 1, the grey line: ten times later where $\beta_2$ is ten times closer to 1. Only
# with $\beta_2 = \beta_1$ are the first steps too short.
#
# Does it matter to the result? Softmax regression on digits, 500 steps on batches of 32, in 32 random
# orders: with a large rate the last loss is a matter of chance, and its mean is less so.

# %%
digits = load_digits()
images = jnp.asarray(digits.data / 16, jnp.float32)
labels = jax.nn.one_hot(digits.target, 10, dtype=jnp.float32)


def softmax_loss(w, chosen=slice(None)):
    logits = images[chosen] @ w[:-1] + w[-1]
    return jnp.mean(jax.nn.logsumexp(logits, -1) - jnp.sum(logits * labels[chosen], -1))


def train(tx, batches):
    """Weights after a step on each of the batches, and all updates."""

    def step(carry, chosen):
        w, state = carry
        updates, state = tx.update(jax.grad(softmax_loss)(w, chosen), state, w)
        return (gdtx.apply_updates(w, updates), state), updates

    start = jnp.zeros((65, 10), jnp.float32)
    (w, _), updates = jax.lax.scan(step, (start, tx.init(start)), batches)
    return w, updates


orders = jax.random.randint(jax.random.key(1), (32, 500, 32), 0, len(images))


def final_loss(tx):
    """The geometric mean over the orders."""
    losses = jax.vmap(lambda batches: softmax_loss(train(tx, batches)[0]))(orders)
    return jnp.exp(jnp.mean(jnp.log(losses)))


# %%
b2s, rates = np.meshgrid(decays.astype(np.float32), np.float32([0.01, 0.3]))
settings = {"learning_rate": rates.ravel(), "b2": b2s.ravel()}
corrected_loss = gdtx.sweep(final_loss, gdtx.adam(0.01), settings).reshape(2, 5)
descend = gdtx.chain(uncorrected, gdtx.scale_by_learning_rate(0.01))
settings = {"1.learning_rate": rates.ravel(), "0.nu.1.decay": b2s.ravel()}
uncorrected_loss = gdtx.sweep(final_loss, descend, settings).reshape(2, 5)
for rate, *rows in zip((0.01, 0.3), corrected_loss, uncorrected_loss, strict=True):
    print(f"η = {rate}, loss for β₂ =", *decays)
    print("    with corrections:   ", *(f"{loss:.3f}" for loss in rows[0]))
    print("    without corrections:", *(f"{loss:.3f}" for loss in rows[1]))

# %% [markdown]
# Without corrections Adam acts as if its learning rate were larger, and with $\beta_2 = 0.99999$ that
# is 14 times at the 500th step still. It helps where $\eta$ was too small, and harms elsewhere.

# %% tags=["hide-input"]
small, large = uncorrected_loss / corrected_loss
np.testing.assert_allclose(length[-1, 499], 14, atol=0.5)
assert abs(small[0] - 1) < 0.05  # β₂ = 0.9: over in no time
assert 0.6 < large[0] < 1.6
assert small[-1] < 0.5 < 3 < large[-1]  # β₂ = 0.99999: never over
claim(
    34,
    f"off by more than 5% for {last_off[2]:,} steps at β₂ = 0.999, {last_off[-1]:,} at 0.99999, and "
    f"up to {longest[2]:.2g} and {longest[-1]:.2g} times too long; without it the loss after 500 "
    f"steps is {small[-1]:.2g} times (η = 0.01), {large[-1]:.2g} times (η = 0.3) that with it",
    CORRECTED,
    "early is the first 2.4/(1 − β₂) steps, which may be all of a training; without corrections "
    "those steps are too long, for the root of v is further from its end than m",
)

# %% [markdown]
# ## Claim 35: how long can a step be?
#
# The slide prints $|\Delta\theta| \leq \eta \min(1, (1 - \beta_1) / \sqrt{1 - \beta_2})$. The paper
# (section 2.1) means the *larger* of the two: $\eta$ unless $1 - \beta_1 > \sqrt{1 - \beta_2}$, and
# else $\eta (1 - \beta_1)/\sqrt{1 - \beta_2}$, which is what a single gradient after a long silence
# makes. Neither is the supremum. Write the two corrected averages with their weights on the gradient
# $k$ steps ago,
#
# $$\hat m_t = \sum_{k<t} p_k g_{t-k}, \quad \hat v_t = \sum_{k<t} q_k g_{t-k}^2, \quad
# p_k = \frac{(1 - \beta_1) \beta_1^k}{1 - \beta_1^t}, \quad
# q_k = \frac{(1 - \beta_2) \beta_2^k}{1 - \beta_2^t}.$$
#
# By Cauchy and Schwarz,
# $\hat m_t^2 = \big(\sum_k \tfrac{p_k}{\sqrt{q_k}} \cdot \sqrt{q_k} g_{t-k}\big)^2
# \leq \sum_k \tfrac{p_k^2}{q_k} \cdot \hat v_t$, with equality exactly if
# $g_{t-k} \propto p_k / q_k \propto (\beta_1/\beta_2)^k$. So with $r = \beta_1^2 / \beta_2$
#
# $$\max \frac{|\Delta\theta_t|}{\eta} = B_t = \Big(\sum_{k<t} \frac{p_k^2}{q_k}\Big)^{1/2} =
# \frac{1 - \beta_1}{1 - \beta_1^t} \sqrt{\frac{1 - \beta_2^t}{1 - \beta_2} \cdot
# \frac{1 - r^t}{1 - r}}, \qquad
# B_\infty = \frac{1 - \beta_1}{\sqrt{1 - \beta_2}} \cdot \frac{1}{\sqrt{1 - \beta_1^2/\beta_2}}.$$
#
# $B_t^2 = 1 + \chi^2(p \,\|\, q)$, so it is never below 1, and 1 only at $t = 1$ or where
# $\beta_1 = \beta_2$. It grows with $t$. If $\beta_1^2 \geq \beta_2$ it grows without end: the
# denominator forgets a large gradient before the numerator does.


# %%
def bound(b1, b2, t=None):
    """The supremum after t steps, or over all t."""
    if t is None:
        return np.where(b1**2 < b2, (1 - b1) / np.sqrt((1 - b2) * np.abs(1 - b1**2 / b2)), np.inf)
    of_b1, of_b2, of_r = (np.sum(x[..., None] ** np.arange(t), -1) for x in (b1, b2, b1**2 / b2))
    return np.sqrt(of_r * of_b2) / of_b1


def paper_bound(b1, b2):
    return np.maximum(1, (1 - b1) / np.sqrt(1 - b2))


def slide_bound(b1, b2):
    return np.minimum(1, (1 - b1) / np.sqrt(1 - b2))


grid = np.meshgrid([0.0, 0.5, 0.9, 0.95, 0.99], [0.5, 0.85, 0.9, 0.95, 0.99, 0.999, 0.9999])
b1s, b2s = (values.ravel() for values in grid)


@jax.jit
@jax.vmap
def last_step(b1, b2, gradients):
    """|Δθ| / η of Adam after these gradients."""
    return jnp.abs(outputs(gdtx.scale_by_adam(b1, b2, eps=0.0), gradients)[-1])


# %% [markdown]
# Three questions to the program. Does this sequence attain $B_t$? It does, for every pair on a grid and
# every length tried (folded below).

# %% tags=["hide-cell"]
previous = np.ones(len(b1s))
for steps in (1, 10, 300):
    worst = (b1s / b2s)[:, None] ** np.arange(steps)[::-1]
    attained = last_step(b1s, b2s, worst)
    np.testing.assert_allclose(attained, bound(b1s, b2s, steps), rtol=1e-7)
    assert np.all(previous * (1 - 1e-9) <= attained)
    assert np.all(attained <= bound(b1s, b2s) + 1e-9)
    previous = attained
finite = b1s**2 < b2s
late = bound(b1s[finite], b2s[finite], 100_000)
np.testing.assert_allclose(late, bound(b1s, b2s)[finite], rtol=1e-4)
assert np.all(previous[b1s**2 > b2s] > 1.2)

exact = np.isclose(bound(b1s, b2s), paper_bound(b1s, b2s), rtol=1e-6)
np.testing.assert_array_equal(exact, (b1s == b2s) | (b1s == 0))
assert np.all((bound(b1s, b2s) >= paper_bound(b1s, b2s) - 1e-9) | exact)

# %% [markdown]
# Does anything exceed it? Two attempts: 50,000 random sequences with heavy tails, and, as all of this can
# be differentiated, the ascent of $|\Delta\theta_{12}|$ over the twelve gradients, by Adam itself.

# %%
pairs = np.array([[0.9, 0.999], [0.9, 0.95], [0.9, 0.9], [0.5, 0.99], [0.9, 0.7], [0.0, 0.999]]).T
limit = bound(*pairs, 12)
wild = jax.random.normal(jax.random.key(2), (50_000, 12)) ** 9
tried = jax.vmap(last_step, (None, None, 1), 1)(*pairs, jnp.stack([wild] * 6))
assert np.all(tried <= limit[:, None] * (1 + 1e-9))


@jax.jit
def ascend(gradients):
    tx = gdtx.adam(gdtx.cosine_decay_schedule(0.1, 1000))

    def step(carry, _):
        x, state = carry
        slope = jax.grad(lambda x: -jnp.sum(jnp.log(last_step(*pairs, x))))(x)
        updates, state = tx.update(slope, state)
        return (gdtx.apply_updates(x, updates), state), None

    (x, _), _ = jax.lax.scan(step, (gradients, tx.init(gradients)), length=1000)
    return last_step(*pairs, x)


found = ascend(jax.random.normal(jax.random.key(3), (6, 12)))
for (b1, b2), most, by_chance, by_ascent in zip(pairs.T, limit, tried.max(1), found, strict=True):
    print(
        f"β₁ {b1}, β₂ {b2:<5}: bound {most:.5f}, found {by_ascent:.5f}, at random {by_chance:.3f}"
    )

# %% tags=["hide-cell"]
np.testing.assert_allclose(found, limit, rtol=1e-3)
assert np.all(found <= limit * (1 + 1e-9))

# %% [markdown]
# The ascent comes to the bound from below, to four digits, and stops there. Drawn over $\beta_2$, and
# beside it the gradients of the worst case with the steps that they cause:

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left, bounds on a step against 1 − β₂: the supremum lies above the bound of the paper but at one point, and has no end where β₁² ≥ β₂. Right, gradients that grow by a constant factor, and below them the steps of Adam, which lie on the bound B_t."}}
fig = plt.figure(figsize=(8.5, 3.8))
left, right = fig.subfigures(1, 2)
ax = left.subplots()
x = np.geomspace(0.5, 1e-4, 400)
ax.loglog(x, bound(0.9, 1 - x), label="supremum")
ax.loglog(x, paper_bound(0.9, 1 - x), label="the paper's bound (max)")
ax.loglog(x, slide_bound(0.9, 1 - x), label="the slide's bound (min)")
ax.axvspan(1 - 0.9**2, 0.5, color="0.9", linewidth=0, label="unbounded, β₁² ≥ β₂")
ax.set(xlabel="1 − β₂", ylabel="largest step / η", title="β₁ = 0.9")
ax.legend()
above, below = right.subplots(2, 1, sharex=True)
k = np.arange(60)
worst = jnp.asarray((0.9 / 0.999) ** k[::-1])
above.plot(k + 1, worst, "C3.-", markersize=3)
above.set(ylabel="gradient", title="The worst case, β₁ = 0.9, β₂ = 0.999")
B = [bound(np.array(0.9), np.array(0.999), n + 1) for n in k]
below.plot(k + 1, B, color="0.75", linewidth=4, linestyle="-", label="bound $B_t$")
below.plot(k + 1, outputs(gdtx.scale_by_adam(eps=0.0), worst), "C0-", label="step / η")
below.set(xlabel="step", ylabel="length / η")
below.legend()
plt.show()

# %% [markdown]
# The supremum touches the paper's bound at one point, $\beta_2 = \beta_1$, and is above it everywhere
# else; the slide's bound is exceeded everywhere. On the right each step lies on $B_t$.
#
# And in training? There, too, steps are longer than the slide allows, where pixels are rarely on.

# %%
_, updates = jax.jit(train)(gdtx.adam(0.01), orders[0])
longest_seen = float(np.abs(updates).max() / 0.01)

# %% tags=["hide-input"]
worst = jnp.asarray((0.9 / 0.999) ** np.arange(3000.0)[::-1])
reached = float(outputs(gdtx.scale_by_adam(eps=0.0), worst)[-1])
supremum = float(bound(0.9, 0.999))
assert slide_bound(0.9, 0.999) == 1 < longest_seen < paper_bound(0.9, 0.999) < reached < supremum
assert reached > 0.97 * supremum
claim(
    35,
    f"at β₁ = 0.9, β₂ = 0.999: {slide_bound(0.9, 0.999):.3g}η printed, "
    f"{paper_bound(0.9, 0.999):.3g}η in the paper, {reached:.3g}η seen after 3,000 gradients with the "
    f"supremum {supremum:.3g}η; on digits the longest step is {longest_seen:.2g}η",
    CORRECTED,
    "the supremum is η(1 − β₁)/√((1 − β₂)(1 − β₁²/β₂)), attained by gradients that grow by β₂/β₁ "
    "each step, and infinite if β₁² ≥ β₂; the slide's min should be the paper's max, and that is "
    "right only if β₁ = 0 or β₁ = β₂",
)

# %% [markdown]
# ## Claim 36: not a signal-to-noise ratio
#
# Does $\hat m / \sqrt{\hat v}$ say how certain a gradient is? For gradients of mean $\mu$ and standard
# deviation $\sigma$, $\hat v$ estimates
# $E[g^2] = \mu^2 + \sigma^2$, so with $s = \mu/\sigma$ the fraction estimates
# $s / \sqrt{1 + s^2}$: a function of the ratio that stops at 1 (Balles & Hennig 2018). With
# `gdtx.variance` in the place of the average square it would be $s$. The two second moments
# are related exactly: where both averages have the same decay and no correction,
# $v_t = s_t + m_t^2$. So the link is exchanged, and nothing else:

# %% tags=["hide-cell"]
b = 0.99
mean_square = outputs(gdtx.chain(gdtx.square(), gdtx.ema(b)), 3 + noise)
mean, spread = outputs(gdtx.ema(b), 3 + noise), outputs(gdtx.variance(b), 3 + noise)
np.testing.assert_allclose(mean_square, spread + mean**2, rtol=1e-12)

# %%
signal_to_noise = gdtx.join(
    gdtx.divide,
    mu=gdtx.chain(gdtx.ema(0.9), gdtx.bias_correction(0.9)),
    nu=gdtx.chain(gdtx.variance(0.999), gdtx.bias_correction(0.999), gdtx.sqrt()),
)
signal_to_noise

# %%
snr = np.geomspace(0.01, 100, 17)
gradients = snr + jax.random.normal(jax.random.key(4), (25_000, 17))


def late_average(tx):
    """Over the last steps, when the start of the averages at 0 is forgotten."""
    return np.asarray(outputs(tx, gradients)[15_000:].mean(0))


by_adam, by_variance = late_average(gdtx.scale_by_adam(eps=0.0)), late_average(signal_to_noise)

# %% tags=["hide-input"] mystnb={"image": {"alt": "The fraction against the true signal-to-noise ratio, both logarithmic. With the variance below it follows the ratio up to 100; Adam's agrees while the ratio is small and stops at 1."}}
fig, ax = plt.subplots(figsize=(5.5, 3.4))
ax.loglog(snr, snr, "k:", linewidth=1, label="$s$")
ax.loglog(snr, snr / np.sqrt(1 + snr**2), "k--", linewidth=1, label=r"$s / \sqrt{1 + s^2}$")
ax.loglog(
    snr,
    by_variance,
    "C1s",
    markersize=7,
    markerfacecolor="none",
    label=r"$\hat m$ / root of the variance",
)
ax.loglog(snr, by_adam, "C0o", markersize=4, label=r"Adam: $\hat m$ / root of the mean square")
ax.set(xlabel="true signal-to-noise ratio $s$", ylabel="fraction, averaged over steps")
ax.legend()
plt.show()

# %% [markdown]
# Where noise prevails the two agree; from a ratio of about 1 on Adam's fraction (dots) stays at 1,
# whatever the ratio is, and with the variance below (squares) it follows.

# %% tags=["hide-input"]
clear = snr > 0.1
np.testing.assert_allclose(by_adam[clear], (snr / np.sqrt(1 + snr**2))[clear], rtol=0.1)
np.testing.assert_allclose(by_variance[snr > 3], snr[snr > 3], rtol=0.05)
claim(
    36,
    f"at a ratio of {snr[12]:.3g} Adam has {by_adam[12]:.3f}, the variance {by_variance[12]:.3g}",
)

# %% [markdown]
# ## Claim 37: the learning rate still has to decay
#
# Kingma & Ba: as the minimum comes near, the ratio of signal to noise falls, and steps with it. They
# do not fall to 0. Of pure noise, $\hat m$ has the standard deviation
# $\sigma \sqrt{(1 - \beta_1)/(1 + \beta_1)}$, which is 0.23 of the denominator at $\beta_1 = 0.9$,
# for ever. On $\tfrac12 h \theta^2$ with noise of standard deviation $\sigma$ in the gradient, Adam
# near the minimum is SGD with the rate $\eta/\sigma$ and ends with the risk
#
# $$\tfrac12 h E[\theta^2] \approx \tfrac12 h \cdot \frac{(\eta/\sigma) \sigma^2}{2 h} =
# \frac{\eta \sigma}{4},$$
#
# whatever the curvature.

# %%
h = jnp.array([[0.3], [1.0], [3.0]])  # three curvatures, 400 runs of each
sigma = 2.0


def risks(tx):
    """Average risk by curvature, and root mean square of the updates, at each step."""

    def step(carry, key):
        theta, state = carry
        gradient = h * theta + sigma * jax.random.normal(key, theta.shape)
        updates, state = tx.update(gradient, state, theta)
        seen = 0.5 * h[:, 0] * jnp.mean(theta**2, 1), jnp.sqrt(jnp.mean(updates**2))
        return (gdtx.apply_updates(theta, updates), state), seen

    theta = jnp.ones((3, 400))
    keys = jax.random.split(jax.random.key(5), 4000)
    return jax.lax.scan(step, (theta, tx.init(theta)), keys)[1]


etas = np.array([0.1, 0.03, 0.01, 0.1])
tx = gdtx.adam(gdtx.inverse_time_decay(0.1, 100, 1.0))
decay_rates = [1e-9, 1e-9, 1e-9, 1.0]  # the first three as good as constant
settings = {"learning_rate.init_value": etas, "learning_rate.decay_rate": decay_rates}
risk, size = gdtx.sweep(risks, tx, settings)
floors = etas[:3] * sigma / 4

# %% tags=["hide-input"] mystnb={"image": {"alt": "Risk against the step. At each of three constant rates it falls to the floor predicted, which is lower the smaller the rate, and stays there; with a rate that decays it goes on falling."}}
fig, ax = plt.subplots(figsize=(6, 3.4))
names = [f"η = {eta}" for eta in etas[:3]] + ["η = 0.1 / (1 + t / 100)"]
for name, curve in zip(names, risk.mean(2), strict=True):
    ax.loglog(1 + np.arange(len(curve)), curve, linewidth=1.2, label=name)
for at, floor in enumerate(floors):
    ax.axhline(floor, color=f"C{at}", linewidth=0.8, linestyle=":", zorder=0)
ax.plot([], [], color="0.5", linewidth=0.8, linestyle=":", label="ησ/4, the floor predicted")
ax.set(xlabel="step", ylabel="risk, mean of 1,200 runs")
ax.legend()
plt.show()

# %% tags=["hide-cell"]
late_risk, late_size = risk[:, 2000:].mean(1), size[:, 2000:].mean(1)
np.testing.assert_allclose(late_risk[:3], np.stack([floors] * 3, 1), rtol=0.1)
np.testing.assert_allclose(late_size[:3] / etas[:3], np.sqrt(0.1 / 1.9), rtol=0.05)
decayed = risk[3, -200:].mean()
assert decayed < 0.1 * floors[0]

# %% [markdown]
# Each constant rate ends on its dotted line and stays there. The decaying one starts as fast as the
# largest of them and is below all in the end.
#
# The same on digits, fairly: the best of nine learning rates for both.

# %%
rates = np.geomspace(0.003, 3.0, 9).astype(np.float32)
cosine = gdtx.cosine_decay_schedule(0.1, 500, alpha=0.0)  # down to alpha of the rate: 1 is constant
settings = {
    "learning_rate.init_value": np.tile(rates, 2),
    "learning_rate.alpha": np.repeat(np.float32([1.0, 0.0]), len(rates)),
}
losses = gdtx.sweep(final_loss, gdtx.adam(cosine), settings).reshape(2, len(rates))
best = losses.argmin(1)
constant, decaying = losses.min(1)
for name, at, found in zip(("constant", "decaying"), best, (constant, decaying), strict=True):
    print(f"{name}: best η {rates[at]:.2g}, loss {found:.3f}")

# %% tags=["hide-input"]
assert np.all((best > 0) & (best < len(rates) - 1))
assert decaying < 0.7 * constant
claim(
    37,
    f"floor {late_risk[1].mean():.2g} at η = 0.03, predicted {floors[1]:.2g}; steps stay at "
    f"{late_size[1] / etas[1]:.2f}η; η decaying from 0.1: {decayed:.1g}; digits: {constant:.2g}"
    f" at the best constant rate, {decaying:.2g} at the best decaying one",
)

# %% [markdown]
# ## Claim 38: far from the Fisher's diagonal
#
# Adam's $v$ estimates the second moment of a *batch's* gradient. With $B$ examples drawn at random,
# per-example gradients $\nabla_n$ and their mean $\nabla$,
#
# $$E[g^2] = \tfrac1B C + \big(1 - \tfrac1B\big) \nabla^2, \qquad C = \tfrac1N \sum_n \nabla_n^2,$$
#
# and $C$, with the labels of the data, is the diagonal of the so-called empirical Fisher. The Fisher
# itself has labels drawn from the model: $F = \tfrac1N \sum_n E_{y \sim p(y|x_n)} [\nabla_n(y)^2]$.
# The two agree if the model is right, and not in training (Kunstner, Balles & Hennig 2019). A network
# of 226 parameters on digits of 4 by 4 pixels is small enough for all of them exactly.

# %%
shown = 300
pixels = jnp.asarray(images[:shown], float).reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16)
target = jnp.asarray(digits.target[:shown])
keys = jax.random.split(jax.random.key(7))
weights = {
    "w1": 0.5 * jax.random.normal(keys[0], (16, 8)),
    "b1": jnp.zeros(8),
    "w2": 0.5 * jax.random.normal(keys[1], (8, 10)),
    "b2": jnp.zeros(10),
}
beginning, unravel = ravel_pytree(weights)


def network(params, x):
    return jnp.tanh(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]


def of_example(theta, x, label):
    return -jax.nn.log_softmax(network(unravel(theta), x))[label]


# %% tags=["hide-input"]
@jax.jit
def fisher_and_scores(theta):
    """The Fisher's diagonal twice, as gdtx has it and as defined, and per-example gradients."""
    matrix = kfac.fisher_matrix(network, kfac.softmax_cross_entropy)
    exact = jnp.diag(matrix(unravel(theta), (pixels, target)))
    by_label = jax.vmap(jax.grad(of_example), (None, None, 0))
    scores = jax.vmap(by_label, (None, 0, None))(theta, pixels, jnp.arange(10))
    chance = jax.nn.softmax(network(unravel(theta), pixels))
    defined = jnp.mean(jnp.sum(chance[..., None] * scores**2, 1), 0)
    return exact, defined, scores[jnp.arange(shown), target]


# %% [markdown]
# Adam is shown 4,000 batches of 32 at parameters that stay where they are, at three stages of a
# training, and its $\hat v$ is read off.

# %%
batch_size = 32
tx = gdtx.adam(0.03)
power = gdtx.chain(gdtx.square(), gdtx.ema(0.999), gdtx.bias_correction(0.999))


def mean_loss(theta):
    return jnp.mean(jax.vmap(of_example, (None, 0, 0))(theta, pixels, target))


@jax.jit
def training(theta):
    def step(carry, _):
        theta, state = carry
        loss, gradient = jax.value_and_grad(mean_loss)(theta)
        updates, state = tx.update(gradient, state)
        return (gdtx.apply_updates(theta, updates), state), (theta, loss)

    return jax.lax.scan(step, (theta, tx.init(theta)), length=1001)[1]


@jax.jit
def v_hat(gradients):
    def step(carry, chosen):
        return power.update(gradients[chosen].mean(0), carry[1]), None

    drawn = jax.random.randint(jax.random.key(8), (4000, batch_size), 0, shown)
    start = gradients[0], power.init(gradients[0])
    return jax.lax.scan(step, start, drawn)[0][0]


def spread(ratio):
    """Standard deviation of the logarithm, as a factor."""
    return float(np.exp(np.std(np.log(ratio))))


# %%
path, losses = training(beginning)
stages = {}
for steps in (0, 100, 1000):
    fisher, defined, gradients = fisher_and_scores(path[steps])
    np.testing.assert_allclose(fisher, defined, rtol=1e-9)
    v, mean = v_hat(gradients), gradients.mean(0)
    expected = (gradients**2).mean(0) / batch_size + (1 - 1 / batch_size) * mean**2
    assert np.median(np.abs(v / expected - 1)) < 0.1
    stages[f"step {steps}, loss {losses[steps]:.2g}"] = fisher, batch_size * v

# %% tags=["hide-input"] mystnb={"image": {"alt": "Adam's second moment times the batch size against the exact diagonal of the Fisher, a point for each of 226 parameters. At the start points lie about the line of equality, spread by a factor of ten; after 1,000 steps all lie a hundred times below it."}}
fig, ax = plt.subplots(figsize=(5.5, 4.2))
ratios = {}
for (name, (fisher, scaled)), marker in zip(stages.items(), "o^s", strict=True):
    ratios[name] = np.asarray(scaled / fisher)
    ax.loglog(fisher, scaled, marker, markersize=3, alpha=0.6, label=name)
    low, median, high = np.percentile(ratios[name], [5, 50, 95])
    print(f"{name}: B v / F = {median:.2g} (5 to 95%: {low:.2g} to {high:.2g})")
ends = np.array(ax.get_xlim())
ax.loglog(ends, ends, "k:", linewidth=1, label="equal")
ax.set(xlabel="diagonal of the Fisher, exact", ylabel="batch size × Adam's $\\hat v$")
ax.legend()
plt.show()

# %% [markdown]
# On the dotted line Adam's average would be the Fisher's diagonal. At the start (circles) the points
# lie about it, widely spread, because the squared mean of the gradients dominates. In the end
# (squares) they are far below: the data's labels have nearly all of the model's probability, $C$ is of
# second order in what is missing and $F$ of first. And even where $v \propto F$, the natural gradient
# divides by $F$, Adam by its root.

# %% tags=["hide-input"]
first, _, last = ratios.values()
assert spread(first) > 2
assert np.median(first) > 1 > 0.1 > last.max()
claim(
    38,
    f"Bv̂/F has the median {np.median(first):.2g} at the start (spread by a factor of "
    f"{spread(first):.2g}) and {np.median(last):.1g} after training",
)

# %% [markdown]
# ## Claim 39: ε inside the root, or outside
#
# Does it matter? The lecture's first formula has $\sqrt{v} + \epsilon$, as the paper; its algorithm has
# $\sqrt{\hat v + \epsilon}$. In gdtx they are `eps` and `eps_root`. Inside, $\epsilon$ acts as
# $\sqrt\epsilon$ does outside: $10^{-8}$ as $10^{-4}$. As
# $\sqrt{v + \epsilon^2} \leq \sqrt v + \epsilon \leq \sqrt 2 \sqrt{v + \epsilon^2}$, the square of
# the one inside is never far from the other.

# %%
forms = {
    "outside, $10^{-8}$": gdtx.scale_by_adam(eps=1e-8),
    "inside, $10^{-8}$": gdtx.scale_by_adam(eps=0.0, eps_root=1e-8),
    "inside, $10^{-16}$": gdtx.scale_by_adam(eps=0.0, eps_root=1e-16),
}
size = jnp.geomspace(1e-12, 1.0, 97)
steps = {name: outputs(tx, jnp.stack([size] * 3))[-1] for name, tx in forms.items()}

# %% tags=["hide-cell"]
outside, inside, inside_square = steps.values()
np.testing.assert_allclose(outside, size / (size + 1e-8), rtol=1e-9)
np.testing.assert_allclose(inside, size / jnp.sqrt(size**2 + 1e-8), rtol=1e-9)
assert np.all(inside_square >= outside)
assert np.all(inside_square <= 1.4143 * outside)
apart = outside / inside
at = float(size[np.argmax(apart < 1.05)])

# %% [markdown]
# In training: but for ε, Adam does not see the scale of a loss. Scale it down.

# %%
scales = np.float32([1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
scaled = gdtx.chain(gdtx.scale(1.0), gdtx.adam(0.03))
settings = {
    "0.factor": np.tile(scales, 2),
    "1.eps": np.repeat(np.float32([1e-8, 0.0]), 7),
    "1.eps_root": np.repeat(np.float32([0.0, 1e-8]), 7),
}
loss_outside, loss_inside = gdtx.sweep(final_loss, scaled, settings).reshape(2, 7)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left, the step against the size of the gradients: with ε inside the root it falls below η for gradients under 1e-4, outside for those under 1e-8. Right, the loss on digits against a factor on the loss: with ε inside training fails once the factor is below 1e-3."}}
fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.2))
for (name, u), style in zip(
    steps.items(), [{}, {}, {"color": "C3", "linestyle": ":", "linewidth": 2.4}], strict=True
):
    axes[0].loglog(size, u, **style, label=name)
axes[0].set(xlabel="size of the gradients", ylabel="step / η", title="One step")
axes[1].semilogx(scales, loss_outside, marker="o", label="outside, $10^{-8}$")
axes[1].semilogx(scales, loss_inside, marker="s", label="inside, $10^{-8}$")
axes[1].set(
    xlabel="factor on the loss", ylabel="loss (unscaled)", ylim=(0, None), title="After 500 steps"
)
for ax in axes:
    ax.legend(title="ε")
plt.show()

# %% [markdown]
# With $10^{-8}$ inside, steps shrink from gradients of $10^{-4}$ on, four orders of magnitude before
# those with $10^{-8}$ outside; the square of it, inside, lies nearly on the latter. In training that is
# nothing as the loss is, and fatal to it when the loss is small.

# %% tags=["hide-input"]
assert abs(loss_inside[0] / loss_outside[0] - 1) < 0.02
assert loss_outside[4] < 1.1 * loss_outside[0]
assert loss_inside[4] > 5 * loss_inside[0]
claim(
    39,
    f"at ε = 1e-8 steps differ by over 5% for gradients below {at:.1g}, by up to "
    f"{apart.max():.1e} times; digits: losses {loss_outside[0]:.3f} and {loss_inside[0]:.3f}, with "
    f"the loss scaled by 1e-4 {loss_outside[4]:.3f} outside and {loss_inside[4]:.2f} inside",
    CORRECTED,
    "the paper has ε outside; inside it acts as √ε, which matters where gradients are below √ε = "
    "1e-4, and ε² inside is within √2 of ε outside",
)

# %% [markdown]
# ## Claim 40: AdaMax has the infinity norm
#
# AdaMax has $u_t = \max(\beta_2 u_{t-1}, |g_t|) = \max_k \beta_2^k |g_{t-k}|$: the infinity norm of
# the gradients, those of the past discounted as Adam discounts them. It is the limit of
# $\big(\sum_k \beta_2^{pk} |g_{t-k}|^p\big)^{1/p}$ for $p \to \infty$, and that is a chain of links
# too.

# %%
gdtx.adamax(1e-3)


# %%
@gdtx.transformation
def discounted_norm(b2: gdtx.Decay, p: gdtx.Positive):
    """The p-norm of past gradients, each discounted by its age."""
    return gdtx.chain(
        gdtx.absolute(),
        gdtx.elementwise(lambda u: u**p),
        gdtx.accumulate(lambda u, a: b2**p * a + u),
        gdtx.elementwise(lambda u: u ** (1 / p)),
    )


# %% [markdown]
# Is the last of these norms AdaMax's? Noise, and the largest ratio of the two over 500 steps:

# %%
b2 = 0.99
infinity_norm = outputs(gdtx.chain(gdtx.absolute(), gdtx.running_max(b2)), noise)
p = np.array([2.0, 8.0, 32.0, 128.0])
norms = gdtx.sweep(lambda tx: outputs(tx, noise), discounted_norm(b2, 2.0), {"p": p})
above = np.max(norms / infinity_norm, axis=(1, 2))
print(
    "p-norm / AdaMax's, at most:",
    *(f"{x:.3f} (p = {n:.0f})" for n, x in zip(p, above, strict=True)),
)

# %% tags=["hide-cell"]
assert np.all(np.diff(above) < 0)
assert above[-1] < 1.05
age = np.arange(500)[:, None] - np.arange(500)
weighted = np.where(age >= 0, b2 ** np.abs(age), 0.0)[..., None] * np.abs(noise)
np.testing.assert_allclose(infinity_norm, weighted.max(1), rtol=1e-12)
mean = outputs(gdtx.chain(gdtx.ema(0.9), gdtx.bias_correction(0.9)), noise)
adamax = outputs(gdtx.scale_by_adamax(b2=b2, eps=0.0), noise)
deviation = np.abs(adamax / (mean / weighted.max(1)) - 1).max()
assert deviation < 1e-12

# %% [markdown]
# The paper adds that $|\Delta\theta| \leq \eta$ here. Almost:
# $|\hat m_t| \leq \sum_k p_k \beta_2^{-k} u_t$, which tends to
# $u_t (1 - \beta_1)/(1 - \beta_1/\beta_2)$, and gradients that shrink by $\beta_2$ each step attain it.

# %% tags=["hide-input"]
shrinking = jnp.asarray(0.999 ** np.arange(400.0))
longest = float(outputs(gdtx.scale_by_adamax(eps=0.0), shrinking)[-1])
np.testing.assert_allclose(longest, 0.1 / (1 - 0.9 / 0.999), rtol=1e-9)
claim(
    40,
    f"equal to max over k of β₂ᵏ|g| up to {deviation:.0e}; the 128-norm is at most "
    f"{above[-1] - 1:.1%} above; longest step {longest:.4g}η",
)

# %% [markdown]
# ## Claim 41: NAdam is Adam with Nesterov momentum
#
# Nesterov's momentum, with the gradient taken where one is, shows $\mu v_t + g_t$ in place of $v_t$:
# the momentum after one more such gradient. For an average that is
# $\beta_1 m_t + (1 - \beta_1) g_t$, and NAdam is Adam with this in the numerator.

# %%
gdtx.nadam(1e-3)

# %% [markdown]
# Each of its two terms has a correction, by $1 - \beta_1^{t+1}$ and $1 - \beta_1^t$. Without
# corrections the numerator is `trace(b1, nesterov=True)`, as in SGD; with them it tends to that. The
# sum of its weights is not 1 at first: the first step is $(1 + 2 \beta_1) / (1 + \beta_1)$ times
# $\eta$.

# %%
b1, b2 = 0.9, 0.99
root = gdtx.chain(gdtx.square(), gdtx.ema(b2), gdtx.bias_correction(b2), gdtx.sqrt())
lookahead = gdtx.chain(gdtx.trace(b1, nesterov=True), gdtx.scale(1 - b1))
nesterov_adam = gdtx.join(gdtx.divide, mu=lookahead, nu=root)
dozat = gdtx.join(
    gdtx.plus,
    ahead=gdtx.chain(gdtx.ema(b1), gdtx.bias_correction(b1, ahead=1), gdtx.scale(b1)),
    now=gdtx.chain(gdtx.bias_correction(b1), gdtx.scale(1 - b1)),
)

# %% tags=["hide-cell"]
nadam = outputs(gdtx.scale_by_nadam(b1, b2, eps=0.0), noise)
written_out = outputs(gdtx.join(gdtx.divide, mu=dozat, nu=root), noise)
np.testing.assert_allclose(nadam, written_out, rtol=1e-12)
difference = np.abs(nadam - outputs(nesterov_adam, noise)).max(1)
assert difference[300:].max() < 1e-12 < difference[0]
first_step = float(outputs(gdtx.scale_by_nadam(b1, b2, eps=0.0), jnp.ones(1))[0])
np.testing.assert_allclose(first_step, (1 + 2 * b1) / (1 + b1), rtol=1e-12)

# %% [markdown]
# What do the numerators remember? The weight of a gradient $k$ steps ago, long after the start:

# %%
impulse = jnp.zeros(420).at[400].set(1.0)
adam_mean = gdtx.chain(gdtx.ema(b1), gdtx.bias_correction(b1))
k = np.arange(20)
weights = {name: outputs(tx, impulse)[400:] for name, tx in [("Adam", adam_mean), ("NAdam", dozat)]}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Bars of the weight that a gradient has in the numerator, by its age. NAdam gives the newest gradient nearly twice the weight that Adam gives it, and all older ones a little less."}}
fig, ax = plt.subplots(figsize=(5.5, 3))
for (name, w), offset in zip(weights.items(), (-0.2, 0.2), strict=True):
    ax.bar(k + offset, w, width=0.4, label=name)
ax.set(xlabel="age $k$ of the gradient, in steps", ylabel="weight in the numerator", xticks=k[::2])
ax.grid(visible=False, axis="x")
ax.legend()
plt.show()

# %% [markdown]
# The newest gradient has nearly twice the weight that it has in Adam, all older ones a tenth less: that
# is Nesterov's correction, and the whole difference.

# %% tags=["hide-input"]
np.testing.assert_allclose(weights["NAdam"][1:] / weights["Adam"][1:], b1, rtol=1e-9)
np.testing.assert_allclose(weights["NAdam"][0], 1 - b1**2, rtol=1e-9)
claim(
    41,
    f"numerators differ by {difference[0]:.2g} at the first step and {difference[300:].max():.0e} "
    f"after 300; weight of the newest gradient {weights['NAdam'][0]:.2f} for Adam's "
    f"{weights['Adam'][0]:.2f}; first step {first_step:.3g}η",
)

# %% [markdown]
# ## Claim 42: AMSGrad and the adversary
#
# Reddi, Kale & Kumar (2018): on $[-1, 1]$, let the loss be $C x$ at every third step and $-x$ at the
# others, $C > 2$. The best point is $-1$. With $\beta_1 = 0$ and $\beta_2 = 1/(1 + C^2)$ the large
# gradient is divided by its own size, and two small ones move the other way at full length: Adam
# goes to $+1$, the worst point, and its regret grows by $2 (C - 2)/3$ each step for ever. AMSGrad
# divides by the largest $v$ that there was.

# %%
gdtx.amsgrad(1e-3)


# %%
@jax.jit
def play(tx, gradients):
    """The points and losses of projected descent on linear losses over [-1, 1], from 0."""

    def step(carry, gradient):
        x, state = carry
        updates, state = tx.update(gradient, state, x)
        moved = jnp.clip(gdtx.apply_updates(x, updates), -1.0, 1.0)
        return (moved, state), (x, gradient * x)

    return jax.lax.scan(step, (jnp.zeros(()), tx.init(jnp.zeros(()))), gradients)[1]


def regret(gradients, losses):
    """After each step, against the best point in hindsight, which is an end."""
    return np.cumsum(np.asarray(losses)) + np.abs(np.cumsum(gradients))


def games(gradients, peak, b1, b2):
    """Points and regrets of both, with the rates that the theorems have."""
    played = {}
    for method in (gdtx.adam, gdtx.amsgrad):
        tx = method(gdtx.inverse_power_schedule(peak, 0.5), b1, b2, eps=0.0)
        x, losses = play(gdtx.as_arrays(tx), gradients)
        played[method.__name__] = np.asarray(x), regret(gradients, losses)
    return played


# %%
turn, C = np.arange(60_000), 3.0
every_third = np.where(turn % 3 == 0, C, -1.0)
rare = np.where(turn % 101 == 0, 1010.0, -10.0)
results = {
    "3, −1, −1; β₁ = 0, β₂ = 0.1": games(every_third, 0.1, 0.0, 1 / (1 + C**2)),
    "3, −1, −1; β₁ = 0.9, β₂ = 0.999": games(every_third, 0.1, 0.9, 0.999),
    "1010, 100 times −10; β₁ = 0.9, β₂ = 0.99": games(rare, 0.5, 0.9, 0.99),
}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Three games in columns; above the point, below the regret for each step. In the first and the third Adam goes to the worst point and AMSGrad to the best; in the second the two paths lie on each other and go to the best."}}
fig, axes = plt.subplots(2, 3, figsize=(8.5, 4.4), sharex=True)
t = turn + 1
some = np.unique(np.geomspace(1, len(t), 400).astype(int)) - 1
names = {"adam": "Adam", "amsgrad": "AMSGrad"}
for (title, played), (above, below) in zip(results.items(), axes.T, strict=True):
    for name, (x, losses) in played.items():
        above.semilogx(t[some], x[some], label=names[name])
        below.loglog(t[some], (losses / t)[some], label=names[name])
    above.set_title(title.replace("; ", "\n"), size="medium")
    above.set_ylim(-1.1, 1.1)
    below.set_xlabel("step")
axes[0, 0].set_ylabel("point (best: −1)")
axes[1, 0].set_ylabel("regret / step")
axes[0, 0].legend()
plt.show()

# %% [markdown]
# Above is where the players are, below what they have lost for each step. In the first game Adam ends
# at the worst point and AMSGrad at the best. With Adam's usual $\beta_2$ and so short a period (the
# second column) nothing happens, and the two lie on each other: the average spans both kinds of
# gradients. The adversary has to be rarer than the memory $1/(1 - \beta_2)$, and for every
# $\beta_1 < \sqrt{\beta_2}$ there is one (their theorem 2). The third column is such: one gradient
# in 101, with a memory of 100 steps.

# %% tags=["hide-input"]
adversary, usual, rarer = results.values()
slope = {name: float(losses[-1] / len(t)) for name, (_, losses) in adversary.items()}
np.testing.assert_allclose(slope["adam"], 2 * (C - 2) / 3, rtol=0.01)
assert np.all(adversary["adam"][0][3000::3] > 0.999)  # after each round, the worst point
for played in (adversary, usual, rarer):
    x, losses = played["amsgrad"]
    by_root = losses[[599, 5999, 59_999]] / np.sqrt([600, 6000, 60_000])
    assert x[-1] < -0.99
    assert by_root[0] > by_root[1] > by_root[2]
assert usual["adam"][0][-1] < -0.99 < 0.99 < rarer["adam"][0][-1]
claim(
    42,
    f"regret per step {slope['adam']:.3f} of Adam, in theory {2 * (C - 2) / 3:.3f}, of AMSGrad "
    f"{slope['amsgrad']:.1g} and falling; with the usual β₂ = 0.999 both find the best point",
)
