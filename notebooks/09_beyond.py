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
# # 9. Beyond: K-FAC, large batches, Shampoo, SM3
#
# Every method so far multiplied the gradient by one number for each parameter. The last slide of the
# lecture names those that do more, or the same with less: K-FAC and Shampoo multiply by matrices,
# LARS and LAMB measure steps by the layer that takes them, and SM3 does what AdaGrad does in a
# fraction of its memory. Each is held here against the thing that it is said to approximate, which on
# small networks can be computed in full.

# %%
# In a clone of gdtx: pip install -e ".[docs]"
from itertools import pairwise

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.flatten_util import ravel_pytree
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import gdtx
from gdtx import explore, kfac
from gdtx.explore.claims import CORRECTED, HOLDS, claim

plt.style.use("gdtx.explore.gdtx")

# %% [markdown]
# ## K-FAC and the natural gradient
#
# The natural gradient $F^{-1} g$ is the direction in which the loss falls fastest for a given change
# of what the network *says*, rather than of its numbers; $F$ is the Fisher information of its
# distribution over outputs (Amari 1998). K-FAC makes two approximations to $F$ (Martens & Grosse
# 2015, [arXiv:1503.05671](https://arxiv.org/abs/1503.05671)): layers do not interact, and in a layer
# with inputs $x$ and output gradients $s$
#
# $$E[x x^\top \otimes s s^\top] \approx E[x x^\top] \otimes E[s s^\top] = A \otimes S,$$
#
# as if inputs and gradients were independent. Then one inverse of each factor is enough:

# %%
damping = 1e-4
kfac_step = gdtx.scale_by_kfac(damping, decay=0.0, split="eigen")
print(kfac_step)

# %% [markdown]
# For a linear model with squared error nothing is lost: $S$ is the same for every example. K-FAC *is*
# the natural gradient there, and one step of it solves least squares (checked in the folded cell).

# %% tags=["hide-cell"]
x, targets = np.random.default_rng(0).normal(size=(2, 50, 3)).astype(np.float32)
linear = {"w": jnp.ones((3, 3))}


@jax.jit
def both(params, batch):
    def model(params, x):
        return x @ params["w"]

    f = kfac.value_grad_and_curvature(model, kfac.squared_error, output="exact")
    _, g, curvature = f(params, batch)
    fisher = kfac.fisher_matrix(model, kfac.squared_error)(params, batch)
    exact, _ = gdtx.scale_by_natural_gradient(damping).update(g, (), params, curvature=fisher)
    step, _ = kfac_step.update(g, kfac_step.init(params), params, curvature=curvature)
    return step["w"], exact["w"]


np.testing.assert_allclose(*both(linear, (x, targets)), rtol=1e-4)

# %% [markdown]
# On a network it is an approximation. This one has 334 parameters and reads digits of 4 by 4 pixels;
# its $F$ is computed in full. Adam trains it, and along the way every method is asked for its
# direction.

# %%
images, labels = load_digits(return_X_y=True)
pooled = images.reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16) / 16
small_data = jnp.asarray(pooled - pooled.mean(0), jnp.float32)[:200], jnp.asarray(labels)[:200]


def network(params, x):
    return jnp.tanh(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]


def small_loss(params, data=small_data):
    return kfac.softmax_cross_entropy(network(params, data[0]), data[1])


def small_start(seed):
    rng = np.random.default_rng(seed)

    def normal(m, n):
        return jnp.asarray(rng.normal(size=(m, n)) / m**0.5, jnp.float32)

    return {"w1": normal(16, 12), "b1": jnp.zeros(12), "w2": normal(12, 10), "b2": jnp.zeros(10)}


adam = gdtx.adam(0.01)
moments = np.array([0, 10, 30, 60, 120])


@jax.jit
def visited(params):
    """Parameters and states at some moments of a training, and the steps taken there."""

    def step(carry, _):
        params, state = carry
        updates, new_state = adam.update(jax.grad(small_loss)(params), state, params)
        return (gdtx.apply_updates(params, updates), new_state), (params, state, updates)

    path = jax.lax.scan(step, (params, adam.init(params)), length=moments[-1] + 1)[1]
    return jax.tree.map(lambda leaf: leaf[moments], path)


