"""Matrices of one shape go through one call: programs, numbers and placement."""

import functools
import re
import runpy
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compilations import counted_compilations
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from test_muon import mixed, mixed_params
from test_sharding import PLACES

import gdtx


def stack_of_layers(n, seed=0, d=4):
    rng = np.random.default_rng(seed)
    shapes = {"k": (d, d), "up": (d, 2 * d), "down": (2 * d, d), "b": (d,), "heads": (d, 3, 2)}
    return {f"layer{i}": {k: jnp.asarray(rng.normal(size=s), jnp.result_type(float))
                          for k, s in shapes.items()} for i in range(n)}  # fmt: skip


def layer_axes(params):
    axes = {"k": "io", "up": "io", "down": "io", "b": False, "heads": "ibo"}
    return {layer: {k: axes[k] for k in leaves} for layer, leaves in params.items()}


@pytest.mark.first(1)
@pytest.mark.parametrize("coefficients", ["keller", "exact"])
def test_matrices_together_are_as_alone(coefficients, x64):
    updates = stack_of_layers(2)
    tx = gdtx.orthogonalize(gdtx.Polar(coefficients, batched=False), axes=layer_axes)
    alone = tx.update(updates, ())[0]
    for settings in ({}, {"batch_size": 4}, {"batched": False, "batch_size": 1}):
        tx = gdtx.orthogonalize(gdtx.Polar(coefficients, **settings), axes=layer_axes)
        got = tx.update(updates, ())[0]
        chex.assert_trees_all_close(got, alone, rtol=0, atol=1e-12)


def program(tx, params):
    state = jax.eval_shape(tx.init, params)
    return jax.jit(tx.update).lower(params, state, params)


def test_program_does_not_grow_with_the_layers():
    """Products are as many for 3 layers as for 12. What each array needs by itself, momentum and
    rate and being joined and split, is less than Adam's in Optax. (That of gdtx is one function for
    all arrays of a shape.)"""
    few, many = (
        {f"layer{i}": jax.ShapeDtypeStruct((8, 8), jnp.float32) for i in range(n)} for n in (3, 12)
    )

    def growth(tx, count):
        return [count(program(tx, params)) for params in (few, many)]

    def products(lowered):
        return lowered.as_text().count("stablehlo.dot_general")

    def operations(lowered):
        return len(re.findall(r"^ +%\S+ = ", lowered.as_text(), re.MULTILINE))

    def compiled(lowered):
        return len(re.findall(r"^ +(?:ROOT )?%?\S+ = ", lowered.compile().as_text(), re.MULTILINE))

    muon, adam = gdtx.muon(0.1, True), optax.adam(0.1)
    assert growth(muon, products) == [3, 3]
    assert growth(gdtx.muon(0.1, True, polar=gdtx.Polar(batched=False)), products) == [
        3 * 3,
        12 * 3,
    ]
    for count in (operations, compiled):
        small, large = growth(muon, count)
        adams_small, adams_large = growth(adam, count)
        assert large - small <= adams_large - adams_small


def test_one_kernel_takes_all_arrays_from_a_call():
    """On a CPU, where compiling it is the larger part: a code for each array is 10 ms and more."""
    params = {f"layer{i}": jax.ShapeDtypeStruct((8, 8), jnp.float32) for i in range(12)}
    text = program(gdtx.orthogonalize(), params).compile().as_text()
    bodies = re.findall(r"^%\S+ \((.*?)\).*?\{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL)
    takes = [
        re.sub(r"\.\d+|, metadata=\{[^}]*\}", "", body)
        for parameters, body in bodies
        if "dynamic-slice(" in body and "u32[]" in parameters
    ]
    assert len(takes) == 12
    assert len(set(takes)) == 1


@pytest.mark.slow  # what it prints is counted above
def test_benchmark(monkeypatch, capsys):
    path = Path(__file__).parents[1] / "benchmarks" / "layers.py"
    monkeypatch.setattr(sys, "argv", [str(path), "--layers", "2", "--width", "4"])
    runpy.run_path(str(path), run_name="__main__")
    *_, header, adam, muon, alone, _, _ = capsys.readouterr().out.splitlines()
    assert header.startswith("2 layers, 10 arrays")
    assert [int(line[24:34]) for line in (adam, muon, alone)] == [0, 3 * 3, 2 * 4 * 3]


@pytest.mark.first(2)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16, jnp.complex64])
def test_one_compilation_donated(dtype):
    params = mixed_params(dtype)
    gradients = jax.tree.map(jnp.ones_like, params)
    tx = mixed()
    state = tx.init(params)
    born = jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), state)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, g):
        updates, state = tx.update(g, state, params)
        return gdtx.apply_updates(params, updates), state

    for i in range(3):
        with counted_compilations() as compilations:
            params, state = step(params, state, gradients)
        assert len(compilations) == (i == 0)
        assert jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), state) == born
    chex.assert_tree_all_finite(params)


SPECS = {
    "k": ("data", "model"),
    "up": (None, "model"),
    "down": ("model", "data"),
    "heads": (None, "data", "model"),
}
SHARDED = {"k": (8, 4), "up": (4, 8), "down": (4, 8), "heads": (3, 4, 2)}


@pytest.mark.first(1)
@pytest.mark.diagonal
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_sharded_matrices(kind, batched):
    place = {AxisType.Auto: "automatic", AxisType.Explicit: "explicit"}[kind]
    rng = np.random.default_rng(14)
    params, *gradients = (
        {k: rng.normal(size=s).astype(np.float32) for k, s in SHARDED.items()} for _ in range(4)
    )
    axes = {"k": "io", "up": "io", "down": "oi", "heads": "bio"}
    tx = gdtx.muon(0.1, axes, polar=gdtx.Polar(batched=batched))

    def step(params, state, g):
        updates, state = tx.update(g, state, params)
        return gdtx.apply_updates(params, updates), state

    def trained(params, gradients):
        state = tx.init(params)
        jitted = jax.jit(functools.partial(step), donate_argnums=(0, 1))
        with counted_compilations() as compilations:
            for g in gradients:
                params, state = jitted(params, state, g)
        assert len(compilations) == 1
        return params, state

    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind, kind))

    def put(tree):
        return {
            k: jax.device_put(v, NamedSharding(mesh, PartitionSpec(*SPECS[k])))
            for k, v in tree.items()
        }

    want = trained(*jax.tree.map(jnp.asarray, (params, gradients)))
    with PLACES[place]():
        placed = put(params)
        got = trained(put(params), list(map(put, gradients)))
        # Updates alone the compiler places as it likes, on an automatic mesh.
        for trees in (
            got[0],
            *jax.tree.leaves(got[1], is_leaf=lambda x: isinstance(x, dict) and "k" in x),
        ):
            for k, p in placed.items():
                assert trees[k].sharding.is_equivalent_to(p.sharding, p.ndim), k
    chex.assert_trees_all_close(jax.device_get(got), jax.device_get(want), atol=1e-4)
