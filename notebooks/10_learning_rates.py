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
# # 10. Learning rates: the range test, cycles, and one cycle
#
# The lecture ends with three papers by Leslie Smith: raise the learning rate for a few steps to see
# which rates are useful (the *range test*), let it go up and down between them (*cyclical learning
# rates*), or up and down just once, with a peak that no constant rate could bear (*super-convergence*).
# Do they keep their promise, against the best constant rate that an equally long search finds? In
# kind they do: cycles come level with it and pass it, and one cycle saves about two steps of five. But
# what helps is that the rate falls in the end.

# %%
# In a clone of gdtx: pip install -e ".[docs]"
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import gdtx
from gdtx.explore.claims import CORRECTED, claim

plt.style.use("gdtx.explore.gdtx")
rng = np.random.default_rng(0)

# %% [markdown]
# ## Something to train
#
# A network of 64 hidden units learns to read handwritten digits that may be a pixel away from where
# they were: 1,000 of them at all nine places. Held out are 797 other digits, each at one place. At 32
# images a step, an epoch is 281 steps.


# %% tags=["hide-input"]
def shifted(images):
    """The images at each of the nine places that are at most one pixel away."""
    frames = np.pad(images.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    return np.stack([frames[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)])


digits, labels = load_digits(return_X_y=True)
order = rng.permutation(len(digits))
train_rows, test_rows = order[:1000], order[1000:]
images = jnp.asarray(shifted(digits[train_rows] / 16).reshape(-1, 64), jnp.float32)
numbers = jnp.asarray(np.tile(labels[train_rows], 9))
places = rng.integers(9, size=len(test_rows))
moved = shifted(digits[test_rows] / 16)[places, np.arange(len(test_rows))]
test_images, test_numbers = moved.reshape(-1, 64).astype(np.float32), labels[test_rows]


# %%
def logits(params, x):
    return jnp.tanh(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]


def loss(params, rows):
    logs = jax.nn.log_softmax(logits(params, images[rows]))
    return -jnp.take_along_axis(logs, numbers[rows, None], axis=1).mean()


def accuracy(params):
    return 100 * jnp.mean(logits(params, test_images).argmax(axis=1) == test_numbers)


# %% [markdown]
# Every setting is trained from the same six starts, on the same images in the same order. The first
# three choose, the other three judge: what is chosen owes something to luck.

# %%
SEEDS, LOOK, BATCH = 6, 50, 32  # runs of every setting, steps between two looks, images a step
CHOOSE, JUDGE = slice(3), slice(3, None)
RATES = np.geomspace(0.03, 1.5, 8)


def start(seed):
    one, two = np.random.default_rng(seed).normal(size=(2, 64, 64)).astype(np.float32) / 8
    return {"w1": one, "b1": np.zeros(64, "f4"), "w2": two[:, :10], "b2": np.zeros(10, "f4")}


starts = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(start, range(SEEDS)))
rows = rng.integers(len(images), size=(SEEDS, 900, BATCH), dtype=np.int32)


def train(tx, steps):
    """The accuracy on digits held out, every few steps: a row for each seed."""

    def step(carry, rows):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params, rows), state, params)
        return (gdtx.apply_updates(params, updates), state), None

    def until_look(carry, rows):
        carry, _ = jax.lax.scan(step, carry, rows)
        return carry, accuracy(carry[0])

    def run(params, rows):
        rows = rows[:steps].reshape(-1, LOOK, BATCH)
        return jax.lax.scan(until_look, (params, tx.init(params)), rows)[1]

    return jax.vmap(run)(starts, rows)


# %% [markdown]
# The competitors are constant rates, with momentum 0.9, eight of them over a factor of 50. All are
# trained in one program.

# %%
tx = gdtx.sgd(1.0, momentum=0.9)
constant = gdtx.sweep(partial(train, steps=900), tx, {"learning_rate": RATES})


def chosen(results):
    """Which setting is best on the seeds that choose, at every look, and what the others say."""
    results = np.asarray(results)
    best = results[:, CHOOSE].mean(axis=1).argmax(axis=0)
    return best, results[best, JUDGE, np.arange(len(best))].mean(axis=1)


