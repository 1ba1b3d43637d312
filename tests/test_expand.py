"""Formulas level by level, and as text."""

import chex
import jax
import jax.numpy as jnp
import pytest
from everything import EVERY, METHODS, by_kind

import gdtx
from gdtx import expand, tree

by_method = pytest.mark.parametrize("name", METHODS)
DEPTHS = (0, 1, 2, 3, None)
SETTINGS = {
    "number": lambda make: make(0.125),
    "schedule": lambda make: make(gdtx.linear_schedule(0.5, 0.25, 3)),
}
# This one's formula has functions of its own, which are equal to none and have no name.
by_comparable = pytest.mark.parametrize(
    "name", [name for name in METHODS if name != "nadam with momentum schedule"]
)
by_setting = pytest.mark.parametrize("setting", SETTINGS)


def trained(*transformations):
    """The parameters after three steps of each, in one program."""

    def train(tx):
        params = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(3.0)}

        def step(carry, _):
            params, state = carry
            gradients = jax.tree.map(lambda p: p * jnp.abs(p), params)
            updates, state = tx.update(gradients, state, params)
            return (gdtx.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), length=3)[0][0]

    return jax.jit(lambda: [train(tx) for tx in transformations])()


def parts(tx):
    yield tx
    for value in jax.tree.leaves(dict(tx.arguments), is_leaf=is_transformation):
        if is_transformation(value):
            yield from parts(value)


def is_transformation(value):
    return isinstance(value, gdtx.GradientTransformation)


@by_setting
@by_kind
@pytest.mark.diagonal
def test_expansion_is_the_same_transformation(name, setting):
    tx = SETTINGS[setting](METHODS[name].make)
    formula, want = trained(expand(tx, None), tx)
    chex.assert_trees_all_close(formula, want, rtol=1e-6)


@by_comparable
def test_all_the_way_are_named_links(name):
    formula = expand(METHODS[name].make(0.125), None)
    assert expand(formula, None) == formula
    used = {part.factory for part in parts(formula)}
    assert not used & {gdtx.elementwise, gdtx.accumulate, gdtx.recur, gdtx.counted}
    assert not used & {gdtx.with_params, gdtx.GradientTransformation}
    assert not any(factory.__module__.startswith("gdtx.methods") for factory in used - {
        gdtx.scale_by_rprop
    })  # fmt: skip
    assert expand(expand(METHODS[name].make(0.125), 2), None) == formula


def test_levels():
    mean, power, root = gdtx.first_moment(0.9), gdtx.second_moment(0.999), gdtx.root(1e-8)
    tx = gdtx.adam(0.125)
    assert expand(tx, 0) is tx
    one = gdtx.chain(gdtx.scale_by_adam(), gdtx.scale_by_learning_rate(0.125))
    assert expand(tx) == expand(tx, 1) == one
    fraction = gdtx.join(gdtx.divide, mu=mean, nu=gdtx.chain(power, root))
    assert expand(tx, 2) == gdtx.chain(fraction, gdtx.scale(-0.125))
    mean = gdtx.chain(gdtx.ema(0.9), gdtx.bias_correction(0.9))
    power = gdtx.chain(gdtx.square(), gdtx.ema(0.999), gdtx.bias_correction(0.999))
    deepest = gdtx.join(gdtx.divide, mu=mean, nu=gdtx.chain(power, root))
    assert expand(tx, 3) == expand(tx, None) == gdtx.chain(deepest, gdtx.scale(-0.125))
    # Combinators are no level: what is in them is.
    masked = gdtx.masked(gdtx.chain(tx, tx), True)
    assert expand(masked, 1) == gdtx.masked(gdtx.chain(one, one), True)
    assert list(expand(tx, 2).arguments["links"][0].arguments) == ["merge", "mu", "nu"]


def test_adam_reads_as_its_formula():
    assert str(expand(gdtx.scale_by_adam())) == (
        "join(divide, mu=first_moment(0.9), nu=chain(second_moment(0.999), root(1e-08)))"
    )


def test_formulas_have_no_empty_words():
    """No sum with 0, and no chain of one."""
    methods = {name: row.make(0.125) for name, row in METHODS.items()}
    for name, tx in (EVERY | methods).items():
        for depth in DEPTHS[1:]:
            for part in parts(expand(tx, depth)):
                assert part != gdtx.add(0.0), name
                assert part.factory is not gdtx.chain or len(part.arguments["links"]) > 1, name


def test_ends():
    ema = gdtx.ema(0.9)
    assert expand(ema).factory is gdtx.accumulate
    assert expand(ema, None) == expand(gdtx.chain(ema), 3).arguments["links"][0] == ema
    for tx in (gdtx.identity(), gdtx.GradientTransformation(lambda p: (), lambda u, s, p: (u, s))):
        assert expand(tx) == expand(tx, None) == tx
    of_a_schedule = gdtx.chain(gdtx.ema(gdtx.linear_schedule(0.5, 0.9, 10)))
    assert expand(of_a_schedule, None) == of_a_schedule
    decay = gdtx.add_decayed_weights(0.1, mask=True)
    assert expand(decay, None) == decay


@pytest.mark.parametrize("f", [expand, tree])
def test_errors(f):
    with pytest.raises(TypeError, match="expand: tx must be a transformation"):
        f(gdtx.adam)
    with pytest.raises(ValueError, match="expand: depth must be a non-negative integer or None"):
        f(gdtx.adam(0.1), -1)
    with pytest.raises(ValueError, match=r"expand: depth must be an integer, got 1\.5"):
        f(gdtx.adam(0.1), 1.5)


@by_setting
@by_comparable
def test_tree_is_the_expression(name, setting):
    tx = SETTINGS[setting](METHODS[name].make)
    for depth in DEPTHS:
        text = tree(tx, depth)
        assert eval(text, vars(gdtx)) == expand(tx, depth)
        assert max(map(len, text.splitlines())) <= 88


def test_tree_of_others():
    tx = gdtx.masked(
        gdtx.chain(gdtx.clip(1.0), gdtx.adamw(0.1, mask={"w": True, "b": False})), True
    )
    assert eval(tree(tx, 0), vars(gdtx)) == tx
    assert tree(gdtx.identity()) == "identity()"
    assert tree(gdtx.sgd(0.1, momentum=0.5)) == "chain(trace(0.5), scale(-0.1))"
    named = gdtx.join(
        gdtx.plus, **{f"a_branch_with_a_very_very_long_name_{i}": gdtx.ema(0.5) for i in "ab"}
    )
    assert tree(named).splitlines() == [
        "join(",
        "    plus,",
        "    a_branch_with_a_very_very_long_name_a=ema(0.5),",
        "    a_branch_with_a_very_very_long_name_b=ema(0.5),",
        ")",
    ]


def test_what_is_remembered_has_names():
    """An anonymous function would tell a reader nothing."""
    formula = str(gdtx.expand(gdtx.nadam(0.1, momentum_decay=0.004), depth=None))
    assert "scale(next_mu)" in formula
    assert "lambda" not in formula