# %% [markdown]
# What is a good direction $u$? One that lowers the loss for little change in what the network says.
# With a step of the best length along it, the quadratic model $g^\top u + \frac12 u^\top M u$,
# $M = F + \lambda I$, falls by $(g^\top u)^2 / (2\,u^\top M u)$. The natural gradient's
# $g^\top M^{-1} g / 2$ is the most there is, and the share of it that $u$ gets is
#
# $$\cos^2 \angle_M (u, M^{-1} g) = \frac{(g^\top u)^2}{(u^\top M u)\,(g^\top M^{-1} g)}:$$
#
# the squared cosine of the angle to the natural gradient, in the geometry of $M$. Beside K-FAC, the
# exact $F$ without what is between layers tells its two approximations apart.


# %%
@jax.jit
def geometry(params):
    """Loss, gradient, K-FAC's step and state, and the matrix M."""
    f = kfac.value_grad_and_curvature(network, kfac.softmax_cross_entropy, output="exact")
    value, g, curvature = f(params, small_data)
    fisher = kfac.fisher_matrix(network, kfac.softmax_cross_entropy)(params, small_data)
    step, state = kfac_step.update(g, kfac_step.init(params), params, curvature=curvature)
    return value, g, step, state, fisher + damping * jnp.eye(len(fisher))


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0], float)


layer = flat({name: jnp.full(p.shape, float(name[1])) for name, p in small_start(0).items()})


# %%
def shares(params, adam_step):
    """The loss, and for each method its share of the natural gradient's gain."""
    value, g, kfac_direction, _, metric = geometry(params)
    g, metric = flat(g), np.asarray(metric, float)
    blocks = np.where(layer[:, None] == layer[None, :], metric, 0)
    directions = {
        "exact blocks": np.linalg.solve(blocks, g), "K-FAC": flat(kfac_direction),
        "Adam": flat(adam_step), "gradient": g,
    }  # fmt: skip
    most = g @ np.linalg.solve(metric, g)
    gains = {name: (g @ u) ** 2 / (u @ metric @ u) / most for name, u in directions.items()}
    return float(value), gains


def entry(tree, i):
    """One of those stacked along the first axis."""
    return jax.tree.map(lambda leaf: leaf[i], tree)


runs = []
for seed in range(3):
    path, _, adam_steps = visited(small_start(seed))
    found = [shares(entry(path, i), entry(adam_steps, i)) for i in range(len(moments))]
    runs.append(jax.tree.map(lambda *values: np.array(values), *found))
losses, share = jax.tree.map(lambda *values: np.mean(values, axis=0), *runs)

# %% [markdown]
# Two pictures: the shares, mean of three seeds, as the network learns; and, ten steps into a training,
# the eigenvalues of $M^{1/2} P M^{1/2}$ for the matrix $P$ by which each method multiplies the gradient
# (`explore.preconditioner_spectrum`). The natural gradient's are all 1; how far the largest is from the
# smallest is the condition number that is left, and the largest decides which rate is stable.

# %%
params, state, _ = entry(visited(small_start(0)), 1)
_, _, _, known, metric = geometry(params)
matrices = {
    "K-FAC": -explore.preconditioner_spectrum(kfac_step, known, params, curvature=None).matrix,
    "Adam": explore.preconditioner_spectrum(adam, state, params).matrix,
    "gradient": np.eye(len(metric)),
}
values, vectors = np.linalg.eigh(np.asarray(metric, float))
root = vectors * np.sqrt(values) @ vectors.T
left = {name: np.linalg.eigvalsh(root @ P @ root)[::-1] for name, P in matrices.items()}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left, the share of the natural gradient's gain as the loss falls: exact blocks have about 0.9 throughout, K-FAC falls from 0.94 to 0.66, Adam rises from 0.27 to 0.66, the gradient has about 0.5. Right, the eigenvalues that each leaves: K-FAC's largest are 4 times the median, Adam's and the gradient's some thousand times."}}
fig, (one, other) = plt.subplots(1, 2, figsize=(8.5, 3.5))
names = ("K-FAC", "Adam", "gradient", "exact blocks")
lines = dict(zip(names, plt.rcParams["axes.prop_cycle"], strict=False))
for name in names:
    one.plot(losses, share[name], **lines[name], marker=".", label=name)
