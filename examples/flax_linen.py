"""Handwritten digits with flax linen: hyperparameters in the state of a `TrainState`.

    python examples/flax_linen.py
    python examples/flax_linen.py --epochs 60 --patience 3

A `TrainState` holds its transformation as a constant of the compiled step. `gdtx.tunable` keeps the
hyperparameters in the state instead, and `gdtx.set_hyperparams` sets them there, found anywhere in
the `TrainState`: here a smaller learning rate whenever validation has stopped improving, and the
step is compiled once.
"""

import argparse
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import gdtx

BATCH = 64


def load() -> Any:
    """Images and labels to learn from, and others to test on: images, images, labels, labels."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    return train_test_split(images, labels, test_size=450, stratify=labels, random_state=0)


class Network(nn.Module):
    """Two convolutions and a linear layer."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.reshape(-1, 8, 8, 1)
        for channels in (16, 32):
            x = nn.relu(nn.Conv(channels, (3, 3), strides=2)(x))
        return nn.Dense(10)(x.reshape(len(x), -1))


def loss(apply: Any, params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Minus the mean logarithm of the probability given to the right digit."""
    log_probabilities = jax.nn.log_softmax(apply({"params": params}, images))
    return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1).mean()


@functools.partial(jax.jit, donate_argnums=0)
def epoch(state: TrainState, images: jax.Array, labels: jax.Array, batches: jax.Array) -> Any:
    """A step for each row of `batches`, which holds the numbers of the images to see."""

    def step(state: TrainState, batch: jax.Array) -> Any:
        grads = jax.grad(loss, 1)(state.apply_fn, state.params, images[batch], labels[batch])
        return state.apply_gradients(grads=grads), None

    return jax.lax.scan(step, state, batches)[0]


@jax.jit
def accuracy(state: TrainState, images: jax.Array, labels: jax.Array) -> jax.Array:
    """The share of images that are read as what they are."""
    return jnp.mean(state.apply_fn({"params": state.params}, images).argmax(axis=1) == labels)


def main() -> None:
    """Train, and print what was reached."""
    parser = argparse.ArgumentParser(description="Handwritten digits with flax linen.")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--patience", type=int, default=4, help="epochs without improvement")
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0, help="of weights and mini-batches")
    parser.add_argument("--smoke", action="store_true", help="two epochs, to see that all runs")
    options = parser.parse_args()

    images, test_images, labels, test_labels = load()
    images, held_out, labels, held_out_labels = train_test_split(
        images, labels, test_size=270, stratify=labels, random_state=0
    )
    images, labels = jnp.asarray(images), jnp.asarray(labels)

    network = Network()
    params = network.init(jax.random.key(options.seed), images[:1])["params"]
    tx = gdtx.tunable(gdtx.nadamw(options.learning_rate), "learning_rate", "weight_decay")
    state = TrainState.create(apply_fn=network.apply, params=params, tx=tx)
    rng = np.random.default_rng(options.seed)
    rate, best, stalled = options.learning_rate, 0.0, 0
    with tqdm(range(2 if options.smoke else options.epochs), unit="epoch") as bar:
        for _ in bar:
            batches = rng.permutation(len(images))[: len(images) // BATCH * BATCH]
            state = epoch(state, images, labels, batches.reshape(-1, BATCH))
            score = float(accuracy(state, held_out, held_out_labels))
            stalled = 0 if score > best else stalled + 1
            best = max(best, score)
            if stalled == options.patience:
                rate, stalled = rate / 2, 0
                state = gdtx.set_hyperparams(state, learning_rate=rate)
            bar.set_postfix(held_out=f"{score:.1%}", learning_rate=rate)
    print(f"the learning rate went from {options.learning_rate:g} to {rate:g}")
    print(f"test accuracy {float(accuracy(state, test_images, test_labels)):.1%}")


if __name__ == "__main__":
    main()
