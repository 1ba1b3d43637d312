"""gdtx inside Optax and the programs made for it, unchanged, and Optax inside gdtx.

Twenty steps of one regression. Whoever runs the loop, every step ends where the plain gdtx loop's
does, and where Optax's own method's does. In float64, because Optax's bias correction has lost
four of float32's seven digits on the first step.
"""

import copy
import functools
import pickle
import warnings

import chex
import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gdtx

optax = pytest.importorskip("optax", reason="Optax is installed by the extra 'test'")

pytestmark = pytest.mark.usefixtures("x64")

STEPS = 20
RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 3))
Y = X @ RNG.normal(size=(3, 2)) + 0.5
PARAMS = {"w": RNG.normal(size=(3, 2)), "b": np.zeros(2)}
ONLY_W, ONLY_B = {"w": True, "b": False}, {"w": False, "b": True}

# Ours, and theirs with the same rule. Their schedules are float32: exact are quarters over 32.
PAIRS = {
    "adam": (gdtx.adam(0.1), optax.adam(0.1)),
    "adamw": (gdtx.adamw(0.1, weight_decay=0.1), optax.adamw(0.1, weight_decay=0.1)),
    "momentum": (gdtx.sgd(0.05, momentum=0.9), optax.sgd(0.05, momentum=0.9)),
    "scheduled": (
        gdtx.adam(gdtx.linear_schedule(0.25, 0.0, 32)),
        optax.adam(optax.linear_schedule(0.25, 0.0, 32)),
    ),
    "array": (gdtx.adam(np.array(0.1), b1=np.array(0.8)), optax.adam(0.1, b1=0.8)),
}
by_pair = pytest.mark.parametrize(("ours", "theirs"), PAIRS.values(), ids=PAIRS)
# Enough where programs hold a transformation like any other: one with a count, one with leaves.
by_kind = pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        pytest.param(*pair, marks=() if name in ("scheduled", "array") else pytest.mark.slow)
        for name, pair in PAIRS.items()
    ],
    ids=PAIRS,
)


def predict(params, x):
    return x @ params["w"] + params["b"][None]


def loss(params, x=X, y=Y):
    return jnp.mean((predict(params, x) - y) ** 2)


def train(
    tx,
    apply_updates=gdtx.apply_updates,
    scales=(1.0,) * STEPS,
    params=PARAMS,
    state=None,
    **extra_args,
):
    """The plain loop: the parameters after each step, and the last state."""

    @jax.jit
    def step(params, state, scale):
        gradient = jax.tree.map(lambda g: g * scale, jax.grad(loss)(params))
        updates, state = tx.update(gradient, state, params, **extra_args)
        return apply_updates(params, updates), state

    params = jax.tree.map(jnp.asarray, params)
    state, path = tx.init(params) if state is None else state, []
    for scale in scales:
        params, state = step(params, state, scale)
        path.append(params)
    return path, state


@functools.cache
def begun(theirs):
    """A training of theirs: its path, and the state after five steps."""
    first, state = train(theirs, optax.apply_updates, scales=(1.0,) * 5)
    rest, _ = train(
        theirs, optax.apply_updates, scales=(1.0,) * (STEPS - 5), params=first[-1], state=state
    )
    return first + rest, state


def reference(theirs):
    return begun(theirs)[0]


@functools.cache
def pure_path(ours):
    return train(ours)[0]


def assert_same(path, expected):
    chex.assert_trees_all_close(path, expected, rtol=1e-9, atol=1e-12)
    assert loss(path[-1]) < 0.7 * loss(PARAMS)


@pytest.mark.slow
@by_kind
def test_plain_jax(ours, theirs):
    path, state = train(ours)
    assert_same(path, reference(theirs))

    def step(carry, _):
        params, state = carry
        updates, state = ours.update(jax.grad(loss)(params), state, params)
        params = gdtx.apply_updates(params, updates)
        return (params, state), params

    start = (PARAMS, ours.init(PARAMS))
    (_, last), scanned = jax.lax.scan(step, jax.tree.map(jnp.asarray, start), length=STEPS)
    assert_same([jax.tree.map(lambda x, t=t: x[t], scanned) for t in range(STEPS)], path)
    chex.assert_trees_all_close(last, state, rtol=1e-9)

    params, state, gradient = PARAMS, ours.init(PARAMS), jax.jit(jax.grad(loss))
    for _ in range(STEPS):
        updates, state = ours.update(gradient(params), state, params)
        params = gdtx.apply_updates(params, updates)
    assert_same([params], path[-1:])