one.set(xscale="log", xlabel="training loss (it falls to the right)", ylim=(0, 1),
        ylabel="share of the natural gradient's gain", title="Directions")  # fmt: skip
one.invert_xaxis()
one.set_xticks([2, 1, 0.5, 0.2], ["2", "1", "0.5", "0.2"])
one.minorticks_off()
one.legend(loc="lower right")
other.axhline(1, color="0.5", linewidth=0.8, label="natural gradient")
for name, values in left.items():
    other.plot(values / np.median(values), **lines[name], label=name)
other.set(
    yscale="log",
    xlabel="rank",
    ylabel="eigenvalue of $PM$ / median",
    title="Eigenvalues, after 10 steps",
)
other.legend()
plt.show()

# %% [markdown]
# At first K-FAC's direction has nearly all of the natural gradient's gain, Adam's and the gradient's
# less than half. Then it falls behind the exact blocks, which keep theirs: little is lost by leaving out
# what is between layers. What is lost at the end is lost by $A \otimes S$: the images of which a trained
# network is not sure have the large $s$, and inputs of their own. Adam, which adapted to where it went,
# has come as near as K-FAC by then. On the right, K-FAC leaves no large eigenvalue, so a large rate is
# stable; of the small ones it leaves more than the two others.

# %%
at_first, at_last = ({name: values[i] for name, values in share.items()} for i in (0, -1))
for values in (at_first, at_last):
    print({name: f"{value:.0%}" for name, value in values.items()})
largest = {name: values[0] / np.median(values) for name, values in left.items()}
print({name: f"largest over median {value:.3g}" for name, value in largest.items()})

# %% tags=["hide-input"]
every = [run[1] for run in runs]
assert all(run["K-FAC"][0] > 0.9 for run in every)  # each of the seeds
assert all(run["K-FAC"][0] > run[other][0] + 0.2 for run in every for other in ("Adam", "gradient"))
assert all(run["exact blocks"][-1] > run["K-FAC"][-1] + 0.15 for run in every)
assert all(run["K-FAC"][-1] < 0.75 for run in every)
assert largest["K-FAC"] < 10 < 100 < min(largest["gradient"], largest["Adam"])
claim(
    49,
    f"share of the natural gradient's gain: K-FAC {at_first['K-FAC']:.0%}, Adam "
    f"{at_first['Adam']:.0%}, gradient {at_first['gradient']:.0%} at first; K-FAC "
    f"{at_last['K-FAC']:.0%}, exact blocks {at_last['exact blocks']:.0%} once fitted",
    CORRECTED,
    "closely at first, less as the network fits: what is then lost is lost by taking inputs and "
    "gradients of a layer as independent",
)

# %% [markdown]
# ## Large batches: LARS and LAMB
#
# With a batch $k$ times as large there are $k$ times fewer steps for the same images, so each has to
# go further. By the linear rule the rate becomes $k$ times as large (Goyal et al. 2017,
# [arXiv:1706.02677](https://arxiv.org/abs/1706.02677)), which works until steps are too long for the
# curvature of some layer. LARS and LAMB make the step of every layer a share of the length of its
# weights (You et al. 2017, [arXiv:1708.03888](https://arxiv.org/abs/1708.03888), and 2020,
# [arXiv:1904.00962](https://arxiv.org/abs/1904.00962)): LARS is scaled by $k$, LAMB by $\sqrt k$.

# %%
gdtx.lamb(0.01, weight_decay=0.1)

