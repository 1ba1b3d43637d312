"""Bad inputs: each raises an error that says where, what was expected and what came.

A row is the exception, its message and a call. "..." in a message stands for any words. Every row
runs as written and again inside `jax.jit`, where the arrays among its arguments are tracers.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gdtx
from gdtx import (
    accumulate,
    adadelta,
    adagrad,
    adam,
    adamax,
    adamw,
    add_decayed_weights,
    amsgrad,
    apply_updates,
    bias_correction,
    chain,
    clip,
    clip_by_global_norm,
    constant_schedule,
    counted,
    divide,
    elementwise,
    ema,
    expand,
    feedback,
    global_norm,
    identity,
    join,
    join_schedules,
    linear_schedule,
    masked,
    multiply,
    nadam,
    nadamw,
    polynomial_schedule,
    radam,
    recur,
    rmsprop,
    rprop,
    running_max,
    running_sum,
    scale,
    scale_by_adam,
    scale_by_rprop,
    scale_by_schedule,
    sgd,
    square,
    trace,
    treewise,
    warmup_cosine_decay_schedule,
)


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


def tree(head=None, layer=dict, **leaves):
    """The parameters, with some of their leaves replaced, added, or (by `...`) left out."""
    inner = {"w": ones(2, 3), "b": ones(3)} | leaves
    inner = {k: v for k, v in inner.items() if v is not ...}
    return {"head": [ones(3)] if head is None else head, "layer": layer(inner)}


PARAMS = tree()
INTS, BOOLS, COMPLEX = ones(3, dtype=np.int32), ones(3, dtype=bool), ones(3, dtype=np.complex64)


def init(tx, params):
    return tx.init(params)


def update(tx, updates=PARAMS, params=PARAMS, **extra_args):
    return tx.update(updates, tx.init(PARAMS), params, **extra_args)


def foreign(tx, other, params=PARAMS):
    """The state of another transformation, or of another tree."""
    return tx.update(PARAMS, other.init(params) if hasattr(other, "init") else other, PARAMS)


def swapped(tx):
    return tx.update(PARAMS, PARAMS, tx.init(PARAMS))


def replace(tx, **changes):
    return tx.replace(**changes)


def wants_value(updates, state, params=None, *, value):
    return updates, state


def emits_one(updates, state, params=None):
    return updates


VALUE = gdtx.GradientTransformation(lambda params: (), wants_value)
ONE = gdtx.GradientTransformation(lambda params: (), emits_one)


@gdtx.transformation
def hollow():
    return None


def bad(kind, message, f, *args, **kwargs):
    return pytest.param(kind, message, f, args, kwargs, id=f"{f.__name__}: {message}"[:80])


NUMBERS = [
    bad(ValueError, "ema: decay must be in [0, 1), got 1.5", ema, 1.5),
    bad(ValueError, "ema: decay must be in [0, 1), got 1.0", ema, 1.0),
    bad(ValueError, "trace: decay must be in [0, 1], got -0.1", trace, -0.1),
    bad(ValueError, "running_max: decay must be in [0, 1], got 2.0", running_max, 2.0),
    bad(ValueError, "running_sum: initial must be a non-negative ... got -1.0", running_sum, -1.0),
    bad(ValueError, "clip: max_delta must be non-negative, got -1.0", clip, -1.0),
    bad(ValueError, "clip_by_global_norm: max_norm must be non-negative, got -1",
        clip_by_global_norm, -1),
    bad(ValueError, "bias_correction: ahead must be a non-negative integer, got -1",
        bias_correction, 0.9, ahead=-1),
    bad(ValueError, "bias_correction: ahead must be a non-negative integer, got 1.5",
        bias_correction, 0.9, ahead=1.5),
    bad(ValueError, "adam: learning_rate must be a non-negative finite number, got -0.1",
        adam, -0.1),
    bad(ValueError, "adam: learning_rate must be a non-negative finite number, got nan",
        adam, float("nan")),
    bad(ValueError, "adam: learning_rate must be a non-negative finite number, got inf",
        adam, float("inf")),
    bad(ValueError, "adam: b1 must be in [0, 1), got 1.0", adam, 0.1, b1=1.0),
    bad(ValueError, "scale_by_adam: b2 must be in [0, 1), got -0.9", scale_by_adam, b2=-0.9),
    bad(ValueError, "adamax: eps must be a non-negative finite number, got -1e-08",
        adamax, 0.1, eps=-1e-8),
    bad(ValueError, "sgd: momentum must be in [0, 1], got 1.5", sgd, 0.1, momentum=1.5),
    bad(ValueError, "radam: threshold must be at least 4, got 3", radam, 0.1, threshold=3),
    bad(ValueError, "rprop: eta_minus must be in (0, 1), got 1.2", rprop, 0.1, eta_minus=1.2),
    bad(ValueError, "rprop: eta_plus must be at least 1, got 0.5", rprop, 0.1, eta_plus=0.5),
    bad(ValueError, "rprop: min_step_size must be positive, got 0", rprop, 0.1, min_step_size=0),
    # Two arguments that do not go together are known to be wrong when they are given.
    bad(ValueError, "rprop: min_step_size ... max_step_size ... 1.0 ... 0.5",
        rprop, 0.1, min_step_size=1.0, max_step_size=0.5),
    bad(ValueError, "sgd: nesterov=True needs a momentum, got momentum=None",
        sgd, 0.1, nesterov=True),
    bad(ValueError, "scale_by_stddev: decay must be in (0, 1), got 0.0",
        rmsprop, 0.1, decay=0.0, centered=True),
    bad(ValueError, "linear_schedule: transition_steps must be a positive number of steps, got 0",
        linear_schedule, 1.0, 0.0, 0),
    bad(ValueError, "linear_schedule: transition_begin must be a non-negative integer, got -1",
        linear_schedule, 1.0, 0.0, 10, transition_begin=-1),
    bad(ValueError, "polynomial_schedule: power must be positive, got -1.0",
        polynomial_schedule, 1.0, 0.0, -1.0, 10),
    bad(ValueError, "exponential_decay: decay_rate must be positive, got 0.0",
        gdtx.exponential_decay, 1.0, 10, 0.0),
    bad(ValueError, "cosine_decay_schedule: decay_steps must be a positive number of steps, got -1",
        gdtx.cosine_decay_schedule, 1.0, -1),
    bad(ValueError, "warmup_cosine_decay_schedule: decay_steps must be larger than warmup_steps, "
        "got 5 and 10", warmup_cosine_decay_schedule, 0.0, 1.0, 10, 5),
    bad(ValueError, "join_schedules: 1 schedules need 0 boundaries, got 1",
        join_schedules, [constant_schedule(1.0)], [3]),
    bad(ValueError, "join_schedules: boundaries must increase ..., got [5, 3]",
        join_schedules, [constant_schedule(1.0)] * 3, [5, 3]),
    bad(ValueError, "piecewise_constant_schedule: boundaries_and_scales[3] must be non-negative, "
        "got -1.0", gdtx.piecewise_constant_schedule, 1.0, {3: -1.0}),
]  # fmt: skip

NO_NUMBER = "must be a non-negative finite number, an array or a schedule, got"
NO_PAIR = "must be a transformation (a pair of init and update), got"
TYPES = [
    bad(TypeError, f"adam: learning_rate {NO_NUMBER} '1e-3'", adam, "1e-3"),
    bad(TypeError, f"adam: learning_rate {NO_NUMBER} True", adam, True),
    bad(TypeError, f"adam: learning_rate {NO_NUMBER} 1j", adam, 1j),
    bad(TypeError, f"adam: learning_rate {NO_NUMBER} [0.1]", adam, [0.1]),
    bad(TypeError, f"adam: eps {NO_NUMBER} None", adam, 0.1, eps=None),
    bad(TypeError, "adam: learning_rate must be real, got an array of dtype complex64",
        adam, np.array(1j, np.complex64)),
    bad(TypeError, "adam: learning_rate must be real, got an array of dtype bool",
        adam, np.array(True)),
    bad(TypeError, "sgd: nesterov must be True or False, got 'yes'",
        sgd, 0.1, momentum=0.9, nesterov="yes"),
    bad(TypeError, "sgd: nesterov must be True or False, got 1",
        sgd, 0.1, momentum=0.9, nesterov=1),
    bad(TypeError, "ema: dtype must be a floating-point or complex dtype, got 'int32'",
        ema, 0.9, dtype="int32"),
    bad(TypeError, "ema: dtype must be a floating-point or complex dtype, got 'float12'",
        ema, 0.9, dtype="float12"),
    bad(TypeError, "bias_correction: ahead must be a non-negative integer, got the function mean",
        bias_correction, 0.9, ahead=np.mean),
    bad(TypeError, "constant_schedule: value must be a finite number or an array, got 'x'",
        constant_schedule, "x"),
    # A schedule of a schedule's argument has no step of its own to count.
    bad(TypeError, "constant_schedule: value must be a finite number or an array, got constant_sch",
        constant_schedule, constant_schedule(1.0)),
    bad(TypeError, "scale_by_schedule: schedule must be a function of the step, got 0.1",
        scale_by_schedule, 0.1),
    bad(TypeError, "join_schedules: schedules[0] must be a function of the step, got 1.0",
        join_schedules, [1.0, 2.0], [3]),
    bad(TypeError, "piecewise_constant_schedule: boundaries_and_scales must be ... got [3]",
        gdtx.piecewise_constant_schedule, 1.0, [3]),
    bad(TypeError, f"adam: learning_rate {NO_NUMBER} the function constant_schedule: call it",
        adam, constant_schedule),
    bad(TypeError, f"adam: learning_rate {NO_NUMBER} the dtype bfloat16", adam, jnp.bfloat16),
    # A factory that was not called is the commonest slip, so the message says what to do.
    bad(TypeError, f"chain: links[1] {NO_PAIR} ...adam ... call it", chain, identity(), adam),
    bad(TypeError, f"join: mu {NO_PAIR} ...adam ... call it", join, divide, mu=adam),
    bad(TypeError, f"masked: inner {NO_PAIR} ...adam ... call it", masked, adam, True),
    bad(TypeError, f"chain: links[0] {NO_PAIR} [adam(", chain, [adam(0.1), sgd(0.1)]),
    bad(TypeError, f"chain: links[1] {NO_PAIR} None", chain, clip(1.0), None),
    bad(TypeError, f"chain: links[0] {NO_PAIR} 0.1", chain, 0.1),
    bad(TypeError, f"feedback: statistic {NO_PAIR} 3", feedback, multiply, 3),
    bad(TypeError, "join: merge must be a function, got 3", join, 3, a=identity()),
    bad(TypeError, "elementwise: f must be a function of one array, got 3", elementwise, 3),
    bad(TypeError, "GradientTransformation: init must be a function of the parameters, got 1",
        gdtx.GradientTransformation, 1, 2),
    bad(TypeError, "expand: tx must be a transformation ... 3", expand, 3),
    bad(TypeError, "expand: tx must be a transformation ...adam", expand, adam),
]  # fmt: skip

NAMES = [
    bad(TypeError, "adam: unknown argument 'lr', did you mean 'learning_rate'?; adam takes "
        "(learning_rate, b1, b2, eps, eps_root, mu_dtype, *, nu_dtype)", adam, lr=0.1),
    bad(TypeError, "adam: unknown argument 'betas', did you mean 'b1' and 'b2'?",
        adam, 0.1, betas=(0.9, 0.99)),
    bad(TypeError, "adam: unknown argument 'beta1', did you mean 'b1'?", adam, 0.1, beta1=0.9),
    bad(TypeError, "adam: unknown argument 'epsilon', did you mean 'eps'?", adam, 0.1, epsilon=1.0),
    bad(TypeError, "rmsprop: unknown argument 'alpha', did you mean 'decay'?",
        rmsprop, 0.1, alpha=0.9),
    bad(TypeError, "rmsprop: unknown argument 'rho', did you mean 'decay'?", rmsprop, 0.1, rho=0.9),
    bad(TypeError, "sgd: unknown argument 'mu', did you mean 'momentum'?", sgd, 0.1, mu=0.9),
    bad(TypeError, "sgd: unknown argument 'momentun', did you mean 'momentum'?",
        sgd, 0.1, momentun=0.9),
    bad(TypeError, "adamw: unknown argument 'wd', did you mean 'weight_decay'?",
        adamw, 0.1, wd=0.1),
    bad(TypeError, "rprop: unknown argument 'etas', did you mean 'eta_minus' and 'eta_plus'?",
        rprop, 0.1, etas=(0.5, 1.2)),
    bad(TypeError, "adagrad: unknown argument 'foo'; adagrad takes (learning_rate, initial_acc",
        adagrad, 0.1, foo=1),
    bad(TypeError, "linear_schedule: unknown argument 'steps'", linear_schedule, 1.0, 0.0, steps=3),
    bad(TypeError, "adam: missing a required argument: 'learning_rate'; adam takes", adam),
    bad(TypeError, "linear_schedule: missing a required argument: 'transition_steps'",
        linear_schedule, 1.0, 0.0),
    bad(TypeError, "adam: too many positional arguments; adam takes",
        adam, 0.1, 0.9, 0.99, 0.0, 0.0, None, 1),
    bad(TypeError, "adam: multiple values for argument 'learning_rate'",
        adam, 0.1, learning_rate=0.1),
    bad(TypeError, "join: too many positional arguments; join takes (merge, **branches)",
        join, divide, identity()),
    bad(TypeError, "adam: no argument 'lr' to replace, did you mean 'learning_rate'?; it has "
        "learning_rate, b1, b2, eps, eps_root", replace, adam(0.1), lr=0.2),
    bad(TypeError, "chain: no argument 'learning_rate' to replace; it has 0, 0.learning_rate, 0.b1",
        replace, chain(adam(0.1)), learning_rate=0.2),
    bad(ValueError, "adam: b1 must be in [0, 1), got 2.0", replace, adam(0.1), b1=2.0),
]  # fmt: skip

NOT_TRAINED = (
    "expected a floating-point or complex array (leave out what is not trained: None is skipped)"
)
LEAVES = [
    bad(TypeError, f"adam: params['layer']['b'] has dtype int32, {NOT_TRAINED}",
        init, adam(0.1), tree(b=INTS)),
    bad(TypeError, f"sgd: params['layer']['b'] has dtype bool, {NOT_TRAINED}",
        init, sgd(0.1), tree(b=BOOLS)),
    bad(TypeError, "adam: params['layer']['b'] is 1.0 (float), expected an array",
        init, adam(0.1), tree(b=1.0)),
    bad(TypeError, "chain: params['layer']['b'] is 'x' (str), expected an array",
        init, chain(adam(0.1)), tree(b="x")),
    bad(TypeError, "adam: params['head'][1] is 2 (int), expected an array",
        init, adam(0.1), tree(head=[ones(3), 2])),
    bad(TypeError, "adam: params is 3.0 (float), expected an array", init, adam(0.1), 3.0),
    bad(TypeError, f"adam: updates['layer']['w'] has dtype int32, {NOT_TRAINED}",
        update, adam(0.1), tree(w=INTS)),
    bad(TypeError, f"clip: updates['layer']['w'] has dtype bool, {NOT_TRAINED}",
        update, clip(1.0), tree(w=BOOLS)),
    bad(TypeError, "sgd: updates['layer']['w'] is 1.0 (float), expected an array",
        update, sgd(0.1), tree(w=1.0)),
    bad(TypeError, f"adamw: params['layer']['b'] has dtype int32, {NOT_TRAINED}",
        update, adamw(0.1), PARAMS, tree(b=INTS)),
    bad(TypeError, "rprop > scale_by_rprop: updates['layer']['b'] is complex",
        update, rprop(0.1), tree(b=COMPLEX)),
    bad(TypeError, "chain > clip: updates['layer']['b'] is complex",
        update, chain(identity(), clip(1.0)), tree(b=COMPLEX), None),
    bad(TypeError, "running_max: updates['layer']['b'] is complex",
        update, running_max(), tree(b=COMPLEX), None),
]  # fmt: skip

SHAPES = [
    bad(ValueError, "adam: updates['layer']['b'] has shape (4,), its parameter has (3,)",
        update, adam(0.1), tree(b=ones(4))),
    bad(ValueError, "sgd: updates['layer']['b'] has shape (3,), its parameter has (3, 3)",
        update, sgd(0.1), PARAMS, tree(b=ones(3, 3))),
    bad(ValueError, "adam > scale_by_adam > first_moment > ema: updates['layer']['b'] has "
        "shape (4,), its state has (3,)", update, adam(0.1), tree(b=ones(4)), None),
    bad(ValueError, "adam: params has no leaf params['layer']['x'], which is in updates",
        update, adam(0.1), tree(x=ones(3))),
    bad(ValueError, "adam: params has a leaf params['layer']['b'] that is not in updates",
        update, adam(0.1), tree(b=...)),
    bad(ValueError, "adam: params has a leaf params['layer']['b'] that is not in updates",
        update, adam(0.1), tree(b=None)),
    bad(ValueError, "adam: params has no leaf params['layer']['b'], which is in updates",
        update, adam(0.1), PARAMS, tree(b=None)),
    bad(ValueError, "sgd > trace: state has no leaf state['layer']['x'], which is in updates",
        update, sgd(0.1, 0.9), tree(x=ones(3)), None),
    bad(ValueError, "sgd > trace: state has a leaf state['layer']['b'] that is not in updates",
        update, sgd(0.1, 0.9), tree(b=None), None),
    bad(ValueError, "adam: params['head'] is a list, updates['head'] a tuple",
        update, adam(0.1), tree(head=(ones(3),))),
    bad(ValueError, "adam: params['head'] is a list, updates['head'] a tuple",
        update, adam(0.1), tree(head=()), tree(head=[])),
    # An array of hyperparameters is for jax.vmap; without it, it must not spread over a leaf.
    bad(ValueError, "adam: learning_rate must be a scalar, got an array of shape (2,)",
        update, adam(ones(2))),
    bad(ValueError, "scale: factor must be a scalar, got an array of shape (3,)",
        update, scale(ones(3))),
    bad(ValueError, "elementwise: ...['head'][0] ... (3,) ... ()",
        update, elementwise(jnp.sum)),
    bad(ValueError, "accumulate: ...['head'][0] ... (3,) ... ()",
        update, accumulate(lambda u, a: jnp.sum(u))),
    bad(ValueError, "join: ...['head'][0] ... (3,) ... ()",
        update, join(lambda a, b: jnp.sum(a), a=identity(), b=square())),
    bad(ValueError, "treewise: ...['head'][0] ... (3,) ... ()",
        update, treewise(lambda u: jax.tree.map(jnp.sum, u))),
    bad(ValueError, "treewise: the result has no leaf ...['head'][0], which is in updates",
        update, treewise(lambda u: {"a": 1.0})),
    bad(ValueError, "join: ... no leaf ...['head'][0]",
        update, join(divide, a=identity(), b=gdtx.GradientTransformation(
            lambda p: (), lambda u, s, p=None: (u["layer"], s)))),
    bad(ValueError, "apply_updates: updates has no leaf updates['layer']['b'], which is in params",
        apply_updates, PARAMS, tree(b=...)),
    bad(ValueError, "apply_updates: updates has a leaf updates['layer']['x'] that is not in params",
        apply_updates, PARAMS, tree(x=ones(3))),
    bad(ValueError, "apply_updates: updates['layer']['b'] has shape (1,), its parameter has (3,)",
        apply_updates, PARAMS, tree(b=ones(1))),
    bad(ValueError, "apply_updates: ... params['layer']['b'] ... None",
        apply_updates, tree(b=None), PARAMS),
    bad(TypeError, "apply_updates: params['layer']['b'] has dtype int32, expected a floating-point",
        apply_updates, tree(b=INTS), PARAMS),
    bad(TypeError, "apply_updates: updates['layer']['b'] is 1.0 (float), expected an array",
        apply_updates, PARAMS, tree(b=1.0)),
    bad(TypeError, "apply_updates: updates['layer']['b'] is complex, its parameter is float32",
        apply_updates, PARAMS, tree(b=COMPLEX)),
    bad(TypeError, "global_norm: updates['layer']['b'] is 1 (int), expected an array",
        global_norm, tree(b=1)),
]  # fmt: skip

NO_PARAMS = "add_decayed_weights: needs the parameters: call update(updates, state, params)"
NO_VALUE = "needs the extra argument 'value': call update(updates, state, params, value=...)"
MISSING = [
    bad(ValueError, f"adamw > {NO_PARAMS}", update, adamw(0.1), PARAMS, None),
    bad(ValueError, f"nadamw > {NO_PARAMS}", update, nadamw(0.1), PARAMS, None),
    bad(ValueError, f"adadelta > {NO_PARAMS}", update, adadelta(weight_decay=0.1), PARAMS, None),
    bad(ValueError, f"adamw > {NO_PARAMS}",
        update, adamw(0.1, mask={"layer": True, "head": False}), PARAMS, None),
    bad(ValueError, f"chain > {NO_PARAMS}",
        update, chain(clip(1.0), add_decayed_weights(0.1)), PARAMS, None),
    bad(ValueError,
        "adam: state and params are swapped: call update(updates, state, params)",
        swapped, adam(0.1)),
    bad(TypeError, f"GradientTransformation: {NO_VALUE}", update, VALUE),
    bad(TypeError, f"chain: {NO_VALUE}", update, chain(adam(0.1), VALUE), gain=1.0),
]  # fmt: skip

OTHERS = "the state is that of another transformation: expected"
STATES = [
    bad(ValueError, f"sgd > trace: {OTHERS} a RecurState, got",
        foreign, sgd(0.1, 0.9), adam(0.1)),
    bad(ValueError, f"adam > scale_by_adam: {OTHERS} a dict of mu, nu, got a RecurState",
        foreign, adam(0.1), sgd(0.1, 0.9)),
    bad(ValueError, f"adam: {OTHERS} a tuple of 2, one state per link, got ()",
        foreign, adam(0.1), sgd(0.1)),
    bad(ValueError, f"sgd > scale_by_learning_rate > scale: {OTHERS} an empty tuple, got",
        foreign, sgd(0.1), sgd(0.1, 0.9)),
    bad(ValueError, f"adam > scale_by_adam > second_moment: {OTHERS} a tuple of 3, one state "
        "per link, got",
        foreign, adam(0.1), amsgrad(0.1)),
    bad(ValueError, f"nadam > scale_by_nadam > scheduled_bias_correction: {OTHERS} a ProductState, "
        "got a CountState", foreign, nadam(0.1, momentum_decay=0.004), nadam(0.1)),
    bad(ValueError, f"scale_by_rprop: {OTHERS} a dict of sign, step, got",
        foreign, scale_by_rprop(0.1), trace(0.9)),
    bad(ValueError, f"chain > trace: {OTHERS} a RecurState, got",
        foreign, chain(trace(0.9), adam(0.1)), chain(adam(0.1), trace(0.9))),
    bad(ValueError, f"adam: {OTHERS} a tuple of 2, one state per link, got a ScheduledState",
        foreign, adam(0.1), adam(constant_schedule(0.1))),
    bad(ValueError, f"adam: {OTHERS} a ScheduledState, got",
        foreign, adam(constant_schedule(0.1)), adam(0.1)),
    bad(ValueError, f"masked: {OTHERS} a MaskedState, got",
        foreign, masked(adam(0.1), True), adam(0.1)),
    bad(ValueError, f"adam: {OTHERS} a tuple of 2, one state per link, got None",
        foreign, adam(0.1), None),
    bad(ValueError, f"adam: {OTHERS} a tuple of 2, one state per link, got 'state'",
        foreign, adam(0.1), "state"),
    bad(ValueError, f"adam: {OTHERS} a tuple of 2, one state per link, got ...dict",
        foreign, adam(0.1), PARAMS),
    bad(ValueError, "adam > scale_by_adam > first_moment > ema: state has no leaf "
        "state['layer']['b'], which",
        foreign, adam(0.1), adam(0.1), tree(b=...)),
    bad(ValueError, "sgd > trace: updates['layer']['b'] has shape (3,), its state has (4,)",
        foreign, sgd(0.1, 0.9), sgd(0.1, 0.9), tree(b=ones(4))),
    bad(ValueError, "masked > trace: state has no leaf state['layer']['b'], which is in updates",
        foreign, masked(trace(0.9), {"head": False, "layer": True}),
        masked(trace(0.9), {"head": True, "layer": False})),
]  # fmt: skip

MASKS = [
    bad(ValueError, "masked: mask has no leaf mask['head']", init,
        masked(adam(0.1), {"layer": True}), PARAMS),
    bad(ValueError, "masked: mask has a leaf mask['layer']['c'] that is not in params", init,
        masked(adam(0.1), {"head": True, "layer": {"w": True, "b": True, "c": True}}), PARAMS),
    bad(ValueError, "masked: mask has a leaf mask['layer']['w']['k'] that is not in params", init,
        masked(adam(0.1), {"head": True, "layer": {"w": {"k": True}, "b": True}}), PARAMS),
    bad(ValueError, "masked: mask is a list, params a dict", init,
        masked(adam(0.1), [True, False]), PARAMS),
    bad(ValueError, "adamw > add_decayed_weights: mask has no leaf mask['head']", update,
        adamw(0.1, mask=lambda params: {"layer": True})),
    # The path is one in the mask, which may be a prefix of the parameters.
    bad(TypeError, "masked: mask['head'] is 1 (int), expected True or False", init,
        masked(adam(0.1), {"head": 1, "layer": True}), PARAMS),
    bad(TypeError, "masked: mask['layer']['b'] is 'no' (str), expected True or False", init,
        masked(adam(0.1), {"head": True, "layer": {"w": True, "b": "no"}}), PARAMS),
    bad(TypeError, "add_decayed_weights: mask is 'all' (str), expected True or False", init,
        add_decayed_weights(0.1, mask="all"), PARAMS),
    bad(TypeError, "masked: mask['head'][0] is an array of shape (3,) and dtype bool, expected "
        "True or False", init, masked(adam(0.1), lambda p: jax.tree.map(jnp.isfinite, p)), PARAMS),
]  # fmt: skip

# What a user's function returns.
RETURNED = [
    bad(ValueError, "adam: the schedule of learning_rate must return a scalar, got an array of "
        "shape (3,)", update, adam(lambda t: jnp.ones(3))),
    bad(TypeError, "adam: the schedule of learning_rate must return a scalar, got 'x'",
        update, adam(lambda t: "x")),
    bad(TypeError, "adam: the schedule of learning_rate must return a scalar, got None",
        update, adam(lambda t: None)),
    bad(TypeError, "adam: the schedule of learning_rate must return a ... complex64",
        update, adam(lambda t: jnp.complex64(1j))),
    # The factory of a schedule in place of a schedule.
    bad(TypeError, "adam: the schedule of learning_rate must return a scalar, got constant_sched",
        update, adam(lambda t: constant_schedule(0.1))),
    bad(TypeError, "recur: ...['head'][0] ... 'm' ... 'n'",
        update, recur(lambda u, m: (u, {"n": u}), m=0.0)),
    bad(TypeError, "recur: ...['head'][0] ... 'm' ... 'n'",
        update, recur(lambda u, m: (u, {"m": u, "n": u}), m=0.0)),
    bad(TypeError, "recur: ... the new update and a dict",
        update, recur(lambda u, m: u, m=0.0)),
    bad(TypeError, "counted: f must return a function", update, counted(lambda t: t)),
    bad(TypeError, "elementwise: ...['head'][0] ... None", update, elementwise(lambda u: None)),
    bad(TypeError, "accumulate: initial must be ... 'x'",
        accumulate, lambda u, a: a, initial="x"),
    bad(ValueError, "accumulate: initial must be a scalar, got an array of shape (2,)",
        init, accumulate(lambda u, a: a, initial=ones(2)), PARAMS),
    bad(TypeError, "feedback: the last link of the statistic must emit its buffer",
        update, feedback(multiply, chain(ema(0.9), scale(2.0)))),
    bad(TypeError, "previous: a statistic that looks ahead (nesterov=True) keeps not what it emits",
        update, gdtx.previous(trace(0.9, nesterov=True))),
    bad(TypeError, "feedback: the readout must be stateless, got trace(decay=0.9",
        update, feedback(multiply, running_sum(), trace(0.9))),
    bad(TypeError, "join: ... at least one branch", join, divide),
    bad(TypeError, "hollow: ... must return a transformation, got None", init, hollow(), PARAMS),
    bad(TypeError, "GradientTransformation: update must return ... (updates, state), got",
        update, ONE),
    bad(TypeError, "chain: update must return ... (updates, state), got", update, chain(ONE)),
]  # fmt: skip

TABLE = NUMBERS + TYPES + NAMES + LEAVES + SHAPES + MISSING + STATES + MASKS + RETURNED


def inside_jit(f, *args, **kwargs):
    """The same call in a trace, its arrays tracers."""
    leaves, structure = jax.tree.flatten((args, kwargs))
    arrays = {i: x for i, x in enumerate(leaves) if isinstance(x, np.ndarray)}

    def traced(arrays):
        args, kwargs = structure.unflatten([arrays.get(i, x) for i, x in enumerate(leaves)])
        return f(*args, **kwargs)

    return jax.jit(traced)(arrays)


def outside(f, *args, **kwargs):
    return f(*args, **kwargs)


@pytest.mark.parametrize("call", [outside, inside_jit])
@pytest.mark.parametrize(("kind", "message", "f", "args", "kwargs"), TABLE)
def test_says_where_what_was_expected_and_what_came(kind, message, f, args, kwargs, call):
    pattern = ".*".join(re.escape(part.strip()) for part in message.split("..."))
    with pytest.raises(kind, match=f"^{pattern}") as raised:
        call(f, *args, **kwargs)
    # What stands for a value inside a trace, and where an object lies, say nothing to the reader.
    assert not re.search(r"Tracer|0x[0-9a-f]{6}", str(raised.value)), raised.value


def test_the_paths_do_not_outlive_an_error():
    """A transformation that failed is not "at work" in the next message."""
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^sgd > trace: "):
            foreign(sgd(0.1, 0.9), adam(0.1))
    with pytest.raises(TypeError, match=r"^apply_updates: "):
        apply_updates(PARAMS, tree(b=1.0))
