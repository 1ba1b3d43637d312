"""Where gradients are taken: laws of one wrapper, and the methods that are cases of it."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from everything import METHODS

import gdtx

CURVATURE = np.array([1.0, 3.0, 0.5])
START = np.array([1.0, -2.0, 0.5])
STEPS = 30
POINT = {"from_point": True}


def slope(y):
    return {"w": CURVATURE * y["w"] + 0.1}


@functools.cache
def run(tx):
    """Where gradients were taken, and what was evaluated, in one scan."""

    def one(carry, _):
        params, state = carry
        extra = {"grad_fn": slope} if "sharpness" in repr(tx) else {}
        updates, state = tx.update(slope(params), state, params, **extra)
        params = gdtx.apply_updates(params, updates)
        return (params, state), (params["w"], gdtx.eval_params(tx, state, params)["w"])

    params = {"w": jnp.asarray(START)}
    carry = (params, tx.init(params))
    return jax.device_get(jax.jit(lambda: jax.lax.scan(one, carry, length=STEPS)[1])())


def close(one, other):
    np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)


SGD = gdtx.sgd(0.1)
BALL = gdtx.sgd(0.1, momentum=0.9)
LAWS = {
    "no displacement, no change": (gdtx.displaced(BALL, gdtx.set_to_zero()), BALL),
    "nor from the point": (gdtx.displaced(BALL, gdtx.set_to_zero(), **POINT), BALL),
    "Nesterov's own form is that of today": (
        gdtx.displaced(SGD, gdtx.scale(0.9), **POINT), gdtx.sgd(0.1, 0.9, nesterov=True),
    ),
    "and Sutskever's": (
        gdtx.displaced(gdtx.chain(gdtx.scale(-0.1), gdtx.trace(0.9)), gdtx.scale(0.9)),
        gdtx.sgd(0.1, 0.9, nesterov=True),
    ),
    "schedule-free: towards the mean of all z": (
        gdtx.displaced(SGD, gdtx.chain(gdtx.scale_by_schedule(lambda t: -0.9 * t),
                                       gdtx.running_sum(),
                                       gdtx.scale_by_schedule(lambda t: 1 / (t + 1.0)))),
        gdtx.schedule_free(SGD, 0.1),
    ),
    "what is kept is not kept again": (
        gdtx.displaced(BALL, gdtx.chain(gdtx.scale(2.0), gdtx.ema(0.9)), **POINT),
        gdtx.displaced(BALL, gdtx.chain(gdtx.ema(0.9), gdtx.scale(2.0)), **POINT),
    ),
    "the past gradient's step": (
        gdtx.displaced(SGD, gdtx.identity()),
        gdtx.chain(gdtx.join(lambda u, last: 2 * u - last, u=gdtx.identity(),
                             last=gdtx.previous(gdtx.latest())), SGD),
    ),
    "sharpness: the gradient over its norm": (
        gdtx.sharpness_aware(BALL, 0.05, gdtx.normalize_by_global_norm()),
        gdtx.sharpness_aware(BALL, 0.05),
    ),
}  # fmt: skip


@pytest.mark.parametrize("law", LAWS)
def test_law(law, x64):
    one, other = LAWS[law]
    close(run(one)[0], run(other)[0])


def test_what_is_evaluated_is_what_is_meant(x64):
    """Sutskever et al. 2013: theta_t = theta_{t-1} + v_t, v_t = mu v - eta g(theta + mu v)."""
    theta, v, want = START, np.zeros(3), []
    for _ in range(STEPS):
        v = 0.9 * v - 0.1 * (CURVATURE * (theta + 0.9 * v) + 0.1)
        theta = theta + v
        want.append(theta)
    for name in ("Nesterov's own form is that of today", "and Sutskever's"):
        close(run(LAWS[name][0])[1], want)


@pytest.mark.parametrize("from_point", [False, True])
def test_averages_inside_are_of_what_is_meant(from_point, x64):
    tx = gdtx.displaced(gdtx.average(BALL), gdtx.scale(0.5), from_point)
    _, meant = run(gdtx.displaced(BALL, gdtx.scale(0.5), from_point))
    close(run(tx)[1], np.cumsum(meant, axis=0) / np.arange(1, STEPS + 1)[:, None])


def test_weights_decay_where_the_step_is_from(x64):
    decay = gdtx.chain(gdtx.set_to_zero(), gdtx.add_decayed_weights(-0.5))
    steps = gdtx.displaced(decay, gdtx.scale(2.0)), gdtx.displaced(decay, gdtx.scale(2.0), **POINT)
    for tx, point in zip(steps, (False, True), strict=True):
        z, y = START, START
        for got_y, got_z in zip(*run(tx), strict=True):
            new = 0.5 * (y if point else z)
            z, y = new, new + 2.0 * (new - z)
            close(got_y, y)
            close(got_z, z)


def test_nothing_is_kept_twice():
    def buffers(displacement):
        state = gdtx.displaced(gdtx.identity(), displacement).init(jnp.ones(3))
        return sum(x.shape == (3,) for x in jax.tree.leaves(state))

    for one in (gdtx.identity(), gdtx.ema(0.9), gdtx.chain(gdtx.scale(2.0), gdtx.trace(0.9))):
        assert buffers(one) == 1
    # What these emit is not what they keep.
    for two in (gdtx.trace(0.9, nesterov=True), gdtx.chain(gdtx.ema(0.9), gdtx.scale(2.0))):
        assert buffers(two) == 2
    assert buffers(gdtx.ema(lambda t: 0.9)) == 2


def test_looking_ahead_emits_what_it_is_displaced_by(x64):
    """The buffer of a trace that looks ahead is not what it emits."""
    got = run(gdtx.displaced(SGD, gdtx.trace(0.5, nesterov=True)))
    ahead = gdtx.chain(gdtx.trace(0.5, nesterov=True), gdtx.scale(1.0))
    close(got, run(gdtx.displaced(SGD, ahead)))


def test_optax_optimism(x64):
    """Its first step has none, and those after it are the same."""
    oracle = METHODS["adam"].oracle
    y, gradients, want = START, np.zeros((0, 3)), []
    for _ in range(STEPS):
        gradients = np.vstack([gradients, CURVATURE * y + 0.1])
        u = oracle(gradients, START, 0.1)
        y = y + 2 * u[-1] - (u[-2] if len(u) > 1 else 0)
        want.append(y)
    close(run(gdtx.displaced(gdtx.adam(0.1), gdtx.identity()))[0], want)
    optimism = gdtx.join(gdtx.plus, u=gdtx.identity(), change=gdtx.difference())
    for ours, theirs in (
        (gdtx.chain(optimism, SGD), optax.optimistic_gradient_descent(0.1)),
        (
            gdtx.chain(gdtx.adam(0.1), optimism),
            optax.optimistic_adam_v2(0.1, alpha=1.0, beta=1.0, nesterov=False),
        ),
    ):
        close(run(ours)[0], run(gdtx.interop.from_optax(theirs))[0])


def test_perturbations(x64):
    """Extragradient goes downhill first; Optax's SAM calls the same gradients."""
    y, want = START, []
    for _ in range(STEPS):
        half = y - 0.1 * (CURVATURE * y + 0.1)
        y = y - 0.1 * (CURVATURE * half + 0.1)
        want.append(y)
    close(run(gdtx.sharpness_aware(SGD, 0.1, gdtx.scale(-1.0)))[0], want)
    uphill = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
    theirs = optax.contrib.sam(optax.sgd(0.1, 0.9), uphill, opaque_mode=True)
    params = {"w": jnp.asarray(START)}
    state, path = theirs.init(params), []
    update = jax.jit(lambda g, s, p: theirs.update(g, s, p, grad_fn=lambda p, i: slope(p)))
    for _ in range(3):
        updates, state = update(slope(params), state, params)
        params = optax.apply_updates(params, updates)
        path.append(params["w"])
    close(run(gdtx.sharpness_aware(BALL, 0.05))[0][:3], path)


