"""Runs begun in Optax inside of its wrappers, and states that look like others."""

import importlib
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gdtx
from gdtx.interop import load_optax_state

optax = pytest.importorskip("optax", reason="Optax is installed by the extra 'test'")
contrib = importlib.import_module("optax.contrib")

PARAMS = {"w": np.ones((2, 3), np.float32), "b": np.full(3, 0.5, np.float32)}
RATE, THEIR_RATE = gdtx.linear_schedule(0.25, 0.0, 256), optax.linear_schedule(0.25, 0.0, 256)
FACTORED: dict[str, Any] = {"min_dim_size_to_factor": 2}


class Case(NamedTuple):
    """Ours and theirs, and how far apart they may be: rounding, most where Optax rounds powers of
    decays and subtracts them from 1."""

    ours: gdtx.GradientTransformation
    theirs: Any
    rtol: float = 2e-6


def sgd(library, rate):
    return library.sgd(rate, 0.9)


CASES = {
    "MultiSteps": Case(gdtx.accumulate_gradients(sgd(gdtx, RATE), 3),
                       optax.MultiSteps(sgd(optax, THEIR_RATE), 3)),
    "one step": Case(gdtx.accumulate_gradients(sgd(gdtx, RATE), 1), sgd(optax, THEIR_RATE)),
    "MultiSteps in a chain": Case(
        gdtx.chain(gdtx.trace(0.5), gdtx.accumulate_gradients(sgd(gdtx, RATE), 3), gdtx.sgd(RATE)),
        optax.chain(optax.trace(0.5), optax.MultiSteps(sgd(optax, THEIR_RATE), 3)
                    .gradient_transformation(), optax.sgd(THEIR_RATE)),
    ),
    "apply_if_finite": Case(gdtx.skip_nonfinite(sgd(gdtx, RATE), 9),
                            optax.apply_if_finite(sgd(optax, THEIR_RATE), 9)),
    "apply_if_finite in MultiSteps": Case(
        gdtx.accumulate_gradients(gdtx.skip_nonfinite(sgd(gdtx, RATE), 9), 2),
        optax.MultiSteps(optax.apply_if_finite(sgd(optax, THEIR_RATE), 9), 2),
    ),
    "lookahead": Case(gdtx.lookahead(sgd(gdtx, 0.1), 3, 0.5),
                      optax.lookahead(sgd(optax, 0.1), 3, 0.5)),
    "plateau": Case(
        gdtx.chain(sgd(gdtx, RATE), gdtx.reduce_on_plateau(0.5, 2, accumulation_size=2)),
        optax.chain(sgd(optax, THEIR_RATE),
                    contrib.reduce_on_plateau(0.5, 2, accumulation_size=2)),
    ),
    "adafactor": Case(gdtx.adafactor(0.1, **FACTORED), optax.adafactor(0.1, **FACTORED)),
    "adafactor, scheduled, with all": Case(
        gdtx.adafactor(RATE, **FACTORED, momentum=0.9, weight_decay=0.01),
        optax.adafactor(THEIR_RATE, **FACTORED, momentum=0.9, weight_decay_rate=0.01),
    ),
    "adafactor, not factored": Case(gdtx.adafactor(0.1, factored=False),
                                    optax.adafactor(0.1, factored=False)),
    "adafactor in MultiSteps": Case(
        gdtx.accumulate_gradients(gdtx.adafactor(0.1, **FACTORED), 2),
        optax.MultiSteps(optax.adafactor(0.1, **FACTORED), 2),
    ),
    "adabelief": Case(gdtx.adabelief(0.1), optax.adabelief(0.1), 3e-5),
    "yogi": Case(gdtx.yogi(RATE, initial_mean=1e-6), optax.yogi(THEIR_RATE), 3e-5),
    "lamb": Case(gdtx.lamb(0.1), optax.lamb(0.1), 3e-5),
}  # fmt: skip
BEGIN, AFTER = (0, 1, 5), 5  # with none, one and two gradients in the mean of three
# The others have all that these have.
AT_NIGHT = {"MultiSteps", "one step", "adafactor", "adafactor in MultiSteps", "lamb"}


def gradients():
    rng = np.random.default_rng(0)
    steps = [
        {k: (10 ** rng.uniform(-2, 2, p.shape)).astype(np.float32) for k, p in PARAMS.items()}
        for _ in range(BEGIN[-1] + AFTER)
    ]
    return steps


def run(update, state, params, steps):
    """Parameters are moved, as lookahead needs."""
    outputs: list[Any] = []
    for i, g in steps:
        updates, state = update(g, state, params, value=1.0 / (1 + i // 2))
        params = optax.apply_updates(params, updates)
        outputs.append(params)
    return outputs, state, params


def accepting(tx):
    """One that takes `value`, as a chain of Optax does and its wrappers do not."""
    return jax.jit(
        lambda g, s, p, value: optax.with_extra_args_support(tx).update(g, s, p, value=value)
    )


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in AT_NIGHT else ()) for n in CASES]
)
def test_a_run_goes_on(name):
    ours, theirs, rtol = CASES[name]
    steps = list(enumerate(gradients()))
    if name == "apply_if_finite":  # so that counts inside and outside differ
        steps[1][1]["w"][0, 0] = np.nan
    theirs = getattr(theirs, "gradient_transformation", lambda: theirs)()
    update, our_update = accepting(theirs), jax.jit(ours.update)
    is_pair = name == "lookahead"
    params: Any
    last: Any
    for begin in BEGIN:
        params = optax.LookaheadParams.init_synced(PARAMS) if is_pair else PARAMS
        state: Any
        _, state, params = run(update, theirs.init(params), params, steps[:begin])
        mine = load_optax_state(ours, state, params)
        fast = params.fast if is_pair else params
        fresh = ours.init(fast)
        assert jax.tree.structure(mine) == jax.tree.structure(fresh)
        for new, old in zip(jax.tree.leaves(mine), jax.tree.leaves(fresh), strict=True):
            assert (new.shape, new.dtype, new.weak_type) == (old.shape, old.dtype, old.weak_type)
        expected, _, last = run(update, state, params, steps[begin : begin + AFTER])
        found, mine, _ = run(our_update, mine, fast, steps[begin : begin + AFTER])
        for one, other in zip(found, expected, strict=True):
            other = other.fast if is_pair else other
            for leaf in PARAMS:
                np.testing.assert_allclose(one[leaf], other[leaf], rtol=rtol, atol=rtol)
        if is_pair:
            for leaf in PARAMS:
                slow = gdtx.eval_params(ours, mine, found[-1])[leaf]
                np.testing.assert_allclose(slow, last.slow[leaf], rtol=rtol)


