"""The one table of methods: what each is, what it must equal, and what it can do."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import oracles
import pytest

import gdtx


class Method(NamedTuple):
    """A method at one setting.

    `make` takes a learning rate, and so does `oracle` after gradients and parameter. `buffers`
    counts the arrays of state per parameter, None if that depends on its shape. `ulps` bounds how
    far a float32 update may be from the float64 oracle within 200 steps, in units of its own last
    place: a decay rounded to float32 is off by up to half a unit, and its k-th power by k times
    that.
    """

    make: Callable[..., gdtx.GradientTransformation]
    oracle: Callable[..., Any]
    learning_rate: float
    buffers: int | None
    ulps: int
    is_complex: bool


def method(name: str, buffers: int | None, *, lr=0.01, ulps=32, is_complex=True, **settings: Any):
    make = partial(getattr(gdtx, name), **settings)
    oracle = partial(getattr(oracles, name), **settings)
    return Method(make, oracle, lr, buffers, ulps, is_complex)


METHODS = {
    "sgd": method("sgd", 0, ulps=2),
    "momentum": method("sgd", 1, momentum=0.9),
    "nesterov": method("sgd", 1, momentum=0.9, nesterov=True),
    "ema_sgd": method("ema_sgd", 1),
    "ema_sgd corrected": method("ema_sgd", 1, decay=0.99, bias_correction=True),
    "adagrad": method("adagrad", 1, ulps=8),
    "adagrad from 0": method("adagrad", 1, ulps=8, initial_accumulator_value=0.0, eps=1e-10),
    "adadelta": method("adadelta", 2, lr=1.0),
    "adadelta with decay": method("adadelta", 2, lr=1.0, rho=0.95, weight_decay=0.01),
    "rmsprop": method("rmsprop", 1),
    "rmsprop, eps outside": method("rmsprop", 1, eps_in_sqrt=False, initial_scale=0.5),
    "rmsprop with momentum": method("rmsprop", 2, momentum=0.9),
    "rmsprop with nesterov": method("rmsprop", 2, momentum=0.9, nesterov=True),
    "rmsprop centered": method("rmsprop", 2, centered=True),
    "rmsprop centered, eps outside": method("rmsprop", 2, centered=True, eps_in_sqrt=False),
    "rprop": method("rprop", 2, is_complex=False),
    "rprop, other steps": method("rprop", 2, is_complex=False, eta_minus=0.3, max_step_size=0.02),
    "adam": method("adam", 2),
    "adam, eps inside": method("adam", 2, eps=0.0, eps_root=1e-8),
    "adam, other decays": method("adam", 2, b1=0.5, b2=0.9),
    "adam without averages": method("adam", 2, b1=0.0, b2=0.0, ulps=2),
    "adamw": method("adamw", 2, weight_decay=0.1),
    "adamax": method("adamax", 2, ulps=64),
    "nadam": method("nadam", 2),
    "nadam with momentum schedule": method("nadam", 2, momentum_decay=0.004),
    "nadamw": method("nadamw", 2, weight_decay=0.1),
    "amsgrad": method("amsgrad", 3),
    "radam": method("radam", 2),
    "radam, threshold 5": method("radam", 2, threshold=5.0),
    "radam, long memory": method("radam", 2, b2=0.99999),
    "lion": method("lion", 1),
    "signum": method("signum", 1),
    "adabelief": method("adabelief", 2),
    "yogi": method("yogi", 2),
    "adan": method("adan", 4),
    "adan, decayed weights": method("adan", 4, weight_decay=0.1),
    "adafactor": method("adafactor", 1),
    "adafactor, factored": method(
        "adafactor", None, min_dim_size_to_factor=2, momentum=0.9, weight_decay=0.01
    ),
    # The properties of its one link beyond momentum are in test_layerwise: norms compile slowly.
    "lars, with decay": method("lars", 1, lr=1.0, weight_decay=0.01),
    "lars, without decay": method("lars", 1, trust_coefficient=0.1, eps=1e-3, momentum=0.5),
    "lars, nesterov": method("lars", 1, lr=1.0, weight_decay=0.01, nesterov=True),
    "sm3": method("sm3", None),
    "sm3, averages": method("sm3", None, b2=0.9, momentum=None, eps=1e-6),
    "lamb": method("lamb", 2),
    "lamb, with decay": method("lamb", 2, weight_decay=0.1, eps_root=1e-8),
}

# Expressions of links that other rows have.
LIKE_ANOTHER = {
    "sgd", "ema_sgd", "rmsprop", "rmsprop with momentum", "adamw", "nadam", "adabelief",
    "ema_sgd corrected", "adagrad from 0", "adadelta with decay", "rmsprop with nesterov",
    "adam without averages", "nadamw", "signum",
}  # fmt: skip


def is_like_another(name: str) -> bool:
    """Whether a row differs from another by numbers alone (after a comma), or has no link alone."""
    return "," in name or name in LIKE_ANOTHER


# For what holds whatever the numbers: the others are tried with `-m slow`.
by_kind = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if is_like_another(name) else ())
        for name in METHODS
    ],
)
