"""Groups of parameters: paths and patterns, masks, partitions, what is frozen."""

import contextlib
import functools
import pickle
from typing import NamedTuple

import chex
import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compilations import counted_compilations
from flax import nnx
from flax.core import FrozenDict
from flax.training.train_state import TrainState
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gdtx
from gdtx.core.trees.paths import leaf_paths, matched


class Layer(NamedTuple):
    kernel: jax.Array
    bias: jax.Array | None = None


class Mlp(nnx.Module):
    def __init__(self, rngs):
        layers = getattr(nnx, "List", list)  # a plain one, before flax 0.12
        self.layers = layers([nnx.Linear(2, 2, rngs=rngs) for _ in range(2)])
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.temperature = nnx.Param(jnp.ones(()))

    def __call__(self, x):
        return self.layers[1](jax.nn.relu(self.norm(self.layers[0](x)))) * self.temperature[...]


class Scale(eqx.Module):
    value: jax.Array
    offset: jax.Array | None = None


def mlp():
    model = eqx.nn.MLP(2, 2, 2, 1, key=jax.random.key(0))
    assert callable(model)
    # Its activation functions are leaves too, and are not trained.
    return eqx.filter(model, eqx.is_inexact_array)


# Of two shapes only, to compile little.
TREES = {
    "dict": {
        "encoder": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
        "head": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
    },
    "FrozenDict": FrozenDict({"encoder": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}),
    "NamedTuple": (Layer(jnp.ones((2, 2)), jnp.ones(2)), Layer(jnp.ones(2))),
    "equinox": mlp(),
    "nnx": nnx.state(Mlp(nnx.Rngs(0)), nnx.Param),
    "nnx.Dict": {"a": nnx.Param(jnp.ones((2, 2))), "b": [nnx.Param(jnp.ones(2))]},
    "array": jnp.ones(2),
}
every_tree = pytest.mark.parametrize("params", TREES.values(), ids=TREES)

PARAMS = TREES["dict"]


def is_matrix(path, leaf):
    return leaf.ndim > 1


def run(tx, params, steps=3, with_params=True):
    """The updates of the last of some steps, and the state; op by op, to compile little."""
    with jax.disable_jit():
        state = tx.init(params)
        for t in range(steps):
            gradients = jax.tree.map(lambda p: jnp.cos(2.0 * t + p), params)  # noqa: B023
            updates, state = tx.update(gradients, state, params if with_params else None)
    return updates, state


def size(state):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))


# Paths and patterns


PATHS = {
    "dict": ["encoder/bias", "encoder/kernel", "head/bias", "head/kernel"],
    "FrozenDict": ["encoder/bias", "encoder/kernel"],
    "NamedTuple": ["0/kernel", "0/bias", "1/kernel"],
    "equinox": ["layers/0/weight", "layers/0/bias", "layers/1/weight", "layers/1/bias"],
    "nnx": [
        "layers/0/bias", "layers/0/kernel", "layers/1/bias", "layers/1/kernel",
        "norm/bias", "norm/scale", "temperature",
    ],
    "nnx.Dict": ["a", "b/0"],
    "array": [""],
}  # fmt: skip


@pytest.mark.parametrize("name", TREES)
def test_paths(name):
    assert leaf_paths(TREES[name]) == PATHS[name]
    # What is masked out changes no other path.
    leaves, structure = jax.tree.flatten(TREES[name])
    for i, path in enumerate(PATHS[name]):
        one = structure.unflatten([x if i == j else None for j, x in enumerate(leaves)])
        assert leaf_paths(one) == [path]


def test_only_a_container_of_one_array_adds_nothing():
    x = jnp.ones(2)
    assert leaf_paths({"s": Scale(x, x)}) == ["s/value", "s/offset"]
    assert leaf_paths({"s": Scale(x)}) == ["s/value"]
    assert leaf_paths({"value": x}) == ["value"]
    assert leaf_paths({"linear": eqx.nn.Linear(1, 1, use_bias=False, key=jax.random.key(0))}) == [
        "linear/weight"
    ]
    assert leaf_paths({"boxed": nn.Partitioned(x, ("a",))}) == ["boxed"]
    assert leaf_paths(nnx.Param(x)) == [""]
    assert leaf_paths({}) == leaf_paths({"a": None}) == []


@pytest.mark.parametrize(
    ("pattern", "hits"),
    [
        ("a/b/bias", ["a/b/bias"]),
        ("**/bias", ["bias", "a/bias", "a/b/bias"]),
        ("*/bias", ["a/bias"]),
        ("a/**", ["a", "a/bias", "a/b/bias", "a/b.c[0]"]),
        ("a/*", ["a/bias", "a/b.c[0]"]),
        ("**/b/**", ["a/b/bias"]),
        ("a/**/bias", ["a/bias", "a/b/bias"]),
        ("**/b*", ["bias", "a/bias", "a/b/bias", "a/b.c[0]"]),
        ("**/*i*s", ["bias", "a/bias", "a/b/bias"]),
        ("a/b.c[0]", ["a/b.c[0]"]),
        ("*", ["bias", "a", "long"]),
        ("", [""]),
        ("**", ["bias", "a", "a/bias", "a/b/bias", "a/b.c[0]", "long", ""]),
        ("**/**", ["bias", "a", "a/bias", "a/b/bias", "a/b.c[0]", "long", ""]),
    ],
)
def test_patterns(pattern, hits):
    paths = ["bias", "a", "a/bias", "a/b/bias", "a/b.c[0]", "long", ""]
    assert [path for path, hit in zip(paths, matched(pattern, paths), strict=True) if hit] == hits