# %% [markdown]
# The ratio of norms is one link. LAMB without it is AdamW; with the raw gradient in Adam's place it is
# nearly LARS:

# %%
print(gdtx.expand(gdtx.lamb(0.01, weight_decay=0.1)))
print(gdtx.expand(gdtx.lars(0.1)))

# %% [markdown]
# The test: try many rates at batches of 20, and then at batches of 500, with 25 times fewer steps. Two
# things can be read off. How much larger has the largest rate become that still trains, 25 times? And
# what is the accuracy where the rule, linear or root, carries the best rate of batches of 20, beside the
# best there is? All see 15 epochs of 1,000 digits, with a warm-up over a tenth of the steps and a cosine
# decay; three seeds each.

# %% tags=["hide-input"]
split = train_test_split(
    (images / 16).astype(np.float32), labels, train_size=1000, stratify=labels, random_state=0
)
train_x, test_x, train_y, test_y = map(jnp.asarray, split)
SIZES = (64, 48, 48, 10)


def logits(params, x):
    *hidden, last = params
    for layer in hidden:
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    return x @ last["w"] + last["b"]


def loss(params, rows):
    logs = jax.nn.log_softmax(logits(params, train_x[rows]))
    return -jnp.take_along_axis(logs, train_y[rows][:, None], axis=1).mean()


def start(seed):
    rng = np.random.default_rng(seed)
    return [
        {"w": jnp.asarray(rng.normal(size=(m, n)) / m**0.5, jnp.float32), "b": jnp.zeros(n)}
        for m, n in pairwise(SIZES)
    ]


def batches(seed, batch, epochs=15):
    """The rows of each step."""
    rng = np.random.default_rng(100 + seed)
    order = [rng.permutation(len(train_x)) for _ in range(epochs)]
    return jnp.asarray(np.concatenate(order).reshape(-1, batch))


# %% [markdown]
# All four are trained in one program: each has a copy of the network, the copies are one tree of
# parameters, and `gdtx.partition` gives every method its own.

# %%
matrices_only = ["**/w"]  # biases have no ratio
methods = {
    "SGD": lambda rate: gdtx.sgd(rate, momentum=0.9),
    "LARS": lambda rate: gdtx.lars(rate, trust_coefficient=0.01, trust_mask=matrices_only),
    "Adam": gdtx.adam,
    "LAMB": lambda rate: gdtx.lamb(rate, trust_mask=matrices_only),
}
middle = {"SGD": 0.07, "LARS": 0.3, "Adam": 0.01, "LAMB": 0.01}  # of the rates tried


def train(rates, params, rows):
    """The accuracy on the images held out, of every method at its rate."""
    schedules = {
        name: gdtx.warmup_cosine_decay_schedule(0.0, rate, len(rows) // 10, len(rows))
        for name, rate in rates.items()
    }
    tx = gdtx.partition(
        {name: make(schedules[name]) for name, make in methods.items()},
        [(f"{name}/**", name) for name in methods],
    )

    def each(f, copies):
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *copies.values())
        results = jax.vmap(f)(stacked)
        return {name: entry(results, i) for i, name in enumerate(copies)}

    def step(carry, rows):
        copies, state = carry
        gradients = each(lambda params: jax.grad(loss)(params, rows), copies)
        updates, state = tx.update(gradients, state, copies)
        return (gdtx.apply_updates(copies, updates), state), None

    copies = dict.fromkeys(methods, params)
    (copies, _), _ = jax.lax.scan(step, (copies, tx.init(copies)), rows)
    return each(lambda params: jnp.mean(logits(params, test_x).argmax(1) == test_y), copies)


# %%
SMALL, LARGE = 20, 500
starts = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(start, range(3)))
tried, found = {}, {}
for batch, powers in ((SMALL, np.arange(-1, 5)), (LARGE, np.arange(0, 8))):
    tried[batch] = {name: rate * 5.0 ** (powers / 2) for name, rate in middle.items()}
    rows = jnp.stack([batches(seed, batch) for seed in range(3)])
    seeds = jax.vmap(train, in_axes=(None, 0, 0))
    found[batch] = jax.jit(jax.vmap(seeds, in_axes=(0, None, None)))(tried[batch], starts, rows)


