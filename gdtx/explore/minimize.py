"""The loop of every notebook: gradient, update, and a history of both."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..core.errors import at_work, summarize
from ..core.transformation import TRANSFORMATION, GradientTransformation
from ..core.trees.apply_updates import apply_updates
from ..core.trees.short import in_short
from ..core.trees.tree import PyTree, check_arrays
from ..links.clipping import global_norm


@in_short
class Minimized(NamedTuple):
    """Where a minimization ended, and how it came there.

    Args:
        params: the parameters at the end.
        state: the transformation's, to go on with.
        value: the function there (on the last batch, if there are batches).
        steps: the number of updates done.
        losses: before each update, the function; NaN after an early stop.
        gradient_norms: before each update, the norm of the gradient; NaN after an early stop.
        path: the parameters before each update and at the end, along a new first axis, if kept.
    """

    params: PyTree
    state: PyTree
    value: jax.Array
    steps: jax.Array
    losses: jax.Array
    gradient_norms: jax.Array
    path: PyTree = None

    def _facts(self) -> dict[str, Any]:
        if np.ndim(self.steps) or isinstance(self.steps, Tracer):
            return self._asdict()
        first = {"first_loss": self.losses[0]} if len(self.losses) else {}
        return {"steps": self.steps, **first, "value": self.value, "params": self.params}


def minimize(
    fun: Callable[..., jax.Array],
    x0: PyTree,
    tx: GradientTransformation,
    steps: int,
    *,
    batches: PyTree = None,
    tolerance: Any = None,
    keep: bool = False,
    progress: bool = False,
) -> Minimized:
    r"""Follow a transformation down a function, in one compiled scan.

    $g_t = \nabla f(\theta_{t-1})$, $\theta_t = \theta_{t-1} + u_t$, with $u_t$ what `tx` makes of
    $g_t$. Its `update` is given `value=`, `grad=`, `value_fn=` and `grad_fn=` too, so that
    :func:`polyak_step`, :func:`sharpness_aware`, :func:`reduce_on_plateau` and line searches work.

    It can be jitted, mapped over `x0` and over array hyperparameters of `tx`, and differentiated in
    all of them. Not jitted, it compiles its program anew at every call.

    Args:
        fun: $f$, a function of the parameters, or of the parameters and a batch.
        x0: $\theta_0$, a tree of arrays or numbers.
        tx: any transformation.
        steps: how many updates to do at most.
        batches: tree of arrays with a first axis as long as `steps`; each step sees one entry.
        tolerance: stop before the first update at which $\|g_t\|$ is not above it. From then on
            parameters and state stay as they are, exactly.
        keep: whether to keep the path of the parameters.
        progress: whether to show a bar with the loss, by tqdm, which the extra `examples`
            installs. The steps are then done in some parts, with the same results.

    Returns:
        Parameters, state and value at the end, the number of updates done, and by step the losses
        and the norms of gradients: the i-th are those before the i-th update. After an early stop
        they are NaN, from the entry on that follows the one that stopped; the path stays where it
        ended.

    Raises:
        ValueError: if `steps` is negative, `fun` returns no real scalar, or batches are not as many
            as the steps.
        TypeError: if `tx` is not a transformation, or a leaf of `x0` is not a real or complex
            array; or if progress is asked for inside of a trace.
        ImportError: if progress is asked for and tqdm is not installed.

    >>> from gdtx import explore
    >>> import gdtx, jax.numpy as jnp
    >>> result = explore.minimize(lambda x: jnp.sum((x - 2) ** 2), jnp.zeros(3), gdtx.sgd(0.25), 20)
    >>> result.params.round(3), result.losses[:3]
    (Array([2., 2., 2.], dtype=float32), Array([12.  ,  3.  ,  0.75], dtype=float32))
    """
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 0:
        raise ValueError(f"minimize: steps must be a non-negative integer, got {steps!r}")
    tx = as_transformation("minimize: tx", tx)
    with at_work("minimize"):
        # Not weakly typed, as nothing is that an update returns.
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), x0)
        check_arrays(params, "x0")
    one = _one_batch(batches, steps)
    dtype = _check_value(fun, params, one)
    # Made here and not in the compiled function, so that state lies where the parameters are.
    start = (params, tx.init(params), jnp.asarray(False))

    def step(carry: Any, batch: tuple[Any, ...]) -> Any:
        params, state, stopped = carry

        def f(params: PyTree) -> Any:
            return fun(params, *batch)

        def descend() -> Any:
            value, gradients = value_and_gradient(f, params)
            norm = global_norm(gradients)
            go_on = partial(moved, f, tx, params, state, value, gradients)
            if tolerance is None:
                return (*go_on(), stopped), (value, norm)
            stop = norm <= tolerance
            return (*jax.lax.cond(stop, lambda: (params, state), go_on), stop), (value, norm)

        def rest() -> Any:
            measures = jax.eval_shape(descend)[1]
            return carry, jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), measures)

        after, measured = descend() if tolerance is None else jax.lax.cond(stopped, rest, descend)
        return after, (*measured, ~after[2], after[0] if keep else None)

    @partial(jax.jit, static_argnames="length")
    def part(carry: Any, batches: tuple[Any, ...], length: int) -> Any:
        carry, history = jax.lax.scan(step, carry, batches, length)
        if batches and not length:
            return carry, history, jnp.full((), jnp.nan, dtype)
        last = jax.tree.map(lambda x: x[-1], batches)
        return carry, history, fun(carry[0], *last)

    given = () if batches is None else (batches,)
    if progress:
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((x0, tx, batches, tolerance))):
            raise TypeError(
                "minimize: progress=True shows steps as they run, not inside of a trace"
            )
        carry, history, value = _shown(part, start, given, steps)
    else:
        carry, history, value = part(start, given, length=steps)
    losses, norms, done, path = history
    if keep:
        path = jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), params, path)
    return Minimized(carry[0], carry[1], value, jnp.sum(done), losses, norms, path)


def as_transformation(what: str, tx: Any) -> GradientTransformation:
    """A transformation, gdtx's own or another, or an error."""
    if not TRANSFORMATION.accepts(tx):
        raise TypeError(f"{what} must be {TRANSFORMATION.expected}, got {summarize(tx)}")
    return TRANSFORMATION.convert(tx)


