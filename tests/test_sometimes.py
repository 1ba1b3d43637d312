"""What runs on some steps only: on those as always, on the others not at all."""

import re
from decimal import Decimal
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from test_latex import evaluated, given

import gdtx
from gdtx import every, when

STEPS = 12
PARAMS = {"w": jnp.arange(6.0).reshape(2, 3) / 4, "s": jnp.float32(0.5)}
ADAM = gdtx.adam(gdtx.linear_schedule(0.1, 0.0, 10))


def gradients(steps=STEPS):
    rng = np.random.default_rng(0)
    return {
        "w": rng.normal(size=(steps, 2, 3)).astype(np.float32),
        "s": rng.normal(size=steps).astype(np.float32),
    }


def run(tx, flags=None):
    """The updates of all steps, one under the other, and the last state."""

    def step(state, inputs):
        g, flag = inputs
        updates, state = tx.update(g, state, PARAMS, flag=flag)
        return state, updates

    flags = jnp.zeros(STEPS, bool) if flags is None else jnp.asarray(flags)
    inputs = gradients(), flags
    state, updates = jax.jit(lambda x: jax.lax.scan(step, tx.init(PARAMS), x))(inputs)
    return updates, state


def by_hand(inner, runs, otherwise):
    """`inner` on the steps that `runs` names alone, by a loop in Python."""
    state, updates, last = inner.init(PARAMS), [], jax.tree.map(jnp.zeros_like, PARAMS)
    update = jax.jit(inner.update)
    for i in range(STEPS):
        g = jax.tree.map(lambda x, i=i: x[i], gradients())
        if runs(i + 1):
            emitted, state = update(g, state, PARAMS)
            last = emitted
        else:
            zeros = jax.tree.map(jnp.zeros_like, last)
            emitted = {"update": g, "zero": zeros, "last": last}[otherwise]
        updates.append(emitted)
    return jax.tree.map(lambda *x: np.stack(x), *updates), state


def assert_equal(one, other, rtol=0.0):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for x, y in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=0)


def test_every_step_is_the_transformation_itself():
    assert every(1, ADAM).expression is ADAM
    assert jax.tree.structure(every(1, ADAM).init(PARAMS)) == jax.tree.structure(ADAM.init(PARAMS))
    assert_equal(run(every(1, ADAM)), run(ADAM))
    assert gdtx.latex(every(1, ADAM)) == gdtx.latex(ADAM)


@pytest.mark.parametrize(
    ("k", "start", "otherwise"), [(3, 1, "update"), (3, 2, "zero"), (2, 5, "last")]
)
def test_every_runs_on_its_steps_and_on_no_others(k, start, otherwise):
    inner = gdtx.ema(0.9) if otherwise == "last" else ADAM
    updates, state = run(every(k, inner, start=start, otherwise=otherwise))
    want, inner_state = by_hand(inner, lambda t: t >= start and (t - start) % k == 0, otherwise)
    assert_equal(updates, want, rtol=1e-6)
    assert_equal(state.inner, inner_state, rtol=1e-6)
    assert int(state.step) == STEPS


def test_when_never_is_identity_and_always_is_the_transformation():
    never, state = run(when("flag", ADAM), np.zeros(STEPS, bool))
    assert_equal(never, run(gdtx.identity())[0])
    assert_equal(state.inner, ADAM.init(PARAMS))
    always, state = run(when("flag", ADAM), np.ones(STEPS, bool))
    want, want_state = run(ADAM)
    assert_equal(always, want, rtol=1e-6)
    assert_equal(state.inner, want_state, rtol=1e-6)


def test_when_runs_on_the_steps_that_it_is_told():
    flags = np.arange(STEPS) % 5 == 3
    updates, state = run(when("flag", ADAM, otherwise="zero"), flags)
    want, inner_state = by_hand(ADAM, lambda t: flags[t - 1], "zero")
    assert_equal(updates, want, rtol=1e-6)
    assert_equal(state.inner, inner_state, rtol=1e-6)


def test_no_change_is_minus_zero():
    updates, _ = run(when("flag", ADAM, otherwise="zero"))
    assert np.signbit(updates["w"]).all()


