"""What arguments may be: arrays are looked at, schedules are functions on purpose."""

import functools
import inspect
import math
import types

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from jax.example_libraries import optimizers

import gdtx
from gdtx.core.numbers.values import at_hand
from gdtx.core.transformation import TRANSFORMATION

COSINES = [{"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 1, "decay_steps": 2,
            "end_value": 0.0}]  # fmt: skip


def factories():
    """All public factories of transformations and schedules, by name."""
    for name, value in vars(gdtx).items():
        if hasattr(value, "__gdtx_signature__"):
            yield name, value


def some(kind, argument):
    """A value that an argument takes."""
    if kind is TRANSFORMATION:
        return gdtx.identity()
    if kind is not None and kind.scalar:
        return next(x for x in (0.5, 1.0, 2.0, 4.0) if kind.accepts(x))
    if kind is not None and kind.integer:
        return 1
    known = {
        "mask": True, "labels": "a", "transforms": {"a": gdtx.identity()}, "what": True,
        "name": "m", "seed": 0, "matrices": True, "axis": 0,
        "schedules": [gdtx.constant_schedule(1.0)], "boundaries": [],
        "boundaries_and_scales": {}, "cosine_kwargs": COSINES, "schedule": lambda t: t,
        "one": 1.0, "other": 1.0, "merge": gdtx.plus,
        "interpolate_type": "linear", "over": "data", "specs": jax.sharding.PartitionSpec(),
    }  # fmt: skip
    value = known.get(argument, lambda *args: args[0])
    return value if kind is None or kind.accepts(value) else 0


def required(factory):
    """What a factory must be given, by name."""
    signature = factory.__gdtx_signature__
    return {
        name: some(signature.kind(name), name)
        for name, parameter in signature.parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }


SCALARS = [
    (factory, name)
    for _, factory in factories()
    for name in factory.__gdtx_signature__.parameters
    if factory.__gdtx_signature__.is_scalar(name)
]
by_scalar = pytest.mark.parametrize(
    ("factory", "name"), SCALARS, ids=lambda value: getattr(value, "__name__", value)
)


def refused(kind):
    """Numbers that are not of a kind."""
    return [x for x in (math.nan, math.inf, -1.0, 0.0, 1.0, 2.0) if not kind.accepts(x)]


@by_scalar
def test_arrays_at_hand_are_refused_where_numbers_are(factory, name):
    signature, given = factory.__gdtx_signature__, required(factory)
    for bad in refused(signature.kind(name)):
        batch = np.array([some(signature.kind(name), name), bad], np.float32)
        for value in (np.float32(bad), np.array(bad), jnp.array(bad), batch, jnp.array(batch)):
            with pytest.raises(
                ValueError, match=rf"^{signature.name}: {name} must be .* got {bad}"
            ):
                factory(**given | {name: value})


def test_the_place_of_a_wrong_number_is_named():
    with pytest.raises(ValueError, match=r"adam: b1 must be in \[0, 1\), got 2\.0 at \[1\] in an "):
        gdtx.adam(0.1, b1=np.array([0.9, 2.0]))
    with pytest.raises(ValueError, match=r"adam: b1 must be in \[0, 1\), got 2\.0 at \[1\] in an "):
        gdtx.sweep(lambda tx: 0.0, gdtx.adam(0.1), {"b1": [0.9, 2.0]})


def test_integer_arrays_at_hand_are_looked_at():
    for value in (np.array(-1), jnp.array([0, -1])):
        with pytest.raises(TypeError, match="add_noise: seed must be an integer in"):
            gdtx.add_noise(0.1, 0.5, seed=value)
        with pytest.raises(TypeError, match="accumulate_gradients: every must be a positive"):
            gdtx.accumulate_gradients(gdtx.sgd(0.1), value)
    with pytest.raises(TypeError, match="merge_schedules: other must be a finite number"):
        gdtx.constant_schedule(0.1) * jnp.array(jnp.nan)


def test_what_is_not_at_hand_is_left():
    deleted = jnp.ones(()) * 2
    deleted.delete()
    assert at_hand(deleted).size == 0
    gdtx.adam(0.1, b1=deleted)
    assert jax.eval_shape(lambda b1: gdtx.adam(0.1, b1).init(jnp.ones(1)), 2.0)
    with jax.transfer_guard("disallow"):
        gdtx.adam(jax.device_put(0.5))


NO_SCHEDULES = {
    "dtypes": [jnp.bfloat16, np.float32, ml_dtypes.float8_e4m3fn, jnp.dtype("float32")],
    "classes": [dict, float, bool, gdtx.GradientTransformation, list[int]],
    "factories": [gdtx.linear_schedule, gdtx.adam],
    "functions of libraries": [jnp.sqrt, jnp.add, np.exp, np.add, math.sqrt, abs, jax.nn.relu,
                               jax.random.normal, {0: 0.1}.get],
}  # fmt: skip


@pytest.mark.parametrize("value", [x for each in NO_SCHEDULES.values() for x in each])
def test_what_can_be_called_by_accident_is_no_schedule(value):
    with pytest.raises(TypeError, match=r"^adam: b1 must be a number in \[0, 1\), an array or a "):
        gdtx.adam(0.1, b1=value)


@by_scalar
def test_no_argument_takes_a_dtype_or_a_class(factory, name):
    for value, came in ((jnp.bfloat16, "the dtype bfloat16"), (dict, "the class dict")):
        match = rf"^{factory.__gdtx_signature__.name}: {name} must be .* got {came}"
        with pytest.raises(TypeError, match=match):
            factory(**required(factory) | {name: value})


@pytest.mark.parametrize("name", ["adam", "adamw", "lion", "nadam", "nadamw", "sgd"])
def test_positional_calls_of_optax_with_a_dtype(name):
    """What is valid there means the same here, or says why not."""
    parameters = list(inspect.signature(getattr(optax, name)).parameters.values())
    (place,) = (i for i, each in enumerate(parameters) if each.name.endswith("_dtype"))
    given = [0.1, *(each.default for each in parameters[1:place])]
    if name == "sgd":
        with pytest.raises(ValueError, match="sgd: accumulator_dtype=bfloat16 needs a momentum"):
            gdtx.sgd(*given, jnp.bfloat16)
        given[1] = 0.9
    state = getattr(gdtx, name)(*given, jnp.bfloat16).init(jnp.ones(2))
    assert "bfloat16" in {str(leaf.dtype) for leaf in jax.tree.leaves(state)}
    if name == "adamw":
        with pytest.raises(
            TypeError, match=r"adamw: weight_decay .* got the dtype bfloat16 \(that"
        ):
            gdtx.adamw(0.1, weight_decay=jnp.bfloat16)


class Called:
    def __call__(self, step):
        return 0.5 / (1 + step)


@pytest.mark.parametrize("value", [
    lambda t: 0.5, Called(), Called().__call__, functools.partial(pow, 0.5), np.poly1d([0.1, 0.5]),
    jax.jit(lambda t: 0.5 / (t + 1)), optax.constant_schedule(0.1), gdtx.constant_schedule(0.1),
    functools.partial(jnp.interp, xp=jnp.arange(2.0), fp=jnp.ones(2) / 2),
    jax.tree_util.Partial(lambda t: 0.1), types.MethodType(lambda self, t: 0.1, 3),
    optimizers.exponential_decay(0.1, 10, 0.5), eval("lambda t: 0.1", {}),
])  # fmt: skip
def test_functions_on_purpose_are_schedules(value):
    tx = gdtx.adam(0.1, b1=value)
    assert list(tx.signature.scheduled(tx.arguments)) == ["b1"]
