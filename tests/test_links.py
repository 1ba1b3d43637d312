"""Links that bound, center, repair and remember, against NumPy, Optax or other expressions."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import oracles_recent
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from test_latex import evaluated, sample

import gdtx

SHAPES = {
    "scalar": (), "vector": (7,), "row": (1, 5), "matrix": (4, 3), "heads": (4, 2, 3),
    "kernel": (3, 3, 2, 5), "volume": (2, 3, 2, 2, 4), "empty": (0, 4),
}  # fmt: skip


def draw(seed, shapes=SHAPES, scale=1.0):
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(scale * rng.normal(size=s), np.float32) for k, s in shapes.items()}


FEW = {"scalar": (), "matrix": (4, 3)}
# Optax's norms of arrays without numbers are NaN, so those are left out.
WITH_NUMBERS = {name: shape for name, shape in SHAPES.items() if 0 not in shape}


def run(tx, updates, params=None):
    return tx.update(updates, tx.init(updates), params)[0]


def steps(transformations, count=5, shapes=FEW):
    """The updates of some steps of each on the same random gradients, in one program."""
    drawn = [draw(t, shapes) for t in range(count)]
    gradients = {name: np.stack([each[name] for each in drawn]) for name in shapes}
    params = draw(99, shapes)

    def train(tx, gradients):
        def step(state, g):
            return tx.update(g, state, params)[::-1]

        return jax.lax.scan(step, tx.init(params), gradients)[1]

    def train_all(gradients):
        return [train(tx, gradients) for tx in transformations]

    return jax.tree.map(np.asarray, jax.jit(train_all)(gradients))


def pairs(table, **kwargs):
    """The updates of both sides of each row."""
    found = steps([tx for pair in table.values() for tx in pair], **kwargs)
    return dict(zip(table, zip(found[::2], found[1::2], strict=True), strict=True))


AS_OPTAX = {
    "clip_by_block_rms": (gdtx.clip_by_block_rms(0.5), optax.clip_by_block_rms(0.5)),
    "adaptive_grad_clip": (gdtx.adaptive_grad_clip(0.5), optax.adaptive_grad_clip(0.5)),
    "with a large floor": (gdtx.adaptive_grad_clip(0.3, 2.0), optax.adaptive_grad_clip(0.3, 2.0)),
    "centralize": (gdtx.centralize(axis=0), optax.centralize()),
    "keep_nonnegative": (gdtx.keep_nonnegative(), optax.keep_params_nonnegative()),
    "zero_nans": (gdtx.zero_nans(), optax.zero_nans()),
    "scale_by_sign": (gdtx.scale_by_sign(), optax.scale_by_sign()),
    "normalize": (gdtx.normalize_by_global_norm(), optax.normalize_by_update_norm(eps=0.0)),
    "scale_by_param_block_rms": (
        gdtx.scale_by_param_block_rms(0.9), optax.scale_by_param_block_rms(0.9)
    ),
    "scale_by_factored_rms": (
        gdtx.scale_by_factored_rms(min_dim_size_to_factor=2),
        optax.scale_by_factored_rms(min_dim_size_to_factor=2),
    ),
    "not factored": (
        gdtx.scale_by_factored_rms(factored=False, decay_rate=0.5),
        optax.scale_by_factored_rms(factored=False, decay_rate=0.5),
    ),
    "scale_by_lion": (gdtx.scale_by_lion(0.8, 0.95), optax.scale_by_lion(0.8, 0.95)),
    "scale_by_belief": (
        gdtx.scale_by_belief(eps=1e-8, eps_root=1e-9),
        optax.scale_by_belief(eps=1e-8, eps_root=1e-9),
    ),
    "scale_by_yogi": (gdtx.scale_by_yogi(initial_mean=1e-6), optax.scale_by_yogi()),
    "scale_by_adan": (gdtx.scale_by_adan(ahead=1 - 0.92), optax.scale_by_adan()),
}  # fmt: skip


@functools.cache
def as_optax(is_stateless):
    """Those without a state on arrays of many shapes, the others for some steps."""
    rows = {
        name: pair for name, pair in AS_OPTAX.items() if (pair[0].init({}) == ()) == is_stateless
    }
    return pairs(rows, **({"count": 1, "shapes": WITH_NUMBERS} if is_stateless else {}))


@pytest.mark.parametrize("link", AS_OPTAX)
def test_link_is_that_of_optax(link):
    ours, theirs = as_optax(AS_OPTAX[link][0].init({}) == ())[link]
    chex.assert_trees_all_close(ours, theirs, rtol=1e-5, atol=1e-6)


# A link, and what it makes of gradients, the first axis of which is time: in NumPy, from the paper.
AS_NUMPY = {
    "square": (gdtx.square(), oracles.square),
    "clip": (gdtx.clip(0.5), lambda g: np.clip(g, -0.5, 0.5)),
    "at_least": (gdtx.at_least(0.5), lambda g: np.maximum(g, 0.5)),
    "ema_from_first": (gdtx.ema_from_first(0.8), lambda g: oracles_recent.from_first(g, 0.8)),
    "previous of it": (
        gdtx.previous(gdtx.chain(gdtx.square(), gdtx.ema_from_first(0.8))),
        lambda g: oracles.before(oracles_recent.from_first(g**2, 0.8)),
    ),
    "trace": (gdtx.trace(0.5), lambda g: oracles.trace(g, 0.5)),
    "ema": (gdtx.ema(0.8, initial=0.3), lambda g: oracles.ema(g, 0.8, 0.3)),
    "bias_correction": (
        gdtx.bias_correction(0.9, ahead=2),
        lambda g: g / (1 - 0.9 ** (np.arange(len(g)) + 3.0)[:, None]),
    ),
    "first_moment": (gdtx.first_moment(0.8), lambda g: oracles.mean(g, 0.8)),
    "second_moment": (gdtx.second_moment(0.9), lambda g: oracles.mean(oracles.square(g), 0.9)),
    "root": (gdtx.chain(gdtx.square(), gdtx.root(0.5)), lambda g: np.abs(g) + 0.5),
    "root, eps inside": (
        gdtx.chain(gdtx.square(), gdtx.root(0.5, eps_root=0.25)),
        lambda g: np.sqrt(g**2 + 0.25) + 0.5,
    ),
    "running_max": (
        gdtx.chain(gdtx.absolute(), gdtx.running_max(0.5)),
        lambda g: oracles.recur(lambda a, x: np.maximum(0.5 * a, x), 0.0, np.abs(g)),
    ),
    "running_sum": (gdtx.running_sum(0.5), lambda g: 0.5 + np.cumsum(g, axis=0)),
    "variance": (gdtx.variance(0.9), lambda g: oracles.variance(g, 0.9, 0.0)),
    "difference": (gdtx.difference(), lambda g: np.diff(g, axis=0, prepend=g[:1])),
    "first": (
        gdtx.chain(gdtx.scale(2.0), gdtx.first()),
        lambda g: np.broadcast_to(2 * g[0], g.shape),
    ),
    "wait": (gdtx.wait(3), lambda g: np.where(np.arange(len(g))[:, None] < 3, 0, g)),
}


def test_links_are_those_of_numpy(x64):
    g, _ = sample(7)

    def run(tx):
        return jax.lax.scan(lambda state, u: tx.update(u, state)[::-1], tx.init(g[0]), g)[1]

    got = jax.jit(lambda: {name: run(tx) for name, (tx, _) in AS_NUMPY.items()})()
    want = {name: oracle(g) for name, (_, oracle) in AS_NUMPY.items()}
    chex.assert_trees_all_close(got, want, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", AS_NUMPY)
def test_printed_links_are_those_of_numpy(name):
    tx, oracle = AS_NUMPY[name]
    g, theta = sample(7)
    got = evaluated(gdtx.latex(tx, values=True), g, theta)
    np.testing.assert_allclose(got, oracle(g), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("tx", "at_zero"),
    [
        (gdtx.root(0.0), np.inf), (gdtx.root(0.0, 1e-50), np.inf), (gdtx.root(0.0, 1e-30), 1e-15),
        (gdtx.root(0.5), 0.5), (gdtx.root(jnp.array(0.0)), 0.0),
    ],
)  # fmt: skip
def test_root_of_nothing_is_infinite_only_without_epsilon(tx, at_zero):
    state = tx.init(jnp.zeros(2))
    np.testing.assert_allclose(tx.update(jnp.array([0.0, 4.0]), state)[0][0], at_zero, rtol=1e-6)
    # A number that becomes another, or an array, goes on with the same state.
    assert state == gdtx.root(1.0, eps_root=1.0).init(jnp.zeros(2))


direction = gdtx.scale_by_sign()
LAWS = {
    "signs do not see the factor of the average": (
        gdtx.chain(gdtx.trace(0.9), direction), gdtx.chain(gdtx.ema(0.9), direction)
    ),
    "nor its bias": (
        gdtx.chain(gdtx.ema(0.9), gdtx.bias_correction(0.9), direction, gdtx.scale(-0.1)),
        gdtx.signum(0.1),
    ),
    "Lion with equal decays is Signum": (
        gdtx.lion(0.1, 0.9, 0.9, weight_decay=0.0), gdtx.signum(0.1)
    ),
    "Adan without differences is Adam": (
        gdtx.scale_by_adan(0.9, 0.5, 0.99, ahead=0.0), gdtx.scale_by_adam(0.9, 0.99)
    ),
    "the square distance to 0 is the square": (
        gdtx.let(
            gdtx.chain(
                gdtx.join(gdtx.subtract, g=gdtx.identity(), mu=gdtx.value_of("mu")), gdtx.square()
            ),
            mu=gdtx.set_to_zero(),
        ),
        gdtx.square(),
    ),
    "Adafactor's plain average at 1 is AdaGrad times the root of the step": (
        gdtx.scale_by_factored_rms(factored=False, decay_rate=1.0, eps=0.0),
        gdtx.chain(
            gdtx.scale_by_rss(0.0, eps=0.0), gdtx.counted(lambda t: lambda u: u * jnp.sqrt(t))
        ),
    ),
    "two waits are the longer": (gdtx.chain(gdtx.wait(2), gdtx.wait(4)), gdtx.wait(4)),
    "no wait": (gdtx.wait(0), gdtx.identity()),
    "latest": (gdtx.latest(), gdtx.identity()),
    "a sum of differences": (
        gdtx.chain(gdtx.difference(), gdtx.running_sum()),
        gdtx.join(
            gdtx.subtract,
            now=gdtx.identity(),
            first=gdtx.first(),
        ),
    ),
    "the past of a sum": (
        gdtx.previous(gdtx.running_sum()),
        gdtx.join(gdtx.subtract, now=gdtx.running_sum(), u=gdtx.identity()),
    ),
    "feedback with nothing after it": (
        gdtx.feedback(gdtx.subtract, gdtx.ema(0.9), name="m", then=gdtx.identity()),
        gdtx.feedback(gdtx.subtract, gdtx.ema(0.9)),
    ),
    "what feedback keeps is the statistic of what it emits": (
        gdtx.feedback(
            gdtx.subtract, gdtx.ema(0.9), gdtx.scale(0.5), name="m", then=gdtx.value_of("m")
        ),
        gdtx.chain(
            gdtx.feedback(gdtx.subtract, gdtx.ema(0.9), gdtx.scale(0.5)), gdtx.ema(0.9)
        ),
    ),
    "let names what is computed": (
        gdtx.let(gdtx.join(gdtx.multiply, a=gdtx.value_of("x"), b=gdtx.value_of("x")),
                 x=gdtx.ema(0.9)),
        gdtx.chain(gdtx.ema(0.9), gdtx.elementwise(lambda u: u * u)),
    ),
    "values see those before them": (
        gdtx.let(gdtx.value_of("y"), x=gdtx.scale(2.0), y=gdtx.chain(gdtx.value_of("x"),
                                                                    gdtx.scale(3.0))),
        gdtx.scale(6.0),
    ),
    "the inner let hides the outer": (
        gdtx.let(gdtx.let(gdtx.value_of("x"), x=gdtx.scale(3.0)), x=gdtx.scale(2.0)),
        gdtx.scale(3.0),
    ),
    "let around a foreign link": (
        gdtx.let(gdtx.chain(optax.scale(2.0), gdtx.value_of("x")), x=gdtx.identity()),
        gdtx.identity(),
    ),
    "clip_by_block_rms is clip_by_norm": (
        gdtx.masked(gdtx.clip_by_block_rms(0.5), {"scalar": False, "matrix": True}),
        gdtx.masked(gdtx.clip_by_norm(0.5 * 12**0.5), {"scalar": False, "matrix": True}),
    ),
    "rank_one of small arrays": (gdtx.rank_one(gdtx.ema(0.9)), gdtx.ema(0.9)),
}  # fmt: skip


laws = functools.cache(lambda: pairs(LAWS))


@pytest.mark.parametrize("law", LAWS)
def test_law(law):
    # At 0 signs are decided by rounding, which numbers drawn at random do not meet.
    chex.assert_trees_all_close(*laws()[law], rtol=1e-4, atol=1e-6)


def test_repeated_values_need_one_buffer():
    """The first moment, read by two branches, is kept once."""
    params = {"w": jnp.zeros((3, 2))}
    state = gdtx.scale_by_belief().init(params)
    assert [x.shape for x in jax.tree.leaves(state)].count((3, 2)) == 2
    chex.assert_trees_all_equal(gdtx.find(state, "mu"), params)
    assert set(state) == {"mu", "body"}


def test_values_may_be_scheduled_and_masked():
    decay = gdtx.linear_schedule(0.5, 0.9, 10)
    tx = gdtx.masked(gdtx.let(gdtx.value_of("m"), m=gdtx.ema(decay)), {"a": True, "b": False})
    tree = {"a": jnp.ones(2), "b": jnp.ones(3)}
    updates, state = tx.update(tree, tx.init(tree))
    chex.assert_trees_all_close(updates, {"a": 0.5 * jnp.ones(2), "b": jnp.ones(3)})
    assert float(gdtx.hyperparams(tx.arguments["inner"], state.inner)["m.decay"]) > 0.5


def test_errors_of_let():
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    with pytest.raises(TypeError, match=r"value_of: nothing is called 'm': name it in let\(\.\.\."):
        run(gdtx.value_of("m"), params)
    with pytest.raises(TypeError, match=r"sgd > value_of: nothing is called" "|chain > value_of"):
        run(gdtx.chain(gdtx.value_of("m"), gdtx.sgd(0.1)), params)
    with pytest.raises(TypeError, match="let: m must be a transformation"):
        gdtx.let(gdtx.identity(), m=3)
    with pytest.raises(ValueError, match="another transformation: expected a dict of m, body"):
        gdtx.let(gdtx.value_of("m"), m=gdtx.ema(0.9)).update(params, ())
    with pytest.raises(ValueError, match=r"value_of: m has no leaf m\['b'\]"):
        gdtx.value_of("m").update(params, (), m={"a": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"updates\['b'\] has shape \(3,\), its m has \(2,\)"):
        gdtx.value_of("m").update(params, (), m={"a": jnp.ones(2), "b": jnp.ones(2)})


def test_previous_needs_a_statistic_that_emits_its_buffer():
    tx = gdtx.previous(gdtx.chain(gdtx.ema(0.9), gdtx.sqrt()))
    with pytest.raises(TypeError, match="previous: the last link of the statistic must emit"):
        run(tx, jnp.ones(2))


def test_previous_of_real_statistics_of_complex_numbers_is_real():
    tx = gdtx.chain(gdtx.square(), gdtx.previous(gdtx.ema(0.5)))
    u = jnp.array([3.0 + 4.0j])
    _, state = tx.update(u, tx.init(u))
    updates, _ = tx.update(u, state)
    assert updates.dtype == jnp.float32
    np.testing.assert_allclose(updates, 12.5)


# Norms of arrays


def norm(x):
    return np.linalg.norm(np.ravel(x))


def test_clip_by_norm_shortens_each_array():
    updates = draw(0)
    clipped = run(gdtx.clip_by_norm(1.0), updates)
    for name, u in updates.items():
        np.testing.assert_allclose(clipped[name], u * min(1, 1 / max(norm(u), 1)), rtol=1e-6)


@pytest.mark.parametrize("value", [3e38, 2e-38, 0.0, -3e38])
def test_norms_of_extreme_numbers(value):
    """Finite updates stay finite, and are what exact arithmetic makes of them."""
    updates = {"a": jnp.full((3, 4), value), "b": jnp.zeros((0, 2)), "c": jnp.full((), value)}
    ones = jax.tree.map(jnp.ones_like, updates)
    size = abs(np.float64(np.float32(value)))
    for tx, scale in (
        (gdtx.clip_by_norm(2.0), min(1, 2 / (12**0.5 * size)) if size else 1),
        (gdtx.clip_by_block_rms(2.0), min(1, 2 / size) if size else 1),
        # Units are the columns, of length 3, whose weights have norm sqrt(3).
        (gdtx.adaptive_grad_clip(0.5), min(1, 0.5 / size) if size else 1),
        (gdtx.normalize_by_global_norm(), 1 / (13**0.5 * size) if size else 1),
    ):
        got = tx.update(updates, (), ones)[0]
        np.testing.assert_allclose(got["a"], np.float32(value) * scale, rtol=1e-6, err_msg=str(tx))
        assert got["b"].shape == (0, 2)
        chex.assert_tree_all_finite(got)
    params = jax.tree.map(lambda u: jnp.abs(u), updates)
    relative = run(gdtx.scale_by_param_block_rms(0.0), ones, params)
    np.testing.assert_allclose(relative["a"], size, rtol=1e-6)


STATELESS = [
    gdtx.clip_by_norm(1.0), gdtx.clip_by_block_rms(1.0), gdtx.adaptive_grad_clip(0.5),
    gdtx.normalize_by_global_norm(), gdtx.centralize(), gdtx.scale_by_param_block_rms(),
    gdtx.zero_nans(), gdtx.keep_nonnegative(),
]  # fmt: skip


@functools.cache
def at_zero(dtype):
    """Updates and derivatives of each link without a state, in one program."""
    shapes = {"scalar": (), "kernel": (1, 3, 2, 5), "empty": (0, 4)}
    params = {name: jnp.zeros(shape, dtype) for name, shape in shapes.items()} | {"none": None}
    links = [tx for tx in STATELESS if not (dtype == "complex64" and is_ordering(tx))]

    def total(u, tx):
        return sum(jnp.sum(jnp.abs(x) ** 2 + x.real) for x in jax.tree.leaves(run(tx, u, u)))

    def all_of(u):
        return [(tx.update(u, (), u)[0], jax.grad(total)(u, tx)) for tx in links]

    return dict(zip(links, jax.jit(all_of)(params), strict=True)), params


def is_ordering(tx):
    return tx.factory is gdtx.keep_nonnegative


@pytest.mark.parametrize("tx", STATELESS, ids=lambda tx: tx.factory.__name__)
@pytest.mark.parametrize("dtype", ["bfloat16", "complex64"])
def test_stateless_links_keep_shapes_and_are_smooth_at_zero(tx, dtype):
    if dtype == "complex64" and is_ordering(tx):
        pytest.skip("orders real numbers")
    found, params = at_zero(dtype)
    updates, slopes = found[tx]
    chex.assert_trees_all_equal_shapes(updates, params)
    wide = "complex64" if dtype == "complex64" else "float32"
    assert {str(x.dtype) for x in jax.tree.leaves(updates)} <= {wide, dtype}
    chex.assert_tree_all_finite(slopes)


@pytest.mark.parametrize("tx", STATELESS[:4], ids=lambda tx: tx.factory.__name__)
def test_norms_count_magnitudes_of_complex_numbers(tx):
    pair = jnp.array([3.0, 4.0])
    as_one = run(tx, jnp.array([3.0 + 4.0j]), jnp.array([1.0 + 1.0j]))
    if tx.factory is gdtx.clip_by_block_rms:
        # One number, where the pair is two: the mean is twice that of the pair.
        as_pair = run(gdtx.clip_by_norm(1.0), pair)
    else:
        as_pair = run(tx, pair, jnp.array([1.0, 1.0]))
    np.testing.assert_allclose([as_one[0].real, as_one[0].imag], as_pair, rtol=1e-6)


def test_units_have_at_most_five_axes():
    with pytest.raises(ValueError, match=r"adaptive_grad_clip: updates\['k'\] has shape \(2, 2, "):
        run(gdtx.adaptive_grad_clip(0.1), {"k": jnp.ones((2,) * 6)}, {"k": jnp.ones((2,) * 6)})


@pytest.mark.parametrize("tx", [STATELESS[2], STATELESS[5], STATELESS[7]])
def test_links_that_need_parameters_say_so(tx):
    with pytest.raises(ValueError, match=f"{tx.factory.__name__}: needs the parameters"):
        run(tx, jnp.ones(2))


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_centralize_leaves_no_mean(axis):
    updates = draw(0)
    centered = jax.tree.map(np.asarray, run(gdtx.centralize(axis), updates))
    for name, u in jax.tree.map(np.asarray, updates).items():
        if u.ndim < 2 or not u.size:
            chex.assert_trees_all_equal(centered[name], u)
            continue
        others = tuple(i for i in range(u.ndim) if i != axis % u.ndim)
        np.testing.assert_allclose(np.mean(centered[name], axis=others), 0, atol=1e-6)
        spread = u - np.mean(u, axis=others, keepdims=True)
        np.testing.assert_allclose(centered[name], spread, atol=1e-6)
    with pytest.raises(ValueError, match=r"updates\['matrix'\] has shape \(4, 3\), expected one w"):
        run(gdtx.centralize(2), {"matrix": updates["matrix"]})


def test_not_a_number_becomes_zero_and_infinity_stays():
    u = jnp.array([jnp.nan, -jnp.inf, jnp.inf, 2.0])
    np.testing.assert_array_equal(run(gdtx.zero_nans(), u), [0, -np.inf, np.inf, 2])
    bounded = gdtx.chain(gdtx.zero_nans(), gdtx.clip(1.0))
    np.testing.assert_array_equal(run(bounded, u), [0, -1, 1, 1])
    by_norm = gdtx.chain(gdtx.clip_by_global_norm(1.0), gdtx.zero_nans())
    np.testing.assert_array_equal(run(by_norm, u[1:]), [0, 0, 0])
    half = jnp.array([complex(jnp.nan, 1.0), 2.0j])
    np.testing.assert_array_equal(run(gdtx.zero_nans(), half), [0, 2j])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_parameters_stay_nonnegative(dtype):
    rng = np.random.default_rng(0)
    params = jnp.asarray(np.abs(rng.normal(size=1000)), dtype)
    updates = jnp.asarray(rng.normal(size=1000), dtype)
    tx = gdtx.keep_nonnegative()
    after = gdtx.apply_updates(params, run(tx, updates, params))
    assert (after >= 0).all()
    assert (after == 0).any()
    free = gdtx.apply_updates(params, updates)
    np.testing.assert_array_equal(after, jnp.maximum(free, 0))
    assert gdtx.apply_updates(-params, run(tx, -1 - params, -params)).max() == 0


@pytest.mark.parametrize(
    ("tx", "message"),
    [
        (gdtx.keep_nonnegative(), r"keep_nonnegative: updates\['z'\] is complex"),
        (gdtx.additive_ema(0.9), r"additive_ema: updates\['z'\] is complex"),
        (gdtx.rank_one(gdtx.ema(0.9), 1), r"rank_one: updates\['z'\] is complex"),
    ],
)
def test_links_that_order_numbers_refuse_complex_ones(tx, message):
    z = {"a": jnp.ones(2), "z": jnp.ones((2, 2), jnp.complex64)}
    with pytest.raises(TypeError, match=message):
        run(tx, z, z)


# rank_one


def test_matrices_of_rank_one_are_kept_exactly():
    rng = np.random.default_rng(0)
    left, right = rng.uniform(0.1, 10, 5), rng.uniform(0.1, 10, 7)
    tx = gdtx.rank_one(gdtx.ema(0.9), min_dim_size_to_factor=2)
    state = tx.init(jnp.zeros((5, 7)))
    for factor in (1.0, 3.0, 0.5):
        kept, state = tx.update(jnp.asarray(factor * np.outer(left, right), np.float32), state)
    weights = 0.1 * (0.81 + 0.9 * 3.0 + 0.5)
    np.testing.assert_allclose(kept, weights * np.outer(left, right), rtol=1e-5)


def test_margins_are_those_of_the_whole():
    """Of any matrix, what is emitted has its row and column sums; and axes beyond two are apart."""
    x = np.abs(draw(0, {"x": (6, 2, 5)})["x"])
    tx = gdtx.rank_one(gdtx.ema(0.0), min_dim_size_to_factor=5)
    kept = run(tx, x)
    for axis in (0, 2):
        np.testing.assert_allclose(kept.sum(axis), x.sum(axis), rtol=1e-5)
    for i in range(2):
        assert np.linalg.matrix_rank(kept[:, i], tol=1e-4) == 1


def test_state_of_factored_arrays_is_their_rows_and_columns():
    params = {
        "matrix": jnp.zeros((512, 256), jnp.bfloat16), "thin": jnp.zeros((512, 127)),
        "kernel": jnp.zeros((3, 3, 128, 256)), "vector": jnp.zeros(300), "none": None,
    }  # fmt: skip
    tx = gdtx.adafactor(0.1)
    table = gdtx.state_table(tx, params)
    kept = {row.leaf: row.shape for row in table.rows if row.leaf}
    assert kept == {
        "['kernel'].row": (3, 3, 128), "['kernel'].col": (3, 3, 256),
        "['matrix'].row": (256,), "['matrix'].col": (512,),
        "['thin']": (512, 127), "['vector']": (300,),
    }  # fmt: skip
    # In float32, and one count.
    assert table.bytes == 4 * (9 * (128 + 256) + 256 + 512 + 512 * 127 + 300) + 4
    state = tx.init(params)
    assert table.bytes == sum(x.nbytes for x in jax.tree.leaves(state))
    assert gdtx.find(state, "nu")["matrix"].row.shape == (256,)


def test_nothing_to_divide_by():
    tx = gdtx.rank_one(gdtx.ema(0.9), min_dim_size_to_factor=1)
    for shape in ((3, 2), (0, 4)):
        zeros = np.zeros(shape, np.float32)
        kept, slope = jax.jit(lambda u: (run(tx, u), jax.grad(lambda u: run(tx, u).sum())(u)))(
            zeros
        )
        np.testing.assert_array_equal(kept, zeros)
        assert np.isfinite(slope).all()


@pytest.mark.first(1)
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_rows_and_columns_are_sharded_as_the_parameters(axis_type):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(axis_type,) * 2)
    placed = NamedSharding(mesh, PartitionSpec("data", "model"))
    set_mesh = jax.set_mesh if hasattr(jax, "set_mesh") else jax.sharding.use_mesh
    tx = gdtx.adafactor(0.1, min_dim_size_to_factor=4)
    w, g = draw(0, {"w": (8, 6)}), draw(1, {"w": (8, 6)})
    want, _ = tx.update(g, tx.init(w), w)
    with set_mesh(mesh):
        params, gradients = jax.device_put((w, g), placed)
        state = tx.init(params)
        (row,), (col,) = (jax.tree.leaves(x) for x in zip(*_margins(state), strict=True))
        assert (row.shape, col.shape) == ((6,), (8,))
        assert row.sharding.is_equivalent_to(NamedSharding(mesh, PartitionSpec("model")), 1)
        assert col.sharding.is_equivalent_to(NamedSharding(mesh, PartitionSpec("data")), 1)
        born = [x.sharding for x in jax.tree.leaves(state)]
        updates, state = tx.update(gradients, state, params)
        for x, sharding in zip(jax.tree.leaves(state), born, strict=True):
            assert x.sharding.is_equivalent_to(sharding, x.ndim)
        assert updates["w"].sharding.is_equivalent_to(placed, 2)
    chex.assert_trees_all_close(jax.device_get(updates), want, rtol=1e-5)


def _margins(state):
    is_margins = lambda x: isinstance(x, gdtx.Margins)  # noqa: E731
    return [x for x in jax.tree.leaves(state, is_leaf=is_margins) if is_margins(x)]


# What the table of methods does not set


def path(tx, gradients, theta):
    params, state, updates = jnp.asarray(theta), tx.init(jnp.asarray(theta)), []
    update = jax.jit(tx.update)
    for g in gradients:
        u, state = update(jnp.asarray(g), state, params)
        params = gdtx.apply_updates(params, u)
        updates.append(u)
    return np.array(updates)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("signum", {"momentum": None}),
        ("rmsprop", {"centered": True, "initial_scale": 0.5}),
        ("yogi", {"initial_accumulator_value": 0.0, "eps_root": 1e-3, "initial_mean": 0.5}),
        ("adan", {"weight_decay": 0.1, "proximal": False, "ahead": 0.3}),
        ("adafactor", {"learning_rate": None, "factored": False}),
        ("adafactor", {"clipping_threshold": None, "multiply_by_parameter_scale": False,
                       "decay_rate": 0.5, "min_dim_size_to_factor": 3}),
    ],
)  # fmt: skip
def test_other_settings(name, settings, x64):
    rng = np.random.default_rng(0)
    gradients, theta = rng.normal(size=(20, 4, 3)), rng.normal(size=(4, 3))
    settings = {"learning_rate": 0.1, **settings}
    got = path(getattr(gdtx, name)(**settings), gradients, theta)
    want = getattr(oracles, name)(gradients, theta, **settings)
    np.testing.assert_allclose(got, want, rtol=1e-10)


def test_proximal_decay_of_masked_weights():
    """The others are neither decayed nor divided."""
    params = {"w": jnp.array([2.0]), "b": jnp.array([2.0])}
    mask = {"w": True, "b": False}
    gradients = {"w": jnp.array([0.0]), "b": jnp.array([3.0])}
    updates = run(gdtx.adan(1.0, weight_decay=0.25, mask=mask), gradients, params)
    np.testing.assert_allclose(updates["w"], 2 / 1.25 - 2, rtol=1e-6)
    np.testing.assert_allclose(updates["b"], -1.0, rtol=1e-6)


def test_second_moment_of_adafactor_starts_later():
    """A run that goes on after two updates, with the state that they left."""
    gradients = draw(3, {str(t): (3, 2) for t in range(5)})
    whole, rest = gdtx.scale_by_factored_rms(), gdtx.scale_by_factored_rms(step_offset=2)
    state = rest.init(gradients["0"])
    for _ in range(2):  # before it counts, all is forgotten at every step
        _, state = rest.update(gradients["0"], state)
    first, _ = rest.update(gradients["1"], state)
    np.testing.assert_allclose(first, jnp.sign(gradients["1"]), rtol=1e-5)
    np.testing.assert_allclose(run(whole, gradients["1"]), first, rtol=1e-5)


def test_inverse_power_schedule(x64):
    schedule = gdtx.inverse_power_schedule(0.5, 0.8)
    for step in (0, 1, 10, 10_000_000, np.iinfo(np.int32).max):
        np.testing.assert_allclose(schedule(step), 0.5 * (step + 1.0) ** -0.8, rtol=1e-14)
    assert float(gdtx.inverse_power_schedule(0.5, 0.0)(7)) == 0.5
