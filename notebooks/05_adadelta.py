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
# # 5. AdaDelta
#
# AdaDelta (Zeiler 2012) replaces AdaGrad's sum by an average, so that old gradients are forgotten, and
# the learning rate by a second average, of its own squared steps. The ratio of the two roots is to
# have the units of a step over a gradient, as Newton's method has. This notebook looks at what sets
# the scale of that ratio, and finds $\epsilon$: its root is the learning rate that the method is said not to
# have.

# %%
# In a clone of gdtx: pip install -e ".[docs]"
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import gdtx
from gdtx.explore.claims import CORRECTED, claim

plt.style.use("gdtx.explore.gdtx")
gdtx.adadelta()

# %% [markdown]
# Two averages of squares, $v$ of the gradients and $d$ of the steps, and one number $\epsilon$ in two
# places. For what follows these are two numbers: as an expression of links, AdaDelta with an
# $\epsilon_d$ above and an $\epsilon_v$ below.


# %%
@gdtx.transformation
def two_epsilons(rho: gdtx.Decay, eps_d: gdtx.NonNegative, eps_v: gdtx.NonNegative):
    """AdaDelta with the two constants apart."""
    mean_square = gdtx.chain(gdtx.square(), gdtx.ema(rho))
    return gdtx.chain(
        gdtx.join(
            gdtx.divide,
            g=gdtx.identity(),
            nu=gdtx.chain(mean_square, gdtx.add(eps_v), gdtx.sqrt()),
        ),
        gdtx.feedback(gdtx.multiply, mean_square, gdtx.chain(gdtx.add(eps_d), gdtx.sqrt())),
        gdtx.scale(-1.0),
    )


two_epsilons(0.9, 1e-6, 1e-6)


# %%
def respond(tx, gradients):
    """What a transformation makes of given gradients."""
    start = tx.init(gradients[0])
    return jax.lax.scan(lambda state, g: tx.update(g, state)[::-1], start, gradients)[1]


def descend(tx, gradient, start, noise):
    """Parameters, gradients and updates of a run with this noise in the gradients."""

    def step(carry, extra):
        params, state = carry
        g = gradient(params) + extra
        updates, state = tx.update(g, state, params)
        return (gdtx.apply_updates(params, updates), state), (params, g, updates)

    return jax.lax.scan(step, (start, tx.init(start)), noise)[1]


given = jnp.asarray(np.random.default_rng(0).normal(size=(50, 3)))

# %% tags=["hide-cell"]
np.testing.assert_allclose(
    respond(two_epsilons(0.9, 1e-6, 1e-6), given), respond(gdtx.adadelta(), given), rtol=1e-6
)

# %% [markdown]
# ## The update as printed
#
# The slide's algorithm ends with $\Delta\theta_t = \sqrt{(d_{t-1} + \epsilon)/(v_t + \epsilon)}\; g_t$
# and $\theta_{t+1} = \theta_t + \Delta\theta_t$. Its formula one line above has a minus. Here is the
# algorithm word for word on $\frac12\theta^2$, and with the sign of the formula, which is that of the
# paper: $\Delta x_t = -\frac{\mathrm{RMS}[\Delta x]_{t-1}}{\mathrm{RMS}[g]_t}\, g_t$.


# %%
def as_printed(sign, steps=200, rho=0.9, eps=1e-6):
    theta, v, d, path = 1.0, 0.0, 0.0, []
    for _ in range(steps):
        path.append(theta)
        g = theta
        v = rho * v + (1 - rho) * g * g
        delta = sign * np.sqrt((d + eps) / (v + eps)) * g
        d = rho * d + (1 - rho) * delta * delta
        theta = theta + delta
    return np.array(path)


climbing, descending = as_printed(+1), as_printed(-1)
ours = descend(gdtx.adadelta(), lambda theta: theta, jnp.ones(()), jnp.zeros(200))[0]

# %% tags=["hide-input"]
np.testing.assert_allclose(ours, descending, rtol=1e-4)
assert (np.diff(climbing) > 0).all()
assert (np.diff(descending) < 0).all()
claim(
    28,
    f"as printed, 200 steps take θ from 1 to {climbing[-1]:.2f}; with a minus to {descending[-1]:.2f}, "
    "which is gdtx's",
    CORRECTED,
    "Δθ needs the minus sign that the slide's own formula has; without it the method climbs",
)

