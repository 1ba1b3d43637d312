"""What taps gather, against Gauss-Newton matrices and gradients of single examples."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kfac_models import (
    blocks_of_gauss_newton,
    linear,
    mlp,
    mlp_params,
    patches,
    some,
)

from gdtx import kfac
from gdtx.curvature.model import sites
from gdtx.curvature.model.layers import leaves_by_path

pytestmark = pytest.mark.usefixtures("x64")

N, SIZES = 7, (3, 4, 2)
X, T = some(N, 3, seed=5), some(N, 2, seed=6)
LABELS = np.arange(N) % 2


def curvature(model, loss, params, batch, output="exact", key=None, **settings):
    f = kfac.value_grad_and_curvature(model, loss, output, **settings)
    jitted = jax.jit(f)
    return jax.device_get(jitted(jax.tree.map(jnp.asarray, params), batch, key))


def factors(found, block):
    statistics = found.blocks[block]
    A, S, n = (np.asarray(statistics[name]) for name in "ASn")
    return A / n[..., None, None], S / float(found.examples)


def softmax_root(outputs):
    p = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)
    return np.sqrt(p)[:, :, None] * (np.eye(p.shape[-1]) - p[:, None, :])


def test_a_model_is_traced_and_searched_once_per_evaluation(monkeypatch):
    searches, plan = [], sites.Planner.plan
    monkeypatch.setattr(
        sites.Planner, "plan", lambda *args: searches.append(args[1]) or plan(*args)
    )
    f = kfac.value_grad_and_curvature(linear, kfac.squared_error, "empirical")
    jax.eval_shape(f, mlp_params(SIZES), (X, T))
    assert len(searches) == 1

    traces = []

    def model(params, x):
        traces.append(x)
        return x @ params["w"]

    jax.eval_shape(kfac.fisher_matrix(model, kfac.squared_error), {"w": some(3, 2)}, (X, T))
    assert len(traces) == 1


def test_factors_of_a_linear_network_are_exact():
    params = mlp_params((3, 5, 4, 2))
    found = curvature(linear, kfac.squared_error, params, (X, T))[2]
    root = np.broadcast_to(np.eye(2), (N, 2, 2))
    for name, dense in blocks_of_gauss_newton(linear, params, X, lambda y: root).items():
        A, S = factors(found, f"{name}/w")
        np.testing.assert_allclose(np.kron(A, S), dense, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("loss", "root", "targets"),
    [
        (kfac.softmax_cross_entropy, softmax_root, LABELS),
        (
            kfac.sigmoid_cross_entropy,
            lambda y: np.sqrt(1 / (2 + np.exp(y) + np.exp(-y)))[..., None] * np.eye(2),
            T > 0,
        ),
    ],
)
def test_one_example_gives_the_exact_block(loss, root, targets):
    """Of one example the average of a product is the product of averages."""
    params = mlp_params(SIZES)
    found = curvature(mlp, loss, params, (X[:1], targets[:1]))[2]
    for name, dense in blocks_of_gauss_newton(mlp, params, X[:1], root).items():
        A, S = factors(found, f"{name}/w")
        np.testing.assert_allclose(np.kron(A, S), dense, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        (kfac.squared_error, T),
        (kfac.softmax_cross_entropy, LABELS),
        (kfac.sigmoid_cross_entropy, T > 0),
    ],
)
def test_sampled_factors_converge(loss, targets):
    """At 1/sqrt(samples): 16 times the samples, a quarter of the distance."""
    params = mlp_params(SIZES)
    exact = factors(curvature(mlp, loss, params, (X, targets))[2], "layer1/w")[1]
    f = kfac.value_grad_and_curvature(mlp, loss)

    @jax.jit
    @jax.vmap
    def sampled(key):
        found = f(jax.tree.map(jnp.asarray, params), (X, targets), key)[2]
        return found.blocks["layer1/w"]["S"] / found.examples

    each = np.asarray(sampled(jax.random.split(jax.random.key(0), 4096)))
    spread = each.std(0) / np.sqrt(len(each))
    assert np.all(np.abs(each.mean(0) - exact) < 5 * spread + 1e-12)
    distances = [
        np.sqrt(np.mean((each.reshape(-1, k, *exact.shape).mean(1) - exact) ** 2)) for k in (4, 64)
    ]
    np.testing.assert_allclose(distances[0] / distances[1], 4, rtol=0.25)


def test_loss_and_gradient_are_those_without_taps():
    params = jax.tree.map(jnp.asarray, mlp_params(SIZES))
    plain = jax.jit(jax.value_and_grad(lambda p: kfac.squared_error(mlp(p, X), T)))(params)
    for output in ("sampled", "exact", "empirical"):
        key = jax.random.key(0)
        value, grads, _ = curvature(mlp, kfac.squared_error, params, (X, T), output, key)
        np.testing.assert_allclose(value, plain[0], rtol=1e-15)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-15), grads, plain[1]
        )


@pytest.mark.parametrize("loss", [kfac.softmax_cross_entropy, kfac.squared_error])
def test_values_of_losses(loss):
    """Against the formulas, targets as classes and as distributions."""
    y = some(N, 2, seed=8)
    if loss is kfac.squared_error:
        np.testing.assert_allclose(loss(y, T), np.mean(np.sum((y - T) ** 2, -1)) / 2)
        return
    p = np.exp(y) / np.exp(y).sum(-1, keepdims=True)
    expected = -np.log(p[np.arange(N), LABELS]).mean()
    np.testing.assert_allclose(loss(y, jnp.asarray(LABELS)), expected)
    np.testing.assert_allclose(loss(y, np.eye(2)[LABELS]), expected)


def gradients_of_examples(model, loss, params, x, targets):
    def one(x, t):
        return jax.grad(lambda p: loss(model(p, x[None]), t[None]))(params)

    return jax.device_get(jax.jit(jax.vmap(one))(x, targets))


def test_empirical_factors_are_those_of_the_gradients():
    params = jax.tree.map(jnp.asarray, mlp_params(SIZES))
    found = curvature(mlp, kfac.squared_error, params, (X, T), "empirical")[2]
    each = gradients_of_examples(mlp, kfac.squared_error, params, X, T)
    A, S = factors(found, "layer2/w")
    b = np.asarray(each["layer2"]["b"])  # what comes back to the layer's output
    np.testing.assert_allclose(S, b.T @ b / N, rtol=1e-12)
    h = np.tanh(X @ np.asarray(params["layer1"]["w"]) + np.asarray(params["layer1"]["b"]))
    h = np.concatenate([h, np.ones((N, 1))], axis=1)
    np.testing.assert_allclose(A, h.T @ h / N, rtol=1e-12)


def normalised(params, x):
    """Positions (examples, s, d): scaled, shifted, and averaged to outputs."""
    x = jnp.tanh(x * params["scale"][None, None] + params["bias"][None, None])
    return x.mean(1)


def test_scales_and_shifts_are_exact_for_every_example():
    x, targets = some(N, 5, 2, seed=1), T
    params = {"scale": jnp.asarray(some(2)), "bias": jnp.asarray(some(2, seed=3))}
    found = curvature(normalised, kfac.squared_error, params, (x, targets), "empirical")[2]
    each = gradients_of_examples(normalised, kfac.squared_error, params, x, targets)
    for name in params:
        np.testing.assert_allclose(
            found.blocks[name]["D"], np.sum(np.asarray(each[name]) ** 2, 0), rtol=1e-12
        )


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
def test_shared_positions(sharing):
    """Expand: each position an example. Reduce: mean of the inputs, sum of the cotangents."""
    x, w, g = some(N, 5, 3), jnp.asarray(some(3, 2)), some(N, 5, 2, seed=2)

    def f(tap):
        return jnp.sum(kfac.tap_dense(jnp.asarray(x), w, jnp.zeros(2), tap, sharing) * g)

    found = jax.jit(jax.grad(f))(kfac.dense_tap(w, jnp.zeros(2)))
    x = np.concatenate([x, np.ones((N, 5, 1))], axis=-1)
    rows, back = (
        (x.reshape(-1, 4), g.reshape(-1, 2)) if sharing == "expand" else (x.mean(1), g.sum(1))
    )
    np.testing.assert_allclose(found["A"], rows.T @ rows, rtol=1e-12)
    np.testing.assert_allclose(found["S"], back.T @ back, rtol=1e-12)
    assert found["n"] == len(rows)


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 1, 1), (2, 0, 1), (1, 2, 2)])
@pytest.mark.parametrize("kernel_layout", ["OIHW", "HWIO"])
@pytest.mark.diagonal
def test_convolution(stride, padding, dilation, kernel_layout):
    """Factors of patches and cotangents, in the order of the kernel's numbers."""
    x = some(N, 6, 6, 2)
    kernel = jnp.asarray(some(3, 3, 2, 3, seed=4))
    axes = (0, 1, 2, 3) if kernel_layout == "HWIO" else (3, 2, 0, 1)

    def model(params, x):
        y = jax.lax.conv_general_dilated(
            x, params["kernel"], (stride, stride), [(padding, padding)] * 2,
            rhs_dilation=(dilation, dilation), dimension_numbers=("NHWC", kernel_layout, "NHWC"),
        )  # fmt: skip
        return jnp.sin(y + params["bias"][None, None, None]).sum((1, 2))

    params = {"kernel": kernel.transpose(axes), "bias": jnp.asarray(some(3, seed=5))}
    targets = some(N, 3, seed=7)
    _, grads, found = curvature(model, kfac.squared_error, params, (x, targets), "empirical")
    (layer,) = found.layout
    assert layer.bias == "bias"

    cut = patches(x, 3, stride, (padding, padding), dilation)
    y = np.einsum("npqijc,ijco->npqo", cut, kernel) + np.asarray(params["bias"])
    residual = np.sin(y).sum((1, 2)) - targets
    g = np.cos(y) * residual[:, None, None, :]
    order = (0, 1, 2, 3, 4, 5) if kernel_layout == "HWIO" else (0, 1, 2, 5, 3, 4)
    rows = cut.transpose(order).reshape(-1, 18)
    rows = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    A, S = factors(found, "kernel")
    np.testing.assert_allclose(A, rows.T @ rows / len(rows), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(S, np.einsum("npqo,npqr->or", g, g) / N, rtol=1e-10)
    # The order of rows is that in which the layer takes the gradient apart.
    leaves = leaves_by_path(params)
    np.testing.assert_array_equal(layer.leaves(layer.matrix(leaves), leaves)["kernel"],
                                  params["kernel"])  # fmt: skip
    flat = np.einsum("npqijc,npqo->ijco", cut, g) / N
    np.testing.assert_allclose(grads["kernel"], flat.transpose(axes), rtol=1e-9, atol=1e-12)


def test_micro_batches_add_up():
    params = mlp_params(SIZES)
    whole = curvature(mlp, kfac.softmax_cross_entropy, params, (X[:6], LABELS[:6]))[2]
    parts = [
        curvature(mlp, kfac.softmax_cross_entropy, params, (X[i : i + 2], LABELS[i : i + 2]))[2]
        for i in (0, 2, 4)
    ]
    summed = jax.tree.map(lambda *leaves: sum(leaves), *parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), summed, whole)


