"""States, schedules and learning rates, read and drawn."""

import inspect
import math
import subprocess
import sys
from html.parser import HTMLParser
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import optax
import pytest
from everything import METHODS, by_kind
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gdtx
from gdtx.explore.plots import milestones
from gdtx.explore.suggest import suggest

mpl.use("Agg")

# A name of everything, where the state might have it too.
PARAMS = {
    "mu": {"nu": jnp.ones((3, 2)), "value": jnp.ones(2)},
    "step": jnp.ones((), jnp.bfloat16),
    "none": None,
}


@pytest.fixture
def ax():
    from matplotlib import pyplot

    yield pyplot.subplots()[1]
    pyplot.close("all")


def run(tx, params, steps=3):
    state, updates = tx.init(params), None
    for _ in range(steps):
        updates, state = tx.update(params, state, params)
    return updates, state


# state_table


@by_kind
def test_table_is_the_state(name):
    tx = METHODS[name].make(gdtx.linear_schedule(0.1, 0.0, 10))
    state = tx.init(PARAMS)
    table = gdtx.state_table(tx, PARAMS)
    real = [eval(f"state{row.path}", {"state": state}) for row in table.rows]
    assert list(map(id, real)) == list(map(id, jax.tree.leaves(state)))
    for row, array in zip(table.rows, real, strict=True):
        assert (row.shape, row.dtype, row.bytes) == (array.shape, array.dtype.name, array.nbytes)
        assert row.sharding == array.sharding
    assert table.bytes == sum(table.branches.values()) == sum(x.nbytes for x in real)
    buffers = sum(row.bytes for row in table.rows if row.leaf)
    # Nine numbers, in float32.
    assert table.parameters == 9
    if METHODS[name].buffers is not None:
        assert buffers == METHODS[name].buffers * 9 * 4
    assert table.bytes_per_parameter == table.bytes / 9


def test_table_allocates_nothing():
    huge = jax.ShapeDtypeStruct((2**40,), jnp.float32)
    table = gdtx.state_table(gdtx.adam(0.1), {"w": huge})
    assert table.bytes == 2 * (4 * 2**40 + 4)
    assert {row.sharding for row in table.rows} == {None}
    assert "sharding" not in str(table)


def test_table_of_narrow_and_wide_buffers(x64):
    params = {"a": jnp.ones(3, jnp.float64), "b": jnp.ones(5, jnp.complex64)}
    tx = gdtx.chain(gdtx.trace(0.9, dtype="bfloat16"), gdtx.ema(0.9))
    rows = gdtx.state_table(tx, params).rows
    assert [(row.dtype, row.bytes) for row in rows] == [
        ("bfloat16", 6), ("complex64", 40), ("float64", 24), ("complex64", 40),
    ]  # fmt: skip


@pytest.mark.parametrize("abstract", [False, True])
def test_table_has_the_shardings_of_the_state(abstract):
    mesh = Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("data", "model"))
    specs = {"a": PartitionSpec("model", None), "w": PartitionSpec(None, ("data", "model"))}
    placed = {name: NamedSharding(mesh, spec) for name, spec in specs.items()}
    params = {name: jax.device_put(jnp.ones((8, 16)), place) for name, place in placed.items()}
    tx = gdtx.chain(
        gdtx.clip(1.0), gdtx.masked(gdtx.rmsprop(0.1, momentum=0.9), {"a": False, "w": True})
    )
    tx = gdtx.chain(tx, gdtx.adam(gdtx.linear_schedule(0.1, 0.0, 10)))
    state = tx.init(params)
    if abstract:
        params = {
            name: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=p.sharding)
            for name, p in params.items()
        }
    table = gdtx.state_table(tx, params)
    for row, array in zip(table.rows, jax.tree.leaves(state), strict=True):
        assert row.sharding == array.sharding
        assert row.device_bytes == array.addressable_shards[0].data.nbytes
    assert "P(None, ('data', 'model'))" in str(table)
    assert f"{sum(row.device_bytes for row in table.rows):,} on each device" in str(table)


def test_table_text():
    """Of one array nothing says where it would be."""
    params = {"w": jax.ShapeDtypeStruct((64, 10), jnp.float32), "b": jnp.zeros(10)}
    lines = str(gdtx.state_table(gdtx.sgd(0.1, momentum=0.9), params)).splitlines()
    assert lines == [
        "sgd(learning_rate=0.1, momentum=0.9, nesterov=False, accumulator_dtype=None)",
        "",
        "buffer   leaf   shape     dtype    bytes",
        "0.value  ['b']  (10,)     float32     40",
        "0.value  ['w']  (64, 10)  float32  2,560",
        "",
        "0.value                            2,600",
        "",
        "2,600 bytes, 4.00 for each of 650 parameters",
    ]