best_rates, best_constant = chosen(constant)
looks = LOOK * np.arange(1, 900 // LOOK + 1)

# %% [markdown]
# ## The range test
#
# Smith (2017, arXiv:1506.01186) lets the learning rate grow during one short run. Where the loss begins
# to fall is the lower bound, where it stops falling the upper one. `gdtx.lr_range_test` raises the rate
# exponentially and stops when the loss explodes. Here the upper bound is the rate at the lowest loss
# (the suggestion `minimum` is a tenth of that), and the lower bound a tenth of it.

# %%
test = gdtx.lr_range_test(
    loss,
    jax.tree.map(lambda x: x[0], starts),
    rows[0, :400],
    lambda rate: gdtx.sgd(rate, momentum=0.9),
    min_lr=1e-3,
    smoothing=0.95,
)
upper = round(10 * test.minimum, 2)
lower = upper / 10
test

# %% [markdown]
# What was it to find? On the right is what the eight constant rates came to: eight trainings, where
# the test was less than half of one.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left, the loss of a range test against the rising learning rate: it falls up to a rate of 0.16 and then explodes. Right, the accuracy of eight constant rates after 200, 400 and 600 steps, best at rates near 0.1 to 0.16. The bounds read off the test, 0.016 and 0.16, are shaded in both."}}
fig, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.7))
gdtx.plot_lr_range_test(test, ax=left)
for steps, marker in ((200, "o"), (400, "s"), (600, "^")):
    reached = np.asarray(constant)[:, :, steps // LOOK - 1].mean(axis=1)
    right.plot(RATES, reached, marker=marker, markersize=4, label=f"after {steps} steps")
right.set(xscale="log", xlabel="constant learning rate", ylabel="accuracy, %", ylim=(0, 100))
for ax in (left, right):
    ax.axvspan(lower, upper, color="0.9", linewidth=0, zorder=0)
left.text((lower * upper) ** 0.5, 3.15, "between\nits bounds", ha="center", va="top")
right.legend(loc="lower left")
left.set_title("Range test")
right.set_title("Trainings at constant rates")
plt.show()

# %% [markdown]
# Shaded is what lies between the bounds. The best constant rates are at the upper end of it, and
# rates five times as large learn nothing.

# %% [markdown]
# ## Cycles
#
# Between these bounds the rate now goes up and down, on straight lines, a hundred steps each way.
# Nothing else is tuned.

# %%
cycles = gdtx.cyclic_schedule(lower, upper, step_size=100)
cyclic = np.asarray(train(gdtx.sgd(cycles, momentum=0.9), 600))
gdtx.sgd(cycles, momentum=0.9)

# %% [markdown]
# Do the bounds matter? The same with both of them four times as high, and four times as low:

# %%
off = {}
for factor in (4, 1 / 4):
    bounds = gdtx.cyclic_schedule(factor * lower, factor * upper, step_size=100)
    off[factor] = np.asarray(train(gdtx.sgd(bounds, momentum=0.9), 600)).mean(axis=0)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Above, the learning rate over three cycles of 200 steps. Below, accuracies: those with cycles swing, are highest where the rate is lowest, and there are level with the best constant rate or above it. With bounds four times as high or as low they stay below."}}
fig, (top, ax) = plt.subplots(2, 1, figsize=(6.5, 5), sharex=True, height_ratios=(1, 3))
gdtx.plot_schedule({"cycles": cycles}, 600, ax=top)
if legend := top.get_legend():
    legend.remove()
top.set(xlabel="", ylabel="learning rate")
for i, curve in enumerate(np.asarray(constant)[:, :, :12].mean(axis=1)):
    ax.plot(looks[:12], curve, "-", color="0.8", linewidth=1, label=None if i else "constant rates")
lines = {
    "cycles": (cyclic.mean(axis=0), "o"),
    "best constant at this step": (best_constant[:12], "s"),
    "cycles, bounds over 4": (off[1 / 4], "v"),
    "cycles, bounds times 4": (off[4], "^"),
}
for (name, (curve, marker)), style in zip(
    lines.items(), plt.rcParams["axes.prop_cycle"], strict=False
):
    ax.plot(looks[:12], curve, **style, marker=marker, markersize=4, label=name)
ax.set(xlabel="step", ylabel="accuracy, %", ylim=(0, 100))
fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3)
plt.show()

