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
# # Your own transformation
#
# You know JAX, and you have an idea for an optimizer. In ten minutes it is written, printed as its
# formula, tested against NumPy, drawn beside Adam, swept and trained on real data.
#
# The idea here: momentum lags behind. The average $m_t = \beta m_{t-1} + (1 - \beta) g_t$ shows what
# the gradient was some $\beta / (1 - \beta)$ steps ago, nine for $\beta = 0.9$. The average of the
# average, $w_t$, is as far behind $m_t$ again. So $2 m_t - w_t$ should be where the gradient is now,
# and still be an average.

# %%
# In a clone of gdtx: pip install -e ".[docs]"
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import gdtx
from gdtx import explore

plt.style.use("gdtx.explore.gdtx")

# %% [markdown]
# ## Put it together from links
#
# A transformation takes the updates, which are the gradients at first, and passes others on. `chain`
# sends them through one link after the other; `join` gives the same to every branch and merges what
# they make of it. The decorator makes a factory of transformations that are data: they print, compare,
# and check their arguments by the annotations.


# %%
@gdtx.transformation
def lagless_from_links(decay: gdtx.Decay = 0.9):
    """An average of gradients that does not lag behind."""
    mean = gdtx.ema(decay)
    return gdtx.join(
        gdtx.subtract, twice=gdtx.chain(mean, gdtx.scale(2.0)), again=gdtx.chain(mean, mean)
    )


lagless_from_links()

# %% [markdown]
# That is what a notebook shows of a transformation: its formula, made from the expression itself. In
# text it is the call, and `expand` shows what it is made of:

# %%
print(lagless_from_links(0.5))
print(gdtx.expand(lagless_from_links(0.5)))

# %% [markdown]
# What does it keep? `state_table` tells, without allocating anything. The parameters may be any tree of
# arrays.

# %%
params = {"w": jnp.zeros((64, 10)), "b": jnp.zeros(10)}
gdtx.state_table(lagless_from_links(), params)

# %% [markdown]
# ## Or write a rule on one array
#
# There $m$ is kept twice, once in each branch. Where links do not say what you mean, write the rule
# yourself, for one array; makers lift it to trees and keep its buffers:
#
# | maker | the rule | keeps |
# |---|---|---|
# | `elementwise(f)` | `u -> f(u)` | nothing |
# | `accumulate(f)` | `u, a -> f(u, a)`, which is both what goes on and the next `a` | one buffer |
# | `recur(rule, **buffers)` | `u, buffers -> u, {buffers}` | several |
# | `counted(f)` | `u -> f(t)(u)` at step `t`, from 1 on | a count |
# | `with_params(f)` | `u, p -> f(u, p)` for a parameter `p` | nothing |
# | `treewise(f)` | the whole tree to the whole tree | nothing |
#
# `ema` itself is one of `accumulate`:


# %%
@gdtx.transformation
def my_ema(decay: gdtx.Decay = 0.9):
    """The exponential average."""
    return gdtx.accumulate(lambda g, m: decay * m + (1 - decay) * g)


@gdtx.transformation
def soft_sign(softness: gdtx.Positive = 0.01):
    """The sign of what is large, and what is small in proportion."""
    return gdtx.elementwise(lambda u: u / (abs(u) + softness))


gdtx.chain(my_ema(0.9), soft_sign(), gdtx.scale_by_learning_rate(0.1))

# %% [markdown]
# With two buffers it is `recur`. The rule gets the update and by name its buffers, and returns the new
# update and the new buffers:


# %%
@gdtx.transformation
def lagless(decay: gdtx.Decay = 0.9):
    """An average of gradients that does not lag behind."""

    def rule(g, m, w):
        m = decay * m + (1 - decay) * g
        w = decay * w + (1 - decay) * m
        return 2 * m - w, {"m": m, "w": w}

    return gdtx.recur(rule, m=0.0, w=0.0)


lagless()

# %%
print(gdtx.state_table(lagless(), params).bytes, "bytes, where there were",
      gdtx.state_table(lagless_from_links(), params).bytes)  # fmt: skip

