"""L-BFGS against its formula in NumPy and against Optax; line searches; bounds against SciPy."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from compilations import counted_compilations

import gdtx
from gdtx.states import SearchEnd

SHAPES = {"b": (2,), "s": (), "w": (3, 2)}


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def some(steps, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(steps, *shape)) for name, shape in SHAPES.items()}


def flat(tree):
    """A row of all numbers for each step."""
    return np.concatenate([x.reshape(len(x), -1) for x in tree.values()], axis=1)


@functools.partial(jax.jit, static_argnames="tx")
def _fed(tx, params, gradients):
    def step(state, both):
        updates, state = tx.update(both[1], state, both[0])
        return state, (updates, gdtx.find(state, "pairs"), gdtx.find(state, "skipped"))

    state = tx.init(jax.tree.map(lambda x: x[0], params))
    return jax.lax.scan(step, state, (params, gradients))[1]


def fed(tx, params, gradients):
    """What comes of given parameters and gradients, whatever the update was."""
    return jax.tree.map(np.asarray, _fed(tx, params, gradients))


@functools.partial(jax.jit, static_argnames=("library", "f", "steps", "settings"))
def minimized(library, f, x, steps, settings=()):
    """The path of a loop as Optax's documentation has it, and what the searches say."""
    tx = library.lbfgs(**dict(settings))
    value_and_grad = library.value_and_grad_from_state(f)

    def step(carry, _):
        x, state = carry
        value, grad = value_and_grad(x, state=state)
        updates, state = tx.update(grad, state, x, value=value, grad=grad, value_fn=f)
        facts = gdtx.describe(tx, state) if library is gdtx else {}
        return (library.apply_updates(x, updates), state), (x, value, grad, facts)

    (x, state), history = jax.lax.scan(step, (x, tx.init(x)), None, steps)
    return x, state, history


# The formula


def matrices(params, gradients, memory, scaled):
    """H g with H as the docstring has it, a matrix: for each step, and how many pairs it has."""
    pairs, skipped, last = [], 0, None
    identity = np.eye(params.shape[1])
    for p, g in zip(params, gradients, strict=True):
        if last is not None:
            s, y = p - last[0], g - last[1]
            if s @ y > 2**-52 * np.linalg.norm(s) * np.linalg.norm(y):
                pairs = [*pairs, (s, y)]
            else:
                skipped += 1
                pairs = pairs if s.any() else []
        last = p, g
        scale = min(1, 1 / np.linalg.norm(g)) if scaled else 1
        if pairs and scaled:
            s, y = pairs[-1]
            scale = s @ y / (y @ y)
        h = scale * identity
        for s, y in pairs[-memory:]:
            rho = 1 / (s @ y)
            v = identity - rho * np.outer(y, s)
            h = v.T @ h @ v + rho * np.outer(s, s)
        yield h @ g, len(pairs), skipped


@pytest.mark.parametrize("scaled", [True, False])
def test_it_is_the_matrix_of_its_formula(scaled, x64):
    """On random pairs, of which half have no positive curvature, and on two that are one point."""
    params, gradients = some(60), some(60, seed=1)
    for tree in (params, gradients):
        for x in tree.values():
            x[40] = x[39]
    updates, pairs, skipped = fed(gdtx.scale_by_lbfgs(3, scaled), params, gradients)
    rows = list(matrices(flat(params), flat(gradients), 3, scaled))
    np.testing.assert_allclose(flat(updates), [row[0] for row in rows], rtol=1e-11, atol=1e-13)
    assert pairs.tolist() == [row[1] for row in rows]
    assert skipped.tolist() == [row[2] for row in rows]
    assert pairs[40] == 0
    assert skipped[-1] > 15


def test_steps_are_those_of_optax_at_a_fixed_rate(x64):
    """Where every pair has positive curvature."""

    def f(x):
        return jnp.sum(jnp.logaddexp(0, 3 * x) - x) + jnp.sum(x**2 * jnp.arange(1, 6)) / 20

    def path(library):
        tx = library.scale_by_lbfgs(4)

        def step(carry, _):
            x, state = carry
            updates, state = tx.update(jax.grad(f)(x), state, x)
            return (x - 0.3 * updates, state), x

        x = jnp.linspace(-2.0, 3.0, 5)
        return jax.lax.scan(step, (x, tx.init(x)), None, 25)[1]

    ours, theirs = jax.jit(lambda: (path(gdtx), path(optax)))()
    np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-14)
    assert np.ptp(ours[:, 0]) > 1