def test_counts_of_skips():
    theirs = optax.apply_if_finite(optax.sgd(0.1), 9).init(PARAMS)
    theirs = theirs._replace(total_notfinite=jnp.asarray(5), notfinite_count=jnp.asarray(2))
    mine = load_optax_state(gdtx.skip_nonfinite(gdtx.sgd(0.1), 9), theirs, PARAMS)
    assert (mine.skipped, mine.consecutive) == (5, 2)


def begun(tx, params=PARAMS):
    return tx.update(PARAMS, tx.init(params), params)[1]


ADAM_LIKE = {
    "adam": (gdtx.adam(0.1), optax.adam(0.1)),
    "adabelief": (gdtx.adabelief(0.1), optax.adabelief(0.1)),
    "lion": (gdtx.lion(0.1), optax.lion(0.1)), "novograd": (None, optax.novograd(0.1)),
    "amsgrad": (None, optax.amsgrad(0.1)), "ademamix": (None, contrib.ademamix(0.1)),
    "adan": (None, optax.adan(0.1)),
}  # fmt: skip


@pytest.mark.parametrize("theirs", ADAM_LIKE)
@pytest.mark.parametrize("ours", [name for name, (tx, _) in ADAM_LIKE.items() if tx])
def test_a_state_of_another_method_is_refused(ours, theirs):
    tx, state = ADAM_LIKE[ours][0], begun(ADAM_LIKE[theirs][1])
    if ours == theirs:
        load_optax_state(tx, state)
        return
    with pytest.raises(ValueError, match=r"^load_optax_state.*(looked for|keeps nothing like)"):
        load_optax_state(tx, state, PARAMS)


SKIPPED = optax.apply_if_finite(optax.sgd(0.1, 0.9), 3)
BAD = {
    "no wrapper of ours": (gdtx.sgd(0.1, 0.9), SKIPPED,
                           "load_optax_state > sgd > trace: looked for trace in Optax's state, "
                           "found optax_state of class ApplyIfFiniteState; it keeps optax_state "
                           "of class ApplyIfFiniteState"),
    "no wrapper of theirs": (gdtx.skip_nonfinite(gdtx.sgd(0.1, 0.9)), optax.sgd(0.1, 0.9),
                             "load_optax_state > skip_nonfinite: looked for ApplyIfFiniteState in "
                             "Optax's state, found optax_state[0].trace"),
    "another inside": (gdtx.skip_nonfinite(gdtx.adagrad(0.1)), SKIPPED,
                       "looked for sum_of_squares in Optax's state, found "
                       "optax_state.inner_state[0].trace"),
    "more inside": (gdtx.skip_nonfinite(gdtx.sgd(0.1)), SKIPPED,
                    "keeps nothing like optax_state.inner_state[0].trace"),
    "factored otherwise": (gdtx.adafactor(0.1), optax.adafactor(0.1, **FACTORED),
                           "optax_state[0]['w'] is an array of shape (1,)"),
    "belief": (gdtx.adam(0.1), optax.adabelief(0.1), "looked for a ScaleByAdamState in Optax's "
               "state, found optax_state[0].mu of a ScaleByBeliefState"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_says_where(name):
    tx, theirs, message = BAD[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        load_optax_state(tx, begun(theirs), PARAMS)


def test_slow_weights_are_asked_for():
    tx = optax.lookahead(optax.sgd(0.1), 3, 0.5)
    state = tx.init(optax.LookaheadParams.init_synced(PARAMS))
    with pytest.raises(TypeError, match="lookahead: params must be Optax's LookaheadParams"):
        load_optax_state(gdtx.lookahead(gdtx.sgd(0.1), 3, 0.5), state, PARAMS)


def test_params_are_asked_for_only_where_they_are_needed():
    plateau = optax.chain(optax.sgd(0.1), contrib.reduce_on_plateau())
    load_optax_state(gdtx.chain(gdtx.sgd(0.1), gdtx.reduce_on_plateau()), plateau.init(PARAMS))
    load_optax_state(gdtx.skip_nonfinite(gdtx.sgd(0.1, 0.9)), SKIPPED.init(PARAMS))
    with pytest.raises(TypeError, match="params are needed"):
        load_optax_state(gdtx.adafactor(0.1, **FACTORED), optax.adafactor(0.1).init(PARAMS))


def test_no_buffer_is_shared_with_the_parameters():
    """So that both may be donated."""
    tx = gdtx.lookahead(gdtx.sgd(0.1), 3, 0.5)
    pair = optax.LookaheadParams.init_synced(jax.tree.map(jnp.array, PARAMS))
    theirs = optax.lookahead(optax.sgd(0.1), 3, 0.5)
    state = load_optax_state(tx, theirs.init(pair), pair)
    kept = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(state)]
    given = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(pair)]
    assert not set(kept) & set(given)
    assert len(set(kept)) == len(kept)
