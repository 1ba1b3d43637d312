"""What every maker, combinator and link must do, and so the methods that are made of them.

Programs are shared: all rows run in one, of a few steps in a loop, and a test looks at the results
of its row. Links that are expressions of others, and methods, run in another with `-m slow`. What
is not inductive, because it depends on the buffers that are put together, is in test_buffers.
"""

import copy
import functools
import pickle

import chex
import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import counted_compilations
from everything import KINDS, METHODS, PARAMS, extras

import gdtx

LINKS = KINDS["maker"] | KINDS["combinator"] | KINDS["link"]
EXPRESSIONS = {
    name: tx
    for name, tx in KINDS["link"].items()
    if gdtx.expand(tx).signature.name in ("chain", "join", "let")
} | {f"{name} (method)": row.make(row.learning_rate) for name, row in METHODS.items()}
OTHERS = {name: tx for name, tx in LINKS.items() if name not in EXPRESSIONS}
ROWS = {"expressions": EXPRESSIONS, "others": OTHERS}
ALL = OTHERS | EXPRESSIONS

by_link = pytest.mark.parametrize("name", LINKS)


def rows_but(*left_out):
    """As parameters; expressions are slow."""
    marks = {name: pytest.mark.slow if name in EXPRESSIONS else () for name in ALL}
    rows = [pytest.param(name, marks=marks[name]) for name in ALL if name not in left_out]
    return pytest.mark.parametrize("name", rows)


def group(name):
    return "others" if name in OTHERS else "expressions"


def numpy(tree):
    return jax.tree.map(np.asarray, tree)


GRADIENTS = {
    key: np.stack([np.cos(2 * t + p) for t in np.float32([0, 1, 2])])
    for key, p in numpy(PARAMS).items()
}


def run(name, tx, params, gradients):
    """The updates of all steps, in one loop."""

    def step(state, g):
        updates, state = tx.update(g, state, params, **extras(name, params))
        return state, updates

    return jax.lax.scan(step, tx.init(params), gradients)[1]


def run_all(txs, params, gradients):
    return {name: run(name, tx, params, gradients) for name, tx in txs.items()}


# Hyperparameters as arrays: other values are the same program, a batch of them one more.

FACTORS = (1.0, 0.9, 0.7)


def scaled(tx, factor):
    return jax.tree.map(lambda x: np.asarray(x * factor, x.dtype), numpy(gdtx.as_arrays(tx)))


def batch(i):
    """Of hyperparameters and parameters, those with this number."""
    return {key: p + np.float32(i) / 4 for key, p in numpy(PARAMS).items()}, FACTORS[i]


@functools.cache
def outcomes(kind):
    """Updates with a batch of values, with the same in another order, and how often it compiled."""
    program, results = jax.jit(jax.vmap(run_all, in_axes=(0, 0, None))), []
    for order in ((0, 1, 2), (2, 0, 1)):
        several = []
        for params, factor in map(batch, order):
            several.append(({name: scaled(tx, factor) for name, tx in ROWS[kind].items()}, params))
        values = jax.tree.map(lambda *x: np.stack(x), *several)
        with counted_compilations() as compilations:
            results.append(numpy(program(*values, GRADIENTS)))
            compiled = len(compilations)
    return *results, compiled


@rows_but()
def test_new_values_of_arrays_compile_nothing(name):
    found, other, compiled = outcomes(group(name))
    assert compiled == 0
    one = jax.tree.map(lambda x: x[[2, 0, 1]], found[name])
    chex.assert_trees_all_close(other[name], one, rtol=1e-6, atol=1e-7)


@rows_but()
def test_one_of_a_batch_in_a_program_equals_constants_without_any(name):
    """The first of the transformations and parameters; and a loop of a program one of Python."""
    tx = ALL[name]
    with jax.disable_jit():
        results, state = [], tx.init(PARAMS)
        for t in range(3):
            gradients = {key: jnp.asarray(g[t]) for key, g in GRADIENTS.items()}
            updates, state = tx.update(gradients, state, PARAMS, **extras(name, PARAMS))
            results.append(numpy(updates))
    one = jax.tree.map(lambda x: x[0], outcomes(group(name))[0][name])
    # One minus a decay that is an array is rounded.
    alone = jax.tree.map(lambda *x: np.stack(x), *results)
    chex.assert_trees_all_close(alone, one, rtol=1e-3, atol=1e-6)