# %% [markdown]
# While the rate is high, the cycles are behind; each time it comes down, they have caught up with
# every constant rate and more, the best of which had to be searched for. With bounds too high the
# first steps undo more than later ones repair, with bounds too low nothing is wrong but the time it
# takes.

# %% tags=["hide-input"]
rate = RATES[best_rates[11]]
bottoms = [200 // LOOK - 1, 400 // LOOK - 1, 600 // LOOK - 1]
gains = cyclic[JUDGE].mean(axis=0)[bottoms] - best_constant[bottoms]
assert lower < rate < 1.8 * upper
assert np.asarray(constant)[5 * upper < RATES, :, 11].max() < 50
assert gains.mean() > 0.5
assert gains.min() > -1.5
assert max(off[4][11], off[1 / 4][11]) < cyclic.mean(axis=0)[11] - 8
claim(
    55,
    f"bounds {lower:.2g} and {upper:.2g}, best of 8 constant rates {rate:.2g}; after 600 steps "
    f"{cyclic[JUDGE, 11].mean():.1f} % by cycles, not tuned, {best_constant[11]:.1f} % by that rate",
)

# %% [markdown]
# ## One cycle
#
# *Super-convergence* (Smith & Topin 2018, arXiv:1708.07120) is the same with a single cycle for the
# whole training: up to a very large rate, down again, and on to almost zero, while momentum does the
# opposite. In the paper a network is trained in a tenth of the steps.

# %%
learning_rate, momentum = gdtx.one_cycle(1.0, 400)
gdtx.sgd(learning_rate, momentum)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two schedules over 400 steps. The learning rate rises to its peak at step 180, falls until step 360 and then on to zero; momentum falls from 0.95 to 0.85 meanwhile and rises again."}}
fig, (left, right) = plt.subplots(1, 2, figsize=(8.5, 2.6))
gdtx.plot_schedule({"learning rate": learning_rate}, 400, ax=left)
gdtx.plot_schedule({"momentum": momentum}, 400, ax=right)
for ax, name in ((left, "learning rate / its peak"), (right, "momentum")):
    if legend := ax.get_legend():
        legend.remove()
    ax.set_ylabel(name)
plt.show()

# %% [markdown]
# Which peak is best is searched for as the constant rate was: eight trainings, three seeds to choose.
# A third competitor has no cycle, only its last part: the rate falls from its peak to zero on a straight
# line, momentum stays at 0.9.

# %%
one, fall = {}, {}
for steps in (200, 400):
    tx = gdtx.sgd(*gdtx.one_cycle(1.0, steps))
    one[steps] = gdtx.sweep(partial(train, steps=steps), tx, {"learning_rate.peak_value": RATES})
    tx = gdtx.sgd(gdtx.linear_schedule(1.0, 0.0, steps), momentum=0.9)
    fall[steps] = gdtx.sweep(partial(train, steps=steps), tx, {"learning_rate.init_value": RATES})


def at_the_end(results):
    """The peak chosen and the accuracy it comes to."""
    best, reached = chosen(results)
    return best[-1], reached[-1]


def steps_of_constants(accuracy):
    """When the best constant rate for that step is first as good, between two looks."""
    i = np.argmax(best_constant >= accuracy)
    assert i > 0, "no constant rate is ever as good"
    return np.interp(accuracy, best_constant[i - 1 : i + 1], looks[i - 1 : i + 1])


# %%
speedups = {}
for steps in (200, 400):
    peak, reached = at_the_end(one[steps])
    peak_of_fall, by_fall = at_the_end(fall[steps])
    speedups[steps] = steps_of_constants(reached) / steps
    i = steps // LOOK - 1
    print(
        f"{steps} steps: one cycle {reached:.1f} % (peak {RATES[peak]:.2g}), falling rate "
        f"{by_fall:.1f} % (from {RATES[peak_of_fall]:.2g}), constant {best_constant[i]:.1f} % "
        f"(at {RATES[best_rates[i]]:.2g}); constants need {speedups[steps]:.1f} times the steps"
    )

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left, accuracy after 400 steps against the learning rate or its peak: one cycle and a falling rate are best at a peak at which a constant rate is worse than at smaller ones. Right, accuracy over the steps: cycles of 200 and of 400 steps end above the best constant rate, which takes 1.5 and 1.7 times as many steps to get there."}}
fig, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.7))
left.plot(RATES, np.asarray(one[400])[:, :, -1].mean(axis=1), marker="o", label="one cycle")
last = np.asarray(constant)[:, :, 7].mean(axis=1)
left.plot(RATES, last, marker="s", label="constant")
left.plot(RATES, np.asarray(fall[400])[:, :, -1].mean(axis=1), marker="^", label="falling to 0")
left.set(xscale="log", xlabel="learning rate, or its peak", ylabel="accuracy, %", ylim=(0, 100))
left.set_title("After 400 steps")
left.legend(loc="lower left")
for steps, line in ((400, "C0o-"), (200, "C4D:")):
    curve = np.asarray(one[steps])[at_the_end(one[steps])[0], JUDGE].mean(axis=0)
    right.plot(looks[: len(curve)], curve, line, markersize=4, label=f"one cycle of {steps} steps")
    end = steps_of_constants(curve[-1])
    right.annotate("", (end, curve[-1]), (steps, curve[-1]), arrowprops={"arrowstyle": "->"})
    right.text(steps, curve[-1] + 1.2, f"× {end / steps:.1f}", ha="center")
