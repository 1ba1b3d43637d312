"""What Optax takes and has a meaning: empty states, labels, signs, bounds and lengths."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gdtx

optax = pytest.importorskip("optax", reason="Optax is installed by the extra 'test'")

PARAMS = {"b": jnp.array([1.0, -2.0]), "w": jnp.array([[3.0, 4.0]])}
GRADS = {"b": jnp.array([0.5, -8.0]), "w": jnp.array([[-3.0, 0.0]])}
STATELESS = {
    "elementwise": gdtx.sqrt(), "treewise": gdtx.clip_by_global_norm(1.0),
    "with_params": gdtx.add_decayed_weights(0.1), "identity": gdtx.identity(),
    "set_to_zero": gdtx.set_to_zero(), "value_of": gdtx.value_of("value"),
    "orthogonalize": gdtx.orthogonalize(axes={"b": False, "w": True}), "sgd": gdtx.sgd(0.1),
    "shape": gdtx.scale_by_shape(axes={"b": False, "w": True}),
}  # fmt: skip


@pytest.mark.parametrize("name", STATELESS)
def test_any_empty_state_of_a_link_without_one(name):
    """It comes back as it was, so that a `scan` may carry it; one with arrays is refused."""
    update = functools.partial(STATELESS[name].update, value=GRADS)
    wanted, _ = jax.eval_shape(update, GRADS, (), PARAMS)
    for state in (None, {}, (), optax.EmptyState(), optax.MaskedNode()):
        updates, new = jax.eval_shape(update, GRADS, state, PARAMS)
        assert type(new) is type(state)
        assert updates == wanted
    with pytest.raises(ValueError, match="expected an empty tuple"):
        jax.eval_shape(update, GRADS, (jnp.zeros(()),), PARAMS)


@pytest.mark.parametrize("labels", [(0, 1), (False, True), (1.5, 2.5), ("a", "b")])
def test_labels_of_any_type_that_sorts(labels):
    """In trees and patterns, in states, paths, and what is printed."""
    one, other = labels
    tx = gdtx.partition({one: gdtx.sgd(0.1, 0.9), other: gdtx.lion(0.1)}, {"b": one, "w": other})
    theirs = optax.partition({one: optax.sgd(0.1, 0.9), other: optax.lion(0.1)},
                             {"b": one, "w": other})  # fmt: skip
    state = tx.init(PARAMS)
    updates, state = jax.jit(tx.update)(GRADS, state, PARAMS)
    chex.assert_trees_all_close(
        updates, theirs.update(GRADS, theirs.init(PARAMS), PARAMS)[0], rtol=1e-6
    )
    patterns = gdtx.partition(dict(tx.arguments["transforms"]), [("b", one), ("**", other)])
    chex.assert_trees_all_equal(patterns.update(GRADS, state, PARAMS)[0],
                                tx.update(GRADS, state, PARAMS)[0])  # fmt: skip
    path = f"transforms.{one}.learning_rate"
    assert gdtx.hyperparams(tx)[path] == 0.1
    changed = gdtx.replace(tx, {path: 0.5})
    assert gdtx.hyperparams(changed)[path] == 0.5
    assert changed.arguments["transforms"].keys() == {one, other}
    for text in (str(tx), repr(tx)):
        assert eval(text, dict(vars(gdtx))) == tx
    assert r"\text{if " in gdtx.latex(tx)
    assert gdtx.find(state, "mu")["w"] is not None


def test_labels_that_do_not_sort_or_fit():
    adam = gdtx.adam(0.1)
    for transforms in ({1: adam, "a": adam}, {None: adam}):
        with pytest.raises(TypeError, match="dict of transformations by labels of one type"):
            gdtx.partition(transforms, 1)
    with pytest.raises(
        ValueError, match=r"labels\['w'\] is an array of shape .* expected one of 0"
    ):
        gdtx.partition({0: adam, 1: adam}, {"b": 1, "w": jnp.zeros(())}).init(PARAMS)


def step(tx, n=2):
    """The n-th update on the same gradients, and the parameters moved by none."""
    state = tx.init(PARAMS)
    updates = None
    for _ in range(n):
        updates, state = tx.update(GRADS, state, PARAMS)
    return updates


SAME = {
    "trace(1)": (gdtx.trace(1.0), optax.trace(1.0)),
    "sgd, momentum 1": (gdtx.sgd(0.1, 1.0, nesterov=True), optax.sgd(0.1, 1.0, nesterov=True)),
    "rmsprop, momentum 1": (gdtx.rmsprop(0.1, momentum=1.0), optax.rmsprop(0.1, momentum=1.0)),
    "clip(0)": (gdtx.clip(0.0), optax.clip(0.0)),
    "global norm 0": (gdtx.clip_by_global_norm(0.0), optax.clip_by_global_norm(0.0)),
    "block rms 0": (gdtx.clip_by_block_rms(0.0), optax.set_to_zero()),
    "norm 0": (gdtx.clip_by_norm(0.0), optax.set_to_zero()),
    "units 0": (gdtx.adaptive_grad_clip(0.0), optax.adaptive_grad_clip(0.0)),
    "decay < 0": (gdtx.add_decayed_weights(-0.1), optax.add_decayed_weights(-0.1)),
    "fromage": (
        gdtx.chain(
            gdtx.scale_by_trust_ratio(),
            gdtx.scale_by_learning_rate(0.1 / np.hypot(1, 0.1)),
            gdtx.add_decayed_weights(1 / np.hypot(1, 0.1) - 1),
        ),
        optax.fromage(0.1),
    ),
    "uphill": (gdtx.chain(gdtx.scale(-1.0), gdtx.rmsprop(0.1)), optax.rmsprop(-0.1)),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_they_mean_what_optax_means(name):
    ours, theirs = SAME[name]
    chex.assert_trees_all_close(step(ours), step(theirs), rtol=3e-6, atol=0)
    assert gdtx.latex(ours)
    assert gdtx.latex(ours, True)


def test_what_has_no_meaning_stays_refused():
    for wrong in (
        lambda: gdtx.trace(1.5), lambda: gdtx.ema(1.0), lambda: gdtx.adam(-0.1),
        lambda: gdtx.adamw(0.1, weight_decay=-0.1), lambda: gdtx.clip_by_global_norm(-1.0),
        lambda: gdtx.add_decayed_weights(np.nan), lambda: gdtx.scale_by_learning_rate(-0.1),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"^\w+: \w+ must be "):
            wrong()


# Lengths beyond the largest count: any number may be one, but where a whole one is asked for.

MOST = 2**31 - 1
WITH_LENGTHS = {
    "linear": lambda n: gdtx.linear_schedule(1.0, 0.5, n),
    "polynomial": lambda n: gdtx.polynomial_schedule(1.0, 0.5, 2.0, n, 3),
    "exponential": lambda n: gdtx.exponential_decay(1.0, n, 0.5),
    "exponential, stairs": lambda n: gdtx.exponential_decay(1.0, n, 0.5, staircase=True),
    "inverse time": lambda n: gdtx.inverse_time_decay(1.0, n, 0.5),
    "cosine": lambda n: gdtx.cosine_decay_schedule(1.0, n),
    "constants": lambda n: gdtx.piecewise_constant_schedule(1.0, {5: 0.5, n: 0.5}),
    "lines": lambda n: gdtx.piecewise_interpolate_schedule("linear", 1.0, {5: 0.5, n: 0.5}),
    "cycle": lambda n: gdtx.cyclic_schedule(0.0, 1.0, n),
    "sgdr": lambda n: gdtx.sgdr_schedule(
        2 * [{"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 2, "decay_steps": n}]
    ),
    "join": lambda n: gdtx.join_schedules([gdtx.linear_schedule(0.0, 1.0, 9), lambda t: t], [n]),
    "warmup, cosine": lambda n: gdtx.warmup_cosine_decay_schedule(0.0, 1.0, 3, n),
    "warmup, exponential": lambda n: gdtx.warmup_exponential_decay_schedule(0.0, 1.0, 3, n, 0.5),
    "warmup, stable": lambda n: gdtx.warmup_stable_decay_schedule(0.0, 1.0, 3, 3, n),
    "inverse root": lambda n: gdtx.inverse_sqrt_schedule(0.0, 1.0, n),
}  # fmt: skip
WHOLE = {
    "begin": lambda n: gdtx.linear_schedule(1.0, 0.5, 10, n),
    "warmup": lambda n: gdtx.warmup_constant_schedule(0.0, 1.0, n),
    "onecycle": lambda n: gdtx.linear_onecycle_schedule(n, 1.0),
    "shift": lambda n: gdtx.linear_schedule(0.0, 1.0, 9).shift(n),
}


@pytest.mark.parametrize("name", WITH_LENGTHS)
def test_lengths_beyond_the_largest_count(name):
    """As the longest that a count reaches, but for a step in two thousand million."""
    make, steps = WITH_LENGTHS[name], np.array([0, 4, 100], np.int32)

    @jax.jit
    def values(steps):
        return [jax.vmap(make(n))(steps) for n in (MOST, MOST + 1, 2**40)]

    longest, longer, far = values(steps)
    np.testing.assert_allclose(longer, longest, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(far, longest, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_beyond_the_largest_count(name):
    assert np.isfinite(float(WHOLE[name](MOST)(4)))
    with pytest.raises(ValueError, match=r"must be an? .*integer.*, got 2147483648"):
        WHOLE[name](MOST + 1)


@pytest.mark.parametrize(("boundaries", "error", "message"), [
    ([5, 3], ValueError, "boundaries must increase from 0 on, got [5, 3]"),
    ([5, 5], ValueError, "boundaries must increase from 0 on, got [5, 5]"),
    ([5.0, 3.0], ValueError, "boundaries must increase from 0 on, got [5.0, 3.0]"),
    ([-1, 3], ValueError, "boundaries[0] must be a non-negative finite number, got -1"),
    (np.array([5, 3]), ValueError, "boundaries must increase from 0 on, got [5, 3]"),
    ([np.int64(5), jnp.int32(3)], ValueError, "boundaries must increase from 0 on, got [5, 3]"),
    ([jnp.int32(-3), 1], ValueError, "boundaries[0] must be a non-negative finite number, got -3"),
    (["5", "7"], TypeError, "boundaries[0] must be a non-negative finite number or an array, got"),
    ([1, None], TypeError, "boundaries[1] must be a non-negative finite number or an array, got"),
    ([1, True], TypeError, "boundaries[1] must be a non-negative finite number or an array, got"),
    ([1, float("nan")], ValueError, "boundaries[1] must be a non-negative finite number, got nan"),
    ([1, lambda t: t], TypeError, "boundaries[1] must be a non-negative finite number or an array"),
])  # fmt: skip
def test_boundaries_are_increasing_numbers(boundaries, error, message):
    pieces = [gdtx.constant_schedule(float(i)) for i in range(3)]
    with pytest.raises(error) as raised:
        gdtx.join_schedules(pieces, boundaries)(0)
    assert str(raised.value).startswith(f"join_schedules: {message}")


@pytest.mark.parametrize("boundaries", [
    [0, 2], [1.0, 2.0], [np.int64(1), 2], np.array([1, 2]), jnp.array([1, 2]), (1, jnp.int32(2))
])  # fmt: skip
def test_boundaries_of_any_number_type(boundaries):
    pieces = [gdtx.constant_schedule(float(i)) for i in range(3)]
    joined = gdtx.join_schedules(pieces, boundaries)
    assert [float(joined(t)) for t in (1, 2, 9)] == [1.0, 2.0, 2.0]
    assert float(jax.jit(lambda s, t: s(t))(joined, 2)) == 2.0


@pytest.mark.parametrize("schedule", ["constant", "interpolate"])
def test_steps_of_factors_are_numbers(schedule):
    lines = functools.partial(gdtx.piecewise_interpolate_schedule, "linear")
    make = {"constant": gdtx.piecewise_constant_schedule, "interpolate": lines}
    with pytest.raises(TypeError, match="a step of boundaries_and_scales must be a finite number"):
        make[schedule](1.0, {"10": 0.5})