@pytest.mark.parametrize("make", [partial(every, 3), partial(when, "flag")], ids=["every", "when"])
def test_steps_off_cost_nothing(make):
    """`inner` is in one branch of a conditional, and the other has no operation at all."""
    tx = make(gdtx.chain(gdtx.ema(0.9), gdtx.elementwise(jnp.tanh)))
    program = jax.make_jaxpr(lambda *x: tx.update(*x, flag=jnp.any(x[0]["s"] > 0)))(
        PARAMS, tx.init(PARAMS), PARAMS
    )
    outside = [equation.primitive.name for equation in program.eqns]
    (condition,) = [equation for equation in program.eqns if equation.primitive.name == "cond"]
    off, on = condition.params["branches"]
    assert not off.eqns
    assert "tanh" in str(on)
    assert not {"tanh", "mul"} & set(outside)
    compiled = jax.jit(tx.update).lower(PARAMS, tx.init(PARAMS), flag=jnp.bool_(True)).compile()
    assert "conditional(" in str(compiled.as_text())


def test_off_steps_do_not_run_what_is_inside():
    ran = []

    def counting(u):
        jax.debug.callback(lambda: ran.append(None))
        return u

    updates, _ = run(gdtx.masked(every(4, gdtx.elementwise(counting)), ["w"]))
    jax.block_until_ready(updates)
    jax.effects_barrier()
    assert len(ran) == 3


def test_a_condition_may_be_a_value_of_let():
    flag = gdtx.GradientTransformation(
        lambda params: (), lambda u, state, params=None: (u["s"] > 0, state), ()
    )
    updates, _ = run(gdtx.let(when("flag", gdtx.sign(), otherwise="zero"), flag=flag))
    np.testing.assert_array_equal(updates["s"], gradients()["s"] > 0)


@pytest.mark.parametrize(
    ("tx", "more"),
    [
        (every(3, gdtx.adam(0.1), otherwise="zero"), {"k": 3}),
        (every(2, gdtx.adam(0.1), start=5), {"k": 2, "s": 5}),
        (every(3, gdtx.ema(0.9), start=2, otherwise="last"), {"k": 3, "s": 2}),
        (every(2, every(3, gdtx.adam(0.1))), {"k": 2, "K": 3}),
        (gdtx.join(gdtx.plus, a=every(2, gdtx.ema(0.9)), b=gdtx.ema(0.9)), {"k": 2}),
    ],
    ids=["zero", "late", "last", "nested", "beside"],
)
def test_the_printed_formula_is_what_it_does(tx, more, x64):
    rng = np.random.default_rng(0)
    inputs, theta = rng.normal(size=(STEPS, 1)), np.zeros(1)
    constants = {**given(gdtx.adam(0.1)), r"\beta": Decimal("0.9"), **more}
    got = evaluated(gdtx.latex(tx), inputs, theta, constants)
    like = jnp.zeros(1)
    _, want = jax.lax.scan(lambda state, g: tx.update(g, state, like)[::-1], tx.init(like), inputs)
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("flag", [False, True])
def test_the_printed_formula_of_a_condition(flag, x64):
    tx = when("flag", gdtx.adam(0.1), otherwise="zero")
    inputs = np.random.default_rng(0).normal(size=(STEPS, 1))
    constants = {**given(gdtx.adam(0.1)), "if flag": flag}
    got = evaluated(gdtx.latex(tx), inputs, np.zeros(1), constants)
    want = evaluated(gdtx.latex(gdtx.adam(0.1)), inputs, np.zeros(1), given(gdtx.adam(0.1)))
    np.testing.assert_allclose(got, flag * want, rtol=1e-12)
    # A count that nothing needs is not printed.
    assert "n_t" in gdtx.latex(tx)
    assert "n_t" not in gdtx.latex(when("flag", gdtx.ema(0.9)))


def test_errors_say_what_is_wrong():
    u = {"w": jnp.ones(2)}
    for wrong, message in {
        "no condition": (
            lambda: when("flag", gdtx.sign()).update(u, gdtx.states.WhenState(())),
            "when: needs the condition 'flag': call update(updates, state, params, flag=...)",
        ),
        "a number": (
            lambda: when("flag", gdtx.sign()).update(u, gdtx.states.WhenState(()), flag=1.0),
            "when: flag must be a boolean scalar, got",
        ),
        "two conditions": (
            lambda: when("flag", gdtx.sign()).update(
                u, gdtx.states.WhenState(()), flag=jnp.ones(2, bool)
            ),
            "when: flag must be a boolean scalar, got an array of shape (2,) and dtype bool",
        ),
        "no statistic": (
            lambda: update_of(every(2, ADAM, otherwise="last")),
            "every: the last link of the statistic must emit its buffer",
        ),
        "0": (lambda: every(0, ADAM), "every: k must be a positive integer, got 0"),
        "another word": (
            lambda: every(2, ADAM, otherwise="nothing"),
            "every: otherwise must be 'update' or 'zero' or 'last', got 'nothing'",
        ),
        "real numbers for complex ones": (
            lambda: update_of(every(2, gdtx.absolute()), jnp.complex64),
            "every: updates['w'] cannot pass as it is where inner emits an array of shape (2,) and "
            "dtype float32, got an array of shape (2,) and dtype complex64",
        ),
    }.values():
        with pytest.raises((TypeError, ValueError), match=re.escape(message)):
            wrong()


