"""Blocks: cut, stacked and put back; programs that do not grow; what every method must do."""

import collections
import functools
import pickle
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compilations import counted_compilations
from hypothesis import given, settings
from hypothesis import strategies as st

import gdtx
from gdtx.links.matrix.blocks import groups, stack, unstack

METHODS = {
    "shampoo": gdtx.shampoo(0.1, eps=1e-4, roots=gdtx.Roots(2)),
    "grafted": gdtx.shampoo(0.1, eps=1e-4, roots=gdtx.Roots(2), graft=gdtx.scale_by_rss()),
    "soap": gdtx.soap(0.1, bases=gdtx.Bases(2)),
}
WHEN = {"shampoo": "roots", "soap": "bases"}
by_method = pytest.mark.parametrize("name", METHODS)


def some_params(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    shapes = {"w": (3, 2), "tall": (3, 2), "v": (3,), "s": (), "empty": (0, 2)}
    params = {name: jnp.asarray(rng.normal(size=s), dtype) for name, s in shapes.items()}
    return {**params, "nothing": None}


def trained(tx, params, steps=5):
    def step(carry, _):
        params, state = carry
        gradients = jax.tree.map(lambda p: p - 1, params)
        updates, state = tx.update(gradients, state, params)
        return (gdtx.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, tx.init(params)), length=steps)[0]


@settings(deadline=None, max_examples=10)
@given(
    st.lists(st.lists(st.integers(0, 5), max_size=4).map(tuple), max_size=4),
    st.integers(1, 4), st.integers(0, 12), st.booleans(),
)  # fmt: skip
def test_what_is_cut_and_put_back_is_the_same(shapes, block_size, merge_size, stacked):
    tree = [np.float32(np.random.default_rng(i).normal(size=s)) for i, s in enumerate(shapes)]
    layout = groups(tree, block_size, merge_size, stacked)

    @jax.jit
    def cut_and_put_back(tree):
        blocks = stack(tree, layout)
        return blocks, unstack(blocks, layout, jax.tree.map(jnp.zeros_like, tree))

    blocks, again = cut_and_put_back(tree)
    for name, members in layout.items():
        assert len(blocks[name]) == len(members)
        # No block is longer than asked, but for axes that merging has made whole.
        assert max(members[0].sizes) <= block_size
    assert sum(x.size for x in blocks.values()) == sum(x.size for x in tree)
    chex.assert_trees_all_equal(again, tree)


@functools.cache
def operations(tx, layers, is_compiled):
    """What an update consists of, for a stack of equal layers."""
    layer = {"w": jax.ShapeDtypeStruct((16, 8), jnp.float32),
             "b": jax.ShapeDtypeStruct((8,), jnp.float32)}  # fmt: skip
    params = {f"layer{i}": layer for i in range(layers)}
    state = jax.eval_shape(tx.init, params)
    lowered = jax.jit(tx.update).lower(params, state, params)
    if is_compiled:
        text = lowered.compile().as_text()
        return collections.Counter(re.findall(r"= .*? ([a-z\-]+)\(", text))
    return collections.Counter(re.findall(r"\bstablehlo\.(\w+)", lowered.as_text()))


WORK = {
    False: ("dot_general", "case", "custom_call", "while", "sort", "reduce"),
    True: ("dot", "conditional", "custom-call", "while", "sort", "reduce"),
}


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "is_compiled", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["lowered", "compiled"]
)
@pytest.mark.parametrize("name", ["shampoo", "soap"])
def test_a_program_has_as_much_to_do_for_48_layers_as_for_12(name, is_compiled):
    # In bounded batches, whatever their number.
    tx, work = METHODS[name].replace(**{f"{WHEN[name]}.batch_size": 6}), WORK[is_compiled]
    few, many = (operations(tx, layers, is_compiled) for layers in (12, 48))
    assert few[work[0]] > 0
    assert few[work[1]] > 0
    assert {op: few[op] for op in work} == {op: many[op] for op in work}
    # What moves numbers in and out, for each further layer, is less than what Optax's Adam does
    # there. (gdtx's is one function for all arrays of a shape.)
    adam = [operations(optax.adam(0.1), layers, is_compiled) for layers in (12, 48)]
    ours, theirs = (after.total() - before.total()
                    for before, after in ((few, many), adam))  # fmt: skip
    assert ours < theirs


