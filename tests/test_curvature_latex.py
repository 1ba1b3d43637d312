"""The printed formulas of K-FAC: of a layer of one number they can be evaluated."""

import re
from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from latex_equations import Equations
from test_latex import STEPS, evaluated, sample

import gdtx
from gdtx import kfac

# Of one example: its input, and the derivative of its loss in the output, at every step.
X, SLOPES = np.random.default_rng(7).uniform(0.5, 2.0, (2, STEPS))
SLOPE = 5.0  # of the loss that damping is adapted to

CASES = {
    "factored": kfac.kfac(0.1, damping=0.3, decay=0.8, inverse_every=1, norm_constraint=1e3),
    "seldom": gdtx.scale_by_kfac(damping=0.3, decay=0.8, inverse_every=3),
    "eigen": gdtx.scale_by_kfac(damping=0.3, decay=0.8, inverse_every=3, split="eigen"),
    "every step": gdtx.scale_by_kfac(damping=0.3, decay=0.8, inverse_every=1, split="eigen"),
    "clipped": kfac.kfac(0.1, damping=0.3, inverse_every=2, norm_constraint=0.02, weight_decay=0.1),
    "ekfac": gdtx.scale_by_ekfac(damping=0.3, decay=0.8, inverse_every=4),
    "adapted": kfac.levenberg_marquardt(
        kfac.kfac(0.1, norm_constraint=1e3, weight_decay=0.2), damping=0.5, every=2, factor=0.7,
        min_damping=0.2, max_damping=0.9,
    ),
}  # fmt: skip


def of_numbers(text):
    """The formula where every matrix is one number, its own transpose and trace, and I is 1."""
    text = re.sub(r"\\dim\\left\( .*? \\right\)", "1", text)
    text = re.sub(
        r"\\left\\langle (.*?), (.*?) \\right\\rangle", r"\\left( \1 \\cdot \2 \\right)", text
    )
    text = text.replace(r"\otimes", r"\cdot").replace(r"\nabla_y \ell", "e_t")
    # Else one function would be that of the other's values.
    text = text.replace(r"\right) \left( \operator", r"\right) \cdot \left( \operator")
    text = re.sub(r"\\left\\\| (.*?) \\right\\\|", r"\\left| \1 \\right|", text)
    return text.replace(r"^{\top}", "").replace(" I", "")


def same(x):
    return x


FUNCTIONS = {"E": same, "tr": same, "eigenvalues": same, "eigenvectors": lambda _: 1}


def given():
    inputs = {rf"\bar{{x}}_{{{t}}}": x for t, x in enumerate(X, 1)}
    return {**inputs, **{f"e_{{{t}}}": e for t, e in enumerate(SLOPES, 1)}, "f": SLOPE}


@pytest.mark.first(3)
@pytest.mark.parametrize("name", CASES)
def test_printed_formula_is_what_is_computed(name, x64):
    gradients, theta = sample()
    tx = CASES[name]
    (layer,) = kfac.infer_layout({"w": np.ones((1, 1))})
    extra = {"value_fn": lambda p: SLOPE * p["w"].sum()} if name == "adapted" else {}

    def step(carry, seen):
        (params, state), (g, x, slope) = carry, seen
        block = {"A": (x * x)[None, None], "S": (slope * slope)[None, None], "n": jnp.ones(())}
        block["G"] = (x * slope)[None, None]
        curvature = kfac.Curvature({"w": block}, jnp.ones(()), (layer,))
        updates, state = tx.update(
            {"w": g[None, None]}, state, params, curvature=curvature, **extra
        )
        return (gdtx.apply_updates(params, updates), state), updates["w"][0, 0]

    def train(start, column):
        params = {"w": start[None, None]}
        return jax.lax.scan(step, (params, tx.init(params)), (column, X, SLOPES))[1]

    run = jax.jit(jax.vmap(train, in_axes=(0, 1), out_axes=1))
    got = run(jnp.asarray(theta), jnp.asarray(gradients))
    text = of_numbers(gdtx.latex(tx, values=True))
    constants = {key: Decimal(float(value)) for key, value in given().items()}
    want = evaluated(text, gradients, theta, constants, FUNCTIONS)
    np.testing.assert_allclose(got, want, rtol=1e-6 if name == "adapted" else 1e-9)


def test_formulas_are_those_of_the_papers():
    plain = gdtx.latex(gdtx.scale_by_kfac(inverse_every=1)).splitlines()
    assert plain[1] == r"A_0 &= S_0 = 0 \\"
    assert plain[3] == (
        r"A_t &= \beta A_{t-1} + \left( 1 - \beta \right) \operatorname{E}\left( "
        r"\bar{x}_t \bar{x}_t^{\top} \right) \\"
    )
    assert plain[7] == (
        r"\pi_t &= \sqrt{\frac{\operatorname{tr}\left( \hat{A}_t \right) "
        r"\dim\left( \hat{S}_t \right)}{\dim\left( \hat{A}_t \right) "
        r"\operatorname{tr}\left( \hat{S}_t \right)}} \\"
    )
    assert plain[8] == (
        r"u_t &= \left( \hat{A}_t + \pi_t \sqrt{\lambda} I \right)^{-1} g_t "
        r"\left( \hat{S}_t + \frac{\sqrt{\lambda}}{\pi_t} I \right)^{-1}"
    )
    turned = r"&= Q_{A,t} \frac{Q_{A,t}^{\top} g_t Q_{S,t}}{v_t + \lambda} Q_{S,t}^{\top}"
    assert turned in gdtx.latex(gdtx.scale_by_ekfac())
    clipped = gdtx.latex(gdtx.clip_by_fisher_norm())
    assert r"u_t &= g_t \min\left( 1, \sqrt{\frac{c}{\left\langle g_t, F_t g_t" in clipped
    exact = gdtx.latex(kfac.natural_gradient(damping=0.1)).splitlines()[1]
    assert exact == r"\theta_t &= \theta_{t-1} - \eta \left( F_t + \lambda I \right)^{-1} g_t"


def test_each_number_has_its_symbol():
    text = of_numbers(gdtx.latex(CASES["adapted"]))
    equations = Equations(text, {}, FUNCTIONS)
    names = {name for sides, _ in equations.sides for _, name, _ in sides}
    # The damping at first is a hyperparameter, and the weight decay is another number.
    assert r"\lambda_0 &=" not in text
    assert r"\lambda" in names
    assert r"g_t + \bar{\lambda} \theta_{t-1}" in text
    # Of two with their own averages, each has its own.
    twice = gdtx.chain(gdtx.scale_by_kfac(decay=0.9), gdtx.scale_by_kfac(decay=0.8))
    assert Equations(of_numbers(gdtx.latex(twice)), {}, FUNCTIONS)
    assert r"m_t &= \bar{\beta} m_{t-1}" in gdtx.latex(twice)
    # What may change is shown, even where it is 1 now.
    scheduled = gdtx.latex(gdtx.scale_by_kfac(inverse_every=lambda t: 1 + t))
    assert r"\tilde{A}_t &= \begin{cases} \hat{A}_t & T_t \leq \text{the age of" in scheduled