# %%
def edge(rates, scores):
    """The rate beyond which less than half is read right."""
    last = np.flatnonzero(scores >= 0.5)[-1]
    around = slice(last, last + 2)
    return np.exp(np.interp(-0.5, -scores[around], np.log(rates[around])))


by_rule, scaled, growth, tuned = {}, {}, {}, {}
for name in methods:
    small, large = (np.asarray(found[batch][name]).mean(1) for batch in (SMALL, LARGE))
    best, rates = int(small.argmax()), tried[LARGE][name]
    assert 0 < best < len(small) - 1  # not at the edge of those tried
    for rule, power in (("root", 0.5), ("linear", 1.0)):
        by_rule[name, rule] = tried[SMALL][name][best] * (LARGE / SMALL) ** power
        scaled[name, rule] = large[np.abs(np.log(rates / by_rule[name, rule])).argmin()]
    growth[name] = edge(rates, large) / edge(tried[SMALL][name], small)
    tuned[name] = large.max()

# %% tags=["hide-input"] mystnb={"image": {"alt": "Accuracy against the learning rate for SGD, LARS, Adam and LAMB, with batches of 20 and of 500. With large batches the rates that train reach further to the right, least for Adam and most for LAMB. The rate by the root rule is among them for all four."}}
fig, axes = plt.subplots(2, 2, figsize=(8, 5.8), sharey=True)
for ax, name in zip(axes.flat, methods, strict=True):
    for rule, style in (("root", "-."), ("linear", ":")):
        ax.axvline(
            by_rule[name, rule], color="0.4", linewidth=1, linestyle=style, label=f"{rule} rule"
        )
    for batch, marker in ((SMALL, "o"), (LARGE, "s")):
        scores = 100 * np.asarray(found[batch][name])
        ax.errorbar(tried[batch][name], scores.mean(1), np.ptp(scores, axis=1) / 2,
                    marker=marker, markersize=3.5, label=f"batches of {batch}")  # fmt: skip
    ax.set(xscale="log", xlabel="learning rate", ylim=(0, 100), title=name)
for ax in axes[:, 0]:
    ax.set_ylabel("accuracy, %")
fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=4)
plt.show()

# %% [markdown]
# Accuracies (mean and range of three seeds) fall off a cliff where rates become too large. From batches
# of 20 to those of 500 the cliff moves to the right, but nowhere by the factor of 25 that the linear rule
# asks for. At the rate by the root rule (dash-dotted) all four still train.

# %%
print("at batch 500    linear rule  root rule  tuned   largest rate that trains")
for name in methods:
    print(f"{name:15} {scaled[name, 'linear']:11.1%} {scaled[name, 'root']:10.1%} "
          f"{tuned[name]:6.1%}  {growth[name]:7.1f} times that of batch 20")  # fmt: skip

# %% tags=["hide-input"]
assert max(growth.values()) < 0.7 * LARGE / SMALL  # none as much as the batch
assert growth["LAMB"] > 1.5 * max(growth[name] for name in methods if name != "LAMB")
assert scaled["SGD", "linear"] < 0.5
root_rule = {name: scaled[name, "root"] for name in methods}
assert min(root_rule.values()) > 0.85
assert np.ptp(list(tuned.values())) < 0.03
claim(
    51,
    f"batch times {LARGE // SMALL}: the largest rate that trains grows "
    + ", ".join(f"{name} {growth[name]:.2g}" for name in methods)
    + " times; by the root rule "
    + ", ".join(f"{name} {root_rule[name]:.0%}" for name in methods),
    CORRECTED,
    "with the rate times √k and not k, and SGD and Adam then keep it up as well; here the ratio of "
    "norms widens the range of LAMB's rates, and gains no accuracy",
)