def update_of(tx, dtype=jnp.float32):
    params = {"w": jnp.ones(2, dtype)}
    return tx.update(params, tx.init(params))


def test_the_last_of_a_statistic_of_squares_is_real():
    """Beside complex parameters its buffer is complex."""
    params = jnp.array([3.0 + 4.0j])
    tx = every(2, gdtx.chain(gdtx.square(), gdtx.ema(0.5)), otherwise="last")
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(params, state)
        np.testing.assert_array_equal(updates, np.float32([12.5]))


def test_steps_are_counted_outside_of_what_runs_sometimes():
    tx = gdtx.chain(every(4, gdtx.first_moment(0.9)), gdtx.scale_by_adam())
    assert int(gdtx.count_steps(run(tx)[1])) == STEPS
    assert int(gdtx.count_steps(run(every(4, ADAM))[1])) == STEPS
    assert int(gdtx.count_steps(run(when("flag", ADAM), np.arange(STEPS) < 5)[1])) == 5


def test_a_narrow_buffer_still_moves():
    """By chance, which depends on counts: those of the whole, since its own may stand still."""
    tx = every(3, gdtx.ema(0.999, dtype=jnp.bfloat16), otherwise="last")
    params = jnp.ones(64)
    means, _ = jax.lax.scan(
        lambda state, _: tx.update(params, state)[::-1], tx.init(params), length=6000
    )[::-1]
    np.testing.assert_allclose(means[-1].astype(jnp.float32).mean(), 1 - 0.999**2000, rtol=0.02)


def test_muon_orthogonalizes_on_some_steps():
    """And on the others its momentum is normalized only."""
    step = gdtx.chain(
        gdtx.trace(0.95), gdtx.normalize_by_global_norm(), every(5, gdtx.orthogonalize())
    )
    updates, _ = run(gdtx.masked(step, ["w"]))
    sizes = np.linalg.norm(updates["w"], axis=(1, 2))
    np.testing.assert_array_equal(np.abs(sizes - 1) > 1e-3, np.arange(STEPS) % 5 == 0)


def test_a_second_moment_that_is_kept_up_now_and_then():
    """As in SOAP and Sophia: the denominator is that of the last step that took part in it."""
    statistic = gdtx.chain(gdtx.square(), gdtx.ema(0.9))
    rare = every(4, statistic, otherwise="last")
    tx = gdtx.join(gdtx.divide, g=gdtx.identity(), nu=gdtx.chain(rare, gdtx.root(1e-8)))
    g, want = gradients()["w"].astype(np.float64), []
    v = np.zeros_like(g[0])
    for i in range(STEPS):
        if i % 4 == 0:
            v = 0.9 * v + 0.1 * g[i] ** 2
        want.append(g[i] / (np.sqrt(v) + 1e-8))
    np.testing.assert_allclose(run(tx)[0]["w"], want, rtol=1e-5)


def test_state_follows_eight_devices():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    placed = NamedSharding(mesh, PartitionSpec("x"))
    params = jax.device_put(jnp.ones((8, 2)), placed)
    tx = gdtx.chain(every(2, gdtx.ema(0.9), otherwise="last"), when("flag", gdtx.adam(0.1)))
    state = tx.init(params)
    updates, new = jax.jit(tx.update)(params, state, params, flag=jnp.bool_(True))
    assert updates.sharding.is_equivalent_to(placed, 2)
    for before, after in zip(*map(jax.tree.leaves, (state, new)), strict=True):
        assert after.sharding.is_equivalent_to(before.sharding, before.ndim)
        assert before.ndim == 0 or before.sharding.is_equivalent_to(placed, 2)