def test_table_shows_the_largest_rows():
    params = {f"layer{i}": jax.ShapeDtypeStruct((i + 1,), jnp.float32) for i in range(50)}
    whole = gdtx.state_table(gdtx.adam(0.1), params)
    table = gdtx.state_table(gdtx.adam(0.1), params, max_rows=4)
    assert table.rows == whole.rows
    text = str(table)
    assert [f"layer{i}'" in text for i in (47, 48, 49)] == [False, True, True]
    assert text.index("0.mu.0.value") < text.index("0.nu.0.1.value")
    assert "and 98 more, none of them larger" in text
    assert "98 more" in table._repr_html_()
    assert str(whole).splitlines()[-4:] == text.splitlines()[-4:]


def test_table_without_a_state():
    for tx, params in ((gdtx.sgd(0.1), PARAMS), (gdtx.trace(0.9), {})):
        table = gdtx.state_table(tx, params)
        assert (table.bytes, table.rows, table.bytes_per_parameter) == (0, (), 0)
        assert str(table).endswith(f"0 bytes, 0.00 for each of {table.parameters} parameters")


class Cells(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.cells = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1] in ("td", "th"):
            self.cells[-1][-1] += data


def test_table_html():
    @gdtx.transformation
    def odd(name: str = "<b>&"):
        return gdtx.trace(0.9)

    table = gdtx.state_table(odd(), {"<i>": jnp.zeros((2, 3))})
    parsed = Cells(table._repr_html_())
    assert parsed.open == []
    assert parsed.cells == [
        ["buffer", "leaf", "shape", "dtype", "bytes", "sharding"],
        ["value", "['<i>']", "(2, 3)", "float32", "24", "cpu:0"],
        ["value", "", "", "", "24", ""],
    ]
    assert "odd(name=&#x27;&lt;b&gt;&amp;&#x27;)" in table._repr_html_()


# find


def same(found, tree):
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    assert all(a is b for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(tree), strict=True))


def test_find_a_branch():
    _, state = run(gdtx.adam(0.1), PARAMS)
    same(gdtx.find(state, "mu"), state[0]["mu"][0].buffers["value"])
    same(gdtx.find(state, "nu"), state[0]["nu"][0][1].buffers["value"])
    mean = gdtx.find(state, "mu")
    assert jax.tree.structure(mean) == jax.tree.structure(PARAMS)
    # Three gradients of 1: 1 - 0.9³.
    np.testing.assert_allclose(mean["mu"]["nu"], 0.271, rtol=1e-6)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: gdtx.chain(gdtx.clip(1.0), gdtx.chain(tx, gdtx.scale(2.0))),
        lambda tx: gdtx.masked(tx, True),
        lambda tx: gdtx.join(gdtx.plus, a=tx, b=gdtx.identity()),
        gdtx.tunable,
    ],
)
def test_find_inside_of_others(wrap):
    _, state = run(wrap(gdtx.adam(gdtx.linear_schedule(0.1, 0.0, 10))), PARAMS)
    np.testing.assert_allclose(gdtx.find(state, "mu")["mu"]["nu"], 0.271, rtol=1e-6)


def test_find_of_masked_leaves_is_none():
    tx = gdtx.masked(gdtx.trace(0.9), {"a": True, "b": False})
    found = gdtx.find(tx.init({"a": jnp.ones(2), "b": jnp.ones(3)}), "value")
    assert found["b"] is None
    assert found["a"].shape == (2,)


def test_find_buffers_of_recur():
    for learning_rate in (0.1, gdtx.linear_schedule(0.1, 0.0, 10)):
        params = {"step": jnp.ones(2), "sign": jnp.ones(3)}
        _, state = run(gdtx.rprop(learning_rate), params)
        for name, value in (("sign", 1.0), ("step", 0.1 * 1.2**2)):
            found = gdtx.find(state, name)
            assert found.keys() == params.keys()
            np.testing.assert_allclose(found["step"], value, rtol=1e-6)