def nested(params):
    for value in jax.tree.leaves(list(params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
        jaxpr = getattr(value, "jaxpr", value)
        if hasattr(jaxpr, "eqns"):
            yield jaxpr


def primitives(jaxpr, outside):
    """The names of all that is done, inside conditionals or outside of them."""
    for eqn in jaxpr.eqns:
        is_choice = eqn.primitive.name == "cond"
        yield eqn.primitive.name
        if not (is_choice and outside):
            for inner in nested(eqn.params):
                yield from primitives(inner, outside)


def test_roots_are_computed_inside_a_conditional():
    """Other steps cost the statistics and the products only."""
    params = some_params()
    for tx in METHODS.values():
        state = jax.eval_shape(tx.init, params)
        jaxpr = jax.make_jaxpr(tx.update)(params, state, params).jaxpr
        decompositions = {"eigh", "geqrf", "householder_product", "while", "scan"}
        assert decompositions & set(primitives(jaxpr, outside=False))
        assert not decompositions & set(primitives(jaxpr, outside=True))


@pytest.mark.first(1)
@pytest.mark.parametrize("name", ["shampoo", "soap"])
def test_stacks_change_no_number_and_batches_none(name):
    params = {str(i): np.float32(np.random.default_rng(i).normal(size=(4, 3))) for i in range(5)}
    when = WHEN[name]
    usual = METHODS[name].replace(eps=1e-4, **{f"{when}.start": 3})
    apart = usual.replace(**{"blocks.stacked": False, f"{when}.batch_size": 1})
    together, one_by_one = (
        jax.jit(lambda p, tx=tx: trained(tx, p)[0])(params) for tx in (usual, apart)
    )
    chex.assert_trees_all_close(together, one_by_one, rtol=1e-3, atol=1e-4)
    batched = usual.replace(**{f"{when}.batch_size": 2})
    batched = jax.jit(lambda p: trained(batched, p)[0])(params)
    chex.assert_trees_all_close(together, batched, rtol=1e-4, atol=1e-5)


@pytest.mark.first(1)
@by_method
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32], ids=["bfloat16", "float32"])
@pytest.mark.diagonal
def test_one_compilation_with_donated_state(name, dtype):
    tx, params = METHODS[name], some_params(dtype)

    def step(params, state, gradients):
        updates, state = tx.update(gradients, state, params)
        assert all(u.dtype == dtype for u in jax.tree.leaves(updates))
        return gdtx.apply_updates(params, updates), state

    def signature(tree):
        return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)

    jitted = jax.jit(step, donate_argnums=(0, 1))
    gradients = jax.tree.map(jnp.ones_like, params)
    carry = params, tx.init(params)
    first = signature(carry)
    carry = jitted(*carry, gradients)
    with counted_compilations() as compilations:
        for _ in range(3):
            carry = jitted(*carry, gradients)
            assert signature(carry) == first
    assert compilations == []
    chex.assert_tree_all_finite(carry)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shampoo", "soap"])
def test_masked_mapped_differentiated(name):
    tx, params = METHODS[name], {"w": np.asarray(some_params()["w"]), "b": np.full(2, 3, "f")}
    masked = gdtx.masked(tx, {"w": True, "b": False})
    got = jax.jit(lambda p: trained(masked, p)[0])(params)
    np.testing.assert_array_equal(got["b"], 3 * 2.0**5 - 31)  # each step adds p - 1

    def loss(rate, params):
        after, _ = trained(tx.replace(learning_rate=rate), params)
        return sum(jnp.sum(jnp.square(p)) for p in jax.tree.leaves(after)), after

    doubled = jax.tree.map(lambda p: np.stack([p, 2 * p]), params)
    mapped = jax.jit(jax.vmap(jax.jacfwd(loss, has_aux=True), in_axes=(None, 0)))
    slope, after = mapped(jnp.float32(0.1), doubled)
    np.testing.assert_allclose(after["w"][0], got["w"], rtol=1e-3, atol=1e-4)
    assert np.isfinite(slope).all()
    assert (slope != 0).all()


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "name", [pytest.param("shampoo", marks=pytest.mark.slow), "grafted", "soap"]
)
def test_derivatives_at_zero_gradients_are_finite(name):
    tx = METHODS[name]

    def last_update(gradients):
        def step(state, _):
            updates, state = tx.update(gradients, state, gradients)
            return state, sum(jnp.sum(u) for u in jax.tree.leaves(updates))

        return jax.lax.scan(step, tx.init(gradients), length=2)[1][-1]

    zeros = {"w": jnp.zeros((3, 2))}
    chex.assert_tree_all_finite(jax.jit(jax.value_and_grad(last_update))(zeros))


@by_method
def test_is_data_and_takes_any_tree(name):
    tx = METHODS[name]
    assert eval(repr(tx), vars(gdtx)) == tx
    assert pickle.loads(pickle.dumps(tx)) == tx
    assert jax.tree.leaves(tx) == []
    assert gdtx.expand(tx) != tx
    for params in ({}, (), {"a": None}):
        updates, state = tx.update(params, tx.init(params), params)
        assert updates == params
        assert jax.tree.structure(state) == jax.tree.structure(tx.init(params))


def test_complex_updates_raise_with_their_path():
    params = {"w": {"re": jnp.ones(2), "im": jnp.ones(2, jnp.complex64)}}
    with pytest.raises(TypeError, match=r"scale_by_shampoo: updates\['w'\]\['im'\] is complex"):
        gdtx.scale_by_shampoo().init(params)


def test_state_table_tells_what_a_matrix_costs():
    params = {"w": jnp.zeros((8, 4))}
    table = gdtx.state_table(gdtx.scale_by_shampoo(b1=0.0, b2=1.0), params)
    matrices = 2 * (8 * 8 + 4 * 4)
    assert table.bytes == 4 * (matrices + 2)
    assert gdtx.state_table(gdtx.scale_by_soap(), params).bytes == 4 * (matrices + 2 * 8 * 4 + 4)
    half = gdtx.scale_by_shampoo(b1=0.0, b2=1.0, statistic_dtype="bfloat16")
    assert gdtx.state_table(half, params).bytes == 4 * (matrices + 2) - matrices
