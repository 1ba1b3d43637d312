"""Lengths of steps beside parameters and gradients, and the matrix that a step multiplies by."""

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest

import gdtx
from gdtx import explore, kfac

mpl.use("Agg")

RNG = np.random.default_rng(0)
ETA = 0.5


@pytest.fixture
def ax():
    from matplotlib import pyplot

    yield pyplot.subplots()[1]
    pyplot.close("all")


def after(tx, gradients, params):
    """The state after these gradients."""
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *gradients)
    step = jax.jit(lambda state, g: tx.update(g, state, params)[1])
    return jax.lax.scan(lambda state, g: (step(state, g), None), tx.init(params), stacked)[0]


# Ratios


def test_update_ratios_under_jit():
    params = {"a": {"w": jnp.array([[3.0, 4.0]])}, "b": jnp.ones(4), "none": None}
    updates = {"a": {"w": jnp.array([[0.0, 1.0]])}, "b": jnp.full(4, -0.5), "none": None}
    want = {"a/w": 0.2, "b": 0.5}
    for ratios in (explore.update_ratios, jax.jit(explore.update_ratios)):
        got = ratios(updates, params)
        assert list(got) == list(want)
        np.testing.assert_allclose(list(got.values()), list(want.values()), rtol=1e-6)
    facts = gdtx.describe(gdtx.identity(), (), updates, params)
    assert facts["update_ratio/a/w"] == pytest.approx(0.2)


def test_update_ratios_of_zeros():
    updates = {"still": jnp.zeros(2), "from zero": jnp.ones(2), "both": jnp.zeros(2)}
    params = {"still": jnp.ones(2), "from zero": jnp.zeros(2), "both": jnp.zeros(2)}
    got = {name: float(ratio) for name, ratio in explore.update_ratios(updates, params).items()}
    assert got == {"still": 0.0, "from zero": np.inf, "both": 0.0}
    assert explore.update_ratios({"still": None}, {"still": params["still"]}) == {}
    with pytest.raises(ValueError, match="update_ratios: updates are not a tree like params"):
        explore.update_ratios({"still": updates["still"]}, params)


# Effective learning rates


def test_effective_rates_of_adagrad_are_its_denominators(x64):
    gradients = RNG.normal(size=(4, 3))
    tx = gdtx.adagrad(ETA, 0.0, eps=1e-3)
    state = tx.init(jnp.zeros(3))
    for g in gradients:
        updates, state = tx.update(jnp.asarray(g), state)
    got = jax.jit(explore.effective_learning_rates)(updates, jnp.asarray(g))
    np.testing.assert_allclose(got, ETA / np.sqrt((gradients**2).sum(0) + 1e-3), rtol=1e-12)


def test_effective_rates_at_zeros_and_of_half_precision():
    u, g = jnp.array([0.0, 2.0, -3.0]), jnp.array([0.0, 0.0, 1.5])
    np.testing.assert_array_equal(
        explore.effective_learning_rates([u], [g])[0], [np.nan, np.inf, 2]
    )
    (rate,) = explore.effective_learning_rates([u], [g.astype(jnp.bfloat16)])
    assert rate.dtype == jnp.float32


def test_plot_effective_learning_rates(ax):
    rates = {
        "adam": {"w": jnp.array([1e-3, 1e-2, jnp.nan]), "b": jnp.array([jnp.inf, 1e-2])},
        "sgd": jnp.full(5, 0.1),
    }
    assert explore.plot_effective_learning_rates(rates, ax=ax, bins=7) is ax
    assert ax.get_xscale() == "log"
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["adam (2 left out)", "sgd"]
    for patch in ax.patches:
        values, edges, _ = patch.get_data()
        assert values.sum() == pytest.approx(1)
        assert (len(edges), edges[0] < 1e-3, edges[-1] > 0.1) == (8, True, True)
    ax.figure.draw_without_rendering()
    explore.plot_effective_learning_rates([jnp.ones(2), jnp.ones(3)], ax=ax)
    assert [text.get_text() for text in ax.get_legend().get_texts()][-2:] == ["0", "1"]
    with pytest.raises(ValueError, match="no rate is positive and finite"):
        explore.plot_effective_learning_rates({"a": jnp.array([0.0, jnp.nan])}, ax=ax)