@pytest.mark.parametrize("pattern", ["a?b", "a.*", "[ab]", "A", "/a", "a/", "a//b", ".", "^a$"])
def test_only_stars_are_special(pattern):
    paths = ["a", "b", "aab", "a/b"]
    with pytest.raises(ValueError, match="matches no path"):
        matched(pattern, paths)
    assert matched(pattern, [*paths, pattern])[-1]


# Forms of a mask and of labels


def forms(selection):
    """A mask of some paths of PARAMS in all its forms."""
    tree = {
        module: {leaf: f"{module}/{leaf}" in selection for leaf in leaves}
        for module, leaves in PARAMS.items()
    }
    return {
        "patterns": list(selection),
        "tree": tree,
        "function": lambda path, leaf: path in selection,
        "function of anything": lambda *given: given[0] in selection,
        "function of the tree": lambda params: tree,
        "with an option": lambda params, flag=True: tree,
        "partial": functools.partial(lambda tree, params: tree, tree),
        "numpy": jax.tree.map(np.bool_, tree),
    }


SOME = ("encoder/kernel", "head/bias")


@pytest.mark.parametrize("form", forms(SOME))
@pytest.mark.parametrize("wrap", [gdtx.masked, gdtx.freeze, gdtx.trainable])
def test_all_forms_of_a_mask_are_one(form, wrap):
    tx = gdtx.sgd(0.1, momentum=0.9)
    got, state = run(wrap(tx, forms(SOME)[form]), PARAMS)
    trained, _ = run(tx, PARAMS)
    gradients, _ = run(gdtx.identity(), PARAMS)
    for module, leaves in PARAMS.items():
        for leaf in leaves:
            is_trained = (f"{module}/{leaf}" in SOME) == (wrap is not gdtx.freeze)
            other = gradients if wrap is gdtx.masked else jax.tree.map(jnp.zeros_like, gradients)
            want = trained if is_trained else other
            chex.assert_trees_all_equal(got[module][leaf], want[module][leaf])
            found = gdtx.find(state, "value")[module][leaf]
            assert (found is None) != is_trained


LABELS = {
    "patterns": [("**/bias", "no_decay"), ("encoder/**", "slow"), ("**", "rest")],
    "lists": [["**/bias", "no_decay"], ["encoder/**", "slow"], ["**", "rest"]],
    "tree": {
        "encoder": {"kernel": "slow", "bias": "no_decay"},
        "head": {"kernel": "rest", "bias": "no_decay"},
    },
    "function": lambda path, leaf: (
        "no_decay" if path.endswith("bias") else "slow" if path.startswith("enc") else "rest"
    ),
    "function of the tree": lambda params: LABELS["tree"],
}
GROUPS = {
    "no_decay": gdtx.adam(0.1),
    "slow": gdtx.adamw(0.01, weight_decay=0.1),
    "rest": gdtx.adamw(0.1, weight_decay=0.1),
}


@pytest.mark.parametrize("form", LABELS)
def test_all_forms_of_labels_are_one(form):
    got, state = run(gdtx.partition(GROUPS, LABELS[form]), PARAMS)
    for module, leaves in LABELS["tree"].items():
        for leaf, label in leaves.items():
            want, _ = run(GROUPS[label], PARAMS[module][leaf])
            chex.assert_trees_all_close(got[module][leaf], want, rtol=1e-6)
    assert list(state.inner) == sorted(GROUPS)


def test_pairs_are_patterns_or_a_tree():
    pairs = [(jnp.zeros(1), jnp.zeros(2)), (jnp.zeros(3), jnp.zeros(4))]
    groups = {"0": gdtx.scale(0.0), "1": gdtx.scale(1.0), "0/1": gdtx.scale(2.0)}
    tx = gdtx.partition(groups, [("0/1", "0"), ("1", "0")])
    updates, _ = run(tx, pairs, steps=1)
    assert jax.tree.map(lambda u: float(u[0]), updates) == [(2.0, 0.0), (1.0, 0.0)]
    named = {"0": {"1": jnp.zeros(1)}, "1": jnp.zeros(2)}
    updates, _ = run(tx, named, steps=1)
    assert jax.tree.map(lambda u: float(u[0]), updates) == {"0": {"1": 0.0}, "1": 0.0}
    flat = [jnp.zeros(1), jnp.zeros(2)]
    updates, _ = run(gdtx.partition(groups, ["1", "0/1"]), flat, steps=1)
    assert [float(u[0]) for u in updates] == [1.0, 2.0]


def test_a_callable_tree_is_no_function():
    class Empty(eqx.Module):
        def __call__(self, params):
            raise AssertionError("a module was taken for a function")

    model = mlp()
    chosen = jax.tree.map(lambda leaf: leaf.ndim > 1, model)
    assert callable(chosen)
    updates, _ = run(gdtx.freeze(gdtx.scale(1.0), chosen), model)
    assert not updates.layers[0].weight.any()
    assert updates.layers[0].bias.all()
    assert gdtx.masked(gdtx.adam(0.1), Empty()).init(Empty()).inner is not None
    labels = jax.tree.map(lambda leaf: "no_decay" if leaf.ndim < 2 else "rest", model)
    run(gdtx.partition(GROUPS, labels), model)
    mask = jax.tree.map(lambda leaf: leaf.ndim > 1, TREES["nnx"])
    updates, _ = run(gdtx.freeze(gdtx.scale(1.0), mask), TREES["nnx"])
    assert not updates["layers"][0]["kernel"][...].any()


