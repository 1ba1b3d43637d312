"""Slow weights that follow, and gradients from a short way uphill."""

import jax
import jax.numpy as jnp
import optax

RHO = 0.05
images = jax.random.normal(jax.random.key(0), (64, 8))
labels = (images[:, 0] * images[:, 1] > 0).astype(jnp.float32)


def loss(params, images, labels):
    """Logistic loss of a small network."""
    logits = jnp.tanh(images @ params["hidden"]) @ params["out"]
    return jnp.mean(jnp.logaddexp(0.0, logits) - labels * logits)


params = {
    "hidden": 0.5 * jax.random.normal(jax.random.key(1), (8, 16)),
    "out": jnp.zeros(16),
}
tx = optax.lookahead(
    optax.sgd(0.5, momentum=0.9), sync_period=5, slow_step_size=0.5
)


@jax.jit
def step(params, state):
    """Both sets of weights, and the state of the fast ones."""
    gradient = jax.grad(loss)(params.fast, images, labels)
    norm = optax.tree.norm(gradient)
    scale = RHO / jnp.where(norm > 0, norm, 1.0)
    uphill = jax.tree.map(
        lambda p, g: p + scale * g, params.fast, gradient
    )
    gradient = jax.grad(loss)(uphill, images, labels)
    updates, state = tx.update(gradient, state, params)
    return optax.apply_updates(params, updates), state


def train(steps=50):
    """The slow weights."""
    both = optax.LookaheadParams.init_synced(params)
    state = tx.init(both)
    for _ in range(steps):
        both, state = step(both, state)
    return both.slow


if __name__ == "__main__":
    print(loss(train(), images, labels))
