"""Muon: against the papers step by step, against its peers, and what it says of mistakes."""

import pickle
from decimal import Decimal

import chex
import jax
import jax.numpy as jnp
import matrix_samples
import numpy as np
import oracles
import pytest
from latex_equations import Equations
from test_orthogonalize import KELLER, composed

import gdtx
from gdtx.links.matrix.polynomials import COEFFICIENTS

SETTINGS = [
    {},
    {"nesterov": False, "polar": gdtx.Polar("exact")},
    {"momentum": 0.0, "polar": gdtx.Polar("convergent", 8)},
    {"polar": gdtx.Polar((1.5, -0.5, 0.0), 3)},
    {"polar": gdtx.Polar("polar_express", 7), "shape_factor": "moonshot"},
    {"weight_decay": 0.1, "shape_factor": "moonshot", "momentum": 0.8},
]


def problem(*names, steps=20):
    rng = np.random.default_rng(0)
    shapes = {"wide": (3, 7), "tall": (6, 4), "column": (4, 1)}
    shapes = {name: shapes[name] for name in names or shapes}
    gradients = {
        k: rng.normal(size=(steps, *s)) * 10.0 ** rng.uniform(-3, 3, (steps, 1, 1))
        for k, s in shapes.items()
    }
    return gradients, {k: rng.normal(size=s) for k, s in shapes.items()}


def trajectory(tx, gradients, params):
    if isinstance(tx, gdtx.GradientTransformation):
        return matrix_samples.trajectory(tx, gradients, params)[0]

    def step(carry, g):
        params, state = carry
        updates, state = tx.update(g, state, params)
        return (jax.tree.map(jnp.add, params, updates), state), updates

    params = jax.tree.map(jnp.asarray, params)
    return jax.jit(lambda: jax.lax.scan(step, (params, tx.init(params)), gradients)[1])()


@pytest.mark.parametrize("settings", SETTINGS, ids=repr)
def test_trajectory(settings, x64):
    gradients, params = problem()
    got = trajectory(gdtx.muon(0.1, "io", **settings), gradients, params)
    theirs = {name: value for name, value in settings.items() if name != "polar"}
    if polar := settings.get("polar"):
        theirs |= {"coefficients": polar.coefficients, "steps": polar.steps}
    if theirs.get("coefficients") in ("convergent", "polar_express"):
        rows = COEFFICIENTS[polar.coefficients] * polar.steps
        theirs["coefficients"] = np.array(rows[: polar.steps])
    for name in params:
        want = oracles.muon(gradients[name], params[name], 0.1, **theirs)
        # Rounding of the smallest singular value grows by the slope of the polynomials at 0, or by
        # the condition number, some thousands either.
        np.testing.assert_allclose(got[name], want, rtol=1e-10, atol=1e-12, err_msg=name)


def test_schedules(x64):
    gradients, params = problem("wide")
    rate, decay = gdtx.linear_schedule(0.3, 0.1, 10), gdtx.linear_schedule(0.5, 0.0, 20)
    got = trajectory(gdtx.muon(rate, True, weight_decay=decay), gradients, params)["wide"]
    d = oracles.muon(gradients["wide"], params["wide"], 1.0)
    theta = params["wide"]
    for t in range(20):
        want = np.interp(t, [0, 10], [0.3, 0.1]) * (
            d[t] - np.interp(t, [0, 20], [0.5, 0.0]) * theta
        )
        np.testing.assert_allclose(got[t], want, atol=1e-12)
        theta = theta + want


PEERS = [
    ({"nesterov": False}, {"nesterov": False}),
    (
        {"bias_correction": True, "nesterov": False, "momentum": 0.8},
        {"nesterov": False, "beta": 0.8},
    ),
    ({"nesterov": False, "shape_factor": "moonshot"}, {"nesterov": False, "consistent_rms": 0.2}),
    ({"bias_correction": True, "weight_decay": 0.1}, {"weight_decay": 0.1}),
    (
        {"nesterov": False, "polar": gdtx.Polar((1.5, -0.5, 0.0), steps=3)},
        {"nesterov": False, "ns_steps": 3, "ns_coeffs": (1.5, -0.5, 0.0)},
    ),
]