def test_functions_see_no_values():
    seen = []

    def f(path, leaf):
        seen.append((path, leaf.shape, leaf.dtype))
        assert isinstance(leaf, jax.core.Tracer)
        return True

    gdtx.masked(gdtx.scale(1.0), f).init({"a": jnp.ones(2, jnp.bfloat16), "b": None})
    assert seen == [("a", (2,), jnp.bfloat16)]
    for by_value in (lambda path, leaf: bool(leaf.sum() > 0), lambda p: bool(p["a"].sum() > 0)):
        with pytest.raises(jax.errors.TracerBoolConversionError):
            gdtx.masked(gdtx.scale(1.0), by_value).init({"a": jnp.ones(2)})


def test_a_weight_decay_mask_takes_patterns():
    got, _ = run(gdtx.adamw(0.1, weight_decay=0.1, mask=["**/kernel"]), PARAMS)
    mask = jax.tree.map(lambda p: p.ndim > 1, PARAMS)
    want, _ = run(gdtx.adamw(0.1, weight_decay=0.1, mask=mask), PARAMS)
    chex.assert_trees_all_equal(got, want)


def test_without_parameters_the_updates_decide():
    tx = gdtx.partition({"a": gdtx.trace(0.9), "b": gdtx.identity()}, lambda path, leaf: (
        "a" if leaf.ndim > 1 else "b"))  # fmt: skip
    chex.assert_trees_all_equal(run(tx, PARAMS, with_params=False), run(tx, PARAMS))


# What comes out, on every tree


@every_tree
def test_all_none_and_one_label(params):
    tx = gdtx.adam(0.1)
    want, state = run(tx, params)
    for same in (gdtx.masked(tx, ["**"]), gdtx.trainable(tx, ["**"]), gdtx.freeze(tx, []),
                 gdtx.partition({"all": tx}, "all"), gdtx.partition({"all": tx}, [("**", "all")]),
                 gdtx.partition({"all": tx, "none": tx}, lambda path, leaf: "all")):  # fmt: skip
        got, own = run(same, params)
        chex.assert_trees_all_equal(got, want)
        held = own.inner if isinstance(own, gdtx.states.MaskedState) else own.inner.get(
            "all", own.inner.get("trained"))  # fmt: skip
        chex.assert_trees_all_equal(held, state)
    gradients, _ = run(gdtx.identity(), params)
    chex.assert_trees_all_equal(run(gdtx.masked(tx, []), params)[0], gradients)
    zeros = jax.tree.map(jnp.zeros_like, gradients)
    chex.assert_trees_all_equal(run(gdtx.freeze(tx, ["**"]), params)[0], zeros)


@every_tree
def test_frozen_leaves_take_no_bytes(params):
    tx = gdtx.sgd(0.1, momentum=0.9)
    leaves = dict(zip(leaf_paths(params), jax.tree.leaves(params), strict=True))
    for what in (is_matrix, [path for path, leaf in leaves.items() if leaf.ndim > 1]):
        updates, state = run(gdtx.freeze(tx, what), params)
        assert size(state) == sum(4 * x.size for x in leaves.values() if x.ndim < 2)
        assert jax.tree.structure(updates) == jax.tree.structure(params)
        for leaf in jax.tree.leaves(updates):
            assert bool(leaf.any()) == (leaf.ndim < 2)
        assert size(run(gdtx.trainable(tx, what), params)[1]) == sum(
            4 * x.size for x in leaves.values() if x.ndim > 1)  # fmt: skip


def test_unusual_trees():
    for params in ({}, [], None, {"a": None}, {"a": jnp.zeros((0, 2)), "b": jnp.zeros(())}):
        for tx in (
            gdtx.freeze(gdtx.adam(0.1), ["**"]),
            gdtx.masked(gdtx.adam(0.1), lambda path, leaf: False),
            gdtx.partition({"a": gdtx.adam(0.1)}, [("**", "a")]),
        ):
            updates, _ = run(tx, params)
            assert jax.tree.structure(updates) == jax.tree.structure(params)
    # A pattern is not wrong about a tree that has nothing for any.
    assert size(gdtx.freeze(gdtx.trace(0.9), ["encoder/**"]).init({})) == 0
    slashes = {"mlp/~/linear_0": {"w": jnp.ones(1)}, "mlp/~/linear_1": {"w": jnp.ones(1)}}
    updates, _ = run(gdtx.freeze(gdtx.identity(), ["mlp/*/linear_0/**"]), slashes)
    assert [bool(x.any()) for x in jax.tree.leaves(updates)] == [False, True]
    numbered = {0: {"w": jnp.ones(1)}, 1: {"w": jnp.ones(1)}}
    updates, _ = run(gdtx.freeze(gdtx.identity(), ["0/w"]), numbered)
    assert [bool(x.any()) for x in jax.tree.leaves(updates)] == [False, True]


def test_a_part_may_answer_none():
    """None for a leaf says that it stays, to `apply_updates`."""

    def some(updates, state, params=None):
        return {**updates, "b": None}, state

    silent = gdtx.GradientTransformation(lambda params: (), some)
    params = {"a": jnp.ones(1), "b": jnp.ones(2), "c": jnp.ones(3)}
    for tx in (
        gdtx.masked(silent, {"a": True, "b": True, "c": False}),
        gdtx.partition({"x": silent, "y": gdtx.scale(2.0)}, {"a": "x", "b": "x", "c": "y"}),
    ):
        updates, _ = tx.update(params, tx.init(params))
        assert updates["b"] is None
        message = r"^chain: params has a leaf params\['b'\] that is not in updates"
        behind = gdtx.chain(tx, gdtx.masked(gdtx.identity(), ["a"]))
        with pytest.raises(ValueError, match=message):
            behind.update(params, behind.init(params), params)
        assert gdtx.apply_updates(params, updates)["c"].all()
        chex.assert_trees_all_equal(updates["a"], params["a"])


# Inside of others, and others inside


