"""Blocks that are dealt to devices: the numbers of one device, state and work in as many parts."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_kfac_sharding
from compilations import counted_compilations
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from test_matrix_sharding import COLLECTIVES
from test_scale_benchmark import HLO
from test_sharding import described, fresh_rate, on_mesh

import gdtx
from gdtx.core.trees.dealing import Dealer
from gdtx.links.matrix.blocks import groups, stack
from gdtx.links.matrix.moved import dealt_name, move_in, move_out

OVER = ("data", "model")
SETTINGS = {"blocks": gdtx.Blocks(4)}
METHODS = {
    "shampoo": lambda rate: gdtx.shampoo(rate, eps=1e-3, roots=gdtx.Roots(2), **SETTINGS),
    # From step 3 on no eigenvector of the statistics of a block is anyone's choice.
    "soap": lambda rate: gdtx.soap(rate, eps=1e-3, bases=gdtx.Bases(2, start=3), **SETTINGS),
    "psgd": lambda rate: gdtx.psgd(rate, **SETTINGS),
    "full matrix": lambda rate: gdtx.full_matrix_adagrad(rate, eps=1e-3, block_size=8),
}
# Blocks on both axes and a rest on one; blocks with a side that no mesh divides; vectors.
SHAPES = {"w": (8, 16), "v": (3, 16), "b": (16,)}
STEPS = 5


def draw(seed):
    rng = np.random.default_rng(seed)
    return {k: rng.normal(size=shape).astype(np.float32) for k, shape in SHAPES.items()}


@functools.cache
def on_one_device(name):
    tx, params = METHODS[name](0.1), jax.tree.map(jnp.asarray, draw(0))
    state, steps = tx.init(params), []
    for i in range(STEPS):
        updates, state = tx.update(draw(1 + i), state, params)
        steps.append(updates)
    return steps


@pytest.mark.parametrize(
    ("name", "axis_type", "over"),
    [
        pytest.param("shampoo", AxisType.Auto, OVER, marks=pytest.mark.slow),
        ("soap", AxisType.Explicit, OVER),
        pytest.param("shampoo", AxisType.Explicit, "data", marks=pytest.mark.slow),
        pytest.param("soap", AxisType.Auto, "model", marks=pytest.mark.slow),
        pytest.param("psgd", AxisType.Auto, OVER, marks=pytest.mark.slow),
        ("full matrix", AxisType.Auto, OVER),
        pytest.param("full matrix", AxisType.Explicit, OVER, marks=pytest.mark.slow),
    ],
    ids=lambda value: getattr(value, "name", "+".join(value) if type(value) is tuple else value),
)
def test_state_is_born_in_parts_and_equals_that_of_one_device(name, axis_type, over):
    rate = fresh_rate()
    with on_mesh(axis_type) as put:
        params, gradients = put(draw(0)), [put(draw(1 + i)) for i in range(STEPS)]
        tx = gdtx.dealt(METHODS[name](rate), over)
        state = tx.init(params)
        born = described(state)
        stacks = [x for x in jax.tree.leaves(state) if x.ndim > 2]
        assert stacks
        names = (over,) if isinstance(over, str) else over
        for x in stacks:
            assert x.sharding.spec[0] == (over if isinstance(over, str) else names)
            assert len(x) % np.prod([x.sharding.mesh.shape[each] for each in names]) == 0
        expected = gdtx.sharding.state_sharding(tx, params)
        assert jax.tree.map(lambda x: x.sharding, state) == expected
        with counted_compilations() as compilations:
            steps = []
            for g in gradients:
                updates, state = tx.update(g, state, params)
                assert described(state) == born
                assert all(u.sharding == params[k].sharding for k, u in updates.items())
                steps.append(updates)
        assert len(compilations) == 1
    for one, other in zip(
        jax.tree.leaves(steps), jax.tree.leaves(on_one_device(name)), strict=True
    ):
        np.testing.assert_allclose(one / rate, other / 0.1, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["shampoo", pytest.param("soap", marks=pytest.mark.slow)])
def test_only_updates_and_the_number_of_failures_move(name):
    with on_mesh(AxisType.Auto) as put:
        # What is equal moves together.
        params = {name: put({"w": np.ones((16, 16), np.float32)})["w"] for name in ("w1", "w2")}
        tx = gdtx.dealt(getattr(gdtx, name)(0.1, blocks=gdtx.Blocks(4)), OVER)
        state = tx.init(params)
        kept = jax.tree.map(lambda x: x.sharding, (params, state))
        step = jax.jit(tx.update, out_shardings=kept)
        text = step.lower(params, state, params).compile().as_text()
    moved = [line for line in text.splitlines() if re.search(COLLECTIVES, line)]
    conditional = [line for line in moved if "/cond/" in line]
    # How many roots failed is summed over all devices.
    for line in conditional:
        assert re.search(r"= \(?s32\[\].* all-reduce", line), line
    numbers = [
        int(np.prod([int(d) for d in re.search(r"f32\[([\d,]*)\]", line)[1].split(",") if d]))
        for line in moved
        if line not in conditional
    ]
    # In and out, an eighth of the matrices each time: to strips along one axis, and to blocks.
    # Each array by itself would take 6; that of jax 0.7 cuts them into strips one by one.
    assert len(numbers) in (4, 5)
    assert all("all-gather" not in line for line in moved)
    assert max(numbers) <= 2 * params["w1"].size // 8


def assert_decomposed_in_parts(text, name="syevd"):
    calls = [line for line in text.splitlines() if re.search(f"custom-call.*{name}", line)]
    assert calls
    # In jax 0.7 no program says it.
    assert jax.__version_info__ < (0, 8) or all("shard_map" in line for line in calls)


def test_roots_of_whole_matrices_are_taken_in_parts():
    with on_mesh(AxisType.Auto) as put:
        params = put({"w": np.ones((8, 4), np.float32)})
        tx = gdtx.dealt(gdtx.scale_by_full_matrix(block_size=4), OVER)
        program = jax.jit(tx.update).lower(params, tx.init(params), params).compile()
    assert_decomposed_in_parts(program.as_text())


@pytest.mark.slow
def test_spaces_of_matrices_are_found_in_parts():
    """Of ten matrices of one shape, stacked or not, each of eight devices takes two."""
    with on_mesh(AxisType.Auto) as put:
        w = put({"w": np.ones((8, 16), np.float32)})["w"]
        params = {"w1": w, "w2": w, "stack": jax.device_put(jnp.ones((8, 8, 16)))}
        tx = gdtx.projected(gdtx.ema(0.9), 2, axes=[("stack", "bio"), ("*", "io")])
        tx = gdtx.dealt(tx, OVER, w.sharding.mesh)
        program = jax.jit(tx.update).lower(params, tx.init(params), params).compile()
    assert_decomposed_in_parts(program.as_text(), "gesdd")


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=lambda t: t.name)
@pytest.mark.first(1)
def test_factors_of_layers_are_decomposed_in_parts(axis_type):
    """K-FAC's state is whole on every device, and the matrices of one size are dealt to them."""
    params, given, value_fn = test_kfac_sharding.unsharded()
    tx = gdtx.scale_by_kfac(0.1, inverse_every=2)
    plain, *_ = test_kfac_sharding.run(tx, params, given, value_fn)
    with test_kfac_sharding.on_mesh(axis_type) as (put, _):
        params = put(params, test_kfac_sharding.SPECS)
        mesh, is_explicit = params["scale"].sharding.mesh, axis_type == AxisType.Explicit

        def whole(x):
            spec = PartitionSpec(*[None] * x.ndim if is_explicit else ())
            return jax.device_put(x, NamedSharding(mesh, spec))

        given = jax.tree.map(whole, given)
        dealt = gdtx.dealt(tx, OVER)
        state, step = dealt.init(params), jax.jit(lambda g, s, c: dealt.update(g, s, curvature=c))
        # It takes no state that is elsewhere.
        program = step.lower(given[0][0], state, given[0][1]).compile()
        found, born = [], described(state)
        for gradients, curvature in given:
            updates, state = program(gradients, state, curvature)
            found.append(updates)
    assert described(state) == born
    assert_decomposed_in_parts(program.as_text())
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_parts_of_the_state_and_of_the_work_are_even():
    """Of 1,024 numbers in 64 blocks of 16, each of 8 devices has 8."""
    mesh = jax.make_mesh((4, 2), OVER, axis_types=(AxisType.Auto,) * 2)
    whole = NamedSharding(mesh, PartitionSpec())
    params = {"w": jax.ShapeDtypeStruct((32, 32), jnp.float32, sharding=whole)}
    shampoo = gdtx.scale_by_shampoo(blocks=gdtx.Blocks(4))

    def numbers(tx):
        state = tx.init(params)
        shapes = [x.sharding.shard_shape(x.shape) for x in jax.tree.leaves(state) if x.ndim]
        return sum(map(np.prod, shapes))

    assert numbers(gdtx.dealt(shampoo, OVER)) == numbers(shampoo) / 8


