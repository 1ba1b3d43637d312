"""Layers stacked in one array are trained as the layers they are, by everything in the table."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everything import EVERY, extras
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from test_state_sharding import mesh_of

import gdtx

LAYERS = 3
SHAPES = {"b": (2,), "w": (4, 2)}
DRAWN = "its draws are of the array that they are for, and of the number of a layer"
OF_A_MODEL = "its layers are those of the model whose curvature is measured"
NOT = {
    "stacked": "it says itself what is stacked",
    **dict.fromkeys(("randomized", "add_noise", "differentially_private_aggregate"), DRAWN),
    **dict.fromkeys(("scale_by_dion", "dion"), DRAWN),
    **dict.fromkeys(
        ("clip_by_fisher_norm", "scale_by_ekfac", "scale_by_kfac", "kfac", "levenberg_marquardt"),
        OF_A_MODEL,
    ),
}
# Rows with patterns of the paths "b" and "w", which layers as arrays of their own have not.
WITH_PATTERNS = (
    "trainable", "scale_by_layer_decay", "scale_by_muon", "scale_by_shape", "orthogonalize", "muon",
    "normuon", "skip_when",
)  # fmt: skip
ROWS = [name for name in EVERY if name not in NOT]
# What looks at arrays in different ways; others are in the slow part.
QUICK = ("clip_by_norm", "scale_by_factored_rms", "sm3", "scale_by_shampoo", "scale_by_muon")
quick_first = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ROWS]
)


def drawn(seed, layers=LAYERS, dtype=None):
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.normal(size=(layers, *n)), dtype) for k, n in SHAPES.items()}


def apart(tree):
    return {key: list(x) for key, x in tree.items()}


def together(trees):
    return {key: [tree[key] for tree in trees] for key in SHAPES}


def given(name, params):
    """What a row asks for beside gradients and parameters."""
    if "natural_gradient" in name:
        return {"curvature": 2 * jnp.eye(sum(x.size for x in jax.tree.leaves(params)))}
    return extras(name, params)


def trained(tx, params, gradients, name="adam"):
    """Updates, with an axis of steps before, and the state after them."""

    def step(carry, gradient):
        params, state = carry
        more = given(name, params)
        if "grad" in more:  # a search is along a direction in which the value falls
            sign = -1 if "search" in name else 1
            gradient = jax.tree.map(lambda g: sign * g, more["grad"])
        updates, state = tx.update(gradient, state, params, **more)
        return (gdtx.apply_updates(params, updates), state), updates

    @jax.jit
    def run(params, gradients):
        (_, state), updates = jax.lax.scan(step, (params, tx.init(params)), gradients)
        return updates, state

    return run(params, jax.tree.map(lambda *each: jnp.stack(each), *gradients))


def floats(state):
    return [x.shape for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]


def numbers(state):
    """How many numbers are kept, but for counts."""
    return sum(map(math.prod, floats(state)))


@quick_first
def test_each_layer_is_as_an_array_of_its_own(name, x64):
    tx, steps = EVERY[name], range(3)
    params, gradients = drawn(0), [drawn(1), drawn(2), drawn(3)]
    found, state = trained(gdtx.stacked(tx, 1), params, gradients, name)
    found = {key: [x[:, i] for i in range(LAYERS)] for key, x in found.items()}
    layers = [jax.tree.map(lambda x: x[i], (params, gradients)) for i in range(LAYERS)]  # noqa: B023
    if name in WITH_PATTERNS:
        alone = [trained(tx, *layer, name) for layer in layers]
        want, size = together([one for one, _ in alone]), sum(numbers(one) for _, one in alone)
    else:
        want, one = trained(tx, apart(params), list(map(apart, gradients)), name)
        size = numbers(one)
    assert all(len(x) == len(steps) for x in jax.tree.leaves(found))
    # A search ends where values are compared that rounding makes equal or not.
    rtol = 1e-9 if "search" in name or "lbfgs" in name or "full_matrix" in name else 1e-13
    for one, other in zip(*map(jax.tree.leaves, (found, want)), strict=True):
        largest = np.nan_to_num(np.abs(other)).max()
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol * largest)
    # An axis of layers before those that one layer has; blocks are counted along their first axis.
    of_one = jax.eval_shape(tx.init, layers[0][0])
    assert jax.tree.structure(state) == jax.tree.structure(of_one)
    for now, before in zip(floats(state), floats(of_one), strict=True):
        blocks = [(LAYERS * before[0], *before[1:])] if before else []
        assert now in [before, (LAYERS, *before), *blocks]
    assert numbers(state) == size


# Of layers as of an array the program has its conditionals, but for norms: those of many layers are
# all scaled, because both branches of a conditional would run. What decomposes several matrices, or
# finds several bases, has conditionals that one matrix has not.
WITHOUT = ("scale_by_dog", "novograd")


@pytest.mark.parametrize(
    "name",
    # The sizes of its blocks, and with them what it pads, depend on that of the array.
    [
        pytest.param(name, marks=() if name in (*QUICK, "scale_by_dog") else pytest.mark.slow)
        for name in EVERY
        if name != "stored" and NOT.get(name) != OF_A_MODEL
    ],
)
def test_programs_do_not_grow_with_the_layers(name):
    def counts(tx, tree):
        def step(gradient, params):
            return tx.update(gradient, tx.init(params), params, **given(name, params))

        text = str(jax.make_jaxpr(step)(tree, tree))
        return text.count(" = "), text.count("cond[")

    tx = EVERY[name]
    few, many = (counts(gdtx.stacked(tx, 1), drawn(0, layers)) for layers in (2, 5))
    assert few == many
    _, of_one = counts(tx, jax.tree.map(lambda x: x[0], drawn(0)))
    if name in WITHOUT:
        assert many[1] == 0 < of_one
    else:
        assert many[1] >= of_one


def test_norms_of_layers_do_not_run_both_branches_of_a_conditional():
    tx = gdtx.reduced(gdtx.identity(), gdtx.global_norm)
    text = str(jax.make_jaxpr(gdtx.stacked(tx, 1).update)(drawn(0), tx.init(drawn(0))))
    assert text.count("reduce_sum[") == len(SHAPES)
    assert "cond[" not in text


@pytest.mark.parametrize("name", ["clip_by_norm", pytest.param("shampoo", marks=pytest.mark.slow)])
def test_no_layers_is_the_transformation_to_the_bit(name):
    tx = EVERY[name]
    plain, none = (trained(each, drawn(0), [drawn(1)]) for each in (tx, gdtx.stacked(tx, 0)))
    jax.tree.map(np.testing.assert_array_equal, plain, none)


def test_what_looks_at_each_number_is_the_same_program():
    params = drawn(0)
    programs = [
        jax.jit(tx.update).lower(params, tx.init(params), params).compile().as_text()
        for tx in (gdtx.adam(0.1), gdtx.stacked(gdtx.adam(0.1), 1), gdtx.stacked(gdtx.adam(0.1), 0))
    ]
    names = [text.split("ENTRY", 1)[1].count("fusion") for text in programs]
    assert len(set(names)) == 1
    found = [
        trained(tx, params, [params]) for tx in (gdtx.adam(0.1), gdtx.stacked(gdtx.adam(0.1), 1))
    ]
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_some_arrays_are_layers_and_some_are_not():
    params = {"layers": drawn(0)["w"], "head": drawn(1)["w"]}
    tx = gdtx.stacked(gdtx.clip_by_norm(1.0), [("layers", 1)])
    found = tx.update(params, tx.init(params))[0]
    want = [gdtx.clip_by_norm(1.0).update(x, ())[0] for x in params["layers"]]
    np.testing.assert_allclose(found["layers"], jnp.stack(want), rtol=1e-6)
    np.testing.assert_allclose(
        found["head"], gdtx.clip_by_norm(1.0).update(params["head"], ())[0], rtol=1e-6
    )


@pytest.mark.parametrize("name", ["clip_by_norm", pytest.param("shampoo", marks=pytest.mark.slow)])
def test_several_axes_count_layers(name):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 5)), jnp.float32)
    flat, tx = {"w": x.reshape(6, 4, 5)}, EVERY[name]
    one = trained(gdtx.stacked(tx, 2), {"w": x}, [{"w": x}], name)[0]["w"][0]
    other = trained(gdtx.stacked(tx, 1), flat, [flat], name)[0]["w"][0]
    np.testing.assert_allclose(one.reshape(6, 4, 5), other, rtol=1e-6, atol=1e-7)


def test_the_whole_tree_is_still_the_whole():
    params = drawn(0)
    plain = gdtx.clip_by_global_norm(0.5).update(params, ())[0]
    found = gdtx.stacked(gdtx.clip_by_global_norm(0.5), 1).update(params, ())[0]
    jax.tree.map(np.testing.assert_array_equal, found, plain)


def test_masks_and_labels_see_one_layer():
    params, seen = drawn(0), []

    def mask(path, x):
        seen.append((path, x.shape))
        return x.ndim == 2

    tx = gdtx.stacked(gdtx.add_decayed_weights(0.5, mask=mask), 1)
    updates = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)[0]
    assert set(seen) == {("b", (2,)), ("w", (4, 2))}
    assert (updates["b"] == 0).all()
    np.testing.assert_allclose(updates["w"], params["w"] / 2)


def test_buffers_that_are_rounded_by_chance_differ_from_layer_to_layer():
    same = jnp.ones((4, 64)) * jnp.linspace(1.0, 1.7, 64)[None]
    tx = gdtx.stacked(gdtx.trace(0.9, dtype="bfloat16"), 1)
    state = tx.init(same)
    for _ in range(5):
        _, state = tx.update(same, state)
    kept = np.asarray(gdtx.find(state, "value"), np.float32)
    assert all((kept[0] != row).any() for row in kept[1:])


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "scale_by_trust_ratio" else pytest.mark.slow)
        for name in ("scale_by_trust_ratio", *QUICK)
    ],
)
def test_layers_on_several_devices(name, axis_type):
    tx, params, gradients = gdtx.stacked(EVERY[name], 1), drawn(0, 4), [drawn(1, 4), drawn(2, 4)]
    want, _ = trained(tx, params, gradients)
    with mesh_of(axis_type) as mesh:
        # In the words of what each kind of mesh returns.
        of_b = P("data", None) if axis_type == AxisType.Explicit else P("data")
        specs = {"b": of_b, "w": P("data", None, "model")}
        where = {key: NamedSharding(mesh, spec) for key, spec in specs.items()}
        placed = jax.device_put(params, where)
        state = tx.init(placed)
        born = jax.tree.map(lambda x: x.sharding, state)
        for number, gradient in enumerate(gradients):
            updates, state = tx.update(jax.device_put(gradient, where), state, placed)
            placed = gdtx.apply_updates(placed, updates)
            for key in SHAPES:
                np.testing.assert_allclose(updates[key], want[key][number], rtol=1e-4, atol=1e-5)
        assert jax.tree.map(lambda x: x.sharding, state) == born
        assert jax.tree.leaves(gdtx.state_sharding(tx, placed)) == jax.tree.leaves(born)


@pytest.mark.parametrize(
    "name",
    ["scale_by_muon", *(pytest.param(n, marks=pytest.mark.slow) for n in ("shampoo", "soap"))],
)
def test_layers_are_dealt_out_as_layers(name):
    tx = gdtx.stacked(EVERY[name], 1)
    params, gradients = drawn(0, 3), [drawn(1, 3), drawn(2, 3)]
    want, _ = trained(tx, params, gradients)
    with mesh_of(AxisType.Auto) as mesh:
        where = NamedSharding(mesh, P())
        placed = jax.device_put((params, gradients), where)
        found, _ = trained(gdtx.dealt(tx, ("data", "model"), mesh), *placed)
    for one, other in zip(*map(jax.tree.leaves, (found, want)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_mistakes():
    params = {"layers": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}
    with pytest.raises(ValueError, match=r"stacked: params\['bias'\] has shape \(3,\), where axes"):
        gdtx.stacked(gdtx.adam(0.1), 2).init(params)
    with pytest.raises(ValueError, match="stacked: pattern 'blocks/\\*\\*' matches no path"):
        gdtx.stacked(gdtx.adam(0.1), [("blocks/**", 1)]).init(params)
    for axes in (-1, True, 1.0, [("layers", "1")], ["layers"]):
        with pytest.raises(TypeError, match="stacked: axes must be a number of axes or a list"):
            gdtx.stacked(gdtx.adam(0.1), axes)
