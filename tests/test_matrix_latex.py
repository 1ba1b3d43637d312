"""The printed formulas of Shampoo and SOAP: of a matrix of one number they can be evaluated."""

import jax
import numpy as np
import pytest
from latex_equations import Equations
from test_latex import evaluated, sample

import gdtx

CASES = {
    "sums": gdtx.shampoo(0.1, b1=0.0, b2=1.0, eps=0.5, roots=gdtx.Roots(1)),
    "averages": gdtx.shampoo(0.1, b1=0.8, b2=0.9, eps=0.5, weight_decay=0.1, roots=gdtx.Roots(1)),
    "exponent": gdtx.shampoo(0.1, b1=0.0, eps=0.5, exponent=-0.75, roots=gdtx.Roots(1)),
    "soap": gdtx.soap(0.1, b1=0.8, b2=0.9, bases=gdtx.Bases(1)),
    "window": gdtx.full_matrix_adagrad(0.1, eps=0.1, window=3),
}


def of_numbers(text):
    """The formula where every matrix is one number, its own transpose, and I is 1."""
    return text.replace(r"^{\top}", "").replace(" I", "").replace("-1/4", "-0.25")


@pytest.mark.first(3)
@pytest.mark.parametrize("name", CASES)
def test_printed_formula_is_what_is_computed(name, x64):
    gradients, theta = sample()
    tx = CASES[name]

    def step(carry, g):
        params, state = carry
        updates, state = tx.update(g, state, params)
        return (gdtx.apply_updates(params, updates), state), updates

    def train(theta, gradients):
        # A matrix of one number each.
        params = [p.reshape(1, 1) for p in theta]
        columns = [g.reshape(-1, 1, 1) for g in gradients.T]
        return jax.lax.scan(step, (params, tx.init(params)), columns)[1]

    got = jax.jit(train)(theta, gradients)
    text = of_numbers(gdtx.latex(tx, values=True))
    functions = {"eigenvectors": lambda _: 1}
    want = evaluated(text, gradients, theta, functions=functions)
    np.testing.assert_allclose(np.array(got)[:, :, 0, 0].T, want, rtol=1e-8)


def test_formulas_are_those_of_the_papers():
    assert gdtx.latex(CASES["sums"]).splitlines()[1:-1] == [
        r"L_0 &= R_0 = 0 \\",
        r"L_t &= L_{t-1} + g_t g_t^{\top} \\",
        r"R_t &= R_{t-1} + g_t^{\top} g_t \\",
        r"\theta_t &= \theta_{t-1} - \eta \left( L_t + \epsilon I \right)^{-1/4} g_t "
        r"\left( R_t + \epsilon I \right)^{-1/4}",
    ]
    window = gdtx.latex(CASES["window"])
    assert r"G_{t-1} + g_t g_t^{\top} - g_{t-3} g_{t-3}^{\top} & t > 3 \\" in window
    soap = gdtx.latex(CASES["soap"])
    assert r"Q_{L,t} &= \operatorname{eigenvectors}\left( L_{t-1} \right)" in soap
    assert r"\tilde{g}_t &= Q_{L,t}^{\top} g_t Q_{R,t}" in soap
    assert Equations(of_numbers(soap), {})
    fresh = gdtx.latex(gdtx.soap(0.1, bases=gdtx.Bases(stale=False)))
    assert r"\operatorname{eigenvectors}\left( R_t \right)" in fresh
    damped = gdtx.latex(gdtx.shampoo(0.1, b1=0.0, b2=1.0, relative_eps=0.1), values=True)
    assert r"\left( 0.0001 + 0.1 \lambda_{\max}\left( L_t \right) \right) I" in damped
