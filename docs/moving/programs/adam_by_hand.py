"""Adam with all that a training run adds to it, by hand."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class AdamState(NamedTuple):
    """Moments, averaged parameters, and how many updates there were."""

    count: jax.Array
    mu: Any
    nu: Any
    averaged: Any


def init(params):
    """Moments of zero."""
    zeros = jax.tree.map(jnp.zeros_like, params)
    return AdamState(jnp.zeros((), jnp.int32), zeros, zeros, zeros)


def rate_at(count, peak, warmup, steps):
    """Up along a line, down along a cosine."""
    up = peak * count / warmup
    done = (count - warmup) / (steps - warmup)
    down = 0.5 * peak * (1 + jnp.cos(jnp.pi * jnp.clip(done, 0.0, 1.0)))
    return jnp.where(count < warmup, up, down)


def clipped(grads, max_norm):
    """The gradients, with a norm of at most this."""
    squares = [jnp.sum(g**2) for g in jax.tree.leaves(grads)]
    norm = jnp.sqrt(sum(squares))
    factor = jnp.where(norm > max_norm, max_norm / norm, 1.0)
    return jax.tree.map(lambda g: factor * g, grads)


def update(
    grads,
    state,
    params,
    peak=0.01,
    warmup=10,
    steps=100,
    b1=0.9,
    b2=0.99,
    eps=1e-8,
    weight_decay=0.1,
    max_norm=1.0,
    average=0.95,
):
    """New parameters and the new state."""
    grads = clipped(grads, max_norm)
    rate = rate_at(state.count, peak, warmup, steps)
    count = state.count + 1
    mu = jax.tree.map(
        lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads
    )
    nu = jax.tree.map(
        lambda v, g: b2 * v + (1 - b2) * g**2, state.nu, grads
    )

    def step(p, m, v):
        m_hat = m / (1 - b1**count)
        v_hat = v / (1 - b2**count)
        u = m_hat / (jnp.sqrt(v_hat) + eps)
        if p.ndim > 1:  # no decay of biases
            u = u + weight_decay * p
        return p - rate * u

    params = jax.tree.map(step, params, mu, nu)
    averaged = jax.tree.map(
        lambda a, p: average * a + (1 - average) * p,
        state.averaged,
        params,
    )
    return params, AdamState(count, mu, nu, averaged)


def for_evaluation(state, average=0.95):
    """The averaged parameters, without the bias of their start."""
    correction = 1 - average**state.count
    return jax.tree.map(lambda a: a / correction, state.averaged)
