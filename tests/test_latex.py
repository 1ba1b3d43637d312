"""The formula that a user reads is the method: the printed string is evaluated, step by step."""

import math
import re
from decimal import Decimal
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from everything import EVERY, METHODS
from latex_equations import Equations
from latex_parser import symbols

import gdtx
from gdtx import kfac, latex
from gdtx.formula import notation

STEPS = 12
SYMBOLS = {
    "learning_rate": r"\eta",
    "b1": r"\beta_1",
    "b2": r"\beta_2",
    "b3": r"\beta_3",
    "decay": r"\beta",
    "decay_rate": "c",
    "clipping_threshold": r"\tau",
    "momentum": r"\mu",
    "rho": r"\rho",
    "eps": r"\epsilon",
    "eps_root": r"\epsilon_{\mathrm{root}}",
    "weight_decay": r"\lambda",
    "momentum_decay": r"\psi",
    "alpha": r"\alpha",
    "gamma": r"\gamma",
    "max_norm": "c",
    "reps_rel": r"r_{\epsilon}",
    "eta_minus": "\\eta^{-}",
    "eta_plus": "\\eta^{+}",
    "min_step_size": r"\Delta_{\min}",
    "max_step_size": r"\Delta_{\max}",
    "trust_coefficient": "c",
}

by_method = pytest.mark.parametrize("name", METHODS)


def sample(seed=0):
    rng = np.random.default_rng(seed)
    gradients = rng.choice([-1.0, 1.0], (STEPS, 3)) * 10.0 ** rng.uniform(-2, 2, (STEPS, 3))
    return gradients, rng.normal(size=3)


def given(tx):
    names = {**SYMBOLS, "decay": r"\rho"} if tx.factory is gdtx.rmsprop else SYMBOLS
    return {
        names[name]: Decimal(repr(value)) for name, value in tx.arguments.items()
        if name in names and isinstance(value, float)
    }  # fmt: skip


def evaluated(text, gradients, theta, constants=None, functions=None):
    """The updates of all steps, according to a printed formula."""
    columns = []
    for column, start in zip(gradients.T, theta, strict=True):
        inputs = {f"g_{{{t}}}": Decimal(float(g)) for t, g in enumerate(column, 1)}
        inputs[r"\theta_0"] = Decimal(float(start))
        equations = Equations(text, {**inputs, **(constants or {})}, functions)
        if r"\theta_t &=" in text:
            thetas = [equations(rf"\theta_{{{t}}}", t) for t in range(STEPS + 1)]
            columns.append([float(b - a) for a, b in pairwise(thetas)])
        else:
            columns.append([float(equations(f"u_{{{t}}}", t)) for t in range(1, STEPS + 1)])
    return np.array(columns).T


def paper(method, gradients, theta, learning_rate):
    """What the oracle says, number by number: some methods depend on the whole array."""
    columns = zip(gradients.T, theta, strict=True)
    return np.stack([method.oracle(g, p, learning_rate) for g, p in columns], axis=1)


def trajectory(tx, gradients, theta):
    """What the transformation itself does, in one scan: each number is a tree of its own."""

    def train(column, start):
        def step(carry, g):
            params, state = carry
            updates, state = tx.update({"w": g}, state, params)
            return (gdtx.apply_updates(params, updates), state), updates["w"]

        params = {"w": start}
        return jax.lax.scan(step, (params, tx.init(params)), column)[1]

    return jax.jit(jax.vmap(train, in_axes=(1, 0), out_axes=1))(gradients, theta)


@pytest.mark.parametrize("values", [False, True], ids=["symbols", "values"])
@by_method
def test_printed_formula_is_that_of_the_paper(name, values):
    method = METHODS[name]
    gradients, theta = sample()
    tx = method.make(method.learning_rate)
    got = evaluated(latex(tx, values), gradients, theta, {} if values else given(tx))
    want = paper(method, gradients, theta, method.learning_rate)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=0)


@by_method
def test_scheduled_rate_is_stated(name, x64):
    method = METHODS[name]
    gradients, theta = sample(1)
    tx = method.make(gdtx.linear_schedule(0.3, 0.1, 5))
    got = evaluated(latex(tx), gradients, theta, given(tx))
    want = paper(method, gradients, theta, lambda t: np.interp(t, [0, 5], [0.3, 0.1]))
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=0)