def test_nested():
    """Groups of groups are groups, however they are put together."""
    flat = gdtx.partition(
        {"a": gdtx.adam(0.1), "b": gdtx.adam(0.2), "c": gdtx.set_to_zero()},
        [("encoder/kernel", "a"), ("encoder/bias", "c"), ("**", "b")],
    )
    encoder = gdtx.freeze(gdtx.adam(0.1), ["**/bias"])
    nested = gdtx.partition(
        {"encoder": encoder, "head": gdtx.adam(0.2)}, {"encoder": "encoder", "head": "head"}
    )
    chained = gdtx.chain(
        gdtx.masked(gdtx.scale_by_adam(), ["*/kernel", "head/bias"]),
        gdtx.masked(gdtx.scale(-0.1), ["encoder/**"]),
        gdtx.masked(gdtx.scale(-0.2), ["head/**"]),
        gdtx.freeze(gdtx.identity(), ["encoder/bias"]),
    )
    joined = gdtx.join(
        gdtx.plus,
        encoder=gdtx.freeze(encoder, ["head/**"]),
        head=gdtx.freeze(gdtx.adam(0.2), ["encoder/**"]),
    )
    want, _ = run(flat, PARAMS)
    for other in (nested, chained, joined, gdtx.chain(gdtx.masked(nested, True))):
        chex.assert_trees_all_close(run(other, PARAMS)[0], want, rtol=1e-6)
        assert not run(other, PARAMS)[0]["encoder"]["bias"].any()


def test_equals_optax():
    labels = LABELS["tree"]
    rates = {"no_decay": 0.1, "slow": 0.01, "rest": 0.2}

    def each(make):
        return {label: make(rate) for label, rate in rates.items()}

    # Theirs has lost digits of float32 in the bias correction.
    close = functools.partial(chex.assert_trees_all_close, rtol=1e-4)
    theirs, _ = run(optax.partition(each(optax.adam), labels), PARAMS)
    close(run(gdtx.partition(each(gdtx.adam), labels), PARAMS)[0], theirs)
    close(run(gdtx.partition(each(optax.adam), labels), PARAMS)[0], theirs, rtol=1e-6)
    close(run(optax.partition(each(gdtx.adam), labels), PARAMS)[0], theirs)
    mask = jax.tree.map(lambda p: p.ndim > 1, PARAMS)
    close(run(gdtx.masked(gdtx.adam(0.1), mask), PARAMS)[0],
          run(optax.masked(optax.adam(0.1), mask), PARAMS)[0])  # fmt: skip


def test_extra_arguments_reach_groups():
    def scaled(updates, state, params=None, *, value):
        return jax.tree.map(lambda u: value * u, updates), state

    tx = gdtx.partition(
        {"a": gdtx.GradientTransformation(lambda params: (), scaled), "b": gdtx.identity()},
        {"encoder": "a", "head": "b"},
    )
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=3.0)
    chex.assert_trees_all_equal(
        updates["encoder"], jax.tree.map(lambda p: 3 * p, PARAMS["encoder"])
    )
    chex.assert_trees_all_equal(updates["head"], PARAMS["head"])


# A transformation is data


SCHEDULED = gdtx.partition(
    {
        "slow": gdtx.sgd(gdtx.linear_schedule(0.5, 0.0, 2)),
        "rest": gdtx.chain(gdtx.clip(1.0), gdtx.sgd(gdtx.linear_schedule(1.0, 0.0, 4))),
    },
    [("encoder/**", "slow"), ("**", "rest")],
)


def test_each_group_has_its_schedule():
    updates, state = run(SCHEDULED, jax.tree.map(jnp.zeros_like, PARAMS), steps=2)
    gradient = np.cos(2.0)
    np.testing.assert_allclose(updates["encoder"]["bias"], -0.25 * gradient, rtol=1e-6)
    np.testing.assert_allclose(updates["head"]["bias"], -0.75 * gradient, rtol=1e-6)
    values = gdtx.hyperparams(SCHEDULED, state)
    assert values["transforms.slow.learning_rate"] == 0.0
    assert values["transforms.rest.1.learning_rate"] == 0.5
    frozen = gdtx.freeze(gdtx.sgd(gdtx.linear_schedule(1.0, 0.0, 4)), ["head/**"])
    _, state = run(frozen, PARAMS, steps=3)
    assert gdtx.hyperparams(frozen, state)["tx.learning_rate"] == 0.25
    around = gdtx.chain(gdtx.clip(1.0), frozen)
    _, state = run(around, PARAMS, steps=1)
    assert gdtx.hyperparams(around, state)["1.tx.learning_rate"] == 0.75
    assert gdtx.describe(around, state)["1.tx.learning_rate"] == 1.0, "of the update just done"


def test_current_values_are_found_in_the_formula():
    """Of a factory that hands a transformation on, to wherever it does."""

    @gdtx.transformation
    def clipped(tx: gdtx.GradientTransformation, factor: gdtx.Positive = 1.0):
        return gdtx.chain(gdtx.clip(factor), gdtx.join(gdtx.plus, a=gdtx.identity(), b=tx))

    schedule = gdtx.linear_schedule(1.0, 0.0, 4)
    for tx in (clipped(gdtx.sgd(schedule)), clipped(gdtx.sgd(schedule), lambda t: 1.0)):
        _, state = run(tx, PARAMS, steps=1)
        assert gdtx.hyperparams(tx, state)["tx.learning_rate"] == 0.75
    bare = gdtx.GradientTransformation(lambda params: (), lambda u, s, p=None: (u, s))
    assert gdtx.hyperparams(clipped(bare), clipped(bare).init(PARAMS)) == {"factor": 1.0}