# %% [markdown]
# On this task the rule decides, and not the ratio of norms. The largest rate that trains does not grow
# with the batch as fast as the batch does, for any of the four, so doubling ends sooner or later for
# each; LAMB's range of rates widens the most. By the root rule all four go on, and with the rate tuned
# at the batch they are alike. What linear scaling makes of LARS is luck: it depends on which of several
# rates that are equally good at batches of 20 is called the best. This is a small network on small
# data, and says nothing of AlexNet or BERT; but with everything tuned, Nado et al. 2021
# ([arXiv:2102.06356](https://arxiv.org/abs/2102.06356)) found for large ones too that momentum and Adam
# suffice at LARS's and LAMB's batch sizes.

# %% [markdown]
# ## Shampoo and the full matrix
#
# AdaGrad as its regret bound has it divides by the root of the whole matrix $G = \sum_t g_t g_t^\top$;
# what is used is the diagonal. Shampoo keeps, for a gradient that is a matrix $G_t$, two small factors
# (Gupta et al. 2018, [arXiv:1802.09568](https://arxiv.org/abs/1802.09568)):

# %%
eps = 1e-6
shampoo = gdtx.shampoo(1.0, b1=0.0, b2=1.0, eps=eps, roots=gdtx.Roots(every=1))
shampoo

# %% [markdown]
# As one matrix on the flattened gradient that is $(L \otimes R)^{-1/4}$. The paper proves that it
# errs on one side: with gradients of rank $r$ at most,
# $G^{1/2} \preceq \sqrt r\; L^{1/4} \otimes R^{1/4}$. How near is it? Take the 16 by 12 weights of the
# network above, for 300 gradients of batches of 20, and let every method say by which matrix it
# multiplies.

# %%
rows = np.random.default_rng(0).integers(0, 200, (300, 20))


@jax.jit
def gradients_seen(params):
    """Those of the first layer while Adam trains."""

    def step(carry, rows):
        params, state = carry
        g = jax.grad(small_loss)(params, (small_data[0][rows], small_data[1][rows]))
        updates, state = adam.update(g, state, params)
        return (gdtx.apply_updates(params, updates), state), g["w1"]

    return jax.lax.scan(step, (params, adam.init(params)), jnp.asarray(rows))[1]


def multiplied_by(tx, gradients):
    """The matrix of a method that has seen these gradients."""
    state, _ = jax.lax.scan(
        lambda state, g: (tx.update(g, state)[1], None), tx.init(gradients[0]), gradients
    )
    return explore.preconditioner_spectrum(tx, state, gradients[0]).matrix.astype(float)


seen = gradients_seen(small_start(0))
matrices = {
    "Shampoo": multiplied_by(shampoo, seen),
    "diagonal": multiplied_by(gdtx.adagrad(1.0, 0.0, eps), seen),
}

# %% [markdown]
# These stand for $G^{-1/2}$. Distances between the roots themselves, up to a factor that the learning
# rate absorbs: $\min_c \|c X - G^{1/2}\| / \|G^{1/2}\|$. Two more for comparison: no preconditioner,
# and Shampoo with its exponents doubled, $L^{1/2} \otimes R^{1/2}$, which Morwani et al. 2024
# ([arXiv:2406.17748](https://arxiv.org/abs/2406.17748)) argue is nearer to the best Kronecker product.

# %%
G = np.einsum("tij,tkl->ijkl", *[np.asarray(seen, float)] * 2, optimize=True)
L, R = np.einsum("ijkj->ik", G), np.einsum("ijil->jl", G)


def power(matrix, exponent):
    values, vectors = np.linalg.eigh(matrix)
    return vectors * (np.maximum(values, 0) + eps) ** exponent @ vectors.T


target = power(G.reshape(192, 192), 0.5)
roots = {name: np.linalg.inv(P) for name, P in matrices.items()}
roots["exponents doubled"] = np.kron(power(L, 0.5), power(R, 0.5))
roots["none"] = np.eye(len(target))