@pytest.mark.first(2)
@pytest.mark.parametrize(("settings", "theirs"), PEERS, ids=repr)
def test_optax(settings, theirs, x64):
    """With eps=0, which they add to the norm. Nesterov's momentum they correct as NAdam does."""
    optax = pytest.importorskip("optax", reason="Optax is installed by the extra 'test'")
    gradients, params = problem("wide", "tall")
    want = trajectory(optax.contrib.muon(0.1, eps=0.0, **theirs), gradients, params)
    got = trajectory(gdtx.muon(0.1, True, **settings), gradients, params)
    chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-12)


def test_optax_axes_and_others(x64):
    optax = pytest.importorskip("optax", reason="Optax is installed by the extra 'test'")
    rng = np.random.default_rng(10)
    params = {
        "w": rng.normal(size=(4, 3)),
        "heads": rng.normal(size=(4, 2, 3)),
        "b": rng.normal(size=3),
    }
    gradients = {k: rng.normal(size=(10, *v.shape)) for k, v in params.items()}
    spec = optax.contrib.MuonDimensionNumbers
    numbers = {"w": spec(0, 1), "heads": spec(0, (2,)), "b": None}
    want = trajectory(
        optax.contrib.muon(0.1, eps=1e-300, muon_weight_dimension_numbers=numbers),
        gradients,
        params,
    )
    others = gdtx.nadam(0.1, eps=1e-300)
    tx = gdtx.muon(0.1, {"w": "io", "heads": "ibo", "b": False}, others, bias_correction=True)
    chex.assert_trees_all_close(trajectory(tx, gradients, params), want, rtol=1e-10, atol=1e-12)


def test_keras(x64):
    """Their factor is Moonshot's; they decay the weights first, and add 1e-7 to the norm."""
    keras = pytest.importorskip("keras", reason="Keras is installed by the extra 'peers'")
    default = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        rng = np.random.default_rng(11)
        theta, gradients = rng.normal(size=(4, 6)), 1e6 * rng.normal(size=(20, 4, 6))
        p = keras.Variable(theta, dtype="float64")
        optimizer = keras.optimizers.Muon(0.1, weight_decay=0.1)
        path = [theta]
        for g in gradients:
            optimizer.apply([jnp.asarray(g)], [p])
            path.append(np.array(p.value))
    finally:
        keras.config.set_floatx(default)
    tx = gdtx.muon(0.1, True, weight_decay=0.1, shape_factor="moonshot")
    got = trajectory(tx, gradients, theta)
    # They keep the norm in float32, whatever comes in, and it is off by up to 6e-8 of itself.
    np.testing.assert_allclose(got, np.diff(path, axis=0), rtol=0, atol=6e-8)


def test_torch():
    """Theirs multiplies in bfloat16, whatever comes in. So do we here, and each rounds in its
    order: both are up to 3 percent from the float64 oracle. Their rows are outputs."""
    torch = pytest.importorskip("torch", reason="PyTorch is installed by the extra 'peers'")
    rng = np.random.default_rng(12)
    theta, gradients = rng.normal(size=(12, 4)), rng.normal(size=(10, 12, 4))
    p = torch.tensor(theta, requires_grad=True)
    optimizer = torch.optim.Muon([p], lr=0.1)
    path = [theta]
    for g in gradients:
        p.grad = torch.tensor(g)
        optimizer.step()
        path.append(p.detach().numpy().copy())
    tx = gdtx.muon(0.1, "oi", weight_decay=0.1, polar=gdtx.Polar(dtype="bfloat16"))
    got = trajectory(tx, gradients.astype(np.float32), theta.astype(np.float32))
    want = oracles.muon(gradients.swapaxes(1, 2), theta.T, 0.1, weight_decay=0.1).swapaxes(1, 2)
    for found in (got, np.diff(path, axis=0)):
        assert np.linalg.norm(found - want) < 0.03 * np.linalg.norm(want)