# How Optax wraps a transformation, theirs or ours.
WRAPPERS = {
    "chain": lambda tx: optax.chain(optax.clip_by_global_norm(0.5), tx, optax.scale(0.5)),
    "nested chain": lambda tx: optax.chain(optax.chain(tx), optax.identity()),
    "masked": lambda tx: optax.chain(
        optax.masked(tx, ONLY_W), optax.masked(optax.set_to_zero(), ONLY_B)
    ),
    "partition": lambda tx: optax.partition(
        {"ours": tx, "sgd": optax.sgd(0.1)}, {"w": "ours", "b": "sgd"}
    ),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, every_k_schedule=2),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, max_consecutive_errors=3),
    "flatten": optax.flatten,
    "conditionally_mask": lambda tx: optax.conditionally_mask(tx, lambda step: step % 2 == 0),
}


@by_pair
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.diagonal
def test_in_optax(ours, theirs, wrapper):
    wrap = WRAPPERS[wrapper]
    assert_same(
        train(wrap(ours), optax.apply_updates)[0], train(wrap(theirs), optax.apply_updates)[0]
    )


@by_kind
def test_optax_skips_what_is_not_finite(ours, theirs):
    def run(tx):
        path, state = train(optax.apply_if_finite(tx, 3), scales=[1.0, np.nan] + [1.0] * STEPS)
        assert state.total_notfinite == 1
        return path

    assert_same(run(ours), run(theirs))


def test_optax_injects_hyperparameters():
    """It calls the factory with arrays and finds its arguments in the signature."""
    tx = optax.inject_hyperparams(gdtx.adam)(learning_rate=0.1)
    path, state = train(tx)
    assert_same(path, pure_path(PAIRS["adam"][0]))
    np.testing.assert_allclose(state.hyperparams["learning_rate"], 0.1)
    tx = optax.inject_hyperparams(gdtx.sgd)(gdtx.linear_schedule(0.1, 0.0, 10), momentum=0.5)
    _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    _, state = tx.update(PARAMS, state, PARAMS)
    np.testing.assert_allclose(state.hyperparams["learning_rate"], 0.09)


@by_kind
def test_optax_looks_ahead(ours, theirs):
    """It keeps two copies of the parameters, and gives the fast one to the transformation."""

    def run(tx):
        tx = optax.lookahead(tx, sync_period=4, slow_step_size=0.5)

        @jax.jit
        def step(params, state):
            updates, state = tx.update(jax.grad(loss)(params.fast), state, params)
            return optax.apply_updates(params, updates), state

        params = optax.LookaheadParams.init_synced(jax.tree.map(jnp.asarray, PARAMS))
        state, path = tx.init(params), []
        for _ in range(STEPS):
            params, state = step(params, state)
            path.append(params.slow)
        return path

    assert_same(run(ours), run(theirs))


SCHEDULES = {
    "theirs in ours": lambda: gdtx.adam(optax.linear_schedule(0.25, 0.0, 32)),
    "ours in theirs": lambda: optax.adam(gdtx.linear_schedule(0.25, 0.0, 32)),
}


@pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES)
def test_schedules_are_exchanged(make):
    assert_same(train(make())[0], pure_path(PAIRS["scheduled"][0]))


# Optax's transformations among ours, and the same without Optax.
MIXTURES = {
    "chain": (
        gdtx.chain(optax.clip_by_global_norm(0.5), optax.scale_by_adam(), gdtx.scale(-0.1)),
        gdtx.chain(gdtx.clip_by_global_norm(0.5), gdtx.adam(0.1)),
    ),
    "chain with decay": (
        gdtx.chain(gdtx.scale_by_adam(), optax.add_decayed_weights(0.1), optax.scale(-0.1)),
        gdtx.adamw(0.1, weight_decay=0.1),
    ),
    "join": (
        gdtx.join(gdtx.plus, adam=optax.adam(0.05), momentum=gdtx.sgd(0.01, 0.9)),
        gdtx.join(gdtx.plus, adam=gdtx.adam(0.05), momentum=gdtx.sgd(0.01, 0.9)),
    ),
    "masked": (
        gdtx.chain(gdtx.masked(optax.adamw(0.1), ONLY_W), gdtx.masked(optax.sgd(0.1), ONLY_B)),
        gdtx.chain(gdtx.masked(gdtx.adamw(0.1), ONLY_W), gdtx.masked(gdtx.sgd(0.1), ONLY_B)),
    ),
    "both ways": (
        optax.chain(gdtx.chain(optax.chain(gdtx.scale_by_adam())), optax.scale(-0.1)),
        gdtx.adam(0.1),
    ),
    "by its pair": (gdtx.GradientTransformation(*optax.adam(0.1)), gdtx.adam(0.1)),
    "from our pair": (optax.GradientTransformation(*gdtx.adam(0.1)), gdtx.adam(0.1)),
}