# Derivatives

# What is asked to make infinity of 0, and the logarithm of a decay that is 0.
TO_INFINITY = {"infinite_at_zero", "adam without averages (method)"}


def losses(txs, params, gradients):
    """Of each row, and of all: each has parameters and gradients of its own, to tell apart."""
    each = {}
    for name, tx in txs.items():
        updates = jax.tree.leaves(run(name, tx, params[name], gradients[name]))
        each[name] = sum(jnp.sum(jnp.square(u) + u) for u in updates)
    return sum(each.values()), each


def wide(tree, least=0.0):
    """In float64; what is smaller than a difference sees is made larger."""
    return jax.tree.map(
        lambda x: (
            np.where((x > 0) & (x < least), least, x).astype(float)
            if np.issubdtype(x.dtype, np.inexact)
            else x
        ),
        tree,
    )


@functools.cache
def derivatives(kind):
    """By hyperparameters, parameters and gradients, with differences; and those at 0.

    Of rows each by itself, so that all are moved at once.
    """
    program = jax.jit(jax.value_and_grad(losses, (0, 1, 2), has_aux=True, allow_int=True))
    rows = {name: tx for name, tx in ROWS[kind].items() if name not in TO_INFINITY}
    txs = wide({name: scaled(tx, FACTORS[1]) for name, tx in rows.items()}, 1e-3)
    trees = jax.tree.map(lambda p: p + 0.3, wide((numpy(PARAMS), GRADIENTS)))
    along = jax.tree.map(lambda p: np.cos(7 * p), trees)

    def each(tree):
        return dict.fromkeys(rows, tree)

    def moved(i, by):
        """With the i-th hyperparameter moved, or if there is none the trees."""
        if i < 0:
            return txs, *map(each, jax.tree.map(lambda p, d: p + by * d, trees, along))
        flat = {name: jax.tree.flatten(tx) for name, tx in txs.items()}
        for leaves, _ in flat.values():
            if i < len(leaves) and leaves[i].dtype == float:
                leaves[i] = leaves[i] + by
        return {n: tree.unflatten(x) for n, (x, tree) in flat.items()}, *map(each, trees)

    slopes = {}
    for i in range(-1, max(len(jax.tree.leaves(tx)) for tx in txs.values())):
        up, down = (program(*moved(i, by))[0][1] for by in (1e-6, -1e-6))
        slopes[i] = {name: float(up[name] - down[name]) / 2e-6 for name in rows}
    found = numpy(program(*moved(-1, 0.0))[1])
    at_zero = numpy(program(txs, *map(each, jax.tree.map(np.zeros_like, trees))))
    return found, along, slopes, at_zero


@rows_but(*TO_INFINITY)
def test_derivatives_equal_finite_differences(name, x64):
    """Those by hyperparameters are a transformation too."""
    (by_hyperparameters, *by_trees), along, slopes, _ = derivatives(group(name))
    assert by_hyperparameters[name].signature.name == ALL[name].signature.name
    for i, slope in enumerate(jax.tree.leaves(by_hyperparameters[name])):
        if slope.dtype == float:
            np.testing.assert_allclose(slope, slopes[i][name], rtol=1e-5, atol=1e-7)
    pairs = zip(*map(jax.tree.leaves, ([tree[name] for tree in by_trees], along)), strict=True)
    slope = sum(np.sum(d * direction) for d, direction in pairs)
    np.testing.assert_allclose(slope, slopes[-1][name], rtol=1e-5, atol=1e-7)


