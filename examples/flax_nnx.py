"""Handwritten digits with flax nnx: a network learns seven digits, then its head learns all ten.

    python examples/flax_nnx.py
    python examples/flax_nnx.py --trained "head/**" "norm/**"

Fine-tuning trains some of the parameters. `gdtx.trainable` takes patterns of their paths: updates
of all others are zero, and the transformation keeps no state for them.
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
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


class Network(nnx.Module):
    """A convolution, a hidden layer, and a head."""

    def __init__(self, rngs: nnx.Rngs):
        self.convolution = nnx.Conv(1, 32, (3, 3), rngs=rngs)
        self.hidden = nnx.Linear(512, 128, rngs=rngs)
        self.norm = nnx.LayerNorm(128, rngs=rngs)
        self.head = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.convolution(x.reshape(-1, 8, 8, 1)))
        x = nnx.max_pool(x, (2, 2), strides=(2, 2)).reshape(len(x), -1)
        return self.head(self.norm(nnx.relu(self.hidden(x))))


def loss(model: Network, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Minus the mean logarithm of the probability given to the right digit."""
    log_probabilities = jax.nn.log_softmax(model(images))
    return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1).mean()


@nnx.jit
def step(model: Network, optimizer: nnx.Optimizer, images: jax.Array, labels: jax.Array) -> None:
    """One update."""
    optimizer.update(model, nnx.grad(loss)(model, images, labels))


@nnx.jit
def accuracy(model: Network, images: jax.Array, labels: jax.Array) -> jax.Array:
    """The share of images that are read as what they are."""
    return jnp.mean(model(images).argmax(axis=1) == labels)


def fit(model: Network, tx: Any, images: Any, labels: Any, steps: int, name: str) -> None:
    """Train the model with this transformation, and say how large its state is."""
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    rng = np.random.default_rng(0)
    for _ in tqdm(range(steps), desc=name, unit="step"):
        batch = rng.choice(len(images), BATCH, replace=False)
        step(model, optimizer, images[batch], labels[batch])
    state = sum(x.nbytes for x in jax.tree.leaves(nnx.state(optimizer)))
    print(f"{name}: {state:,} bytes of state")


def main() -> None:
    """Train twice, and print what was reached."""
    parser = argparse.ArgumentParser(description="Handwritten digits with flax nnx.")
    parser.add_argument("--steps", type=int, default=600, help="of either training")
    parser.add_argument("--learning-rate", type=float, default=0.003)
    parser.add_argument(
        "--trained", nargs="+", default=["head/**"], help="patterns of what is trained at last"
    )
    parser.add_argument("--smoke", action="store_true", help="a few steps, to see that all runs")
    options = parser.parse_args()
    steps = 10 if options.smoke else options.steps

    images, test_images, labels, test_labels = load()
    few = labels < 7
    model = Network(nnx.Rngs(0))
    tx = gdtx.adamw(options.learning_rate)
    fit(model, tx, images[few], labels[few], steps, "all of it on digits 0 to 6")
    print(f"test accuracy {float(accuracy(model, test_images, test_labels)):.1%}")

    kernel = model.hidden.kernel[...]
    tx = gdtx.trainable(tx, options.trained)
    fit(model, tx, images, labels, steps, f"{' '.join(options.trained)} on all digits")
    print(f"the hidden layer has changed by {jnp.abs(model.hidden.kernel[...] - kernel).max()}")
    print(f"test accuracy {float(accuracy(model, test_images, test_labels)):.1%}")


if __name__ == "__main__":
    main()