@pytest.mark.parametrize(("mixed", "pure"), MIXTURES.values(), ids=MIXTURES)
def test_optax_in_gdtx(mixed, pure):
    assert_same(train(mixed)[0], pure_path(pure))


# Methods whose runs begin in Optax and go on here, beside the pairs above.
SWITCHED = PAIRS | {
    "sgd": (gdtx.sgd(0.05), optax.sgd(0.05)),
    "nesterov": (
        gdtx.sgd(0.05, momentum=0.9, nesterov=True),
        optax.sgd(0.05, momentum=0.9, nesterov=True),
    ),
    "rmsprop": (gdtx.rmsprop(0.1), optax.rmsprop(0.1)),
    "adagrad": (gdtx.adagrad(0.2), optax.adagrad(0.2)),
    "radam": (gdtx.radam(0.1, b2=0.9, threshold=5.0), optax.radam(0.1, b2=0.9)),
    "clipped": (
        gdtx.chain(gdtx.clip_by_global_norm(0.5), gdtx.adam(0.1)),
        optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.1)),
    ),
    "injected": (gdtx.adam(0.1), optax.inject_hyperparams(optax.adam)(0.1)),
}


@pytest.mark.parametrize(("ours", "theirs"), SWITCHED.values(), ids=SWITCHED)
def test_a_run_switches_in_the_middle(ours, theirs):
    """Five steps with Optax, the rest with gdtx: every one is where Optax would have been."""
    path, state = begun(theirs)
    state = gdtx.interop.load_optax_state(ours, state)
    after, _ = train(ours, scales=(1.0,) * (STEPS - 5), params=path[4], state=state)
    assert_same(after, path[5:])


def test_extra_arguments_reach_optax():
    """Their Polyak step needs the loss; a link of ours before it does not mind."""
    tx = gdtx.chain(gdtx.identity(), optax.polyak_sgd(max_learning_rate=0.1))
    expected = train(optax.polyak_sgd(max_learning_rate=0.1), value=0.2)[0]
    assert_same(train(tx, value=0.2)[0], expected)


@by_kind
def test_flax_train_state(ours, theirs):
    train_state = pytest.importorskip("flax.training.train_state")

    traced = []

    @jax.jit
    def step(state):
        traced.append(state.tx)
        return state.apply_gradients(grads=jax.grad(loss)(state.params))

    def create(tx):
        params = jax.tree.map(jnp.asarray, PARAMS)
        return train_state.TrainState.create(apply_fn=predict, params=params, tx=tx)

    state, path = create(ours), []
    for _ in range(STEPS):
        state = step(state)
        path.append(state.params)
    assert_same(path, reference(theirs))
    # The transformation is a static field there: an equal one finds the compiled step.
    step(create(pickle.loads(pickle.dumps(ours))))
    assert len(traced) == 1


@by_kind
def test_flax_nnx_optimizer(ours, theirs):
    nnx = pytest.importorskip("flax.nnx")

    class Regression(nnx.Module):
        def __init__(self):
            self.w, self.b = (nnx.Param(jnp.asarray(PARAMS[k])) for k in ("w", "b"))

    def nnx_loss(model):
        return loss({"w": model.w[...], "b": model.b[...]})

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, nnx.grad(nnx_loss)(model))

    if jax.tree.leaves(ours):
        # Flax keeps it as a constant and takes no arrays there, which Optax's class hides. Before
        # 0.12 it did not look.
        pytest.importorskip("flax", minversion="0.12")
        with pytest.raises(ValueError, match="Found data"):
            nnx.Optimizer(Regression(), ours, wrt=nnx.Param)
        ours = gdtx.interop.to_optax(ours)
    model = Regression()
    optimizer, path = nnx.Optimizer(model, ours, wrt=nnx.Param), []
    for _ in range(STEPS):
        step(model, optimizer)
        path.append({"w": model.w[...], "b": model.b[...]})
    assert_same(path, reference(theirs))

    @nnx.jit
    def step_both(both):
        both.update(nnx.grad(nnx_loss)(both.model))

    both, path = nnx.ModelAndOptimizer(Regression(), ours), []
    for _ in range(STEPS):
        step_both(both)
        path.append({"w": both.model.w[...], "b": both.model.b[...]})
    assert_same(path, reference(theirs))