def test_find_several():
    _, state = run(gdtx.amsgrad(0.1), PARAMS)
    both = gdtx.find(state, "nu")
    assert list(both) == ["0.nu.0.1.value", "0.nu.0.2.value"]
    same(both["0.nu.0.2.value"], state[0]["nu"][0][2].buffers["value"])
    for path, tree in both.items():
        same(gdtx.find(state, path), tree)
    two = gdtx.chain(gdtx.scale_by_adam(), gdtx.scale_by_adam())
    assert list(gdtx.find(two.init(PARAMS), "mu")) == ["0.mu.0.value", "1.mu.0.value"]
    same(gdtx.find(run(two, PARAMS)[1], "1.mu")["none"], None)


def test_find_counts_by_their_own_name():
    state = run(gdtx.adam(gdtx.linear_schedule(0.1, 0.0, 10)), PARAMS)[1]
    assert set(gdtx.find(state, "step")) == {"step", "0.mu.1.step", "0.nu.0.2.step"}
    assert gdtx.find(run(gdtx.sgd(gdtx.linear_schedule(0.1, 0.0, 10)), PARAMS)[1], "step") == 3
    nadam = gdtx.nadam(0.1, momentum_decay=0.004).init(PARAMS)
    products = [state.product for state in (nadam[0]["mu"]["ahead"][1], nadam[0]["mu"]["now"][0])]
    same(list(gdtx.find(nadam, "product").values()), products)


def test_find_in_a_branch_that_only_counts():
    tx = gdtx.join(gdtx.plus, old=gdtx.bias_correction(0.9), g=gdtx.identity())
    for name in ("old", "g"):
        with pytest.raises(ValueError, match=f"nothing under the name '{name}'; it keeps old.step"):
            gdtx.find(tx.init(PARAMS), name)


@pytest.mark.parametrize("name", ["lambda", "", "2.value", "layer", "m", "buffers"])
def test_find_says_what_there_is(name):
    state = gdtx.chain(gdtx.adam(0.1), gdtx.identity()).init({"layer": jnp.zeros(2)})
    with pytest.raises(ValueError, match=f"nothing under the name '{name}'; it keeps 0.0.mu.0.val"):
        gdtx.find(state, name)


def test_find_in_an_empty_state():
    with pytest.raises(ValueError, match="it keeps nothing at all"):
        gdtx.find(gdtx.sgd(0.1).init(PARAMS), "mu")


def test_find_in_states_from_elsewhere():
    class Params(NamedTuple):
        mu: jax.Array
        sigma: jax.Array

    params = Params(jnp.ones(2), jnp.ones(3))
    tx = gdtx.chain(gdtx.clip(1.0), optax.scale_by_adam(), gdtx.trace(0.9))
    state = tx.init(params)
    same(gdtx.find(state, "mu"), state[1].mu)
    assert gdtx.find(state, "count") == 0
    with pytest.raises(ValueError, match=r"keeps 1\.count, 1\.mu, 1\.nu, 2\.value"):
        gdtx.find(state, "sigma")

    class Wrapped(NamedTuple):
        slow: Params
        fast: tuple

    same(gdtx.find(Wrapped(params, state), "1.mu"), state[1].mu)
    same(gdtx.find(Wrapped(params, state), "slow"), params)


def test_find_inside_jit():
    tx = gdtx.adam(0.1)
    found = jax.jit(lambda state: gdtx.find(state, "mu"))(tx.init(PARAMS))
    assert jax.tree.structure(found) == jax.tree.structure(PARAMS)


# describe


def test_describe():
    params = {"w": jnp.array([3.0, 4.0]), "z": jnp.zeros(2), "deep": [jnp.array([[12.0]])]}
    grads = jax.tree.map(lambda p: jnp.full_like(p, 2.0), params)
    tx = gdtx.chain(
        gdtx.clip_by_global_norm(100.0),
        gdtx.sgd(gdtx.linear_schedule(0.5, 0.0, 10), momentum=jnp.array(0.5)),
    )
    updates, state = tx.update(grads, tx.init(params), params)
    facts = gdtx.describe(tx, state, updates, params, grads=grads)
    want = {
        "0.max_norm": 100.0,
        "1.learning_rate": 0.5,
        "1.momentum": 0.5,
        "1.nesterov": False,
        "step": 1,
        "grad_norm": 2 * math.sqrt(5),
        "update_norm": math.sqrt(5),
        "param_norm": 13.0,
        "update_ratio": math.sqrt(5) / 13,
        "update_ratio/w": math.sqrt(2) / 5,
        "update_ratio/z": math.inf,
        "update_ratio/deep/0": 1 / 12,
    }
    assert facts == pytest.approx(want, rel=1e-6)
    assert {type(value) for value in facts.values()} == {int, float, bool}