@pytest.mark.first(1)
@pytest.mark.parametrize("coefficients", ["keller", "exact"])
def test_hypergradient_equals_finite_differences(coefficients, x64):
    x = jnp.asarray(np.random.default_rng(13).normal(size=(3, 4)))

    @jax.jit
    def final(rate):
        tx = gdtx.muon(rate, True, polar=gdtx.Polar(coefficients))

        def step(carry, _):
            p, state = carry
            updates, state = tx.update(p, state, p)
            return (p + updates, state), None

        return jnp.sum(jax.lax.scan(step, (x, tx.init(x)), length=3)[0][0] ** 2)

    rate = jnp.asarray(0.1)
    want = (final(rate + 1e-6) - final(rate - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.jit(jax.grad(final))(rate), want, rtol=1e-6)


def test_laws(x64):
    """Scale does not matter: sums are averages. The first step, exact, is the polar factor."""
    gradients, params = problem("wide")
    rate = gdtx.scale_by_learning_rate(0.1)
    trace = gdtx.chain(gdtx.trace(0.9), gdtx.orthogonalize(), gdtx.scale_by_shape(), rate)
    ema = gdtx.chain(gdtx.ema(0.9), gdtx.orthogonalize(), gdtx.scale_by_shape(), rate)
    whole = gdtx.muon(0.1, True, momentum=0.9, nesterov=False)
    for tx in (
        ema,
        whole,
        gdtx.muon(0.1, True, momentum=0.9, nesterov=False, bias_correction=True),
    ):
        chex.assert_trees_all_close(
            trajectory(tx, gradients, params), trajectory(trace, gradients, params), atol=1e-12
        )
    first = trajectory(
        gdtx.muon(1.0, True, polar=gdtx.Polar("exact"), shape_factor=None), gradients, params
    )
    for name, g in gradients.items():
        u, _, v = np.linalg.svd(g[0], full_matrices=False)
        np.testing.assert_allclose(first[name][0], -u @ v, atol=1e-13)


def mixed_params(dtype=jnp.float32):
    key = jax.random.key(0)
    return {
        "embed": jax.random.normal(key, (5, 4)).astype(dtype),
        "hidden": [{"w": jax.random.normal(key, (4, 4)).astype(dtype), "b": jnp.ones(4, dtype)}],
        "empty": (jnp.zeros((0, 3), dtype), None),
        "scalar": jnp.ones((), dtype),
    }


MATRICES = {
    "embed": False,
    "hidden": [{"w": "io", "b": False}],
    "empty": (True, None),
    "scalar": False,
}


def mixed(lr=0.1, **settings):
    return gdtx.muon(lr, MATRICES, others=gdtx.adam(0.01), **settings)


def test_each_leaf_has_its_method():
    params = mixed_params()
    gradients = jax.tree.map(lambda p: p + 0.5, params)
    updates, state = mixed().update(gradients, mixed().init(params), params)
    adam = gdtx.adam(0.01)
    wanted = adam.update(gradients, adam.init(params), params)[0]
    for key in ("embed", "scalar"):
        np.testing.assert_allclose(updates[key], wanted[key], rtol=1e-6)
    np.testing.assert_allclose(updates["hidden"][0]["b"], wanted["hidden"][0]["b"], rtol=1e-6)
    by_pattern = mixed().replace(matrices=["hidden/*/w", "empty/**"])
    chex.assert_trees_all_equal(
        by_pattern.update(gradients, by_pattern.init(params), params)[0], updates
    )
    u, _, v = np.linalg.svd(gradients["hidden"][0]["w"])
    got = u.T @ np.asarray(updates["hidden"][0]["w"]) @ v.T
    assert np.abs(got - np.diag(np.diag(got))).max() < 1e-5
    # A matrix takes one buffer, others what their method keeps: here two and a count each.
    shapes = sorted(x.shape for x in jax.tree.leaves(state))
    assert shapes == sorted([(4, 4), (0, 3), *2 * [(5, 4), (4,), ()], *2 * [()]])


def test_errors():
    params = {"embed": jnp.zeros((9, 3)), "w": jnp.zeros((3, 3)), "b": jnp.zeros(3)}
    for tx, message in [
        (gdtx.muon(0.1), r"^muon: matrices must say .*; params\['embed'\], params\['w'\] may be"),
        (gdtx.muon(0.1, {"embed": False, "w": True, "b": True}),
         r"^muon: params\['b'\] has shape \(3,\), where matrices says that it has 2 axes, 'io'"),
        (gdtx.muon(0.1, {"embed": False, "w": "bio", "b": False}, others=gdtx.adam(0.1)),
         r"^muon: params\['w'\] has shape \(3, 3\), where matrices says that it has 3 axes, 'bio'"),
        (gdtx.muon(0.1, {"embed": False, "w": True, "b": False}),
         r"^muon: params\['b'\] is not among the matrices and has no other method: .*others="),
        (gdtx.muon(0.1, {"embed": "xy", "w": True, "b": False}, others=gdtx.adam(0.1)),
         r"^muon: matrices\['embed'\] is 'xy' \(str\), expected True, False or a letter"),
        (gdtx.muon(0.1, {"w": True, "b": False}, others=gdtx.adam(0.1)),
         r"^muon: matrices has no leaf"),
        (gdtx.orthogonalize(), r"^orthogonalize: params\['b'\] has shape \(3,\), where axes says"),
        (gdtx.scale_by_shape(), r"^scale_by_shape: params\['b'\] has shape"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            tx.init(params)
    with pytest.raises(ValueError, match=r"^orthogonalize: updates\['b'\] has shape \(3,\)"):
        gdtx.orthogonalize().update(params, ())
    with pytest.raises(ValueError, match="expected an empty tuple"):
        gdtx.orthogonalize().update(params["w"], (1,))
    with pytest.raises(TypeError, match=r"^muon: matrices\['w'\] is 2 \(int\), expected True"):
        gdtx.muon(0.1, {"embed": False, "w": 2, "b": False}).init(params)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: gdtx.Polar("kellar"), ValueError,
         "must be 'keller', 'polar_express', .*'exact' or the numbers .*, got 'kellar'"),
        (lambda: gdtx.Polar(()), TypeError, "coefficients must be .* or the numbers"),
        (lambda: gdtx.Polar(3.0), TypeError, "coefficients must be .* or the numbers"),
        (lambda: gdtx.Polar([(1.0, 2.0), "x"]), TypeError, "or the numbers"),
        (lambda: gdtx.Polar([KELLER] * 3, 2), ValueError, "Polar: .* for 3 steps, steps is 2"),
        (lambda: gdtx.Polar(batch_size=0), ValueError, "Polar: batch_size must be a positive"),
        (lambda: gdtx.Polar(steps=-1), ValueError, "steps must be a non-negative integer"),
        (lambda: gdtx.orthogonalize("exact"), TypeError,
         r"orthogonalize: polar must be Polar\(...\), got 'exact'"),
        (lambda: gdtx.scale_by_shape("kellar"), ValueError, "be 'keller', 'moonshot', None or"),
        (lambda: gdtx.muon(0.1, momentum=1.0), ValueError, r"muon: momentum must be in \[0, 1\)"),
        (lambda: gdtx.muon(0.1, others=3), TypeError, "muon: others must be a transformation"),
    ],
)  # fmt: skip
def test_arguments_are_checked(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_is_data():
    tx = mixed(polar=gdtx.Polar([KELLER, (1.5, -0.5)]))
    same = mixed(polar=gdtx.Polar([KELLER, (1.5, -0.5)]))
    assert tx == same
    assert hash(tx) == hash(same)
    assert eval(repr(tx), vars(gdtx)) == tx
    assert pickle.loads(pickle.dumps(tx)) == tx
    assert (
        gdtx.hyperparams(gdtx.replace(tx, {"others.learning_rate": 0.5}))["others.learning_rate"]
        == 0.5
    )
    params = mixed_params()
    formula = gdtx.expand(tx)
    chex.assert_trees_all_equal(
        formula.update(params, formula.init(params), params)[0],
        tx.update(params, tx.init(params), params)[0],
    )


@pytest.mark.slow
def test_sweep_and_no_jit():
    gradients, params = problem("tall", steps=3)
    gradients, params = jax.tree.map(jnp.float32, (gradients, params))

    def train(tx):
        def step(carry, g):
            p, state = carry
            updates, state = tx.update(g, state, p)
            return (gdtx.apply_updates(p, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), gradients)[0][0]

    rates = jnp.array([0.1, 0.5])
    batched = jax.jit(jax.vmap(train))(gdtx.muon(rates, True))
    for i in range(2):
        one = jax.jit(train)(gdtx.muon(rates[i], True))
        chex.assert_trees_all_close(jax.tree.map(lambda x: x[i], batched), one, atol=1e-4)  # noqa: B023
    with jax.disable_jit():
        chex.assert_trees_all_close(train(gdtx.muon(0.5, True)), one, atol=1e-4)


def test_latex():
    printed = gdtx.latex(gdtx.scale_by_muon(momentum=0.5), values=True)
    scalars = np.random.default_rng(15).normal(size=4)

    given = {f"g_{{{t}}}": Decimal(float(g)) for t, g in enumerate(scalars, 1)}
    given |= {r"n_{\mathrm{in}}": Decimal(1), r"n_{\mathrm{out}}": Decimal(1)}
    equations = Equations(printed.replace(" I", ""), given)
    got = [float(equations(f"u_{{{t}}}", t)) for t in range(1, 5)]
    want = -oracles.muon(scalars.reshape(-1, 1, 1), np.zeros((1, 1)), 1.0, momentum=0.5).ravel()
    np.testing.assert_allclose(got, want, rtol=1e-9)
    by_step = gdtx.latex(gdtx.orthogonalize(gdtx.Polar("polar_express", 3)))
    equations = Equations(by_step.replace(" I", ""), {"g_1": Decimal(-2)})
    third = composed(gdtx.Polar("polar_express", 3).polynomials(), -1.0)
    np.testing.assert_allclose(float(equations("u_1", 1)), third, rtol=1e-9)
    assert r"s &= \sqrt{\max\left( 1, \frac{n_{\mathrm{out}}}{n_{\mathrm{in}}} \right)}" in printed
    assert gdtx.latex(gdtx.scale_by_muon()).splitlines()[-6:-1] == [
        r"X_{0,t} &= \frac{d_t}{\left\| d_t \right\|} \\",
        r"A_{i,t} &= X_{i-1,t} X_{i-1,t}^{\top} \\",
        r"X_{i,t} &= \left( 3.4445 I - 4.775 A_{i,t} + 2.0315 A_{i,t}^2 \right) X_{i-1,t} \\",
        r"s &= \sqrt{\max\left( 1, \frac{n_{\mathrm{out}}}{n_{\mathrm{in}}} \right)} \\",
        r"u_t &= s X_{5,t}",
    ]
    assert (
        gdtx.latex(gdtx.orthogonalize(gdtx.Polar("exact"))).splitlines()[-2]
        == r"u_t &= \left( g_t g_t^{\top} \right)^{-1/2} g_t"
    )
    assert r"s &= 0.2 \sqrt{\max\left( n_{\mathrm{in}}" in gdtx.latex(
        gdtx.scale_by_shape("moonshot")
    )
    assert gdtx.latex(gdtx.scale_by_shape(None)).splitlines()[-2] == "u_t &= g_t"