def value_and_gradient(f: Callable[[PyTree], Any], params: PyTree) -> tuple[jax.Array, PyTree]:
    """A function and the direction in which it grows fastest, which is conjugate to `jax.grad`."""
    value, gradients = jax.value_and_grad(f)(params)
    return value, jax.tree.map(jnp.conj, gradients)


def moved(
    f: Callable[[PyTree], Any],
    tx: GradientTransformation,
    params: PyTree,
    state: PyTree,
    value: jax.Array,
    gradients: PyTree,
) -> tuple[PyTree, PyTree]:
    """Parameters and state after one update, which may know all that there is to know."""

    def grad_fn(params: PyTree) -> PyTree:
        return value_and_gradient(f, params)[1]

    def value_fn(params: PyTree, grad_fn: Any = None) -> Any:
        # Optax's line search raises for extra arguments that its `value_fn` does not name.
        return f(params)

    updates, state = tx.update(
        gradients, state, params, value=value, grad=gradients, value_fn=value_fn, grad_fn=grad_fn
    )
    return apply_updates(params, updates), state


def _one_batch(batches: PyTree, steps: int) -> tuple[Any, ...]:
    """What a step gets beside the parameters, in outline."""
    if batches is None:
        return ()
    for path, leaf in jax.tree_util.tree_flatten_with_path(batches)[0]:
        if np.shape(leaf)[:1] != (steps,):
            raise ValueError(
                f"minimize: batches{jax.tree_util.keystr(path)} must have a first axis as long as "
                f"steps, {steps}, got {summarize(leaf)}"
            )
    return (
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x)[1:], jnp.result_type(x)), batches),
    )


def _check_value(fun: Callable[..., Any], params: PyTree, batch: tuple[Any, ...]) -> Any:
    value = jax.eval_shape(fun, params, *batch)
    if getattr(value, "shape", None) != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"minimize: fun must return a real scalar, got {summarize(value)}")
    return value.dtype


def _shown(part: Callable[..., Any], carry: Any, batches: tuple[Any, ...], steps: int) -> Any:
    """The same scan in parts, with a bar between them."""
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError(
            "minimize needs tqdm for progress=True: pip install tqdm (the extra `examples`)"
        ) from error
    lengths = _lengths(steps)
    histories, value, at = [], None, 0
    with tqdm(total=steps, unit="step") as bar:
        for length in lengths:
            batch = jax.tree.map(lambda x, at=at, end=at + length: x[at:end], batches)
            carry, history, value = part(carry, batch, length=length)
            at += length
            histories.append(history)
            bar.update(int(history[2].sum()))
            bar.set_postfix(loss=f"{value:.4g}")
            if carry[2]:
                break
    losses, norms, done, path = jax.tree.map(lambda *parts: jnp.concatenate(parts), *histories)
    rest = steps - at
    fill = jax.tree.map(lambda x: jnp.full((rest, *x.shape[1:]), jnp.nan, x.dtype), (losses, norms))
    losses, norms = jax.tree.map(lambda x, more: jnp.concatenate([x, more]), (losses, norms), fill)
    path = jax.tree.map(lambda x: jnp.concatenate([x, jnp.repeat(x[-1:], rest, 0)]), path)
    return carry, (losses, norms, done, path), value


def _lengths(steps: int, parts: int = 20) -> list[int]:
    """Equal parts, and a longer one in the end: one step alone would be another program."""
    length = max(2, steps // parts)
    count = max(1, steps // length)
    return [length] * (count - 1) + [steps - length * (count - 1)]