@pytest.mark.parametrize("powers", [(0, 60), (55, -50), (-60, -40)])
def test_units_of_parameters_and_gradients_change_no_bit(powers):
    """Though squares of such numbers are not in the range of float32."""
    params, gradients = ({k: x.astype(np.float32) for k, x in some(9, i).items()} for i in (0, 1))
    tx = gdtx.scale_by_lbfgs(3)
    want, pairs, _ = fed(tx, params, gradients)
    has_pairs = pairs > 0
    scaled = [jax.tree.map(lambda x: x * np.float32(2) ** power, tree)  # noqa: B023
              for power, tree in zip(powers, (params, gradients), strict=True)]  # fmt: skip
    got = fed(tx, *scaled)[0]
    for name in SHAPES:
        # Before there are pairs, the step has no units of parameters.
        np.testing.assert_array_equal(
            got[name][has_pairs], want[name][has_pairs] * np.float32(2) ** powers[0]
        )
    assert has_pairs.sum() > 5


def test_complex_parameters_are_pairs_of_real_ones(x64):
    params, gradients = some(12), some(12, seed=1)

    def paired(tree):
        return {"z": tree["w"][..., 0] + 1j * tree["w"][..., 1]}

    tx = gdtx.scale_by_lbfgs(3)
    got = fed(tx, paired(params), paired(gradients))[0]["z"]
    want = fed(tx, {"w": params["w"]}, {"w": gradients["w"]})[0]["w"]
    np.testing.assert_allclose(np.stack([got.real, got.imag], -1), want, rtol=1e-12)


# The searches


def of_parts(z):
    return rosenbrock(jnp.concatenate([z.real, z.imag]))


def test_searches_of_complex_parameters_are_those_of_pairs(x64):
    z = np.asarray(minimized(gdtx, of_parts, jnp.array([-1.2 - 0.5j, 1.0 + 2.0j]), 40)[2][0])
    x = minimized(gdtx, rosenbrock, jnp.array([-1.2, 1.0, -0.5, 2.0]), 40)[2][0]
    np.testing.assert_allclose(np.concatenate([z.real, z.imag], 1), x, rtol=1e-6)


@pytest.mark.first(1)
@pytest.mark.parametrize("name", ["rosenbrock", "beale"])
def test_searches_are_those_of_optax(name, x64):
    """Every step, until both are at the minimum to a millionth."""
    f, start, steps = {
        "rosenbrock": (rosenbrock, [-1.2, 1.0, -0.5, 2.0], 40),
        "beale": (gdtx.explore.beale().fun, [1.0, 1.5], 12),
    }[name]
    start = jnp.array(start)
    _, _, (ours, *_, facts) = minimized(gdtx, f, start, steps)
    _, _, (theirs, *_) = minimized(optax, f, start, steps)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert facts["search_steps"].max() > 1
    assert facts["pairs"].max() == 10
    assert set(facts["search_end"].tolist()) == {SearchEnd.FOUND}


def test_backtracking_is_that_of_optax(x64):
    searches = {
        gdtx: gdtx.backtracking_linesearch(30, decrease_factor=0.5),
        optax: optax.scale_by_backtracking_linesearch(30, decrease_factor=0.5, store_grad=True),
    }
    start = jnp.array([-1.2, 1.0])
    ours, theirs = (
        minimized(library, rosenbrock, start, 25, (("linesearch", search),))[2][0]
        for library, search in searches.items()
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-8)


def test_to_machine_precision_on_rosenbrock(x64):
    x, _, (_, values, _, facts) = minimized(gdtx, rosenbrock, jnp.array([-1.2, 1.0]), 45)
    np.testing.assert_array_equal(x, [1.0, 1.0])
    assert values[36] < 1e-20
    # There is no slope, and nothing is evaluated any more.
    assert facts["search_end"][-1] == SearchEnd.NO_SLOPE
    assert facts["search_steps"][-1] == 0
    assert facts["search_steps"].sum() < 50


