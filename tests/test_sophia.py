"""Sophia beside other programs, and the estimates of the Hessian's diagonal that it takes."""

import re
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from recipes import problem

import gdtx
from gdtx import kfac

optax = pytest.importorskip("optax", reason="Optax is installed by the extra 'test'")

STEPS = 25
SETTINGS = {"b1": 0.9, "b2": 0.8, "eps": 1e-3, "weight_decay": 0.1, "update_interval": 4}


def path(tx, name="hessian", of=lambda hessian: hessian):
    """The parameters of all steps; `of` makes of the Hessian's diagonal what `update` is given."""

    def step(carry, t):
        params, state = carry
        extra = {name: of(problem.hessian(params, t, jnp))}
        updates, state = tx.update(problem.gradient(params, t, jnp), state, params, **extra)
        params = gdtx.apply_updates(params, updates)
        return (params, state), params

    start = jax.tree.map(jnp.asarray, problem.START)
    steps = jnp.arange(1, STEPS + 1)
    return jax.jit(lambda: jax.lax.scan(step, (start, tx.init(start)), steps)[1])()


def assert_close(one, other, rtol):
    for key, x in one.items():
        np.testing.assert_allclose(x, other[key], rtol=rtol, err_msg=key)


def test_optax_is_another_place_of_the_same_links(x64):
    """It corrects the bias of m, and uses the estimates of the steps before."""
    given = optax.GradientTransformationExtraArgs(
        lambda params: (), lambda u, state, params, hessian: (hessian, state)
    )
    theirs = path(optax.contrib.sophia(0.1, gamma=0.5, hessian_diagonal_fn=given, **SETTINGS))
    estimates = gdtx.chain(gdtx.value_of("hessian"), gdtx.ema(0.8))
    diagonal = gdtx.previous(gdtx.every(4, estimates, otherwise="last"))
    step = gdtx.join(
        gdtx.divide,
        mu=gdtx.first_moment(0.9),
        h=gdtx.chain(diagonal, gdtx.scale(0.5), gdtx.at_least(1e-3)),
    )
    ours = path(
        gdtx.chain(
            step, gdtx.clip(1.0), gdtx.add_decayed_weights(0.1), gdtx.scale_by_learning_rate(0.1)
        )
    )
    assert_close(ours, theirs, 1e-12)
    apart = path(gdtx.sophia(0.1, gamma=0.5, **SETTINGS))
    assert abs(apart["w"] - theirs["w"]).max() > 1e-3


def test_pytorch_optimizer(x64):
    because = "pytorch_optimizer is installed by the extra 'peers'"
    torch = pytest.importorskip("torch", reason=because)
    peers = pytest.importorskip("pytorch_optimizer", reason=because)
    params = [torch.tensor(x, requires_grad=True) for x in problem.START.values()]
    optimizer = peers.SophiaH(
        params, lr=0.1, betas=(0.9, 0.8), weight_decay=0.1, p=0.7, eps=1e-3, foreach=False
    )
    ours = path(
        gdtx.sophia(0.1, 0.9, 0.8, 1e-3, 0.1, gamma=1.0, clip_threshold=0.7, update_interval=1)
    )
    for t in range(1, STEPS + 1):
        at = dict(zip(problem.START, (p.detach().numpy() for p in params), strict=True))
        for p, g in zip(params, problem.gradient(at, t).values(), strict=True):
            p.grad = torch.tensor(g)
        optimizer.step(hessian=[torch.tensor(h) for h in problem.hessian(at, t).values()])
        for key, p in zip(problem.START, params, strict=True):
            np.testing.assert_allclose(ours[key][t - 1], p.detach().numpy(), rtol=1e-12)


def test_a_function_is_run_on_the_steps_that_need_it(x64):
    ran = []

    def lazily(hessian):
        def run(params):
            jax.debug.callback(lambda: ran.append(None))
            return hessian

        return run

    tx = gdtx.sophia(0.1, **SETTINGS)
    at_once, lazy = path(tx), jax.block_until_ready(path(tx, of=lazily))
    jax.effects_barrier()
    assert_close(lazy, at_once, 1e-9)
    assert len(ran) == len(range(0, STEPS, 4))


def test_without_an_estimate_it_says_so():
    tx, params = gdtx.sophia(0.1), jnp.ones(2)
    with pytest.raises(
        TypeError, match=r"sophia > .*call update\(updates, state, params, hessian="
    ):
        tx.update(params, tx.init(params), params)
    with pytest.raises(TypeError, match="at_least: updates is complex"):
        gdtx.at_least(1.0).update(params + 1j, ())


MATRIX = jnp.array([[3.0, 0.5, -1.0], [0.5, -2.0, 0.3], [-1.0, 0.3, 1.0]])