def test_hyperparameters_reach_into_groups():
    tx = gdtx.partition({"a": gdtx.sgd(0.1), "b": gdtx.adam(0.2)}, {"encoder": "a", "head": "b"})
    path = "transforms.a.learning_rate"
    assert gdtx.hyperparams(tx)[path] == 0.1
    changed = gdtx.replace(tx, {path: 0.3})
    assert changed == gdtx.partition(
        {"a": gdtx.sgd(0.3), "b": gdtx.adam(0.2)}, {"encoder": "a", "head": "b"})  # fmt: skip
    with pytest.raises(TypeError, match=r"no argument 'a.learning_rate' to replace.*transforms\.a"):
        gdtx.replace(tx, {"a.learning_rate": 0.3})
    arrays = gdtx.as_arrays(tx, path, "transforms.b.learning_rate")
    assert [float(x) for x in jax.tree.leaves(arrays)] == [np.float32(0.1), np.float32(0.2)]
    chex.assert_trees_all_close(run(arrays, PARAMS)[0], run(tx, PARAMS)[0], rtol=1e-6)
    held = gdtx.tunable(tx, path)
    state = gdtx.set_hyperparams(held.init(PARAMS), **{path: 0.3})
    updates, state = held.update(PARAMS, state, PARAMS)
    np.testing.assert_allclose(updates["encoder"]["bias"], -0.3, rtol=1e-6)
    assert float(gdtx.hyperparams(held, state)[f"inner.{path}"]) == np.float32(0.3)

    def train(tx):
        return tx.update(PARAMS, tx.init(PARAMS), PARAMS)[0]["encoder"]["bias"]

    swept = gdtx.sweep(train, gdtx.freeze(tx, ["head/**"]), {f"tx.{path}": [0.1, 0.2, 0.3]})
    np.testing.assert_allclose(swept[:, 0], [-0.1, -0.2, -0.3], rtol=1e-6)


DATA = [
    gdtx.partition({"a": gdtx.sgd(0.1), "b": gdtx.adam(0.2)}, [("**/bias", "a"), ("**", "b")]),
    gdtx.partition({"a": gdtx.sgd(0.1)}, "a"),
    gdtx.freeze(gdtx.adam(0.1), ["head/**"]),
    gdtx.freeze(gdtx.adam(0.1), is_matrix),
    gdtx.trainable(gdtx.adam(0.1), {"encoder": True, "head": False}),
    gdtx.adamw(0.1, mask=["**/kernel"]),
]


@pytest.mark.parametrize("tx", DATA, ids=str)
def test_is_data(tx):
    again = eval(repr(tx), {**vars(gdtx), "is_matrix": is_matrix})
    assert (again, hash(again)) == (tx, hash(tx))
    assert pickle.loads(pickle.dumps(tx)) == tx
    assert tx != gdtx.chain(tx)
    assert gdtx.freeze(gdtx.adam(0.1), ["head/**"]) != gdtx.freeze(gdtx.adam(0.1), ["**"])
    want, state = run(tx, PARAMS, steps=1)
    gradients = jax.tree.map(jnp.cos, PARAMS)
    for one in (tx, again):
        got, _ = jax.jit(lambda tx, g, s, p: tx.update(g, s, p))(
            one, gradients, tx.init(PARAMS), PARAMS
        )
        chex.assert_trees_all_close(got, want, rtol=1e-6)
    for depth in (1, None):
        got, own = run(gdtx.expand(tx, depth), PARAMS, steps=1)
        chex.assert_trees_all_equal((got, own), (want, state))


def test_maps_over_the_hyperparameters_of_a_group():
    def update(tx):
        return tx.update(PARAMS, tx.init(PARAMS), PARAMS)[0]["encoder"]["bias"][0]

    tx = gdtx.freeze(gdtx.sgd(jnp.array([0.1, 0.2])), ["head/**"])
    np.testing.assert_allclose(jax.vmap(update)(tx), [-0.1, -0.2], rtol=1e-6)
    slope = jax.grad(update)(gdtx.freeze(gdtx.sgd(jnp.array(0.1)), ["head/**"]))
    assert jax.tree.leaves(slope) == [-1.0]


def test_expressions():
    tx = gdtx.freeze(gdtx.sgd(0.1), ["encoder/**"])
    assert repr(gdtx.expand(tx)) == (
        "partition(transforms={'frozen': set_to_zero(), 'trained': sgd(learning_rate=0.1, "
        "momentum=None, nesterov=False, accumulator_dtype=None)}, "
        "labels=[('encoder/**', 'frozen'), ('**', 'trained')])"
    )
    assert gdtx.tree(gdtx.partition({"a": gdtx.adam(0.1), "b": tx}, [("**/bias", "a")] * 4)) == (
        "partition(\n"
        "    {\n"
        "        'a': chain(\n"
        "            join(\n"
        "                divide,\n"
        "                mu=chain(ema(0.9), bias_correction(0.9)),\n"
        "                nu=chain(\n"
        "                    chain(square(), ema(0.999), bias_correction(0.999)),\n"
        "                    root(1e-08),\n"
        "                ),\n"
        "            ),\n"
        "            scale(-0.1),\n"
        "        ),\n"
        "        'b': partition(\n"
        "            {'frozen': set_to_zero(), 'trained': scale(-0.1)},\n"
        "            [('encoder/**', 'frozen'), ('**', 'trained')],\n"
        "        ),\n"
        "    },\n"
        "    [('**/bias', 'a'), ('**/bias', 'a'), ('**/bias', 'a'), ('**/bias', 'a')],\n"
        ")"
    )


