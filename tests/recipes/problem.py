"""What recipes and rules are run on: a loss that curves both ways, another at each step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

STEPS = 60
SHAPES = {"w": (4, 3), "b": (3,), "s": ()}
# The factors of a matrix, for recipes that say so.
FACTORS = {"A": (2, 3), "B": (4, 2)}

_random = np.random.default_rng(15)


def _drawn(low: float, high: float, shapes: Any = SHAPES) -> dict[str, np.ndarray]:
    return {key: np.asarray(_random.uniform(low, high, shape)) for key, shape in shapes.items()}


START = _drawn(0.3, 1.5)
HEIGHT, FREQUENCY, PHASE = _drawn(0.2, 2.0), _drawn(1.0, 3.0), _drawn(0.0, 3.0)
NOISE = {
    key: 0.3 * _random.normal(size=(STEPS, *shape)) + _drawn(-0.3, 0.6)[key]
    for key, shape in SHAPES.items()
}
START |= _drawn(0.3, 1.5, FACTORS)
HEIGHT |= _drawn(0.2, 2.0, FACTORS)
FREQUENCY |= _drawn(1.0, 3.0, FACTORS)
PHASE |= _drawn(0.0, 3.0, FACTORS)
NOISE |= {key: 0.3 * _random.normal(size=(STEPS, *shape)) for key, shape in FACTORS.items()}
# At step 0, for methods that need a function without noise, there is none.
NOISE = {key: np.append(x, np.zeros_like(x[:1]), axis=0) for key, x in NOISE.items()}


def gradient(params: dict[str, Any], t: Any, xp: Any = np) -> dict[str, Any]:
    """That of the loss of step t, with NumPy or jax.numpy."""
    noise = {key: xp.asarray(NOISE[key])[t - 1] for key in params}
    return {
        key: HEIGHT[key] * xp.sin(FREQUENCY[key] * p + PHASE[key]) + noise[key]
        for key, p in params.items()
    }


def loss(params: dict[str, Any], t: Any, xp: Any = np) -> Any:
    return sum(
        xp.sum(
            xp.asarray(NOISE[key])[t - 1] * p
            - HEIGHT[key] / FREQUENCY[key] * xp.cos(FREQUENCY[key] * p + PHASE[key])
        )
        for key, p in params.items()
    )


def hessian(params: dict[str, Any], t: Any, xp: Any = np) -> dict[str, Any]:
    """The second derivatives, which are all on the diagonal."""
    return {
        key: HEIGHT[key] * FREQUENCY[key] * xp.cos(FREQUENCY[key] * p + PHASE[key])
        for key, p in params.items()
    }


# Arguments of `update` that a recipe may ask for: of parameters, step, and the module of arrays.
EXTRA: dict[str, Callable[[dict[str, Any], Any, Any], Any]] = {
    "value": loss,
    "hessian": hessian,
    "grad": gradient,
    "grad_fn": lambda params, t, xp: lambda at: gradient(at, t, xp),
    "value_fn": lambda params, t, xp: lambda at: loss(at, t, xp),
    "max_logits": lambda params, t, xp: (40 + 20 * xp.sin(t)) * xp.sum(params["w"] ** 2),
}


def per_array(rule: Callable[..., Any]) -> Callable[..., Any]:
    """A rule on one array, `rule(x, gradient)`, for each of the tree; `rule(x, gradient, hessian)`
    where it takes more."""

    @functools.wraps(rule)
    def lifted(params: dict[str, Any], *functions: Any, **extra: Any) -> Any:
        def of(key: str, f: Any) -> Any:
            return lambda x, t: f({key: x}, t)[key]

        def alone(key: str) -> Any:
            named = {name: of(key, f) for name, f in extra.items()}
            return rule(params[key], *(of(key, f) for f in functions), **named)

        for step in zip(*map(alone, params), strict=True):
            yield dict(zip(params, step, strict=True))

    return lifted


def norm(tree: dict[str, Any]) -> Any:
    """Of all numbers together."""
    return np.sqrt(sum(np.sum(np.square(x)) for x in tree.values()))


def standard_normal(params: dict[str, Any], t: int, seed: int = 0) -> dict[str, Any]:
    """The dice that links with this seed throw at step t: not a rule's own, but given to it."""
    return {key: _dice(seed)[key][t - 1] for key in params}


@functools.cache
def _dice(seed: int) -> dict[str, Any]:
    def thrown(t: Any) -> dict[str, Any]:
        now = jax.random.fold_in(jax.random.key(seed), t)
        return {
            key: jax.random.normal(jax.random.fold_in(now, i), SHAPES[key], float)
            for i, key in enumerate(sorted(SHAPES))
        }

    return jax.device_get(jax.jit(jax.vmap(thrown))(np.arange(1, STEPS + 1)))


def examples(params: dict[str, Any], t: Any, xp: Any = np) -> dict[str, Any]:
    """Gradients of three examples, one behind the other: short, middling and long."""
    return {
        key: xp.stack([factor * g for factor in (0.1, 1.0, 3.0)])
        for key, g in gradient(params, t, xp).items()
    }


class Adam:
    """Steps of Adam (arXiv:1412.6980, algorithm 1) at the rate 1, for rules that do more."""

    def __init__(self, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8):
        self.b1, self.b2, self.eps, self.m, self.v = b1, b2, eps, 0.0, 0.0

    def __call__(self, g: Any, t: int) -> Any:
        self.m = self.b1 * self.m + (1 - self.b1) * g
        self.v = self.b2 * self.v + (1 - self.b2) * g**2
        return self.m / (1 - self.b1**t) / (np.sqrt(self.v / (1 - self.b2**t)) + self.eps)


def fed_back(
    oracle: Callable[..., Any], params: dict[str, Any], gradient: Any, **settings: Any
) -> Any:
    """The rule of an oracle, which is given all gradients, on the tree as one array."""
    start = np.concatenate([np.ravel(x) for x in params.values()])
    places = np.cumsum([np.size(x) for x in params.values()])[:-1]

    def tree(x: np.ndarray) -> dict[str, np.ndarray]:
        parts = zip(params.items(), np.split(x, places), strict=True)
        return {key: part.reshape(np.shape(like)) for (key, like), part in parts}

    x, gradients = start, []
    for t in range(1, STEPS + 1):
        each = gradient(tree(x), t)
        gradients.append(np.concatenate([np.ravel(each[key]) for key in params]))
        x = x + oracle(np.array(gradients), start, **settings)[-1]
        yield tree(x)


class Peer(NamedTuple):
    """A recipe in pytorch_optimizer: their class and its settings.

    Where theirs is another method, `differs` says what they do, and `theirs_is` is the expression
    that does the same. Where the tolerance is not that of all, `because` says why.
    """

    recipe: str
    theirs: str
    settings: dict[str, Any]
    differs: str = ""
    theirs_is: str = ""
    rtol: float = 1e-12
    because: str = ""


FLOAT32 = "they compute a coefficient in float32"
EARLY_EPS = "they add eps before the bias is corrected"
