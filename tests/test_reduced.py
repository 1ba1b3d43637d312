"""Statistics of something smaller than an array, in NumPy, in bytes, and on eight devices."""

import contextlib
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import counted_compilations
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gdtx

SHAPES = {"k": (4, 3, 2), "w": (8, 4), "v": (6,), "s": (), "e": (0, 2)}


def draw(seed):
    rng = np.random.default_rng(seed)
    return {key: rng.normal(size=shape) for key, shape in SHAPES.items()}


def run(tx, params, gradients):
    """All updates, in one loop."""

    def step(state, g):
        updates, state = tx.update(g, state, params)
        return state, updates

    return jax.lax.scan(step, tx.init(params), gradients)[1]


def identity(u):
    return u


def largest(u):
    return jnp.max(u, initial=-jnp.inf)


def blocks(u):
    """The mean of every two rows."""
    return u.reshape(u.shape[0] // 2, 2, *u.shape[1:]).mean(1) if u.ndim > 1 else u


average = gdtx.chain(gdtx.ema(0.9), gdtx.bias_correction(0.9))
past = gdtx.previous(gdtx.ema(0.9))
total = gdtx.elementwise(lambda u: jnp.broadcast_to(jnp.sum(u), u.shape))

# The same, bit for bit unless a tolerance stands behind it.
LAWS = {
    "of all there is": (gdtx.reduced(average, identity), average),
    "over no axes": (gdtx.reduced(average, ()), average),
    "without a statistic": (gdtx.reduced(gdtx.identity(), jnp.sum), total),
    "of what does not remember, of what is alike": (
        gdtx.chain(total, gdtx.reduced(average, largest)), gdtx.chain(total, average)),
    "one after the other": (
        gdtx.reduced(gdtx.chain(gdtx.ema(0.9), gdtx.square()), -1),
        gdtx.chain(gdtx.reduced(gdtx.ema(0.9), -1), gdtx.square())),
    "linear ones, before or after": (
        gdtx.reduced(gdtx.ema(0.9), jnp.sum), gdtx.chain(gdtx.ema(0.9), total), {"rtol": 1e-12}),
    "what it was before, inside or around": (
        gdtx.reduced(past, blocks), gdtx.previous(gdtx.reduced(gdtx.ema(0.9), blocks))),
    "of the whole, inside or around": (
        gdtx.reduced(past, gdtx.global_norm, whole=True),
        gdtx.previous(gdtx.reduced(gdtx.ema(0.9), gdtx.global_norm, whole=True))),
    "the norm of the whole": (
        gdtx.chain(gdtx.join(gdtx.divide, u=gdtx.identity(), n=gdtx.reduced(
            gdtx.identity(), gdtx.global_norm, whole=True))),
        gdtx.normalize_by_global_norm(), {"rtol": 1e-12}),
}  # fmt: skip


def steps(count=4):
    each = [draw(1 + t) for t in range(count)]
    return jax.tree.map(lambda *g: np.stack(g), *each)


@functools.cache
def laws():
    program = jax.jit(lambda p, g: {name: [run(tx, p, g) for tx in law[:2]]
                                    for name, law in LAWS.items()})  # fmt: skip
    return jax.tree.map(np.asarray, program(draw(0), steps()))


@pytest.mark.parametrize("law", LAWS)
def test_law(law, x64):
    one, other = laws()[law]
    tolerance = LAWS[law][2:] or ({"rtol": 0},)
    chex.assert_trees_all_close(one, other, **tolerance[0])


def moments(squares, decay):
    """Averages of a column of NumPy."""
    v = np.zeros_like(squares[0])
    for square in squares:
        v = decay * v + (1 - decay) * square
        yield v


def from_start():
    return gdtx.recur(
        lambda u, start, params: (params - start, {"start": start}), start=lambda p: p
    )


# What the statistics of these papers keep: by name the expression, its numbers of state beside
# those of another link, and what it emits for gradients of a matrix, in NumPy.
PAPERS = {
    "NorMuon, of rows": (
        gdtx.chain(gdtx.square(), gdtx.reduced(gdtx.ema(0.95), -1)),
        8,
        lambda g: [np.broadcast_to(v, (8, 4))
                   for v in moments((g**2).mean(-1, keepdims=True), 0.95)],
    ),
    "NovoGrad, of an array": (
        gdtx.chain(gdtx.square(), gdtx.reduced(gdtx.ema(0.95), jnp.sum)),
        1,
        lambda g: [np.full((8, 4), v) for v in moments((g**2).sum((1, 2)), 0.95)],
    ),
    "Adam-mini, of blocks of rows": (
        gdtx.chain(gdtx.square(), gdtx.reduced(
            gdtx.ema(0.95), lambda u: u.reshape(4, -1).mean(1)[:, None])),
        4,
        lambda g: [np.broadcast_to(np.repeat(v, 2)[:, None], (8, 4))
                   for v in moments((g**2).reshape(len(g), 4, -1).mean(-1), 0.95)],
    ),
    "ZClip, of the tree": (
        gdtx.reduced(gdtx.ema(0.97), gdtx.global_norm, whole=True),
        1,
        lambda g: [np.full((8, 4), v) for v in moments(np.sqrt((g**2).sum((1, 2))), 0.97)],
    ),
    "DoG, of sums of squares": (
        gdtx.reduced(gdtx.chain(gdtx.square(), gdtx.running_sum()), gdtx.global_norm, whole=True),
        1,
        lambda g: [np.full((8, 4), v) for v in np.cumsum((g**2).sum((1, 2)))],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PAPERS)
def test_statistics_of_papers(name, x64):
    tx, numbers, oracle = PAPERS[name]
    params = np.zeros((8, 4))
    assert sum(x.size for x in jax.tree.leaves(jax.eval_shape(tx.init, params))) == numbers
    g = np.random.default_rng(3).normal(size=(6, 8, 4))
    np.testing.assert_allclose(run(tx, params, g), np.stack(oracle(g)), rtol=1e-13)


def test_distance_from_the_start(x64):
    """DoG's numerator: a copy of the parameters and one number."""
    tx = gdtx.chain(from_start(), gdtx.reduced(gdtx.running_max(), gdtx.global_norm, whole=True))
    start = draw(0)
    state = tx.init(start)
    assert sum(x.size for x in jax.tree.leaves(state)) == sum(p.size for p in start.values()) + 1
    largest = 0
    for factor in (0.0, 1.0, 0.5, 2.0):
        moved = {key: p + factor for key, p in start.items()}
        u, state = tx.update(start, state, moved)
        distance = factor * np.sqrt(sum(p.size for p in start.values()))
        largest = max(largest, distance)
        np.testing.assert_allclose(u["k"], largest, rtol=1e-12)
    lines = gdtx.latex(tx).splitlines()
    norm = r"\left\| \theta_{t-1} - \theta_0 \right\|"
    assert rf"a_t &= \max\left( a_{{t-1}}, {norm} \right) \\" in lines


def test_what_is_reduced_has_its_name_in_formulas():
    def last(*args, **options):
        return gdtx.latex(gdtx.reduced(gdtx.scale(2.0), *args, **options)).splitlines()[-2]

    assert last(-1) == r"u_t &= 2 \operatorname{mean}_{-1}\left( g_t \right)"
    assert last((0, 1)) == r"u_t &= 2 \operatorname{mean}_{0,1}\left( g_t \right)"
    assert last(()) == last(identity) == r"u_t &= 2 g_t"
    assert last(jnp.sum) == r"u_t &= 2 \operatorname{sum}\left( g_t \right)"
    assert last(largest) == r"u_t &= 2 \operatorname{largest}\left( g_t \right)"
    assert last(gdtx.global_norm, whole=True) == r"u_t &= 2 \left\| g_t \right\|"


def test_what_is_not_smaller_is_refused_by_leaf():
    params = {"w": jnp.ones((4, 3))}

    def init(*args, **options):
        return gdtx.reduced(gdtx.ema(0.9), *args, **options).init(params)

    with pytest.raises(ValueError, match=r"updates\['w'\] has shape \(4, 3\), expected one with"):
        init(2)
    for wrong in (lambda u: u[:3], lambda u: u[0], lambda u: jnp.ones((4, 6)), lambda u: None):
        with pytest.raises(ValueError, match=r"\['w'\] has shape \(4, 3\), reduce must return"):
            init(wrong)
    with pytest.raises(ValueError, match="reduced: reduce must return a single real number, got"):
        init(lambda u: u["w"], whole=True)
    for wrong in ("x", True, (0, 1.0), [0]):
        with pytest.raises(TypeError, match="reduced: reduce must be a function of one array, an"):
            init(wrong)
    with pytest.raises(TypeError, match="with whole, reduce must be a function of a tree, got 0"):
        init(0, whole=True)
    with pytest.raises(TypeError, match="reduce must be a function of one array, got the func"):
        init(lambda u, v: u)


def test_means_are_finite_where_sums_are_not():
    u = jnp.full((4, 3), 3e38)
    got = gdtx.reduced(gdtx.identity(), -1).update(u, ())[0]
    np.testing.assert_allclose(got, u, rtol=1e-6)


def test_complex_means_are_those_of_both_parts():
    u = jnp.array([[1 + 2j, 3 - 4j]])
    tx = gdtx.reduced(gdtx.ema(0.5), -1)
    state = tx.init(u)
    np.testing.assert_array_equal(tx.update(u, state)[0], np.full((1, 2), 1 - 0.5j))
    updates, new = gdtx.chain(gdtx.square(), tx).update(u, ((), state))
    np.testing.assert_array_equal(updates, np.full((1, 2), 7.5))
    chex.assert_trees_all_equal_shapes_and_dtypes(new[1], state)


SPECS = {"w": PartitionSpec("data", "model"), "v": PartitionSpec("model"), "s": PartitionSpec()}
PLAIN = {key: p.astype("float32") for key, p in draw(0).items() if key in SPECS}
# Of what is left of an array: the axes that stay keep their cuts.
PLACED = {
    "rows": (gdtx.reduced(gdtx.ema(0.9), -1),
             {"w": PartitionSpec("data"), "v": PartitionSpec(), "s": PartitionSpec()}),
    "columns": (gdtx.masked(gdtx.reduced(gdtx.ema(0.9), -2), ["w"]),
                {"w": PartitionSpec(None, "model")}),
    "blocks": (gdtx.masked(gdtx.reduced(gdtx.ema(0.9), blocks), ["s"]), {"s": PartitionSpec()}),
    "array": (gdtx.reduced(gdtx.ema(0.9), jnp.max), dict.fromkeys(SPECS, PartitionSpec())),
    "tree": (gdtx.reduced(gdtx.ema(0.9), gdtx.global_norm, whole=True), PartitionSpec()),
}  # fmt: skip


@functools.cache
def plain_updates(name):
    """The second updates on one device."""
    tx, params = PLACED[name][0], PLAIN
    return tx.update(params, tx.update(params, tx.init(params))[1])[0]


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("name", PLACED)
def test_state_is_cut_as_what_is_left(name, axis_type):
    tx, specs = PLACED[name]
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(axis_type, axis_type))
    set_mesh = jax.set_mesh if hasattr(jax, "set_mesh") else jax.sharding.use_mesh
    entered = set_mesh(mesh) if axis_type == AxisType.Explicit else contextlib.nullcontext()
    want = plain_updates(name)
    with entered:
        params = jax.device_put(
            PLAIN, {key: NamedSharding(mesh, spec) for key, spec in SPECS.items()}
        )
        state = tx.init(params)
        where = jax.tree.map(lambda x: (x.sharding, x.dtype, x.weak_type), state)
        for x, spec in zip(jax.tree.leaves(state), jax.tree.leaves(specs), strict=True):
            assert x.sharding.is_equivalent_to(NamedSharding(mesh, spec), x.ndim)
        with counted_compilations() as compilations:
            for _ in range(2):
                updates, state = tx.update(params, state, params)
                assert jax.tree.map(lambda x: (x.sharding, x.dtype, x.weak_type), state) == where
        assert len(compilations) <= 1
        assert all(u.sharding == params[key].sharding for key, u in updates.items())
    chex.assert_trees_all_close(updates, want, rtol=1e-6)
