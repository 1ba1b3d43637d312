"""The learning rate range test: one short run through all learning rates."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..core.numbers.numerics import compute_dtype, one_minus_power
from ..core.trees.apply_updates import apply_updates
from ..core.trees.short import in_table
from ..core.trees.tree import PyTree
from .plots import new_axes
from .suggest import RULES, suggest


@in_table
class LRRangeTest(NamedTuple):
    """The curve of a range test and the learning rates that it suggests.

    `losses[i]` is the loss on batch `i` before the step with `learning_rates[i]`, so that what a
    learning rate does shows in the loss after it.
    """

    learning_rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    diverged: bool
    valley: float
    steepest: float
    slide: float
    minimum: float

    @property
    def suggestions(self) -> dict[str, float]:
        """Those that there are, by the rule that they come from."""
        found = {name: getattr(self, name) for name in RULES}
        return {name: rate for name, rate in found.items() if np.isfinite(rate)}

    def __repr__(self) -> str:
        end = "diverged" if self.diverged else "stopped"
        rates = ", ".join(f"{name}={rate:.2g}" for name, rate in self.suggestions.items())
        return (
            f"<LRRangeTest: {len(self.losses)} steps, {end} at {self.learning_rates[-1]:.2g}; "
            f"{rates or 'no suggestions'}>"
        )

    def _facts(self) -> dict[str, Any]:
        end = "diverged at" if self.diverged else "stopped at"
        return {"steps": len(self.losses), end: self.learning_rates[-1], **self.suggestions}


def lr_range_test(
    loss_fn: Callable[[PyTree, Any], jax.Array],
    params: PyTree,
    batches: Any,
    make_tx: Callable[[Any], Any],
    *,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    steps: int | None = None,
    smoothing: float = 0.98,
    divergence: float = 4.0,
) -> LRRangeTest:
    r"""Train for a few steps while the learning rate grows exponentially, and watch the loss.

    Step $i$ of $n$ has the rate $\eta_i = \eta_{min} (\eta_{max} / \eta_{min})^{i / (n - 1)}$. The
    losses are smoothed as $s_i = \sum_{j \le i} \beta^{i - j} l_j / \sum_{j \le i} \beta^{i - j}$.
    The test stops after the first loss that is not finite, or whose $s_i$ exceeds the best so far,
    $s$, by more than $(d - 1) |s|$. It is one compiled scan, and pure: parameters stay as they are.

    Four rates are suggested, from the smoothed losses as a function of $x = \log_{10} \eta$,
    without the first tenth of the steps, in which the average has not settled. Slopes are those of
    chords half a decade long, a quarter to each side. A rate is NaN where its rule finds none, and
    all are, with a warning, where the loss falls by no more than what rounding makes of a constant
    one: 100 units in the last place computed, or 2 in its own if it is narrower.

    - `valley`: two thirds, in $x$, of the way down the longest valley: from the first to the last
      point of the longest strictly falling subsequence (of equally long ones, that which ends
      first and begins last).
    - `steepest`: where the slope is most negative.
    - `slide`: an interval 1.2 decades wide slides from the largest rate down, while the slopes at
      its ends differ by more than half of the whole fall (first point to lowest) per decade; then
      its lower end.
    - `minimum`: a tenth of the rate at the lowest point.

    Args:
        loss_fn: function of the parameters and a batch that returns the loss.
        params: parameters to start from.
        batches: tree of arrays, batches stacked along the first axis.
        make_tx: function of a learning rate that returns a transformation, such as `gdtx.adam`.
        min_lr: $\eta_{min}$, the rate of the first step.
        max_lr: $\eta_{max}$, the rate of the last step.
        steps: $n$, as many as there are batches by default; more use them again from the first.
        smoothing: $\beta$; 0 leaves the losses as they are.
        divergence: $d$; infinite never stops but for a loss that is not finite.

    Returns:
        The learning rates, losses, smoothed losses up to the stop, and the suggestions.

    Raises:
        ValueError: if an argument is out of its range, or the batches are not stacked.

    References:
        Smith 2017, Cyclical Learning Rates for Training Neural Networks, arXiv:1506.01186, for the
        test; the documentation of fastai's `lr_find` for the suggestions, which are named and
        described there.

    >>> import gdtx, jax.numpy as jnp
    >>> result = gdtx.lr_range_test(
    ...     lambda w, x: 0.5 * x * w**2, jnp.array(1.0), jnp.full(100, 4.0), gdtx.sgd,
    ...     min_lr=1e-4, smoothing=0.0)
    >>> result.diverged, bool(0.5 < result.learning_rates[-1] < 1.0)  # 2 over the curvature
    (True, True)
    """
    sizes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(batches)}
    if len(sizes) != 1 or sizes & {(), (0,)}:
        raise ValueError(
            "lr_range_test: batches must be stacked along the first axis of every array, got "
            f"first axes {sorted(sizes)}"
        )
    ((count,),) = sizes
    n = count if steps is None else steps
    _check(min_lr, max_lr, n, smoothing, divergence)
    params = jax.tree.map(jnp.asarray, params)
    dtype = jnp.finfo(compute_dtype(*(p.dtype for p in jax.tree.leaves(params)))).dtype
    tried = jnp.asarray(np.geomspace(min_lr, max_lr, n), dtype)

    def trained(carry: Any, batch: Any, rate: jax.Array) -> Any:
        params, state = carry
        loss, grads = jax.value_and_grad(loss_fn)(params, batch)
        updates, state = make_tx(rate).update(grads, state, params)
        return (apply_updates(params, updates), state), loss.astype(dtype)

    def step(batches: PyTree, carry: Any, i: jax.Array) -> Any:
        run, smooth, best, stopped = carry
        batch = jax.tree.map(lambda x: x[i % count], batches)
        run, loss = jax.lax.cond(
            stopped,
            lambda: (run, jnp.full((), jnp.nan, dtype)),
            lambda: trained(run, batch, tried[i]),
        )
        # Toward the loss, and not a sum over its weights: where it is constant, so is this.
        smooth += (1 - smoothing) / one_minus_power(smoothing, i + 1) * (loss - smooth)
        best = jnp.minimum(best, smooth)
        too_far = smooth > best + (divergence - 1) * jnp.abs(best)
        after = stopped | too_far | ~jnp.isfinite(loss)
        return (run, smooth, best, after), (loss, smooth, stopped, after)

    # Made here and not in the compiled function, so that state lies where the parameters are.
    state = make_tx(tried[0]).init(params)
    zero = jnp.zeros((), dtype)
    start = ((params, state), zero, zero + jnp.inf, jnp.asarray(False))
    run = jax.jit(lambda xs, start: jax.lax.scan(partial(step, xs), start, jnp.arange(n)))
    _, curve = run(jax.tree.map(jnp.asarray, batches), start)
    losses, smoothed, stopped, after = map(np.asarray, curve)
    done = ~stopped
    learning_rates = np.asarray(tried)[done]
    settled = slice(n // 10, None)
    one_batch = jax.tree.map(lambda x: x[0], batches)
    own = jnp.finfo(jax.eval_shape(loss_fn, params, one_batch).dtype).eps
    rounding = max(2 * float(own), 100 * float(jnp.finfo(dtype).eps))
    rates, curve = learning_rates[settled], smoothed[done][settled]
    suggested = suggest(rates, curve, rounding)
    if len(curve) > 2 and not np.isfinite(list(suggested.values())).any():
        warnings.warn(
            f"lr_range_test: at no learning rate from {rates[0]:.2g} to {rates[-1]:.2g} does the "
            "loss fall by more than its rounding, so none is suggested",
            stacklevel=2,
        )
    return LRRangeTest(learning_rates, losses[done], smoothed[done], bool(after[-1]), **suggested)


def plot_lr_range_test(result: LRRangeTest, ax: Any = None) -> Any:
    """Draw the losses of a range test over the learning rates, with the suggestions marked.

    Needs matplotlib, which the extra `viz` installs.

    Args:
        result: of :func:`lr_range_test`.
        ax: axes of matplotlib to draw on, new ones by default.

    Returns:
        The axes; nothing is shown or saved.

    Raises:
        ImportError: if matplotlib is not installed.

    >>> import gdtx, jax.numpy as jnp
    >>> result = gdtx.lr_range_test(
    ...     lambda w, x: 0.5 * x * w**2, jnp.array(1.0), jnp.full(100, 4.0), gdtx.sgd)
    >>> gdtx.plot_lr_range_test(result).get_xscale()
    'log'
    """
    ax = new_axes("plot_lr_range_test") if ax is None else ax
    rates, smoothed = result.learning_rates, result.smoothed
    ax.plot(rates, result.losses, "-", color="0.7", linewidth=1, label="loss")
    ax.plot(rates, smoothed, "-", color="C0", label="smoothed")
    for i, (name, rate) in enumerate(result.suggestions.items()):
        height = np.interp(np.log(rate), np.log(rates), smoothed)
        ax.plot(rate, height, "o^sD"[i], color=f"C{i + 1}", label=f"{name}: {rate:.2g}")
    ax.set(xscale="log", xlabel="learning rate", ylabel="loss")
    if np.isfinite(smoothed).any():
        # What matters is the way down: the divergence may go anywhere.
        falling = smoothed[: np.nanargmin(smoothed) + 1]
        low = np.nanmin(np.append(result.losses, falling))
        fall = np.nanmax(falling) - low or 1.0
        ax.set_ylim(low - 0.05 * fall, low + 1.5 * fall)
    ax.legend()
    return ax


def _check(min_lr: float, max_lr: float, steps: int, smoothing: float, divergence: float) -> None:
    ranges = {
        "min_lr must be positive and below max_lr": (0 < min_lr < max_lr, (min_lr, max_lr)),
        "steps must be at least 2": (steps >= 2, steps),
        "smoothing must be in [0, 1)": (0 <= smoothing < 1, smoothing),
        "divergence must be larger than 1": (divergence > 1, divergence),
    }
    for expected, (holds, came) in ranges.items():
        if not holds:
            raise ValueError(f"lr_range_test: {expected}, got {came}")
