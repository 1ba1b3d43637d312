"""Handwritten digits with equinox: several learning rates, trained as one program.

    python examples/equinox_mlp.py
    python examples/equinox_mlp.py --learning-rates 0.001 0.01 0.1

A transformation is a pytree, like an equinox module, and the arrays among its arguments are its
leaves. With an array of learning rates in it, `eqx.filter_vmap` trains one model for each.
"""

import argparse
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
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


def loss(model: eqx.nn.MLP, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Minus the mean logarithm of the probability given to the right digit."""
    log_probabilities = jax.nn.log_softmax(jax.vmap(model)(images))
    return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1).mean()


def accuracy(model: eqx.nn.MLP, images: jax.Array, labels: jax.Array) -> jax.Array:
    """The share of images that are read as what they are."""
    return jnp.mean(jax.vmap(model)(images).argmax(axis=1) == labels)


def main() -> None:
    """Train, and print what was reached."""
    parser = argparse.ArgumentParser(description="Handwritten digits with equinox.")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument(
        "--learning-rates", type=float, nargs="+", default=[0.001, 0.003, 0.01, 0.03]
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights and mini-batches")
    parser.add_argument("--smoke", action="store_true", help="two epochs, to see that all runs")
    options = parser.parse_args()
    epochs = 2 if options.smoke else options.epochs

    images, test_images, labels, test_labels = map(jnp.asarray, load())

    # The array is one of the leaves of the transformation, and so its batch.
    tx = gdtx.adamw(jnp.asarray(options.learning_rates))
    model = eqx.nn.MLP(64, 10, width_size=128, depth=1, key=jax.random.key(options.seed))
    each = eqx.filter_vmap(in_axes=(None, eqx.if_array(0)))
    start = each(lambda model, tx: (model, tx.init(eqx.filter(model, eqx.is_array))))
    models, states = start(model, tx)

    # What stays is given first and is not donated.
    @eqx.filter_jit(donate="all-except-first")
    @eqx.filter_vmap(in_axes=((eqx.if_array(0), None), eqx.if_array(0), eqx.if_array(0)))
    def epoch(given, model, state):
        tx, batches = given
        arrays, rest = eqx.partition(model, eqx.is_array)

        def step(carry, batch):
            arrays, state = carry
            model = eqx.combine(arrays, rest)
            grads = eqx.filter_grad(loss)(model, images[batch], labels[batch])
            updates, state = tx.update(grads, state, arrays)
            return (gdtx.apply_updates(arrays, updates), state), None

        (arrays, state), _ = jax.lax.scan(step, (arrays, state), batches)
        return eqx.combine(arrays, rest), state

    scores = eqx.filter_jit(eqx.filter_vmap(accuracy, in_axes=(eqx.if_array(0), None, None)))
    rng = np.random.default_rng(options.seed)
    with tqdm(range(epochs), unit="epoch") as bar:
        for _ in bar:
            batches = rng.permutation(len(images))[: len(images) // BATCH * BATCH]
            batches = jnp.asarray(batches.reshape(-1, BATCH))
            models, states = epoch((tx, batches), models, states)
            bar.set_postfix_str(f"{scores(models, images, labels).max():.1%} on training images")
    found = scores(models, test_images, test_labels)
    for rate, score in zip(options.learning_rates, found, strict=True):
        print(f"learning rate {rate:<8g} test accuracy {score:.1%}")


if __name__ == "__main__":
    main()