# Spectra

PARAMS = {"w": np.zeros((3, 2)), "b": np.zeros(2)}
GRADIENTS = [{"b": RNG.normal(size=2), "w": RNG.normal(size=(3, 2))} for _ in range(4)]
FLAT = np.array([np.concatenate([g["b"], g["w"].ravel()]) for g in GRADIENTS])


def spectrum(tx, gradients=None, seen=GRADIENTS, **extra):
    params = jax.tree.map(jnp.asarray, PARAMS)
    state = after(tx, seen, params)
    return explore.preconditioner_spectrum(tx, state, params, gradients, **extra)


def inverse_root(matrix, power=-0.5):
    values, vectors = np.linalg.eigh(matrix)
    return vectors * values**power @ vectors.T


def blocks(*matrices):
    n = sum(map(len, matrices))
    out, start = np.zeros((n, n)), 0
    for matrix in matrices:
        end = start + len(matrix)
        out[start:end, start:end] = matrix
        start = end
    return out


def by_hand():
    """The matrices of methods, from the formulas of their papers; `b` comes before `w`."""
    eps, n = 1e-3, len(FLAT)
    squares = (FLAT**2).sum(0)
    second = sum(0.1 * 0.9 ** (n - 1 - i) * FLAT[i] ** 2 for i in range(n))
    full = [FLAT[:, part].T @ FLAT[:, part] for part in (slice(0, 2), slice(2, 8))]
    left = sum(g["w"] @ g["w"].T for g in GRADIENTS) + eps * np.eye(3)
    right = sum(g["w"].T @ g["w"] for g in GRADIENTS) + eps * np.eye(2)
    # Of the next step: the state decays once more, and what is corrected is step n + 1.
    corrected = 0.9 * second / (1 - 0.9 ** (n + 1))
    return {
        "sgd": (gdtx.sgd(ETA, momentum=0.9, nesterov=False), ETA * np.eye(8)),
        "nesterov": (gdtx.sgd(ETA, momentum=0.9, nesterov=True), 1.9 * ETA * np.eye(8)),
        "decay": (gdtx.chain(gdtx.add_decayed_weights(0.1), gdtx.sgd(ETA)), ETA * np.eye(8)),
        "adagrad": (gdtx.adagrad(ETA, 0.0, eps=eps), ETA * np.diag((squares + eps) ** -0.5)),
        "rmsprop": (gdtx.rmsprop(ETA, decay=0.9, eps=eps),
                    ETA * np.diag((0.9 * second + eps) ** -0.5)),
        "adam": (gdtx.adam(ETA, b1=0.8, b2=0.9, eps=eps),
                 ETA * 0.2 / (1 - 0.8 ** (n + 1)) * np.diag(1 / (corrected**0.5 + eps))),
        "full matrix": (gdtx.full_matrix_adagrad(ETA, eps=eps),
                        ETA * blocks(*(inverse_root(g + eps * np.eye(len(g))) for g in full))),
        "shampoo": (gdtx.shampoo(ETA, b1=0.0, b2=1.0, eps=eps, roots=gdtx.Roots(1)),
                    ETA * blocks(inverse_root(full[0] + eps * np.eye(2)),
                                 np.kron(inverse_root(left, -0.25), inverse_root(right, -0.25)))),
    }  # fmt: skip


@pytest.mark.first(1)
@pytest.mark.parametrize("name", by_hand())
def test_matrices_are_those_of_the_papers(name, x64):
    tx, want = by_hand()[name]
    got = spectrum(tx)
    np.testing.assert_allclose(got.matrix, want, rtol=1e-6, atol=1e-9)
    values = np.linalg.eigvalsh(want)[::-1]
    np.testing.assert_allclose(got.eigenvalues, values, rtol=1e-6)
    np.testing.assert_allclose(got.singular_values, values, rtol=1e-6)
    assert got.condition == pytest.approx(values[0] / values[-1])


