"""The diagonal of the Hessian, estimated from random vectors or from targets of the model's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from ..core.calls.kinds import function
from ..core.calls.signature import Signature
from ..core.errors import at_work, fail, summarize
from ..core.numbers.numerics import cast, compute_dtype
from ..core.trees.tree import PyTree, check_arrays, explicit_sharding
from .losses import Loss, softmax_cross_entropy

OfParameters = Annotated[Callable[[Any], Any], function("the parameters", 1)]


def hutchinson(loss: OfParameters, params: PyTree, key: jax.Array) -> PyTree:
    r"""Hutchinson's estimate of the Hessian's diagonal.

    $\hat h = z \odot \nabla^2 \ell(\theta)\,z$. The numbers of $z$ are 1 or -1, each with
    probability 1/2, so that $E[\hat h]$ is the diagonal,
    and $\hat h$ the diagonal itself where all else of the Hessian is 0. It costs about as much as
    two gradients. Estimates may be negative.

    Args:
        loss: function of the parameters that returns a scalar, such as
            `lambda params: loss(params, batch)`.
        params: tree of real arrays.
        key: a key of :mod:`jax.random`, another one for each estimate.

    Returns:
        A tree like the parameters, in at least float32: `hessian=` of :func:`sophia`.

    Raises:
        TypeError: if `loss` is no function of one argument, or a parameter is not real.

    References:
        Hutchinson 1990, A stochastic estimator of the trace of the influence matrix for Laplacian
        smoothing splines; Bekas et al. 2007, An estimator for the diagonal of a matrix; Yao et al.
        2021, ADAHESSIAN: An Adaptive Second Order Optimizer for Machine Learning, arXiv:2006.00719.

    >>> import gdtx, jax, jax.numpy as jnp
    >>> gdtx.hutchinson(lambda p: (p["a"] ** 2).sum() + p["b"] ** 3,
    ...                 {"a": jnp.zeros(2), "b": jnp.array(1.0)}, jax.random.key(0))
    {'a': Array([2., 2.], dtype=float32), 'b': Array(6., dtype=float32)}
    """
    Signature(hutchinson, schedules=False).bind((loss, params, key), {})
    with at_work("hutchinson"):
        leaves, structure = _real_leaves(params)
    keys = [jax.random.fold_in(key, i) for i in range(len(leaves))]
    signs = structure.unflatten(map(_signs, keys, leaves))
    _, products = jax.jvp(jax.grad(loss), (params,), (signs,))
    return jax.tree.map(lambda z, h: _wide(z) * _wide(h), signs, products)


def gauss_newton_bartlett(
    model: OfParameters, params: PyTree, key: jax.Array, loss: Loss = softmax_cross_entropy
) -> PyTree:
    r"""The diagonal of the Gauss-Newton matrix, estimated from targets that the model draws.

    $\hat h = B\,\hat g \odot \hat g$, with $\hat g$ the gradient of the mean loss of the $B$
    examples at targets drawn from the distribution that their outputs stand for. $E[\hat h]$ is the
    diagonal of the Gauss-Newton matrix of the mean loss, which for such losses is the Fisher
    information. It costs about as much as one gradient, and is never negative.

    Args:
        model: function of the parameters that returns the outputs of a batch, of shape
            `(examples, ..., d)`, such as the logits `lambda params: logits(params, batch)`. Every
            position but along the last axis is an example.
        params: tree of real arrays.
        key: a key of :mod:`jax.random`, another one for each estimate.
        loss: the loss of these outputs: `softmax_cross_entropy` or another of :mod:`gdtx.kfac`.

    Returns:
        A tree like the parameters, in at least float32: `hessian=` of :func:`sophia`.

    Raises:
        TypeError: if `model` is no function of one argument, or a parameter is not real.

    References:
        Liu et al. 2023, Sophia: A Scalable Stochastic Second-order Optimizer for Language Model
        Pre-training, arXiv:2305.14342, algorithm 2.

    >>> import gdtx, jax, jax.numpy as jnp
    >>> logits = lambda params: jnp.broadcast_to(params, (4, 2))
    >>> gdtx.gauss_newton_bartlett(logits, jnp.zeros(2), jax.random.key(1))
    Array([0.25, 0.25], dtype=float32)
    """
    Signature(gauss_newton_bartlett, schedules=False).bind((model, params, key, loss), {})
    with at_work("gauss_newton_bartlett"):
        _real_leaves(params)
        outputs, back = jax.vjp(model, params)
        if not isinstance(outputs, jax.Array) or outputs.ndim < 2:
            expected = "model must return an array of shape (examples, ..., d)"
            fail(TypeError, f"{expected}, got {summarize(outputs)}")
    examples = max(outputs.size // max(outputs.shape[-1], 1), 1)
    at_targets = jax.lax.stop_gradient(loss.sampled(outputs, key))
    (gradients,) = back(cast(at_targets / examples, outputs.dtype))
    return jax.tree.map(lambda g: examples * jnp.square(_wide(g)), gradients)


def _real_leaves(params: PyTree) -> tuple[list[jax.Array], Any]:
    check_arrays(params, "params")
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        if jnp.iscomplexobj(leaf):
            place = jax.tree_util.keystr(path)
            fail(TypeError, f"params{place} has dtype {leaf.dtype}, expected a real array")
    return jax.tree.flatten(params)


def _signs(key: jax.Array, leaf: jax.Array) -> jax.Array:
    place = explicit_sharding(leaf)
    drawn = jax.random.uniform(key, leaf.shape, jnp.float32, out_sharding=place)
    return jnp.where(drawn < 0.5, 1, -1).astype(leaf.dtype)


def _wide(x: jax.Array) -> jax.Array:
    return cast(x, compute_dtype(x.dtype))