@by_method
def test_symbols_are_defined_before_they_are_used(name):
    method = METHODS[name]
    lines = Equations(latex(method.make(method.learning_rate)), {}).sides
    now = ("symbol", "t", ())
    seen = {"g"}
    for left, right in lines:
        used = {s[1] for s in symbols(right) if s[2] and s[2][-1] == now}
        assert used <= seen
        seen |= {s[1] for s in left}


def documented():
    """Hyperparameters whose docstring begins with a letter."""
    makers = {f for room in (gdtx, kfac) for f in vars(room).values() if hasattr(f, "__wrapped__")}
    lines = re.compile(r"^ +([a-z0-9_, ]+): ((?:\$[^$]+\$(?:, )?)+)", re.MULTILINE)
    for make in makers:
        for names, texts in lines.findall(make.__doc__):
            for name, text in zip(names.split(", "), re.findall(r"\$(.+?)\$", texts), strict=False):
                if make.__gdtx_signature__.is_scalar(name) and not notation.is_plain(name):
                    yield make, name, text


def test_docstrings_have_the_letters_of_formulas():
    found = {
        (make.__name__, name, text): notation.hyperparameter(make, name)[0]
        for make, name, text in documented()
        if not make.__name__.endswith(("schedule", "_decay"))
    }
    known = {key: letter for key, letter in found.items() if letter != notation.word(key[1])}
    assert {key: notation.symbol(key[2]) for key in known} == known
    assert len(known) > 80


# By their names alone: what they do to an array has no shorter name.
WORDS = {"reduce_on_plateau", "sign"}


@pytest.mark.parametrize("values", [False, True])
def test_everything_has_a_formula(values):
    named = {
        name for name, tx in EVERY.items()
        if rf"{{{notation.escaped(name)}}}\left(" in latex(tx, values)
    }  # fmt: skip
    assert named == WORDS | {"from_optax"}


def test_letters_that_names_share_are_the_same_in_all_links():
    """Else it would be the order of imports that gives them to those that state none."""
    shared = {}
    for stated in notation._stated.values():
        for name, letter in stated.names.items():
            if name not in notation._USUAL and not notation.is_plain(name):
                assert shared.setdefault(name, letter) == letter, name
    assert len(shared) > 15


@gdtx.transformation
def softened(learning_rate: gdtx.NonNegative, p: gdtx.Positive = 2.0):
    return gdtx.chain(
        gdtx.elementwise(lambda u: u / (1 + abs(u)) ** p),
        gdtx.scale_by_learning_rate(learning_rate),
    )


@gdtx.transformation
def sharpened(p: gdtx.Positive):
    return gdtx.elementwise(lambda u: jnp.sign(u) * jnp.abs(u) ** p)


def change(u, last):
    return u - last, {"last": u}


def smooth(u, short, long):
    short = 0.5 * short + 0.5 * u
    return short * short + long, {"short": short, "long": 0.9 * long + 0.1 * u}


def pull(u, mean, start, params, step):
    mean = 0.9 * mean + u / step
    return mean + 0.1 * (params - start), {"mean": mean, "start": start}


g, mean, power, root = (
    gdtx.identity(),
    gdtx.chain(gdtx.ema(0.9), gdtx.bias_correction(0.9)),
    gdtx.chain(gdtx.square(), gdtx.ema(0.999), gdtx.bias_correction(0.999)),
    gdtx.chain(gdtx.sqrt(), gdtx.add(1e-8)),
)