# %% [markdown]
# ## Where ε is
#
# The slide: "the paper defines $\mathrm{RMS}[x] = \sqrt{E[x^2]} + \epsilon$". The paper has
# $\sqrt{E[x^2] + \epsilon}$, and so has the slide's own update. It is no detail, since $d_0 = 0$ and the
# first step is
#
# $$|\Delta\theta_1| = \frac{\sqrt{\epsilon}}{\sqrt{(1 - \rho) g^2 + \epsilon}}\,|g|
# \approx \sqrt{\frac{\epsilon}{1 - \rho}}, \qquad \text{or outside of the root} \qquad
# \frac{\epsilon}{\sqrt{(1 - \rho) g^2} + \epsilon}\,|g| \approx \frac{\epsilon}{\sqrt{1 - \rho}}.$$
#
# On a slope of constant gradient $d$ then grows by about $(1 - \rho)\,\epsilon$ in a step, so that steps
# are $\sqrt{(1 - \rho)\,\epsilon\, t}$; or outside of the root, $(1 - \rho)\,\epsilon\, t$. In gdtx the
# two are the order of two links.


# %% tags=["hide-input"]
def with_rms(rms):
    """AdaDelta with this root of a mean square."""
    mean_square = gdtx.chain(gdtx.square(), gdtx.ema(0.9))
    return gdtx.chain(
        gdtx.join(gdtx.divide, g=gdtx.identity(), nu=gdtx.chain(mean_square, rms)),
        gdtx.feedback(gdtx.multiply, mean_square, rms),
        gdtx.scale(-1.0),
    )


# %% tags=["hide-input"]
places = {
    "inside": with_rms(gdtx.chain(gdtx.add(1e-6), gdtx.sqrt())),
    "outside": with_rms(gdtx.chain(gdtx.sqrt(), gdtx.add(1e-6))),
}
slope = jnp.ones(10_000)
moved = {name: -np.asarray(respond(tx, slope), float) for name, tx in places.items()}
np.testing.assert_allclose(
    moved["inside"], -respond(gdtx.adadelta(1.0, 0.9, 1e-6), slope), rtol=1e-6
)
np.testing.assert_allclose(moved["inside"][0], np.sqrt(1e-6 / 0.1), rtol=1e-3)
np.testing.assert_allclose(moved["outside"][0], 1e-6 / np.sqrt(0.1), rtol=1e-3)
to_one = {name: int((np.cumsum(value) > 1).argmax()) for name, value in moved.items()}
growth = {
    name: np.diff(np.log(value[[999, 9999]]))[0] / np.log(10) for name, value in moved.items()
}

first = moved["inside"][0] / moved["outside"][0]
np.testing.assert_allclose(first, 1000, rtol=1e-3)
np.testing.assert_allclose([growth["inside"], growth["outside"]], [0.5, 1.0], atol=0.05)
assert to_one["outside"] > 15 * to_one["inside"]
claim(
    29,
    f"at ε = 10⁻⁶ the first step is {first:.0f} times as long with ε inside, and a slope's first unit "
    f"of distance takes {to_one['inside']} steps against {to_one['outside']}",
    CORRECTED,
    "RMS[x] = √(E[x²] + ε): inside of the root, in the paper and in the slide's own update",
)

# %% [markdown]
# ## Is there no learning rate?
#
# Multiply the loss by $c$: gradients are $c$ times as large, $v$ is $c^2$ times as large, and the ratio
# takes it back. So the scale of the loss drops out, as from AdaGrad, RMSProp and Adam, as long as
# $\epsilon$ is small beside $v$.
#
# Measure the parameters in another unit, $\theta' = c\,\theta$: gradients are $c$ times **smaller**, and
# steps have to be $c$ times larger. Nothing in the gradients says so. By dimensions, what the method
# knows in the unit of $\theta$ is $\sqrt{\epsilon_d}$ and nothing else.
#
# So both invariances are exact, to the last bit for powers of two, **if the two constants are
# changed too**: $\epsilon_v$ with the square of the gradient's unit, $\epsilon_d$ with the square of the
# parameter's. A learning rate has to be changed just so.

