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
# # Hyperparameters and schedules
#
# Set them, read them, sweep them, draw them, learn them. Everything here is plain data: a
# transformation remembers the call that made it, and so does a schedule.

# %%
# In a clone of gdtx: pip install -e ".[docs]"
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import gdtx

plt.style.use("gdtx.explore.gdtx")

# %% [markdown]
# ## A transformation is its call
#
# It prints as its constructor, compares, and can be changed by name.

# %%
tx = gdtx.adam(1e-3)
assert tx == gdtx.adam(1e-3)
tx.replace(learning_rate=0.01)

# %% [markdown]
# Its formula is made from the expression itself, so it cannot drift from the code. In a notebook it
# is what a transformation shows.

# %%
tx

# %% [markdown]
# Chains nest, and paths reach into them: the number of the link, then the name.

# %%
tx = gdtx.chain(
    gdtx.clip_by_global_norm(1.0),
    gdtx.adamw(gdtx.warmup_cosine_decay_schedule(0.0, 3e-3, 20, 200), weight_decay=1e-2),
)
gdtx.hyperparams(tx)

# %%
tx = gdtx.replace(tx, {"0.max_norm": 0.5, "1.learning_rate.peak_value": 1e-2})
assert gdtx.hyperparams(tx)["0.max_norm"] == 0.5

# %% [markdown]
# ## Schedules
#
# Any scalar hyperparameter of any transformation takes a function of the step. gdtx's own are data,
# and they compose.

# %%
cyclic = gdtx.cyclic_schedule(0.1, 1.0, step_size=25, mode="triangular2")
schedules = {
    "warmup, cosine": gdtx.warmup_cosine_decay_schedule(0.0, 1.0, 20, 200),
    "cyclic (triangular2)": cyclic,
    "1/t": gdtx.inverse_time_decay(1.0, 20, 1.0),
    "half of it, 50 steps later": (0.5 * cyclic).shift(50),
}

# %% mystnb={"image": {"alt": "Four schedules over 220 steps: a warm-up to 1 with a cosine down to 0, triangles that halve in height, a curve 1/t, and the same triangles at half the height, 50 steps later."}}
fig, ax = plt.subplots(figsize=(7, 3.4))
gdtx.plot_schedule(schedules, 220, ax=ax)
plt.show()

# %% [markdown]
# One-cycle moves the learning rate up and down and the momentum against it (Smith & Topin 2018).

# %%
learning_rate, momentum = gdtx.one_cycle(1.0, 200)

# %% mystnb={"image": {"alt": "One cycle: the learning rate rises to 1 in 90 steps, falls until step 180 and then on to 0; the momentum falls from 0.95 to 0.85 meanwhile and rises again."}}
fig, axes = plt.subplots(1, 2, figsize=(8.5, 2.8))
gdtx.plot_schedule({"learning rate": learning_rate}, 200, ax=axes[0])
gdtx.plot_schedule({"momentum": momentum}, 200, ax=axes[1])
plt.show()

# %% [markdown]
# ## A problem to train on
#
# Noisy least squares with directions of very different curvature.

# %%
key_x, key_w, key_n = jax.random.split(jax.random.key(0), 3)
x = jax.random.normal(key_x, (256, 8)) * jnp.geomspace(1.0, 0.1, 8)
y = x @ jax.random.normal(key_w, (8,)) + 0.01 * jax.random.normal(key_n, (256,))


def loss(params, batch=(x, y)):
    inputs, targets = batch
    return jnp.mean((inputs @ params["w"] + params["b"] - targets) ** 2)


start = {"w": jnp.zeros(8), "b": jnp.zeros(())}


def train(tx, steps=200):
    """The losses of a run, in one scan."""

    def step(carry, _):
        params, state = carry
        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = tx.update(gradients, state, params)
        return (gdtx.apply_updates(params, updates), state), value

    return jax.lax.scan(step, (start, tx.init(start)), length=steps)[1]


# %% [markdown]
# ## Sweeps: many settings as one program
#
# Arrays among the arguments are leaves of the transformation, so `jax.vmap` maps over it. `sweep`
# does that for values by path.

