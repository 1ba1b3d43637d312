"""Taps put into models of every kind, and what is refused."""

import functools

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from kfac_models import mlp, mlp_params, some

from gdtx import kfac
from gdtx.curvature.model.statistics import zeros

N = 5
X, T = jnp.asarray(some(N, 3, seed=5), jnp.float32), jnp.asarray(some(N, 2, seed=6), jnp.float32)
PARAMS = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), mlp_params((3, 4, 2)))


def blocks(model, params=PARAMS, x=X, targets=T, **settings):
    f = kfac.value_grad_and_curvature(
        kfac.capture(model, **settings), kfac.squared_error, output="empirical"
    )

    @jax.jit
    def both(params, x):
        plain = jax.value_and_grad(lambda p: kfac.squared_error(model(p, x), targets))
        return f(params, (x, targets)), plain(params)

    (value, grads, curvature), plain = jax.device_get(both(params, x))
    np.testing.assert_allclose(value, plain[0], rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), grads,
                 plain[1])  # fmt: skip
    return curvature.blocks


@functools.cache
def of_mlp():
    return blocks(mlp)


def same(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one, other)


def by_hand(params, x, taps):
    first, last = params.values()
    h = jnp.tanh(kfac.tap_dense(x, first["w"], first["b"], taps["layer1/w"]))
    return kfac.tap_dense(h, last["w"], last["b"], taps["layer2/w"])


def test_captured_and_tapped_by_hand_agree():
    f = kfac.value_grad_and_curvature(kfac.tapped(by_hand), kfac.squared_error, "empirical")
    same(jax.jit(f)(PARAMS, (X, T))[2].blocks, of_mlp())


def jitted(params, x):
    return jax.jit(mlp)(params, x)


def rematerialised(params, x):
    return jax.checkpoint(mlp, policy=jax.checkpoint_policies.dots_saveable)(params, x)


def vmapped(params, x):
    return jax.vmap(lambda row: mlp(params, row[None])[0])(x)


def transposed(params, x):
    """Columns are examples, and the bias is added to those."""
    first, last = params.values()
    h = jnp.tanh(jnp.einsum("io,ni->on", first["w"], x) + first["b"][:, None])
    return jnp.einsum("io,in->no", last["w"], h) + last["b"][None]


@jax.custom_vjp
def dense(x, w, b):
    return x @ w + b[None]


def dense_backward(kept, g):
    x, w, _ = kept
    return g @ w.T, x.T @ g, g.sum(0)


dense.defvjp(lambda x, w, b: (dense(x, w, b), (x, w, b)), dense_backward)


def with_own_derivative(params, x):
    first, last = params.values()
    return dense(jax.nn.relu(dense(x, **first)), **last)


def with_relu(params, x):
    return mlp(params, x, jax.nn.relu)


@pytest.mark.parametrize("model", [jitted, rematerialised, vmapped, transposed])
def test_through_transformations(model):
    same(blocks(model), of_mlp())


def test_through_custom_derivatives():
    """Of activations, and of layers, which keep their own."""
    same(blocks(with_own_derivative), blocks(with_relu))

    @jax.custom_vjp
    def doubled(x, w):
        return x @ w

    doubled.defvjp(lambda x, w: (x @ w, (x, w)), lambda kept, g: (g @ kept[1].T, 2 * kept[0].T @ g))
    params = {"w": PARAMS["layer1"]["w"]}
    f = kfac.value_grad_and_curvature(
        lambda p, x: doubled(x, p["w"]), kfac.squared_error, "empirical"
    )
    _, grads, curvature = jax.jit(f)(params, (X, np.zeros((N, 4), np.float32)))
    g = np.asarray(X) @ np.asarray(params["w"])
    np.testing.assert_allclose(grads["w"], 2 * np.asarray(X).T @ g / N, rtol=1e-5)
    np.testing.assert_allclose(curvature.blocks["w"]["S"], g.T @ g, rtol=1e-5)


STACK = {"w": jnp.asarray(some(3, 3, 3), jnp.float32), "b": jnp.asarray(some(3, 3), jnp.float32)}


