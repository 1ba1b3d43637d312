"""What notebooks show: formulas with values, trees, schedules, states and results in short."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everything import EVERY
from flax.core import FrozenDict

import gdtx
from gdtx import explore, states


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


WEIGHTS = {"w": jnp.ones((3, 4)), "b": jnp.ones(4)}


def test_states_have_shapes_and_small_numbers_and_no_long_ones():
    state = gdtx.lookahead(gdtx.adam(0.1)).init(WEIGHTS)
    moments = "RecurState(buffers={'value': {'b': float32[4], 'w': float32[3,4]}})"
    assert repr(state) == (
        "LookaheadState(steps_since_sync=0, slow={'b': float32[4], 'w': float32[3,4]}, "
        f"inner=({{'mu': ({moments}, CountState(step=0)), "
        f"'nu': (((), {moments}, CountState(step=0)), ((), (), ()))}}, ()))"
    )
    assert state._repr_html_().count("<tr>") == len(jax.tree.leaves(state))
    assert "<td>inner/0/mu/0/buffers/value/w</td>" in state._repr_html_()


def test_every_class_of_states_is_short():
    for cls in vars(states).values():
        if hasattr(cls, "_fields"):
            filled = cls(*[jnp.ones((5, 6))] * len(cls._fields))
            assert repr(filled).count("float32[5,6]") == len(cls._fields), cls


def test_states_hold_anything():
    """Tracers, shardings, keys, None, many layers: they print, and pickle and compare as before."""
    seen = []
    jax.make_jaxpr(lambda x: seen.append(repr(states.CountState(x))) or x)(1.0)
    assert seen == ["CountState(step=float32[])"]
    assert repr(states.CountState(None)) == "CountState(step=None)"
    assert repr(states.CountState(jax.random.key(0))) == "CountState(step=key<fry>[])"
    assert repr(states.CountState(jnp.array(True))) == "CountState(step=True)"
    assert repr(states.CountState(jnp.array(0.1, jnp.bfloat16))) == "CountState(step=0.1001)"
    assert "SingleDeviceSharding" in repr(states.CountState(jnp.ones(2).sharding))
    assert repr(jax.tree.map(type, states.CountState(np.ones(2)))) == "CountState(step=ndarray)"
    assert repr(states.CountState(np.array(None))) == "CountState(step=None)"
    of_flax = states.CountState(FrozenDict(w={"kernel": jnp.ones((3, 4))}))
    assert repr(of_flax) == "CountState(step=FrozenDict(w/kernel=float32[3,4]))"
    rule = gdtx.sgd(jnp.array(0.5))
    assert repr(states.CountState(rule)) == f"CountState(step={rule!r})"
    assert repr(states.CountState([jnp.ones(9), 1])) == "CountState(step=[float32[9], 1])"
    many = states.CountState({str(i): jnp.ones(2) for i in range(99)})
    assert repr(many).endswith("'10': float32[2], '11': float32[2], ... 87 more})")
    assert many._repr_html_().count("<tr>") == 13
    assert "87 more" in many._repr_html_()
    assert "<b>" not in states.CountState({"<b>": 1})._repr_html_()
    odd = states.CountState("<b>")
    assert "<b>" not in odd._repr_html_()
    assert pickle.loads(pickle.dumps(odd)) == odd == states.CountState("<b>")


def results():
    problem = explore.quadratic()
    descent = {"slow": gdtx.sgd(0.01), "fast": gdtx.sgd(0.02)}
    x = np.arange(12.0).reshape(4, 3) ** 2
    yield explore.minimize(problem.fun, np.ones(2), gdtx.sgd(0.0), 4), "params=float32[2])"
    h, start = np.array([1, 25]), np.array(problem.start)
    ends = [0.5 * h @ (start * (1 - rate * h) ** 4) ** 2 for rate in (0.01, 0.02)]
    losses = f"steps=4, last_losses={{'slow': {ends[0]:.4g}, 'fast': {ends[1]:.4g}}}"
    yield explore.trajectories(descent, problem, 4), losses
    yield explore.Landscape(x, (x,), (x[:, 0],), x), "spans=((0, 81),), losses=(0, 121)"
    yield explore.path_directions(x), "positions=4, explained=("
    yield explore.NoiseScale(jnp.array(3.0), jnp.array(2.0)), "scale=1.5, trace=3"
    yield explore.noisy_quadratic(8), "curvatures=float32[8]"
    yield explore.Simulation(x, x), "risk=float64[4,3]"
    ones = np.ones(2)
    yield explore.PreconditionerSpectrum(np.eye(2), ones, ones), "parameters=2, condition=1"
    yield problem, "name='quadratic', start=(-4, 1.5)"


def test_results_are_a_line_and_a_short_table():
    for result, part in results():
        name = type(result).__name__
        assert repr(result).startswith(f"{name}(")
        assert part in repr(result)
        assert "\n" not in repr(result)
        assert 0 < result._repr_html_().count("<tr>") < 8
        # A tree of the same class with something else in it prints too.
        other = jax.tree.map(lambda x: None, result)
        assert repr(other).startswith(f"{name}(")


def test_many_minimizations_have_shapes():
    problem = explore.quadratic()
    many = jax.vmap(lambda x: explore.minimize(problem.fun, x, gdtx.sgd(0.0), 4))(jnp.ones((3, 2)))
    assert repr(many) == (
        "Minimized(params=float32[3,2], state=(), value=float32[3], steps=int32[3], "
        "losses=float32[3,4], gradient_norms=float32[3,4], path=None)"
    )


def test_studies_have_tables():
    ones = np.ones(2)
    test = explore.LRRangeTest(ones, ones, ones, True, 0.3, np.nan, 0.2, 0.1)
    assert "<td>diverged at</td>" in test._repr_html_()
    assert "steepest" not in test._repr_html_()
    study = explore.BatchSizeStudy(2 * ones, ones, {"rate": ones}, {"rate": ones > 2}, ones)
    assert "<td>batch size 2</td>" in study._repr_html_()
    assert "rate&#x27;: 1}" in study._repr_html_()
