"""Runs that began with Optax and go on with gdtx."""

from __future__ import annotations

import contextlib
from typing import Any

import jax
import jax.numpy as jnp

from ..core.errors import at_work, fail, summarize
from ..core.memory import CountState, RecurState
from ..core.outermost import nested
from ..core.scheduled import ScheduledState
from ..core.states import parts, with_parts
from ..core.transformation import GradientTransformation
from ..core.trees.layout import Part
from ..core.trees.tree import PyTree
from ..links.plateau import PlateauState
from ..wrappers.accumulate_gradients import AccumulateState
from ..wrappers.lookahead import LookaheadState
from ..wrappers.skip import SkipState
from ..wrappers.tunable import TunableState
from .buffers import buffer_like, copied
from .optax_state import OptaxState


def load_optax_state(
    tx: GradientTransformation, optax_state: PyTree, params: PyTree = None
) -> PyTree:
    r"""The state of `tx` that continues a run of the same method in Optax.

    What the two states keep is paired by name and in order: Optax's `mu` and `nu` with the branches
    of that name, its `trace` with that of :func:`gdtx.trace`, its `sum_of_squares` with
    :func:`gdtx.running_sum`, and so on. Every count is Optax's. So methods, and chains of them with
    anything that keeps nothing, are all loaded in one way: SGD with its momenta, AdaGrad, AdaDelta,
    RMSProp, Adam, AdamW, AdaMax, NAdam, RAdam, AdaBelief, Yogi, LAMB, Lion and Adafactor, with
    schedules or without, masked, or under `optax.inject_hyperparams` (whose values go to
    :func:`gdtx.tunable`). Of wrappers, `optax.MultiSteps` is :func:`gdtx.accumulate_gradients`,
    `apply_if_finite` is :func:`gdtx.skip_nonfinite`, `lookahead` and `reduce_on_plateau` have the
    same names.

    A state of another method is refused if its class or what it keeps tells so. In Optax those of
    Yogi and ADOPT are of Adam's class, so that `tx` must be the right one. Hyperparameters are not
    in the states: give `tx` the ones that Optax had, with `radam(threshold=5.0)` for Optax's
    default.

    SGD, with momentum and Nesterov's too, AdaGrad and Lion go on bit for bit. Others differ from
    Optax by rounding, in units in the last place of a float32 update that does not pass near zero:
    RMSProp and AdaDelta 8, AdaMax 16, Adam and its like 256, RAdam 16384 from step 20. Those
    above 16 are Optax's: it subtracts powers of decays, rounded to float32, from 1. From Optax's
    own run in float64, all of them in float32 are within 32 units.

    Args:
        tx: the transformation to go on with.
        optax_state: what Optax's `init` or `update` returned.
        params: the parameters, needed where Optax keeps no moment of every one of them and `tx`
            must know: where all are masked or factored. Of `lookahead` the pair of fast and slow
            ones that Optax has, as only it holds the slow.

    Returns:
        The state of `tx`. Arrays that need no other dtype are shared with `optax_state`: donate
        one of the two only.

    Raises:
        ValueError: if what `tx` keeps is not what `optax_state` keeps; the message says what was
            looked for and what was found.
        TypeError: if `tx` is not a transformation, or `params` are needed.

    >>> import gdtx, optax, jax.numpy as jnp
    >>> params = {"w": jnp.ones(2)}
    >>> optax_tx = optax.adam(0.1)
    >>> _, optax_state = optax_tx.update(params, optax_tx.init(params))
    >>> state = gdtx.interop.load_optax_state(gdtx.adam(0.1), optax_state)
    >>> gdtx.find(state, "mu"), gdtx.find(state, "step")["0.nu.0.2.step"]
    ({'w': Array([0.1, 0.1], dtype=float32)}, Array(1, dtype=int32))
    """
    with nested(), at_work("load_optax_state"):
        if not isinstance(tx, GradientTransformation):
            fail(TypeError, f"tx must be a transformation of gdtx, got {summarize(tx)}")
        slow = None
        if type(params).__name__ == "LookaheadParams":
            params, slow = params.fast, params.slow
        theirs = OptaxState(optax_state, slow=slow)
        state = _loaded(tx, tx.init(theirs.params() if params is None else params), (), theirs)
        theirs.check_empty(tx)
        return state


