"""Functions that a user gives: those with other arguments, those that raise, those that branch.

What they raise keeps its type, and gets a note that says in which transformation, by which
argument, and at which leaf.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gdtx
from gdtx import identity, sgd

PARAMS = {"head": {"w": jnp.ones((2, 3))}}
LEAF = "updates['head']['w'], an array of shape (2, 3) and dtype float32"


def step(tx):
    """The first update, in a trace and not compiled."""
    return jax.eval_shape(lambda p: tx.update(p, tx.init(p), p, grad_fn=tx), PARAMS)


class OfTheUserError(Exception):
    pass


def fails(*args, **kwargs):
    raise OfTheUserError("mine")


RAISED = {
    "schedule": (gdtx.adam(fails), "adam: raised by the schedule of learning_rate"),
    "schedule in a chain": (
        gdtx.chain(gdtx.clip(1.0), sgd(0.1, momentum=fails)),
        "chain > sgd: raised by the schedule of momentum",
    ),
    "scale_by_schedule": (gdtx.scale_by_schedule(fails), "scale_by_schedule > scale: raised by "),
    "merge_schedules": (
        sgd(gdtx.constant_schedule(0.1) * fails),
        "sgd: raised by the schedule of learning_rate",
    ),
    "merge_schedules, its term": (
        sgd(gdtx.constant_schedule(0.1) * fails),
        "sgd > merge_schedules: raised by other",
    ),
    "merge_schedules, its merge": (
        sgd(gdtx.merge_schedules(fails, 1.0, 2.0)),
        "sgd > merge_schedules: raised by merge",
    ),
    "bias_correction": (
        gdtx.scheduled_bias_correction(fails),
        "scheduled_bias_correction: raised by schedule",
    ),
    "elementwise": (
        gdtx.chain(gdtx.clip(1.0), gdtx.elementwise(fails)),
        f"chain > elementwise: raised by the rule at {LEAF}",
    ),
    "with_params": (gdtx.with_params(fails), f"with_params: raised by the rule at {LEAF}"),
    "treewise": (gdtx.treewise(fails), "treewise: raised by f"),
    "recur": (gdtx.recur(fails, m=0.0), f"recur: raised by the rule at {LEAF}"),
    "accumulate": (gdtx.accumulate(fails), f"accumulate > recur: raised by the rule at {LEAF}"),
    "counted": (gdtx.counted(fails), "counted: raised by f, of the step"),
    "counted, its rule": (
        gdtx.counted(lambda t: fails),
        f"counted: raised by the rule at {LEAF}",
    ),
    "randomized": (gdtx.randomized(fails), "randomized: raised by f, of the step"),
    "randomized, its rule": (
        gdtx.randomized(lambda t: fails),
        f"randomized: raised by the rule at {LEAF}",
    ),
    "join": (gdtx.join(fails, a=identity()), f"join: raised by merge at {LEAF}"),
    "feedback": (
        gdtx.feedback(fails, gdtx.running_sum()),
        f"feedback: raised by merge at {LEAF}",
    ),
    "mask of leaves": (gdtx.masked(sgd(0.1), fails), "masked: raised by mask, of 'head/w'"),
    "mask of the tree": (
        gdtx.adamw(0.1, mask=lambda params: fails()),
        "adamw > add_decayed_weights > masked: raised by mask",
    ),
    "labels": (
        gdtx.partition({"a": sgd(0.1)}, lambda params: fails()),
        "partition: raised by labels",
    ),
    "freeze": (gdtx.freeze(sgd(0.1), fails), "freeze > partition: raised by what, of 'head/w'"),
    "axes": (gdtx.orthogonalize(axes=fails), "orthogonalize: raised by axes, of 'head/w'"),
    "factor": (gdtx.scale_by_shape(fails), "scale_by_shape: raised by factor"),
    "skip_when": (gdtx.skip_when(sgd(0.1), fails), "skip_when: raised by is_bad"),
    "every": (gdtx.accumulate_gradients(sgd(0.1), fails), "accumulate_gradients: raised by every"),
    "init of a pair": (
        gdtx.chain(sgd(0.1), gdtx.GradientTransformation(fails, fails)),
        "chain: raised by links[1]",
    ),
    "update of a pair": (
        gdtx.join(gdtx.plus, a=sgd(0.1), b=gdtx.GradientTransformation(lambda p: (), fails)),
        "join: raised by b",
    ),
}


@pytest.mark.parametrize("name", RAISED)
def test_what_a_function_raises_says_where(name):
    tx, note = RAISED[name]
    with pytest.raises(OfTheUserError) as raised:
        step(tx)
    assert str(raised.value) == "mine"
    notes = [text for text in raised.value.__notes__ if not text.startswith("-----")]
    assert any(text.startswith(note) for text in notes), notes


BRANCHES = {
    "if": lambda t: 0.1 if t < 5 else 0.01,
    "while": lambda t: [t := t - 1 for _ in iter(lambda: bool(t > 0), False)],
    "float": lambda t: 0.1 * float(t),
    "math": lambda t: math.cos(t),
    "numpy": lambda t: np.cos(np.asarray(t)),
    "index": lambda t: [0.1, 0.2][t],
    "range": lambda t: sum(0.1 for _ in range(t)),
}


@pytest.mark.parametrize("name", BRANCHES)
def test_a_schedule_that_needs_a_value_is_told_that_it_is_traced(name):
    with pytest.raises(TypeError) as raised:  # a subclass of jax's
        step(gdtx.adam(BRANCHES[name]))
    assert type(raised.value).__module__ == "jax.errors"
    (note,) = (text for text in raised.value.__notes__ if text.startswith("adam: "))
    assert note.startswith("adam: raised by the schedule of learning_rate (what it is given is tra")
    assert "jnp.where(" in note


def test_an_error_of_ours_has_no_note():
    """It says all in its message."""
    tx = gdtx.chain(gdtx.freeze(sgd(0.1), lambda path, leaf: "yes"))
    with pytest.raises(TypeError, match=r"^chain > freeze: what of 'head/w' is 'yes'") as raised:
        tx.init(PARAMS)
    assert not [text for text in getattr(raised.value, "__notes__", ()) if "raised" in text]


def of(number):
    """A function with so many arguments."""
    names = "abcdef"[:number]
    return eval(f"lambda {', '.join(names)}: None"), f"the function <lambda>({', '.join(names)})"


# A function argument, what it must be, and the numbers of arguments that it may have.
ARGUMENTS = {
    "sgd: learning_rate": (sgd, "a number, an array or a schedule: a function of the step", [1]),
    "scale_by_schedule: schedule": (gdtx.scale_by_schedule, "a function of the step", [1]),
    "scheduled_bias_correction: schedule": (
        gdtx.scheduled_bias_correction, "a function of the step", [1]),
    "shift_schedule: schedule": (
        lambda f: gdtx.shift_schedule(f, 1), "a function of the step", [1]),
    "join_schedules: schedules[0]": (
        lambda f: gdtx.join_schedules([f], []), "a function of the step", [1]),
    "merge_schedules: merge": (
        lambda f: gdtx.merge_schedules(f, 1.0, 2.0), "a function of two arrays", [2]),
    "elementwise: f": (gdtx.elementwise, "a function of one array", [1]),
    "with_params: f": (gdtx.with_params, "a function of two arrays", [2]),
    "treewise: f": (gdtx.treewise, "a function of the updates", [1]),
    "recur: rule": (
        gdtx.recur, "a function of an array and its buffers by name, none", [1]),
    "accumulate: f": (gdtx.accumulate, "a function of two arrays", [2]),
    "counted: f": (gdtx.counted, "a function of the step", [1]),
    "randomized: f": (gdtx.randomized, "a function of the step", [1]),
    "join: merge": (
        lambda f: gdtx.join(f, a=identity(), b=identity()),
        "a function of as many arrays as there are branches, 2", [2]),
    "feedback: merge": (
        lambda f: gdtx.feedback(f, gdtx.running_sum()), "a function of two arrays", [2]),
    "skip_when: is_bad": (
        lambda f: gdtx.skip_when(identity(), f), "a function of the updates", [1]),
    "scale_by_shape: factor": (
        gdtx.scale_by_shape,
        "'keller', 'moonshot', None or a function of the numbers of inputs and outputs", [2]),
    "merge_schedules: one": (
        lambda f: gdtx.merge_schedules(gdtx.plus, f, 1.0),
        "a finite number, a real finite array or a function of the step", [1]),
    "accumulate_gradients: every": (
        lambda f: gdtx.accumulate_gradients(identity(), f),
        "a positive integer, an integer array or a function of the updates done", [1]),
    "masked: mask": (
        lambda f: gdtx.masked(identity(), f).init(PARAMS),
        "a function of the parameters, or of a path and a leaf", [1, 2]),
    "partition: labels": (
        lambda f: gdtx.partition({"a": identity()}, f).init(PARAMS),
        "a function of the parameters, or of a path and a leaf", [1, 2]),
    "freeze: what": (
        lambda f: gdtx.freeze(identity(), f).init(PARAMS),
        "a function of the parameters, or of a path and a leaf", [1, 2]),
    "orthogonalize: axes": (
        lambda f: gdtx.orthogonalize(axes=f).init(PARAMS),
        "a function of the parameters, or of a path and a leaf", [1, 2]),
    "GradientTransformation: init": (
        lambda f: gdtx.GradientTransformation(f, identity().update),
        "a function of the parameters", [1]),
    "GradientTransformation: update": (
        lambda f: gdtx.GradientTransformation(identity().init, f),
        "a function of updates, state and parameters", [3]),
}  # fmt: skip


@pytest.mark.parametrize("label", ARGUMENTS)
def test_functions_of_other_arguments_are_refused(label):
    make, expected, right = ARGUMENTS[label]
    for number in range(5):
        f, shown = of(number)
        if number in right:
            continue
        with pytest.raises(TypeError) as raised:
            make(f)
        assert str(raised.value) == f"{label} must be {expected}, got {shown}"
    # What takes any number, and what says nothing about what it takes, is let in.
    for f in (lambda *args, **kwargs: None, functools.partial(max)):
        if not label.startswith(("masked", "partition", "freeze", "orthogonalize")):
            make(f)


def test_optional_and_named_arguments_are_counted():
    gdtx.adam(lambda t, scale=0.1: scale / (1 + t))
    gdtx.recur(lambda u, m, power=2: (u, {"m": m}), m=0.0)
    gdtx.GradientTransformation(lambda p: (), lambda u, s, p=None, *, value, **rest: (u, s))
    with pytest.raises(TypeError, match=r"recur: rule must be .* m, got the function <lambda>\(u"):
        gdtx.recur(lambda u, n: (u, {"n": n}), m=0.0)


@pytest.mark.parametrize(
    ("value", "came"),
    [
        (gdtx.constant_schedule, "the function constant_schedule: call it"),
        (gdtx.adam, "the function adam: call it"),
        (jnp.bfloat16, "the dtype bfloat16"),
        (dict, "the class dict"),
        (math, "the module math"),
        (gdtx.kfac, "the module gdtx.kfac"),
    ],
)
@pytest.mark.parametrize("label", ["sgd: learning_rate", "elementwise: f", "join: merge"])
def test_what_is_callable_by_accident_is_no_function(label, value, came):
    with pytest.raises(TypeError, match=f"^{label} must be .*, got {came}"):
        ARGUMENTS[label][0](value)


def test_the_names_of_arguments_are_shown_as_written():
    def f(a, b, *c, d, **e):
        pass

    with pytest.raises(TypeError, match=r"got the function f\(a, b, \*c, d, \*\*e\)$"):
        gdtx.elementwise(f)
