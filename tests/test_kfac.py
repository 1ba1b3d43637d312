"""K-FAC as a link, against dense solves."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import counted_compilations
from kfac_models import blocks_of_gauss_newton, linear, mlp, mlp_params, some

import gdtx
from gdtx import kfac
from gdtx.curvature.factors import eigenbases
from gdtx.curvature.model import layers

N, SIZES = 9, (3, 4, 2)
X, T = some(N, 3, seed=5), some(N, 2, seed=6)


def arrays(tree, dtype=None):
    # Said in words, because tests before this one may have had another width of floats.
    dtype = jnp.result_type(float) if dtype is None else dtype
    return jax.tree.map(lambda p: jnp.asarray(p, dtype), tree)


exact = kfac.value_grad_and_curvature(mlp, kfac.squared_error, "exact")
sampled = kfac.value_grad_and_curvature(mlp, kfac.squared_error)


@functools.cache
def program(model, output, **settings):
    f = kfac.value_grad_and_curvature(model, kfac.squared_error, output, **settings)
    return jax.jit(f)


def measured(model, params, batch=(X, T), output="exact", key=None, **settings):
    return program(model, output, **settings)(arrays(params), arrays(batch), key)


def updated(tx, params, grads, curvature):
    return tx.update(grads, tx.init(arrays(params)), arrays(params), curvature=curvature)


def stacked(layer):
    return np.concatenate([layer["w"], np.asarray(layer["b"])[None]])


def test_one_step_is_least_squares(x64):
    params = {"layer1": {"w": np.zeros((3, 2)), "b": np.zeros(2)}}
    _, grads, curvature = measured(linear, params)
    tx = gdtx.chain(gdtx.scale_by_kfac(damping=0.0), gdtx.scale(-1.0))
    updates, _ = updated(tx, params, grads, curvature)
    best = np.linalg.lstsq(np.concatenate([X, np.ones((N, 1))], axis=1), T)[0]
    np.testing.assert_allclose(stacked(updates["layer1"]), best, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("damping", [1e-3, 0.7])
def test_eigen_damping_is_a_dense_solve(x64, damping):
    """Of the exact block, which on a linear network the product of the factors is."""
    params = mlp_params(SIZES)
    _, grads, curvature = measured(linear, params)
    tx = gdtx.scale_by_kfac(jnp.asarray(damping), split="eigen")
    updates, _ = updated(tx, params, grads, curvature)
    root = np.broadcast_to(np.eye(2), (N, 2, 2))
    dense = blocks_of_gauss_newton(linear, params, X, lambda y: root)
    for name, block in dense.items():
        gradient = stacked(grads[name]).ravel()
        expected = np.linalg.solve(block + damping * np.eye(len(block)), gradient)
        np.testing.assert_allclose(stacked(updates[name]).ravel(), expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("damping", [1e-3, 0.7])
def test_factored_damping_is_a_dense_solve(x64, damping):
    params = mlp_params(SIZES)
    _, grads, curvature = measured(mlp, params)
    tx = gdtx.scale_by_kfac(jnp.asarray(damping))
    updates, _ = updated(tx, params, grads, curvature)
    for name, layer in grads.items():
        block = {k: np.asarray(v) for k, v in curvature.blocks[f"{name}/w"].items()}
        A, S = block["A"] / N, block["S"] / N
        pi = np.sqrt((np.trace(A) / len(A)) / (np.trace(S) / len(S)))
        damped = np.kron(
            A + pi * np.sqrt(damping) * np.eye(len(A)),
            S + np.sqrt(damping) / pi * np.eye(len(S)),
        )
        expected = np.linalg.solve(damped, stacked(layer).ravel())
        np.testing.assert_allclose(stacked(updates[name]).ravel(), expected, rtol=1e-9)


def test_a_layer_shared_over_positions(x64):
    """Its inputs are averaged over all positions, and its cotangents summed over those of each."""
    x, params = some(N, 5, 3), {"w": some(3, 2), "b": some(2, seed=1)}

    def model(params, x):
        return jnp.tanh(x @ params["w"] + params["b"][None, None]).mean(1)

    _, grads, curvature = measured(model, params, (x, T))
    rows = np.concatenate([x, np.ones((N, 5, 1))], axis=-1).reshape(-1, 4)
    slopes = (1 - np.tanh(x @ params["w"] + params["b"]) ** 2) / 5
    block = np.kron(rows.T @ rows / len(rows), np.diag(np.sum(slopes**2, axis=(0, 1)) / N))
    gradient = stacked(grads).ravel()
    square = kfac.fisher_square(curvature, grads)
    np.testing.assert_allclose(square, gradient @ block @ gradient, rtol=1e-12)
    updates, _ = updated(gdtx.scale_by_kfac(0.1, split="eigen"), params, grads, curvature)
    expected = np.linalg.solve(block + 0.1 * np.eye(len(block)), gradient)
    np.testing.assert_allclose(stacked(updates).ravel(), expected, rtol=1e-9)


def test_scales_and_shifts_are_divided_by_their_squares(x64):
    params = {"scale": some(3), "bias": some(3, seed=2)}

    def model(params, x):
        return jnp.tanh(x * params["scale"][None] + params["bias"][None])

    _, grads, curvature = measured(model, params, (X, some(N, 3)))
    updates, _ = updated(gdtx.scale_by_kfac(0.1), params, grads, curvature)
    for name in params:
        square = np.asarray(curvature.blocks[name]["D"]) / N
        np.testing.assert_allclose(updates[name], grads[name] / (square + 0.1), rtol=1e-12)


def test_the_function_does_not_depend_on_the_basis_of_the_inputs(x64):
    """Undamped, from the same function, the same functions, whatever affine map is undone first."""
    params = mlp_params((3, 3, 2), scale=0.4)
    matrix, shift = np.eye(3) + 0.4 * some(3, 3, seed=11), some(3, seed=12)
    back = np.linalg.inv(matrix)
    moved = {**params, "layer1": {
        "w": back @ params["layer1"]["w"],
        "b": params["layer1"]["b"] - shift @ back @ params["layer1"]["w"],
    }}  # fmt: skip
    tx = gdtx.chain(gdtx.scale_by_kfac(0.0, decay=0.5, inverse_every=1), gdtx.scale(-0.3))

    @jax.jit
    def trained(params, x):
        def step(carry, _):
            params, state = carry
            _, grads, curvature = exact(params, (x, T))
            updates, state = tx.update(grads, state, params, curvature=curvature)
            return (gdtx.apply_updates(params, updates), state), mlp(params, x)

        return jax.lax.scan(step, (params, tx.init(params)), length=6)[1]

    one, other = trained(arrays(params), X), trained(arrays(moved), X @ matrix + shift)
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    assert np.abs(one[-1] - one[0]).max() > 0.1


def run(params):
    """A training in one scan, curvature of sampled targets."""
    tx = kfac.kfac(0.3, norm_constraint=0.1)
    batch = (jnp.asarray(X, jnp.float32), jnp.asarray(T, jnp.float32))

    def step(carry, key):
        params, state = carry
        value, grads, curvature = sampled(params, batch, key)
        updates, state = tx.update(grads, state, params, curvature=curvature)
        return (gdtx.apply_updates(params, updates), state), value

    keys = jax.random.split(jax.random.key(0), 80)
    (_, state), losses = jax.lax.scan(step, (params, tx.init(params)), keys)
    return state[1].blocks, losses


@pytest.mark.slow
def test_trains_also_several_at_once():
    params = arrays(mlp_params(SIZES), jnp.float32)
    blocks, losses = jax.jit(run)(params)
    assert losses[-1] < 0.5 * losses[0]
    assert blocks.failures == 0
    assert blocks.step == 80
    both = jax.tree.map(lambda p: jnp.stack([1.1 * p, p]), params)
    _, batched = jax.jit(jax.vmap(run))(both)
    np.testing.assert_allclose(batched[1, :12], losses[:12], rtol=1e-4)
    assert batched[0, -1] < 0.5 * batched[0, 0]


def test_state_keeps_its_shape_and_compiles_once():
    tx = kfac.kfac(0.1)
    params = arrays(mlp_params(SIZES), jnp.float32)
    f = program(mlp, "sampled")
    batch = (jnp.asarray(X, jnp.float32), jnp.asarray(T, jnp.float32))
    state = tx.init(params)

    def signature(tree):
        return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)

    first = signature(state)
    for i in range(3):
        _, grads, curvature = f(params, batch, jax.random.key(i))
        with counted_compilations() as compilations:
            updates, state = tx.update(grads, state, params, curvature=curvature)
        assert signature(state) == first
        assert (compilations == []) == (i > 0)
    # And one program without curvature, which uses the factors there are.
    again, cached = tx.update(grads, state, params, curvature=None)
    assert signature(cached) == first
    jax.tree.map(np.testing.assert_array_equal, cached[1].blocks.bases, state[1].blocks.bases)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(again))
    assert jax.tree.structure(updates) == jax.tree.structure(params)


# Of one program with curvature and one without.
SELDOM = gdtx.scale_by_kfac(decay=0.5, inverse_every=3)


def test_bases_on_a_cadence():
    """Between, the old basis is used, while averages go on."""
    params = mlp_params(SIZES)
    _, grads, curvature = measured(mlp, params)
    state, bases, kept = SELDOM.init(arrays(params, jnp.float32)), [], []
    for t in range(5):
        blocks = jax.tree.map(lambda x: np.asarray(x) * np.float32(1 + t), curvature.blocks)  # noqa: B023
        scaled = kfac.Curvature(blocks, curvature.examples, curvature.layout)
        _, state = SELDOM.update(grads, state, curvature=scaled)
        bases.append(np.asarray(state.blocks.bases["layer1/w"].output_values))
        kept.append(np.asarray(jax.tree.leaves(state.blocks.statistics)[0]))
    changed = [not np.array_equal(a, b) for a, b in itertools.pairwise(bases)]
    assert changed == [False, False, True, False]
    assert all(not np.array_equal(a, b) for a, b in itertools.pairwise(kept))


def test_curvature_that_comes_seldom():
    """Bases are as old as they may be when the next curvature comes, whichever steps have one."""
    params = arrays(mlp_params(SIZES), jnp.float32)
    _, grads, curvature = measured(mlp, params)
    state, finite, ages = SELDOM.init(params), [], []
    for t in range(10):
        given = curvature if t % 2 else None
        updates, state = SELDOM.update(grads, state, curvature=given)
        finite.append([np.isfinite(leaf).all() for leaf in jax.tree.leaves(updates)])
        ages.append(int(state.blocks.age))
    # Without any curvature yet, nothing looks like a step.
    assert not any(finite[0])
    assert all(map(all, finite[1:]))
    assert ages[1:] == [1, 2, 3, 4, 1, 2, 3, 4, 1]


@pytest.mark.first(1)
@pytest.mark.parametrize("make", [kfac.kfac, lambda rate: gdtx.scale_by_ekfac(rate)])
def test_state_is_where_parameters_are(make):
    """On a device they were put on; else the second update would be compiled again."""
    params, batch = jax.device_put(
        (arrays(mlp_params(SIZES), jnp.float32), (X.astype(np.float32), T.astype(np.float32))),
        jax.devices()[3],
    )
    tx = make(0.1)
    _, grads, curvature = program(mlp, "sampled", gradient=True)(params, batch, jax.random.key(0))
    state = tx.init(params)
    assert all(leaf.committed for leaf in jax.tree.leaves(state))
    for i in range(2):
        with counted_compilations() as compilations:
            _, state = tx.update(grads, state, params, curvature=curvature)
        assert (compilations == []) == (i > 0)


def test_a_basis_that_cannot_be_computed_leaves_the_last():
    params = mlp_params(SIZES)
    _, grads, curvature = measured(mlp, params)
    _, state = updated(SELDOM, params, grads, curvature)
    broken = jax.tree.map(lambda x: np.full_like(x, np.nan), curvature)
    after = state
    for _ in range(3):
        updates, after = SELDOM.update(grads, after, curvature=broken)
    jax.tree.map(np.testing.assert_array_equal, after.blocks.bases, state.blocks.bases)
    assert after.blocks.failures == 2  # one for each layer
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((updates, after)))


def test_parameters_that_no_layer_has():
    params = {"layer1": mlp_params(SIZES)["layer1"], "table": some(4, 4)}
    model = kfac.capture(
        lambda p, x: x @ p["layer1"]["w"] + p["layer1"]["b"][None] + p["table"][0][None],
        fallback=["table"],
    )
    batch = (X, some(N, 4))
    _, grads, curvature = measured(model, params, batch)
    fallback = gdtx.chain(gdtx.add_decayed_weights(0.5), gdtx.trace(0.9))
    layout = model.layout(arrays(params), X)
    tx = gdtx.scale_by_kfac(layout=layout, fallback=fallback, inverse_every=1)
    state = tx.init(arrays(params))
    for _ in range(2):
        updates, state = tx.update(grads, state, arrays(params), curvature=curvature)
    decayed = grads["table"] + 0.5 * arrays(params)["table"]
    np.testing.assert_allclose(updates["table"], 1.9 * decayed, rtol=1e-6)
    assert hash(tx) == hash(tx.replace(damping=1e-3))
    assert eval(repr(tx), {**vars(gdtx), "Layer": kfac.Layer}) == tx


def test_a_fallback_that_returns_another_tree():
    params = arrays(mlp_params(SIZES), jnp.float32)
    first = gdtx.GradientTransformation(lambda p: (), lambda u, s, p=None: (u["layer2"], s))
    tx = gdtx.scale_by_kfac(layout=kfac.infer_layout({"layer1": params["layer1"]}), fallback=first)
    with pytest.raises(ValueError, match="scale_by_kfac: the fallback's result has no leaf"):
        jax.eval_shape(lambda p: tx.update(p, tx.init(p), p, curvature=None), params)


def test_fisher_norm(x64):
    params = mlp_params(SIZES)
    _, grads, curvature = measured(mlp, params)
    total = (
        sum(
            stacked(layer).ravel()
            @ np.kron(curvature.blocks[f"{name}/w"]["A"], curvature.blocks[f"{name}/w"]["S"])
            @ stacked(layer).ravel()
            for name, layer in grads.items()
        )
        / N**2
    )
    np.testing.assert_allclose(kfac.fisher_square(curvature, grads), total, rtol=1e-12)
    tx = gdtx.clip_by_fisher_norm(total / 4)
    updates, state = updated(tx, params, grads, curvature)
    jax.tree.map(lambda u, g: np.testing.assert_allclose(u, g / 2, rtol=1e-6), updates, grads)
    again, _ = tx.update(grads, state, curvature=None)
    jax.tree.map(lambda u, g: np.testing.assert_allclose(u, g / 2, rtol=1e-6), again, grads)
    longer, _ = updated(gdtx.clip_by_fisher_norm(4 * total), params, grads, curvature)
    jax.tree.map(np.testing.assert_array_equal, longer, grads)


FISHER = kfac.fisher_matrix(linear, kfac.squared_error)


def test_natural_gradient_is_newtons_step_on_squared_error(x64):
    params = {"layer1": {"w": np.zeros((3, 2)), "b": np.zeros(2)}}
    matrix = jax.jit(FISHER)(arrays(params), (X, T))
    _, grads, _ = measured(linear, params)
    updates, _ = updated(kfac.natural_gradient(), params, grads, matrix)
    best = np.linalg.lstsq(np.concatenate([X, np.ones((N, 1))], axis=1), T)[0]
    np.testing.assert_allclose(stacked(updates["layer1"]), best, rtol=1e-9, atol=1e-12)
    hessian = np.kron(X.T @ X / N, np.eye(2))  # of squared errors over w
    rows = slice(2, 8)  # b comes before w
    np.testing.assert_allclose(matrix[rows, rows], hessian, rtol=1e-12, atol=1e-14)


def test_kfac_of_one_layer_is_the_natural_gradient(x64):
    params = {"layer1": mlp_params((3, 2))["layer1"]}
    matrix = jax.jit(FISHER)(arrays(params), (X, T))
    _, grads, curvature = measured(linear, params)
    exact, _ = updated(gdtx.scale_by_natural_gradient(0.1), params, grads, matrix)
    ours, _ = updated(gdtx.scale_by_kfac(0.1, split="eigen"), params, grads, curvature)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), ours, exact)


def test_ekfac_against_numpy(x64):
    """Squares in the basis, averaged; from the product of eigenvalues at every new basis."""
    params = mlp_params(SIZES)
    f = program(mlp, "sampled", gradient=True)
    tx = gdtx.scale_by_ekfac(damping=0.1, decay=0.8, inverse_every=3)
    state, s = tx.init(arrays(params)), None
    sums = {"A": 0.0, "S": 0.0}
    for t in range(5):
        _, grads, curvature = f(arrays(params), (X, T), jax.random.key(t))
        updates, state = tx.update(grads, state, curvature=curvature)
        block = {k: np.asarray(v) for k, v in curvature.blocks["layer1/w"].items()}
        sums = {k: 0.8 * sums[k] + 0.2 * block[k] / N for k in sums}
        if t % 3 == 0:
            correction = 1 - 0.8 ** (t + 1)
            a, Q = np.linalg.eigh(sums["A"] / correction)
            d, R = np.linalg.eigh(sums["S"] / correction)
            s = np.outer(np.maximum(a, 0), np.maximum(d, 0))
        else:
            s = 0.8 * s + 0.2 * (Q.T @ block["G"] @ R) ** 2 / N
        V = stacked(grads["layer1"])
        expected = Q @ ((Q.T @ V @ R) / (s + 0.1)) @ R.T
        np.testing.assert_allclose(stacked(updates["layer1"]), expected, rtol=1e-7, atol=1e-10)


def test_damping_adapts_to_the_ratio(x64):
    """On a quadratic that the model knows exactly the ratio is 1, and damping falls."""
    params = {"layer1": {"w": np.zeros((3, 2)), "b": np.zeros(2)}}
    _, grads, curvature = measured(linear, params)

    @jax.jit
    def scaled(scale, p):
        return scale * kfac.squared_error(linear(p, X), T)

    def value(scale):
        return jax.tree_util.Partial(scaled, jnp.asarray(scale))

    inner = gdtx.chain(gdtx.scale_by_kfac(split="eigen"), gdtx.scale(-1.0))
    tx = kfac.levenberg_marquardt(inner, damping=0.5, path="0.damping", every=1, factor=0.9)

    def after(value_fn):
        state = tx.init(arrays(params))
        return tx.update(grads, state, arrays(params), curvature=curvature, value_fn=value_fn)[1]

    state = after(value(1.0))
    # The model's step minimises it with the damping in it, which is not in the loss.
    updates, _ = updated(inner.replace(**{"0.damping": 0.5}), params, grads, curvature)
    change = value(1.0)(updates) - value(1.0)(arrays(params))
    dot = sum(np.sum(np.asarray(g) * u) for g, u in zip(
        jax.tree.leaves(grads), jax.tree.leaves(updates), strict=True))  # fmt: skip
    np.testing.assert_allclose(state.ratio, change / (dot / 2), rtol=1e-5)
    np.testing.assert_allclose(state.damping, 0.45, rtol=1e-6)
    np.testing.assert_allclose(after(value(0.1)).damping, 0.5 / 0.9, rtol=1e-6)
    np.testing.assert_allclose(after(value(jnp.nan)).damping, 0.5 / 0.9, rtol=1e-6)
    np.testing.assert_allclose(after(value(0.3)).damping, 0.5, rtol=1e-6)
    seldom = tx.replace(every=2)
    state = seldom.init(arrays(params))
    for expected in (0.5, 0.5 * 0.9**2):
        state = seldom.update(
            grads, state, arrays(params), curvature=curvature, value_fn=value(1.0)
        )[1]
        np.testing.assert_allclose(state.damping, expected, rtol=1e-6)


def bad_shape(curvature):
    blocks = {**curvature.blocks}
    blocks["layer1/w"] = {**blocks["layer1/w"], "S": jnp.ones((3, 3))}
    return kfac.Curvature(blocks, curvature.examples, curvature.layout)


def without_block(curvature):
    blocks = {block: x for block, x in curvature.blocks.items() if block != "layer1/w"}
    return kfac.Curvature(blocks, curvature.examples, curvature.layout)


def other_model(curvature):
    _first, *rest = curvature.layout
    return kfac.Curvature(curvature.blocks, curvature.examples, tuple(rest))


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (bad_shape, ValueError,
         "scale_by_kfac: curvature['layer1/w']['S'] has shape (3, 3), the layer's has (4, 4)"),
        (other_model, ValueError,
         "scale_by_kfac: the curvature is that of another model: expected Layer('dense', "
         "'layer1/w', bias='layer1/b', inputs=(0,), outputs=(1,)), got none. If the model is "
         "right, give its layers: scale_by_kfac(layout=model.layout(params, inputs)) with model = "
         "kfac.capture(...)"),
        (without_block, ValueError,
         "scale_by_kfac: curvature['layer1/w'] has no 'A', expected one of shape (4, 4)"),
        (lambda curvature: curvature.blocks, TypeError,
         "scale_by_kfac: curvature must be a Curvature or None, got a dict of layer1/w, layer2/w"),
    ],
)  # fmt: skip
def test_curvature_that_does_not_fit(change, kind, message):
    params = mlp_params(SIZES)
    _, grads, curvature = measured(mlp, params)
    with pytest.raises(kind) as caught:
        updated(gdtx.scale_by_kfac(), params, grads, change(curvature))
    assert str(caught.value) == message


def test_missing_curvature():
    params = arrays(mlp_params(SIZES), jnp.float32)
    tx = kfac.kfac(0.1)
    with pytest.raises(TypeError, match="kfac > scale_by_kfac: needs the extra argument 'curvat"):
        tx.update(params, tx.init(params), params)
    with pytest.raises(ValueError, match="holds no 'G': ask for it by value_grad_and_curvature"):
        updated(gdtx.scale_by_ekfac(), params, params, measured(mlp, params)[2])


def test_each_link_says_what_curvature_it_needs():
    params = arrays(mlp_params(SIZES), jnp.float32)
    curvature = measured(mlp, params)[2]
    wider = measured(mlp, mlp_params((3, 5, 2)))[2]

    def message(tx, curvature, **extra):
        with pytest.raises((TypeError, ValueError)) as caught:
            tx.update(params, tx.init(params), params, curvature=curvature, **extra)
        return str(caught.value)

    clip = gdtx.clip_by_fisher_norm()
    assert message(clip, wider) == (
        "clip_by_fisher_norm > fisher_square: curvature['layer1/w']['S'] has shape (5, 5), the "
        "layer's has (4, 4)"
    )
    assert message(clip, curvature.blocks).endswith("got a dict of layer1/w, layer2/w")
    other = kfac.Curvature(curvature.blocks, curvature.examples, (kfac.Layer("scale", "table"),))
    assert "another model: there is no 'table'" in message(clip, other)
    blocks = {k: {**v, "G": jnp.ones((2, 2))} for k, v in curvature.blocks.items()}
    turned = kfac.Curvature(blocks, curvature.examples, curvature.layout)
    assert message(gdtx.scale_by_ekfac(), turned) == (
        "scale_by_ekfac: curvature['layer1/w']['G'] has shape (2, 2), the layer's has (4, 4)"
    )
    assert message(gdtx.scale_by_natural_gradient(), curvature) == (
        "scale_by_natural_gradient: curvature must be an array of shape (26, 26), as "
        "kfac.fisher_matrix gives it, got a Curvature"
    )
    adaptive = kfac.levenberg_marquardt(kfac.kfac(0.1))
    assert message(adaptive, curvature, value_fn=None) == (
        "levenberg_marquardt: value_fn must be a function of the parameters, got None (NoneType)"
    )


@pytest.mark.parametrize(
    ("layout", "kind", "message"),
    [
        (["layer1/w"], TypeError, "layout must be a tuple of layers"),
        (kfac.capture(mlp), TypeError, "layout must be a tuple of layers"),
        ((kfac.Layer("scale", "table"),), ValueError,
         "layout has Layer('scale', 'table'), there is no parameter 'table'"),
        ((kfac.Layer("dense", "layer1/w", inputs=(0,), outputs=(2,)),), ValueError,
         "layout has Layer('dense', 'layer1/w', inputs=(0,), outputs=(2,)), the parameter has 2"),
    ],
)  # fmt: skip
def test_layouts_of_other_parameters(layout, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        gdtx.scale_by_kfac(layout=layout).init(arrays(mlp_params(SIZES)))


def test_batches_and_losses_that_do_not_fit():
    params = arrays(mlp_params(SIZES), jnp.float32)
    with pytest.raises(TypeError, match=r"loss must have the methods of .*<lambda>"):
        kfac.value_grad_and_curvature(mlp, lambda y, t: jnp.mean((y - t) ** 2))
    f = kfac.value_grad_and_curvature(mlp, kfac.squared_error, "empirical")
    with pytest.raises(TypeError, match=r"batch must be \(inputs, targets\), got an array"):
        f(params, X)
    # Broadcast, the second would be another loss without a word.
    for targets in (T[:, :1], T[:1]):
        with pytest.raises(ValueError, match=r"squared_error: targets must have shape \(9, 2\)"):
            f(params, (X, targets))
    classes = kfac.value_grad_and_curvature(mlp, kfac.softmax_cross_entropy, "empirical")
    with pytest.raises(ValueError, match=r"softmax_cross_entropy: targets must have shape \(9,\)"):
        classes(params, (X, np.zeros((9, 1), int)))


def programs(layers):
    """How often a step with so many equal layers calls for a decomposition."""
    params = arrays(mlp_params([3] * (layers + 1)), jnp.float32)
    tx = gdtx.scale_by_kfac(inverse_every=1)
    curvature = jax.eval_shape(lambda: measured(mlp, params, (X, X)))[2]
    text = jax.jit(tx.update).lower(params, tx.init(params), curvature=curvature).as_text()
    return text.count("syevd")


def test_factors_of_one_size_are_decomposed_together():
    assert programs(3) == programs(9) == 2  # those of inputs, with a bias, and of outputs


def test_products_are_in_full_precision():
    """Where accelerators would round their factors, small eigenvalues would be divided by."""
    params = arrays(mlp_params(SIZES), jnp.float32)
    tx = gdtx.chain(gdtx.scale_by_ekfac(), gdtx.clip_by_fisher_norm())
    curvature = jax.eval_shape(lambda: measured(mlp, params, output="empirical", gradient=True))[2]
    text = jax.jit(tx.update).lower(params, tx.init(params), curvature=curvature).as_text()
    full = text.count("precision = [HIGHEST, HIGHEST]")
    assert text.count("dot_general") == full > 0


@pytest.mark.slow
def test_decompositions_are_those_one_by_one(x64):
    """More than are decomposed at a time, of two sizes, and stacks of layers."""
    rng = np.random.default_rng(0)

    def factor(*shape):
        rows = rng.normal(size=(*shape, shape[-1]))
        return rows @ np.swapaxes(rows, -1, -2)

    factors = {f"{i}": {"A": factor(3), "S": factor(2 + i % 2)} for i in range(70)}
    factors["stack"] = {"A": factor(2, 2, 3), "S": factor(2, 2, 4)}
    factors["single"] = {"A": factor(3).astype(np.float32), "S": factor(1)}
    found = jax.device_get(jax.jit(eigenbases)(factors))
    for block, pair in factors.items():
        basis = found[block]
        for name, values, vectors in (
            ("A", basis.input_values, basis.inputs), ("S", basis.output_values, basis.outputs),
        ):  # fmt: skip
            assert vectors.dtype == pair[name].dtype
            again = vectors * values[..., None, :] @ np.swapaxes(vectors, -1, -2)
            np.testing.assert_allclose(again, pair[name], rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(
    jax.__version_info__ < (0, 8),
    reason="with jax 0.7 the search takes a bias of no numbers for unused, and says so by its path",
)
def test_empty_layers():
    """Of no hidden unit: what is left is the bias of the output."""
    params = arrays({"layer1": {"w": np.ones((3, 0)), "b": np.ones(0)},
                     "layer2": {"w": np.ones((0, 2)), "b": np.ones(2)}})  # fmt: skip
    _, grads, curvature = measured(mlp, params, output="empirical")
    for split in ("factored", "eigen"):
        updates, state = updated(gdtx.scale_by_kfac(split=split), params, grads, curvature)
        assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, params)
        assert np.isfinite(updates["layer2"]["b"]).all()
        assert state.blocks.failures == 0


@pytest.mark.parametrize("link", [gdtx.scale_by_kfac, gdtx.scale_by_ekfac])
@pytest.mark.parametrize("fallback", [None, gdtx.trace(0.9)], ids=["all", "some"])
def test_a_tree_becomes_a_dict_by_path_once_per_update(link, fallback, monkeypatch):
    params = arrays(mlp_params(SIZES), jnp.float32)
    known = {"layer1": params["layer1"]} if fallback else params
    tx = link(layout=fallback and kfac.infer_layout(known), fallback=fallback)
    state, found = tx.init(params), []
    leaf_paths = layers.leaf_paths
    monkeypatch.setattr(layers, "leaf_paths", lambda tree: found.append(tree) or leaf_paths(tree))
    jax.eval_shape(lambda *args: tx.update(*args, curvature=None), params, state, params)
    assert len(found) == 1


def test_buffers_are_found_by_name():
    params = arrays(mlp_params(SIZES), jnp.float32)
    state = kfac.kfac(0.1).init(params)
    found = gdtx.find(state, "statistics")
    assert found["factors"]["layer1/w"]["A"].shape == (4, 4)
    assert gdtx.find(state, "bases").keys() == found["factors"].keys()
    with pytest.raises(ValueError, match="keeps nothing under the name 'fallback'"):
        gdtx.find(state, "fallback")
    layout = kfac.infer_layout({"layer1": params["layer1"]})
    state = gdtx.scale_by_kfac(layout=layout, fallback=gdtx.scale_by_adam()).init(params)
    assert gdtx.find(state, "mu")["layer2"]["w"].shape == (4, 2)
    assert gdtx.find(gdtx.scale_by_ekfac().init(params), "squares")["layer1/w"].shape == (4, 4)


def test_a_layout_prints_a_layer_a_line():
    params = mlp_params(SIZES)
    tx = kfac.kfac(0.1, layout=kfac.infer_layout(params), fallback=gdtx.sgd(0.1))
    assert str(tx).splitlines() == [
        "kfac(",
        "    0.1,",
        "    layout=(",
        "        Layer('dense', 'layer1/w', bias='layer1/b', inputs=(0,), outputs=(1,)),",
        "        Layer('dense', 'layer2/w', bias='layer2/b', inputs=(0,), outputs=(1,)),",
        "    ),",
        "    fallback=sgd(0.1),",
        ")",
    ]
    one = gdtx.scale_by_kfac(layout=(kfac.Layer("scale", "w"),))
    assert str(one) == "scale_by_kfac(layout=(Layer('scale', 'w'),))"
    assert eval(str(one), {**vars(gdtx), "Layer": kfac.Layer}) == one