right.plot(
    looks,
    best_constant,
    color="C1",
    marker="s",
    linestyle=(0, (5, 1.5)),
    markersize=4,
    label="best constant at this step",
)
right.set(xlabel="step", ylabel="accuracy, %", ylim=(40, 95))
right.set_title("Over the steps, on fresh seeds")
right.legend(loc="lower right")
plt.show()

# %% [markdown]
# Each side was chosen on three seeds, and is judged on three others. The arrows show how many more steps
# the best constant rate takes to the same accuracy.

# %% [markdown]
# It is reproducible in kind. The best peak is a rate that does much worse when held constant, and one
# cycle is ahead of every constant rate. But it saves about two steps of five, and not nine of ten, and
# the cycle has little part in it: a rate that falls from the start, from as large a peak, does as well.
# What constant rates lack is the end, where the noise of the gradients dies away with the rate (see the
# first notebook, and the noisy quadratic of the eleventh). The rise is a warm-up: it makes larger peaks
# bearable, as the right end of the left picture shows, but here the best ones need none. With twelve
# rates, five momenta and longer trainings on both sides, `benchmarks/one_cycle.py` also finds that one
# cycle needs fewer steps than any constant rate, by a factor far from ten.

# %% tags=["hide-input"]
for steps in (200, 400):
    i = steps // LOOK - 1
    peak, reached = at_the_end(one[steps])
    assert reached > best_constant[i] + 1
    assert 1.2 < speedups[steps] < 4
    assert RATES[peak] > 1.5 * RATES[best_rates[i]]
    assert np.asarray(constant)[peak, JUDGE, i].mean() < best_constant[i] - 1
    assert at_the_end(fall[steps])[1] > reached - 1.5
rise = np.asarray(one[400])[:, :, -1].mean(axis=1) - np.asarray(fall[400])[:, :, -1].mean(axis=1)
assert rise[6] > 10
claim(
    56,
    f"constant rates take {speedups[200]:.1f} and {speedups[400]:.1f} times as many steps as one "
    f"cycle of 200 and of 400; after 400 steps one cycle is at {at_the_end(one[400])[1]:.1f} %, a "
    f"falling rate at {at_the_end(fall[400])[1]:.1f} %, the best constant at {best_constant[7]:.1f} %",
    CORRECTED,
    "one cycle needs fewer steps than any constant rate, though not ten times fewer, and a plain fall "
    "to zero from as large a rate needs no more: it is the fall that counts",
)