@pytest.mark.slow
@pytest.mark.parametrize("method", ["shampoo", "soap"])
def test_state_and_work_of_a_device_fall_as_its_share_of_the_devices(method):
    """Of four layers in 64 blocks: numbers, decompositions, and operations of products of each."""
    tx = gdtx.dealt(getattr(gdtx, method)(0.1, blocks=gdtx.Blocks(32)), OVER)
    found = {}
    for sizes in [(1, 2), (2, 2), (4, 2)]:
        n = np.prod(sizes)
        mesh = jax.make_mesh(
            sizes, OVER, devices=jax.devices()[:n], axis_types=(AxisType.Auto,) * 2
        )
        where = NamedSharding(mesh, PartitionSpec(*OVER))
        w = jax.ShapeDtypeStruct((128, 128), jnp.float32, sharding=where)
        params = {f"layer{i}": w for i in range(4)}
        state = tx.init(params)
        shardings = jax.tree.map(lambda x: x.sharding, (params, state))
        step = jax.jit(tx.update, out_shardings=shardings)
        text = step.lower(params, state, params).compile().as_text()
        always, sometimes = HLO["counts"](text, n)
        shapes = [x.sharding.shard_shape(x.shape) for x in jax.tree.leaves(state) if x.ndim]
        kept = sum(map(np.prod, shapes))
        found[n] = kept, sometimes[HLO["DECOMPOSED"]], always[HLO["PRODUCTS"]]
    assert all(found[2])
    for n, each in found.items():
        assert each == tuple(2 * of_two // n for of_two in found[2])


@pytest.mark.first(1)
@pytest.mark.parametrize("over", [OVER, OVER[::-1], ("data",)], ids="+".join)
def test_blocks_move_to_where_they_are_dealt_and_back(over):
    """Numbers of all kinds of parts: rests along either axis, other orders, nothing to divide."""
    mesh = jax.make_mesh((4, 2), OVER, axis_types=(AxisType.Auto,) * 2)
    to = Dealer(mesh, over)
    shapes = [(16, 24), (5, 7), (5, 7), (), (3, 3, 16), (20, 48), (50, 16), (24,), (16, 24)]
    rng = np.random.default_rng(0)
    tree = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    layout = groups(tree, 8, name_of=dealt_name)
    stacks = jax.jit(lambda tree: move_in(tree, layout, to))(tree)
    for name, members in layout.items():
        parts = [stack(tree, {"": [part]})[""] for part in members]
        sizes = members[0].sizes
        expected = np.concatenate([np.asarray(x).reshape(-1, *sizes) for x in parts])
        found = np.asarray(stacks[name]).reshape(-1, *sizes)
        np.testing.assert_array_equal(found[: len(expected)], expected)
        assert not found[len(expected) :].any()
    back = jax.jit(lambda stacks: move_out(stacks, layout, tree, to))(stacks)
    for one, other in zip(back, tree, strict=True):
        np.testing.assert_array_equal(one, other)
