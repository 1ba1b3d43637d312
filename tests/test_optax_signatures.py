"""Arguments in their places: what has Optax's name and position means the same, or raises."""

import importlib
import inspect
import re

import jax.numpy as jnp
import pytest

import gdtx

optax = pytest.importorskip("optax", reason="Optax is installed by the extra 'test'")

# Ours, and Optax's names for the same.
RENAMED = {
    "mask": {"weight_decay_mask"},
    "trust_mask": {"trust_ratio_mask"},
    "eps": {"epsilon"},
    "dtype": {"accumulator_dtype"},
    "momentum": {"beta"},
    "factor": {"step_size"},
    "schedule": {"step_size_fn"},
    "seed": {"key"},
    "inner": {"fast_optimizer", "base_optimizer"},
    "labels": {"param_labels"},
    "links": {"args"},
}
# Functions of another kind under the same name, and calls of Optax's that raise.
OTHERWISE = {
    "bias_correction": [((jnp.ones(2), 0.9, 1), "too many positional arguments")],
    "freeze": [(({"w": True},), "freeze: missing a required argument: 'what'")],
    "galore": [((0.1, 128), "galore: inner must be a transformation")],
    "muon": [((0.1, None, 5), "muon: others must be a transformation"),
             ((0.1, None, None, 0.9), "muon: too many positional arguments")],
    "scale_by_muon": [(((3.4, -4.8, 2.0),), "scale_by_muon: momentum must be a number in"),
                      ((0.9, 5), "scale_by_muon: too many positional arguments")],
}  # fmt: skip


def shared():
    modules = ["optax", "optax.contrib", "optax.schedules", "optax.transforms"]
    for module in map(importlib.import_module, modules):
        for name in dir(module):
            ours = getattr(gdtx, name, None)
            if name[0] != "_" and ours is not None and hasattr(ours, "__gdtx_signature__"):
                yield name, ours, getattr(module, name)


def positional(factory):
    parameters = inspect.signature(factory).parameters.values()
    return [p.name for p in parameters if p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD)]


SHARED = {name: (ours, theirs) for name, ours, theirs in shared()}


def test_there_are_many():
    assert len(SHARED) > 70


@pytest.mark.parametrize("name", sorted(SHARED.keys() - OTHERWISE))
def test_positions_mean_the_same(name):
    ours, theirs = map(positional, SHARED[name])
    shifted = [
        pair
        for pair in zip(ours, theirs, strict=False)
        if pair[0] != pair[1] and pair[1] not in RENAMED.get(pair[0], ())
    ]
    assert not shifted


def test_other_names_of_arguments_are_known():
    """As in files of settings that were written for Optax."""
    tried = set()
    for name in SHARED:
        ours, theirs = (inspect.signature(factory).parameters for factory in SHARED[name])
        for mine, names in RENAMED.items():
            for other in names & set(theirs) - {"args"} if mine in ours else ():
                needed = {p.name: 0.1 for p in ours.values() if p.default is p.empty}
                hint = f"{name}: unknown argument {other!r}, did you mean {mine!r}?"
                with pytest.raises(TypeError, match=re.escape(hint)):
                    SHARED[name][0](**{**needed, other: 0.1})
                tried.add(other)
    assert tried == set().union(*RENAMED.values()) - {"args"}


@pytest.mark.parametrize("name", OTHERWISE)
def test_where_they_do_not_it_raises(name):
    for args, message in OTHERWISE[name]:
        with pytest.raises(TypeError, match=re.escape(message)):
            SHARED[name][0](*args)


def test_what_comes_by_name_is_shown():
    with pytest.raises(TypeError, match=re.escape(
        "scale_by_sm3: too many positional arguments; scale_by_sm3 takes (*, b2, eps)"
    )):  # fmt: skip
        gdtx.scale_by_sm3(0.9, 0.999)  # pyright: ignore[reportCallIssue]
    message = "lion takes (learning_rate, b1, b2, mu_dtype, *, weight_decay, mask)"
    with pytest.raises(TypeError, match=re.escape(message)):
        gdtx.lion(0.1, 0.9, 0.99, None, 0.1)  # pyright: ignore[reportCallIssue]
