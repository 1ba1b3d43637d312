"""Layers stacked in one array are trained as the layers they are, by everything in the table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everything import EVERY
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from test_state_sharding import mesh_of

import gdtx

LAYERS = 3
SHAPES = {"b": (2,), "w": (4, 2)}
NOT = {
    "randomized": "draws are of the array that they are for",
    "add_noise": "draws are of the array that they are for",
    "differentially_private_aggregate": "draws are of the array that they are for",
    "scale_by_dion": "its first vectors are drawn for the array",
    "dion": "its first vectors are drawn for the array",
    "galore": "with it",
    "stored": "what is rounded by chance depends on the place in the array",
    "stacked": "it says itself what is stacked",
}
GIVEN = ("search", "lbfgs", "kfac", "fisher", "levenberg", "natural", "sophia", "value_of", "sharp")
# Rows with patterns of the paths "b" and "w", which layers as arrays of their own have not.
WITH_PATTERNS = (
    "trainable", "scale_by_layer_decay", "scale_by_muon", "scale_by_shape", "orthogonalize", "muon",
    "normuon", "skip_when",
)  # fmt: skip
ROWS = [name for name in EVERY if name not in NOT and not any(part in name for part in GIVEN)]
# What looks at arrays in different ways; others are in the slow part.
QUICK = ("adam", "lamb", "adafactor", "sm3", "shampoo", "soap", "muon", "full_matrix_adagrad")


def drawn(seed, layers=LAYERS):
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.normal(size=(layers, *n)), jnp.float32) for k, n in SHAPES.items()}


def apart(tree):
    return {key: list(x) for key, x in tree.items()}


def together(trees):
    return {key: [tree[key] for tree in trees] for key in SHAPES}


def trained(tx, params, gradients, **given):
    @jax.jit
    def run(params, gradients):
        state, steps = tx.init(params), []
        for gradient in gradients:
            updates, state = tx.update(gradient, state, params, **given)
            params = gdtx.apply_updates(params, updates)
            steps.append(updates)
        return steps, state

    return run(params, gradients)


def buffers(state):
    """Numbers kept, but for counts."""
    return sum(x.size for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ROWS]
)
def test_each_layer_is_as_an_array_of_its_own(name):
    tx, given = EVERY[name], {"value": jnp.float32(0.5), "flag": True}
    params, gradients = drawn(0), [drawn(1), drawn(2)]
    found, state = trained(gdtx.stacked(tx, 1), params, gradients, **given)
    if name in WITH_PATTERNS:
        alone = [
            trained(tx, *jax.tree.map(lambda x: x[i], (params, gradients)), **given)  # noqa: B023
            for i in range(LAYERS)
        ]
        want = [together([steps[k] for steps, _ in alone]) for k in range(len(gradients))]
        size = sum(buffers(each) for _, each in alone)
    else:
        want, one = trained(tx, apart(params), list(map(apart, gradients)), **given)
        size = buffers(one)
    # Inverses of matrices multiply rounding by their condition.
    rtol = 2e-4 if "full_matrix" in name else 1e-5
    for one, other in zip(*map(jax.tree.leaves, (list(map(apart, found)), want)), strict=True):
        largest = np.nan_to_num(np.abs(other)).max()
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol * largest)
    assert buffers(state) == size


@pytest.mark.parametrize(
    # The sizes of its blocks, and with them what it pads, depend on that of the array.
    "name",
    [name for name in EVERY if name != "stored" and not any(part in name for part in GIVEN)],
)
def test_programs_do_not_grow_with_the_layers(name):
    tx = gdtx.stacked(EVERY[name], 1)

    def equations(layers):
        tree = drawn(0, layers)

        def step(gradient, params):
            state = tx.init(params)
            return tx.update(gradient, state, params, value=jnp.float32(0.5), flag=True)

        text = str(jax.make_jaxpr(step)(tree, tree))
        return text.count(" = "), text.count("cond[")

    assert equations(2) == equations(5)


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
    for one, other in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_array_equal(one, other)


def test_some_arrays_are_layers_and_some_are_not():
    params = {"layers": drawn(0)["w"], "head": drawn(1)["w"]}
    tx = gdtx.stacked(gdtx.clip_by_norm(1.0), [("layers", 1)])
    found = tx.update(params, tx.init(params))[0]
    want = [gdtx.clip_by_norm(1.0).update(x, ())[0] for x in params["layers"]]
    np.testing.assert_allclose(found["layers"], jnp.stack(want), rtol=1e-6)
    np.testing.assert_allclose(
        found["head"], gdtx.clip_by_norm(1.0).update(params["head"], ())[0], rtol=1e-6
    )


def test_several_axes_count_layers():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 5)), jnp.float32)
    for tx in (gdtx.lamb(0.1), gdtx.shampoo(0.1)):
        one = trained(gdtx.stacked(tx, 2), x, [x])[0][0]
        other = trained(gdtx.stacked(tx, 1), x.reshape(6, 4, 5), [x.reshape(6, 4, 5)])[0][0]
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
    [pytest.param(name, marks=() if name == "lamb" else pytest.mark.slow) for name in QUICK],
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
        for gradient, expected in zip(gradients, want, strict=True):
            updates, state = tx.update(jax.device_put(gradient, where), state, placed)
            placed = gdtx.apply_updates(placed, updates)
            for key in SHAPES:
                np.testing.assert_allclose(updates[key], expected[key], rtol=1e-4, atol=1e-5)
        assert jax.tree.map(lambda x: x.sharding, state) == born
        assert jax.tree.leaves(gdtx.state_sharding(tx, placed)) == jax.tree.leaves(born)


@pytest.mark.parametrize("name", ["shampoo", pytest.param("soap", marks=pytest.mark.slow), "muon"])
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