# %%
curvatures = jnp.array([1.0, 10.0])


def quadratic_path(tx, loss_scale=1.0, unit=1.0, steps=100):
    """On a quadratic, with the loss and the parameters in other units; in the old unit."""

    def gradient(theta):
        return loss_scale * curvatures * theta / unit**2

    start = unit * jnp.ones(2)
    return descend(tx, gradient, start, jnp.zeros((steps, 2)))[0] / unit


c = 2.0**10
plain = quadratic_path(two_epsilons(0.9, 1e-6, 1e-6))
other_loss = quadratic_path(two_epsilons(0.9, 1e-6, 1e-6 * c**2), loss_scale=c)
other_unit = quadratic_path(two_epsilons(0.9, 1e-6 * c**2, 1e-6 / c**2), unit=c)

# %% tags=["hide-cell"]
np.testing.assert_array_equal(plain, other_loss)
np.testing.assert_array_equal(plain, other_unit)

# %% [markdown]
# With the constants left alone, here is how much is left of the way after 100 steps. Only Newton's
# method, which is given the curvatures, does not care; AdaDelta is as RMSProp is.

# %%
scales = 2.0 ** jnp.arange(-16, 17)
methods = {
    "AdaDelta": lambda c: gdtx.adadelta(),
    "RMSProp": lambda c: gdtx.rmsprop(0.01),
    "gradient descent": lambda c: gdtx.sgd(0.1),
    "Newton": lambda c: gdtx.chain(
        gdtx.elementwise(lambda g: g / (c * curvatures)), gdtx.sgd(0.03)
    ),
}


def share_left(path):
    return jnp.linalg.norm(path[-1]) / jnp.linalg.norm(path[0])


def over_scales(run):
    return np.asarray(jax.jit(jax.vmap(run))(scales))


# %%
by_loss = {
    name: over_scales(lambda c: share_left(quadratic_path(method(c), loss_scale=c)))  # noqa: B023
    for name, method in methods.items()
}
by_unit = {
    name: over_scales(lambda c: share_left(quadratic_path(method(c**-2), unit=c)))  # noqa: B023
    for name, method in methods.items()
}
is_one = int(np.argmax(scales == 1))
assert np.ptp(by_loss["AdaDelta"][is_one - 3 :]) < 0.01
assert by_loss["AdaDelta"][0] > 0.9  # where gradients are below the root of ε
assert np.ptp(by_loss["Newton"]) < 1e-5
assert np.ptp(by_unit["Newton"]) < 1e-5
half, other = by_unit["AdaDelta"][is_one], by_unit["AdaDelta"][is_one + 7]

# %% tags=["hide-cell"]
assert half < 0.7
assert other > 0.98
assert by_unit["AdaDelta"][0] > 100

# %% [markdown]
# And where noise dominates, $d$ settles. Steps have $\Delta\theta_t^2 = (d_{t-1} + \epsilon_d)\, g_t^2 /
# v_t$, and $g_t^2 / v_t$ is less than 1 on average, because $v_t$ contains $g_t$: so $d$ is a fixed
# multiple of $\epsilon_d$, whatever the size of the gradients. There AdaDelta is RMSProp with the
# learning rate $\eta = a \sqrt{\epsilon_d}$, where $a$ depends on $\rho$ alone.

# %%
noise = jnp.asarray(np.random.default_rng(1).normal(size=(4000, 100)))


def rms_of_steps(tx, scale=1.0):
    """Root mean square, once the averages have settled."""
    return jnp.sqrt(jnp.mean(respond(tx, scale * noise)[1000:] ** 2))


epsilons = 10.0 ** jnp.arange(-12, -1, 2)
steps = jax.jit(jax.vmap(lambda eps: rms_of_steps(two_epsilons(0.9, eps, 1e-12))))(epsilons)
of_larger = rms_of_steps(two_epsilons(0.9, 1e-6, 1e-12), scale=1000.0)
hidden = float(steps[3] / rms_of_steps(gdtx.scale_by_rms(0.9, eps=1e-12)) / jnp.sqrt(epsilons[3]))
np.testing.assert_allclose(steps / jnp.sqrt(epsilons), steps[3] / jnp.sqrt(epsilons[3]), rtol=1e-3)
np.testing.assert_allclose(of_larger, steps[3], rtol=1e-3)
print(f"AdaDelta on noise is RMSProp with η = {hidden:.3g} √ε")

