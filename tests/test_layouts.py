"""The one walk: whose state lies where, what a call keeps of what it was given, and its formula."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everything import EVERY, PARAMS

import gdtx
from gdtx.core.states import check_fits, parts, with_parts, within

RATE = gdtx.linear_schedule(0.5, 0.0, 4)
ELSEWHERE = {"from_optax"}


class Pair(NamedTuple):
    tx: gdtx.GradientTransformation
    state: Any


def pairs(tx, state):
    """Every pair of functions that a transformation is made of, with its state."""
    if tx.factory is gdtx.GradientTransformation:
        yield Pair(tx, state)
    for part in parts(tx, state):
        yield from pairs(part.used, part.state)


@functools.cache
def first_state(name):
    """Of the right shapes, and of numbers that any hyperparameter which is held may be."""
    state = jax.eval_shape(EVERY[name].init, PARAMS)
    return jax.tree.map(lambda x: np.full(x.shape, 0.5).astype(x.dtype), state)


@pytest.mark.parametrize("name", EVERY)
def test_every_pair_says_where_states_lie(name):
    tx, state = EVERY[name], first_state(name)
    check_fits(tx, state)
    found = list(pairs(tx, state))
    assert found
    for pair in found:
        keywords = pair.tx.arguments
        of_another = getattr(keywords["update"], "__self__", None)
        assert ("layout" in keywords or of_another is not None) == (name not in ELSEWHERE), pair

    def same(part):
        return with_parts(part.used, part.state, same)

    again = with_parts(tx, state, same)
    assert jax.tree.structure(again) == jax.tree.structure(state)
    both = zip(jax.tree.leaves(again), jax.tree.leaves(state), strict=True)
    assert all(one is other for one, other in both)


@pytest.mark.parametrize("name", [name for name in EVERY if name not in ELSEWHERE])
def test_every_part_has_the_state_that_it_makes(name):
    """Of the parameters it sees, which are found among the trees of the whole: a state of no
    arrays or counts alone is made of any."""
    tx, state = EVERY[name], first_state(name)
    for pair in pairs(tx, state):
        kept = jax.tree.leaves(pair.state)
        own = jax.tree.leaves(with_parts(pair.tx, pair.state, lambda part: ()))
        below = [jax.tree.leaves(part.state) for part in parts(pair.tx, pair.state)]
        assert len(kept) == len(own) + sum(map(len, below)), "each array has one owner"
        whole = [part for part in parts(pair.tx, pair.state) if part.keys == ()]
        assert not (whole and own)


def test_a_layout_refuses_other_containers():
    tx = gdtx.skip_nonfinite(gdtx.join(gdtx.plus, a=gdtx.ema(0.9), b=gdtx.chain(gdtx.sign())))
    state = tx.init(PARAMS)
    inner = state.inner
    for wrong, message in {
        "a tuple of 2": (inner, "expected a SkipState, got a dict of a, b"),
        "names": (
            state._replace(inner={"a": inner["a"]}),
            "expected a dict of a, b, got a dict of a",
        ),
        "more": (
            state._replace(inner=inner | {"b": ((), ())}),
            "expected a tuple of 1, one state per link, got a tuple of 2",
        ),
        "arrays": (
            state._replace(inner=inner | {"b": (jnp.zeros(2),)}),
            "expected an empty tuple, got an array of shape",
        ),
        "buffers": (
            state._replace(inner=inner | {"a": type(inner["a"])({"v": 0})}),
            "expected a dict of value, got a dict of v",
        ),
    }.values():
        with pytest.raises(ValueError, match=message):
            gdtx.hyperparams(tx, wrong)
        with pytest.raises(ValueError, match=message):
            tx.update(PARAMS, wrong, PARAMS)
    stateless = gdtx.chain(gdtx.sign())
    for nothing in (None, {}, ()):  # hold no more than the empty tuple
        assert stateless.update(PARAMS, (nothing,))[1] == (nothing,)


# Users' own


class Halves(NamedTuple):
    count: Any
    both: dict[str, Any]


@gdtx.transformation
def halves(one: gdtx.GradientTransformation, other: gdtx.GradientTransformation):
    """The mean of two, with a count of its own."""

    def init(params):
        return Halves(jnp.zeros((), jnp.int32), {"x": one.init(params), "y": other.init(params)})

    def update(updates, state, params=None, **extra_args):
        x, kept = one.update(updates, state.both["x"], params, **extra_args)
        y, also = other.update(updates, state.both["y"], params, **extra_args)
        mean = jax.tree.map(lambda x, y: (x + y) / 2, x, y)
        return mean, Halves(state.count + 1, {"x": kept, "y": also})

    return gdtx.GradientTransformation(init, update, Halves(None, {"x": one, "y": other}))


def test_a_combinator_of_a_users_own_is_seen_through():
    slow = gdtx.accumulate_gradients(gdtx.scale(RATE), 2)
    tx = gdtx.chain(gdtx.clip(9.0), halves(gdtx.ema(RATE), slow))
    state = tx.init(PARAMS)
    for _ in range(3):
        _, state = tx.update(PARAMS, state, PARAMS)
    values = gdtx.hyperparams(tx, state)
    assert values["1.one.decay"] == RATE(3)
    assert values["1.other.inner.factor"] == RATE(1)
    with pytest.raises(ValueError, match=r"halves.*expected a Halves"):
        gdtx.hyperparams(tx, gdtx.chain(gdtx.clip(9.0), gdtx.ema(RATE)).init(PARAMS))
    with pytest.raises(ValueError, match=r"halves.*expected a dict of x, y"):
        tx.update(PARAMS, (state[0], Halves(state[1].count, {"x": state[1].both["x"]})))
    held = gdtx.tunable(halves(gdtx.ema(0.5), gdtx.scale(1.0)))
    state = gdtx.set_hyperparams(held.init(PARAMS), **{"other.factor": 0.25})
    assert gdtx.hyperparams(held, state)["inner.other.factor"] == 0.25


def test_one_that_is_given_twice_is_read_in_both_places():
    ema = gdtx.ema(RATE)
    waiting = gdtx.skip_when(ema, lambda u: jnp.bool_(True))

    @gdtx.transformation
    def twice(one: gdtx.GradientTransformation, other: gdtx.GradientTransformation):
        return gdtx.chain(one, gdtx.skip_when(other, lambda u: jnp.bool_(True)))

    assert twice(ema, ema).arguments["one"] is twice(ema, ema).arguments["other"]
    for tx, names in ((twice(ema, ema), ("one", "other")), (gdtx.chain(ema, waiting), "01")):
        _, state = tx.update(PARAMS, tx.init(PARAMS))
        values = gdtx.hyperparams(tx, state)
        inner = "" if names != "01" else "inner."
        assert values[f"{names[0]}.decay"] == RATE(1)
        assert values[f"{names[1]}.{inner}decay"] == RATE(0)


def test_damping_that_adapts_is_read_as_it_is_now():
    tx = gdtx.kfac.levenberg_marquardt(gdtx.kfac.kfac(0.1), damping=0.5)
    state = tx.init(PARAMS)
    assert gdtx.hyperparams(tx, state)["inner.damping"] == 0.5
    assert gdtx.hyperparams(tx, state._replace(damping=jnp.float32(0.25)))["inner.damping"] == 0.25
    assert gdtx.hyperparams(tx)["inner.damping"] == 1e-3


# What a call keeps


def test_a_call_keeps_the_transformations_it_was_given():
    a, b, c = gdtx.ema(0.9), gdtx.sgd(jnp.array(0.1)), gdtx.adam(RATE)
    assert gdtx.chain(a, b).arguments["links"] == (a, b)
    assert gdtx.chain(a, b).arguments["links"][1] is b
    assert gdtx.join(gdtx.plus, x=c, y=a).arguments["x"] is c
    assert gdtx.partition({"k": c}, [("**", "k")]).arguments["transforms"]["k"] is c
    assert c.arguments["learning_rate"] is RATE
    tx = gdtx.masked(c, {"b": False, "w": True})
    (part,) = within(tx, tx.init(PARAMS), [c])
    assert part.tx is c


def test_containers_are_copied():
    mask = {"b": [True], "w": [False]}
    tx = gdtx.add_decayed_weights(0.1, mask)
    before = hash(tx)
    mask["b"][0] = False
    assert tx.arguments["mask"] == {"b": [True], "w": [False]}
    assert hash(tx) == before


def test_an_expression_is_made_once():
    tx = gdtx.adam(1e-3)
    assert tx.expression is tx.expression
    assert tx.expression == gdtx.expand(tx)
    assert tx.expression.arguments["links"][0].expression.factory is gdtx.join
    pair = gdtx.GradientTransformation(*gdtx.sign())
    assert pair.expression is pair
    copied = jax.tree.map(lambda x: x, tx)
    assert copied.expression is not tx.expression
    assert copied.expression is copied.expression
    assert copied.expression == tx.expression


def test_an_expression_of_arrays_is_made_anew():
    """Else one that was made under a trace would hold what must not leave it."""
    tx = gdtx.scale_by_learning_rate(jnp.array(0.5))
    jax.jit(lambda: tx.expression.init(PARAMS))()
    assert tx.expression == gdtx.scale(jnp.array(-0.5))
    batch = gdtx.as_arrays(gdtx.sgd(0.1)).replace(learning_rate=jnp.array([0.1, 0.2]))
    rates = jax.vmap(lambda tx: tx.expression.arguments["learning_rate"])(batch)
    np.testing.assert_array_equal(rates, batch.arguments["learning_rate"])


def test_an_expression_that_is_made_in_a_trace_may_leave_it():
    @gdtx.transformation
    def weighted(n: int):
        weights = 1 / jnp.arange(1.0, n + 1)
        return gdtx.elementwise(lambda u: u * weights)

    kept = []
    unused = weighted(2)
    fresh = jax.tree.map(lambda x: x, unused)  # has not made its expression

    @jax.jit
    def step(u):
        kept.append(weighted(2))
        return kept[0].update(u, ())[0] + fresh.update(u, ())[0]

    np.testing.assert_array_equal(step(jnp.ones(2)), [2.0, 1.0])
    for tx in (*kept, fresh):
        later = jax.jit(lambda u, tx=tx: tx.update(u, ())[0])
        np.testing.assert_array_equal(later(jnp.ones(2)), [1.0, 0.5])
