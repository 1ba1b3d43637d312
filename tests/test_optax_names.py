"""Names of Optax's: gdtx has them, or says what to use in their place."""

import importlib
import pickle
import re

import pytest

import gdtx

optax = pytest.importorskip("optax", reason="Optax is installed by the extra 'test'")


def public(module):
    return {name for name in {*dir(module), *getattr(module, "__all__", ())} if name[0] != "_"}


def found(path):
    """What a path such as optax.losses.l2_loss is the path of."""
    root, *names = path.split(".")
    value = {"gdtx": gdtx, "optax": optax}[root]
    for name in names:
        value = getattr(value, name)
    return value


@pytest.mark.parametrize("module", ["optax", "optax.contrib", "optax.losses"])
def test_every_public_name_is_here_or_explained(module):
    """And what is quoted in its place is there."""
    names = sorted(public(importlib.import_module(module)))
    assert len(names) > 30
    missing = [name for name in names if not hasattr(gdtx, name)]
    assert missing
    for name in missing:
        with pytest.raises(AttributeError) as error:
            getattr(gdtx, name)
        start, _, advice = str(error.value).partition(": ")
        assert start == f"module 'gdtx' has no attribute {name!r}"
        assert advice, f"no word about optax's {name}"
        for path in re.findall(r"\b(?:gdtx|optax)(?:\.\w+)+", advice):
            found(path)


def test_what_they_say():
    said = {
        "multi_transform": r"use gdtx\.partition\(transforms, labels\)",
        "EmptyState": r"use the empty tuple, \(\)",
        "softmax_cross_entropy": r"losses stay where they are: optax\.losses\.softmax_cross_entr",
        "TraceState": r"use gdtx\.find\(state, name\)",
        "cocob": r"use optax\.contrib\.cocob, which gdtx\.chain takes and",
        "Params": "types are your own",
        "tree_utils": r"utilities stay where they are: optax\.tree_utils",
    }
    for name, message in said.items():
        with pytest.raises(AttributeError, match=f"{name!r}: {message}"):
            getattr(gdtx, name)


def test_no_advice_is_for_a_name_that_is_here():
    from gdtx.interop import optax_names as names

    listed = [*names._instead, *" ".join(names._of_many.values()).split()]
    assert len(set(listed)) == len(listed)
    assert not [name for name in listed if hasattr(gdtx, name)]


def test_a_module_like_any_other():
    assert not hasattr(gdtx, "multi_transform")
    assert getattr(gdtx, "EmptyState", 1) == 1
    assert not {"multi_transform", "EmptyState", "typing"} & set(dir(gdtx))
    with pytest.raises(ImportError, match="cannot import name 'multi_transform' from 'gdtx'"):
        exec("from gdtx import multi_transform")
    for name in ("adm", "__wrapped__"):
        with pytest.raises(AttributeError) as error:
            getattr(gdtx, name)
        assert str(error.value) == f"module 'gdtx' has no attribute {name!r}"
        # By these two Python finds names that are spelled like it.
        assert (error.value.name, error.value.obj) == (name, gdtx)
    scope = {}
    exec("from gdtx import *", scope)
    assert scope["adam"] is gdtx.adam
    assert pickle.loads(pickle.dumps(gdtx.adam)) is gdtx.adam