def scanned(params, x):
    def body(h, layer):
        return jnp.tanh(h @ layer["w"] + layer["b"][None]), None

    return jax.lax.scan(body, x, params)[0]


def unrolled(params, x):
    for layer in params.values():
        x = jnp.tanh(x @ layer["w"] + layer["b"][None])
    return x


def test_scanned_equals_unrolled():
    targets = jnp.zeros((N, 3))
    stacked = blocks(scanned, STACK, targets=targets)["w"]
    layers = {str(i): jax.tree.map(lambda p: p[i], STACK) for i in range(3)}  # noqa: B023
    apart = blocks(unrolled, layers, targets=targets)
    for i in range(3):
        same({name: s[i] for name, s in stacked.items()}, apart[f"{i}/w"])


def test_one_layer_used_in_every_turn_of_a_scan():
    """A constant of the scan: uses add up."""
    w = {"w": STACK["w"][0]}

    def turns(params, x):
        return jax.lax.scan(lambda h, _: (jnp.tanh(h @ params["w"]), None), x, length=3)[0]

    def written_out(params, x):
        for _ in range(3):
            x = jnp.tanh(x @ params["w"])
        return x

    targets = jnp.zeros((N, 3))
    same(blocks(turns, w, targets=targets), blocks(written_out, w, targets=targets))


class LinenModel(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(3, (2, 2))(x))
        x = nn.LayerNorm()(x).reshape(x.shape[0], -1)
        return nn.Dense(2)(x)


class NnxModel(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 3, (2, 2), rngs=rngs)
        self.norm = nnx.LayerNorm(3, rngs=rngs)
        self.linear = nnx.Linear(27, 2, rngs=rngs)

    def __call__(self, x):
        x = self.norm(jax.nn.relu(self.conv(x)))
        return self.linear(x.reshape(x.shape[0], -1))