EXPRESSIONS = [
    gdtx.chain(),
    gdtx.chain(gdtx.scale_by_learning_rate(0.1), gdtx.trace(0.9)),
    gdtx.chain(gdtx.clip(1.0), gdtx.sgd(0.1, momentum=0.9, nesterov=True)),
    gdtx.chain(gdtx.clip_by_global_norm(2.0), gdtx.adam(0.1)),
    gdtx.chain(gdtx.clip_by_global_norm(2.0), gdtx.add_decayed_weights(0.1), gdtx.rmsprop(0.1)),
    gdtx.chain(gdtx.join(gdtx.divide, mu=mean, nu=gdtx.chain(power, root)), gdtx.scale(-0.1)),
    gdtx.join(gdtx.subtract, slow=gdtx.ema(0.99), fast=gdtx.ema(0.5)),
    gdtx.join(
        gdtx.plus, one=gdtx.trace(0.5), two=gdtx.join(gdtx.multiply, g=g, size=gdtx.absolute())
    ),
    gdtx.join(lambda a, b, c: a * b - c, a=g, b=gdtx.running_max(0.5), c=gdtx.running_sum(0.5)),
    gdtx.chain(gdtx.trace(0.5), gdtx.rmsprop(0.1, initial_scale=0.5, momentum=0.9)),
    gdtx.chain(gdtx.ema(0.5), gdtx.ema(0.6), gdtx.ema(0.7), gdtx.ema(0.5)),
    gdtx.chain(gdtx.adam(0.1), gdtx.adam(0.2, b1=0.8)),
    gdtx.chain(gdtx.running_sum(), gdtx.counted(lambda t: lambda u: u / t)),
    gdtx.feedback(gdtx.subtract, gdtx.running_sum()),
    gdtx.join(gdtx.plus, past=gdtx.previous(gdtx.ema(0.9)), g=gdtx.scale(0.5)),
    gdtx.let(
        gdtx.join(gdtx.multiply, m=gdtx.value_of("m"), w=gdtx.value_of("w")),
        m=gdtx.chain(gdtx.trace(0.9), gdtx.scale(2.0), gdtx.square()),
        w=gdtx.let(gdtx.join(gdtx.subtract, a=gdtx.value_of("m"), b=g), x=gdtx.latest()),
    ),
    gdtx.chain(gdtx.scale(2.0), gdtx.difference(), gdtx.wait(3), gdtx.square()),
    gdtx.chain(gdtx.square(), gdtx.additive_ema(0.5, initial=0.25)),
    gdtx.chain(gdtx.square(), gdtx.rank_one(gdtx.ema(0.5)), gdtx.sqrt()),
    gdtx.chain(gdtx.clip_by_norm(2.0), gdtx.clip_by_block_rms(0.5), gdtx.scale(-0.1)),
    gdtx.chain(gdtx.scale_by_param_block_rms(0.7), gdtx.scale(-0.1), gdtx.keep_nonnegative()),
    gdtx.normalize_by_global_norm(),
    gdtx.adafactor(),
    gdtx.adafactor(0.1, factored=False, multiply_by_parameter_scale=False),
    gdtx.adan(0.1, weight_decay=0.1, ahead=0.3, proximal=False),
    gdtx.signum(0.1, momentum=None),
    gdtx.sgd(0.5 - 0.1 * gdtx.inverse_power_schedule(1.0, 2.0).clip(0.1, 0.5)),
    gdtx.chain(gdtx.scale_by_adadelta(), gdtx.scale_by_adadelta(0.5)),
    gdtx.chain(gdtx.recur(change, last=0.0), gdtx.scale(-0.1)),
    gdtx.recur(smooth, short=1.0, long=2.0),
    gdtx.join_trees(lambda u, m: jax.tree.map(lambda x, y: x - 3 * y, u, m), u=g, m=gdtx.ema(0.5)),
    gdtx.chain(
        gdtx.treewise(lambda u, params: jax.tree.map(lambda x, p: x + p / 2, u, params)),
        gdtx.scale(-0.1),
    ),
    gdtx.chain(gdtx.recur(pull, start=lambda p: 2 * p, mean=lambda p: p * p), gdtx.scale(-0.01)),
    gdtx.accumulate(lambda u, a: a * a / (1 + a * a) + u, initial=0.5, nesterov=True),
    gdtx.scale_by_schedule(lambda step: 1 / (step + 2.0)),
    gdtx.sgd(lambda step: 0.1 * 0.5**step),
    gdtx.sgd(gdtx.inverse_time_decay(0.1, 10, 0.5)),
    gdtx.sgd(gdtx.constant_schedule(0.1), momentum=lambda step: 0.5 + 0.01 * step),
    gdtx.adamw(lambda step: 0.1, weight_decay=lambda step: 1 / (1.0 + step)),
    gdtx.adam(0.1, b1=lambda step: 0.9 - 0.5 / (step + 1.0)),
    gdtx.ema(0.9, initial=0.5),
    gdtx.chain(gdtx.with_params(lambda u, p: u * p - p * p), gdtx.scale(-0.01)),
    gdtx.chain(gdtx.set_to_zero(), gdtx.add(-1.0)),
    gdtx.join(
        gdtx.divide,
        a=gdtx.join(gdtx.divide, a=g, b=gdtx.chain(gdtx.absolute(), gdtx.add(1.0))),
        b=gdtx.join(gdtx.divide, a=gdtx.add(99.0), b=gdtx.chain(gdtx.square(), gdtx.add(2.0))),
    ),
    gdtx.join(
        gdtx.divide,
        a=gdtx.join(gdtx.divide, a=g, b=gdtx.chain(gdtx.absolute(), gdtx.add(1.0))),
        b=gdtx.chain(gdtx.square(), gdtx.add(2.0)),
    ),
    gdtx.chain(
        gdtx.trace(0.5), gdtx.scale_by_trust_ratio(trust_coefficient=0.5, eps=0.1), gdtx.scale(-0.1)
    ),
    gdtx.chain(gdtx.scale_by_trust_ratio(eps=0.1), gdtx.scale_by_lars(0.1), gdtx.scale(-0.1)),
    gdtx.chain(
        gdtx.graft(gdtx.scale_by_adam(), gdtx.adagrad(0.1)), gdtx.scale_by_learning_rate(0.1)
    ),
    gdtx.graft(gdtx.chain(gdtx.clip(1.0), gdtx.sgd(0.1, 0.9)), gdtx.adam(0.1), start=4),
    gdtx.sm3(0.1, b2=0.9),
    gdtx.running_cover(),
    gdtx.tunable(gdtx.adam(0.1), "learning_rate"),
    gdtx.remember(gdtx.lookahead(gdtx.sgd(0.1), sync_period=3)),
    gdtx.lookahead(gdtx.sgd(0.1, momentum=0.9), sync_period=2, slow_step_size=0.8),
    gdtx.skip_large(gdtx.average(gdtx.sgd(0.1)), max_norm=10.0),
    gdtx.schedule_free(gdtx.sgd(0.1), 0.1, weight_lr_power=1.0),
    gdtx.displaced(gdtx.sgd(0.1, 0.8), gdtx.chain(gdtx.scale(0.5), gdtx.ema(0.7)), from_point=True),
    gdtx.displaced(gdtx.adam(0.1), gdtx.chain(gdtx.trace(0.5), gdtx.scale(0.5))),
    softened(0.1),
]