def distance(other):
    cosine = np.sum(other * target) / np.linalg.norm(other) / np.linalg.norm(target)
    return np.sqrt(1 - cosine**2)


distances = {name: distance(X) for name, X in roots.items()}
slack = np.linalg.eigvalsh(np.sqrt(12) * roots["Shampoo"] - target)

# %% [markdown]
# The first 60 rows and columns of the 192: the weights of five pixels, twelve of each.

# %% tags=["hide-input"] mystnb={"image": {"alt": "The sizes of the entries of four matrices. The root of the full matrix has blocks and bands off its diagonal. Shampoo and Shampoo with exponents doubled have the blocks and bands more evenly; the diagonal has none."}}
fig, axes = plt.subplots(2, 2, figsize=(6.4, 6), sharex=True, sharey=True)
shown = {"full matrix": target, **{name: roots[name] for name in list(roots)[:3]}}
for ax, (name, X) in zip(axes.flat, shown.items(), strict=True):
    part = np.abs(X[:60, :60]) / np.abs(X).max()
    picture = ax.imshow(np.log10(part + 1e-9), vmin=-2.5, vmax=0)
    far = f"distance {distances[name]:.2f}" if name in distances else "$G^{1/2}$"
    ax.set_title(f"{name[0].upper()}{name[1:]}, {far}")
    ax.set(xlabel="weight", ylabel="weight", xticks=range(0, 61, 12), yticks=range(0, 61, 12))
    ax.grid(visible=False)
    ax.label_outer()
fig.colorbar(picture, ax=axes, label="$\\log_{10}$ of size / largest", shrink=0.7)
plt.show()

# %% [markdown]
# Shampoo sees what the diagonal cannot, the blocks and the bands off the diagonal, and is closer by
# that. It is no close approximation: all blocks of a Kronecker product are alike, those of the full
# matrix are not. It is a bound from above, and with the exponents doubled it would be nearer.

# %%
print({name: f"{value:.2f}" for name, value in distances.items()})
print(f"eigenvalues of the bound minus the root: {slack[0]:.3g} to {slack[-1]:.3g}")

# %% tags=["hide-input"]
np.testing.assert_allclose(
    matrices["Shampoo"], np.kron(power(L, -0.25), power(R, -0.25)), rtol=1e-2, atol=1e-2
)
assert slack[0] > -1e-3 * slack[-1]
assert distances["Shampoo"] + 0.05 < distances["diagonal"] < distances["none"]
assert distances["exponents doubled"] + 0.03 < distances["Shampoo"]
claim(
    52,
    f"distance from the root of the full matrix, up to scale: Shampoo {distances['Shampoo']:.2f}, "
    f"diagonal {distances['diagonal']:.2f}, none {distances['none']:.2f}",
    HOLDS,
)

# %% [markdown]
# ## SM3: AdaGrad's accumulators, bounded in little memory
#
# AdaGrad keeps one sum of squares for each weight. SM3 (Anil et al. 2019,
# [arXiv:1901.11150](https://arxiv.org/abs/1901.11150)) keeps one number for each row and one for each
# column of a matrix, and takes the smaller of the two where they cross:

# %%
sm3 = gdtx.sm3(0.1, momentum=None)
sm3

# %% [markdown]
# As an expression the difference is one link, `running_cover()` where AdaGrad has `running_sum()`:

# %%
print(gdtx.expand(gdtx.scale_by_sm3(), depth=None))

# %% [markdown]
# Its numbers are never below AdaGrad's sums, and equal to them for biases. Here are both after two
# epochs of the same gradients. How much larger they are tells how much shorter SM3's steps are. (Left
# out are the weights of pixels that are never lit, whose gradients are 0.)


