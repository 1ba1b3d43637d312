"""Inside of `dealt` every transformation of the table gives the numbers that it gives outside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everything import EVERY, KINDS, MASK, PARAMS, extras
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gdtx

BOTH = ("data", "model")
MATRIX = P("data", "model")
# Paths that are equal but for numbers go together.
WHERE = {"b": P("model"), "w": MATRIX, "w1": MATRIX, "w2": MATRIX}
# What is another program inside: that of all others is the same, in its very words.
DEALT = {
    "scale_by_full_matrix", "scale_by_muon", "scale_by_shampoo", "scale_by_soap", "blockwise",
    "precondition", "in_eigenbasis", "packed", "orthogonalize", "whiten", "scale_by_ekfac",
    "scale_by_kfac", "kfac", "levenberg_marquardt", "muon", "normuon", "psgd", "shampoo", "soap",
    "projected", "galore",
}  # fmt: skip
QUICK = ("lamb", "orthogonalize", "blockwise")


def row(name):
    """In blocks of two, where it has some: else there is one, and one device that works."""
    tx = EVERY[name]
    if name not in DEALT:
        return tx
    new = {key: ["w*"] for key, value in tx.arguments.items() if value in (MASK, ["w"])}
    if isinstance(tx.arguments.get("blocks"), gdtx.Blocks):
        new["blocks"] = gdtx.Blocks(2)
    if name == "scale_by_full_matrix":
        new["block_size"] = 2
    return tx.replace(**new)


def draw(seed, name):
    """The tree of the table; of what is dealt with more matrices, but for layers of a model."""
    rng = np.random.default_rng(seed)
    shapes = {key: p.shape for key, p in PARAMS.items()}
    if name in DEALT - KINDS["curvature"].keys():
        shapes |= {"w1": (4, 2), "w2": (4, 2)}
    return {key: rng.normal(size=shape) for key, shape in shapes.items()}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in EVERY]
)
def test_it_is_the_same_program_or_gives_equal_updates(name, x64):
    """In float64, in which no eigenvectors of these statistics are anyone's choice."""
    inner, params = row(name), draw(0, name)
    mesh = jax.make_mesh((4, 2), BOTH, axis_types=(AxisType.Auto,) * 2)
    where = {key: NamedSharding(mesh, WHERE[key]) for key in params}

    def lowered(tx, params):
        def step(updates, state, params):
            return tx.update(updates, state, params, **extras(name, params))

        state = tx.init(params)
        return state, jax.jit(step).lower(params, state, params)

    on_mesh = jax.device_put(params, where)
    state, program = lowered(gdtx.dealt(inner, BOTH), on_mesh)
    is_the_same = program.as_text() == lowered(inner, on_mesh)[1].as_text()
    assert is_the_same == (name not in DEALT)
    if is_the_same:
        return
    plain = jax.tree.map(jnp.asarray, params)
    expected, alone = lowered(inner, plain)
    dealt, alone = program.compile(), alone.compile()
    for seed in (1, 2, 3):
        found, state = dealt(jax.device_put(draw(seed, name), where), state, on_mesh)
        one, expected = alone(jax.tree.map(jnp.asarray, draw(seed, name)), expected, plain)
        for key in params:
            np.testing.assert_allclose(found[key], one[key], rtol=1e-10, atol=1e-10)
