"""What the benchmarks train: a small network that reads scikit-learn's 8 by 8 digits."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SIZES = (64, 64, 10)
REACH = 1  # how far a digit may be from where it was, in pixels


class Data(NamedTuple):
    """Images, a row each, and the digits on them."""

    images: Any
    labels: Any


def load(train_size: int = 1000) -> tuple[Data, Data]:
    """Images to learn from and the others, as many of each digit in both."""
    images, labels = load_digits(return_X_y=True)
    images, labels = (images / 16).astype(np.float32), labels.astype(np.int32)
    parts = train_test_split(images, labels, train_size=train_size, stratify=labels, random_state=0)
    return Data(parts[0], parts[2]), Data(parts[1], parts[3])


def shifted(data: Data) -> Data:
    """Every image at every place within reach; first all at the first place, then the second."""
    places = range(2 * REACH + 1)
    frames = np.pad(data.images.reshape(-1, 8, 8), ((0, 0), (REACH, REACH), (REACH, REACH)))
    images = [frames[:, i : i + 8, j : j + 8].reshape(-1, 64) for i in places for j in places]
    return Data(np.concatenate(images), np.tile(data.labels, len(images)))


def shifted_once(data: Data, seed: int) -> Data:
    """Every image at one place within reach, chosen by chance."""
    everywhere, count = shifted(data), len(data.labels)
    places = np.random.default_rng(seed).integers((2 * REACH + 1) ** 2, size=count)
    return Data(everywhere.images[places * count + np.arange(count)], data.labels)


def init_params(seed: int, sizes: Sequence[int] = SIZES) -> Any:
    """The first weights of a network with these numbers of units."""
    # NumPy's, because XLA takes seconds to compile jax.random on a CPU, and timings include that.
    rng = np.random.default_rng(seed)
    return [
        {
            "w": jnp.asarray(rng.normal(size=(n, m)) / np.sqrt(n), jnp.float32),
            "b": jnp.zeros(m, jnp.float32),
        }
        for n, m in itertools.pairwise(sizes)
    ]


def batch_indices(count: int, batch: int, steps: int, seed: int) -> np.ndarray:
    """The images that each step sees: epochs of random order, one after the other."""
    rng = np.random.default_rng(seed)
    epochs = -(-steps * batch // count)
    stream = np.concatenate([rng.permutation(count) for _ in range(epochs)])
    return stream[: steps * batch].reshape(steps, batch).astype(np.int32)


def logits(params: Any, images: Any) -> jax.Array:
    """The network."""
    # Smooth: at the kink of a rectifier, rounding would decide how a training goes on.
    *hidden, last = params
    for layer in hidden:
        images = jnp.tanh(images @ layer["w"] + layer["b"])
    return images @ last["w"] + last["b"]


def cross_entropy(params: Any, batch: Data) -> jax.Array:
    """Minus the mean logarithm of the probability given to the right digit."""
    log_probabilities = jax.nn.log_softmax(logits(params, batch.images))
    return -jnp.take_along_axis(log_probabilities, batch.labels[:, None], axis=1).mean()


def accuracy(params: Any, data: Data) -> jax.Array:
    """The share of images that are read as what they are."""
    return jnp.mean(logits(params, data.images).argmax(axis=1) == data.labels)