def test_kfac_is_a_product_of_inverses(x64):
    x, y = (jnp.asarray(RNG.normal(size=shape)) for shape in ((6, 3), (6, 2)))
    params = {"w": jnp.asarray(RNG.normal(size=(3, 2)))}
    f = kfac.value_grad_and_curvature(
        lambda p, x: x @ p["w"], kfac.softmax_cross_entropy, output="exact"
    )
    _, grads, curvature = jax.jit(f)(params, (x, jax.nn.softmax(y)))
    tx = gdtx.chain(gdtx.scale_by_kfac(damping=0.1, split="eigen"), gdtx.scale(-1.0))
    _, state = tx.update(grads, tx.init(params), params, curvature=curvature)
    got = explore.preconditioner_spectrum(tx, state, params, curvature=None)
    A, S = (np.asarray(curvature.blocks["w"][name]) / 6 for name in "AS")
    want = np.linalg.inv(np.kron(A, S) + 0.1 * np.eye(6))
    # Statistics are kept in float32.
    np.testing.assert_allclose(got.matrix, want, rtol=1e-4, atol=1e-5)


def test_with_the_answer_of_the_denominator(x64):
    """d/dg of g / sqrt(s + g^2 + eps) is (s + eps) / sqrt(s + g^2 + eps)^3."""
    g, eps = GRADIENTS[0], 1e-3
    got = spectrum(gdtx.adagrad(ETA, 0.0, eps=eps), jax.tree.map(jnp.asarray, g))
    s = (FLAT**2).sum(0) + eps
    want = ETA * s / (s + FLAT[0] ** 2) ** 1.5
    np.testing.assert_allclose(got.matrix, np.diag(want), rtol=1e-9, atol=1e-12)


def test_no_step_in_the_direction_of_a_normalized_gradient(x64):
    tx = gdtx.chain(gdtx.normalize_by_global_norm(), gdtx.scale(-1.0))
    got = spectrum(tx, jax.tree.map(jnp.asarray, GRADIENTS[0]))
    want = (np.eye(8) - np.outer(FLAT[0], FLAT[0]) / (FLAT[0] @ FLAT[0])) / np.linalg.norm(FLAT[0])
    np.testing.assert_allclose(got.matrix, want, atol=1e-9)
    assert spectrum(gdtx.chain(gdtx.sign(), gdtx.scale(-1.0))).condition == np.inf


def test_a_matrix_that_is_not_symmetric(x64):
    turn = jnp.array([[0.0, 1.0], [0.0, 0.0]])
    tx = gdtx.elementwise(lambda u: -turn @ u)
    got = explore.preconditioner_spectrum(tx, tx.init(jnp.zeros(2)), jnp.zeros(2))
    np.testing.assert_array_equal(got.matrix, turn)
    np.testing.assert_allclose(got.eigenvalues, [0.5, -0.5])
    np.testing.assert_allclose(got.singular_values, [1.0, 0.0])


def test_more_rows_than_a_batch():
    params = jnp.zeros(70)
    got = explore.preconditioner_spectrum(gdtx.sgd(ETA), gdtx.sgd(ETA).init(params), params)
    np.testing.assert_array_equal(got.matrix, ETA * np.eye(70))


def test_spectrum_errors():
    big = jnp.zeros(10_000)
    with pytest.raises(
        ValueError, match=r"preconditioner_spectrum: the matrix of 10000 param.*400"
    ):
        explore.preconditioner_spectrum(gdtx.sgd(0.1), ((), ()), big)
    with pytest.raises(TypeError, match="preconditioner_spectrum: params must be real"):
        explore.preconditioner_spectrum(gdtx.sgd(0.1), ((), ()), jnp.zeros(2, jnp.complex64))


def test_plot_preconditioner_spectrum(ax):
    one = spectrum(gdtx.adagrad(ETA, 0.0))
    assert explore.plot_preconditioner_spectrum({"adagrad": one, "sgd": one}, ax=ax) is ax
    np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), one.singular_values)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == [f"{name}, condition {one.condition:.2g}" for name in ("adagrad", "sgd")]
    ax.figure.draw_without_rendering()
    explore.plot_preconditioner_spectrum(one, ax=ax)
