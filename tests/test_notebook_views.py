"""What notebooks show: formulas with values, trees, schedules, states and results in short."""

import jax
import jax.numpy as jnp
import pytest
from everything import EVERY

import gdtx


def shown(tx):
    """The formula as notebooks show it, and the rows of values below."""
    text = tx._repr_latex_()
    assert text[:2] == text[-2:] == "$$"
    formula, _, rest = text[2:-2].partition(r" \\[1ex]")
    return formula, [row.strip(" ,\n") for row in rest.replace(r"\end{gathered}", "").split(r"\\")]


def values(tx):
    return [each.strip() for row in shown(tx)[1] for each in row.split(r", \quad")]


def test_values_stand_below_the_formula():
    assert gdtx.adam(0.1)._repr_latex_() != gdtx.adam(3.0)._repr_latex_()
    formula, _ = shown(gdtx.adam(0.1))
    assert formula == "\\begin{gathered}\n" + gdtx.latex(gdtx.adam(0.1))
    assert values(gdtx.adam(0.1)) == [
        r"\eta = 0.1", r"\beta_1 = 0.9", r"\beta_2 = 0.999", r"\epsilon = 10^{-8}"
    ]  # fmt: skip
    assert gdtx.identity()._repr_latex_() == f"$${gdtx.latex(gdtx.identity())}$$"


def test_values_are_those_of_the_letters_in_the_formula():
    """Of parts with equal letters, and of those that the formula does not have."""
    groups = {"slow": gdtx.adam(0.01), "fast": gdtx.sgd(0.5, momentum=0.9)}
    of_groups = values(gdtx.partition(groups, lambda path, leaf: "slow"))
    assert r"\eta = 0.5" in of_groups  # by name of the group
    assert r"\bar{\eta} = 0.01" in of_groups
    assert r"\mu = 0.9" in of_groups
    assert values(gdtx.chain(gdtx.ema(0.5), gdtx.ema(0.5))) == [r"\beta = 0.5"]
    assert values(gdtx.adamw(0.1, weight_decay=0.0)) == values(gdtx.adam(0.1))


def test_arrays_are_shown_by_number_or_shape_and_schedules_by_name():
    assert values(gdtx.sgd(jnp.array(0.25))) == [r"\eta = 0.25"]
    assert values(gdtx.sgd(jnp.array([0.25, 0.5]))) == [r"\eta = \left[ 0.25, 0.5 \right]"]
    assert values(gdtx.sgd(jnp.ones((3, 4)))) == [r"\eta = \mathtt{float32[3,4]}"]
    decay = gdtx.cosine_decay_schedule(0.1, 10)
    assert values(gdtx.sgd(decay)) == [r"\eta_t = \mathtt{cosine\_decay\_schedule}"]
    assert values(gdtx.sgd(lambda step: 0.1)) == [""]
    seen = []
    jax.make_jaxpr(lambda rate: seen.append(values(gdtx.sgd(rate))) or rate)(0.1)
    assert seen == [[r"\eta = \mathtt{float32[]}"]]


def test_rows_of_values_are_as_wide_as_a_page():
    rows = shown(gdtx.chain(gdtx.clip(0.123456), gdtx.yogi(1.23456, 0.98765, 0.99999)))[1]
    assert len(rows) == 2


@pytest.mark.parametrize("name", EVERY)
def test_everything_shows_its_formula(name):
    assert gdtx.latex(EVERY[name]) in EVERY[name]._repr_latex_()