def bowl(x):
    hessian = jnp.diag(jnp.array([1.0, 3.0, 9.0, 27.0])) + 0.5
    return x @ hessian @ x / 2 - jnp.sum(x)


def test_a_quadratic_takes_as_many_steps_as_it_has_dimensions(x64):
    """With an exact line search."""
    search = gdtx.zoom_linesearch(
        60, curv_rtol=1e-12, stepsize_precision=0.0, initial_guess_strategy="one"
    )
    _, _, (_, _, grads, _) = minimized(
        gdtx, bowl, jnp.array([5.0, -3.0, 2.0, 1.0]), 6, (("linesearch", search),)
    )
    norms = np.linalg.norm(grads, axis=1)
    assert norms[4] < 1e-9 * norms[0]
    assert norms[3] > 1e-3


def wall(x):
    """Not finite left of 0, and with that near the first steps."""
    return jnp.sum(x - 1e-3 * jnp.log(x))


def test_where_the_function_is_not_finite_the_search_goes_back(x64):
    x, _, (_, values, _, facts) = minimized(gdtx, wall, jnp.array([2.0, 0.5]), 40)
    np.testing.assert_allclose(x, 1e-3, rtol=1e-7)
    assert np.isfinite(values).all()
    assert facts["search_steps"].max() > 2


def test_it_goes_back_by_tenths(x64):
    def f(x):
        return jnp.where(x[0] > 1 - 1e-6, x[0], jnp.nan)

    _, state = one_step(f, jnp.ones(1), gdtx.zoom_linesearch(8))
    assert state.end in (SearchEnd.FOUND, SearchEnd.DECREASE_ONLY)
    assert 1e-8 < state.learning_rate < 1e-6


def one_step(f, x, search, direction=-1.0, **more):
    tx = gdtx.chain(gdtx.scale(direction), search)
    value, grad = jax.value_and_grad(f)(x)
    given = {"value": value, "grad": grad, "value_fn": f} | more
    updates, state = tx.update(given["grad"], tx.init(x), x, **given)
    return updates, state[1]


ZOOM, BACK = gdtx.zoom_linesearch(8), gdtx.backtracking_linesearch(8)


@pytest.mark.parametrize("search", [ZOOM, BACK], ids=["zoom", "backtracking"])
def test_without_a_better_point_there_is_no_step(search):
    x = jnp.array([1.0, 2.0])

    def f(x):
        return jnp.sum(x**2)

    def outcome(f=f, **more):
        updates, state = one_step(f, x, search, **more)
        assert state.value == more.get("value", f(x))
        return updates, SearchEnd(int(state.end))

    still = np.zeros(2)
    updates, end = outcome(direction=1.0)
    np.testing.assert_array_equal(updates, still)
    assert end is SearchEnd.NO_DESCENT
    updates, end = outcome(grad=jnp.zeros(2))
    np.testing.assert_array_equal(updates, still)
    assert end is SearchEnd.NO_SLOPE
    # A wrong gradient: the function grows in its direction.
    updates, end = outcome(grad=-2 * x)
    np.testing.assert_array_equal(updates, still)
    assert end is SearchEnd.NO_DECREASE
    updates, state = one_step(f, x, search, value=jnp.array(jnp.nan))
    np.testing.assert_array_equal(updates, still)
    assert state.end == SearchEnd.NOT_FINITE
    updates, state = one_step(f, x, search, grad=jnp.array([1.0, jnp.nan]))
    assert np.isnan(updates[1])


def test_ends_that_are_steps():
    def steep(x):
        return jnp.sum(x)

    x = jnp.array([1.0, 2.0])
    _, state = one_step(steep, x, gdtx.zoom_linesearch(5))
    assert (state.end, state.num_linesearch_steps) == (SearchEnd.DECREASE_ONLY, 5)
    updates, state = one_step(steep, x, gdtx.zoom_linesearch(9, max_learning_rate=3.0))
    assert state.end == SearchEnd.LARGEST_STEP
    np.testing.assert_array_equal(updates, [-3.0, -3.0])
    assert (state.decrease_error, state.curvature_error > 0) == (0, True)
    assert str(SearchEnd.LARGEST_STEP) == "largest step"