# %% [markdown]
# A network on digits, trained by RMSProp over learning rates, and by AdaDelta over its constant, each
# at the learning rate that this constant amounts to.

# %%
images, digits = load_digits(return_X_y=True)
inputs = jnp.asarray(images / 16, jnp.float32)
labels = jax.nn.one_hot(digits, 10)


def loss(params, batch):
    pixels, label = batch
    scores = jnp.tanh(pixels @ params["in"]) @ params["out"]
    return -jnp.sum(jax.nn.log_softmax(scores) * label) / len(label)


# %%
rng = np.random.default_rng(2)
starts = {
    "in": jnp.asarray(rng.normal(size=(2, 64, 32)) / 8),
    "out": jnp.asarray(rng.normal(size=(2, 32, 10)) / 32**0.5),
}
orders = jnp.asarray(rng.integers(0, len(inputs), (2, 1000, 32)))


def train(tx, start, batches):
    """The mean loss of the last hundred mini-batches."""

    def step(carry, batch):
        params, state = carry
        value, gradients = jax.value_and_grad(loss)(params, batch)
        updates, state = tx.update(gradients, state, params)
        return (gdtx.apply_updates(params, updates), state), value

    return jnp.mean(jax.lax.scan(step, (start, tx.init(start)), batches)[1][-100:])


@jax.jit
def final_losses(tx, settings):
    """By seed and setting, one after the other: small matrices are quicker so than in a batch."""

    def each(seed):
        start, order = seed
        batches = inputs[order], labels[order]
        return jax.lax.map(lambda one: train(gdtx.replace(tx, one), start, batches), settings)

    return jax.lax.map(each, (starts, orders))


# %%
rates = 10.0 ** jnp.arange(-5, -0.9, 0.5)
by_rate = final_losses(gdtx.rmsprop(0.0, 0.9, eps=1e-12), {"learning_rate": rates})
eps_d = jnp.append((rates / hidden) ** 2, 1e-6)
eps_v = jnp.append(jnp.full(len(rates), 1e-12), 1e-6)
by_epsilon = final_losses(two_epsilons(0.9, 0.0, 0.0), {"eps_d": eps_d, "eps_v": eps_v})
by_default, by_epsilon = by_epsilon[:, -1], by_epsilon[:, :-1]

# %% tags=["hide-input"] mystnb={"image": {"alt": "What is left of the way after 100 steps for four methods. Left, against a factor of the loss: AdaDelta, RMSProp and Newton are level over nine powers of ten but for the smallest, gradient descent diverges from 2 on. Right, against a factor of the parameters: only Newton is level; AdaDelta and RMSProp go from a hundred times too far to not moving at all."}}
fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.5), sharey=True)
for ax, values in zip(axes, (by_loss, by_unit), strict=True):
    for (name, value), marker in zip(values.items(), "os^x", strict=True):
        shown = np.where(value < 1e4, np.maximum(value, 1e-4), np.nan)
        ax.loglog(scales, shown, marker=marker, markersize=3, linewidth=1.2, label=name)
    ax.set_ylim(0.5e-4, 1e3)
axes[0].set(xlabel="$c$", ylabel="share left after 100 steps", title="Loss times $c$")
axes[1].set(xlabel="$c$", title="Parameters times $c$")
axes[1].legend(loc="upper right")
plt.show()

# %% [markdown]
# On the left, level lines: the scale of the loss is taken out by all but gradient descent. On the
# right no method but Newton's is level, and AdaDelta's curve is RMSProp's, moved to the side.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Training loss of a network against the learning rate: RMSProp's curve and that of AdaDelta, at the rate that its ε amounts to, lie close together, with their least near 0.01 to 0.03. AdaDelta with ε = 1e-6 is on the same curve, at 0.003."}}
fig, ax = plt.subplots(figsize=(5.5, 3.4))
ax.loglog(rates, by_rate.mean(0), "s--", color="C1", label=r"RMSProp with $\eta$")
label = rf"AdaDelta with $\eta = {hidden:.2f} \sqrt{{\epsilon_d}}$"
ax.loglog(rates, by_epsilon.mean(0), "o-", color="C0", label=label)
ax.plot(
    hidden * 1e-3,
    by_default.mean(),
    "*",
    color="black",
    zorder=3,
    markersize=11,
    label=r"both $\epsilon = 10^{-6}$",
)
ax.set(xlabel=r"learning rate $\eta$", ylabel="training loss", title="A network on digits")
ax.legend(loc="lower left")
plt.show()

