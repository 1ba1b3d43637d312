"""Small models, and their curvature written out in NumPy, for the tests of K-FAC."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np


def some(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def mlp_params(sizes, scale=0.7):
    return {
        f"layer{i}": {
            "w": scale * some(n, m, seed=i),
            "b": 0.1 * some(m, seed=100 + i),
        }
        for i, (n, m) in enumerate(itertools.pairwise(sizes), start=1)
    }


def mlp(params, x, activation=jnp.tanh):
    *hidden, last = params.values()
    for layer in hidden:
        x = activation(x @ layer["w"] + layer["b"][None])
    return x @ last["w"] + last["b"][None]


def linear(params, x):
    return mlp(params, x, activation=lambda x: x)


@functools.partial(jax.jit, static_argnums=0)
def outputs_and_jacobian(model, params, x):
    return model(params, x), jax.jacrev(model)(params, x)


def blocks_of_gauss_newton(model, params, x, root):
    """For each layer the dense block of J^T H J / N, rows of `w` first, then `b`."""
    outputs, jacobian = jax.device_get(outputs_and_jacobian(model, params, x))
    blocks = {}
    for name, layer in jacobian.items():
        n, d = outputs.shape
        flat = np.concatenate([np.reshape(layer[k], (n, d, -1)) for k in ("w", "b")], axis=-1)
        rows = np.einsum("ncd,ndp->ncp", root(np.asarray(outputs)), flat)
        blocks[name] = np.einsum("ncp,ncq->pq", rows, rows) / n
    return blocks


def patches(x, kernel, stride, padding, dilation):
    """Images (n, h, w, c) cut into what each position of a convolution sees: (n, p, q, i, j, c)."""
    x = np.pad(x, ((0, 0), padding, padding, (0, 0)))
    reach = (kernel - 1) * dilation + 1
    steps = (x.shape[1] - reach) // stride + 1
    at = [[a * stride + i * dilation for i in range(kernel)] for a in range(steps)]
    return x[:, np.array(at)][:, :, :, np.array(at)].transpose(0, 1, 3, 2, 4, 5)