@pytest.mark.parametrize("tx", EXPRESSIONS, ids=repr)
def test_printed_expression_is_what_is_computed(tx, x64):
    gradients, theta = sample(2)
    got = evaluated(latex(tx, values=True), gradients, theta)
    np.testing.assert_allclose(got, trajectory(tx, gradients, theta), rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize(
    ("tx", "numbers"),
    [
        (EXPRESSIONS[2], {r"\delta": 1.0, r"\eta": 0.1, r"\mu": 0.9}),
        (EXPRESSIONS[4], {"c": 2.0, r"\lambda": 0.1, r"\eta": 0.1, r"\rho": 0.9,
                          r"\epsilon": 1e-8}),
        (EXPRESSIONS[5], {r"\beta_1": 0.9, r"\beta_2": 0.999}),
        (EXPRESSIONS[10], {r"\beta": 0.5, r"\bar{\beta}": 0.6, r"\breve{\beta}": 0.7}),
        (
            EXPRESSIONS[11],
            {r"\beta_1": 0.9, r"\bar{\beta}_1": 0.8, r"\beta_2": 0.999, r"\epsilon": 1e-8,
             r"\eta": 0.1, r"\bar{\eta}": 0.2},
        ),
        (EXPRESSIONS[-1], {r"\eta": 0.1, "p": 2.0}),
    ],
)  # fmt: skip
def test_each_number_has_its_symbol(tx, numbers, x64):
    gradients, theta = sample(3)
    constants = {name: Decimal(repr(value)) for name, value in numbers.items()}
    got = evaluated(latex(tx), gradients, theta, constants)
    np.testing.assert_allclose(got, trajectory(tx, gradients, theta), rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("chosen", [True, False])
@pytest.mark.parametrize(
    "make",
    [
        lambda mask: gdtx.adamw(0.1, weight_decay=0.1, mask=mask),
        lambda mask: gdtx.chain(gdtx.masked(gdtx.trace(0.9), mask), gdtx.scale(-0.1)),
        lambda mask: gdtx.lamb(0.1, weight_decay=0.1, mask=mask, trust_mask=mask),
        lambda mask: gdtx.lars(0.1, weight_decay=0.1, mask=mask),
        lambda mask: gdtx.lars(0.1, weight_decay=0.1, trust_mask=mask),
        lambda mask: gdtx.chain(gdtx.masked(gdtx.add(0.5), mask), gdtx.masked(g, mask)),
    ],
)
def test_masks(make, chosen, x64):
    gradients, theta = sample(4)
    tx = make(chosen)
    constants = {"where the mask is true": chosen}
    got = evaluated(latex(tx, values=True), gradients, theta, constants)
    np.testing.assert_allclose(got, trajectory(tx, gradients, theta), rtol=1e-9)


@pytest.mark.parametrize("label", ["rest", "no_decay", "frozen"])
def test_groups(label, x64):
    gradients, theta = sample(5)
    groups = {
        "rest": gdtx.adamw(0.1, weight_decay=0.1),
        "no_decay": gdtx.sgd(0.2, momentum=0.9),
        "frozen": gdtx.set_to_zero(),
    }
    tx = gdtx.chain(gdtx.clip(0.5), gdtx.partition(groups, label))
    constants = {f"if {group}": group == label for group in groups}
    got = evaluated(latex(tx, values=True), gradients, theta, constants)
    # Differences of numbers of 50 digits: 0 is not more than the last of them.
    np.testing.assert_allclose(got, trajectory(tx, gradients, theta), rtol=1e-9, atol=1e-45)


def test_full_matrix(x64):
    gradients, theta = sample(5)
    tx = gdtx.full_matrix_adagrad(0.1, eps=0.1)
    for values, constants in ((True, {}), (False, given(tx))):
        text = latex(tx, values)
        got = evaluated(text, gradients, theta, {"I": 1, **constants})
        np.testing.assert_allclose(got, trajectory(tx, gradients, theta), rtol=1e-9)
    assert r"G_t &= G_{t-1} + g_t g_t^{\top}" in text
    assert r"\left( G_t + \epsilon I \right)^{-1/2} g_t" in text


def test_each_mask_has_its_symbol():
    first, second = (gdtx.add_decayed_weights(0.1, {"w": True, "b": b}) for b in (True, False))
    assert latex(gdtx.chain(first, first)).count("M &=") == 1
    assert r"g_t + M \lambda \theta_{t-1} + \bar{M} \lambda" in latex(gdtx.chain(first, second))


def test_arrays_are_symbols_or_their_numbers():
    assert latex(gdtx.adam(jnp.array(0.1))) == latex(gdtx.adam(0.1))
    assert latex(gdtx.adam(jnp.array(0.1)), values=True) == latex(gdtx.adam(0.1), values=True)
    assert latex(gdtx.sgd(jnp.array([0.1, 0.2])), values=True) == latex(gdtx.sgd(0.1))
    # A constant 0 needs no parameters and has no term; what may change keeps it.
    assert r"\lambda" not in latex(gdtx.adamw(0.1, weight_decay=0.0))
    assert r"\lambda \theta_{t-1}" in latex(gdtx.adamw(0.1, weight_decay=jnp.array(0.0)))
    assert r"\lambda_t \theta_{t-1}" in latex(
        gdtx.adamw(0.1, weight_decay=gdtx.linear_schedule(0.0, 0.1, 10))
    )
    printed = []
    jax.make_jaxpr(lambda rate: printed.append(latex(gdtx.adam(rate))) or rate)(0.1)
    assert printed == [latex(gdtx.adam(0.1))]


def test_what_cannot_be_read_has_its_name():
    def last(text):
        return text.splitlines()[-2]

    def hidden(updates, state, params=None):
        return updates, state

    bare = gdtx.GradientTransformation(lambda params: (), hidden)
    assert last(latex(bare)) == r"u_t &= \operatorname{hidden}\left( g_t \right)"
    assert last(latex(sharpened(2.0))) == r"u_t &= \operatorname{sharpened}\left( g_t \right)"
    tx = gdtx.chain(sharpened(2.0), gdtx.elementwise(jnp.tanh), gdtx.sgd(0.1))
    assert last(latex(tx)) == (
        r"\theta_t &= \theta_{t-1} - \eta \operatorname{tanh}\left( "
        r"\operatorname{sharpened}\left( g_t \right) \right)"
    )
    by_size = gdtx.join(jnp.hypot, one=g, two=gdtx.trace(0.5))
    assert last(latex(by_size)) == r"u_t &= \operatorname{hypot}\left( g_t, v_t \right)"
    tx = gdtx.accumulate(lambda u, a: jnp.logaddexp(u, a))
    assert last(latex(tx)) == r"u_t &= \operatorname{f}\left( g_t \right)"
    assert r"\operatorname{schedule}\left( t - 1 \right)" in latex(gdtx.sgd(lambda t: jnp.exp(-t)))
    pair = gdtx.join_trees(lambda u, v: [u, v], u=g, v=gdtx.trace(0.5))
    assert last(latex(pair)) == r"u_t &= \operatorname{f}\left( g_t, v_t \right)"


@gdtx.transformation
def balanced(learning_rate: gdtx.NonNegative, momentum: gdtx.Decay, wait: float = 0.0):
    waits = [gdtx.trace(0.5)] if wait > 1 else []
    return gdtx.chain(
        *waits,
        gdtx.trace(momentum),
        gdtx.scale(math.sqrt(1 - momentum**2)),
        gdtx.scale_by_learning_rate(learning_rate),
    )


def test_factories_may_do_more_than_arithmetic():
    """What they compute is a number; what they are given keeps its letter."""
    assert latex(balanced(0.1, 0.6)).splitlines()[2:-1] == [
        r"v_t &= \mu v_{t-1} + g_t \\", r"\theta_t &= \theta_{t-1} - 0.8 \eta v_t"
    ]  # fmt: skip
    changing = balanced(0.1, gdtx.linear_schedule(0.5, 0.6, 10))
    assert latex(changing).splitlines()[-2] == r"u_t &= \operatorname{balanced}\left( g_t \right)"


@gdtx.transformation
def warmed(momentum: gdtx.Decay):
    return gdtx.scale_by_schedule(gdtx.linear_schedule(0.0, 1.0, 10) * momentum)


def test_schedules_are_made_of_hyperparameters_too():
    text = latex(warmed(0.5))
    assert r"c_t &= \min\left( \frac{t - 1}{10}, 1 \right) \mu" in text


def test_hyperparameters_are_decided_by_as_the_constants_that_they_are():
    assert latex(gdtx.scale_by_shampoo(b2=1.0)).count("\\beta_2") == 0  # sums, and no averages
    assert latex(gdtx.scale_by_shampoo(b2=jnp.array(1.0))).count("\\beta_2") > 0


def test_branches_and_buffers_have_any_name():
    branches = gdtx.join(gdtx.plus, u=gdtx.ema(0.9), reader=gdtx.identity())
    assert latex(branches) == latex(gdtx.join(gdtx.plus, m=gdtx.ema(0.9), g=gdtx.identity()))
    named = gdtx.let(gdtx.value_of("u"), u=gdtx.ema(0.9))
    assert latex(named) == latex(gdtx.let(gdtx.value_of("x"), x=gdtx.ema(0.9)))
    change = gdtx.recur(lambda g, reader: (g - reader, {"reader": g}), reader=0.0)
    assert r"g_t - r_{t-1}" in latex(change)


def test_shared_statistics_and_inputs_are_printed_once():
    twice = gdtx.join(gdtx.plus, one=mean, two=gdtx.chain(mean, gdtx.square()))
    assert latex(twice).count("m_t &=") == 1
    clipped = latex(gdtx.chain(gdtx.clip(1.0), gdtx.adam(0.1)))
    assert clipped.count(r"\delta \right)") == 2  # once, inside max and outside
    schedule = gdtx.cosine_decay_schedule(0.1, 10)
    shared = latex(gdtx.adamw(schedule, weight_decay=schedule))
    assert shared.count(r"\cos") == 1
    assert r"\lambda_t &= \eta_t" in shared


def test_sign_decides_the_last_line():
    assert latex(gdtx.scale_by_adam()).splitlines()[-2].startswith("u_t &=")
    assert latex(gdtx.adam(0.1)).splitlines()[-2].startswith(r"\theta_t &= \theta_{t-1} - ")
    ascent = gdtx.scale_by_learning_rate(0.1, flip_sign=False)
    assert latex(ascent).splitlines()[-2] == r"u_t &= \eta g_t"


@pytest.mark.parametrize("tx", [3, gdtx.adam])
def test_takes_transformations_only(tx):
    with pytest.raises(TypeError, match="latex: tx must be a transformation"):
        latex(tx)