# %% [markdown]
# The curves are one up to $10^{-2}$. The star, $\epsilon = 10^{-6}$ as it is by default, is a
# choice of rate like another, and not the best.

# %% tags=["hide-input"]
best = by_epsilon.mean(0).min()
agreement = np.abs(np.log(by_epsilon.mean(0) / by_rate.mean(0)))[:5].max()
assert agreement < 0.25
assert by_epsilon.mean(0)[0] > 100 * best
assert by_default.mean() > 3 * best
assert 0 < by_epsilon.mean(0).argmin() < len(rates) - 1
claim(
    26,
    f"the loss times 2¹⁶ changes nothing; the parameters in a unit 128 times smaller, and {other:.1%} of "
    f"the way is left after 100 steps instead of {half:.1%}; on noise it is RMSProp with "
    f"η = {hidden:.2f} √ε; on digits ε = 10⁻⁶ reaches a loss of {by_default.mean():.2g}, the best ε one of "
    f"{best:.2g}",
    CORRECTED,
    "only the scale of the loss drops out, up to ε, as from RMSProp; √ε is the learning rate, in the "
    "parameters' unit, and has to be chosen like one",
)

# %% [markdown]
# ## Does the ratio estimate the inverse curvature?
#
# Newton's step on $\frac12 h \theta^2$ is $g / h$: from gradients in units of $L / \theta$ and curvatures
# in units of $L / \theta^2$ it makes steps in units of $\theta$. That much is right, and that gradient
# descent's are in units of $L/\theta$ and RMSProp's in none. The slide turns it around,
# $1 / h = \Delta\theta / g$. But that is true of **Newton's** $\Delta\theta$, and AdaDelta puts in
# its own: whatever ratio it had, it finds again. Three things make the ratio change.
#
# 1. *At first* the numerator is $\sqrt{\epsilon}$, and the denominator is $h$ times the distance from
#    the minimum: $\propto 1/h$ from equal distances, for AdaGrad's reason and at an arbitrary height.
# 2. *It grows*, $\epsilon$ by $\epsilon$, until steps overshoot. At ratio $2/h$ they jump from one side
#    of the minimum to the other. There $v$ and $d$ lag behind by their memories, one step more for $d$, and
#    with amplitude $A$, to first order, $4 A^2 - 4 (A^2)' + \epsilon = \frac{4}{h^2} (h^2 A^2 + \epsilon)$, or
#
#    $$(A^2)' = \frac{\epsilon}{4} \Big(1 - \frac{4}{h^2}\Big).$$
#
#    For $h > 2$ the amplitude **grows**, as $\frac12 \sqrt{\epsilon t}$. For $h < 2$ it vanishes, and then
#    the ratio is $\sqrt\epsilon / \sqrt\epsilon = 1$. (The 2 is $2 \sqrt{\epsilon_v / \epsilon_d}$, in the
#    units of $h$.)
# 3. *Under noise* both averages are of noise, and the ratio does not depend on $h$.

# %%
c = 2.0**-7
one_step = {
    name: [float(u * jnp.linalg.norm(jnp.diff(quadratic_path(method(u**-2), unit=u, steps=2), axis=0)))
           for u in (1.0, c)]
    for name, method in methods.items()
}  # fmt: skip
powers = {name: np.log(small / usual) / np.log(c) for name, (usual, small) in one_step.items()}
for name, power in {"gradient descent": -1, "RMSProp": 0, "AdaDelta": 0, "Newton": 1}.items():
    assert abs(powers[name] - power) < 0.01
print(
    {
        name: f"a step goes as the unit of θ to the power {round(power)}"
        for name, power in powers.items()
    }
)