@by_kind
@pytest.mark.parametrize("theirs_applies", [True, False])
@pytest.mark.diagonal
def test_equinox(ours, theirs, theirs_applies):
    eqx = pytest.importorskip("equinox")
    apply_updates = eqx.apply_updates if theirs_applies else gdtx.apply_updates

    class Regression(eqx.Module):
        w: jax.Array
        b: jax.Array
        activation: object = jax.nn.identity  # what is not an array is not trained

    @eqx.filter_jit
    def step(model, state, tx):
        gradient = eqx.filter_grad(lambda m: loss({"w": m.w, "b": m.b}))(model)
        updates, state = tx.update(gradient, state, eqx.filter(model, eqx.is_inexact_array))
        if theirs_applies:
            return eqx.apply_updates(model, updates), state
        trained, rest = eqx.partition(model, eqx.is_inexact_array)
        return eqx.combine(apply_updates(trained, updates), rest), state

    model = Regression(jnp.asarray(PARAMS["w"]), jnp.asarray(PARAMS["b"]))
    state, path = ours.init(eqx.filter(model, eqx.is_inexact_array)), []
    for _ in range(STEPS):
        model, state = step(model, state, ours)
        path.append({"w": model.w, "b": model.b})
    assert_same(path, reference(theirs))


@by_kind
def test_optimistix(ours, theirs):
    optx = pytest.importorskip("optimistix")

    def minimum(tx):
        solver = optx.OptaxMinimiser(tx, rtol=0.0, atol=0.0)
        params = jax.tree.map(jnp.asarray, PARAMS)
        objective = lambda params, args: loss(params)  # noqa: E731
        return optx.minimise(objective, solver, params, max_steps=STEPS, throw=False).value

    assert_same([minimum(ours)], reference(theirs)[-1:])


def test_optimistix_gives_the_value():
    """To links that need it: from 0.1 on it calls with `value=`."""
    optx = pytest.importorskip("optimistix", minversion="0.1")
    tx = gdtx.chain(gdtx.sgd(0.1), gdtx.reduce_on_plateau(patience=1, rtol=0.9))
    solver = optx.OptaxMinimiser(tx, rtol=0.0, atol=0.0)
    found = optx.minimise(
        lambda params, args: loss(params), solver, PARAMS, max_steps=STEPS, throw=False
    )
    assert loss(found.value) < loss(PARAMS)


@by_kind
def test_jaxopt(ours, theirs):
    with warnings.catch_warnings():
        # It says on import that it is no longer maintained.
        warnings.filterwarnings("ignore", "JAXopt is no longer maintained", DeprecationWarning)
        jaxopt = pytest.importorskip("jaxopt")

    solver = jaxopt.OptaxSolver(loss, ours, maxiter=STEPS)
    params, path = jax.tree.map(jnp.asarray, PARAMS), []
    state = solver.init_state(params)
    for _ in range(STEPS):
        params, state = solver.update(params, state)
        path.append(params)
    assert_same(path, reference(theirs))
    assert_same([solver.run(jax.tree.map(jnp.asarray, PARAMS)).params], path[-1:])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scheduled", "array"])
def test_numpyro(name):
    """It asks for Optax's class."""
    ours, theirs = PAIRS[name]
    numpyro = pytest.importorskip("numpyro")
    infer, distributions = numpyro.infer, numpyro.distributions

    def model(x, y):
        w = numpyro.sample("w", distributions.Normal(jnp.zeros((3, 2)), 1.0).to_event(2))
        numpyro.sample("y", distributions.Normal(x @ w, 1.0).to_event(2), obs=y)

    guide = infer.autoguide.AutoDelta(model)

    def run(tx):
        svi = infer.SVI(model, guide, tx, infer.Trace_ELBO())
        with jax.numpy_rank_promotion("allow"):  # which its distributions count on
            return svi.run(jax.random.key(0), STEPS, X, Y, progress_bar=False)

    with pytest.raises(TypeError, match="Expected either"):
        run(ours)
    other = run(theirs)
    for one in map(run, (gdtx.interop.to_optax(ours), numpyro.optim.optax_to_numpyro(ours))):
        chex.assert_trees_all_close(one.params, other.params, rtol=1e-9, atol=1e-12)
        assert one.losses[-1] < 0.9 * one.losses[0]


def warm_restart(step):
    return 0.1 / (1 + step % 10)


@gdtx.transformation
def heavy_ball(learning_rate: gdtx.NonNegative, momentum: gdtx.Decay = 0.9):
    return gdtx.chain(gdtx.trace(momentum), gdtx.scale_by_learning_rate(learning_rate))


