"""Matrices are dealt out to the devices: equal numbers, one move in and one back, local work."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import counted_compilations
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec
from test_sharding import described, fresh_rate, on_mesh

import gdtx
from gdtx.links.matrix import orthogonal

# Layers by themselves, of which two kinds have one shape and are cut in different ways, and a
# stack of layers; fewer of each than devices.
SHAPES = {"query": (8, 8), "out": (8, 8), "down": (16, 8)}
SPECS = {"query": ("data", "model"), "out": ("model", "data"), "down": (None, "model")}
AXES = [("stack", "bio"), *((f"*/{name}", "io") for name in SHAPES)]
BOTH = ("data", "model")
COLLECTIVES = r"\b(all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(-start)?\("


def draw(seed):
    rng = np.random.default_rng(seed)
    shapes = {"b": (6,), **{f"layer{i}": SHAPES for i in range(3)}, "stack": (5, 4, 8)}
    return jax.tree.map(
        lambda shape: rng.normal(size=shape).astype(np.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def sharded(mesh, tree):
    layer = {name: NamedSharding(mesh, PartitionSpec(*spec)) for name, spec in SPECS.items()}
    where = dict.fromkeys(tree, layer) | {
        "b": NamedSharding(mesh, PartitionSpec("model")),
        "stack": NamedSharding(mesh, PartitionSpec(None, "model", "data")),
    }
    return jax.device_put(tree, where)


def mesh_of(axis_type=AxisType.Auto):
    return jax.make_mesh((4, 2), ("data", "model"), axis_types=(axis_type,) * 2)


METHODS = {
    "muon": lambda rate: gdtx.muon(rate, AXES, gdtx.adamw(rate)),
    "exact": lambda rate: gdtx.muon(rate, AXES, gdtx.adamw(rate), polar=gdtx.Polar("exact")),
    "one at a time": lambda rate: gdtx.orthogonalize(gdtx.Polar(batch_size=1), AXES),
    "normuon": lambda rate: gdtx.normuon(rate, AXES, gdtx.adamw(rate)),
    "dion": lambda rate: gdtx.dion(rate, 2, AXES, gdtx.adamw(rate)),
    "galore": lambda rate: gdtx.galore(gdtx.adam(rate), 2, axes=AXES),
    "adam": lambda rate: gdtx.adam(rate),
}


@pytest.mark.parametrize(
    ("name", "over", "axis_type"),
    [
        ("muon", BOTH, AxisType.Auto),
        pytest.param("muon", BOTH, AxisType.Explicit),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                ("muon", "data", AxisType.Auto),
                ("muon", "model", AxisType.Explicit),
                ("muon", ("model", "data"), AxisType.Auto),
                ("exact", BOTH, AxisType.Auto),
                ("one at a time", BOTH, AxisType.Auto),
                ("normuon", BOTH, AxisType.Auto),
                ("dion", BOTH, AxisType.Auto),
                ("galore", BOTH, AxisType.Auto),
                ("galore", "data", AxisType.Explicit),
                ("adam", BOTH, AxisType.Explicit),
            ]
        ),
    ],
    ids=lambda x: getattr(x, "name", None) or "-".join([x] if isinstance(x, str) else x),
)
def test_it_equals_one_device_and_keeps_all_where_it_was(name, over, axis_type):
    rate = fresh_rate()
    tx, params, gradients = METHODS[name](rate), draw(0), [draw(1), draw(2)]
    plain, expected = jax.tree.map(jnp.asarray, params), []
    state = tx.init(plain)
    for g in gradients:
        updates, state = tx.update(jax.tree.map(jnp.asarray, g), state, plain)
        expected.append(updates)

    with on_mesh(axis_type):
        mesh = mesh_of(axis_type)
        tx, params = gdtx.dealt(tx, over), sharded(mesh, params)
        state = tx.init(params)
        born = described(state)
        with counted_compilations() as compilations:
            for g, plain in zip(gradients, expected, strict=True):
                updates, state = tx.update(sharded(mesh, g), state, params)
                assert described(state) == born
                columns = map(jax.tree.leaves, (updates, plain, params))
                for one, other, p in zip(*columns, strict=True):
                    np.testing.assert_allclose(one, other, atol=3e-6 * rate, rtol=3e-6)
                    assert one.sharding == p.sharding
        assert len(compilations) == 1


def moves(text):
    """How often the program moves more than a number, and of these how often in a loop."""
    inside, name, found = set(), None, []
    called = {}
    for line in text.splitlines():
        if started := re.match(r"(?:ENTRY )?%?([\w.-]+) \(.*\{$", line):
            name = started[1]
            called[name] = set()
        elif name:
            called[name] |= set(re.findall(r"(?:to_apply|calls|body|condition)=%?([\w.-]+)", line))
            inside |= set(re.findall(r"body=%?([\w.-]+)", line))
            if move := re.search(r"= (.*?) " + COLLECTIVES, line):
                sizes = re.findall(r"\[([\d,]*)\]", move[1])
                if max(math.prod(map(int, filter(None, size.split(",")))) for size in sizes) > 1:
                    found.append((name, move[2]))
    todo = list(inside)
    while todo:
        new = called.get(todo.pop(), set()) - inside
        inside |= new
        todo += new
    return sorted(kind for _, kind in found), [kind for where, kind in found if where in inside]


def compiled(tx, params):
    state = tx.init(params)
    return jax.jit(tx.update).lower(params, state, params).compile().as_text()


def test_matrices_move_once_for_each_axis_they_are_cut_along_and_not_in_loops():
    mesh, tx = mesh_of(), gdtx.orthogonalize(axes=AXES)
    params = sharded(mesh, draw(0))
    found, in_loops = moves(compiled(gdtx.dealt(tx, BOTH), params))
    # Queries, outputs and the stack are cut along both axes, `down` along one; along the other it
    # is whole on every device, and is again.
    assert found == ["all-gather"] + ["all-to-all"] * (2 * (2 + 2 + 2 + 1))
    assert not in_loops
    assert moves(compiled(tx, params))[1]


@pytest.mark.first(1)
@pytest.mark.parametrize("stacked", [False, True], ids=["by themselves", "stacked"])
def test_memory_is_twice_the_parameters(stacked):
    """That of a device: what is dealt goes group after group, and some matrices at a time."""
    mesh, layers, size = mesh_of(), 8, 512
    sizes = {"query": (size, size), "up": (size, 2 * size), "down": (2 * size, size)}

    def struct(name, sizes, spec):
        lead = (layers,) if stacked else ()
        where = NamedSharding(mesh, PartitionSpec(*[None] * len(lead), *spec))
        return jax.ShapeDtypeStruct((*lead, *sizes), jnp.float32, sharding=where)

    specs = {"query": BOTH, "up": BOTH, "down": BOTH[::-1]}
    layer = {name: struct(name, sizes[name], specs[name]) for name in sizes}
    params = layer if stacked else [layer] * layers
    axes = "bio" if stacked else "io"
    tx = gdtx.dealt(gdtx.muon(0.1, axes, gdtx.sgd(0.1), polar=gdtx.Polar(batch_size=1)), BOTH)
    program = jax.jit(tx.update).lower(params, tx.init(params), params).compile()
    of_a_device = 4 * layers * 5 * size**2 // 8
    assert program.memory_analysis().temp_size_in_bytes <= 2.2 * of_a_device


@pytest.mark.parametrize("at_once", [1, 2])
def test_each_device_works_on_matrices_of_its_own(at_once, monkeypatch):
    monkeypatch.setattr(orthogonal, "_AT_ONCE", at_once * 4 * 8)
    jax.clear_caches()  # of the same update, traced with another constant
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    params = jax.device_put({"w": jnp.ones((12, 4, 8))}, NamedSharding(mesh, PartitionSpec()))
    text = compiled(gdtx.dealt(gdtx.orthogonalize(axes="bio"), "data"), params)
    assert moves(text) == (["all-gather"], [])
    # Of sixteen matrices, of which four are zeros, two are a device's.
    assert "f32[2,4,8]" in text
    assert [n for n in range(2, 17) if f"f32[{n},4,4]" in text] == [2] * (at_once == 2)


@pytest.mark.parametrize(
    "tx", [gdtx.lamb(0.1), gdtx.clip_by_global_norm(1.0)], ids=["lamb", "clip"]
)
def test_what_looks_at_no_matrix_is_the_same_program(tx):
    params = sharded(mesh_of(), draw(0))
    lowered = [
        jax.jit(each.update).lower(params, each.init(params), params).as_text()
        for each in (tx, gdtx.dealt(tx, BOTH))
    ]
    assert lowered[0] == lowered[1]


@pytest.mark.parametrize("mesh", ["its axis has one device", "of one device"])
def test_where_no_axis_has_more_devices_it_is_inner(mesh):
    shape = (1, 8) if mesh == "its axis has one device" else (1, 1)
    devices = jax.devices()[: math.prod(shape)]
    mesh = jax.make_mesh(shape, BOTH, axis_types=(AxisType.Auto,) * 2, devices=devices)
    params = jax.device_put({"w": jnp.ones((4, 8))}, NamedSharding(mesh, PartitionSpec()))
    tx = gdtx.orthogonalize()
    lowered = [
        jax.jit(each.update).lower(params, each.init(params), params).as_text()
        for each in (tx, gdtx.dealt(tx, "data"))
    ]
    assert lowered[0] == lowered[1]


def test_the_mesh_is_that_of_the_arrays_of_the_context_or_of_the_argument():
    mesh, tx = mesh_of(), gdtx.orthogonalize()
    g = {"w": jnp.arange(32.0).reshape(4, 8) + jnp.eye(4, 8)}
    expected = tx.update(g, ())[0]["w"]

    def found(given=None, over=BOTH):
        return jax.jit(gdtx.dealt(tx, over, given).update)(g, ())[0]["w"]

    np.testing.assert_allclose(found(mesh), expected, atol=3e-6)
    set_mesh = jax.set_mesh if hasattr(jax, "set_mesh") else jax.sharding.use_mesh
    with set_mesh(mesh):
        np.testing.assert_allclose(found(), expected, atol=3e-6)
    with pytest.raises(ValueError, match=r"dealt: no mesh is known that has the axes 'data', 'mo"):
        found()
    with pytest.raises(ValueError, match="over has 'pipe', which is no axis of the mesh: that has"):
        found(mesh, ("data", "pipe"))
    # The mesh of the arrays is the one.
    on_it = jax.device_put(g, NamedSharding(mesh, PartitionSpec()))
    other = AbstractMesh((3,), ("pipe",))
    with pytest.raises(ValueError, match="over has 'pipe'"):
        gdtx.dealt(tx, "pipe", other).update(on_it, ())


@pytest.mark.parametrize("over", [(), "", ("data", "data"), ("data", 1), 3])
def test_axes_are_one_name_or_several(over):
    with pytest.raises(
        (TypeError, ValueError), match="dealt: over must be the name of a mesh axis"
    ):
        gdtx.dealt(gdtx.orthogonalize(), over)


def test_a_list_of_names_is_a_tuple():
    assert gdtx.dealt(gdtx.muon(0.1, True), ["data", "model"]).arguments["over"] == BOTH


@pytest.mark.slow
def test_numbers_that_are_none_and_derivatives_are_those_of_inner(x64):
    params = sharded(mesh_of(), jax.tree.map(np.float64, draw(0)))
    bad = params | {"stack": params["stack"].at[0, 0, 0].set(jnp.nan)}
    tx = gdtx.orthogonalize(axes=AXES)
    one, other = (each.update(bad, ())[0] for each in (tx, gdtx.dealt(tx, BOTH)))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(jnp.isnan(a), jnp.isnan(b))

    def loss(tx, params):
        return sum(jnp.sum(u**3) for u in jax.tree.leaves(tx.update(params, ())[0]))

    one, other = (jax.jit(jax.grad(loss, 1))(each, params) for each in (tx, gdtx.dealt(tx, BOTH)))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)