def test_in_float32_slopes_decide_where_values_are_rounded():
    """The values of points near the minimum are one number."""

    def f(x):
        return 1000 + jnp.sum((x - 1) ** 2 * jnp.array([1.0, 10.0]))

    x, _, (*_, facts) = minimized(gdtx, f, jnp.array([3.0, 3.0]), 12)
    np.testing.assert_allclose(x, 1, rtol=1e-6)
    assert set(facts["search_end"].tolist()) <= {SearchEnd.FOUND, SearchEnd.NO_SLOPE}
    strict = (("linesearch", gdtx.zoom_linesearch(20, approx_dec_rtol=None)),)
    *_, facts = minimized(gdtx, f, jnp.array([3.0, 3.0]), 12, strict)[2]
    assert SearchEnd.NO_DECREASE in facts["search_end"].tolist()


@pytest.mark.first(1)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_small_regression(dtype, x64):
    """To the minimum that SciPy finds; in bfloat16 as near as its numbers are."""
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(40, 3)), rng.integers(0, 2, 40) * 2.0 - 1

    def loss(w, inputs=inputs):
        wide = w.astype(jnp.promote_types(w.dtype, jnp.float32))
        x = jnp.asarray(inputs, wide.dtype)
        return jnp.mean(jnp.logaddexp(0, -labels.astype(x.dtype) * (x @ wide))) + 0.05 * wide @ wide

    best = scipy.optimize.minimize(
        jax.jit(jax.value_and_grad(loss)), np.zeros(3), jac=True, tol=1e-12
    )
    w, state, _ = minimized(gdtx, loss, jnp.zeros(3, dtype), 12)
    assert w.dtype == dtype
    near = {"float32": 1e-4, "bfloat16": 0.02}[dtype]
    np.testing.assert_allclose(w.astype(float), best.x, atol=near)
    # The value of the state is that of the parameters as they are, rounded.
    np.testing.assert_allclose(state[2].value, loss(w), rtol=1e-5)


# Around it


def test_a_loop_of_optax_as_it_is(x64):
    """Its own `value_and_grad_from_state` reads the state, and so does `optax.tree.get`."""
    x, tx = jnp.array([-1.2, 1.0]), gdtx.lbfgs()
    state, calls = tx.init(x), []

    def f(x, scale):
        jax.debug.callback(lambda: calls.append(1))
        return rosenbrock(x) * scale

    for library in (optax, gdtx):
        value_and_grad = library.value_and_grad_from_state(f)
        value, grad = value_and_grad(x, 2.0, state=state)
        updates, state = tx.update(
            grad, state, x, value=value, grad=grad, value_fn=f, scale=2.0, of_nobody=1
        )
        x = optax.apply_updates(x, updates)
        jax.effects_barrier()
        np.testing.assert_allclose(optax.tree.get(state, "value"), f(x, 2.0), rtol=1e-14)
        calls.clear()
    value, grad = gdtx.value_and_grad_from_state(f)(x, 2.0, state=state)
    jax.effects_barrier()
    assert not calls
    np.testing.assert_allclose(grad, jax.grad(f)(x, 2.0), rtol=1e-12)
    with pytest.raises(ValueError, match="that of one line search"):
        gdtx.value_and_grad_from_state(f)(x, 2.0, state=gdtx.adam(0.1).init(x))


def test_new_data_compile_nothing_and_a_batch_is_one_program():
    tx = gdtx.lbfgs(memory_size=3)

    def step(x, state, target):
        def f(x):
            return jnp.sum((x - target) ** 4)

        value, grad = jax.value_and_grad(f)(x)
        updates, state = tx.update(grad, state, x, value=value, grad=grad, value_fn=f)
        return x + updates, state

    batched, x = jax.jit(jax.vmap(step)), jnp.ones((2, 3))
    state = jax.vmap(tx.init)(x)
    targets = np.float32([[3.0, 1.0, 2.0], [0.0, 0.1, 0.2]])
    first, _ = batched(x, state, targets)
    with counted_compilations() as compilations:
        other, _ = batched(x, state, targets[::-1])
    assert not compilations
    np.testing.assert_allclose(np.asarray(other)[::-1], first, rtol=1e-6)