def test_a_perturbation_remembers_and_is_given_all():
    tx = gdtx.sharpness_aware(gdtx.sgd(1.0), 1.0, gdtx.chain(gdtx.value_of("m"), gdtx.trace(0.5)))
    x = {"w": jnp.zeros(3)}
    state, ones = tx.init(x), {"w": jnp.ones(3)}
    for _ in range(2):
        updates, state = tx.update(x, state, x, grad_fn=lambda p: p, m=ones)
    np.testing.assert_allclose(updates["w"], -1.5)
    np.testing.assert_allclose(state.perturbation[1].buffers["value"]["w"], 1.5)


@pytest.mark.parametrize("start", [0, 4])
def test_decays_as_they_stand(start, x64):
    """Karras et al. 2024: theta-bar_t = beta_t theta-bar + (1 - beta_t) theta_t with
    beta_t = (1 - 1/t)^(gamma + 1), which is the mean with weights like t^gamma if that is 1."""

    def decay(t):
        return (1 - 1 / (t + 1.0)) ** 2

    tx = gdtx.average(SGD, decay, start, bias_correction=False)
    path, got = run(tx)
    mean = START
    for t, (theta, average) in enumerate(zip(path, got, strict=True)):
        beta = decay(t) if t > start else 0.0
        mean = beta * mean + (1 - beta) * theta
        close(average, mean)