COPIED = {name: ours for name, (ours, _) in PAIRS.items()} | {
    "clipped": gdtx.chain(gdtx.clip_by_global_norm(0.5), gdtx.adam(0.1)),
    "joined": gdtx.join(gdtx.plus, a=gdtx.adam(0.05), b=gdtx.sgd(0.01)),
    "masked": gdtx.masked(gdtx.adam(0.1), ONLY_W),
    "numpy mask": gdtx.adamw(0.1, mask={"w": np.True_, "b": np.False_}),
    "two schedules": gdtx.sgd(
        gdtx.join_schedules([gdtx.constant_schedule(0.05), gdtx.exponential_decay(0.05, 9, 0.5)],
                            [9]),
        momentum=gdtx.linear_schedule(0.5, 0.9, STEPS),
    ),
    "function": gdtx.adam(warm_restart),
    "user's": heavy_ball(0.05),
}  # fmt: skip
COPIES = {
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "cloudpickle": lambda x: cloudpickle.loads(cloudpickle.dumps(x)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "tree": lambda x: jax.tree.map(lambda leaf: leaf, x),
}
by_copied = pytest.mark.parametrize("tx", COPIED.values(), ids=COPIED)
by_copy = pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)


@by_copied
@by_copy
@pytest.mark.diagonal
def test_copies_are_equal_and_share_compilation(tx, copied):
    twin = copied(tx)
    assert twin == tx
    assert hash(twin) == hash(tx)
    assert repr(twin) == repr(tx)
    traced = []

    @functools.partial(jax.jit, static_argnums=0)
    def updated(tx, gradient, state):
        traced.append(tx)
        return tx.update(gradient, state, gradient)[0]

    state = tx.init(PARAMS)
    jax.eval_shape(lambda: [updated(each, PARAMS, state) for each in (tx, twin)])
    assert len(traced) == 1


@pytest.mark.parametrize("name", ["array", "two schedules", "masked", "clipped", "joined"])
@by_copy
@pytest.mark.diagonal
def test_a_copied_state_goes_on(name, copied):
    tx = COPIED[name]
    gradients = [jax.tree.map(lambda p, t=t: p + t, PARAMS) for t in range(1, 7)]

    def run(gradients, state):
        for g in gradients:
            updates, state = tx.update(g, state, PARAMS)
        return updates, state

    _, halfway = run(gradients[:3], tx.init(PARAMS))
    twin = copied(halfway)
    assert jax.tree.structure(twin) == jax.tree.structure(halfway)
    chex.assert_trees_all_equal(run(gradients[3:], twin), run(gradients[3:], halfway))


def test_cloudpickle_carries_what_a_notebook_defines():
    """Factories and functions of `__main__` travel by value; the copy is another function."""

    @gdtx.transformation
    def local(learning_rate: gdtx.NonNegative):
        return gdtx.chain(gdtx.elementwise(lambda u: jnp.tanh(u)), gdtx.scale(-learning_rate))

    tx = local(lambda step: 0.3 / (1 + 0.1 * step))
    twin = cloudpickle.loads(cloudpickle.dumps(tx))
    assert repr(twin) == repr(tx)
    assert_same(train(twin)[0], train(tx)[0])
    with pytest.raises(ValueError, match="local: learning_rate must be"):
        twin.replace(learning_rate=-1.0)


def test_what_differs_does_not_share():
    """Equality is of the configuration: numbers, and the values and dtypes of arrays."""
    different = [
        gdtx.adam(0.1),
        gdtx.adam(0.2),
        gdtx.adamw(0.1),
        gdtx.adam(jnp.float32(0.5)),
        gdtx.adam(jnp.float32(0.25)),
        gdtx.adam(jnp.bfloat16(0.5)),
        gdtx.adam(gdtx.constant_schedule(0.1)),
        gdtx.adam(gdtx.constant_schedule(jnp.float32(0.1))),
        gdtx.chain(gdtx.adam(0.1)),
        gdtx.scale_by_adam(),
    ]
    for i, one in enumerate(different):
        for j, other in enumerate(different):
            assert (one == other) == (i == j)
    assert len(set(different)) == len(different)
    assert gdtx.adam(0.1) != 0.1


def test_arrays_in_one_transformation_change_without_a_compilation():
    traced = []

    @jax.jit
    def updated(tx, gradient, state):
        traced.append(tx)
        return tx.update(gradient, state)[0]

    tx = gdtx.adam(jnp.float32(0.1))
    state = tx.init(PARAMS)
    one, two = (updated(t, PARAMS, state) for t in (tx, tx.replace(learning_rate=jnp.float32(0.2))))
    chex.assert_trees_all_close(jax.tree.map(lambda u: 2 * u, one), two, rtol=1e-6)
    assert len(traced) == 1
