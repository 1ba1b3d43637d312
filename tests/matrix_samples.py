"""Gradients of every kind of array that a method of matrices must take, and its steps."""

import jax
import jax.numpy as jnp
import numpy as np

import gdtx

STEPS = 60
SHAPES = {
    "matrix": (4, 3),
    "row": (1, 4),
    "column": (4, 1),
    "number": (),
    "tensor": (2, 3, 4),
    "order 4": (2, 3, 2, 2),
    "empty": (0, 3),
}
FEW = ("matrix", "singular", "row")


def gradients_and_params(seed=0, few=False, steps=STEPS):
    """Correlated, so that no statistic is diagonal; of the singular ones only a plane is seen."""
    rng = np.random.default_rng(seed)
    gradients = {}
    for name, shape in SHAPES.items():
        g = rng.normal(size=(steps, *shape)) * np.exp(rng.normal(size=shape))
        gradients[name] = g + 0.3 * np.roll(g, 1, axis=-1) if shape else g
    factors = rng.normal(size=(4, 2)), rng.normal(size=(2, 3))
    singular = factors[0] @ rng.normal(size=(steps, 2, 2)) @ factors[1]
    gradients["singular"] = singular
    if few:
        gradients = {name: gradients[name] for name in FEW}
    params = {name: rng.normal(size=g.shape[1:]) for name, g in gradients.items()}
    return gradients, params


def trajectory(tx, gradients, params):
    """The updates of all steps and the last state, in one scan."""

    return jax.device_get(_train(tx, *jax.tree.map(jnp.asarray, (params, gradients))))


@jax.jit
def _train(tx, params, gradients):
    def step(carry, g):
        params, state = carry
        updates, state = tx.update(g, state, params)
        return (gdtx.apply_updates(params, updates), state), updates

    (_, state), updates = jax.lax.scan(step, (params, tx.init(params)), gradients)
    return updates, state


def near(got, want, **tolerance):
    """To the given share of the largest number of each step: what turning matrices loses."""
    got, want = np.asarray(got), np.asarray(want)
    axes = tuple(range(1, want.ndim))
    scale = np.max(np.abs(want), axis=axes, keepdims=True, initial=0)
    scale = np.where(scale > 0, scale, 1)
    np.testing.assert_allclose(got / scale, want / scale, rtol=0, **tolerance)
