"""The loop of every notebook."""

import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compilations import counted_compilations

import gdtx
from gdtx.explore import minimize

H = jnp.array([1.0, 10.0])
X0 = {"a": jnp.array([3.0, -2.0]), "b": {"c": 1.5}, "none": None}


def bowl(params):
    return 0.5 * jnp.sum(H * params["a"] ** 2) + jnp.cosh(params["b"]["c"])


def line(x, batch):
    return 0.5 * jnp.sum((x - batch["t"]) ** 2)


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def by_hand(fun, x0, tx, steps):
    """Params, losses and norms from a loop of single operations."""
    params = jax.tree.map(jnp.asarray, x0)
    state, losses, norms = tx.init(params), [], []

    @jax.jit
    def step(params, state):
        value, grads = jax.value_and_grad(fun)(params)
        updates, state = tx.update(grads, state, params)
        return gdtx.apply_updates(params, updates), state, value, grads

    for _ in range(steps):
        params, state, value, grads = step(params, state)
        losses.append(value)
        norms.append(np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(grads))))
    return params, losses, norms


def test_it_is_the_loop():
    tx = gdtx.adam(gdtx.cosine_decay_schedule(0.1, 50))
    result = minimize(bowl, X0, tx, 30, keep=True)
    params, losses, norms = by_hand(bowl, X0, tx, 30)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 1e-5, 1e-6), result.params, params)
    np.testing.assert_allclose(result.losses, losses, 1e-5)
    np.testing.assert_allclose(result.gradient_norms, norms, 1e-5)
    np.testing.assert_allclose(result.value, bowl(params), 1e-5)
    assert result.steps == 30
    assert result.state.step == 30
    same(jax.tree.map(lambda path: path[-1], result.path), result.params)
    same(jax.tree.map(lambda path: path[0], result.path), jax.tree.map(jnp.asarray, X0))
    assert {path.shape[0] for path in jax.tree.leaves(result.path)} == {31}
    assert minimize(bowl, X0, tx, 3).path is None


def test_one_program():
    tx = gdtx.sgd(0.01)
    minimize(bowl, X0, tx, 5)  # the small operations outside
    with counted_compilations() as programs:
        minimize(bowl, X0, tx, 5)
    assert len(programs) == 1


def test_no_steps():
    result = minimize(bowl, X0, gdtx.adam(0.1), 0, keep=True)
    same(result.params, jax.tree.map(jnp.asarray, X0))
    assert (result.steps, result.losses.shape) == (0, (0,))
    np.testing.assert_allclose(result.value, bowl(result.params), 1e-6)


def test_batches_come_one_by_one():
    targets = {"t": np.arange(12.0, dtype=np.float32).reshape(6, 2)}
    result = minimize(line, jnp.zeros(2), gdtx.sgd(1.0), 6, batches=targets, keep=True)
    # With this rate every step goes to its own target.
    np.testing.assert_array_equal(result.path[1:], targets["t"])
    np.testing.assert_array_equal(result.losses, [0.5, *[4.0] * 5])
    assert result.value == 0
    empty = minimize(line, jnp.zeros(2), gdtx.sgd(1.0), 0, batches={"t": np.zeros((0, 2))})
    assert np.isnan(empty.value)


@pytest.mark.parametrize("batched", [False, True])
def test_early_stop_is_exact(batched):
    tx, n = gdtx.sgd(0.05, momentum=0.5), 60
    fun = (lambda p, batch: bowl(p) + 0 * batch) if batched else bowl
    batches = jnp.ones(n) if batched else None
    whole = minimize(fun, X0, tx, n, batches=batches, keep=True)
    stop = 23
    tolerance = float(whole.gradient_norms[stop])
    assert np.all(whole.gradient_norms[:stop] > tolerance)
    result = minimize(fun, X0, tx, n, batches=batches, tolerance=tolerance, keep=True)
    assert result.steps == stop
    before = None if batches is None else batches[:stop]
    short = minimize(fun, X0, tx, stop, batches=before, keep=True)
    same((result.params, result.state, result.value), (short.params, short.state, short.value))
    same(jax.tree.map(lambda path: path[: stop + 1], result.path), short.path)
    for path in jax.tree.leaves(result.path):
        np.testing.assert_array_equal(path[stop:], np.broadcast_to(path[stop], path[stop:].shape))
    for history, all_of_it in zip(result[4:6], whole[4:6], strict=True):
        np.testing.assert_array_equal(history[: stop + 1], all_of_it[: stop + 1])
        assert np.isnan(history[stop + 1 :]).all()