def test_read():
    tx = gdtx.chain(gdtx.clip(1.0), gdtx.partition(
        {"slow": gdtx.adam(0.1), "rest": gdtx.sgd(0.1, momentum=0.9)},
        [("encoder/**", "slow"), ("**", "rest")]))  # fmt: skip
    _, state = run(tx, PARAMS)
    mean = gdtx.find(state, "mu")
    assert mean["head"] == {"kernel": None, "bias": None}
    assert mean["encoder"]["kernel"].shape == (2, 2)
    assert gdtx.find(state, "rest")["head"]["bias"].shape == (2,)
    assert set(gdtx.find(state, "slow")) == {"1.slow.0.mu.0.value", "1.slow.0.nu.0.1.value"}
    assert gdtx.state_table(tx, PARAMS).branches == {"1.rest": 24, "1.slow": 56}
    facts = gdtx.describe(tx, state)
    assert (facts["step"], facts["1.transforms.rest.momentum"]) == (3, 0.9)
    params = TREES["nnx"]
    updates, state = run(gdtx.sgd(0.1), params, steps=1)
    ratios = gdtx.describe(gdtx.sgd(0.1), state, updates, params)
    assert "update_ratio/layers/0/kernel" in ratios
    assert "update_ratio" in gdtx.describe(gdtx.sgd(0.1), (), jnp.ones(1), jnp.ones(1))


def test_formulas():
    assert gdtx.latex(gdtx.freeze(gdtx.sgd(0.1), ["encoder/**"])) == (
        "\\begin{aligned}\n"
        r"\theta_t &= \theta_{t-1} + \begin{cases} 0 & \text{if frozen} \\ "
        "-\\eta g_t & \\text{if trained} \\end{cases}\n"
        "\\end{aligned}"
    )
    tx = gdtx.partition({"no_decay": gdtx.sgd(0.1), "rest": gdtx.sgd(0.2)}, "rest")
    assert gdtx.latex(tx, values=True).splitlines()[1] == (
        r"\theta_t &= \theta_{t-1} + \begin{cases} -0.1 g_t & \text{if no\_decay} \\ "
        r"-0.2 g_t & \text{if rest} \end{cases}"
    )
    same = gdtx.partition({"a": gdtx.sgd(0.1), "b": gdtx.sgd(0.1)}, "a")
    assert gdtx.latex(same) == gdtx.latex(gdtx.sgd(0.1))


# Errors


def bad(message, make, kind=ValueError, params=PARAMS):
    return pytest.param(kind, message, make, params, id=message[:90])


SGD = gdtx.sgd(0.1)
THE_PATHS = "'encoder/bias', 'encoder/kernel', 'head/bias', 'head/kernel'"
MANY = {f"l{i:03}": jnp.ones(1) for i in range(100)}
TWO = {"a": SGD, "b": SGD}
ERRORS = [
    bad(f"freeze: pattern 'encodr/**' matches no path; the paths are {THE_PATHS}",
        lambda: gdtx.freeze(SGD, ["**/bias", "encodr/**"])),
    bad(f"masked: pattern 'bias' matches no path; the paths are {THE_PATHS}",
        lambda: gdtx.masked(SGD, ["bias"])),
    bad(f"adamw > add_decayed_weights: pattern '**/weight' matches no path; the paths are "
        f"{THE_PATHS}", lambda: gdtx.adamw(0.1, mask=["**/weight"])),
    bad(f"chain > trainable: pattern 'head' matches no path; the paths are {THE_PATHS}",
        lambda: gdtx.chain(SGD, gdtx.trainable(SGD, ["head"]))),
    bad("freeze: pattern 'x' matches no path; the paths are "
        + ", ".join(f"'l{i:03}'" for i in range(20)) + " and 80 more",
        lambda: gdtx.freeze(SGD, ["x"]), params=MANY),
    bad("freeze: pattern 'x' matches no path; the paths are ''",
        lambda: gdtx.freeze(SGD, ["x"]), params=jnp.ones(1)),
    bad("freeze: pattern 'enc**/bias': ** stands for whole components of a path, as in "
        "'**/bias', and * for a part of one", lambda: gdtx.freeze(SGD, ["enc**/bias"])),
    bad("freeze: what is 'head/**' (str), expected True or False (patterns come in a list: "
        "['head/**'])", lambda: gdtx.freeze(SGD, "head/**"), TypeError),
    bad("freeze: what has no leaf what['head']['bias'] or above it, where params has one",
        lambda: gdtx.freeze(SGD, {"encoder": True, "head": None})),
    bad("trainable: what['head'] is 1 (int), expected True or False",
        lambda: gdtx.trainable(SGD, {"encoder": True, "head": 1}), TypeError),
    bad("masked: mask of 'encoder/bias' is None (NoneType), expected True or False",
        lambda: gdtx.masked(SGD, lambda path, leaf: None), TypeError),
    bad("masked: mask of 'encoder/bias' is an array of shape () and dtype bool, expected True or "
        "False", lambda: gdtx.masked(SGD, lambda path, leaf: leaf.sum() > 0), TypeError),
    bad("partition: labels['head'] is 'B' (str), expected one of 'a', 'b'",
        lambda: gdtx.partition(TWO, {"encoder": "a", "head": "B"})),
    bad("partition: labels['head'] is 1 (int), expected 'a'",
        lambda: gdtx.partition({"a": SGD}, {"encoder": "a", "head": 1})),
    bad("partition: labels is '**' (str), expected one of 'a', 'b'",
        lambda: gdtx.partition(TWO, "**")),
    bad("partition: labels of 'head/bias' is 'c' (str), expected one of 'a', 'b'",
        lambda: gdtx.partition(TWO, lambda path, leaf: "c" if "head/b" in path else "a")),
    bad("partition: labels['head'] is 'c' (str), expected one of 'a', 'b'",
        lambda: gdtx.partition(TWO, lambda params: {"encoder": "a", "head": "c"})),
    bad("partition: the label of pattern 'head/**' is 'c' (str), expected one of 'a', 'b'",
        lambda: gdtx.partition(TWO, [("encoder/**", "a"), ("head/**", "c")])),
    bad("partition: no pattern matches 'head/bias', 'head/kernel'; the patterns are 'encoder/**' "
        "(a last one, '**', matches all others)",
        lambda: gdtx.partition(TWO, [("encoder/**", "a")])),
    bad(f"partition: no pattern matches {THE_PATHS}; the patterns are none at all "
        "(a last one, '**', matches all others)", lambda: gdtx.partition(TWO, [])),
    bad(f"partition: pattern 'heads/**' matches no path; the paths are {THE_PATHS}",
        lambda: gdtx.partition(TWO, [("heads/**", "a"), ("**", "b")])),
    bad("partition: pattern 'head/**' decides nothing, because the first that matches decides: "
        "'head/bias' is 'a' by pattern '**', which is before it",
        lambda: gdtx.partition(TWO, [("**", "a"), ("head/**", "b")])),
    bad("partition: pattern 'head/bias' decides nothing, because the first that matches decides: "
        "'head/bias' is 'a' by pattern '**/bias', which is before it",
        lambda: gdtx.partition(TWO, [("**/bias", "a"), ("head/bias", "b"), ("**", "b")])),
    bad("orthogonalize: pattern 'head/kernel' decides nothing, because the first that matches "
        "decides: 'head/kernel' is 'io' by pattern '**/kernel', which is before it",
        lambda: gdtx.orthogonalize(axes=[("**/kernel", "io"), ("head/kernel", "oi")])),
    bad("partition: labels has no leaf labels['head']['bias'] or above it, where params has one",
        lambda: gdtx.partition(TWO, {"encoder": "a"})),
    bad("chain: labels['head'] is 'c' (str), expected one of 'a', 'b'",
        lambda: gdtx.chain(gdtx.partition(TWO, {"encoder": "a", "head": "c"}))),
    bad("partition: transforms must be a dict of transformations by labels of one type, got 3",
        lambda: gdtx.partition(3, "a"), TypeError),
    bad("partition: transforms must be a dict of transformations by labels of one type, got {1: "
        "sgd(learning_rate=0.1, momentum=None, nesterov=False, accumulator_dtype=None), 'a': "
        "sgd(learning_rate=0.1, momentum=None, nesterov=False, accumulator_dtype=None)}",
        lambda: gdtx.partition({1: SGD, "a": SGD}, "a"), TypeError),
    bad("partition: transforms['a'] must be a transformation (a pair of init and update), got the "
        "function adam: call it", lambda: gdtx.partition({"a": gdtx.adam}, "a"), TypeError),
    bad("partition: needs at least one transformation, as in {'rest': adam(1e-3)}",
        lambda: gdtx.partition({}, "a"), TypeError),
    bad("partition: unknown argument 'param_labels', did you mean 'labels'?; partition takes "
        "(transforms, labels)", lambda: gdtx.partition(TWO, param_labels="a"), TypeError),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "message", "make", "params"), ERRORS)
