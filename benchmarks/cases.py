"""What the benchmarks compare: methods that gdtx and Optax share, and trees of parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import optax

import gdtx


class Method(NamedTuple):
    """One rule in both libraries, and how theirs differs from ours, if it does."""

    gdtx: Any
    optax: Any
    differs: str


def both(name: str, *args: float, differs: str = "", **kwargs: Any) -> Method:
    """The method of this name, with the same arguments in both libraries."""
    return Method(
        getattr(gdtx, name)(*args, **kwargs), getattr(optax, name)(*args, **kwargs), differs
    )


# Not Rprop: Optax's takes each step with the sizes of the step before, which is another rule.
METHODS = {
    "sgd": both("sgd", 1e-3),
    "sgd momentum": both("sgd", 1e-3, momentum=0.9),
    "sgd nesterov": both("sgd", 1e-3, momentum=0.9, nesterov=True),
    "adagrad": both("adagrad", 1e-3, differs="optax also tests every sum for 0"),
    "adadelta": both("adadelta", 1.0),
    "rmsprop": both("rmsprop", 1e-3),
    "rmsprop momentum": both("rmsprop", 1e-3, momentum=0.9),
    "rmsprop centered": both(
        "rmsprop", 1e-3, centered=True, differs="optax subtracts two averages to get the variance"
    ),
    "adam": both("adam", 1e-3),
    "adamw": both("adamw", 1e-3),
    "adamax": both("adamax", 1e-3),
    "nadam": both("nadam", 1e-3),
    "nadamw": both("nadamw", 1e-3),
    "radam": both("radam", 1e-3, threshold=5.0),
    "amsgrad": both("amsgrad", 1e-3, differs="optax takes the maximum after the bias correction"),
    "lion": both("lion", 1e-3),
    "adabelief": both("adabelief", 1e-3),
    "yogi": both(
        "yogi", 1e-3, differs="optax starts the mean at 1e-6, and takes no care of infinite squares"
    ),
    "adan": Method(gdtx.adan(1e-3, eps_root=1e-8, ahead=1 - 0.92), optax.adan(1e-3), differs=""),
}

# Norms and means of arrays, which do not overflow, cost more than Optax's, which do.
OF_ARRAYS = {
    name: both(name, 1e-3, differs="optax's norms and means overflow where a square does")
    for name in ("lamb", "adafactor")
}


def gpt2() -> dict[str, Any]:
    """Shapes of the parameters of GPT-2 small."""

    def layer(inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
        return {"kernel": (inputs, outputs), "bias": (outputs,)}

    norm = {"scale": (768,), "bias": (768,)}
    attention = {"qkv": layer(768, 2304), "out": layer(768, 768)}
    mlp = {"up": layer(768, 3072), "down": layer(3072, 768)}
    block = {"norm1": norm, "attention": attention, "norm2": norm, "mlp": mlp}
    blocks = {f"block{i}": block for i in range(12)}
    return {"tokens": (50257, 768), "positions": (1024, 768), "norm": norm, **blocks}


TREES: dict[str, tuple[str, dict[str, Any]]] = {
    "large": ("few large", {f"layer{i}": (2048, 2048) for i in range(4)}),
    "huge": ("many large", {f"layer{i}": (2048, 2048) for i in range(32)}),
    "cached": ("few that a cache holds", {f"layer{i}": (256, 256) for i in range(8)}),
    "many": ("many small", {f"layer{i}": {"w": (32, 32), "b": (32,)} for i in range(500)}),
    "gpt2": ("GPT-2 small", gpt2()),
    "tiny": ("tiny", {f"layer{i}": {"w": (16, 16), "b": (16,)} for i in range(2)}),
}