@pytest.mark.parametrize("steps", [0, 1, 3, 41])
def test_progress_changes_no_bit(steps, capfd):
    tx = gdtx.adam(0.1)
    batches = jax.random.normal(jax.random.key(0), (steps, 2))
    fun = lambda p, batch: bowl(p) + jnp.sum(batch * p["a"])  # noqa: E731
    one = minimize(fun, X0, tx, steps, batches=batches, keep=True)
    parts = minimize(fun, X0, tx, steps, batches=batches, keep=True, progress=True)
    same(one, parts)
    shown = capfd.readouterr().err
    assert f"{steps}/{steps}" in shown or not steps
    assert f"loss={one.value:.4g}" in shown


def test_progress_stops_early_too(capfd):
    tx = gdtx.sgd(0.05)
    one = minimize(bowl, X0, tx, 200, tolerance=1e-2, keep=True)
    same(one, minimize(bowl, X0, tx, 200, tolerance=1e-2, keep=True, progress=True))
    assert 10 < one.steps < 190
    assert f"{int(one.steps)}/200" in capfd.readouterr().err


def test_updates_are_told_what_they_ask_for():
    told = {}

    def update(updates, state, params=None, *, value, grad, value_fn, grad_fn, **_):
        told.update(value=value_fn(params) - value)
        told.update(grad=jax.tree.map(jnp.subtract, grad_fn(params), grad))
        return jax.tree.map(jnp.zeros_like, updates), state

    tx = gdtx.GradientTransformation(lambda params: (), update)
    with jax.disable_jit():
        minimize(bowl, X0, tx, 1)
    assert not any(map(np.any, jax.tree.leaves(told)))
    assert set(told) == {"value", "grad"}


@pytest.mark.parametrize("tx", [
    gdtx.polyak_step(f_min=1.0),
    gdtx.sharpness_aware(gdtx.sgd(0.05), rho=0.01),
    gdtx.chain(gdtx.sgd(0.09), gdtx.reduce_on_plateau(patience=3)),
    optax.chain(optax.sgd(0.09, momentum=0.1)),
    optax.lbfgs(),  # with its line search
], ids=["polyak", "sam", "plateau", "optax", "linesearch"])  # fmt: skip
def test_methods_that_ask_for_more(tx):
    result = minimize(bowl, {"a": jnp.array([3.0, -2.0]), "b": {"c": jnp.array(1.5)}}, tx, 60)
    assert result.value < 1.05


def test_complex_parameters_descend():
    z0 = jnp.array([1 + 2j, -1j])
    result = minimize(lambda z: jnp.sum(jnp.abs(z - (1 - 1j)) ** 2), z0, gdtx.sgd(0.2), 50)
    np.testing.assert_allclose(result.params, [1 - 1j] * 2, 1e-5)


def test_float64(x64):
    result = minimize(bowl, X0, gdtx.sgd(0.05), 3)
    assert {x.dtype for x in (*jax.tree.leaves(result.params), *result[4:6])} >= {
        jnp.dtype("float64")
    }
    assert result.value.dtype == jnp.float64