def test_errors_in_full(kind, message, make, params):
    """At `init` and in `update`, traced or not, the same."""
    with pytest.raises(kind) as raised:
        make().init(params)
    assert str(raised.value) == message
    with pytest.raises(kind) as raised:
        jax.jit(lambda params: make().init(params))(params)
    assert str(raised.value) == message


def test_errors_of_updates():
    tx = gdtx.partition({"a": gdtx.trace(0.9), "b": gdtx.sgd(0.1)}, {"encoder": "a", "head": "b"})
    other = gdtx.partition({"a": gdtx.trace(0.9)}, "a")
    foreign = "partition: the state is that of another transformation: expected"
    with pytest.raises(ValueError, match=f"^{foreign} a dict of a, b, got a dict of a(\n|$)"):
        tx.update(PARAMS, other.init(PARAMS), PARAMS)
    with pytest.raises(ValueError, match=f"^{foreign} a PartitionState, got a RecurState(\n|$)"):
        tx.update(PARAMS, gdtx.trace(0.9).init(PARAMS), PARAMS)
    swapped = tx.replace(labels={"encoder": "b", "head": "a"})
    with pytest.raises(ValueError, match=r"^partition > trace: state has .* leaf state\['"):
        tx.update(PARAMS, swapped.init(PARAMS), PARAMS)
    other = gdtx.GradientTransformation(lambda params: (), lambda u, s, p=None: ({"x": 1}, s))
    for wrong in (gdtx.masked(other, True), gdtx.partition({"a": other}, "a")):
        message = r"no leaf the result\['encoder'\]\['bias'\], which is in updates"
        with pytest.raises(ValueError, match=rf"^\w+: the result has {message}"):
            wrong.update(PARAMS, wrong.init(PARAMS), PARAMS)


# In programs