# %%
h = jnp.geomspace(0.01, 1000.0, 11)
length = 20_000
run = jax.jit(lambda noise: descend(gdtx.adadelta(), lambda theta: h * theta, jnp.ones(11), noise))
thetas, gradients, updates = (np.asarray(part, float) for part in run(jnp.zeros((length, 11))))
jitter = jnp.asarray(0.1 * np.random.default_rng(3).normal(size=(length, 11)))
_, *noisy = (np.asarray(part[length // 2 :], float) for part in run(jitter))
under_noise = np.sqrt((noisy[1] ** 2).mean(0) / (noisy[0] ** 2).mean(0))

# %%
curve = np.asarray(h, float)
steep, flat = curve > 2, curve < 0.05
early = -updates[20] / gradients[20]
late = np.full(11, np.nan)  # where there is no gradient left, there is no ratio
late[steep] = -updates[-1, steep] / gradients[-1, steep]
late[flat] = -updates[2_000, flat] / gradients[2_000, flat]
share = early[-1] * curve[-1]
np.testing.assert_allclose((early * curve)[curve > 0.02], share, rtol=0.01)
np.testing.assert_allclose(late[steep], 2 / curve[steep], rtol=1e-3)
np.testing.assert_allclose(late[flat], 1.0, rtol=1e-3)
np.testing.assert_allclose(under_noise[curve < 2], hidden * 1e-3 / 0.1, rtol=0.1)

amplitudes = thetas[[9_999, 19_999]] ** 2
growth = np.diff(amplitudes, axis=0)[0] / 10_000

# %% tags=["hide-cell"]
np.testing.assert_allclose(growth[steep], 1e-6 / 4 * (1 - 4 / curve[steep] ** 2), rtol=0.01)
assert (np.abs(thetas[-1, ~steep & (curve > 0.05)]) < 1e-20).all()

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left, AdaDelta's ratio against the curvature: at step 20 parallel to 1/h and hundreds of times below it; late on the line 2/h for h above 2 and at 1 for small h; with noise level at 0.027 up to h = 10. Right, the distance from the minimum over the steps: after 400 steps it vanishes for h = 1 and grows again for h = 3.2 and 1000, as ½√(εt)."}}
fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.7))
axes[0].loglog(curve, 1 / curve, "k-", linewidth=1, label=r"$1/h$")
axes[0].loglog(curve[4:], 2 / curve[4:], "k:", linewidth=1, label=r"$2/h$")
axes[0].loglog(curve, early, "C0o", markersize=5, label="step 20")
axes[0].loglog(curve, late, "C1s", markersize=7, fillstyle="none", label="late")
axes[0].loglog(curve, under_noise, "C2^", markersize=5, label="with noise")
axes[0].set(xlabel="curvature $h$", ylabel="step over gradient", title="AdaDelta's ratio")
axes[0].legend(loc="lower left")
time = np.arange(length)
# Each narrower than those below it: they lie on each other for hundreds of steps.
for i, width in ((4, 5.0), (5, 3.0), (10, 1.2)):
    shown = np.maximum(np.abs(thetas[:, i]), 1e-5)
    axes[1].loglog(time[1:], shown[1:], "-", linewidth=width, label=rf"$h = {curve[i]:.4g}$")
predicted = 0.5 * np.sqrt(1e-6 * time[2_000:])
axes[1].loglog(time[2_000:], predicted, "k:", linewidth=2, label=r"$\frac{1}{2} \sqrt{\epsilon t}$")
axes[1].set(
    xlabel="step",
    ylabel=r"$|\theta|$",
    ylim=(1e-4, 2),
    title=r"AdaDelta on $\frac{1}{2} h \theta^2$",
)
axes[1].legend(loc="lower left")
plt.show()

# %% [markdown]
# The ratio comes to three different things, and to $1/h$ in none of them.

# %% tags=["hide-input"]
claim(
    27,
    f"at step 20 the ratio is {share:.2%} of 1/h at all curvatures; late it is 2/h for h > 2, where θ "
    f"swings by ½√(εt), and 1 for h < 2; with noise it is {under_noise[0]:.2g} from h = 0.01 to 1",
    CORRECTED,
    "Newton's step has the right units; AdaDelta's has those of √ε, and its ratio reproduces itself: "
    "√ε over the gradient at first, 2/h where steps overshoot, and the same for all h under noise",
)