# %% [markdown]
# ## A whole method
#
# Adam, with this in place of its mean. Like Adam's, these averages start at 0 and have to be corrected
# for that: of a constant gradient they show the share $1 - \beta^t (1 - t (1 - \beta))$. The rest is
# Adam's denominator as it stands.


# %%
@gdtx.transformation
def lagless_adam(
    learning_rate: gdtx.NonNegative,
    b1: gdtx.Decay = 0.9,
    b2: gdtx.Decay = 0.999,
    eps: gdtx.Positive = 1e-8,
):
    """Adam whose mean does not lag behind."""
    unbiased = gdtx.counted(lambda t: lambda u: u / (1 - b1**t * (1 - t * (1 - b1))))
    mean = gdtx.chain(lagless(b1), unbiased)
    power = gdtx.chain(gdtx.square(), gdtx.ema(b2), gdtx.bias_correction(b2))
    root = gdtx.chain(gdtx.sqrt(), gdtx.add(eps))
    return gdtx.chain(
        gdtx.join(gdtx.divide, mu=mean, nu=gdtx.chain(power, root)),
        gdtx.scale_by_learning_rate(learning_rate),
    )


tx = lagless_adam(0.1)
tx

# %% [markdown]
# It has every power of the built-in ones: any of its numbers may be a schedule or an array, it can be
# changed by name, and a mistake is told where it was made.

# %%
assert tx == lagless_adam(0.1)
print(tx.replace(b1=0.8))
print(lagless_adam(gdtx.cosine_decay_schedule(0.1, 100)))
for wrong in ({"b1": 1.5}, {"beta1": 0.9}):
    try:
        lagless_adam(0.1, **wrong)
    except (ValueError, TypeError) as error:
        print(error)

# %% [markdown]
# ## Test it
#
# Once against NumPy, in the plainest loop that there is, and once for what it was made to do: of a
# gradient that grows steadily the average is nine steps behind, and this one is not.


# %%
def run(tx, gradients):
    """What a transformation makes of gradients, one after the other."""

    def step(state, g):
        u, state = tx.update(g, state)
        return state, u

    return np.asarray(jax.lax.scan(step, tx.init(gradients[0]), jnp.asarray(gradients))[1])


def by_hand(gradients, learning_rate, b1=0.9, b2=0.999, eps=1e-8):
    m = w = v = 0.0
    for t, g in enumerate(np.asarray(gradients, np.float64), 1):
        m = b1 * m + (1 - b1) * g
        w = b1 * w + (1 - b1) * m
        v = b2 * v + (1 - b2) * g**2
        mean = (2 * m - w) / (1 - b1**t * (1 - t * (1 - b1)))
        yield -learning_rate * mean / (np.sqrt(v / (1 - b2**t)) + eps)


gradients = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
np.testing.assert_allclose(run(tx, gradients), list(by_hand(gradients, 0.1)), rtol=2e-4, atol=1e-6)
np.testing.assert_allclose(
    run(lagless(), gradients), run(lagless_from_links(), gradients), atol=1e-6
)

growing = np.arange(200, dtype=np.float32)
lag = {name: growing[-1] - run(link, growing)[-1]
       for name, link in {"ema": gdtx.ema(0.9), "lagless": lagless(0.9)}.items()}  # fmt: skip
print({name: f"{steps:.2f} steps behind" for name, steps in lag.items()})
assert abs(lag["ema"] - 9) < 0.01 > abs(lag["lagless"])

# %% [markdown]
# ## See it beside Adam
#
# `explore.trajectories` follows methods on a problem in the plane; `explore.tuned` first gives each its
# best of some learning rates, so that the comparison is fair.

# %%
methods = explore.tuned(
    {"Adam": gdtx.adam(0.0), "lagless Adam": lagless_adam(0.0)},
    explore.valley(), 60, np.geomspace(1e-3, 1, 19).round(4),
)  # fmt: skip
print(*methods.values(), sep="\n")

# %% mystnb={"image": {"alt": "Left, paths of Adam and of Adam without lag in a valley, which swing about its floor on the way to the minimum; the one without lag swings less. Right, their losses over 60 steps, in the end about ten times lower without lag."}}
explore.plot_trajectories(explore.trajectories(methods, explore.valley(), 60))
plt.show()

