"""Handwritten digits with optimistix: a transformation as the inside of a solver.

    python examples/optimistix_solver.py
    python examples/optimistix_solver.py --tolerance 1e-5

A linear classifier, its loss over all training images at once. There the signs of the gradient mean
something, and Rprop, which looks at nothing else, needs no learning rate to be found. The solver
stops by itself when loss and weights stay where they are.
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import gdtx


def load() -> Any:
    """Images and labels to learn from, and others to test on: images, images, labels, labels."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    return train_test_split(images, labels, test_size=450, stratify=labels, random_state=0)


def logits(params: Any, images: jax.Array) -> jax.Array:
    """The classifier."""
    return images @ params["w"] + params["b"]


def objective(params: Any, data: Any) -> jax.Array:
    """Minus the mean logarithm of the probability of the right digit, with a pull toward zero."""
    images, labels = data
    log_probabilities = jax.nn.log_softmax(logits(params, images))
    error = -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1).mean()
    return error + 1e-3 * jnp.sum(params["w"] ** 2)


def main() -> None:
    """Minimise, and print what was reached."""
    parser = argparse.ArgumentParser(description="Handwritten digits with optimistix.")
    parser.add_argument("--steps", type=int, default=2000, help="at most")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="relative and absolute")
    parser.add_argument("--smoke", action="store_true", help="a few steps, to see that all runs")
    options = parser.parse_args()
    steps = 20 if options.smoke else options.steps

    images, test_images, labels, test_labels = map(jnp.asarray, load())
    params = {"w": jnp.zeros((64, 10)), "b": jnp.zeros(10)}

    with tqdm(total=steps, unit="step") as bar:

        def show(loss: Any) -> None:
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            bar.update()

        def report(num_steps: Any, loss_this_step: Any, y: Any) -> None:
            jax.debug.callback(show, loss_this_step[1], ordered=True)

        solver = optx.OptaxMinimiser(
            gdtx.rprop(0.01), rtol=options.tolerance, atol=options.tolerance, verbose=report
        )
        found = optx.minimise(
            objective, solver, params, (images, labels), max_steps=steps, throw=False
        )
        jax.effects_barrier()
    how = "converged" if found.result == optx.RESULTS.successful else "stopped"
    print(f"{how} after {int(found.stats['num_steps'])} steps")
    print(f"loss {float(objective(found.value, (images, labels))):.6f}")
    accuracy = jnp.mean(logits(found.value, test_images).argmax(axis=1) == test_labels)
    print(f"test accuracy {float(accuracy):.1%}")


if __name__ == "__main__":
    main()