# Of each kind of count, rate and hyperparameter a method that has it.
TOLD = {"momentum", "adam", "nadam with momentum schedule", "rprop", "adafactor", "lamb"}


@pytest.mark.first(2)
@pytest.mark.parametrize(
    "name", [pytest.param(k, marks=() if k in TOLD else pytest.mark.slow) for k in METHODS]
)
def test_describe_inside_jit(name):
    tx = METHODS[name].make(gdtx.linear_schedule(0.1, 0.0, 10))
    params = {"a": jnp.ones((3, 2)), "b": jnp.ones(())}
    with jax.disable_jit():  # whose operations all methods have in common
        updates, state = run(tx, params)
    outside = gdtx.describe(tx, state, updates, params)
    assert outside["step"] == 3
    assert outside["learning_rate"] == pytest.approx(0.08), "that of the third update"
    inside = jax.jit(lambda tx, *args: gdtx.describe(tx, *args))
    if name != "adam":
        shapes = jax.eval_shape(inside, tx, state, updates, params)
        assert {k: x.shape for k, x in shapes.items()} == dict.fromkeys(outside, ())
        return
    facts = inside(tx, state, updates, params)
    assert outside == pytest.approx({k: v.item() for k, v in facts.items()}, rel=1e-5)
    batch = jax.vmap(lambda u: gdtx.describe(tx, state, u, params))(
        jax.tree.map(lambda x: jnp.stack([x, 2 * x]), updates)
    )
    np.testing.assert_allclose(batch["update_norm"][1], 2 * outside["update_norm"], rtol=1e-5)


def test_describe_without_a_count():
    facts = gdtx.describe(gdtx.sgd(0.1, momentum=0.9), gdtx.sgd(0.1, momentum=0.9).init(PARAMS))
    assert facts == {"learning_rate": 0.1, "momentum": 0.9, "nesterov": False}


def test_describe_leaves_out_what_is_no_scalar():
    tx = gdtx.masked(gdtx.adamw(jnp.array([0.1, 0.2])), True)
    facts = gdtx.describe(tx, tx.replace(**{"inner.learning_rate": 0.1}).init(PARAMS))
    assert "inner.learning_rate" not in facts
    assert facts["inner.weight_decay"] == 1e-4
    assert "inner.mask" not in facts


def test_describe_frozen_and_empty_leaves():
    params = {"a": jnp.ones(2), "b": jnp.ones(3), "c": jnp.ones((0, 2)), "d": jnp.zeros(2)}
    updates = {"a": jnp.ones(2), "b": None, "c": jnp.ones((0, 2)), "d": jnp.zeros(2)}
    with jax.debug_nans(True):
        facts = gdtx.describe(gdtx.sgd(0.1), (), updates, params)
    ratios = {k: v for k, v in facts.items() if k.startswith("update_ratio/")}
    assert ratios == {"update_ratio/a": 1.0, "update_ratio/c": 0.0, "update_ratio/d": 0.0}
    with pytest.raises(ValueError, match="describe: updates are not a tree like params"):
        gdtx.describe(gdtx.sgd(0.1), (), {"a": jnp.ones(2)}, params)


def test_describe_of_one_array():
    facts = gdtx.describe(gdtx.sgd(0.1), (), jnp.array([3.0]), jnp.array([-4.0]))
    assert facts["update_ratio"] == 0.75
    assert [key for key in facts if "ratio" in key] == ["update_ratio"]


# schedules


def test_schedule_values():
    line = gdtx.linear_schedule(0.0, 1.0, 4)
    np.testing.assert_allclose(gdtx.schedule_values(line, 6), [0, 0.25, 0.5, 0.75, 1, 1])
    np.testing.assert_allclose(gdtx.schedule_values(line, np.array([3, 1])), [0.75, 0.25])
    assert gdtx.schedule_values(lambda t: 0.5, 3).tolist() == [0.5] * 3
    both = gdtx.schedule_values({"a": line, "b": lambda t: 2.0 * t}, 3)
    assert {label: list(values) for label, values in both.items()} == {
        "a": [0, 0.25, 0.5],
        "b": [0, 2, 4],
    }


