"""Handwritten digits, learned by the methods of gdtx.

A small network learns to read scikit-learn's 8 by 8 digits, once per method, from the same first
weights and with the same mini-batches in the same order. Prints a table and draws the losses:

    python examples/digits.py
    python examples/digits.py --methods sgd adam --steps 300
    python examples/digits.py --sweep --methods adam    # how the learning rates were found
    python examples/digits.py --sweep damping --methods kfac    # the same of another number
"""

import argparse
import functools
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from digits_report import Run, draw, label, table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import gdtx
from gdtx import kfac

# The learning rates are those of 0.0001, 0.0002, 0.0005, 0.001, ..., 5 with the lowest loss on a
# fifth of the training images, held out, averaged over the second half of the run and over three
# seeds: what `--sweep` prints. Averages over the whole run chose rates that learn fast and do not
# settle (RAdam at 0.05 ended below 95 % on the test images); that is why it is the second half.
METHODS = {
    "Gradient descent": [
        gdtx.sgd(0.5),
        gdtx.sgd(0.2, momentum=0.9),
        gdtx.sgd(0.2, momentum=0.9, nesterov=True),
        gdtx.ema_sgd(2.0),
    ],
    "A step length for every weight (Rprop: full batch)": [
        gdtx.adagrad(0.2),
        gdtx.adadelta(2.0),
        gdtx.rmsprop(0.002),
        gdtx.rmsprop(0.002, centered=True),
        # Rprop's learning rate is only its first step. The sweep is of the bound: with the usual
        # 50, weights grow until the network knows the training images by heart and no others.
        gdtx.rprop(0.0001, max_step_size=0.0005),
    ],
    "Adam": [
        gdtx.adam(0.01),
        gdtx.adamw(0.01),
        gdtx.adamax(0.02),
        gdtx.amsgrad(0.01),
    ],
    "Adam, looking ahead or rectified": [
        gdtx.nadam(0.02),
        gdtx.nadamw(0.02),
        gdtx.radam(0.02),
    ],
    "Signs, lengths of layers, little memory": [
        gdtx.lion(0.0005),
        gdtx.lars(1.0),
        gdtx.lamb(0.005),
        gdtx.adafactor(0.05, min_dim_size_to_factor=64),
        gdtx.sm3(0.1),
    ],
    "Matrices": [
        gdtx.shampoo(0.1),
        gdtx.soap(0.005),
        gdtx.muon(0.005, ["*/w"], others=gdtx.adam(0.01)),
        kfac.kfac(0.05),
    ],
}
SIZES = (64, 128, 64, 10)
BATCH = 64
EVERY = 10  # steps between two looks at the test images

PyTree = Any


def load(test_size: int = 450) -> tuple[Any, Any]:
    """Training and test data, each a pair of images and labels."""
    images, labels = load_digits(return_X_y=True)
    images, labels = (images / 16).astype(np.float32), labels.astype(np.int32)
    return split(images, labels, test_size)


def split(images: Any, labels: Any, size: int) -> tuple[Any, Any]:
    """The data in two, as many of each digit in both; the second of this size."""
    parts = train_test_split(images, labels, test_size=size, stratify=labels, random_state=0)
    images, others, labels, other_labels = map(jnp.asarray, parts)
    return (images, labels), (others, other_labels)


def init_params(seed: int) -> PyTree:
    """The weights of a network with two hidden layers."""
    keys = jax.random.split(jax.random.key(seed), len(SIZES) - 1)
    return [
        {"w": jax.random.normal(key, (n, m)) / jnp.sqrt(n), "b": jnp.zeros(m)}
        for key, n, m in zip(keys, SIZES, SIZES[1:], strict=False)
    ]


def logits(params: PyTree, images: jax.Array) -> jax.Array:
    """The network."""
    *hidden, last = params
    for layer in hidden:
        images = jnp.tanh(images @ layer["w"] + layer["b"])
    return images @ last["w"] + last["b"]


def cross_entropy(params: PyTree, images: jax.Array, labels: jax.Array) -> jax.Array:
    """The loss: minus the mean logarithm of the probability given to the right digit."""
    log_probabilities = jax.nn.log_softmax(logits(params, images))
    return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1).mean()


@jax.jit
def accuracy(params: PyTree, images: jax.Array, labels: jax.Array) -> jax.Array:
    """The share of images that are read as what they are."""
    return jnp.mean(logits(params, images).argmax(axis=1) == labels)


loss_and_gradient = jax.value_and_grad(cross_entropy)
# K-FAC also asks for the curvature, which is found in the network as it is.
with_curvature = kfac.value_grad_and_curvature(logits, kfac.softmax_cross_entropy, output="exact")


# `tx` is an argument like any other. Parameters and state come first and leave first, so XLA
# can write the new ones over the old ones.
@functools.partial(jax.jit, donate_argnames=("params", "state"))
def train(params: PyTree, state: PyTree, tx: Any, data: Any, batches: jax.Array) -> Any:
    """One step for each row of `batches`, which holds the indices of the images to see."""
    images, labels = data

    def step(carry: Any, batch: jax.Array) -> Any:
        params, state = carry
        seen, more = (images[batch], labels[batch]), {}
        if tx.factory is kfac.kfac:
            loss, grads, more["curvature"] = with_curvature(params, seen)
        else:
            loss, grads = loss_and_gradient(params, *seen)
        updates, state = tx.update(grads, state, params, **more)
        return (gdtx.apply_updates(params, updates), state), loss

    (params, state), losses = jax.lax.scan(step, (params, state), batches)
    return params, state, losses