def _loaded(
    tx: GradientTransformation, state: PyTree, names: tuple[str, ...], theirs: OptaxState
) -> PyTree:
    """The fresh `state` of `tx`, with what it keeps taken from theirs."""
    with at_work(tx.signature.name, tx.signature.voice):
        names = (*names, tx.signature.name)
        whole, inside = state, theirs
        if [part.keys for part in parts(tx, state)] != [()]:  # else it is another's as a whole
            whole, inside = _own(tx, state, names, theirs)

        def loaded(part: Part) -> PyTree:
            if inside is not theirs:
                state = _loaded(part.used, part.state, (), inside)
                inside.check_empty(part.tx)
                return state
            branch = [key for key in part.keys[:1] if isinstance(whole, dict)]
            with contextlib.ExitStack() as at_branch:
                for name in branch:
                    at_branch.enter_context(at_work(name))
                return _loaded(part.used, part.state, (*names, *branch), theirs)

        return with_parts(tx, whole, loaded)


def _own(
    tx: GradientTransformation, state: Any, names: tuple[str, ...], theirs: OptaxState
) -> tuple[PyTree, OptaxState]:
    """The state with what is its own and not its parts', and where that of its parts comes from."""
    if isinstance(state, RecurState):
        kept = {name: theirs.buffer((*names, name), old) for name, old in state.buffers.items()}
        return RecurState(kept), theirs
    if isinstance(state, CountState | ScheduledState):
        return state._replace(step=theirs.step(state.step)), theirs
    if isinstance(state, TunableState):
        held = {
            path: copied(theirs.hyperparams.get(path, old), old)
            for path, old in state.hyperparams.items()
        }
        return state._replace(hyperparams=held), theirs
    if isinstance(state, AccumulateState):
        steps, path = theirs.state("MultiStepsState")
        # Theirs is the mean so far.
        mean = buffer_like(state.gradients.buffers["value"], steps.acc_grads, path)
        total = jax.tree.map(lambda m: m * jnp.asarray(steps.mini_step, m.dtype), mean)
        return state._replace(
            step=copied(steps.gradient_step, state.step),
            micro_step=copied(steps.mini_step, state.micro_step),
            gradients=RecurState({"value": total}),
        ), OptaxState(steps.inner_opt_state, f"{path}.inner_opt_state")
    if isinstance(state, SkipState):
        finite, path = theirs.state("ApplyIfFiniteState")
        return state._replace(
            skipped=copied(finite.total_notfinite, state.skipped),
            consecutive=copied(finite.notfinite_count, state.consecutive),
        ), OptaxState(finite.inner_state, f"{path}.inner_state")
    if isinstance(state, LookaheadState):
        ahead, path = theirs.state("LookaheadState")
        if theirs.slow is None:
            fail(TypeError, "params must be Optax's LookaheadParams, which hold slow weights")
        slow = buffer_like(state.slow, theirs.slow, "params.slow")
        return state._replace(
            steps_since_sync=copied(ahead.steps_since_sync, state.steps_since_sync),
            slow=jax.tree.map(jnp.copy, slow),  # the parameters may be donated too
        ), OptaxState(ahead.fast_state, f"{path}.fast_state")
    if isinstance(state, PlateauState):
        plateau, _ = theirs.state("ReduceLROnPlateauState")
        fields = {**plateau._asdict(), "avg_count": plateau.count}
        kept = {name: copied(fields[name], old) for name, old in state._asdict().items()}
        return PlateauState(**kept), theirs
    if jax.tree.leaves(with_parts(tx, state, lambda part: ())):
        fail(ValueError, f"cannot tell what {summarize(state)} keeps")
    if not (parts(tx, state) or {"join", "feedback"} & set(names)):
        theirs.link_in_tx = True
    return state, theirs
