"""The tables of docs/moving/keras.md, row by row, with Keras on its backend `jax`."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from moving import MOVING, STEPS, check, evaluated, ours, paths, problem, rows

import gdtx


@pytest.fixture
def keras(x64):
    keras = pytest.importorskip("keras", reason="Keras is installed by the extra 'peers'")
    default = keras.config.floatx()
    keras.config.set_floatx("float64")
    yield keras
    keras.config.set_floatx(default)


def keras_path(keras, code):
    """The parameters after each step, which are compiled as one program."""
    gradients, start = problem()
    leaves = [keras.Variable(value, dtype="float64") for value in start.values()]
    optimizer = evaluated(code, keras.optimizers)
    optimizer.build(leaves)

    def step(carry, gradient):
        params, optimizer_variables = optimizer.stateless_apply(
            carry[1], [gradient[name] for name in start], carry[0]
        )
        return (params, optimizer_variables), params

    first = [v.value for v in leaves], [v.value for v in optimizer.variables]
    (_, last), path = jax.jit(lambda c, g: jax.lax.scan(step, c, g))(first, gradients)
    for variable, value in zip(optimizer.variables, last, strict=True):
        variable.assign(value)
    return dict(zip(start, map(np.asarray, path), strict=True)), optimizer


@pytest.mark.parametrize("section", ["Keras: the same numbers", "Keras: other numbers"])
def test_keras(section, keras):
    transformations = ours(section)
    found, last = paths(transformations)
    theirs = {}
    for left, _ in rows(section):
        theirs[left], optimizer = keras_path(keras, left)
        if "use_ema" in left:
            # What differs is not the path but its average.
            mean = gdtx.eval_params(transformations[left], last[left][1], last[left][0])
            found[left] = {name: np.asarray(value) for name, value in mean.items()}
            averages = optimizer._model_variables_moving_average
            theirs[left] = dict(zip(mean, [np.array(a.value) for a in averages], strict=True))
    check(section, found, theirs)


def test_keras_schedules(keras):
    for left, right in rows("Keras: learning rates"):
        schedule = evaluated(left, keras.optimizers.schedules)
        expected = jax.jit(jax.vmap(schedule))(jnp.arange(STEPS))
        found = np.broadcast_to(evaluated(right, gdtx)(jnp.arange(STEPS)), STEPS)
        # They compute cosines in float32: to half a unit in the last place of 1, times the rate.
        rtol, atol = (1e-6, 4e-9) if left.startswith("Cosine") else (1e-12, 1e-16)
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol, err_msg=left)


# Keras converts its variables to NumPy's arrays.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
def test_keras_plateau(keras):
    ((left, right),) = rows("Keras: what sees the loss")
    rng = np.random.default_rng(0)
    values = np.concatenate([np.linspace(2, 1, 12), rng.uniform(0.9, 1.1, 12), np.full(12, 0.5)])
    tx = evaluated(right, gdtx)

    def step(state, value):
        factor, state = tx.update(jnp.ones(()), state, value=value)
        return state, factor

    _, found = jax.lax.scan(step, tx.init(jnp.zeros(())), values.astype(np.float32))
    optimizer = keras.optimizers.SGD(evaluated("lr", gdtx))
    rate = float(optimizer.learning_rate.value)
    callback = evaluated(left, keras.callbacks)
    callback.set_model(types.SimpleNamespace(optimizer=optimizer))
    callback.on_train_begin()
    expected = []
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {"val_loss": value})
        expected.append(float(optimizer.learning_rate.value) / rate)
    assert len(set(expected)) > 2
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_every_optimizer_and_schedule_of_keras_is_named(keras):
    optimizers, schedules = keras.optimizers, keras.optimizers.schedules
    for module, base in (
        (optimizers, optimizers.Optimizer),
        (schedules, schedules.LearningRateSchedule),
    ):
        names = {
            name
            for name, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, base) and value is not base
        }
        assert len(names) > 5
        assert {name for name in names if f"`{name}" not in MOVING} == set()
