"""Up, down, and off: one cycle of the learning rate, with momentum against it."""

from __future__ import annotations

from typing import Annotated, Any

from ..core.calls.kinds import Count, Decay, Kind, Positive, Scalar
from ..core.schedule import Rule, Schedule, schedule
from .basic import choice
from .joined import Interpolation, interpolated

# Not a scalar hyperparameter: it decides at which whole step a phase ends.
Share = Annotated[
    float, Kind("a number", lambda x: isinstance(x, int | float) and not isinstance(x, bool))
]


def _phases(
    name: str, transition_steps: int, pct_start: float, pct_final: float | None
) -> tuple[int, ...]:
    """The steps at which the rise ends, the fall, and the last part if there is one."""
    if transition_steps == 0:
        raise ValueError(f"{name}: transition_steps must be positive, got 0")
    shares = {"pct_start": pct_start, "pct_final": 1 if pct_final is None else pct_final}
    for argument, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{name}: {argument} must be in [0, 1], got {share}")
    if pct_start > shares["pct_final"]:
        raise ValueError(
            f"{name}: pct_start must not be larger than pct_final, got {pct_start} and {pct_final}"
        )
    ends = (int(share * transition_steps) for share in shares.values())
    return tuple(ends) if pct_final is None else (*ends, transition_steps)


def _up_and_down(
    name: str,
    interpolate_type: str,
    transition_steps: Any,
    peak_value: Any,
    pct_start: Any,
    pct_final: Any,
    div_factor: Any,
    final_div_factor: Any,
) -> Rule:
    init = peak_value / div_factor
    ends = _phases(name, transition_steps, pct_start, pct_final)
    back = [] if pct_final is None else [init]
    values = [init, peak_value, *back, init / final_div_factor]
    return interpolated(interpolate_type, values, ends)


@schedule
def linear_onecycle_schedule(
    transition_steps: Count,
    peak_value: Scalar,
    pct_start: Share = 0.3,
    pct_final: Share | None = 0.85,
    div_factor: Positive = 25.0,
    final_div_factor: Positive = 1e4,
) -> Rule:
    r"""One cycle on straight lines: up, back down, and on to almost nothing.

    Lines through $b/d$ at step 0, $b$ at $\lfloor p T \rfloor$, $b/d$ at $\lfloor q T \rfloor$ and
    $b/(d e)$ at $T$; the last value stays.

    Args:
        transition_steps: $T$, length of the whole.
        peak_value: $b$, the largest value.
        pct_start: $p$, share of the steps spent on the rise.
        pct_final: $q$, share spent on rise and fall; None leaves the third point out.
        div_factor: $d$, the peak over the first value.
        final_div_factor: $e$, the first value over the last.

    Raises:
        ValueError: if `pct_start` is larger than `pct_final`.

    References:
        Smith & Topin 2018, Super-Convergence: Very Fast Training of Neural Networks Using Large
        Learning Rates, arXiv:1708.07120.

    >>> import gdtx
    >>> lr = gdtx.linear_onecycle_schedule(100, 1.0, div_factor=4.0, final_div_factor=8.0)
    >>> float(lr(0)), float(lr(30)), float(lr(85)), float(lr(100)), float(lr(999))
    (0.25, 1.0, 0.25, 0.03125, 0.03125)
    """
    return _up_and_down(
        "linear_onecycle_schedule", "linear", transition_steps, peak_value, pct_start, pct_final,
        div_factor, final_div_factor,
    )  # fmt: skip


@schedule
def cosine_onecycle_schedule(
    transition_steps: Count,
    peak_value: Scalar,
    pct_start: Share = 0.3,
    div_factor: Positive = 25.0,
    final_div_factor: Positive = 1e4,
    pct_final: Share | None = None,
) -> Rule:
    r"""One cycle on half cosines: up, and down to almost nothing.

    Cosines through $b/d$ at step 0, $b$ at $\lfloor p T \rfloor$ and $b/(d e)$ at $T$; the last
    value stays.

    Args:
        transition_steps: $T$, length of the whole.
        peak_value: $b$, the largest value.
        pct_start: $p$, share of the steps spent on the rise.
        div_factor: $d$, the peak over the first value.
        final_div_factor: $e$, the first value over the last.
        pct_final: if given, the fall passes through $b/d$ there, as in
            :func:`linear_onecycle_schedule`.

    Raises:
        ValueError: if `pct_start` is larger than `pct_final`.

    References:
        Smith & Topin 2018, see :func:`linear_onecycle_schedule`.

    >>> import gdtx
    >>> lr = gdtx.cosine_onecycle_schedule(100, 1.0, div_factor=4.0, final_div_factor=8.0)
    >>> float(lr(0)), float(lr(30)), float(lr(100)), float(lr(999))
    (0.25, 1.0, 0.03125, 0.03125)
    """
    return _up_and_down(
        "cosine_onecycle_schedule", "cosine", transition_steps, peak_value, pct_start, pct_final,
        div_factor, final_div_factor,
    )  # fmt: skip