def test_labels_tell_schedules_apart():
    def rule(t):
        return 1.0 * t

    rules = [
        gdtx.linear_schedule(0.0, 1.0, 10),
        gdtx.constant_schedule(0.1),
        gdtx.linear_schedule(0.0, 1.0, 20),
        gdtx.linear_schedule(0.0, 2.0, 20),
        rule,
        lambda t: 1.0,
        lambda t: 2.0,
    ]
    assert list(gdtx.schedule_values(rules, 2)) == [
        "linear_schedule(end_value=1.0, transition_steps=10)",
        "constant_schedule",
        "linear_schedule(end_value=1.0, transition_steps=20)",
        "linear_schedule(end_value=2.0, transition_steps=20)",
        "rule",
        "<lambda>",
        "<lambda>'",
    ]


LINE = gdtx.linear_schedule(0.0, 1.0, 10)


@pytest.mark.parametrize(
    ("schedule", "marks"),
    [
        (LINE, {10: "end"}),
        (gdtx.linear_schedule(0.0, 1.0, 10, transition_begin=5), {5: "begin", 15: "end"}),
        (gdtx.cosine_decay_schedule(1.0, 30), {30: "end"}),
        (gdtx.exponential_decay(1.0, 10, 0.5), {}),
        (gdtx.exponential_decay(1.0, 10, 0.5, transition_begin=5), {5: "begin"}),
        (gdtx.warmup_cosine_decay_schedule(0.0, 1.0, 10, 110), {10: "warmup", 110: "end"}),
        (gdtx.warmup_cosine_decay_schedule(0.0, 1.0, 0, 110), {110: "end"}),
        (
            gdtx.join_schedules([LINE, gdtx.cosine_decay_schedule(1.0, 50), LINE], [20, 40]),
            {10: "end", 20: "boundary", 40: "boundary", 50: "end"},
        ),
        (gdtx.join_schedules([LINE, LINE], [jnp.array(7)]), {7: "boundary", 17: "end"}),
        (
            gdtx.piecewise_constant_schedule(1.0, {30: 0.5, 60: 0.1}),
            {30: "boundary", 60: "boundary"},
        ),
        (gdtx.constant_schedule(1.0), {}),
        (lambda t: 1.0, {}),
        (LINE.shift(5), {5: "begin", 15: "end"}),
        (LINE * 0.5 + gdtx.cosine_decay_schedule(1.0, 30), {10: "end", 30: "end"}),
        (LINE.clip(high=0.5), {10: "end"}),
        (gdtx.cyclic_schedule(0.0, 1.0, 20), {20: "peak", 40: "cycle"}),
        (gdtx.cosine_onecycle_schedule(100, 1.0), {30: "boundary", 100: "end"}),
        (
            gdtx.warmup_stable_decay_schedule(0.0, 1.0, 10, 80, 20),
            {10: "warmup", 90: "begin", 110: "end"},
        ),
        (gdtx.inverse_sqrt_schedule(0.0, 1.0, 10), {10: "warmup"}),
    ],
)
def test_milestones(schedule, marks):
    assert milestones(schedule) == marks


def test_plot_schedule(ax):
    schedule = gdtx.warmup_cosine_decay_schedule(0.0, 1.0, 10, 110)
    assert gdtx.plot_schedule(schedule, 200, ax=ax) is ax
    curve, *marks = ax.get_lines()
    np.testing.assert_array_equal(curve.get_xdata(), np.arange(200))
    np.testing.assert_array_equal(curve.get_ydata(), gdtx.schedule_values(schedule, 200))
    assert [mark.get_xdata()[0] for mark in marks] == [10, 110]
    assert [text.get_text() for text in ax.texts] == ["warmup 10", "end 110"]
    # One is named at the axis, where a legend would lie on the curve.
    assert (ax.get_ylabel(), ax.get_legend()) == ("warmup_cosine_decay_schedule", None)
    ax.figure.draw_without_rendering()


def test_plot_several_schedules(ax):
    gdtx.plot_schedule({"one": LINE, "two": gdtx.cosine_decay_schedule(1.0, 30)}, 20, ax=ax)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "two"]
    assert ax.get_ylabel() == "value"
    # Two curves and one mark: the other is beyond the steps.
    assert len(ax.get_lines()) == 3


def test_plots_make_their_own_axes(monkeypatch):
    from matplotlib import pyplot

    monkeypatch.setattr(pyplot, "show", lambda *args, **kwargs: pytest.fail("shown"))
    first, second = gdtx.plot_schedule(LINE, 20), gdtx.plot_schedule(LINE, 20)
    assert first.figure is not second.figure
    pyplot.close("all")


