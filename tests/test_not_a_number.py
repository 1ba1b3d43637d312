"""What is not a number shows, and bounds hold all the same; what is finite stays so."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from everything import EVERY, KINDS, METHODS, PARAMS, extras

import gdtx
from gdtx import kfac

RULES = EVERY | {f"{name} (method)": row.make(row.learning_rate) for name, row in METHODS.items()}
# Their programs take seconds each to compile. Methods are tried at night too.
LONG = {
    "adaptive_grad_clip", "blockwise", "clip_by_fisher_norm", "full_matrix_adagrad",
    "in_eigenbasis", "kfac", "lbfgs", "levenberg_marquardt", "packed", "precondition",
    "scale_by_ekfac", "scale_by_full_matrix", "scale_by_kfac", "scale_by_lbfgs", "scale_by_muon",
    "scale_by_shampoo", "scale_by_soap", "scale_by_window", "shampoo", "skip_nonfinite",
    "skip_when", "soap", "zoom_linesearch",
}  # fmt: skip

# Methods are expressions of the others.
SLOW = {name for name in RULES if name in LONG or name not in EVERY or name in KINDS["method"]}
QUICK = [name for name in RULES if name not in SLOW]
by_rule = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in RULES],
)


def full(value):
    return jax.tree.map(lambda p: jnp.full_like(p, value), PARAMS)


def one(value, others=1.0):
    return {**full(others), "w": full(others)["w"].at[1, 0].set(value)}


CROSS = {"b": jnp.array([0.0, 1.0]), "w": jnp.ones((4, 2)).at[1].set(0.0).at[:, 1].set(0.0)}
BOUND = 2.0**61  # of `skip_nonfinite`

# Three gradients each.
CASES = {
    "clean": [full(1e6)] * 3,
    "nan": [one(jnp.nan, 1e6)] * 3,
    "inf": [one(jnp.inf, 1e6)] * 3,
    "-inf": [one(-jnp.inf, 1e6)] * 3,
    "zeros": [full(0.0)] * 3,
    "zero row and column": [CROSS] * 3,
    "tiny": [full(1e-30)] * 3,
    "large": [full(BOUND)] * 3,
    "large, by turns": [full(BOUND), full(-BOUND), full(BOUND)],
    "1e19": [full(1e19)] * 3,
    "1e19, by turns": [full(1e19), full(-1e19), full(1e19)],
    "3e38": [full(3e38)] * 3,
    "3e38, by turns": [full(3e38), full(-3e38), full(3e38)],
    "3e38, one of them": [one(3e38)] * 3,
    "3e38, then 1": [full(3e38), full(1.0), full(1.0)],
}
IN_RANGE = ["zeros", "zero row and column", "tiny", "large", "large, by turns"]
HUGE = [case for case in CASES if "1e19" in case or "3e38" in case]


COLUMNS = {
    key: np.stack([[np.asarray(g[key]) for g in gradients] for gradients in CASES.values()])
    for key in PARAMS
}


def run(name, gradients):
    """The updates of all steps and the last state."""
    tx, asked = RULES[name], extras(name, PARAMS)

    def step(state, g):
        updates, state = tx.update(g, state, PARAMS, **asked)
        return state, updates

    return jax.lax.scan(step, tx.init(PARAMS), gradients)[::-1]


@functools.cache
def together(*names):
    """What comes of all cases, of several rules in one program."""
    program = jax.jit(jax.vmap(lambda gradients: {name: run(name, gradients) for name in names}))
    return jax.tree.map(np.asarray, program(COLUMNS))


def outcome(name):
    """The updates of each step and the last state of each case."""
    updates, state = together(*([name] if name in SLOW else QUICK))[name]
    return {
        case: (
            [jax.tree.map(lambda x: x[i, t], updates) for t in range(3)],  # noqa: B023
            jax.tree.map(lambda x: x[i], state),  # noqa: B023
        )
        for i, case in enumerate(CASES)
    }


def numbers(tree):
    return [x for x in jax.tree.leaves(tree) if np.issubdtype(x.dtype, np.inexact)]


HIDDEN = {
    "value_of": "reads another tree",
    "set_to_zero": "whatever comes",
    "freeze": "the leaf does not train",
    "skip_large": "leaves the step out and counts it",
    "zero_nans": "is asked to",
    "rectify": "1 in place of a denominator whose variance is not tractable",
    # Documented: blocks whose sum of squares is not finite count as zero.
    **dict.fromkeys(["scale_by_shampoo", "shampoo", "precondition", "packed"], "counts as zero"),
    **dict.fromkeys(["scale_by_soap", "soap", "in_eigenbasis"], "counts as zero"),
    **dict.fromkeys(["whiten", "psgd"], "counts as zero"),
}
# An infinity in a row leaves of it that the others are small, and what is divided by it large.
# And one of the squares that additive_ema averages counts as the largest number, as documented.
SHARES = {"rank_one", "scale_by_factored_rms", "additive_ema"}


@by_rule
def test_a_nan_shows_and_turns_no_bound_off(name):
    """With a NaN or an infinity in the gradient no finite number of an update is larger than it
    would be, and nothing is infinite that was not."""
    results = outcome(name)
    for case in ("nan", "inf", "-inf")[: 1 if name in SHARES else None]:
        for got, clean in zip(*(numbers(results[c][0]) for c in (case, "clean")), strict=True):
            sizes = np.abs(got[np.isfinite(got)])
            assert np.max(sizes, initial=0) <= 1.00001 * np.max(np.abs(clean)), case
            assert case != "nan" or not np.isinf(got).any()
    is_shown = any(np.isnan(x).any() for x in numbers(results["nan"][0]))
    assert is_shown != (name in HIDDEN)


# States that say of what is not known that it is infinite, or not a number.
UNKNOWN = {
    "levenberg_marquardt", "reduce_on_plateau", "backtracking_linesearch", "lbfgs",
    "zoom_linesearch",
}  # fmt: skip


@by_rule
def test_what_is_finite_stays_finite(name):
    if name == "infinite_at_zero":
        pytest.skip("is asked to make infinity of 0")
    for case in IN_RANGE:
        if name in ("sqrt", "root") and "turns" in case:
            continue  # of negative numbers
        updates, state = outcome(name)[case]
        for x in numbers(updates):
            assert np.isfinite(x).all(), case
        if name not in UNKNOWN:
            assert all(np.isfinite(x).all() for x in numbers(state)), case


ARITHMETIC = {
    "recur", "accumulate", "chain", "join", "feedback", "let", "graft", "bias_correction",
    "blockwise", "centralize", "difference", "running_cover", "running_sum", "square", "trace",
    "scheduled_bias_correction", "variance", "sqrt", "root", "second_moment", "join_trees",
}  # fmt: skip
BEYOND = {
    "accumulate_gradients": "sums",
    "schedule_free_sgd": "momentum sums", "sgd": "momentum sums",
    "momentum (method)": "momentum sums", "nesterov (method)": "momentum sums",
    **dict.fromkeys(["dion", "scale_by_dion"], "momentum sums"),
    **dict.fromkeys(["galore", "projected"], "an image sums over the side that becomes smaller"),
    "muon": "momentum sums", "normuon": "momentum sums", "scale_by_muon": "momentum sums",
    "stored": "a second moment that is infinite, whose block is not a number",
    "skip_nonfinite": "NaN after so many in a row, as asked for",
    **dict.fromkeys(
        [name for name in RULES if "nadam" in name], "the mean, looked ahead, is infinite as v is"
    ),
    **dict.fromkeys(
        [name for name in RULES if "adan" in name or "mars" in name], "differences"
    ),
    "scale_by_ademamix": "the sum of two averages",
    "adam without averages (method)": "0 times infinity",
    **dict.fromkeys([name for name in RULES if "kfac" in name], "sums in the eigenbasis"),
    "levenberg_marquardt": "sums in the eigenbasis",
}  # fmt: skip


@by_rule
def test_finite_gradients_whose_squares_are_not(name):
    """Updates stay finite but for those above: `skip_nonfinite` leaves such gradients out."""
    if name in ARITHMETIC:
        pytest.skip("the result itself is beyond the range")
    got = [np.isfinite(x).all() for case in HUGE for x in numbers(outcome(name)[case][0])]
    assert all(got) != (name in BEYOND)


AS_OPTAX = {
    "clip": (gdtx.clip(1.0), optax.clip(1.0)),
    "clip_by_global_norm": (gdtx.clip_by_global_norm(1.0), optax.clip_by_global_norm(1.0)),
    "clip_by_block_rms": (gdtx.clip_by_block_rms(1.0), optax.clip_by_block_rms(1.0)),
    "adaptive_grad_clip": (gdtx.adaptive_grad_clip(0.1), optax.adaptive_grad_clip(0.1)),
    "scale_by_trust_ratio": (gdtx.scale_by_trust_ratio(), optax.scale_by_trust_ratio()),
    "normalize": (gdtx.normalize_by_global_norm(), optax.normalize_by_update_norm()),
}


@jax.jit
def firsts(gradients):
    """The first updates of ours and theirs, of all rows in one program."""
    return {
        name: [tx.update(gradients, tx.init(PARAMS), PARAMS)[0] for tx in pair]
        for name, pair in AS_OPTAX.items()
    }


@pytest.mark.parametrize("case", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("name", AS_OPTAX)
def test_same_numbers_as_optax(name, case):
    got, want = firsts(CASES[case][0])[name]
    for leaf in PARAMS:
        np.testing.assert_allclose(got[leaf], want[leaf], rtol=1e-6)


def test_sharpness_aware_does_not_walk_far_with_a_nan():
    def point(gradients):
        tx = gdtx.sharpness_aware(gdtx.identity(), rho=0.05)
        return tx.update(gradients, (), PARAMS, grad_fn=lambda params: params)[0]

    for case in ("nan", "inf"):
        distance = jax.tree.map(jnp.subtract, point(CASES[case][0]), PARAMS)
        assert all(not (abs(x) > 0.05).any() for x in numbers(jax.tree.map(np.asarray, distance)))


@pytest.mark.parametrize("poisoned", ["d", "m"])
def test_graft_of_a_nan_is_nan(poisoned):
    tx = gdtx.graft(direction=gdtx.value_of("d"), magnitude=gdtx.value_of("m"))
    trees = {"d": full(1e6), "m": full(1e6), poisoned: one(jnp.nan, 1e6)}
    got = tx.update(PARAMS, tx.init(PARAMS), PARAMS, **trees)[0]
    assert np.isnan(got["w"]).all()
    assert np.isfinite(got["b"]).all()


def test_full_matrix_keeps_a_nan_unless_it_is_skipped():
    plain, good, bad = gdtx.scale_by_full_matrix(), jnp.ones(2), jnp.array([1.0, jnp.nan])
    for tx, is_shown in ((plain, True), (gdtx.skip_nonfinite(plain), False)):
        state = tx.init(good)
        for g in (good, bad, good):
            u, state = tx.update(g, state)
        assert np.isnan(u).any() == is_shown
    np.testing.assert_allclose(u, 0.5, rtol=1e-5)  # 1 / sqrt(2 ||g||^2), as without the bad one


@pytest.mark.parametrize(
    "tx", [gdtx.scale_by_full_matrix(), gdtx.scale_by_full_matrix(block_size=3),
           gdtx.scale_by_window(2)], ids=["dense", "block", "window"],
)  # fmt: skip
def test_vectors_too_long_for_their_products_keep_their_direction(tx):
    g = jnp.array([3e38, -1.5e38, 0.0])
    state = tx.init(g)
    u, state = tx.update(g, state)
    # The matrix is singular, and the root of what rounding leaves of 0 is the root of a unit.
    near = np.finfo(np.float32).eps ** 0.5
    np.testing.assert_allclose(u, np.array([2, -1, 0]) / 5**0.5, rtol=0, atol=near)
    for _ in range(9):
        u, state = tx.update(-g, state)
        assert np.linalg.norm(u) <= 2**0.5


@pytest.mark.parametrize(
    ("size", "bound"), [(0.25, 0.5), (1e18, 0.5), (1e19, 0.5), (3e38, 0.5), (1e12, 1e10)]
)
def test_fisher_norm_of_large_updates_is_bounded(size, bound):
    inputs = {"w": jnp.ones((2, 1))}, (jnp.eye(2), jnp.zeros((2, 1)))
    model = lambda params, x: x @ params["w"]  # noqa: E731
    measured = kfac.value_grad_and_curvature(model, kfac.squared_error, "exact")
    tx, updates = gdtx.clip_by_fisher_norm(bound**2), {"w": np.float32([[size], [-size]])}

    @jax.jit
    def clipped(updates):
        curvature = measured(*inputs)[2]
        return tx.update(updates, tx.init(updates), updates, curvature=curvature)

    got, _ = clipped(updates)
    # u^T F u is |u|^2 / 2.
    np.testing.assert_allclose(got["w"][:, 0], np.array([1, -1]) * min(size, bound), rtol=1e-6)


def test_margins_that_cross_in_nothing():
    """1e-30 of a row and of a column: their product is too small a number, and 0 / 0 is not 0."""
    g, zeros = CROSS["w"], jnp.zeros((4, 2))
    tx, theirs = (
        factory(min_dim_size_to_factor=2)
        for factory in (gdtx.scale_by_factored_rms, optax.scale_by_factored_rms)
    )
    got, want = (t.update(g, t.init(zeros), zeros)[0] for t in (tx, theirs))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    # A row that is beyond the range is forgotten again, as all else is.
    state = tx.init(zeros)
    for huge in (one(3e38)["w"], *[g] * 50):
        u, state = tx.update(huge, state)
        assert np.isfinite(u).all()
    assert 0.1 < u[0, 0] < 10


@pytest.mark.parametrize(
    "name", ["adam", "yogi", "adan", "nadam", "adabelief", "adafactor, factored"]
)
def test_squares_beyond_the_range_are_skipped(name):
    """Without a trace, where the second moment would be infinite for ever."""
    tx = gdtx.skip_nonfinite(METHODS[name].make(0.1))
    update, last = jax.jit(tx.update), {}
    for kind, values in {"clean": [1.0, 2.0], "seen": [1.0, 1e19, -3e38, 3e38, 2.0]}.items():
        state = tx.init(PARAMS)
        for value in values:
            updates, state = update(full(value), state, PARAMS)
        last[kind] = updates, state.inner
    assert state.skipped == 3
    for got, want in zip(*(jax.tree.leaves(last[kind]) for kind in last), strict=True):
        np.testing.assert_array_equal(got, want)


WITHOUT_EPS = {
    "adagrad": gdtx.adagrad(0.1, 0.0, eps=0.0),
    "adagrad, as arrays": gdtx.as_arrays(gdtx.adagrad(0.1, 0.0, eps=0.0)),
    "adadelta": gdtx.adadelta(eps=0.0),
    "rmsprop": gdtx.rmsprop(0.1, eps=0.0),
    "rmsprop, eps that is 0 in float32": gdtx.rmsprop(0.1, eps=1e-60),
    "rmsprop, eps outside": gdtx.rmsprop(0.1, eps=0.0, eps_in_sqrt=False),
    "rmsprop, centered": gdtx.rmsprop(0.1, eps=0.0, centered=True),
    "adam": gdtx.adam(0.1, eps=0.0),
    "amsgrad": gdtx.amsgrad(0.1, eps=0.0),
    "nadam": gdtx.nadam(0.1, eps=0.0),
    "radam": gdtx.radam(0.1, eps=0.0),
    "adabelief": gdtx.adabelief(0.1, eps=0.0),
    "yogi": gdtx.yogi(0.1, eps=0.0, initial_accumulator_value=0.0),
    "adan": gdtx.adan(0.1, eps=0.0),
    "lamb": gdtx.lamb(0.1, eps=0.0),
    "sm3": gdtx.sm3(0.1, eps=0.0),
    "schedule_free": gdtx.schedule_free_adamw(0.1, eps=0.0),
}


NOTHING = [full(0.0), one(0.0), full(1e-30)]


@functools.cache
def of_nothing():
    """The updates of all rows, one after the other, and Optax's each from the start."""

    def updates(tx, state):
        found = []
        for g in NOTHING:
            u, state = tx.update(g, state, PARAMS)
            found.append(u)
        return found

    theirs = optax.adagrad(0.1, 0.0, eps=0.0)
    program = jax.jit(
        lambda params: (
            {name: updates(tx, tx.init(params)) for name, tx in WITHOUT_EPS.items()},
            [[t.update(g, t.init(params), params)[0] for g in NOTHING]
             for t in (theirs, *(tx for name, tx in WITHOUT_EPS.items() if "adagrad" in name))],
        )
    )  # fmt: skip
    return jax.tree.map(np.asarray, program(PARAMS))


@pytest.mark.parametrize("name", WITHOUT_EPS)
def test_nothing_over_nothing_is_nothing(name):
    for updates in of_nothing()[0][name]:
        assert all(np.isfinite(x).all() for x in numbers(updates))


def test_adagrad_of_nothing_is_that_of_optax():
    theirs, *ours = of_nothing()[1]
    for got in ours:
        for u, want in zip(got, theirs, strict=True):
            for leaf in PARAMS:
                np.testing.assert_allclose(u[leaf], want[leaf], rtol=1e-6)


@pytest.mark.parametrize("name", ["adagrad", "adam", "radam"])
def test_derivatives_of_nothing_over_nothing(name):
    tx = WITHOUT_EPS[name]

    @jax.jit
    @jax.grad
    def gradient(g):
        return sum(map(jnp.sum, jax.tree.leaves(tx.update(g, tx.init(g))[0])))

    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient(one(0.0))))