# %% [markdown]
# ## Train with it
#
# A transformation goes into an ordinary loop: `init` once, then `update` and `apply_updates`. Here the
# loop is a scan and jitted, for speed alone.

# %%
images, labels = load_digits(return_X_y=True)
images, labels = jnp.asarray(images / 16, jnp.float32), jnp.asarray(labels)
rows = np.random.default_rng(0).permutation(len(images))
held_out, rest = rows[:400], rows[400:]


def logits(params, x):
    return jnp.tanh(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]


def loss(params, rows):
    logs = jax.nn.log_softmax(logits(params, images[rows]))
    return -jnp.take_along_axis(logs, labels[rows][:, None], axis=1).mean()


def start(seed):
    rng = np.random.default_rng(seed)

    def normal(m, n):
        return jnp.asarray(rng.normal(size=(m, n)) / m**0.5, jnp.float32)

    return {"w1": normal(64, 32), "b1": jnp.zeros(32), "w2": normal(32, 10), "b2": jnp.zeros(10)}


starts = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(start, range(3)))
batches = jnp.asarray(np.random.default_rng(1).choice(rest, (300, 64)))


def train(tx, params):
    def step(carry, rows):
        params, state = carry
        value, gradients = jax.value_and_grad(loss)(params, rows)
        updates, state = tx.update(gradients, state, params)
        return (gdtx.apply_updates(params, updates), state), value

    (params, _), losses = jax.lax.scan(step, (params, tx.init(params)), batches)
    return losses, jnp.mean(logits(params, images[held_out]).argmax(1) == labels[held_out])


# %% [markdown]
# `gdtx.sweep` runs all learning rates as one program, since arrays among the arguments of a
# transformation are its leaves and `jax.vmap` maps over them.

# %%
rates = np.geomspace(1e-3, 0.1, 9)


def three_runs(tx):
    return jax.vmap(lambda params: train(tx, params))(starts)


results = {
    name: gdtx.sweep(three_runs, make(0.0), {"learning_rate": rates})
    for name, make in {"Adam": gdtx.adam, "lagless Adam": lagless_adam}.items()
}

# %% mystnb={"image": {"alt": "Left, loss against the learning rate: the two curves lie close together, with their least at 0.032, and the one without lag is above Adam's at larger rates. Right, loss over 300 steps at that rate, Adam's a little lower most of the time."}}
fig, (one, other) = plt.subplots(1, 2, figsize=(8.5, 3.5))
for (name, (losses, accuracy)), marker in zip(results.items(), "os", strict=True):
    last = losses[:, :, -50:].mean(axis=(1, 2))
    best = int(np.nanargmin(last))
    one.plot(rates, last, marker=marker, markersize=4, label=name)
    smooth = losses[best].mean(0).reshape(-1, 10).mean(1)
    other.plot(np.arange(10, 301, 10), smooth, marker=marker, markersize=3,
               label=f"{name} at {rates[best]:.2g}")  # fmt: skip
    spread = np.ptp(accuracy[best]) / 2
    print(f"{name:13} at {rates[best]:.2g}: loss {last[best]:.4f}, "
          f"{accuracy[best].mean():.1%} of images held out, ± {spread:.1%}")  # fmt: skip
    assert accuracy[best].mean() > 0.9
one.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="loss, last 50 steps")
other.set(yscale="log", xlabel="step", ylabel="loss, mean of three seeds")
one.set_title("By the learning rate")
other.set_title("At the best one, over the steps")
one.legend()
other.legend()
plt.show()

# %% [markdown]
# In the valley, where gradients are exact, there is less swinging to and fro; on digits there is nothing
# to gain: batches are noisy, and an average that does not lag is one that smooths less. Not every idea
# is a good one, but this is how long it takes to know.
#
# From here: `gdtx.describe` for a logger, `explore.plot_landscape` for where a training went,
# `help(gdtx)` for all makers and combinators, and CONTRIBUTING.md in the clone, if your method should be
# among gdtx's own: an expression, a row in a table, a paper.