def test_a_constant_decay_as_it_stands_begins_with_the_first(x64):
    path, got = run(gdtx.average(SGD, 0.75, 1, bias_correction=False))
    mean = path[0]
    for t, (theta, average) in enumerate(zip(path, got, strict=True)):
        mean = 0.75 * mean + 0.25 * theta if t > 1 else theta
        close(average, mean)


def test_pairs_from_elsewhere_see_parameters_in_their_dtype():
    """The parameters that are meant are computed in float32: moments of theirs would be too."""
    tx, params = gdtx.displaced(optax.adam(0.1), gdtx.scale(0.5)), {"w": jnp.ones(3, jnp.bfloat16)}
    state = jax.eval_shape(tx.init, params)
    new = jax.eval_shape(tx.update, params, state, params)[1]
    chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
    assert state.inner[0].mu["w"].dtype == jnp.bfloat16


def test_what_is_stored_in_fewer_bits_is_not_the_displacement():
    """It is taken off again: of another number the parameters that are meant would move."""
    tx = gdtx.stored(gdtx.displaced(BALL, gdtx.ema(0.9), **POINT), least=1)
    params = {"w": jnp.asarray(START, jnp.float32)}
    updates, state = tx.update(params, tx.init(params), params)
    params = gdtx.apply_updates(params, updates)
    np.testing.assert_allclose(gdtx.eval_params(tx, state, params)["w"], 0.9 * START, rtol=1e-6)
    stored = jax.tree.leaves(state, is_leaf=lambda x: hasattr(x, "codes"))
    assert sum(hasattr(x, "codes") for x in stored) == 1  # the momentum


def test_inside_and_around_others():
    """A step left out, or that waits, moves neither the point nor what is meant."""
    tx = gdtx.displaced(BALL, gdtx.scale(0.5))
    params = {"w": jnp.asarray(START, jnp.float32)}
    _, state = tx.update(params, tx.init(params), params)
    for wrap in (gdtx.skip_nonfinite, lambda tx: gdtx.accumulate_gradients(tx, 2)):
        outer = wrap(tx)
        whole = outer.init(params)._replace(inner=state)
        bad = {"w": params["w"].at[0].set(jnp.nan)}
        updates, after = outer.update(bad, whole, params)
        chex.assert_trees_all_equal(after.inner, state)
        np.testing.assert_array_equal(updates["w"], 0)
