"""Formulas of rules that are more than arithmetic, read from the programs of these rules."""

import jax.numpy as jnp
import pytest

import gdtx
from gdtx import latex

RULES = {
    "where": (
        gdtx.with_params(lambda u, p: u + 0.1 * jnp.where(u * p >= 0, p, 0)),
        r"g_t + 0.1 \begin{cases} \theta_{t-1} & 0 \leq g_t \theta_{t-1} \\ "
        r"0 & \text{otherwise} \end{cases}",
    ),
    "norms": (
        gdtx.with_params(lambda u, p: u * jnp.maximum(1, jnp.linalg.norm(p) / jnp.linalg.norm(u))),
        r"g_t \max\left( 1, \frac{\left\| \theta_{t-1} \right\|}{\left\| g_t \right\|} \right)",
    ),
    "inner": (
        gdtx.with_params(lambda u, p: u - jnp.sum(u * p) / jnp.sum(p * p) * p),
        r"g_t - \frac{\left\langle g_t, \theta_{t-1} \right\rangle}"
        r"{\left\| \theta_{t-1} \right\|^2} \theta_{t-1}",
    ),
    "mean": (
        gdtx.elementwise(lambda u: u - jnp.mean(u)),
        r"g_t - \operatorname{mean}\left( g_t \right)",
    ),
    "clip": (
        gdtx.elementwise(lambda u: jnp.clip(u, -2.0, 3.0)),
        r"\min\left( 3, \max\left( -2, g_t \right) \right)",
    ),
    "merge": (
        gdtx.join(lambda m, g: jnp.sign(m) * jnp.abs(g), m=gdtx.scale(2.0), g=gdtx.identity()),
        r"\operatorname{sign}\left( 2 g_t \right) \left| g_t \right|",
    ),
    "project": (
        gdtx.project(lambda p: jnp.clip(p, 0, 1)),
        r"\min\left( 1, \max\left( 0, \theta_{t-1} + g_t \right) \right) - \theta_{t-1}",
    ),
    "step": (
        gdtx.counted(lambda t: lambda u: u * jnp.minimum(1, t / 10)),
        r"g_t \min\left( 1, \frac{t}{10} \right)",
    ),
    "conditions": (
        gdtx.recur(
            lambda u, a, step: (jnp.where((step % 7 >= 2) & (u > a), a, u), {"a": u * jnp.exp(a)}),
            a=0.0,
        ),
        r"\begin{cases} a_{t-1} & 2 \leq t \bmod 7 \text{ and } g_t > a_{t-1} \\ "
        r"g_t & \text{otherwise} \end{cases}",
    ),
    "memory": (
        gdtx.recur(
            lambda u, a, params: (jnp.sqrt(jnp.maximum(a, u * params)), {"a": jnp.tanh(a)}), a=0.5
        ),
        r"\sqrt{\max\left( a_{t-1}, g_t \theta_{t-1} \right)}",
    ),
    # Nobody can say from one length that 7 is a length.
    "size": (
        gdtx.elementwise(lambda u: jnp.abs(u) / u.size),
        r"\operatorname{f}\left( g_t \right)",
    ),
    "unknown": (gdtx.elementwise(lambda u: jnp.cumsum(u)), r"\operatorname{f}\left( g_t \right)"),
}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_read_from_its_program(name):
    tx, formula = RULES[name]
    assert f"u_t &= {formula}" in latex(tx).splitlines()


def test_what_is_read_more_than_once_has_a_symbol():
    twice = gdtx.elementwise(lambda u: u / jnp.linalg.norm(u))
    lines = latex(gdtx.chain(gdtx.ema(0.9), gdtx.scale(2.0), twice)).splitlines()
    assert r"d_t &= 2 m_t \\" in lines
    assert lines[-2] == r"u_t &= \frac{d_t}{\left\| d_t \right\|}"


def test_what_is_remembered_has_its_symbol_in_what_is_remembered_after_it():
    tx = gdtx.recur(lambda u, a, b: (a, {"a": a + u**2, "b": (a + u**2) * b}), a=0.0, b=1.0)
    lines = latex(tx).splitlines()
    assert r"a_t &= a_{t-1} + g_t^2 \\" in lines
    assert r"b_t &= a_t b_{t-1} \\" in lines


def test_a_function_that_has_a_name_keeps_it():
    assert r"\operatorname{tanh}\left( g_t \right)" in latex(gdtx.elementwise(jnp.tanh))