@schedule
def onecycle_momentum_schedule(
    transition_steps: Count,
    base_momentum: Decay = 0.85,
    max_momentum: Decay = 0.95,
    pct_start: Share = 0.45,
    pct_final: Share | None = 0.9,
    interpolate_type: Interpolation = "linear",
) -> Rule:
    r"""The momentum of one cycle: down while the learning rate rises, and back up.

    Lines or cosines through $M$ at step 0, $m$ at $\lfloor p T \rfloor$ and $M$ at
    $\lfloor q T \rfloor$; the last value stays.

    Args:
        transition_steps: $T$, length of the whole.
        base_momentum: $m$, the momentum while the learning rate is at its peak.
        max_momentum: $M$, the momentum at first and at last.
        pct_start: $p$, share of the steps spent on the way down.
        pct_final: $q$, share spent on the way down and back up; None is 1.
        interpolate_type: the form between two values, "linear" or "cosine".

    Raises:
        ValueError: for another interpolation, or if `pct_start` is larger than `pct_final`.

    References:
        Smith & Topin 2018, see :func:`linear_onecycle_schedule`.

    >>> import gdtx
    >>> momentum = gdtx.onecycle_momentum_schedule(100, 0.5, 0.75)
    >>> float(momentum(0)), float(momentum(45)), float(momentum(90)), float(momentum(999))
    (0.75, 0.5, 0.75, 0.75)
    """
    name = "onecycle_momentum_schedule"
    up, down, *_ = _phases(name, transition_steps, pct_start, pct_final)
    values = [max_momentum, base_momentum, max_momentum]
    return interpolated(interpolate_type, values, (up, down))


def one_cycle(
    peak_value: Any,
    transition_steps: int,
    pct_start: float = 0.45,
    pct_final: float | None = 0.9,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    base_momentum: Any = 0.85,
    max_momentum: Any = 0.95,
    interpolate_type: str = "linear",
) -> tuple[Schedule, Schedule]:
    r"""The learning rate and the momentum of one cycle, to be given to a method together.

    :func:`linear_onecycle_schedule` (or :func:`cosine_onecycle_schedule`) and
    :func:`onecycle_momentum_schedule` of the same phases. By default those of the paper: as many
    steps up as down, then a last tenth in which the learning rate is annihilated while the
    momentum stays.

    Args:
        peak_value: largest learning rate, reached at step $\lfloor p T \rfloor$.
        transition_steps: $T$, length of the whole; the last values stay.
        pct_start: $p$, share of the steps in which the learning rate rises.
        pct_final: $q$, share after which it is back where it began; None lets it fall from its
            peak to its end in one phase.
        div_factor: the learning rate begins at the peak over this,
        final_div_factor: and ends at that over this.
        base_momentum: smallest momentum, at the peak of the learning rate.
        max_momentum: momentum at the beginning and at the end.
        interpolate_type: "linear" or "cosine".

    Returns:
        Two schedules, `(learning_rate, momentum)`.

    Raises:
        ValueError: if an argument is out of its range.

    References:
        Smith & Topin 2018, see :func:`linear_onecycle_schedule`; Smith 2018, A Disciplined
        Approach to Neural Network Hyper-Parameters: Part 1, arXiv:1803.09820 (the momentum).

    >>> import gdtx
    >>> learning_rate, momentum = gdtx.one_cycle(1.0, 100)
    >>> [round(float(learning_rate(t)), 6) for t in (0, 45, 90, 100)]
    [0.04, 1.0, 0.04, 4e-06]
    >>> tx = gdtx.sgd(learning_rate, momentum)
    """
    rates = {"linear": linear_onecycle_schedule, "cosine": cosine_onecycle_schedule}
    rate = choice("one_cycle: interpolate_type", rates, interpolate_type)
    learning_rate = rate(
        transition_steps,
        peak_value,
        pct_start=pct_start,
        pct_final=pct_final,
        div_factor=div_factor,
        final_div_factor=final_div_factor,
    )
    momentum = onecycle_momentum_schedule(
        transition_steps, base_momentum, max_momentum, pct_start, pct_final, interpolate_type
    )
    return learning_rate, momentum
