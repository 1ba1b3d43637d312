"""Handwritten digits in plain JAX: gdtx's own loop, and what it says about the training.

    python examples/plain_jax.py
    python examples/plain_jax.py --steps 2000 --learning-rate 0.003

The transformation is an argument of the step like any other. `gdtx.describe` makes a flat dict of
scalars, inside of `jit`: how long gradients and updates are, the learning rate, for any logger.
"""

import argparse
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import gdtx

SIZES = (64, 128, 10)


def load() -> Any:
    """Images and labels to learn from, and others to test on: images, images, labels, labels."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    return train_test_split(images, labels, test_size=450, stratify=labels, random_state=0)


def init_params(seed: int) -> Any:
    """The weights of a network with one hidden layer."""
    rng = np.random.default_rng(seed)
    return [
        {"w": jnp.float32(rng.normal(0, n**-0.5, (n, m))), "b": jnp.zeros(m)}
        for n, m in itertools.pairwise(SIZES)
    ]


def logits(params: Any, images: jax.Array) -> jax.Array:
    """The network."""
    hidden, last = params
    return jnp.tanh(images @ hidden["w"] + hidden["b"]) @ last["w"] + last["b"]


def loss(params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Minus the mean logarithm of the probability given to the right digit."""
    log_probabilities = jax.nn.log_softmax(logits(params, images))
    return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1).mean()


# Parameters and state come first and leave first, so the new ones overwrite the old ones.
@functools.partial(jax.jit, donate_argnums=(0, 1))
def step(params: Any, state: Any, tx: Any, images: jax.Array, labels: jax.Array) -> Any:
    """One update, and what there is to say about it."""
    value, grads = jax.value_and_grad(loss)(params, images, labels)
    updates, state = tx.update(grads, state, params)
    report = {"loss": value, **gdtx.describe(tx, state, updates, params)}
    return gdtx.apply_updates(params, updates), state, report


def main() -> None:
    """Train, and print what was reached."""
    parser = argparse.ArgumentParser(description="Handwritten digits in plain JAX.")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0, help="of weights and mini-batches")
    parser.add_argument("--smoke", action="store_true", help="a few steps, to see that all runs")
    options = parser.parse_args()
    steps = 20 if options.smoke else options.steps

    images, test_images, labels, test_labels = load()
    rate = gdtx.warmup_cosine_decay_schedule(0.0, options.learning_rate, steps // 10, steps)
    tx = gdtx.chain(gdtx.clip_by_global_norm(1.0), gdtx.adamw(rate, weight_decay=1e-3))
    print(gdtx.expand(tx))

    params = init_params(options.seed)
    state = tx.init(params)
    rng = np.random.default_rng(options.seed)
    report: dict[str, Any] = {}
    with tqdm(range(steps), unit="step") as bar:
        for i in bar:
            batch = rng.choice(len(images), 64, replace=False)
            params, state, report = step(params, state, tx, images[batch], labels[batch])
            if i % 50 == 0:
                bar.set_postfix(loss=f"{report['loss']:.4f}")
    print("\n".join(f"{name:40} {float(value):.6g}" for name, value in report.items()))
    accuracy = np.mean(logits(params, test_images).argmax(axis=1) == test_labels)
    print(f"test accuracy {accuracy:.1%}")


if __name__ == "__main__":
    main()