def test_tied_weights():
    """Used twice, a layer has the statistics of both uses."""
    w = some(3, 3)

    def model(params, x):
        return jnp.tanh(x @ params["w"]) @ params["w"]

    t = some(N, 3, seed=9)
    found = curvature(model, kfac.squared_error, {"w": w}, (X, t), "empirical")[2]
    h = np.tanh(X @ w)
    g = h @ w - t
    first = (g @ w.T) * (1 - h**2)
    A, S = factors(found, "w")
    np.testing.assert_allclose(A, (X.T @ X + h.T @ h) / (2 * N), rtol=1e-12)
    np.testing.assert_allclose(S, (g.T @ g + first.T @ first) / N, rtol=1e-12)


def test_gradient_at_sampled_targets():
    """Its square is, on average, the diagonal of the Fisher matrix times the examples."""
    params = mlp_params(SIZES)
    f = kfac.value_grad_and_curvature(mlp, kfac.softmax_cross_entropy, gradient=True)

    @jax.jit
    @jax.vmap
    def squares(key):
        found = f(jax.tree.map(jnp.asarray, params), (X, LABELS), key)[2]
        return found.blocks["layer1/w"]["G"] ** 2 / found.examples

    each = np.asarray(squares(jax.random.split(jax.random.key(0), 4096)))
    dense = blocks_of_gauss_newton(mlp, params, X, softmax_root)["layer1"]
    error = each.std(0) / np.sqrt(len(each))
    assert np.all(np.abs(each.mean(0) - np.diag(dense).reshape(4, 4)) < 5 * error)