def plain_model(params, x):
    y = jax.lax.conv_general_dilated(
        x, params["conv"]["w"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    h = jax.nn.relu(y + params["conv"]["b"][None, None, None])
    h = (h - h.mean(-1, keepdims=True)) * jax.lax.rsqrt(h.var(-1, keepdims=True) + 1e-6)
    h = h * params["norm"]["scale"][None, None, None] + params["norm"]["b"][None, None, None]
    return h.reshape(h.shape[0], -1) @ params["dense"]["w"] + params["dense"]["b"][None]


def equinox_model(image):
    keys = jax.random.split(jax.random.key(0))
    conv = eqx.nn.Conv2d(1, 3, 2, padding="SAME", key=keys[0])
    linear = eqx.nn.Linear(27, 2, key=keys[1])
    return eqx.nn.Sequential([conv, eqx.nn.Lambda(jax.nn.relu), eqx.nn.Lambda(jnp.ravel), linear])


def test_all_kinds_of_models_agree():
    """The same network, its parameters under other names and in another order."""
    # Not nearly 0 after the rectifier: what a norm divides by would be rounding.
    images = jnp.asarray(1 + some(N, 3, 3, 1) ** 2, jnp.float32)
    linen = LinenModel()
    params = linen.init(jax.random.key(1), images)
    expected = blocks(linen.apply, params, images)
    p = params["params"]
    plain = {
        "conv": {"w": p["Conv_0"]["kernel"], "b": p["Conv_0"]["bias"]},
        "norm": {"scale": p["LayerNorm_0"]["scale"], "b": p["LayerNorm_0"]["bias"]},
        "dense": {"w": p["Dense_0"]["kernel"], "b": p["Dense_0"]["bias"]},
    }
    names = {"conv/w": "Conv_0/kernel", "dense/w": "Dense_0/kernel",
             "norm/scale": "LayerNorm_0/scale", "norm/b": "LayerNorm_0/bias"}  # fmt: skip
    found = blocks(plain_model, plain, images)
    for ours, theirs in names.items():
        same(found[ours], expected[f"params/{theirs}"])

    graph, state = nnx.split(NnxModel(nnx.Rngs(0)))
    pure = nnx.to_pure_dict(state)
    pure["conv"] |= p["Conv_0"]
    pure["norm"] |= p["LayerNorm_0"]
    pure["linear"] |= p["Dense_0"]

    def nnx_model(pure, x):
        filled = jax.tree.map(lambda x: x, state)
        nnx.replace_by_pure_dict(filled, pure)
        return nnx.merge(graph, filled)(x)

    found = blocks(nnx_model, pure, images)
    names = {"conv/kernel": "Conv_0/kernel", "linear/kernel": "Dense_0/kernel",
             "norm/scale": "LayerNorm_0/scale", "norm/bias": "LayerNorm_0/bias"}  # fmt: skip
    for ours, theirs in names.items():
        same(found[ours], expected[f"params/{theirs}"])


def test_equinox():
    """Its weights have the outputs first, and images no axis of examples."""
    images = jnp.asarray(some(N, 1, 3, 3), jnp.float32)
    params, static = eqx.partition(equinox_model(images), eqx.is_inexact_array)

    def model(params, x):
        return jax.vmap(eqx.combine(params, static))(x)

    found = blocks(model, params, images)
    assert set(found) == {"layers/0/weight", "layers/3/weight"}
    layout = kfac.capture(model).layout(params, images)
    assert kfac.infer_layout(params) == layout
    assert found["layers/0/weight"]["A"].shape == (5, 5)
    h = jax.vmap(lambda image: eqx.combine(params, static)[:3](image))(images)
    h = np.concatenate([h, np.ones((N, 1))], axis=1)
    np.testing.assert_allclose(found["layers/3/weight"]["A"], h.T @ h, rtol=1e-5)


@pytest.mark.parametrize(
    "params",
    [
        PARAMS,
        [(PARAMS["layer1"]["w"], PARAMS["layer1"]["b"])],
        {"w1": jnp.ones((3, 4)), "b1": jnp.ones(4), "w2": jnp.ones((4, 4)), "b2": jnp.ones(4)},
        {"kernel": jnp.ones((4, 2, 3)), "bias": jnp.ones((2, 3))},
        STACK,
        {"w": jnp.ones((3, 2))},
        {"hidden": jnp.ones((3, 4)), "out": jnp.ones((4, 1))},
    ],
    ids=["dicts", "pairs", "numbered", "heads", "stack", "no bias", "column"],
)
def test_layers_that_names_and_shapes_let_one_expect(params):
    """What is used so is found so."""

    def model(params, x):
        if isinstance(params, list):
            return x @ params[0][0] + params[0][1][None]
        if "layer1" in params:
            return mlp(params, x)
        if "w1" in params:
            h = jnp.tanh(x @ params["w1"] + params["b1"][None])
            return h @ params["w2"] + params["b2"][None]
        if "hidden" in params:
            return jnp.tanh(x @ params["hidden"]) @ params["out"]
        if "kernel" in params:
            x = jnp.concatenate([x, x[:, :1]], axis=1)
            y = jnp.einsum("ni,iho->nho", x, params["kernel"])
            return (y + params["bias"][None]).reshape(x.shape[0], -1)
        return scanned(params, x) if params["w"].ndim == 3 else x @ params["w"]

    assert kfac.infer_layout(params) == kfac.capture(model).layout(params, X)


HINT = "name it in fallback, and it is left out of the curvature"
LAYERS = "(dense, convolution, scale or shift of data)"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda p, x: x @ jnp.exp(p["w"]),
         f"capture: the use of w in exp is none of a layer that is known {LAYERS}: {HINT}"),
        (lambda p, x: p["w"][jnp.zeros(N, int)],
         f"capture: the use of w in gather is none of a layer that is known {LAYERS}: {HINT}"),
        (lambda p, x: x @ (p["w"] * p["w"]),
         f"capture: the use of w in mul is none of a layer that is known {LAYERS}: {HINT}"),
        (lambda p, x: x @ (2 * p["w"]),
         f"capture: the use of w in mul is none of a layer that is known {LAYERS}: {HINT}"),
        (lambda p, x: jax.lax.cond(True, lambda: x @ p["w"], lambda: x @ p["w"]),
         f"capture: the use of w in cond is none of a layer that is known {LAYERS}: {HINT}"),
        (lambda p, x: x, f"capture: w is not used by the model, or only where it changes nothing: "
         f"{HINT}"),
    ],
    ids=["exp", "gather", "both", "constant", "cond", "unused"],
)  # fmt: skip
def test_what_is_refused(model, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        kfac.capture(model).layout({"w": jnp.ones((3, 2))}, X)
    assert str(caught.value) == message
    captured = kfac.capture(model, fallback=["w"])
    assert captured.layout({"w": jnp.ones((3, 2))}, X) == ()


def test_a_fallback_that_is_no_parameter():
    message = "capture: fallback names 'v', which is no parameter; those are w"
    with pytest.raises(ValueError, match=message):
        kfac.capture(lambda p, x: x @ p["w"], ["v"]).layout({"w": jnp.ones((3, 2))}, X)


def test_a_weight_with_two_biases():
    params = {"w": jnp.ones((3, 3)), "a": jnp.ones(3), "b": jnp.ones(3)}

    def model(p, x):
        return (x @ p["w"] + p["a"][None]) @ p["w"] + p["b"][None]

    with pytest.raises(ValueError, match="capture: w is used in two ways"):
        kfac.capture(model).layout(params, X)


@pytest.mark.parametrize(
    ("model", "weight", "added", "is_bias"),
    [
        (lambda p, x: jnp.stack([x, x], 1) @ p["w"] + p["a"][None], (3, 4), (2, 4), False),
        (lambda p, x: x @ p["w"] + p["a"], (3, 4), (1, 4), True),
        (lambda p, x: (y := x @ p["w"]) * (y + p["a"][None]), (3, 4), (4,), False),
        (lambda p, x: x @ p["w"] - p["a"][None], (3, 4), (4,), False),
        (lambda p, x: jnp.einsum("ni,iab->nab", x, p["w"]) + p["a"].T[None], (3, 2, 2), (2, 2),
         False),
    ],
    ids=["positions", "row", "used twice", "subtracted", "turned"],
)  # fmt: skip
def test_what_is_a_bias(model, weight, added, is_bias):
    """What is added, once and in the order of the weight's axes, to all that a layer makes."""
    params = {"w": jnp.ones(weight), "a": jnp.ones(added)}
    paths = {layer.paths for layer in kfac.capture(model).layout(params, X)}
    assert paths == ({("w", "a")} if is_bias else {("w",), ("a",)})


def test_a_scan_that_runs_backward():
    def model(params, x):
        def body(h, layer):
            return jnp.tanh(h @ layer["w"] + layer["b"][None]), h

        return jax.lax.scan(body, x, params, reverse=True)[0]

    layers, leaves, apply = kfac.capture(model).prepare(STACK, X)
    taps = {layer.weight: zeros(layer, leaves) for layer in layers}
    same(apply(STACK, taps), model(STACK, X))


def convolution(params, x):
    """Nothing of it is the same along its two axes."""
    y = jax.lax.conv_general_dilated(
        x, params["w"], (2, 1), ((0, 1), (2, 0)), lhs_dilation=(2, 1), rhs_dilation=(1, 2),
        dimension_numbers=("NHWC", "WOHI", "NHWC"),
    )  # fmt: skip
    return jnp.tanh(y).sum((1, 2))


@pytest.mark.parametrize(
    ("model", "inputs", "weight"),
    [
        (convolution, (N, 3, 5, 2), (3, 4, 2, 2)),
        (lambda p, x: jnp.einsum("nab,boa->no", x, p["w"]), (N, 3, 2), (2, 4, 3)),
    ],
    ids=["convolution", "two axes"],
)
def test_rows_and_columns_are_in_the_order_of_the_weight(model, inputs, weight):
    """The products of inputs and cotangents, added up, are the gradient."""
    x, params = jnp.asarray(some(*inputs)), {"w": jnp.asarray(some(*weight, seed=1))}
    (layer,), leaves, apply = kfac.capture(model).prepare(params, x)
    taps = {"w": zeros(layer, leaves, gradient=True)}
    grads, found = jax.grad(lambda *args: jnp.sum(apply(*args) ** 2), (0, 1))(params, taps)
    same(found["w"]["G"], layer.matrix(grads))