# %%
rates = np.geomspace(1e-3, 10.0, 100)
losses = gdtx.sweep(lambda tx: train(tx, 40), gdtx.adam(0.0), {"learning_rate": rates})
best = rates[np.nanargmin(losses[:, -1])]

# %% mystnb={"image": {"alt": "Loss after 40 steps against a hundred learning rates: high below 0.05, with many dips from there to 2, the deepest marked at 0.56, and rising beyond."}}
fig, ax = plt.subplots(figsize=(5.5, 3))
ax.loglog(rates, losses[:, -1])
ax.axvline(best, linestyle=":", color="black")
ax.set(
    xlabel="learning rate",
    ylabel="loss after 40 steps",
    title=f"The best of 100 rates is {best:.2g}",
)
plt.show()

# %% tags=["hide-cell"]
one = train(gdtx.adam(float(best)), 40)
np.testing.assert_allclose(one[-1], losses[np.nanargmin(losses[:, -1]), -1], rtol=1e-3)

# %% [markdown]
# ## The same program for other values
#
# `as_arrays` turns numbers into runtime values. A jitted step that takes the transformation compiles
# once. Where a framework holds the transformation as a constant, `tunable` keeps the values in the
# state instead.

# %%
traces = []


@jax.jit
def run(tx):
    traces.append(tx)
    return train(tx)[-1]


for rate in (0.01, 0.1, 1.0):
    print(rate, run(gdtx.as_arrays(gdtx.adamw(rate))))
assert len(traces) == 1

# %%
tx = gdtx.tunable(gdtx.adam(0.1))
state = tx.init(start)
state = gdtx.set_hyperparams(state, learning_rate=0.05)
gdtx.hyperparams(tx, state)

# %% [markdown]
# ## Hypergradients: learn the learning rate
#
# Training is a function of the transformation, so it has a gradient with respect to it: for a learning
# rate, and for the parameters of a schedule. An outer Adam descends on both, on a logarithmic scale.


# %%
def final_loss(log_rates):
    first, last = jnp.exp(log_rates)
    return jnp.log(train(gdtx.sgd(gdtx.linear_schedule(first, last, 50)), steps=50)[-1])


outer = gdtx.adam(0.1)
log_rates = jnp.log(jnp.array([0.02, 0.1]))
state = outer.init(log_rates)
history = []
hypergradient = jax.jit(jax.value_and_grad(final_loss))
for _ in range(300):
    value, gradient = hypergradient(log_rates)
    history.append((float(value), *np.exp(log_rates)))
    updates, state = outer.update(gradient, state)
    log_rates = gdtx.apply_updates(log_rates, updates)
print("first and last rate:", np.exp(log_rates).round(3))
print(f"final loss: {np.exp(history[0][0]):.4f} -> {np.exp(history[-1][0]):.4f}")
assert history[-1][0] < history[0][0] - 0.5

# %% [markdown]
# ## Finding a learning rate
#
# Smith's range test raises the rate until the loss diverges. It is pure: nothing has to be reset.

# %%
indices = jax.random.randint(jax.random.key(1), (200, 32), 0, len(x))
result = gdtx.lr_range_test(
    loss, start, (x[indices], y[indices]), gdtx.sgd, min_lr=1e-4, max_lr=100.0
)

# %% mystnb={"image": {"alt": "Loss against the rising learning rate in a range test, as it is and smoothed, with four marks where rates are suggested, from 0.045 to 0.16."}}
fig, ax = plt.subplots(figsize=(6, 3.4))
gdtx.plot_lr_range_test(result, ax=ax)
plt.show()

# %% [markdown]
# ## Reading state
#
# What each buffer costs, before anything is allocated; the buffers by name; and a flat dict of scalars
# for any logger, inside `jit` as well.

# %%
gdtx.state_table(gdtx.adamw(1e-3), start)

# %%
tx = gdtx.adam(gdtx.cosine_decay_schedule(0.1, 100))
state = tx.init(start)
gradients = jax.grad(loss)(start)
updates, state = tx.update(gradients, state, start)
gdtx.find(state, "mu")

# %%
gdtx.describe(tx, state, updates=updates, params=start)