def quadratic(params):
    x = jnp.append(params["a"], params["b"])
    return 0.5 * x @ MATRIX @ x


POINT = {"a": jnp.array([1.0, 2.0]), "b": jnp.float32(-1.0)}


def test_hutchinson_is_right_on_average():
    keys = jax.random.split(jax.random.key(0), 4000)
    each = jax.jit(jax.vmap(partial(gdtx.hutchinson, quadratic, POINT)))(keys)
    assert jax.tree.structure(each) == jax.tree.structure(POINT)
    means = np.append(each["a"].mean(0), each["b"].mean(0))
    np.testing.assert_allclose(means, jnp.diag(MATRIX), atol=0.08)
    assert each["a"].std(0).min() > 0.3


def test_hutchinson_is_exact_where_the_hessian_is_diagonal():
    estimate = gdtx.hutchinson(
        lambda p: (p["a"] ** 3).sum() + p["b"] ** 2, POINT, jax.random.key(1)
    )
    np.testing.assert_allclose(estimate["a"], 6 * POINT["a"], rtol=1e-6)
    np.testing.assert_allclose(estimate["b"], 2.0)


def logits(params, inputs):
    hidden = jnp.tanh(inputs @ params["w"])
    return hidden + jnp.broadcast_to(params["b"], hidden.shape)


def gauss_newton(params, inputs, curvature):
    """The diagonal, example by example: J^T H J of each, averaged."""

    def of_one(x):
        jacobian = jax.jacobian(lambda p: logits(p, x))(params)
        hessian = curvature(logits(params, x))
        return jax.tree.map(lambda j: jnp.einsum("i...,ij,j...->...", j, hessian, j), jacobian)

    return jax.tree.map(lambda x: x.mean(0), jax.vmap(of_one)(inputs))


def softmax_curvature(y):
    p = jax.nn.softmax(y)
    return jnp.diag(p) - jnp.outer(p, p)


@pytest.mark.parametrize(
    ("loss", "curvature"),
    [
        (kfac.softmax_cross_entropy, softmax_curvature),
        (kfac.squared_error, lambda y: jnp.eye(3)),
    ],
    ids=["softmax", "squared error"],
)
def test_gauss_newton_bartlett_is_right_on_average(loss, curvature):
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(5, 2)).astype(np.float32))
    params = {"w": jnp.asarray(rng.normal(size=(2, 3)).astype(np.float32)), "b": jnp.zeros(3)}
    keys = jax.random.split(jax.random.key(0), 6000)

    def estimate(key):
        model = partial(logits, inputs=inputs)
        return gdtx.gauss_newton_bartlett(model, params, key, loss)

    each = jax.jit(jax.vmap(estimate))(keys)
    want = jax.jit(lambda: gauss_newton(params, inputs, curvature))()
    for name, exact in want.items():
        assert each[name].min() >= 0
        np.testing.assert_allclose(each[name].mean(0), exact, rtol=0.1)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_estimates_of_half_precision_are_wide(dtype):
    params = jnp.full(3, 2.0, dtype)
    one = gdtx.hutchinson(lambda p: (p**3).sum(), params, jax.random.key(0))
    other = gdtx.gauss_newton_bartlett(lambda p: p[None], params, jax.random.key(0))
    assert {str(one.dtype), str(other.dtype)} == {"float32"}
    np.testing.assert_allclose(one, 12.0)


def test_estimates_follow_eight_devices():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    placed = NamedSharding(mesh, PartitionSpec("x"))
    params = jax.device_put(jnp.ones((8, 2)), placed)
    set_mesh = jax.set_mesh if hasattr(jax, "set_mesh") else jax.sharding.use_mesh
    with set_mesh(mesh):
        run = jax.jit(partial(gdtx.hutchinson, lambda p: (p**2).sum()))
        estimate = run(params, jax.random.key(0))
    assert estimate.sharding.is_equivalent_to(placed, 2)
    np.testing.assert_array_equal(estimate, 2.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: gdtx.hutchinson(jnp.sum, {"w": jnp.ones(2, complex)}, jax.random.key(0)),
            "hutchinson: params['w'] has dtype complex64, expected a real array",
        ),
        (
            lambda: gdtx.hutchinson(cast(Any, lambda: 0.0), POINT, jax.random.key(0)),
            "hutchinson: loss must be a function of the parameters, got the function <lambda>()",
        ),
        (
            lambda: gdtx.gauss_newton_bartlett(jnp.sum, jnp.ones(2), jax.random.key(0)),
            "gauss_newton_bartlett: model must return an array of shape (examples, ..., d), got an "
            "array of shape () and dtype float32",
        ),
    ],
    ids=["complex", "no arguments", "a number"],
)
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        call()