def step(tx, params, state, gradients):
    updates, state = tx.update(gradients, state, params)
    return gdtx.apply_updates(params, updates), state


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_state_follows_sharded_parameters_and_compiles_once(axis_type):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(axis_type,) * 2)
    specs = {"a": PartitionSpec("data", "model"), "b": PartitionSpec("model"), "c": PartitionSpec()}
    shapes = {"a": (8, 4), "b": (4,), "c": ()}
    tx = gdtx.partition(
        {
            "slow": gdtx.adam(gdtx.linear_schedule(0.1, 0.0, 10)),
            "frozen": gdtx.set_to_zero(),
            "rest": gdtx.chain(gdtx.masked(gdtx.adam(0.1), []), gdtx.sgd(0.1, momentum=0.9)),
            "nobody's": gdtx.adam(gdtx.linear_schedule(0.2, 0.0, 10)),
        },
        [("a", "slow"), ("b", "rest"), ("c", "frozen")],
    )
    # Under its older name in the oldest jax; an automatic mesh need not be the context's.
    set_mesh = jax.set_mesh if hasattr(jax, "set_mesh") else jax.sharding.use_mesh
    with set_mesh(mesh) if axis_type == AxisType.Explicit else contextlib.nullcontext():
        params = {
            k: jax.device_put(np.full(shape, 0.5, np.float32), NamedSharding(mesh, specs[k]))
            for k, shape in shapes.items()
        }
        gradients = jax.tree.map(jnp.cos, params)
        state = tx.init(params)

        def placed(state):
            return [(x.sharding, x.committed, x.dtype, x.weak_type) for x in jax.tree.leaves(state)]

        born = placed(state)
        everywhere = NamedSharding(mesh, PartitionSpec())
        assert {x[0] for x in born} == {params["a"].sharding, params["b"].sharding, everywhere}
        jitted = jax.jit(functools.partial(step, tx), donate_argnums=(0, 1))
        before = jax.tree.map(np.array, params)
        fresh = jax.tree.leaves((params, state))
        with counted_compilations() as compilations:
            for _ in range(3):
                params, state = jitted(params, state, gradients)
                assert placed(state) == born
        assert len(compilations) == 1
        assert all(x.is_deleted() for x in fresh)
        assert params["c"] == before["c"]
        assert (params["a"] != before["a"]).all()


def test_frozen_stay_bit_for_bit_even_at_nan():
    tx = gdtx.freeze(gdtx.adam(0.1), ["encoder/**"])
    params = jax.tree.map(jnp.array, PARAMS)
    before, state = jax.tree.map(np.array, params), tx.init(params)
    jitted = jax.jit(functools.partial(step, tx), donate_argnums=(0, 1))
    for _ in range(3):
        gradients = jax.tree.map(jnp.ones_like, PARAMS) | {
            "encoder": jax.tree.map(lambda p: p * jnp.nan, PARAMS["encoder"])
        }
        params, state = jitted(params, state, gradients)
    chex.assert_trees_all_equal(params["encoder"], before["encoder"])
    assert np.isfinite(params["head"]["bias"]).all()


def test_in_flax_linen():
    model = nn.Sequential([nn.Dense(3), nn.Dense(1)])
    variables = FrozenDict(model.init(jax.random.key(0), jnp.ones((1, 2)))["params"])
    tx = gdtx.freeze(gdtx.adamw(0.1, mask=["**/kernel"]), ["layers_0/**"])
    state = TrainState.create(apply_fn=model.apply, params=variables, tx=tx)
    gradients = jax.tree.map(jnp.ones_like, variables)
    after = jax.jit(lambda state: state.apply_gradients(grads=gradients))(state).params
    chex.assert_trees_all_equal(after["layers_0"], variables["layers_0"])
    assert (after["layers_1"]["bias"] != variables["layers_1"]["bias"]).all()


def test_in_flax_nnx():
    # Before, its optimizer took no state with None in the place of a parameter.
    pytest.importorskip("flax", minversion="0.12")
    model = Mlp(nnx.Rngs(0))
    tx = gdtx.freeze(gdtx.adamw(0.1, mask=["**/kernel"]), ["layers/0/**", "norm/**"])
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    before = jax.tree.map(jnp.array, nnx.state(model, nnx.Param))
    x = jax.random.normal(jax.random.key(0), (8, 2))

    @nnx.jit
    def train(model, optimizer):
        gradients = nnx.grad(lambda model: jnp.mean((model(x) - 1.0) ** 2))(model)
        optimizer.update(model, gradients)

    train(model, optimizer)
    after = nnx.state(model, nnx.Param)
    changed = jax.tree.map(lambda one, other: bool((one != other).any()), before, after)
    named = dict(zip(leaf_paths(changed), jax.tree.leaves(changed), strict=True))
    assert [path for path, moved in named.items() if moved] == [
        "layers/1/bias", "layers/1/kernel", "temperature"
    ]  # fmt: skip


def test_in_equinox():
    model = eqx.nn.MLP(2, 2, 2, 1, key=jax.random.key(0))
    tx = gdtx.freeze(gdtx.adam(0.1), ["layers/0/**"])
    params, static = eqx.partition(model, eqx.is_inexact_array)
    state = tx.init(params)

    @eqx.filter_jit
    def train(params, state):
        def loss(params):
            return jnp.mean(jax.vmap(eqx.combine(params, static))(jnp.ones((4, 2))) ** 2)

        return step(tx, params, state, jax.grad(loss)(params))

    after, _ = train(params, state)
    chex.assert_trees_all_equal(after.layers[0], params.layers[0])
    assert (after.layers[1].bias != params.layers[1].bias).all()
    assert after.activation is None


@pytest.mark.parametrize(
    "tx",
    [
        # What is left may be nothing, and a rule may say again what others before it say.
        gdtx.partition(TWO, [("encoder/**", "a"), ("head/**", "b"), ("**", "a")]),
        gdtx.partition(TWO, [("**/bias", "a"), ("head/bias", "a"), ("**", "b")]),
        gdtx.freeze(SGD, ["**/bias", "head/bias"]),
        gdtx.freeze(SGD, ["**"]),
        gdtx.trainable(SGD, ["**", "head/**"]),
        gdtx.orthogonalize(axes=["**/kernel", "head/kernel"]),
        # A rule need not decide all that it matches.
        gdtx.partition(TWO, [("**/bias", "a"), ("head/**", "b"), ("**", "a")]),
    ],
)
def test_a_rule_may_decide_less_than_it_matches(tx):
    tx.init(PARAMS)
