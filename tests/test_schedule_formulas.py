"""Schedules in formulas: what is printed is evaluated, step by step."""

from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from latex_equations import Equations

import gdtx
from gdtx.public import schedules

STEPS = 14
CYCLE = {"init_value": 0.1, "peak_value": 1.0, "warmup_steps": 2, "decay_steps": 5}
LINE = gdtx.linear_schedule(0.0, 1.0, 4)


def doubled(step):
    return 0.1 * step + 0.1 * step


SCHEDULES = [
    gdtx.constant_schedule(0.1),
    gdtx.linear_schedule(0.3, 0.1, 5),
    gdtx.linear_schedule(0.3, 0.0, 5, transition_begin=3),
    gdtx.polynomial_schedule(1.0, 0.1, 2.0, 8, transition_begin=2),
    gdtx.piecewise_constant_schedule(1.0, {6: 0.1, 3: 0.5}),
    gdtx.piecewise_interpolate_schedule("cosine", 1.0, {4: 0.5, 8: 0.1}),
    gdtx.exponential_decay(1.0, 10, 0.5),
    gdtx.exponential_decay(1.0, 3, 0.5, transition_begin=2, staircase=True, end_value=0.2),
    gdtx.exponential_decay(1.0, 3, 2.0, end_value=5.0),
    gdtx.inverse_time_decay(0.1, 10, 0.5),
    gdtx.inverse_time_decay(0.1, 2, 0.5, staircase=True),
    gdtx.inverse_power_schedule(1.0, 0.5),
    gdtx.cosine_decay_schedule(0.1, 10),
    gdtx.cosine_decay_schedule(0.1, 5, alpha=0.1, exponent=2.0),
    gdtx.cyclic_schedule(0.1, 1.0, 3),
    gdtx.cyclic_schedule(0.0, 1.0, 3, "triangular2"),
    gdtx.cyclic_schedule(0.1, 1.0, 3, "exp_range", gamma=0.9),
    gdtx.sgdr_schedule([CYCLE, {**CYCLE, "warmup_steps": 0, "decay_steps": 4}]),
    gdtx.join_schedules([gdtx.linear_schedule(0.0, 1.0, 9), LINE, lambda t: 1.0 - t], [3, 5]),
    gdtx.join_schedules([LINE, gdtx.constant_schedule(0.5)], [8]),
    gdtx.join_schedules([LINE.shift(9), gdtx.constant_schedule(0.5)], [3]),
    gdtx.linear_onecycle_schedule(10, 1.0),
    gdtx.cosine_onecycle_schedule(10, 1.0),
    gdtx.onecycle_momentum_schedule(10),
    gdtx.warmup_constant_schedule(0.0, 0.1, 4),
    gdtx.warmup_cosine_decay_schedule(0.0, 1.0, 4, 10),
    gdtx.warmup_cosine_decay_schedule(0.1, 1.0, 4, 10, end_value=0.01, exponent=2.0),
    gdtx.warmup_exponential_decay_schedule(0.0, 1.0, 4, 2, 0.5, transition_begin=2, end_value=0.1),
    gdtx.warmup_stable_decay_schedule(0.0, 1.0, 3, 4, 4),
    gdtx.warmup_stable_decay_schedule(0.0, 1.0, 3, 4, 4, end_value=0.1, decay_type="sqrt"),
    gdtx.inverse_sqrt_schedule(0.0, 1.0, 4),
    LINE.shift(-2),
    (0.5 * LINE).shift(2).clip(0.1, 0.4),
    (1 - LINE) / 3.0 + doubled,
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.factory.__name__)
def test_printed_schedule_is_what_is_computed(schedule, x64):
    printed = gdtx.latex(gdtx.scale_by_schedule(schedule))
    equations = Equations(printed, {f"g_{{{t}}}": Decimal(1) for t in range(1, STEPS + 1)})
    assert not any(word in printed for word in ("operatorname", "mathrm"))
    got = [float(equations(f"u_{{{t}}}", t)) for t in range(1, STEPS + 1)]
    want = np.asarray(jax.vmap(schedule)(jnp.arange(STEPS)))
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-15)


def test_every_schedule_is_tried():
    """But for those that return two, and those that are made of a schedule by its methods."""
    factories = {each.factory for each in SCHEDULES}
    made = {make for make in vars(schedules).values() if hasattr(make, "__gdtx_signature__")}
    assert {make.__name__ for make in made - factories} <= {
        "shift_schedule",
        "clip_schedule",
        "merge_schedules",
    }
    assert len(made) > 15


def test_pieces_are_those_of_the_whole():
    def last(schedule):
        return gdtx.latex(gdtx.scale_by_schedule(schedule)).splitlines()[1]

    assert last(gdtx.warmup_stable_decay_schedule(0.0, 1.0, 3, 4, 4)) == (
        r"c_t &= \begin{cases} \dfrac{t - 1}{3} & t \leq 3 \\ 1 & t \leq 7 \\ "
        r"1 - \min\left( \dfrac{t - 8}{4}, 1 \right) & \text{otherwise} \end{cases} \\"
    )
    assert last(gdtx.warmup_cosine_decay_schedule(0.0, 0.1, 10, 110, end_value=0.01)) == (
        r"c_t &= \begin{cases} 0.1 \dfrac{t - 1}{10} & t \leq 10 \\ 0.01 + 0.09 "
        r"\dfrac{1 + \cos\left( \pi \min\left( \frac{t - 11}{100}, 1 \right) \right)}{2} & "
        r"\text{otherwise} \end{cases} \\"
    )


def test_what_has_no_formula_is_the_call_or_the_name():
    @gdtx.schedule
    def halving(init_value: gdtx.NonNegative):
        return lambda step: init_value * jnp.exp2(-step)

    def line(schedule):
        return gdtx.latex(gdtx.scale_by_schedule(schedule)).splitlines()[1]

    assert line(halving(0.5)) == (
        r"c_t &= \operatorname{halving}\left( \mathrm{init\_value} = 0.5 \right)"
        r"\left( t - 1 \right) \\"
    )
    joined = gdtx.join_schedules([LINE, halving(0.5), lambda t: jnp.exp(t)], [3, 5])
    assert r"\left( t - 4 \right) & t \leq 5 \\ \operatorname{schedule}\left( t - 6" in line(joined)
    seen = []
    jax.make_jaxpr(lambda rate: seen.append(line(gdtx.cosine_decay_schedule(rate, 5))) or rate)(0.1)
    assert r"\mathrm{cosine\_decay\_schedule}" in seen[0]


def test_schedules_have_the_letters_of_what_they_are_made_of():
    tx = gdtx.schedule_free_adamw(0.1, warmup_steps=2)
    assert r"\eta_t &= \begin{cases} \eta \dfrac{t}{2} & t \leq 1 \\ \eta &" in gdtx.latex(tx)
