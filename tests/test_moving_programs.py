"""The programs of docs/moving/programs.md: both of each pair give the same numbers."""

import difflib
import importlib.util
import re
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gdtx

FOLDER = Path(__file__).parent.parent / "docs" / "moving"
PAGE = (FOLDER / "programs.md").read_text()
FILES = {file.stem: file for file in (FOLDER / "programs").glob("*.py")}

optax = pytest.importorskip("optax", reason="Optax is installed by the extra 'test'")


@pytest.fixture(autouse=True)
def as_a_script(x64):
    """As they are run on their own: shapes of other ranks are brought together."""
    with jax.numpy_rank_promotion("allow"):
        yield


def program(name):
    spec = importlib.util.spec_from_file_location(name, FILES[name])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def same(found, expected):
    # The programs of the other side take powers of decays and rates in float32.
    chex.assert_trees_all_close(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("pair", ["ppo", "lookahead_sam", "meta"])
def test_trained_alike(pair):
    found, expected = (program(f"{pair}_{library}").train() for library in ("gdtx", "optax"))
    same(found, expected)
    if pair != "lookahead_sam":
        values = np.abs(expected[0])
        assert values[-2:].mean() < values[:2].mean() / 4  # and they learn


def test_ppo_differs_by_one_line():
    old, new = (FILES[f"ppo_{name}"].read_text().splitlines() for name in ("optax", "gdtx"))
    changes = [line for line in difflib.ndiff(old, new) if line[0] in "+-"]
    assert changes == ["- import optax", "+ import gdtx as optax"]


def descend(update, gradients, params, state):
    """The last state and the parameters after each update."""

    def step(carry, gradient):
        params, state = update(gradient, carry[1], carry[0])
        return (params, state), params

    return jax.jit(lambda p, s: jax.lax.scan(step, (p, s), gradients))(params, state)


def some(structure, *leading):
    rng = np.random.default_rng(0)
    shape = lambda x: isinstance(x, tuple)  # noqa: E731
    return jax.tree.map(
        lambda s: jnp.asarray(rng.normal(size=leading + s)), structure, is_leaf=shape
    )


def test_groups():
    dense = {"kernel": (4, 3), "bias": (3,)}
    shapes = {"embed": {"kernel": (5, 4)}, "layers": [dense, dense], "head": dense}
    params, gradients = some(shapes), some(shapes, 20)

    def path(module, tx):
        def update(gradient, state, params):
            updates, state = tx.update(gradient, state, params)
            return module.apply_updates(params, updates), state

        return descend(update, gradients, params, tx.init(params))[1]

    found = path(gdtx, program("groups_gdtx").make(0.1, 20, layers=2))
    theirs = program("groups_optax")
    expected = path(optax, theirs.make(params, 0.1, 20, layers=2))
    same(found, expected)
    np.testing.assert_array_equal(found["embed"]["kernel"][-1], params["embed"]["kernel"])
    with pytest.raises(ValueError, match="no pattern matches tail/bias"):
        theirs.labels_of({"tail": {"bias": jnp.zeros(3)}}, [("head/.*", "head")])
    with pytest.raises(ValueError, match="patterns that match nothing"):
        theirs.labels_of({"head": jnp.zeros(3)}, [("head", "head"), ("tail", "head")])


def test_adam():
    shapes = {"kernel": (4, 3), "bias": (3,)}
    params, gradients = some(shapes), some(shapes, 100)
    theirs, ours = program("adam_by_hand"), program("adam_gdtx")
    (last, state), expected = descend(theirs.update, gradients, params, theirs.init(params))
    (last_of_ours, our_state), found = descend(ours.update, gradients, params, ours.tx.init(params))
    same(found, expected)
    same(ours.for_evaluation(our_state, last_of_ours), theirs.for_evaluation(state))
    assert not np.allclose(theirs.for_evaluation(state)["bias"], last["bias"])


def test_the_page_shows_each_and_counts_its_lines():
    shown = re.findall(r"literalinclude} programs/(\w+)\.py\n", PAGE)
    assert set(shown) == set(FILES)
    counted = re.findall(r", (\d+) lines\b.*?literalinclude} programs/(\w+)\.py", PAGE, re.DOTALL)
    assert len(counted) == len(FILES)
    for lines, name in counted:
        assert int(lines) == len(FILES[name].read_text().splitlines()), name