def test_matplotlib_is_optional():
    program = """
import sys, gdtx
assert not any(name.split(".")[0] == "matplotlib" for name in sys.modules)
sys.modules["matplotlib"] = None
gdtx.schedule_values(gdtx.linear_schedule(0.0, 1.0, 4), 3)
try:
    gdtx.plot_schedule(gdtx.linear_schedule(0.0, 1.0, 4), 3)
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    message = "plot_schedule needs matplotlib: pip install matplotlib (the extra `viz`)"
    assert done.stdout.strip() == message, done


# lr_range_test


def quadratic(w, curvature):
    return 0.5 * curvature * w**2


def regression(params, batch):
    x, y = batch
    return jnp.mean((x @ params["w"] + params["b"] - y) ** 2)


def data(batches=40):
    x = jax.random.normal(jax.random.key(0), (batches, 8, 3))
    y = x @ jnp.array([1.0, -2.0, 0.5]) + jax.random.normal(jax.random.key(1), (batches, 8))
    return {"w": jnp.zeros(3), "b": jnp.zeros(())}, (x, y)


@pytest.mark.first(2)
@pytest.mark.parametrize("make_tx", [gdtx.sgd, gdtx.adam, optax.adam, lambda lr: gdtx.sgd(lr, 0.9)])
def test_range_test_is_a_training_loop(make_tx):
    params, batches = data()
    result = gdtx.lr_range_test(
        regression, params, batches, make_tx, min_lr=1e-3, max_lr=3.0, steps=60, smoothing=0.9
    )
    rates = [1e-3 * 3000.0 ** (i / 59) for i in range(60)]
    losses, smoothed, average, best = [], [], 0.0, math.inf
    state, gradient = (
        make_tx(jnp.float32(rates[0])).init(params), jax.jit(jax.value_and_grad(regression))
    )  # fmt: skip
    for i, rate in enumerate(rates):
        batch = jax.tree.map(lambda x, i=i: x[i % 40], batches)
        loss, grads = gradient(params, batch)
        updates, state = make_tx(jnp.float32(rate)).update(grads, state, params)
        params = gdtx.apply_updates(params, updates)
        average = 0.9 * average + 0.1 * float(loss)
        losses.append(float(loss))
        smoothed.append(average / (1 - 0.9 ** (i + 1)))
        best = min(best, smoothed[-1])
        if smoothed[-1] > 4 * best:
            break
    assert result.diverged == (len(losses) < 60)
    np.testing.assert_allclose(result.learning_rates, rates[: len(losses)], rtol=1e-5)
    np.testing.assert_allclose(result.losses, losses, rtol=2e-3)
    np.testing.assert_allclose(result.smoothed, smoothed, rtol=2e-3)


@pytest.mark.parametrize("h", [0.1, 4.0, 300.0])
def test_quadratic_diverges_beyond_two_over_its_curvature(h):
    """A step multiplies the error by 1 - ηh, whose magnitude is 1 at η = 2/h exactly."""
    result = gdtx.lr_range_test(
        quadratic, jnp.array(1.0), jnp.full(100, h), gdtx.sgd,
        min_lr=1.5 / h, max_lr=10 / h, smoothing=0.0,
    )  # fmt: skip
    rising = int(np.argmax(np.diff(result.losses) > 0))
    before, after = result.learning_rates[rising - 1 : rising + 1] * h
    assert before < 2 < after
    assert result.diverged
    assert result.losses[-2] <= 4 * result.losses.min() < result.losses[-1]


def test_range_test_is_pure_and_repeatable():
    params, batches = data()
    before = jax.tree.map(np.asarray, params)
    one, other = (gdtx.lr_range_test(regression, params, batches, gdtx.adam) for _ in range(2))
    np.testing.assert_array_equal(one.losses, other.losses)
    jax.tree.map(np.testing.assert_array_equal, before, params)


def test_range_test_stops_at_a_loss_that_is_not_finite():
    batches = jnp.where(jnp.arange(20) == 7, jnp.nan, 1.0)

    def test(batches):
        return gdtx.lr_range_test(
            quadratic, jnp.array(1.0), batches, gdtx.sgd, min_lr=1e-3, max_lr=0.1
        )

    result = test(batches)
    assert (len(result.losses), result.diverged) == (8, True)
    assert np.isfinite(result.losses[:-1]).all()
    never = test(batches[:7])
    assert (len(never.losses), never.diverged) == (7, False)
    at_once = test(batches[7:])
    assert (len(at_once.losses), at_once.suggestions) == (1, {})


def noisy(w, x):
    """A loss that does not depend on the parameters, but for what rounding makes of it."""
    return jnp.mean(jnp.square(x)) + 1e-7 * jnp.sin(1e7 * w.sum())


@pytest.mark.parametrize("smoothing", [0.0, 0.9, 0.98, 0.999])
@pytest.mark.parametrize(
    "loss",
    [
        lambda w, x: 0.0 * w.sum() + 0.1,
        lambda w, x: 0.0 * w.sum() - 1e20,
        lambda w, x: 0.0 * w.sum(),
        noisy,
        lambda w, x: noisy(w, x).astype(jnp.bfloat16),
        # Flat, then up.
        lambda w, x: 0.1 + jnp.square(jnp.maximum(jnp.abs(w).max() - 1.1, 0)),
    ],
    ids=["constant", "large", "zero", "rounded", "bfloat16", "rising"],
)
@pytest.mark.diagonal
def test_nothing_is_suggested_out_of_rounding(loss, smoothing):
    rows = np.tile(np.linspace(0.1, 3, 500, dtype=np.float32), (40, 1))
    batches = np.random.default_rng(0).permuted(rows, axis=1)
    with pytest.warns(UserWarning, match="^lr_range_test: at no learning rate from .* to .* fall"):
        result = gdtx.lr_range_test(
            loss, jnp.ones(2), batches, gdtx.sgd, smoothing=smoothing, divergence=math.inf
        )
    assert result.suggestions == {}


def test_range_test_of_a_negative_loss():
    """Four times the best would be below every loss."""
    result = gdtx.lr_range_test(
        lambda w, x: quadratic(w, x) - 10.0, jnp.array(1.0), jnp.ones(100), gdtx.sgd, max_lr=1.0
    )
    assert not result.diverged


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float64])
def test_range_test_keeps_dtypes(dtype, x64):
    params = {"w": jnp.ones(3, dtype)}
    result = gdtx.lr_range_test(
        lambda p, x: jnp.sum((p["w"] * x) ** 2), params, jnp.ones(20, dtype), gdtx.adam
    )
    wide = np.float64 if dtype == jnp.float64 else np.float32
    assert {a.dtype.type for a in result if isinstance(a, np.ndarray)} == {wide}


def test_range_test_takes_any_tree_of_batches():
    keys = jax.random.split(jax.random.key(0), 30)
    result = gdtx.lr_range_test(
        lambda w, batch: quadratic(w + jax.random.normal(batch["key"]), batch["h"]),
        np.float32(1.0), {"key": keys, "h": np.ones(30, np.float32)}, gdtx.sgd,
    )  # fmt: skip
    assert len(result.losses) == 30


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batches": (jnp.ones(3), jnp.ones(4))}, "batches must be stacked .* got .*3.*4"),
        ({"batches": jnp.ones(())}, "batches must be stacked"),
        ({"batches": jnp.ones((0, 2))}, "batches must be stacked"),
        ({"batches": ()}, "batches must be stacked"),
        ({"min_lr": 0.0}, "min_lr must be positive and below max_lr, got .0.0, 10.0."),
        ({"min_lr": 20.0}, "min_lr must be positive and below max_lr"),
        ({"steps": 1}, "steps must be at least 2, got 1"),
        ({"smoothing": 1.0}, r"smoothing must be in \[0, 1\), got 1.0"),
        ({"divergence": 1.0}, "divergence must be larger than 1, got 1.0"),
    ],
)
def test_range_test_errors(changes, message):
    arguments = {"params": jnp.array(1.0), "batches": jnp.ones(9), "make_tx": gdtx.sgd} | changes
    with pytest.raises(ValueError, match=f"lr_range_test: {message}"):
        gdtx.lr_range_test(quadratic, **arguments)


# suggestions, on curves where they are known; x is the logarithm of the learning rate


def curve(f, low=-6.0, high=0.0, points=601):
    x = np.linspace(low, high, points)
    return suggest(10**x, f(x))


def test_minimum_is_a_tenth_of_the_lowest():
    assert curve(lambda x: (x + 1) ** 2)["minimum"] == pytest.approx(0.01, rel=1e-6)


def test_steepest_is_the_inflection():
    found = curve(lambda x: -np.tanh(3 * (x + 2.5)))["steepest"]
    assert found == pytest.approx(10**-2.5, rel=1e-6)


def test_valley_is_two_thirds_down():
    # Flat, down from -4 to -1, up.
    found = curve(lambda x: np.maximum(-np.clip(x, -4, -1), 3 * (x + 1) + 1))
    assert found["valley"] == pytest.approx(10**-2, rel=1e-6)


def test_valley_spans_noise():
    """Points out of line do not end the valley, and the shorter one after it does not win."""
    x = np.linspace(-6, 0, 601)
    y = np.where(x < -1, -np.maximum(x, -4), 100 - 50 * x)
    y[250:450:10] += 0.5
    found = suggest(10**x, y)
    # The last point before -1 is the lowest.
    assert found["valley"] == pytest.approx(10 ** (-4 + 2.99 * 2 / 3), rel=1e-6)


def test_slide_stops_where_the_slopes_agree():
    # It falls from -1 to 1, with the slope x² - 1.
    def cubic(x):
        return x**3 / 3 - x

    low, high, width = -1.0, 2.0, 1.2
    fall = cubic(-1.0) - cubic(1.0)
    # Slopes at right r and left r - w differ by (2 r w - w²) / fall, which is 1/2 at:
    right = 0.5 * fall / (2 * width) + width / 2
    found = curve(cubic, low, high, 3001)["slide"]
    assert found == pytest.approx(10 ** (right - width), rel=2e-2)


def test_nothing_to_suggest():
    for f in (lambda x: 0 * x + 1.0, lambda x: x):
        assert all(math.isnan(rate) for rate in curve(f).values())
    assert all(math.isnan(rate) for rate in suggest(np.ones(2), np.ones(2)).values())
    assert all(math.isnan(rate) for rate in suggest(np.ones(9), np.full(9, np.nan)).values())


def test_suggestions_do_not_depend_on_scale_or_points():
    def f(x):
        return -np.tanh(2 * (x + 3)) + np.exp(4 * (x + 1))

    want = curve(f)
    assert all(np.isfinite(rate) for rate in want.values())
    for found in (curve(lambda x: 1000 * f(x) + 7), curve(f, points=1201)):
        assert found == pytest.approx(want, rel=0.05)


def test_suggestions_of_a_real_test_train():
    """With every suggestion, one pass over the data ends near the noise in it, which is 1."""
    params, batches = data(200)
    result = gdtx.lr_range_test(regression, params, batches, gdtx.adam)

    @jax.jit
    def train(rate):
        def step(carry, batch):
            params, state = carry
            loss, grads = jax.value_and_grad(regression)(params, batch)
            updates, state = gdtx.adam(rate).update(grads, state, params)
            return (gdtx.apply_updates(params, updates), state), loss

        start = params, gdtx.adam(rate).init(params)
        return jax.lax.scan(step, start, batches)[1][-50:].mean()

    losses = [train(jnp.asarray(rate, jnp.float32)) for rate in result.suggestions.values()]
    assert max(losses) < 2 < result.losses[:10].mean() / 2
    assert list(result.suggestions) == ["valley", "steepest", "slide", "minimum"]
    assert "valley=" in repr(result)
    assert "stopped at 10;" in repr(result)


def test_plot_range_test(ax):
    params, batches = data(200)
    result = gdtx.lr_range_test(regression, params, batches, gdtx.adam)
    assert gdtx.plot_lr_range_test(result, ax=ax) is ax
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert [label.split(":")[0] for label in labels] == [
        "loss", "smoothed", "valley", "steepest", "slide", "minimum",
    ]  # fmt: skip
    np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), result.losses)
    for line, rate in zip(ax.get_lines()[2:], result.suggestions.values(), strict=True):
        assert line.get_xdata() == [rate]
    ax.figure.draw_without_rendering()


def test_plot_of_a_test_that_failed_at_once(ax):
    result = gdtx.lr_range_test(quadratic, jnp.array(jnp.nan), jnp.ones(9), gdtx.sgd)
    gdtx.plot_lr_range_test(result, ax=ax)
    ax.figure.draw_without_rendering()


def test_public_functions_have_examples():
    for name in ("describe", "find", "lr_range_test", "plot_lr_range_test", "plot_schedule",
                 "schedule_values", "state_table"):  # fmt: skip
        assert ">>> " in (inspect.getdoc(getattr(gdtx, name)) or "")