def make_batches(tx: Any, count: int, steps: int, seed: int) -> jax.Array:
    """Indices of the images of every step, `EVERY` steps to a block."""
    if tx.factory is gdtx.rprop:
        # It lives on the sign of the gradient, and in a mini-batch too many signs are chance.
        stream = np.tile(np.arange(count), steps)
    else:
        rng = np.random.default_rng(seed)
        epochs = -(-steps * BATCH // count)
        stream = np.concatenate([rng.permutation(count) for _ in range(epochs)])[: steps * BATCH]
    return jnp.asarray(stream.reshape(steps // EVERY, EVERY, -1), jnp.int32)


def fit(tx: Any, train_data: Any, test_data: Any, steps: int, seed: int, bar: tqdm) -> Run:
    """Train the network with `tx` and keep count."""
    bar.set_description(label(tx))
    params = init_params(seed)
    state = tx.init(params)
    size = sum(p.size for p in jax.tree.leaves(params))
    state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / size
    losses, accuracies, seconds = [], [], []
    for block in make_batches(tx, len(train_data[0]), steps, seed):
        start = time.perf_counter()
        params, state, block_losses = train(params, state, tx, train_data, block)
        losses.append(np.asarray(block_losses))
        seconds.append(time.perf_counter() - start)
        accuracies.append(float(accuracy(params, *test_data)))
        bar.update(EVERY)
    # The first block compiled.
    seconds_per_step = float(np.median(seconds[1:] or seconds)) / EVERY
    return Run(label(tx), np.concatenate(losses), accuracies, seconds_per_step, state_bytes)


def sweep(tx: Any, name: str, data: Any, steps: int) -> None:
    """Print the held-out loss for a range of this number, all trained at once."""
    images, held_out = split(*data, size=len(data[0]) // 5)
    batches = make_batches(tx, len(images[0]), steps, seed=0)

    def mean_loss(value: jax.Array, seed: Any) -> jax.Array:
        variant = tx.replace(**{name: value})
        params = init_params(seed)

        def block(carry: Any, rows: jax.Array) -> Any:
            params, state, _ = train(*carry, variant, images, rows)
            return (params, state), cross_entropy(params, *held_out)

        losses = jax.lax.scan(block, (params, variant.init(params)), batches)[1]
        return losses[len(losses) // 2 :].mean()

    values = jnp.float32([m * 10.0**e for e in range(-4, 1) for m in (1, 2, 5)])
    over_values = jax.vmap(mean_loss, in_axes=(0, None))
    losses = jax.jit(jax.vmap(over_values, in_axes=(None, 0)))(values, jnp.arange(3)).mean(axis=0)
    print(f"{label(tx)}, {name}:")
    for value, loss in zip(values, losses, strict=True):
        print(f"  {value:<8.4g}{loss:8.4f}{'  <- lowest' * bool(loss == jnp.nanmin(losses))}")


def parse() -> argparse.Namespace:
    """The command line."""
    names = sorted({tx.factory.__name__ for family in METHODS.values() for tx in family})
    parser = argparse.ArgumentParser(description="Handwritten digits, learned by every method.")
    parser.add_argument("--steps", type=int, default=600, help=f"a multiple of {EVERY}")
    parser.add_argument("--seed", type=int, default=0, help="of weights and mini-batches")
    parser.add_argument("--out", type=Path, default=Path("digits.png"), help="picture to write")
    parser.add_argument(
        "--methods", nargs="+", choices=names, default=names, metavar="NAME",
        help=f"of {', '.join(names)} (by default all)",
    )  # fmt: skip
    parser.add_argument("--smoke", action="store_true", help="a few steps, to see that all runs")
    parser.add_argument(
        "--sweep", nargs="?", const="", metavar="NAME",
        help="try values of this argument (by default learning_rate, max_step_size of rprop)",
    )  # fmt: skip
    options = parser.parse_args()
    if options.steps < EVERY or options.steps % EVERY:
        parser.error(f"--steps must be a multiple of {EVERY}, got {options.steps}")
    if not options.out.parent.is_dir():
        parser.error(f"--out: there is no folder {options.out.parent}")
    if options.smoke:
        options.steps = 2 * EVERY
        # Most of the time is the compiler's, for 25 programs.
        jax.config.update("jax_disable_most_optimizations", True)
    return options


def main() -> None:
    """Train, print and draw."""
    options = parse()
    chosen = [
        (family, tx)
        for family, methods in METHODS.items()
        for tx in methods
        if tx.factory.__name__ in options.methods
    ]
    train_data, test_data = load()
    if options.sweep is not None:
        for _, tx in chosen:
            usual = "max_step_size" if tx.factory is gdtx.rprop else "learning_rate"
            sweep(tx, options.sweep or usual, train_data, options.steps)
        return
    families: dict[str, list[Run]] = {}
    with tqdm(total=options.steps * len(chosen), unit="step") as bar:
        for family, tx in chosen:
            run = fit(tx, train_data, test_data, options.steps, options.seed, bar)
            families.setdefault(family, []).append(run)
    print(table([run for runs in families.values() for run in runs]))
    if "rprop" in options.methods:
        count = len(train_data[0])
        print(f"rprop sees all {count} training images at every step, the others {BATCH}.")
    draw(families, options.out)
    print(f"The losses are drawn in {options.out.resolve()}.")


if __name__ == "__main__":
    main()
