"""The path of a transformation down a valley, at the best of some learning rates."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gdtx
from gdtx import explore, kfac, public
from gdtx.explore.trajectories import learning_rates

from . import examples
from .inventory import Entry

STEPS = 60
RATES = np.geomspace(1e-3, 1e3, 64)

# For what needs a model: the loss of two weights is this bowl.
BOWL = explore.quadratic((1.0, 100.0))
_inputs = jnp.diag(jnp.sqrt(jnp.array([2.0, 200.0])))
_batch = _inputs, jnp.zeros((2, 1))


def _linear(params: Any, x: jax.Array) -> jax.Array:
    return x @ params["w"]


_of_curvature = {
    "scale_by_kfac", "scale_by_ekfac", "clip_by_fisher_norm", "scale_by_natural_gradient", "kfac",
    "levenberg_marquardt", "natural_gradient",
}  # fmt: skip


class Path(NamedTuple):
    """Positions, losses, and the learning rate, None where there is none to choose."""

    problem: explore.Problem
    positions: np.ndarray
    losses: np.ndarray
    rate: float | None


def path(entry: Entry) -> Path:
    """The path of its example. Where it keeps averages or slow weights, of these."""
    tx = examples.example(entry)
    found = list(learning_rates(tx))
    problem = BOWL if entry.name in _of_curvature else explore.valley()
    if entry.name in _of_curvature:
        shape = (lambda x: {"w": x[:, None]}), (lambda p: p["w"][:, 0])
    else:
        shape = _shape(entry)
    measure = partial(_measured, entry) if entry.name in _of_curvature else None
    if not _descends(entry, found):
        return best(lambda rate: gdtx.chain(tx, gdtx.sgd(rate)), problem, shape, RATES, measure)
    if not found or entry.name in ("value_of", "partition"):  # their rates are told apart
        return best(lambda rate: tx, problem, shape, None, measure)
    method = lambda rate: gdtx.replace(tx, dict.fromkeys(found, rate))  # noqa: E731
    return best(method, problem, shape, RATES, measure)


@cache
def descent(name: str) -> Path:
    """That of gradient descent on the problem of this name."""
    problem = explore.valley() if name == "valley" else BOWL
    return best(gdtx.sgd, problem, _flat, RATES)


def best(
    method: Callable[[Any], gdtx.GradientTransformation],
    problem: explore.Problem,
    shape: tuple[Callable[[jax.Array], Any], Callable[[Any], jax.Array]],
    rates: np.ndarray | None,
    measure: Callable[[Any], Any] | None = None,
) -> Path:
    """Of the paths at all these learning rates, that with the least losses."""
    inside, back = shape

    def fun(params: Any) -> jax.Array:
        return problem.fun(back(params))

    def run(rate: Any) -> Any:
        tx = method(rate)
        start = inside(jnp.array(problem.start))

        def step(carry: Any, _: None) -> Any:
            params, state = carry
            value, gradients = jax.value_and_grad(fun)(params)
            extra = {"curvature": measure(params)} if measure else {}
            updates, state = tx.update(
                gradients, state, params, value=value, grad=gradients, value_fn=fun,
                grad_fn=jax.grad(fun), flag=value > 1.0,
                hessian=lambda params: gdtx.hutchinson(fun, params, jax.random.key(0)), **extra,
            )  # fmt: skip
            params = gdtx.apply_updates(params, updates)
            return (params, state), back(gdtx.eval_params(tx, state, params))

        _, after = jax.lax.scan(step, (start, tx.init(start)), length=STEPS)
        positions = jnp.concatenate([back(start)[None], after])
        return positions, jax.vmap(problem.fun)(positions)

    with warnings.catch_warnings(action="ignore"):
        each = jax.jit(jax.vmap(run))(jnp.ones(1) if rates is None else jnp.asarray(rates))
    positions, losses = map(np.asarray, each)
    # The less the loss on the way, the better, of those that stay in the picture.
    score = np.log10(np.maximum(losses, 1e-3)).mean(1)
    low, high = np.array(problem.bounds).T
    stays = ((positions >= low - 0.1) & (positions <= high + 0.1)).all((1, 2))
    chosen = int(np.argmin(np.where(stays, score, np.inf)))
    rate = None if rates is None else float(rates[chosen])
    return Path(problem, positions[chosen], losses[chosen], rate)


def _measured(entry: Entry, params: Any) -> Any:
    """The curvature of the model, as the transformation wants it."""
    if "natural" in entry.name:
        return kfac.fisher_matrix(_linear, kfac.squared_error)(params, _batch)
    return kfac.value_grad_and_curvature(
        _linear, kfac.squared_error, output="sampled", gradient=True
    )(params, _batch, jax.random.key(0))[2]


def _descends(entry: Entry, rates: list[str]) -> bool:
    """Whether it changes the sign of the gradient itself, as methods do and links do not."""
    is_link = entry.group in (public.links, public.matrices) and entry.name != "full_matrix_adagrad"
    is_link |= entry.group is public.parameters and not rates
    return not is_link and (
        bool(rates) or entry.group is not public.algebra or entry.name == "value_of"
    )


_flat = (lambda x: x), (lambda x: x)
_matrix = (lambda x: {"w": x[None]}), (lambda p: p["w"][0])
_parted = (lambda x: {"w": x[:1], "b": x[1:]}), (lambda p: jnp.concatenate([p["w"], p["b"]]))


def _shape(entry: Entry) -> tuple[Callable[[jax.Array], Any], Callable[[Any], jax.Array]]:
    """The two numbers as the example's parameters."""
    if entry.name in ("masked", "partition", "freeze", "trainable"):
        return _parted
    return _matrix if '["w"]' in examples.call(entry) else _flat
