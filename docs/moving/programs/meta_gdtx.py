"""Learn the hyperparameters with which ten steps learn most."""

import gdtx
import jax
import jax.numpy as jnp

inner = gdtx.chain(
    gdtx.clip_by_global_norm(1.0), gdtx.sgd(0.1, momentum=0.9)
)
outer = gdtx.adam(0.05)


def with_hyperparams(meta):
    """`inner` with these in it."""
    return gdtx.replace(
        inner,
        {
            "0.max_norm": jnp.exp(meta["log_norm"]),
            "1.learning_rate": jnp.exp(meta["log_rate"]),
            "1.momentum": jax.nn.sigmoid(meta["momentum"]),
        },
    )


def error(weights, task):
    """Of a line through the task's points."""
    x, y = task
    return jnp.mean((x @ weights - y) ** 2)


def learned(meta, task, steps=10):
    """The error that is left after some steps."""
    weights = jnp.zeros(4)
    tx = with_hyperparams(meta)

    def step(carry, _):
        weights, state = carry
        grad = jax.grad(error)(weights, task)
        updates, state = tx.update(grad, state, weights)
        return (gdtx.apply_updates(weights, updates), state), None

    (weights, _), _ = jax.lax.scan(
        step, (weights, tx.init(weights)), None, steps
    )
    return error(weights, task)


def tasks(key, number=8):
    """Points on planes, each with its own slopes."""
    x_key, slope_key = jax.random.split(key)
    x = jax.random.normal(x_key, (number, 16, 4))
    slopes = jax.random.normal(slope_key, (number, 4, 1))
    return x, (x @ slopes)[..., 0]


@jax.jit
def meta_step(meta, state, key):
    """One step of the outer method."""

    def loss(meta):
        errors = jax.vmap(lambda task: learned(meta, task))(tasks(key))
        return errors.mean()

    value, grads = jax.value_and_grad(loss)(meta)
    updates, state = outer.update(grads, state, meta)
    return gdtx.apply_updates(meta, updates), state, value


def train(steps=20):
    """The hyperparameters as they are learned, and their losses."""
    meta = {
        "log_norm": jnp.array(0.0),
        "log_rate": jnp.array(-3.0),
        "momentum": jnp.array(0.0),
    }
    state, values = outer.init(meta), []
    for key in jax.random.split(jax.random.key(0), steps):
        meta, state, value = meta_step(meta, state, key)
        values.append(value)
    return jnp.stack(values), meta


if __name__ == "__main__":
    print(train())