def test_what_is_asked_for():
    x = jnp.ones(2)
    tx = gdtx.lbfgs()
    with pytest.raises(TypeError, match="zoom_linesearch: needs the extra argument 'value'"):
        tx.update(x, tx.init(x), x)
    given = {"value": 1.0, "grad": x}
    with pytest.raises(TypeError, match="value_fn must be a function of the parameters, got 'f'"):
        tx.update(x, tx.init(x), x, value_fn="f", **given)
    with pytest.raises(TypeError, match="value_fn must return a real scalar, got an array of sh"):
        tx.update(x, tx.init(x), x, value_fn=lambda x: x, **given)
    with pytest.raises(ValueError, match="needs the parameters"):
        tx.update(x, tx.init(x), value_fn=jnp.sum, **given)
    with pytest.raises(TypeError, match=r"lbfgs: with project, linesearch must take it too"):
        gdtx.lbfgs(linesearch=gdtx.scale(1.0), project=jnp.abs)
    with pytest.raises(ValueError, match=r"expected 3 differences of shape \(2,\)"):
        gdtx.scale_by_lbfgs(3).update(x, gdtx.scale_by_lbfgs(4).init(x), x)


def test_some_of_the_parameters(x64):
    """A mask gives the function of the parameters that are trained."""

    def f(params):
        return rosenbrock(jnp.concatenate([params["fixed"], params["free"]]))

    def alone(free):
        return f({"fixed": jnp.array([0.5]), "free": free})

    @functools.partial(jax.jit, static_argnames=("tx", "f"))
    def last(tx, f, params):
        def step(carry, _):
            params, state = carry
            value, grad = jax.value_and_grad(f)(params)
            updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=f)
            return (gdtx.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), None, 8)[0][0]

    params = {"fixed": jnp.array([0.5]), "free": jnp.array([2.0, -1.0])}
    want = last(gdtx.lbfgs(), alone, params["free"])
    for tx in (gdtx.freeze(gdtx.lbfgs(), ["fixed"]), gdtx.partition(
        {"on": gdtx.lbfgs(), "off": gdtx.set_to_zero()}, {"fixed": "off", "free": "on"}
    )):  # fmt: skip
        got = last(tx, f, params)
        np.testing.assert_allclose(got["free"], want, rtol=1e-12)
        np.testing.assert_array_equal(got["fixed"], 0.5)


def test_minimize_takes_it(x64):
    result = gdtx.explore.minimize(rosenbrock, jnp.array([-1.2, 1.0]), gdtx.lbfgs(), 60,
                                   tolerance=1e-10)  # fmt: skip
    assert result.steps < 40
    np.testing.assert_allclose(result.params, 1, rtol=1e-10)


@pytest.mark.first(1)
@pytest.mark.parametrize("kind", ["Explicit", "Auto"])
def test_on_eight_devices_it_is_the_same(kind):
    """State lies where the parameters do, and stays there."""
    mesh = jax.make_mesh((8,), ("d",), axis_types=(getattr(jax.sharding.AxisType, kind),))
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("d"))
    target, tx = jnp.linspace(-1, 1, 16), gdtx.lbfgs(memory_size=2)

    def f(x):
        return jnp.sum((x**2 - jnp.sin(x)) * 3 + (x - 0.3) ** 4)

    @jax.jit
    def step(x, state):
        value, grad = jax.value_and_grad(f)(x)
        updates, state = tx.update(grad, state, x, value=value, grad=grad, value_fn=f)
        return gdtx.apply_updates(x, updates), state

    def run(x):
        state = tx.init(x)
        before = jax.tree.map(lambda x: x.sharding, state)
        for _ in range(3):
            x, state = step(x, state)
        return x, before, jax.tree.map(lambda x: x.sharding, state), state

    set_mesh = jax.set_mesh if hasattr(jax, "set_mesh") else jax.sharding.use_mesh
    with set_mesh(mesh) if kind == "Explicit" else contextlib.nullcontext():
        x, before, after, state = run(jax.device_put(target, where))
        assert gdtx.find(state, "diff_params_memory").sharding.spec[1] == "d"
    same = jax.tree.map(lambda a, b, x: a.is_equivalent_to(b, x.ndim), before, after, state)
    assert all(jax.tree.leaves(same))
    np.testing.assert_allclose(x, run(target)[0], rtol=1e-5)