# %%
@jax.jit
def accumulators(params):
    """AdaGrad's and SM3's, of the gradients that AdaGrad meets."""
    tx, kept, bound = gdtx.adagrad(0.1), gdtx.running_sum(), gdtx.running_cover()

    def step(carry, rows):
        params, state, a, b = carry
        g = jax.grad(loss)(params, rows)
        updates, state = tx.update(g, state, params)
        squares = jax.tree.map(jnp.square, g)
        total, a = kept.update(squares, a)
        cover, b = bound.update(squares, b)
        return (gdtx.apply_updates(params, updates), state, a, b), (total, cover)

    carry = params, tx.init(params), kept.init(params), bound.init(params)
    _, both = jax.lax.scan(step, carry, batches(0, 20, epochs=2))
    return jax.tree.map(lambda leaf: leaf[-1], both)


sums, covers = accumulators(start(0))
times_larger = jax.tree.map(lambda s, c: np.asarray(c / s)[np.asarray(s) > 0], sums, covers)
of_matrices = np.concatenate([layer["w"].ravel() for layer in times_larger])
of_biases = np.concatenate([layer["b"] for layer in times_larger])

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left, how the effective learning rates of AdaGrad and SM3 are distributed: SM3's are the lower ones and closer together. Right, a histogram of AdaGrad's step over SM3's, from 1 to 20 with its peak at 2."}}
rates = {
    "AdaGrad": jax.tree.map(lambda s: 0.1 / jnp.sqrt(s), [layer["w"] for layer in sums]),
    "SM3": jax.tree.map(lambda s: 0.1 / jnp.sqrt(s), [layer["w"] for layer in covers]),
}
lit = {
    name: [np.asarray(w)[np.asarray(w) < np.inf] for w in layers] for name, layers in rates.items()
}
fig, (one, other) = plt.subplots(1, 2, figsize=(8.5, 3.2))
explore.plot_effective_learning_rates(lit, ax=one, bins=40)
one.set_title("Rate of each weight, after two epochs")
other.hist(np.sqrt(of_matrices), bins=np.geomspace(1, 30, 40))
other.set(
    xscale="log",
    xlabel="AdaGrad's step / SM3's",
    ylabel="weights",
    title="By how much SM3's are shorter",
)
plt.show()

# %% [markdown]
# SM3's rates are the lower ones (left), by a factor of about 2 for most weights and seldom more than 5
# (right), because the smaller of two sums over a whole row and column is not much above the weight's own.

# %%
print(f"of matrices: {of_matrices.min():.3g} to {of_matrices.max():.3g} times, median "
      f"{np.median(of_matrices):.3g}; of biases {of_biases.min():.3g} to {of_biases.max():.3g}")  # fmt: skip

# %% [markdown]
# And the memory, of a layer of 4,096 by 4,096 weights with its bias; nothing is allocated for this
# table. With momentum, which the paper uses and which is gdtx's default, there is a buffer as large as
# the weights again: what is sub-linear is the part that AdaGrad is.

# %%
large = {"w": jax.ShapeDtypeStruct((4096, 4096), jnp.float32),
         "b": jax.ShapeDtypeStruct((4096,), jnp.float32)}  # fmt: skip
size = {
    name: gdtx.state_table(tx, large).bytes
    for name, tx in {
        "AdaGrad": gdtx.adagrad(0.1), "SM3": sm3, "SM3, momentum": gdtx.sm3(0.1),
        "Adam": gdtx.adam(0.1),
    }.items()
}  # fmt: skip
for name, value in size.items():
    print(f"{name:14} {value:>12,} bytes")
gdtx.state_table(sm3, large)

# %% tags=["hide-input"]
assert np.mean(np.sqrt(of_matrices) > 5) < 0.1
assert of_matrices.min() > 1 - 1e-5
np.testing.assert_allclose(of_biases, 1, rtol=1e-5)
assert size["SM3"] == 4 * (4096 + 4096 + 4096)
assert size["AdaGrad"] == 4 * (4096 * 4096 + 4096)
claim(
    53,
    f"accumulators {of_matrices.min():.2g} to {of_matrices.max():.2g} times AdaGrad's (median "
    f"{np.median(of_matrices):.2g}); {size['SM3']:,} bytes where AdaGrad has {size['AdaGrad']:,}",
    HOLDS,
)