def test_flops_are_one_forward_and_two_backward_passes_and_the_factors():
    sizes, n = (64, 128, 96, 10), 256
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), mlp_params(sizes))
    x, labels = jnp.ones((n, 64), jnp.float32), jnp.zeros(n, jnp.int32)
    f = kfac.value_grad_and_curvature(mlp, kfac.softmax_cross_entropy)
    program = jax.jit(f).lower(params, (x, labels), jax.random.key(0)).compile()
    products = [a * b for a, b in itertools.pairwise(sizes)]
    forward = 2 * n * sum(products)
    through = 2 * n * sum(products[1:])  # back to the first layer's output, twice
    weights = 2 * n * sum(products)
    gathered = 2 * n * sum((a + 1) ** 2 + b**2 for a, b in itertools.pairwise(sizes))
    analytic = forward + 2 * through + weights + gathered
    flops = program.cost_analysis()["flops"]
    assert analytic < flops < 1.1 * analytic


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda f, p: f("guessed"), ValueError,
         "value_grad_and_curvature: output must be one of 'sampled', 'exact', 'empirical', got "
         "'guessed'"),
        (lambda f, p: f("exact", gradient=True), ValueError,
         "value_grad_and_curvature: gradient=True needs sampled outputs, got output='exact'"),
        (lambda f, p: f("sampled")(p, (X, T)), TypeError,
         "value_grad_and_curvature: output='sampled' needs a key: f(params, batch, key)"),
    ],
)  # fmt: skip
def test_what_is_asked_for_wrongly(call, kind, message):
    def f(output, **settings):
        return kfac.value_grad_and_curvature(mlp, kfac.squared_error, output, **settings)

    with pytest.raises(kind) as caught:
        call(f, jax.tree.map(jnp.asarray, mlp_params(SIZES)))
    assert str(caught.value) == message


def test_the_tap_of_another_layer():
    with pytest.raises(ValueError, match="tap_dense: the tap is that of another layer"):
        kfac.tap_dense(jnp.ones((2, 3)), jnp.ones((3, 2)), None, kfac.dense_tap(jnp.ones((2, 2))))