# Bounds


def chained(x):
    return rosenbrock(x) + 0.1 * jnp.sum(x)


MATRIX = np.random.default_rng(1).normal(size=(12, 12))
TARGET = 5 * np.random.default_rng(2).normal(size=12)


def programme(x):
    return jnp.sum((MATRIX.T @ x) ** 2) / 2 + 0.005 * x @ x - TARGET @ x


def far(x):
    return jnp.sum((x - jnp.array([1.0, 0.0, -3.0])) ** 2) + x[0] * x[1]


BOXES = {
    "rosenbrock, above": (rosenbrock, [-1.2, 1.0], -2.0, np.array([0.5, 2.0])),
    "a quadratic": (programme, np.linspace(-1, 1, 12), -1.0, 1.0),
    "rosenbrock, below": (rosenbrock, [-1.2, 2.0], np.array([-2.0, 1.5]), 2.0),
    "a chain": (chained, [-1.2, 1.0] * 5, -2.0, np.array([0.8] * 3 + [2.0] * 7)),
    "least at a corner": (far, [0.5] * 3, 0.0, 1.0),
    "no bound is met": (far, [0.5] * 3, -9.0, 9.0),
}


@pytest.mark.first(2)
@pytest.mark.parametrize("name", BOXES)
def test_between_bounds_it_ends_where_scipy_does(name, x64):
    f, start, low, high = BOXES[name]
    start = np.clip(start, low, high)

    def project(x):
        return jnp.clip(x, low, high)

    x, _, (path, *_) = minimized(gdtx, f, jnp.asarray(start), 70, (("project", project),))
    bounds = list(zip(*np.broadcast_arrays(low + 0 * start, high + 0 * start), strict=True))
    best = scipy.optimize.minimize(
        jax.jit(jax.value_and_grad(f)), start, jac=True, method="L-BFGS-B", bounds=bounds,
        options={"ftol": 0, "gtol": 1e-11, "maxiter": 500},
    )  # fmt: skip
    np.testing.assert_allclose(x, best.x, rtol=0, atol=1e-6)
    np.testing.assert_allclose(f(x), f(best.x), rtol=1e-12)
    left = np.abs(project(x - jax.grad(f)(x)) - x).max()
    assert left < 1e-9
    ulp, path = 4 * np.finfo(float).eps, np.asarray(path)
    assert (path >= np.asarray(low) - ulp).all()
    assert (path <= np.asarray(high) + ulp).all()


@pytest.mark.parametrize("search", [ZOOM, BACK], ids=["zoom", "backtracking"])
def test_from_beyond_the_bounds_it_goes_to_them(search, x64):
    """Though the function is less at the start; its value at the bounds is not known then."""
    x, tx = jnp.array([0.5]), search.replace(project=lambda x: jnp.clip(x, 1.0, 2.0))
    updates, state = one_step(lambda x: jnp.sum(x**2), x, tx)
    np.testing.assert_array_equal(updates, [0.5])
    assert (state.learning_rate, state.value) == (0, np.inf)


def test_backtracking_between_bounds(x64):
    def project(x):
        return jnp.clip(x, -1.0, 0.5)

    search = gdtx.backtracking_linesearch(30, decrease_factor=0.5)
    settings = (("linesearch", search), ("project", project))
    x, *_ = minimized(gdtx, rosenbrock, jnp.array([-0.9, 0.4]), 40, settings)
    np.testing.assert_allclose(x, [0.5, 0.25], rtol=1e-9)
