"""Handwritten digits with checkpoints by orbax: kill it whenever you like, and run it again.

    python examples/checkpoint_resume.py --directory /tmp/digits
    python examples/checkpoint_resume.py --directory /tmp/digits    # goes on, or has finished

The run that was killed ends with the same parameters as one that was not, bit for bit: parameters
and state of the transformation are all there is to save, and the images that a step sees are a
function of its number. Orbax writes in the background, and a checkpoint counts only when it is
complete.
"""

import argparse
import functools
import hashlib
import itertools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import trange

import gdtx

BATCH = 64
SIZES = (64, 64, 10)


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


@functools.partial(jax.jit, donate_argnames=("params", "state"))
def step(params: Any, state: Any, tx: Any, images: jax.Array, labels: jax.Array) -> Any:
    """One update."""
    grads = jax.grad(loss)(params, images, labels)
    updates, state = tx.update(grads, state, params)
    return gdtx.apply_updates(params, updates), state


def batch(count: int, seed: int, number: int) -> np.ndarray:
    """The numbers of the images that this step sees."""
    return np.random.default_rng((seed, number)).choice(count, BATCH, replace=False)


def main() -> None:
    """Train from the last checkpoint on, and print what was reached."""
    parser = argparse.ArgumentParser(description="Handwritten digits, killed and resumed.")
    parser.add_argument("--directory", type=Path, required=True, help="for the checkpoints")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--every", type=int, default=100, help="steps between two checkpoints")
    parser.add_argument("--seed", type=int, default=0, help="of weights and mini-batches")
    parser.add_argument("--smoke", action="store_true", help="a few steps, to see that all runs")
    options = parser.parse_args()
    steps, every = (20, 5) if options.smoke else (options.steps, options.every)

    images, test_images, labels, test_labels = load()
    tx = gdtx.chain(
        gdtx.clip_by_global_norm(1.0),
        gdtx.radam(gdtx.cosine_decay_schedule(0.01, steps)),
    )
    params = init_params(options.seed)
    saved = {"params": params, "state": tx.init(params)}
    keep = ocp.CheckpointManagerOptions(max_to_keep=2, save_interval_steps=every)
    with ocp.CheckpointManager(options.directory.absolute(), options=keep) as manager:
        first = manager.latest_step() or 0
        if first:
            saved = manager.restore(first, args=ocp.args.StandardRestore(saved))
            print(f"going on from step {first}", flush=True)
        for number in trange(first, steps, initial=first, total=steps, unit="step"):
            rows = batch(len(images), options.seed, number)
            params, state = step(saved["params"], saved["state"], tx, images[rows], labels[rows])
            saved = {"params": params, "state": state}
            # Only every so many steps is it really saved; the last one always is.
            is_last = number + 1 == steps
            manager.save(number + 1, args=ocp.args.StandardSave(saved), force=is_last)
    params = jax.device_get(saved["params"])
    digest = hashlib.sha256(b"".join(leaf.tobytes() for leaf in jax.tree.leaves(params)))
    print(f"parameters {digest.hexdigest()[:16]}")
    accuracy = np.mean(logits(params, test_images).argmax(axis=1) == test_labels)
    print(f"test accuracy {accuracy:.1%}")


if __name__ == "__main__":
    main()
