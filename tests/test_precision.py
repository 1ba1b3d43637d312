"""Half precision trains, float64 neither appears nor gets lost, and norms do not overflow."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everything import METHODS, is_like_another
from everything import by_kind as by_method

import gdtx

HALVES = ("bfloat16", "float16")
SHAPES = {"matrix": (3, 4), "vector": (5,), "scalar": ()}

by_half = pytest.mark.parametrize("half", HALVES)


def make(name):
    return METHODS[name].make(METHODS[name].learning_rate)


def draw(seed, dtype, *batch):
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.normal(size=batch + s), dtype) for k, s in SHAPES.items()}


def dtypes(tree):
    return {str(x.dtype) for x in jax.tree.leaves(tree)}


def tiny(dtype):
    """The distance between numbers near 0, of those that count on every device."""
    return float(jnp.finfo(dtype).smallest_subnormal) if dtype == "float16" else 1e-38


def run(tx, params, gradients):
    """The updates of all steps at fixed parameters, and the last state."""

    def step(state, g):
        updates, state = tx.update(g, state, params)
        return state, updates

    return jax.lax.scan(step, tx.init(params), gradients)[::-1]


@functools.cache
def in_half_and_in_float32(names, half):
    """Updates and last states of methods, each on the same numbers in both, in one program."""
    narrow = draw(0, half), draw(1, half, 50)
    both = narrow, jax.tree.map(lambda x: x.astype("float32"), narrow)
    return jax.jit(lambda: {name: [run(make(name), *each) for each in both] for name in names})()


# Alternately, as each is tried in one of them.
KINDS = [name for name in METHODS if not is_like_another(name)]
OF_HALF = {half: tuple(KINDS[i::2]) for i, half in enumerate(HALVES)}


@pytest.mark.first(1)
@pytest.mark.parametrize(("half", "name"), [(h, name) for h in OF_HALF for name in OF_HALF[h]])
def test_moments_of_half_precision_are_those_of_float32_and_updates_are_rounded_once(half, name):
    """Not nearly: a gradient in half precision is a float32 number, and then so is all else."""
    (updates, state), wide = in_half_and_in_float32(OF_HALF[half], half)[name]
    assert dtypes(updates) == {half}
    assert dtypes(state) <= {"float32", "int32"}
    # The last places may differ between two programs, and then one may round the other way.
    chex.assert_trees_all_close(state, wide[1], rtol=1e-5, atol=1e-30)
    for u, exact in zip(*map(jax.tree.leaves, (updates, wide[0])), strict=True):
        error = np.abs(np.float64(u) - np.float64(exact))
        assert np.all(
            error <= 0.501 * np.maximum(np.abs(exact) * float(jnp.finfo(half).eps), tiny(half))
        )


@by_half
def test_parameters_of_half_precision_stay_so(half):
    assert dtypes(gdtx.apply_updates(draw(0, half), draw(2, "float32"))) == {half}


LINKS_WITH_DTYPE = {
    "trace": lambda dtype: gdtx.trace(0.9, dtype=dtype),
    "nesterov": lambda dtype: gdtx.trace(0.9, nesterov=True, dtype=dtype),
    "ema": lambda dtype: gdtx.ema(0.9, dtype=dtype),
    "additive_ema": lambda dtype: gdtx.chain(gdtx.square(), gdtx.additive_ema(0.9, dtype=dtype)),
    "latest": lambda dtype: gdtx.latest(dtype),
    "running_max": lambda dtype: gdtx.running_max(dtype=dtype),
    "running_sum": lambda dtype: gdtx.running_sum(dtype=dtype),
    "variance": lambda dtype: gdtx.variance(0.9, dtype=dtype),
    "accumulate": lambda dtype: gdtx.accumulate(lambda u, a: u + a, dtype=dtype),
    "recur": lambda dtype: gdtx.recur(lambda u, m: (u, {"m": u}), dtype=dtype, m=0.0),
}


def test_every_link_with_a_dtype_is_tried():
    with_dtype = {
        name
        for name, factory in vars(gdtx).items()
        if "dtype" in getattr(getattr(factory, "__gdtx_signature__", None), "parameters", ())
    }  # fmt: skip
    # Of the first a dtype is what they compute in, of the others what the link in them keeps.
    others = {"Polar", "Roots", "Bases", "difference", "first", "first_moment", "second_moment"}
    others |= {"ema_from_first"}
    assert with_dtype - others == set(LINKS_WITH_DTYPE) - {"nesterov"}


@pytest.mark.parametrize("link", LINKS_WITH_DTYPE)
@pytest.mark.parametrize("params_in", [*HALVES, "float32"])
@pytest.mark.parametrize("kept_in", [*HALVES, "float32"])
@pytest.mark.diagonal
def test_buffers_are_kept_in_the_dtype_asked_for(link, params_in, kept_in):
    tx, params = LINKS_WITH_DTYPE[link](kept_in), draw(0, params_in)
    state = tx.init(params)
    assert dtypes(state) == {kept_in}
    updates, state = tx.update(draw(1, params_in), state, params)
    assert dtypes(state) == {kept_in}
    assert dtypes(updates) == {params_in}


# A gradient of 1000 has no square in float16. Where nothing divides by the gradients, they are
# smaller: RAdam's first steps are plain momentum too.
SCALE = 1000.0
SMALLER = {"sgd", "momentum", "nesterov", "ema_sgd", "ema_sgd corrected"}
SMALLER |= {name for name in METHODS if name.startswith("radam")}
# AdaGrad's steps shrink, and so do SM3's, AdaDelta's start at sqrt(eps), and those of LARS are a
# share of what is left: they are given larger ones.
# With a long memory the variance is small for long.
RATES = {"adagrad": 0.3, "adagrad from 0": 0.3, "adadelta": 3.0, "adadelta with decay": 3.0}
RATES |= {"radam, long memory": 0.05, "sm3": 0.3, "lars, without decay": 0.05}


def train(tx, dtype, steps, scale=SCALE, first=1.0):
    r"""Distance to the minimum of $\frac12 s\,\theta^2$ over the last steps, from 1.

    The minimum is at 0, where numbers are dense in any format: what stalls is not the parameter.
    The first gradient is multiplied by `first`.
    """

    def step(carry, t):
        theta, state = carry
        g = (scale * theta.astype("float32") * jnp.where(t == 0, first, 1.0)).astype(dtype)
        updates, state = tx.update(g, state, theta)
        theta = gdtx.apply_updates(theta, updates)
        return (theta, state), jnp.max(jnp.abs(theta))

    theta = jnp.array([1.0, -0.7, 0.4], dtype)
    distances = jax.jit(lambda: jax.lax.scan(step, (theta, tx.init(theta)), jnp.arange(steps))[1])()
    return float(jnp.max(distances[-steps // 20 :].astype("float32")))


@by_method
@by_half
@pytest.mark.diagonal
def test_training_in_half_precision_does_not_stall(name, half):
    tx = METHODS[name].make(RATES.get(name, METHODS[name].learning_rate))
    scale = 10.0 if name in SMALLER else SCALE
    reached = train(tx, "float32", 1000, scale)
    assert reached < 0.1
    assert train(tx, half, 1000, scale) < 1.5 * reached + 0.01


@pytest.mark.parametrize(
    "name", ["adam", "adam, eps inside", "nadam", "nadam with momentum schedule"]
)
@by_half
def test_second_moments_forget_in_half_precision(name, half):
    """One gradient 60000 times the largest that follows; then 12000 steps with b2 = 0.999.

    In bfloat16, 0.999 v rounds to v: a second moment kept there never forgets the outlier, and the
    steps stay too short. In float16 it is infinite, and they are none.
    """
    tx = METHODS[name].make(0.1)
    reached = train(tx, "float32", 12000, scale=1.0, first=6e4)
    assert reached < 0.1
    assert train(tx, half, 12000, scale=1.0, first=6e4) < 1.5 * reached + 0.01


def as_arrays(tx, dtype):
    """The same transformation, its numbers given as arrays."""
    numbers = {k: jnp.asarray(v, dtype) for k, v in tx.arguments.items() if isinstance(v, float)}
    return tx.replace(**numbers)


def as_schedules(tx, dtype):
    """The same transformation, its numbers given as functions of the step."""
    numbers = {k: v for k, v in tx.arguments.items() if isinstance(v, float)}
    return tx.replace(
        **{k: gdtx.constant_schedule(jnp.asarray(v, dtype)) for k, v in numbers.items()}
    )


GIVEN = {
    "numbers": lambda tx, dtype: tx,
    "arrays": as_arrays,
    "schedules": as_schedules,
}


@by_method
@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize(("tree", "hyper"), [("float32", "float64"), ("float64", "float32")])
@pytest.mark.diagonal
def test_the_tree_decides_the_precision(name, given, tree, hyper, x64):
    """With 64-bit types on, float32 stays what it is, and float64 is not lost."""
    tx, params = GIVEN[given](make(name), hyper), draw(0, tree)
    state = jax.eval_shape(tx.init, params)
    kinds = [str(x.dtype) for x in jax.tree.leaves(state)]
    assert set(kinds) <= {tree, "int32"}
    updates, state = jax.eval_shape(tx.update, params, state, params)
    assert dtypes(updates) == {tree}
    assert [str(x.dtype) for x in jax.tree.leaves(state)] == kinds
    assert dtypes(jax.eval_shape(gdtx.apply_updates, params, updates)) == {tree}


LARGEST = {
    "float16": 6e4,
    "bfloat16": 3e38,
    "float32": 3e38,
    "float64": 1.5e308,
}
# The smallest normal number: those below it count as 0 on some devices.
SMALLEST = {dtype: float(jnp.finfo(dtype).tiny) for dtype in LARGEST}
SIZES = {"largest": LARGEST, "smallest": SMALLEST, "zero": dict.fromkeys(LARGEST, 0.0)}
by_dtype = pytest.mark.parametrize("dtype", LARGEST)
by_size = pytest.mark.parametrize("size", SIZES)


def equal_numbers(dtype, size):
    """Sixteen numbers of one size and both signs, in two leaves, and a leaf without any."""
    value = SIZES[size][dtype]
    return {
        "a": jnp.full((3, 4), value, dtype),
        "b": jnp.full(4, -value, dtype),
        "empty": jnp.zeros((0, 2), dtype),
    }


def exact_norm(updates):
    return 4 * np.longdouble(float(updates["a"][0, 0]))


# XLA may divide by a number by multiplying with its reciprocal, which for a large one is 0. What
# it does depends on what is compiled together, so all that a caller may do is tried.
def by_operation(f):
    def without_jit(updates):
        with jax.disable_jit():
            return f(updates)

    return without_jit


@by_dtype
@by_size
@pytest.mark.parametrize("call", [lambda f: f, jax.jit, by_operation], ids=["eager", "jit", "ops"])
class TestExtremeNumbers:
    @pytest.mark.diagonal
    @pytest.mark.first(2)
    def test_global_norm(self, dtype, size, call, x64):
        updates = equal_numbers(dtype, size)
        norm = call(gdtx.global_norm)(updates)
        wide = "float64" if dtype == "float64" else "float32"
        assert norm.dtype == wide
        expected = min(exact_norm(updates), np.longdouble(float(jnp.finfo(wide).max)))
        np.testing.assert_allclose(float(norm), float(expected), rtol=1e-6)
        for leaf in jax.tree.leaves(call(jax.grad(gdtx.global_norm))(updates)):
            assert jnp.all(jnp.isfinite(leaf))

    @pytest.mark.parametrize("max_norm", [1.0, 1e-30, 1e30])
    @pytest.mark.diagonal
    def test_clip_by_global_norm(self, dtype, size, call, max_norm, x64):
        updates = equal_numbers(dtype, size)
        tx = gdtx.clip_by_global_norm(max_norm)
        clipped = call(lambda u: tx.update(u, ())[0])(updates)
        exact = exact_norm(updates)
        for key, u in updates.items():
            assert clipped[key].dtype == dtype
            wanted = np.asarray(u, np.longdouble) * min(1, max_norm / exact if exact else 1)
            got = np.asarray(clipped[key], np.longdouble)
            is_half = dtype in HALVES
            rtol = 0.51 * float(jnp.finfo(dtype).eps) if is_half else 1e-6
            np.testing.assert_allclose(got, wanted, rtol, atol=tiny(dtype) if is_half else 0)


def test_global_norm_of_mixed_and_of_infinite_numbers():
    mixed = {"f16": jnp.array([6e4], "float16"), "f32": jnp.array([8e4])}
    np.testing.assert_allclose(gdtx.global_norm(mixed), 1e5, rtol=1e-3)
    assert gdtx.global_norm({}) == 0
    assert gdtx.global_norm({"a": jnp.array([jnp.inf, 1.0])}) == jnp.inf
    assert jnp.isnan(gdtx.global_norm({"a": jnp.array([jnp.nan, 1.0])}))