@rows_but(*TO_INFINITY)
def test_derivatives_at_zero_are_finite(name, x64):
    """By hyperparameters, parameters and gradients, where all updates and norms are 0."""
    (_, values), found = derivatives(group(name))[-1]
    leaves = jax.tree.leaves((values[name], [tree[name] for tree in found]))
    assert all(np.isfinite(x).all() for x in leaves if x.dtype == float)


# Without a program


@by_link
@pytest.mark.parametrize("params", [{}, (), {"a": None}], ids=repr)
def test_trees_without_leaves(name, params):
    if (
        any(key in repr(ALL[name]) for key in ("mask=", "labels=", "what="))
        and group(name) == "links"
    ):
        pytest.skip("its choice is a tree of other parameters")
    tx = ALL[name]
    state = jax.eval_shape(tx.init, params)
    updates, new = jax.eval_shape(
        lambda: tx.update(
            params,
            tx.init(params),
            params,
            value=0.5,
            tree=params,
            hessian=params,
            grad_fn=lambda p: p,
        )
    )
    assert updates == params
    assert jax.tree.structure(new) == jax.tree.structure(state)


SCHEDULE = type(gdtx.constant_schedule(0.0))


def has_function(tx):
    """Of the user: two of these are not equal, though they be written alike."""
    functions = (x for x in tx.arguments.values() if callable(x) and not isinstance(x, SCHEDULE))
    inside = (x for _, _, x in tx.parts() if isinstance(x, gdtx.GradientTransformation))
    return any(vars(gdtx).get(getattr(f, "__name__", "")) is not f for f in functions) or any(
        map(has_function, inside)
    )


@by_link
def test_is_data(name):
    tx = ALL[name]
    copies = [copy.copy(tx), jax.tree.map(lambda x: x, tx), tx.replace()]
    if not has_function(tx):
        copies += [library.loads(library.dumps(tx)) for library in (pickle, cloudpickle)]
        copies += [copy.deepcopy(tx), eval(repr(tx), vars(gdtx))]
    for same in copies:
        assert same == tx
        assert hash(same) == hash(tx)
        assert repr(same) == repr(tx)
    assert jax.tree.leaves(tx) == []
    for path, value in gdtx.hyperparams(tx).items():
        if isinstance(value, float) and value:
            other = gdtx.replace(tx, {path: value * (1.5 if path == "threshold" else 0.9)})
            assert other != tx
            assert gdtx.replace(other, {path: value}) == tx


@by_link
def test_extra_arguments_are_accepted(name):
    """And change nothing, beside those that it asks for."""
    tx, given = ALL[name], extras(name, PARAMS)
    more = {"value_fn": sum, "curvature": None, "of nobody": 1.0}

    def program(more):
        return str(jax.make_jaxpr(lambda p: tx.update(p, tx.init(p), p, **given, **more))(PARAMS))

    assert program(more) == program({})


# Methods


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_data(name):
    row = METHODS[name]
    tx = row.make(row.learning_rate)
    assert tx == row.make(row.learning_rate)
    assert tx != row.make(0.123)
    assert tx.replace(learning_rate=0.123) == row.make(0.123)
    assert eval(repr(tx), vars(gdtx)) == pickle.loads(pickle.dumps(tx)) == tx


@pytest.mark.parametrize("name", [name for name in METHODS if "," not in name])
def test_expansion_is_the_same_transformation(name):
    tx = METHODS[name].make(0.1)
    formula = gdtx.expand(tx)
    assert formula != tx
    programs = [
        str(jax.make_jaxpr(lambda p: each.update(p, each.init(p), p))(PARAMS))  # noqa: B023
        for each in (tx, formula)
    ]
    assert programs[0] == programs[1]


def test_compilations_are_seen():
    """The counter that the tests around this one trust: a new program counts, an old one not."""
    program, x = jax.jit(lambda x: x * 12345), jnp.ones(3)
    for expected in (1, 0):
        with counted_compilations() as compilations:
            program(x)
        assert len(compilations) == expected


def test_arrays_of_other_dtypes_are_others():
    one, same, other = (gdtx.scale(jnp.ones((), t)) for t in ("float32", "float32", "float16"))
    assert one == same
    assert one != other
