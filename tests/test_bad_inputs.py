"""Five bad values for each argument of each public factory, made from the kinds of arguments.

Nothing bad is silently taken, and the error names the factory and the argument: where it is called
if that can be known there, else at `init` or the first `update`.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gdtx
from gdtx.core.calls.kinds import Kind

FACTORIES = {
    name: factory
    for module in (gdtx, gdtx.kfac, gdtx.interop)
    for name, factory in vars(module).items()
    if hasattr(factory, "__gdtx_signature__")
}
PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
TX = gdtx.sgd(0.1)

# Arguments that must be given and are of no kind that says what a good value is.
GIVEN = {
    "what": {"w": True, "b": False},
    "mask": {"w": True, "b": False},
    "labels": {"w": "a", "b": "a"},
    "transforms": {"a": TX},
    "name": "value",
    "cosine_kwargs": [{"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 1, "decay_steps": 5}],
    "schedules": [gdtx.constant_schedule(1.0)],
    "boundaries": [],
    "interpolate_type": "linear",
    "f": lambda *arrays: arrays[0],
    "merge": lambda *arrays: arrays[0],
    "rule": lambda u, **buffers: (u, buffers),
    "is_bad": lambda u: False,
    "statistic": gdtx.ema(0.9),
}
SET = {
    # Without these an argument would not be looked at.
    "dion": {"matrices": {"w": True, "b": False}, "others": TX},
    "normuon": {"matrices": {"w": True, "b": False}, "others": TX},
    "muon": {"matrices": {"w": True, "b": False}, "others": TX},
    "scale_by_dion": {"axes": {"w": True, "b": False}},
    "scale_by_muon": {"axes": {"w": True, "b": False}},
    "orthogonalize": {"axes": {"w": True, "b": False}},
    "scale_by_shape": {"axes": {"w": True, "b": False}},
    "counted": {"f": lambda t: lambda u: u},
    "randomized": {"f": lambda t: lambda key, u: u},
    "join": {"branches": {"a": TX}},
    "levenberg_marquardt": {"inner": gdtx.kfac.kfac(0.1)},
    "warmup_cosine_decay_schedule": {"warmup_steps": 1, "decay_steps": 5},
    "lars": {"weight_decay": 0.1},
    "scale_by_lars": {"weight_decay": 0.1},
}


def good(kind: Kind | None, name: str):
    """A value that may be given."""
    if name in GIVEN:
        return GIVEN[name]
    assert kind is not None, name
    values = (0.5, 1, 2.5, 5.0, True, TX, "float32", lambda t: 0.5, {})
    return next(value for value in values if kind.accepts(value))


def needs_a_value(t):
    return 0.1 if t < 5 else 0.01


def raises(*args):
    raise KeyError("mine")


def no_arguments():
    return 0.5


def many_arguments(a, b, c, d, e):
    return 0.5


def none_at_all(*args):
    return None


ARRAYS = [np.array(True), np.array(1j, np.complex64)]
NUMBERS = [math.nan, math.inf, -math.inf, -1.0, 1.0, 2.0, 1.5, 0.0, -1, 0, 2**31, 10**400]
THINGS = ["1e-3", True, 1j, [0.1], {}, b"x", None, object(), TX, ...]
FUNCTIONS = [gdtx.constant_schedule, gdtx.adam, jnp.bfloat16, dict, gdtx.kfac,
             no_arguments, many_arguments]  # fmt: skip


def of_another_kind(kind: Kind, optional: bool):
    """What the kind is not, of all sorts: numbers out of its range first."""
    return [x for x in NUMBERS if not _accepts(kind, x)], [
        x for x in THINGS if not _accepts(kind, x) and not (optional and x is None)
    ]


def _accepts(kind, value):
    try:
        return kind.accepts(value)
    except (TypeError, OverflowError, ValueError):
        return False


def bad_values(kind: Kind | None, optional: bool, name: str, schedules: bool, i: int) -> list:
    """Five, others for each `i`, so that all are tried somewhere."""
    if kind is None:
        return BY_NAME.get(name, STRINGS)
    functions = [x for x in FUNCTIONS[:5] if not _accepts(kind, x)]  # a class may be a dtype
    numbers, things = of_another_kind(kind, optional)

    def pick(values, n):
        values = values or things
        return [values[(i + k) % len(values)] for k in range(n)]

    if kind.scalar:
        functions = pick(FUNCTIONS, 1)
        if schedules and i % 8 == 0:  # for which an update is needed
            functions = pick([needs_a_value, raises, none_at_all, jnp.ones], 1)
        at_hand = np.asarray(float(numbers[0]), np.float32)
        return pick(numbers, 2) + pick(things, 1) + pick([*ARRAYS, at_hand], 1) + functions
    if kind.takes is not None or kind.expected == "a function":
        return [*pick(things, 1), no_arguments, many_arguments, *pick(functions, 1), raises]
    return pick(numbers, 2) + pick(things, 2) + pick(functions, 1)


OF_LEAVES = [3, "w", {"w": True}, many_arguments, raises]
STRINGS = ["no such", 3, None, [], b"linear"]
BY_NAME = {
    "what": OF_LEAVES,
    "mask": OF_LEAVES,
    "trust_mask": OF_LEAVES,
    "below": OF_LEAVES,
    "stacked": OF_LEAVES,
    "labels": [3, "no such", {"w": "a"}, many_arguments, raises],
    "matrices": [3, "w", {"w": "io"}, many_arguments, raises],
    "axes": [3, "w", {"w": "iob"}, many_arguments, raises],
    "coefficients": ["no such", 3, [], ["a", "b"], [(1.0,)] * 9],
    "shape_factor": ["no such", 3, [], many_arguments, raises],
    "factor": ["no such", 3, [], many_arguments, raises],
    "layout": [3, "dense", [3], {"w": 3}, raises],
    "initial": ["x", None, jnp.ones(2), [0.0], TX],
    "cosine_kwargs": [3, [], [3], [{"lr": 1.0}], [{"init_value": 0.0}]],
    "schedules": [3, [3], [many_arguments], [gdtx.constant_schedule], [raises]],
    "boundaries": [3, [3], ["x"], [1.5], [-1]],
}


def arguments():
    i = 0
    for factory, make in FACTORIES.items():
        signature = make.__gdtx_signature__
        for name in signature.parameters:
            yield factory, name, i
            i += 1


def called(factory: str, name: str, value):
    """The factory with one bad argument, and with it the first update."""
    make = FACTORIES[factory]
    signature = make.__gdtx_signature__
    given = {}
    for each, parameter in signature.parameters.items():
        is_needed = parameter.default is parameter.empty
        if is_needed and each not in (signature.varargs, signature.varkeywords):
            given[each] = good(signature.kind(each), each)
    given |= SET.get(factory, {})
    given |= given.pop("branches", {})
    if name == signature.varkeywords:
        given = {key: x for key, x in given.items() if key in signature.parameters}
        tx = make(**given, a=value)
    elif name == signature.varargs:
        tx = make(*given.values(), value)
    else:
        tx = make(**given | {name: value})
    if isinstance(tx, gdtx.Options):
        return tx
    if isinstance(tx, gdtx.Schedule):
        return tx(3)
    if factory in ("precondition", "in_eigenbasis", "whiten"):
        tx = gdtx.blockwise(tx)  # whose blocks they are for

    def first(params):
        state = tx.init(params)
        return tx.update(params, state, params, value=params, grad_fn=lambda p: p)

    return jax.eval_shape(first, PARAMS)


def outcome(factory: str, name: str, value) -> str:
    try:
        called(factory, name, value)
    except Exception as error:
        text = "\n".join([str(error), *getattr(error, "__notes__", ())])
        # Arguments that have names of their own are called by these.
        label = "a" if name == FACTORIES[factory].__gdtx_signature__.varkeywords else name
        is_named = factory in text and label in text
        return "named" if is_named else f"{type(error).__name__}: {text.splitlines()[0]}"
    return "taken"


def test_bad_values_get_an_error_that_names_factory_and_argument():
    found = []
    for factory, name, i in arguments():
        signature = FACTORIES[factory].__gdtx_signature__
        kind, optional = signature.kinds[name]
        for value in bad_values(kind, optional, name, signature.schedules, i):
            found.append((factory, name, value, outcome(factory, name, value)))
    others = [row for row in found if row[3] != "named"]
    share = 1 - len(others) / len(found)
    print(f"{len(found)} bad values, {share:.1%} named; of the others")
    for row in others:
        print(*row)
    assert not [row for row in others if row[3] == "taken"]
    assert share >= 0.97


WHOLE = [
    (factory, name)
    for factory, name, _ in arguments()
    if (kind := FACTORIES[factory].__gdtx_signature__.kind(name)) is not None
    and kind.integer
    and name != "seed"  # all 32 bits of which are used
]


def test_integers_that_no_int32_holds_are_refused_where_they_are_given():
    assert len(WHOLE) > 40
    for factory, name in WHOLE:
        with pytest.raises(ValueError, match=f"^{factory}: {name} must .* int32, got 2147483648"):
            called(factory, name, 2**31)


@pytest.mark.parametrize("value", [2**31, -(2**40), 2**70])
def test_numbers_that_no_int32_holds_are_floats(value):
    """As a Python integer JAX would take them for an int32."""
    tx = gdtx.scale(value)
    assert tx == gdtx.scale(float(value))
    assert tx.update(jnp.ones(2), ())[0][0] == float(value)
    total = gdtx.constant_schedule(1.0) + value
    assert float(total(3)) == float(np.float32(1.0) + np.float32(value))
    long = gdtx.linear_schedule(1.0, 0.0, abs(value))
    assert float(long(2**31 - 1)) == pytest.approx(1 - 2**31 / abs(value), abs=1e-6)
    assert float(gdtx.cosine_decay_schedule(1.0, abs(value))(0)) == 1


BIG = 2**40


@pytest.mark.parametrize(
    ("tx", "extra_args"),
    [
        (gdtx.sgd(lambda t: BIG), {}),
        (gdtx.accumulate_gradients(gdtx.sgd(0.1), lambda t: BIG), {}),
        (gdtx.polyak_step(), {"value": BIG}),
        (gdtx.reduce_on_plateau(), {"value": BIG}),
        (gdtx.sgd(gdtx.linear_schedule(0.1, BIG, 3).shift(-2)), {"value": BIG}),
    ],
)
def test_integers_that_come_later_are_floats_too(tx, extra_args):
    grads = {"w": jnp.ones(2)}

    def first(grads):
        return tx.update(grads, tx.init(grads), grads, **extra_args)

    jax.eval_shape(first, grads)
    first(grads)


def test_a_schedule_takes_any_step():
    assert float(gdtx.linear_schedule(1.0, 0.5, 10)(BIG)) == 0.5