def test_transformed():
    fun = lambda x: jnp.sum(jnp.cosh(x))  # noqa: E731
    starts = jnp.array([[1.0, 2.0], [0.1, -0.1], [3.0, 0.0]])
    run = lambda x0, tx: minimize(fun, x0, tx, 40, tolerance=1e-2)  # noqa: E731
    tx = gdtx.sgd(0.2, momentum=0.3)
    alone = [jax.jit(run)(x0, tx) for x0 in starts]
    assert len({int(one.steps) for one in alone}) == 3
    together = jax.vmap(run, (0, None))(starts, tx)
    for i, one in enumerate(alone):
        jax.tree.map(
            lambda x, xs, i=i: np.testing.assert_allclose(x, xs[i], 1e-5, 1e-6), one, together
        )
    rates = jnp.array([0.05, 0.1, 0.2])
    values = jax.vmap(lambda tx: run(starts[0], tx).value)(gdtx.sgd(rates))
    np.testing.assert_allclose(values[1], run(starts[0], gdtx.sgd(0.1)).value, 1e-6)


def test_differentiated():
    # After n steps on h x^2 / 2, x = x_0 (1 - eta h)^n.
    h, n, rate = 0.7, 5, 0.3

    def end(x0, rate):
        return minimize(lambda x: 0.5 * h * x**2, x0, gdtx.sgd(rate), n, tolerance=1e-9).params

    x, slopes = jax.value_and_grad(end, (0, 1))(jnp.float32(2.0), jnp.float32(rate))
    np.testing.assert_allclose(x, 2 * (1 - rate * h) ** n, 1e-5)
    np.testing.assert_allclose(
        slopes, [(1 - rate * h) ** n, -2 * n * h * (1 - rate * h) ** (n - 1)], 1e-5
    )


@pytest.mark.parametrize(("kind", "message", "arguments"), [
    (ValueError, "minimize: steps must be a non-negative integer, got -1", {"steps": -1}),
    (ValueError, "minimize: steps must be a non-negative integer, got 2.0", {"steps": 2.0}),
    (ValueError, "minimize: fun must return a real scalar, got an array of shape (2,)",
     {"fun": lambda x: x}),
    (ValueError, "minimize: fun must return a real scalar, got a tuple of 2",
     {"fun": lambda x: (jnp.sum(x), 1)}),
    (ValueError, "minimize: fun must return a real scalar, got an array of shape () and dtype comp",
     {"fun": lambda x: jnp.sum(x) * 1j}),
    (ValueError, "minimize: fun must return a real scalar, got None", {"fun": lambda x: None}),
    (ValueError, "minimize: batches['t'] must have a first axis as long as steps, 3, got an array "
     "of shape (4,)", {"batches": {"s": jnp.ones((3, 1)), "t": jnp.ones(4)}}),
    (ValueError, "minimize: batches must have a first axis as long as steps, 3, got 1.0",
     {"batches": 1.0}),
    (TypeError, "minimize: tx must be a transformation (a pair of init and update), got the "
     "function adam", {"tx": gdtx.adam}),
    (TypeError, "minimize: x0['n'] has dtype int32, expected a floating-point",
     {"x0": {"n": jnp.arange(2)}}),
])  # fmt: skip
def test_what_is_wrong_is_named(kind, message, arguments):
    given = {"fun": lambda x: jnp.sum(x**2), "x0": jnp.ones(2), "tx": gdtx.sgd(0.1), "steps": 3}
    with pytest.raises(kind, match=re.escape(message)):
        minimize(**(given | arguments))


def test_progress_does_not_trace():
    with pytest.raises(TypeError, match="minimize: progress=True shows steps as they run"):
        jax.jit(lambda x: minimize(jnp.sum, x, gdtx.sgd(0.1), 3, progress=True))(jnp.ones(2))


def test_tqdm_is_optional():
    program = """
import sys, gdtx, jax.numpy as jnp
from gdtx import explore
assert not {"matplotlib", "tqdm"} & {name.split(".")[0] for name in sys.modules}
sys.modules["tqdm"] = None
explore.minimize(jnp.sum, jnp.ones(2), gdtx.sgd(0.1), 3)
try:
    explore.minimize(jnp.sum, jnp.ones(2), gdtx.sgd(0.1), 3, progress=True)
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    message = "minimize needs tqdm for progress=True: pip install tqdm (the extra `examples`)"
    assert done.stdout.strip() == message, done
