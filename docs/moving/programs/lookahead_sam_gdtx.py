"""Slow weights that follow, and gradients from a short way uphill."""

import gdtx
import jax
import jax.numpy as jnp

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
sharpness_aware = gdtx.sharpness_aware(
    gdtx.sgd(0.5, momentum=0.9), rho=0.05
)
tx = gdtx.lookahead(sharpness_aware, sync_period=5, slow_step_size=0.5)


@jax.jit
def step(params, state):
    """The parameters are parameters."""

    def gradient(params):
        return jax.grad(loss)(params, images, labels)

    updates, state = tx.update(
        gradient(params), state, params, grad_fn=gradient
    )
    return gdtx.apply_updates(params, updates), state


def train(steps=50):
    """The slow weights."""
    fast = params
    state = tx.init(fast)
    for _ in range(steps):
        fast, state = step(fast, state)
    return gdtx.eval_params(tx, state, fast)


if __name__ == "__main__":
    print(loss(train(), images, labels))
